"""What is made of logits: rules of timestamps, probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .audio import SECONDS_PER_TIMESTAMP, Array
from .tokenizer import Tokenizer


def apply_timestamp_rules(logits: Array, tokens: Sequence[int], tokenizer: Tokenizer) -> None:
    """Make impossible, in place, what timestamps forbid after `tokens`, shape = (n_vocab,).

    They come in pairs, except right before the end; they never decrease; the first is early; and
    where all of them together are likelier than any one text token, one of them it is
    (openai/whisper, decoding.py: ApplyTimestampRules).
    """
    max_initial = round(1.0 / SECONDS_PER_TIMESTAMP)  # openai/whisper, DecodingOptions
    begin = tokenizer.timestamp_begin
    logits[tokenizer.no_timestamps] = -np.inf
    if not tokens:
        logits[:begin] = -np.inf
        logits[begin + max_initial + 1 :] = -np.inf
        return
    after_one = tokens[-1] >= begin
    if after_one and (len(tokens) == 1 or tokens[-2] >= begin):
        logits[begin:] = -np.inf
        return
    if after_one:
        logits[: tokenizer.eot] = -np.inf
        logits[begin : tokens[-1]] = -np.inf
    else:
        latest = next((token for token in reversed(tokens) if token >= begin), begin - 1)
        logits[begin : latest + 1] = -np.inf
    logprobs = log_softmax(logits)
    if np.logaddexp.reduce(logprobs[begin:]) > logprobs[:begin].max():
        logits[:begin] = -np.inf


def log_softmax(logits: Array) -> Array:
    """Return log-probabilities over the last axis; -inf stays what it is."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float32)
