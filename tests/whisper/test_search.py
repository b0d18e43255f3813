"""Search over a scripted session: what is found, and what the session is asked to compute."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tests.whisper.scripted import IDS, TIMESTAMP_BEGIN, ByteTokenizer
from wyoming_whisper.text.repetition import loops
from wyoming_whisper.whisper.audio import Array
from wyoming_whisper.whisper.encoded import EncodedAudio
from wyoming_whisper.whisper.inference import GenerateOptions, Hypothesis
from wyoming_whisper.whisper.options import N_TEXT_CTX
from wyoming_whisper.whisper.search import SessionInference, apply_timestamp_rules, log_softmax
from wyoming_whisper.whisper.session import Tokens
from wyoming_whisper.whisper.tokenizer import Tokenizer

N_VOCAB = TIMESTAMP_BEGIN + 1501
EOT, SOT, NO_TIMESTAMPS = (
    IDS[f"<|{n}|>"] for n in ("endoftext", "startoftranscript", "notimestamps")
)
PROMPT = [SOT, IDS["<|en|>"], IDS["<|transcribe|>"], NO_TIMESTAMPS]
WITH_TIMESTAMPS = PROMPT[:-1]
PREVIOUS = [IDS["<|startofprev|>"], 1, 2, *PROMPT]
OTHER_PREVIOUS = [IDS["<|startofprev|>"], 1, 3, *PROMPT]
MEL = np.zeros((80, 200), np.float32)


def options(**changes: Any) -> GenerateOptions:
    values = {
        "beam_size": 1,
        "temperature": 0.0,
        "best_of": 5,
        "max_new_tokens": 30,
        "suppressed_tokens": (),
    }
    return GenerateOptions(**{**values, **changes})


class Model:
    """Logits that depend on every token before: any token fed wrongly or twice changes the end."""

    def __init__(self, ends_after: int | None = None, alphabet: int = 256) -> None:
        self.ends_after = ends_after
        self.alphabet = alphabet

    def logits(self, past: Sequence[int]) -> Array:
        random = np.random.default_rng(list(past))
        found = np.full(N_VOCAB, -50.0, np.float32)
        found[: self.alphabet] = random.normal(0, 3, self.alphabet)
        found[EOT] = random.normal(0, 3)
        found[TIMESTAMP_BEGIN:] = random.normal(-3, 3, N_VOCAB - TIMESTAMP_BEGIN)
        if self.ends_after is not None:
            said = len(past) - past.index(SOT) - 4
            found[EOT] = 60 if said >= self.ends_after else -60
        return found


class LoopingModel(Model):
    def logits(self, past: Sequence[int]) -> Array:
        found = np.full(N_VOCAB, -50.0, np.float32)
        found[ord("a") + len(past) % 2] = 10
        return found


@dataclass
class ScriptedOutput:
    values: Array
    bias: Array
    n_candidates: int

    def logits(self) -> Array:
        return self.values

    def best(self) -> tuple[Tokens, Array]:
        logprobs = log_softmax(self.values + self.bias)
        return logprobs.argmax(-1).astype(np.int32), logprobs.max(-1)

    def candidates(self) -> tuple[Tokens, Array]:
        assert self.n_candidates
        logprobs = log_softmax(self.values + self.bias)
        order = np.argsort(-logprobs, axis=-1)[:, : self.n_candidates].astype(np.int32)
        return order, np.take_along_axis(logprobs, order, axis=-1)


@dataclass
class ScriptedCache:
    audio: int
    rows: list[list[int]]
    n_slots: int
    open: bool = True


@dataclass
class ScriptedSession:
    """Holds tokens where a real one holds keys and values, and checks how it is used."""

    model: Model
    beam_size: int = 1
    max_batch: int = 8
    n_mels: int = 80
    n_vocab: int = N_VOCAB
    n_candidates: int = 0
    is_elastic: bool = False
    encoded: int = 0
    steps: list[tuple[int, int]] = field(default_factory=list)
    """(n_tokens, position) of every step."""
    opened: list[tuple[int, int]] = field(default_factory=list)
    """(batch, n_slots) of every cache."""
    batches: list[int] = field(default_factory=list)
    """The rows of every step."""
    caches: dict[int, ScriptedCache] = field(default_factory=dict)
    asked: int = 0

    def __post_init__(self) -> None:
        self.n_candidates = 2 * self.beam_size if self.beam_size > 1 else 0

    def encode(self, mel: Array) -> int:
        self.encoded += 1
        return self.encoded

    def bias(self, suppressed: Sequence[int]) -> Array:
        vector = np.zeros(N_VOCAB, np.float32)
        vector[list(suppressed)] = -1e30
        return vector

    def open_cache(self, audio_features: int, batch: int, n_slots: int) -> ScriptedCache:
        assert audio_features == self.encoded
        assert batch <= self.max_batch
        assert n_slots in EncodedAudio.SLOTS
        if batch in self.caches:
            self.caches[batch].open = False
        self.opened.append((batch, n_slots))
        self.caches[batch] = ScriptedCache(audio_features, [[] for _ in range(batch)], n_slots)
        return self.caches[batch]

    def step(
        self,
        cache: ScriptedCache,
        tokens: Tokens,
        position: int,
        bias: Array,
        parents: Tokens | None = None,
    ) -> ScriptedOutput:
        assert cache.open
        assert cache.audio == self.encoded
        assert tokens.shape[0] == len(cache.rows)
        return self._fed(cache, tokens, position, bias, parents)

    def _fed(
        self,
        cache: ScriptedCache,
        tokens: Tokens,
        position: int,
        bias: Array,
        parents: Tokens | None,
    ) -> ScriptedOutput:
        assert tokens.dtype == np.int32
        assert position + tokens.shape[1] <= cache.n_slots
        assert parents is None or self.beam_size > 1 or self.is_elastic
        self.steps.append((tokens.shape[1], position))
        self.batches.append(len(tokens))
        sources = range(len(cache.rows)) if parents is None else parents.tolist()
        cache.rows = [
            [*cache.rows[source][:position], *row]
            for source, row in zip(sources, tokens.tolist(), strict=True)
        ]
        assert all(len(row) == position + tokens.shape[1] for row in cache.rows)
        logits = np.stack([self.model.logits(row) for row in cache.rows])
        return ScriptedOutput(logits, bias, self.n_candidates)

    def greedy(
        self, cache: ScriptedCache, token: int, position: int, bias: Array, max_new_tokens: int
    ) -> Iterator[tuple[int, float]]:
        for at in range(position, min(position + max_new_tokens, cache.n_slots)):
            output = self.step(cache, np.array([[token]], np.int32), at, bias)
            tokens, logprobs = output.best()
            token = int(tokens[0])
            self.asked += 1
            yield token, float(logprobs[0])

    def close(self) -> None:
        self.caches.clear()


@dataclass
class ScriptedElasticOutput(ScriptedOutput):
    wanted: Array

    def wanted_logits(self) -> Array:
        return self.wanted


@dataclass
class ScriptedElasticSession(ScriptedSession):
    """An ElasticSession: nothing is laid out, so nothing is ever gone."""

    is_elastic: bool = True

    def open_cache(self, audio_features: int, batch: int, n_slots: int) -> ScriptedCache:
        assert 0 < audio_features <= self.encoded
        self.opened.append((batch, n_slots))
        return ScriptedCache(audio_features, [[] for _ in range(batch)], n_slots)

    def step(
        self,
        cache: ScriptedCache,
        tokens: Tokens,
        position: int,
        bias: Array,
        parents: Tokens | None = None,
        wanted: Sequence[int] = (),
    ) -> ScriptedElasticOutput:
        assert len(tokens) == len(cache.rows if parents is None else parents)
        assert all(0 <= index < tokens.shape[1] for index in wanted)
        found = self._fed(cache, tokens, position, bias, parents)
        logits = [
            [self.model.logits(row[: position + index + 1]) for index in wanted]
            for row in cache.rows
        ]
        return ScriptedElasticOutput(found.values, bias, self.n_candidates, np.array(logits))


@pytest.fixture(params=[ScriptedSession, ScriptedElasticSession], ids=["fixed", "elastic"])
def scripted(request: pytest.FixtureRequest) -> type[ScriptedSession]:
    found: type[ScriptedSession] = request.param
    return found


def inference(session: ScriptedSession, begin: Sequence[int] = ()) -> SessionInference:
    return SessionInference(session, Tokenizer(ByteTokenizer(), multilingual=True), begin)


def search(session: ScriptedSession, prompt: list[int], **changes: Any) -> list[Hypothesis]:
    whisper = inference(session)
    return whisper.hypotheses(whisper.encode(MEL), prompt, options(**changes))


def expected_greedy(
    model: Model, prompt: list[int], n: int, suppressed: Sequence[int] = ()
) -> tuple[list[int], float]:
    """Return what openai/whisper's GreedyDecoder finds, the whole past at every step."""
    tokens: list[int] = []
    total = 0.0
    for _ in range(n):
        logits = model.logits(prompt + tokens)
        logits[list(suppressed)] = -np.inf
        logprobs = log_softmax(logits)
        token = int(logprobs.argmax())
        total += float(logprobs[token])
        if token == EOT:
            break
        tokens.append(token)
    return tokens, total / (len(tokens) + 1)


