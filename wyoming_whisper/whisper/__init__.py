"""Whisper without a runtime: audio to mel, text to tokens, the decoding policy. numpy only."""
