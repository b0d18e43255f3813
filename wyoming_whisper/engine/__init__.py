"""Whisper compiled: from CTranslate2's weights to ONNX graphs, and the runtimes that run them.

Knows nothing of text, requests or the protocol.
"""