@pytest.mark.parametrize("length", [0, 1, 7, 29])
@pytest.mark.parametrize("prompt", [PROMPT, [IDS["<|startofprev|>"], *range(60), *PROMPT]])
def test_greedy_takes_the_likeliest_until_the_end(
    scripted: type[ScriptedSession], prompt: list[int], length: int
) -> None:
    model = Model(ends_after=length)
    (found,) = search(scripted(model), prompt)
    tokens, avg_logprob = expected_greedy(model, prompt, 30)
    assert found.tokens == tokens
    assert len(tokens) == length
    assert found.avg_logprob == pytest.approx(avg_logprob, abs=1e-4)


@pytest.mark.parametrize("n_prompt", [0, 20, 55, 59, 60, 61, 123, 124, 200])
def test_a_cache_that_is_full_is_replaced_by_a_larger_one(n_prompt: int) -> None:
    prompt = [IDS["<|startofprev|>"], *([7, 9, 4] * 100)[:n_prompt], *PROMPT]
    session = ScriptedSession(Model(ends_after=150))
    (found,) = search(session, prompt, max_new_tokens=200)
    assert found.tokens == expected_greedy(session.model, prompt, 200)[0]
    assert len(found.tokens) == 150
    assert len(session.opened) > 1


@pytest.mark.parametrize("changes", [{}, {"beam_size": 3}, {"temperature": 0.5}])
def test_a_cache_that_grows_is_opened_once(changes: dict[str, Any]) -> None:
    session = ScriptedElasticSession(Model(ends_after=150), beam_size=3)
    found = search(session, PROMPT, max_new_tokens=200, **changes)
    assert {len(h.tokens) for h in found} == {150}
    assert [n_slots for batch, n_slots in session.opened if batch == session.batches[0]] == [
        N_TEXT_CTX
    ]


