"""The commands of `wyoming-whisper`, apart from what they work on."""
