"""Other servers that are asked first, in order; the model of this machine is the last.

Wyoming servers hear the audio while it is spoken, OpenAI-compatible endpoints get the speech when
it has ended. None of them can lose an utterance: the audio stays here until somebody has answered.
"""