def test_the_whole_context_can_be_filled(scripted: type[ScriptedSession]) -> None:
    session = scripted(Model(ends_after=1000))
    budget = N_TEXT_CTX - len(PROMPT)
    (found,) = search(session, PROMPT, max_new_tokens=budget)
    assert len(found.tokens) == budget
    assert max(n_slots for _, n_slots in session.opened) == N_TEXT_CTX


def test_the_prompt_is_fed_once_for_all_attempts(scripted: type[ScriptedSession]) -> None:
    session = scripted(Model(ends_after=3))
    whisper = inference(session)
    audio = whisper.encode(MEL)
    whisper.detect_language(audio)
    assert session.steps == [(1, 0)]
    whisper.generate(audio, PROMPT, options())
    assert session.steps[1:] == [(3, 1), (1, 4), (1, 5), (1, 6)]
    session.steps.clear()
    whisper.generate(audio, PROMPT, options())
    assert session.steps == [(1, 3), (1, 4), (1, 5), (1, 6)]
    session.steps.clear()
    for temperature in (0.4, 0.8):
        whisper.generate(audio, PROMPT, options(temperature=temperature))
    assert [step for step in session.steps if step[0] > 1] == [(4, 0)]


def test_other_audio_starts_anew_and_the_old_is_refused() -> None:
    session = ScriptedSession(Model(ends_after=3))
    whisper = inference(session)
    old = whisper.encode(MEL)
    whisper.generate(old, PROMPT, options())
    audio = whisper.encode(MEL)
    session.steps.clear()
    whisper.generate(audio, PROMPT, options())
    assert session.steps[0] == (1, 0)
    with pytest.raises(RuntimeError, match="replaced"):
        whisper.generate(old, PROMPT, options())


