"""What is made of logits: rules of timestamps, probabilities, the best tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .audio import SECONDS_PER_TIMESTAMP, Array
from .session import Tokens
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


def token_logprobs(logits: Array, tokens: Sequence[int]) -> Array:
    """Return the log-probability of one token in each row, shape = (len(tokens),).

    As log_softmax has it; of `logits`, shape = (n >= len(tokens), n_vocab), row by row: what is
    computed on the way stays in the processor's cache.
    """
    rows = logits[: len(tokens)]
    shifted = np.empty(logits.shape[-1], np.float32)
    chosen, sums = np.empty((2, len(tokens)), np.float32)
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        np.subtract(row, row.max(), out=shifted)
        chosen[i] = shifted[token]
        sums[i] = np.exp(shifted, out=shifted).sum()
    return np.asarray(chosen - np.log(sums), np.float32)


def top(logprobs: Array, n_best: int) -> tuple[Tokens, Array]:
    """Return the n_best (tokens, logprobs) of each row, best first."""
    tokens = np.argpartition(-logprobs, n_best - 1, axis=-1)[:, :n_best]
    best = np.take_along_axis(logprobs, tokens, axis=-1)
    order = np.argsort(-best, axis=-1, kind="stable")
    return (
        np.take_along_axis(tokens, order, axis=-1).astype(np.int32),
        np.take_along_axis(best, order, axis=-1),
    )
