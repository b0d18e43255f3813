"""What every session does, of the graphs for GPUs in onnxruntime and of those for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import SIZES, Models
from tests.engine.test_oracle import (
    HALF_TOLERANCE,
    LOGITS_TOLERANCE,
    compare,
    log_softmax,
    noise,
    row,
)
from wyoming_whisper.engine.session import IMPOSSIBLE
from wyoming_whisper.engine.tensorrt.plan import PlanFacts
from wyoming_whisper.errors import EngineError

Opens = Callable[..., Any]
KINDS = ("session", "cpu_session")
"""Methods of Models that open one."""


@pytest.fixture(params=KINDS)
def opens(request: pytest.FixtureRequest, models: Models) -> Opens:
    """What opens a session of a model in float32."""
    opener: Opens = getattr(models, request.param)
    return opener


PRECISIONS = pytest.mark.parametrize(
    ("kind", "precision"), [*((kind, "float32") for kind in KINDS), ("session", "float16")]
)


@pytest.mark.parametrize("n_frames", [2, 202, 1000, 3000])
@pytest.mark.parametrize("name", SIZES)
def test_greedy_tokens_and_logits_are_ctranslate2s(
    name: str, n_frames: int, models: Models, opens: Opens
) -> None:
    size, mel = SIZES[name], noise(SIZES[name].n_mels, n_frames, n_frames)
    varied = compare(opens(name), models.oracle(name), size, mel, size.prompt)
    assert varied > 1  # one token over and over would prove little


@pytest.mark.parametrize("length", [1, 63, 64, 65, 150])
def test_prompts_of_any_length(length: int, models: Models, opens: Opens) -> None:
    size = SIZES["tiny"]
    words = np.random.default_rng(length).integers(0, size.n_words, length).tolist()
    prompt = [size.previous, *words, *size.prompt]
    assert 2 * PlanFacts.MAX_PREFILL_TOKENS < 150
    compare(opens("tiny"), models.oracle("tiny"), size, noise(size.n_mels, 400), prompt)


@PRECISIONS
def test_rows_share_the_audio_and_nothing_else(kind: str, precision: str, models: Models) -> None:
    session, size = getattr(models, kind)("tiny", precision, 5), SIZES["tiny"]
    features, bias = session.encode(noise(size.n_mels, 300)), session.bias(size.suppressed)
    tokens = np.random.default_rng(1).integers(0, size.n_words, (5, 9)).astype(np.int32)
    pieces = (slice(0, 6), slice(6, 7), slice(7, 9))
    together = session.open_cache(features, 5, 64)
    rows = [session.step(together, tokens[:, at], at.start, bias).logits().copy() for at in pieces]
    tolerance = LOGITS_TOLERANCE if precision == "float32" else HALF_TOLERANCE
    for i in range(5):
        alone = session.open_cache(features, 1, 64)
        for at, logits in zip(pieces, rows, strict=True):
            expected = session.step(alone, tokens[i : i + 1, at], at.start, bias).logits()
            np.testing.assert_allclose(logits[i], expected[0], atol=tolerance)
    assert np.abs(rows[0][0] - rows[0][1]).max() > 1


@pytest.mark.parametrize(
    ("kind", "parents"),
    [
        ("session", [3, 3, 0, 4, 1]),
        ("cpu_session", [3, 3, 0, 4, 1]),
        ("cpu_session", [2, 2]),  # there may be fewer rows than before, or more
        ("cpu_session", [4, 4, 4, 0, 1, 2, 3, 3]),
    ],
)
@pytest.mark.parametrize("n_new", [1, 3])
def test_a_row_continues_the_past_of_its_parent(
    kind: str, parents: list[int], n_new: int, models: Models
) -> None:
    session, size = getattr(models, kind)("tiny", beam_size=8), SIZES["tiny"]
    features, bias = session.encode(noise(size.n_mels, 300)), session.bias([])
    random = np.random.default_rng(2)
    past = random.integers(0, size.n_words, (5, 4)).astype(np.int32)
    new = random.integers(0, size.n_words, (len(parents), n_new)).astype(np.int32)
    cache = session.open_cache(features, 5, 64)
    session.step(cache, past, 0, bias)
    continued = session.step(cache, new, 4, bias, np.array(parents, np.int32)).logits().copy()
    # And that is where they stay: the next step knows nothing of parents.
    after = session.step(cache, new, 4 + n_new, bias).logits().copy()
    for i, parent in enumerate(parents):
        alone = session.open_cache(features, 1, 64)
        expected = session.step(alone, row([*past[parent], *new[i]]), 0, bias).logits()
        np.testing.assert_allclose(continued[i], expected[0], atol=LOGITS_TOLERANCE)
        expected = session.step(alone, new[i : i + 1], 4 + n_new, bias).logits()
        np.testing.assert_allclose(after[i], expected[0], atol=LOGITS_TOLERANCE)


@pytest.mark.parametrize("position", [0, 5, 39])
def test_a_step_back_forgets_what_lay_ahead(position: int, opens: Opens) -> None:
    session, size = opens("tiny"), SIZES["tiny"]
    features, bias = session.encode(noise(size.n_mels, 300)), session.bias([])
    cache = session.open_cache(features, 1, 64)
    session.step(cache, row(list(range(40))), 0, bias)
    logits = session.step(cache, row([91, 92]), position, bias).logits().copy()
    fresh = session.open_cache(features, 1, 64)
    expected = session.step(fresh, row([*range(position), 91, 92]), 0, bias).logits()
    np.testing.assert_allclose(logits, expected, atol=LOGITS_TOLERANCE)


@PRECISIONS
def test_bias_best_and_candidates_follow_from_the_logits(
    kind: str, precision: str, models: Models
) -> None:
    session, size = getattr(models, kind)("tiny", precision, 5), SIZES["tiny"]
    cache = session.open_cache(session.encode(noise(size.n_mels, 300)), 5, 64)
    tokens = np.arange(10, dtype=np.int32).reshape(5, 2)
    free = session.step(cache, tokens, 0, session.bias([])).logits().copy()
    suppressed = np.argsort(-free[0])[:3].tolist()
    bias = session.bias(suppressed)
    assert np.flatnonzero(bias == IMPOSSIBLE).tolist() == sorted(suppressed)
    output = session.step(cache, tokens, 0, bias)
    np.testing.assert_array_equal(output.logits(), free)  # they are without the bias
    expected = log_softmax(free + bias)
    order = np.argsort(-expected, axis=1)[:, :10]
    likeliest = np.take_along_axis(expected, order, 1)
    best, logprobs = output.best()
    candidates, candidate_logprobs = output.candidates()
    assert best.dtype == candidates.dtype == np.dtype(np.int32)
    assert (session.n_candidates, candidates.shape) == (10, (5, 10))
    np.testing.assert_array_equal(best, order[:, 0])
    np.testing.assert_array_equal(candidates[:, 0], best)
    np.testing.assert_allclose(logprobs, likeliest[:, 0], atol=1e-5)
    # By value: equal logits, which float16 has, may come in any order.
    np.testing.assert_allclose(
        np.take_along_axis(expected, candidates.astype(np.intp), 1), likeliest, atol=1e-6
    )
    np.testing.assert_allclose(candidate_logprobs, likeliest, atol=1e-5)
    assert not set(candidates.ravel()) & set(suppressed)


def test_greedy_ends_with_the_budget_or_the_cache(opens: Opens) -> None:
    session, size = opens("tied"), SIZES["tied"]
    features, bias = session.encode(noise(size.n_mels, 100)), session.bias([])
    cache = session.open_cache(features, 1, 16)
    assert len(list(session.greedy(cache, 1, 0, bias, 10))) == 10
    assert len(list(session.greedy(cache, 1, 10, bias, 100))) == 6
    assert list(session.greedy(cache, 1, 10, bias, 0)) == []


def test_what_the_graphs_say_of_themselves(opens: Opens) -> None:
    greedy, beam = opens("turbo"), opens("turbo", beam_size=8)
    size = SIZES["turbo"]
    assert greedy.n_mels == beam.n_mels == 128
    assert greedy.n_vocab == size.n_words + 10 + size.n_times
    assert (greedy.n_candidates, greedy.max_batch) == (0, 5)
    assert (beam.n_candidates, beam.max_batch) == (16, 8)


@pytest.mark.parametrize("kind", ["session", "cpu_session"])
def test_what_onnxruntime_raises_is_an_engine_error(kind: str, models: Models) -> None:
    session, size = getattr(models, kind)("tiny"), SIZES["tiny"]
    cache = session.open_cache(session.encode(noise(size.n_mels, 300)), 1, 64)
    no_such_token = np.array([[10**6]], np.int32)
    with pytest.raises(EngineError, match=r"onnxruntime failed: .+ out of data bounds"):
        session.step(cache, no_such_token, 0, session.bias([]))