def test_other_audio_leaves_the_old_as_it_was() -> None:
    session = ScriptedElasticSession(Model(ends_after=3))
    whisper = inference(session)
    old = whisper.encode(MEL)
    found = whisper.generate(old, PROMPT, options())
    whisper.generate(whisper.encode(MEL), PROMPT, options())
    session.steps.clear()
    assert whisper.generate(old, PROMPT, options()) == found
    assert session.steps[0] == (1, 3)  # what it was fed is still there


@pytest.mark.parametrize("changes", [{}, {"beam_size": 5}, {"temperature": 0.6}])
@pytest.mark.parametrize("prompt", [PROMPT, WITH_TIMESTAMPS])
def test_suppressed_tokens_never_come(
    scripted: type[ScriptedSession], prompt: list[int], changes: dict[str, Any]
) -> None:
    model = Model(ends_after=20)
    session = scripted(model, beam_size=5)
    first = expected_greedy(model, prompt, 1)[0][0] if prompt == PROMPT else TIMESTAMP_BEGIN
    suppressed = tuple(range(0, 256, 2))
    whisper = inference(session, begin=(first, EOT))
    for found in whisper.hypotheses(
        whisper.encode(MEL), prompt, options(suppressed_tokens=suppressed, **changes)
    ):
        assert found.tokens
        assert not set(found.tokens) & set(suppressed)
        assert found.tokens[0] != first


def test_what_may_not_come_first_may_come_later(scripted: type[ScriptedSession]) -> None:
    model = Model(ends_after=5)
    usual = expected_greedy(model, PROMPT, 30)[0]
    whisper = inference(scripted(model), begin=[usual[1]])
    found = whisper.generate(whisper.encode(MEL), PROMPT, options())
    assert found.tokens == usual


@pytest.mark.parametrize("changes", [{}, {"beam_size": 3}, {"temperature": 0.2, "best_of": 2}])
def test_a_loop_is_left_early(scripted: type[ScriptedSession], changes: dict[str, Any]) -> None:
    session = scripted(LoopingModel(), beam_size=3)
    found = search(session, PROMPT, max_new_tokens=200, **changes)
    assert loops(found[0].tokens, SessionInference.STOP_REPEATS - 1)
    assert max(len(h.tokens) for h in found) <= 2 * SessionInference.STOP_REPEATS + 1


def test_who_says_no_five_times_is_heard_to_the_end(scripted: type[ScriptedSession]) -> None:
    text = [*b"no" * 8, *b"stop"]

    class Insisting(Model):
        def logits(self, past: Sequence[int]) -> Array:
            said = len(past) - len(PROMPT)
            found = np.full(N_VOCAB, -50.0, np.float32)
            found[[*text, EOT][said] if said >= 0 else 0] = 10
            return found

    assert search(scripted(Insisting()), PROMPT)[0].tokens == text


def test_no_speech_is_judged_after_the_start_of_the_transcript(
    scripted: type[ScriptedSession],
) -> None:
    class Silent(Model):
        def logits(self, past: Sequence[int]) -> Array:
            found = super().logits(past)
            if past[-1] == SOT:
                found[:] = -50
                found[IDS["<|nospeech|>"]] = np.log(3.0)
                found[5] = 0.0
            return found

    (found,) = search(scripted(Silent(ends_after=2)), PREVIOUS)
    assert found.no_speech_prob == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize("changes", [{}, {"beam_size": 5}, {"temperature": 0.6}])
