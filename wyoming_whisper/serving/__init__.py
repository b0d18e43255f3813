"""The Wyoming server: its life, its connections, and how it is found."""
