"""Names of the home: Home Assistant's, followed, and in a text that was misheard."""