@pytest.mark.parametrize("prompt", [PROMPT, WITH_TIMESTAMPS, PREVIOUS])
def test_no_speech_needs_no_run_of_its_own(prompt: list[int], changes: dict[str, Any]) -> None:
    n = len(prompt)
    fixed, elastic = (
        kind(Model(ends_after=2), beam_size=5) for kind in (ScriptedSession, ScriptedElasticSession)
    )
    assert search(elastic, prompt, **changes) == search(fixed, prompt, **changes)
    sot = prompt.index(SOT) + 1
    assert fixed.steps[0] == (sot, 0)
    assert elastic.steps[0] == (n, 0)
    assert {n_tokens for n_tokens, _ in elastic.steps[1:]} == {1}
    assert min(position for _, position in elastic.steps[1:]) == n


def test_no_speech_is_judged_anew_after_other_text(scripted: type[ScriptedSession]) -> None:
    whisper = inference(scripted(Model(ends_after=2)))
    audio = whisper.encode(MEL)
    prompts = [PROMPT, PREVIOUS, OTHER_PREVIOUS, PROMPT]
    found = [whisper.generate(audio, prompt, options()) for prompt in prompts]
    alone = [search(scripted(Model(ends_after=2)), prompt)[0] for prompt in prompts]
    assert [h.tokens for h in found] == [h.tokens for h in alone]
    assert [h.no_speech_prob for h in found] == [h.no_speech_prob for h in alone]
    assert len({h.no_speech_prob for h in found}) == 3


def test_no_speech_comes_with_what_is_new_of_a_prompt() -> None:
    session = ScriptedElasticSession(Model(ends_after=2))
    whisper = inference(session)
    audio = whisper.encode(MEL)
    for prompt in (PROMPT, PREVIOUS, OTHER_PREVIOUS, OTHER_PREVIOUS):
        whisper.generate(audio, prompt, options())
    found = [step for step in session.steps if step[1] < len(PROMPT) or step[0] > 1]
    assert found == [(4, 0), (7, 0), (5, 2)]
    assert len(session.steps) == 3 * 4


def test_languages_are_those_of_the_vocabulary_and_sum_to_one(
    scripted: type[ScriptedSession],
) -> None:
    class German(Model):
        def logits(self, past: Sequence[int]) -> Array:
            found = super().logits(past)
            assert list(past) == [SOT]
            found[IDS["<|de|>"]], found[IDS["<|en|>"]] = 2.0, 1.0
            return found

    whisper = inference(scripted(German()))
    found = whisper.detect_language(whisper.encode(MEL))
    assert [code for code, _ in found] == ["de", "en"]
    assert sum(p for _, p in found) == pytest.approx(1)
    assert found[0][1] / found[1][1] == pytest.approx(np.e, rel=1e-4)


# Beam search


def every_text(model: Model, n: int) -> list[tuple[float, list[int]]]:
    """Return (mean logprob over tokens, tokens) of all texts of at most n - 1 tokens."""
    found = []
    for length in range(1, n):
        for tokens in itertools.product(range(model.alphabet), repeat=length):
            past, total = list(PROMPT), 0.0
            for token in (*tokens, EOT):
                logits = model.logits(past)
                logits[TIMESTAMP_BEGIN:] = -np.inf
                if past == PROMPT:
                    logits[EOT] = -np.inf
                total += float(log_softmax(logits)[token])
                past.append(token)
            found.append((total / length, list(tokens)))
    return sorted(found, reverse=True)


def test_a_beam_wide_enough_finds_the_best_of_all_texts(scripted: type[ScriptedSession]) -> None:
    model = Model(alphabet=3)
    suppressed = (*range(TIMESTAMP_BEGIN, N_VOCAB),)
    session = scripted(model, beam_size=40, max_batch=40)
    whisper = inference(session, begin=[EOT])
    found = whisper.hypotheses(
        whisper.encode(MEL),
        PROMPT,
        options(beam_size=40, max_new_tokens=3, suppressed_tokens=suppressed),
    )
    ended = [h.tokens for h in found if len(h.tokens) < 3 and max(h.tokens) < model.alphabet]
    assert ended == [tokens for _, tokens in every_text(model, 3)]
    assert len(ended) == 3 + 9


def test_beams_of_one_width_are_as_greedy_as_greedy_search(scripted: type[ScriptedSession]) -> None:
    model = Model(ends_after=6)
    found = search(scripted(model, beam_size=5), PROMPT, beam_size=5)
    assert len(found) == 5
    likeliest = [h.avg_logprob * (len(h.tokens) + 1) / len(h.tokens) for h in found]
    assert likeliest == sorted(likeliest, reverse=True)
    greedy = search(scripted(model), PROMPT)[0]
    assert found[0].avg_logprob >= greedy.avg_logprob - 1e-5


