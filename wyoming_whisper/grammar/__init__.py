"""The sentences of one home as an automaton over Whisper's tokens. Nothing here runs a model."""
