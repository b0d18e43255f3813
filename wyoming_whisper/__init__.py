"""Speech-to-text server for Home Assistant: the Wyoming protocol in front of Whisper."""

__version__ = "0.1.0"