def test_beams_grow_into_a_larger_cache() -> None:
    model = Model(ends_after=100)
    session = ScriptedSession(model, beam_size=3)
    found = search(session, PROMPT, beam_size=3, max_new_tokens=150)
    assert {len(h.tokens) for h in found} == {100}
    assert [n_slots for batch, n_slots in session.opened if batch == 3] == [64, 128]


@pytest.mark.parametrize("prompt", [PROMPT, WITH_TIMESTAMPS])
def test_beams_begin_with_one_row(prompt: list[int]) -> None:
    session = ScriptedElasticSession(Model(ends_after=6), beam_size=5)
    found = search(session, prompt, beam_size=5)
    assert found == search(ScriptedSession(Model(ends_after=6), beam_size=5), prompt, beam_size=5)
    assert len(found) == 5
    assert session.opened == [(1, N_TEXT_CTX)]
    assert session.batches[0] == 1
    assert set(session.batches[1:]) == {5}


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_after_beams_that_came_to_nothing_there_may_be_samples(
    scripted: type[ScriptedSession], n_steps: int
) -> None:
    """As many as there were beams: these may never have become more than one row."""

    class Left(BaseException):
        pass

    n_tokens = 0

    def checkpoint() -> None:
        nonlocal n_tokens
        n_tokens += 1
        if n_tokens > n_steps:
            raise Left

    whisper = inference(scripted(Model(ends_after=6), beam_size=5))
    audio = whisper.encode(MEL)
    sampled = options(temperature=0.6, best_of=5)
    whisper.generate(audio, PROMPT, options(beam_size=5, max_new_tokens=n_steps))
    found = whisper.hypotheses(audio, PROMPT, sampled)
    with pytest.raises(Left):
        whisper.generate(audio, PROMPT, options(beam_size=5, checkpoint=checkpoint))
    assert whisper.hypotheses(audio, PROMPT, sampled) == found
    expected = search(
        scripted(Model(ends_after=6), beam_size=5), PROMPT, temperature=0.6, best_of=5
    )
    assert found == expected
    assert len(found) == 5


def test_more_beams_than_were_built_are_refused(scripted: type[ScriptedSession]) -> None:
    with pytest.raises(ValueError, match="beam_size 5 is more than the session's 2"):
        search(scripted(Model(), beam_size=2), PROMPT, beam_size=5)


# Scoring

TEXTS = [[5, 6, 7], [5, 6, 8, 9], [], [11], [5, 6, 7]]


@pytest.mark.parametrize("prompt", [PROMPT, PREVIOUS])
def test_texts_are_as_likely_as_the_model_says(
    scripted: type[ScriptedSession], prompt: list[int]
) -> None:
    model = Model()
    whisper = inference(scripted(model))
    found = whisper.score(whisper.encode(MEL), prompt, TEXTS)
    assert [scores.shape for scores in found] == [(len(text),) for text in TEXTS]
    for scores, text in zip(found, TEXTS, strict=True):
        assert scores.dtype == np.float32
        expected = [
            log_softmax(model.logits(prompt + text[:i])[:EOT])[token]
            for i, token in enumerate(text)
        ]
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_texts_are_scored_in_one_step() -> None:
    session = ScriptedElasticSession(Model())
    whisper = inference(session)
    audio = whisper.encode(MEL)
    whisper.score(audio, PROMPT, TEXTS)
    longest = max(map(len, TEXTS))
    assert session.steps == [(len(PROMPT) + longest - 1, 0)]
    assert session.batches == [len(TEXTS)]
    # The prompt is fed once, but for its last token; and what is scored again is known.
    whisper.score(audio, PROMPT, [*TEXTS, TEXTS[0][:1]])
    assert session.steps[1:] == [(1, len(PROMPT) - 1)]
    whisper.score(audio, PROMPT, TEXTS)
    assert len(session.steps) == 2
    fixed = ScriptedSession(Model())
    whisper = inference(fixed)
    whisper.score(whisper.encode(MEL), PROMPT, TEXTS)
    assert len(fixed.steps) == sum(map(len, TEXTS))


def test_what_could_not_be_scored_costs_no_other_text(monkeypatch: pytest.MonkeyPatch) -> None:
    session = ScriptedElasticSession(Model())
    whisper = inference(session)
    audio = whisper.encode(MEL)
    with monkeypatch.context() as failing:
        failing.setattr(session, "step", Mock(side_effect=ValueError("too many positions")))
        with pytest.raises(ValueError, match="positions"):
            whisper.score(audio, PROMPT, TEXTS)
    scores = whisper.score(audio, PROMPT, TEXTS)  # the cache has nothing of the prompt
    expected = inference(session).score(whisper.encode(MEL), PROMPT, TEXTS)
    for one, other in zip(scores, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert session.steps[0][1] == 0


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [1] * 4), (6, [1, 1, 2, 1]), (8, [2, 2, 1]), (20, [5])]
)
def test_long_texts_are_scored_a_few_at_once(
    most: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = inference(ScriptedElasticSession(Model()))
    whole = at_once.score(at_once.encode(MEL), PROMPT, TEXTS)
    monkeypatch.setattr(SessionInference, "MAX_SCORED_AT_ONCE", most)
    session = ScriptedElasticSession(Model())
    whisper = inference(session)
    for one, other in zip(whole, whisper.score(whisper.encode(MEL), PROMPT, TEXTS), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert session.batches == expected  # an empty text needs no run


def test_scores_are_forgotten_where_they_are_many(
    monkeypatch: pytest.MonkeyPatch, scripted: type[ScriptedSession]
) -> None:
    monkeypatch.setattr(SessionInference, "MAX_SCORES", 2)
    other = inference(scripted(Model()))
    expected = [other.score(other.encode(MEL), PROMPT, [text])[0] for text in TEXTS]
    whisper = inference(scripted(Model()))
    audio = whisper.encode(MEL)
    for texts in ([0, 1, 3], [0, 2], [1, 0, 3]):  # of the second call, one is kept until then
        scores = whisper.score(audio, PROMPT, [TEXTS[number] for number in texts])
        for number, one in zip(texts, scores, strict=True):
            np.testing.assert_allclose(one, expected[number], atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"beam_size": 3}, {"temperature": 0.5}])
@pytest.mark.parametrize("prompt", [PROMPT, PREVIOUS])
def test_scoring_and_searching_know_nothing_of_each_other(
    scripted: type[ScriptedSession], prompt: list[int], changes: dict[str, Any]
) -> None:
    whisper = inference(scripted(Model(ends_after=6), beam_size=3))
    said, scores = [], []
    searching = options(**changes)
    audio = whisper.encode(MEL)  # searched first, then scored, then searched again
    said.append(whisper.hypotheses(audio, prompt, searching))
    scores.append(whisper.score(audio, prompt, TEXTS))
    said.append(whisper.hypotheses(audio, prompt, searching))
    audio = whisper.encode(MEL)
    scores.append(whisper.score(audio, prompt, TEXTS))
    said.append(whisper.hypotheses(audio, prompt, searching))
    assert said[0] == said[1] == said[2]
    for one, other in zip(*scores, strict=True):
        np.testing.assert_array_equal(one, other)


# Sampling


def test_samples_are_the_same_for_the_same_audio(scripted: type[ScriptedSession]) -> None:
    texts = [
        [h.tokens for h in search(scripted(Model(ends_after=8)), PROMPT, temperature=0.8)]
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    assert len({tuple(text) for text in texts[0]}) > 1


def test_samples_come_as_often_as_they_are_likely(scripted: type[ScriptedSession]) -> None:
    class Coin(Model):
        def logits(self, past: Sequence[int]) -> Array:
            found = np.full(N_VOCAB, -50.0, np.float32)
            if len(past) == len(PROMPT):
                found[:2] = np.log(0.2), np.log(0.8)
            else:
                found[EOT] = 50
            return found

    session = scripted(Coin(), max_batch=2000)
    found = search(session, PROMPT, temperature=1.0, best_of=2000)
    assert len(found) == 2000
    share = sum(h.tokens == [1] for h in found) / 2000
    assert 0.77 < share < 0.83
    assert found[0].tokens == [1]
    assert found[0].avg_logprob == pytest.approx(np.log(0.8) / 2, abs=1e-3)
    assert found[-1].avg_logprob == pytest.approx(np.log(0.2) / 2, abs=1e-3)


def test_no_more_samples_than_the_session_has_rows(scripted: type[ScriptedSession]) -> None:
    session = scripted(Model(ends_after=2), max_batch=3)
    assert len(search(session, PROMPT, temperature=0.4, best_of=5)) == 3


# Timestamps


def allowed(logits: Array, tokens: list[int]) -> set[int]:
    logits = logits.copy()
    apply_timestamp_rules(logits, tokens, Tokenizer(ByteTokenizer(), multilingual=True))
    return set(np.flatnonzero(np.isfinite(logits)).tolist())


def likely(token: int) -> Array:
    logits = np.zeros(N_VOCAB, np.float32)
    logits[token] = 20
    return logits


TEXT = set(range(EOT))
STAMPS = set(range(TIMESTAMP_BEGIN, N_VOCAB))
AT_1, AT_3 = TIMESTAMP_BEGIN + 50, TIMESTAMP_BEGIN + 150


@pytest.mark.parametrize(
    ("said", "next_token", "expected"),
    [
        ([], 5, set(range(TIMESTAMP_BEGIN, TIMESTAMP_BEGIN + 51))),
        ([AT_1], 5, set(range(TIMESTAMP_BEGIN)) - {NO_TIMESTAMPS}),
        (
            [AT_1, 5],
            6,
            set(range(TIMESTAMP_BEGIN)) - {NO_TIMESTAMPS} | {t for t in STAMPS if t > AT_1},
        ),
        (
            [AT_1, 5, AT_3],
            EOT,
            (set(range(EOT, TIMESTAMP_BEGIN)) | {t for t in STAMPS if t >= AT_3}) - {NO_TIMESTAMPS},
        ),
        ([AT_1, 5, AT_3, AT_3], 6, set(range(TIMESTAMP_BEGIN)) - {NO_TIMESTAMPS}),
    ],
)
def test_timestamps_follow_whispers_rules(
    said: list[int], next_token: int, expected: set[int]
) -> None:
    assert allowed(likely(next_token), said) == expected


def test_timestamps_that_are_likelier_together_than_any_word_win() -> None:
    logits = np.full(N_VOCAB, -50.0, np.float32)
    logits[7] = 0.0
    logits[TIMESTAMP_BEGIN:] = -2.0  # 1501 of them outweigh one word
    assert allowed(logits, [AT_1, 5]) == {t for t in STAMPS if t > AT_1}
    logits[TIMESTAMP_BEGIN:] = -20.0
    assert 7 in allowed(logits, [AT_1, 5])


@pytest.mark.parametrize("changes", [{}, {"beam_size": 4}, {"temperature": 0.5}])
def test_timestamps_of_a_transcript_are_in_order(
    scripted: type[ScriptedSession], changes: dict[str, Any]
) -> None:
    session = scripted(Model(alphabet=20), beam_size=4)
    for found in search(session, WITH_TIMESTAMPS, max_new_tokens=40, **changes):
        stamps = [token for token in found.tokens if token >= TIMESTAMP_BEGIN]
        assert len(stamps) >= 2
        assert stamps == sorted(stamps)
        assert found.tokens[0] >= TIMESTAMP_BEGIN


@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[:-1]])
@pytest.mark.parametrize("changes", [{}, {"beam_size": 3}, {"temperature": 0.5}])
def test_work_is_broken_off_between_tokens(
    scripted: type[ScriptedSession], prompt: list[int], changes: dict[str, Any]
) -> None:
    class Left(BaseException):
        pass

    n_tokens = 0

    def checkpoint() -> None:
        nonlocal n_tokens
        n_tokens += 1
        if n_tokens == 5:
            raise Left

    session = scripted(Model(), beam_size=3)
    with pytest.raises(Left):
        search(session, prompt, max_new_tokens=100, checkpoint=checkpoint, **changes)
    assert n_tokens == 5
    assert search(session, PROMPT) == search(scripted(Model()), PROMPT)
