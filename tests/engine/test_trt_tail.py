"""The frozen tail on TensorRT, on a GPU made of Python, against both kinds of graphs on the CPU."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import Models
from tests.engine.fakes import VERSIONS, FakeGpu, install
from tests.engine.fakes.plans import write_plans
from tests.engine.test_oracle import noise
from tests.support import AUDIO, HOME_EN, clips
from wyoming_whisper.backends.frozen import feature_change
from wyoming_whisper.backends.pipeline import _noise_mel
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.engine.session import CpuSession, OracleSession
from wyoming_whisper.engine.spec import EngineSpec
from wyoming_whisper.engine.tail import GROUP, Tail
from wyoming_whisper.engine.tensorrt.plan import PlanFacts
from wyoming_whisper.engine.tensorrt.session import TensorRTSession
from wyoming_whisper.errors import EngineBrokenError
from wyoming_whisper.grammar.filling import fill
from wyoming_whisper.grammar.templates import compile_intents
from wyoming_whisper.grammar.vocabulary import Vocabulary
from wyoming_whisper.home.index import NameIndex
from wyoming_whisper.home.inventory import Entity, Home
from wyoming_whisper.home.snapper import Snapper
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.whisper.audio import (
    N_FRAMES,
    Array,
    log_mel_spectrogram,
    pad_or_trim,
    silence_level,
)
from wyoming_whisper.whisper.constrained import ConstrainedOptions
from wyoming_whisper.whisper.inference import GenerateOptions, Hypothesis
from wyoming_whisper.whisper.options import AudioContext, DecodingOptions
from wyoming_whisper.whisper.search import SessionInference
from wyoming_whisper.whisper.session import Session

BEAM = 5
CLOSE = 1e-4
"""Of log-probabilities in float32: products are added up in another order."""
TOKENIZER = ModelFolder(HOME_EN).tokenizer
PROMPT = [*TOKENIZER.sot_sequence("en"), TOKENIZER.no_timestamps]
WINDOWS = dataclasses.replace(AudioContext.frozen(), multiple=EngineSpec.FRAMES_MULTIPLE)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    gpu = install(monkeypatch)
    yield gpu
    gpu.assert_nothing_left()


def opened(gpu: FakeGpu, graphs: Path, folder: Path) -> TensorRTSession:
    session = TensorRTSession(write_plans(gpu, graphs, folder))
    session.has_tail = True
    return session


def logits_of(session: Session, mel: Array) -> Array:
    cache = session.open_cache(session.encode(mel), 1, 64)
    tokens = np.array([[1, 2, 3, 4]], np.int32)
    return session.step(cache, tokens, 0, session.bias([3])).logits()


Inferences = list[SessionInference]
"""On the GPU, in TensorRT's graphs on the CPU, in those for CPUs."""


@pytest.fixture
def home(gpu: FakeGpu, models: Models, tmp_path: Path) -> Iterator[Inferences]:
    graphs = models.graphs("home-en", beam_size=BEAM, has_tail=True)
    sessions: list[Session] = [
        opened(gpu, graphs, tmp_path),
        OracleSession(graphs, threads=1),
        CpuSession(models.cpu_graphs("home-en"), 1, BEAM, has_tail=True),
    ]
    yield [SessionInference(session, TOKENIZER, [TOKENIZER.eot]) for session in sessions]
    for session in sessions:
        session.close()


def spoken() -> Iterator[Array]:
    """Yield commands in their own windows, in longer ones, and in the full one."""
    more = itertools.cycle((0, 90, 0, 400, 2000, N_FRAMES))
    for clip in clips("clean", "noisy")[:12]:
        mel = log_mel_spectrogram(read_audio(str(AUDIO / clip.file)))
        n_frames = WINDOWS.frames(mel.shape[1])
        yield pad_or_trim(mel, min(n_frames + next(more), N_FRAMES), silence_level(mel))


@pytest.mark.parametrize("beam_size", [1, BEAM])
def test_tokens_are_those_of_both_graphs_on_the_cpu(home: Inferences, beam_size: int) -> None:
    options = GenerateOptions(beam_size, 0.0, 1, 40, TOKENIZER.suppressed_tokens)
    texts, lengths = set(), set()
    for mel in spoken():
        ours, *others = (one.generate(one.encode(mel), PROMPT, options) for one in home)
        for other in others:
            assert ours.tokens == other.tokens
            assert ours.others == other.others
            assert ours.avg_logprob == pytest.approx(other.avg_logprob, abs=CLOSE)
            assert ours.no_speech_prob == pytest.approx(other.no_speech_prob, abs=CLOSE)
        texts.add(tuple(ours.tokens))
        lengths.add(mel.shape[1])
    assert len(texts) > 6
    assert len(lengths) > 4


def test_names_weigh_the_same(home: Inferences, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wyoming_whisper.home.snapper.Evidence.MIN_REST_LOGPROB", -100.0)
    monkeypatch.setattr("wyoming_whisper.home.snapper.Evidence.MAX_GAP", 1000.0)
    index = NameIndex(["kitchen lamp", "conservatory fountain", "garden lights", "garage door"])
    noise_mel = _noise_mel(80, DecodingOptions(audio_context=WINDOWS))
    heard = Hypothesis(TOKENIZER.encode(" turn on the garden fountain lap"), -0.5, 0.0)
    n_weights = 0
    for mel in itertools.islice(spoken(), 3):
        weights = [
            Snapper(one, TOKENIZER, [index], partial(one.encode, noise_mel)).weigh(
                one.encode(mel), PROMPT, "en", heard
            )
            for one in home
        ]
        for other in weights[1:]:
            assert [name for _, name, _ in other] == [name for _, name, _ in weights[0]]
            expected = pytest.approx([weight for weight, _, _ in weights[0]], abs=0.01)
            assert [weight for weight, _, _ in other] == expected
        n_weights += len(weights[0])
    assert n_weights


def test_sentences_of_the_home_are_as_likely(home: Inferences) -> None:
    """TensorRT searches them with FixedSteps, CPUs with ElasticSteps."""
    intents = {"On": {"data": [{"sentences": ["turn (on|off) the {name}"]}]}}
    names = ("kitchen lamp", "conservatory fountain", "garden lights", "garage door")
    templates = compile_intents({"language": "en", "intents": intents, "lists": {}})
    entities = tuple(Entity((name,), "light") for name in names)
    grammar = fill(templates, Home(entities=entities), Vocabulary(TOKENIZER.spelled()))
    options = ConstrainedOptions(BEAM, 24, TOKENIZER.suppressed_tokens)
    best = set()
    for mel in itertools.islice(spoken(), 6):
        ours, *others = (one.constrained(one.encode(mel), PROMPT, grammar, options) for one in home)
        assert ours
        for other in others:
            assert [one.tokens for one in other] == [one.tokens for one in ours]
            expected = pytest.approx([one.total_logprob for one in ours], abs=10 * CLOSE)
            assert [one.total_logprob for one in other] == expected
        best.add(tuple(ours[0].tokens))
    assert len(best) > 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_it_follows_at_every_version(
    version: str, precision: Any, monkeypatch: pytest.MonkeyPatch, models: Models, tmp_path: Path
) -> None:
    """In windows of any length, with nothing but their own memory written."""
    gpu = install(monkeypatch, version)
    graphs = models.graphs("tied", precision, beam_size=2, has_tail=True)
    with closing(opened(gpu, graphs, tmp_path)) as session:
        oracle = OracleSession(graphs, threads=1)
        for n_frames in (200, 210, 400, 1200, 1998, N_FRAMES - 2 * GROUP, 2990, N_FRAMES):
            mel = noise(80, n_frames, n_frames)
            np.testing.assert_allclose(logits_of(session, mel), logits_of(oracle, mel), atol=1e-5)
    gpu.assert_nothing_left()


def test_the_trial_reads_on_the_gpu_what_it_reads_on_the_cpu(
    gpu: FakeGpu, models: Models, tmp_path: Path
) -> None:
    graphs = models.graphs("tied", has_tail=True)
    with closing(opened(gpu, graphs, tmp_path)) as session:
        ours = feature_change(session, WINDOWS)
    cpu = CpuSession(models.cpu_graphs("tied"), threads=1, has_tail=True)
    assert ours == pytest.approx(feature_change(cpu, WINDOWS), abs=1e-3)
    assert 0 < ours < 2


def test_a_session_has_it_only_when_told(gpu: FakeGpu, models: Models, tmp_path: Path) -> None:
    graphs = models.graphs("tied", has_tail=True)
    mel = noise(80, 400)
    with closing(TensorRTSession(write_plans(gpu, graphs, tmp_path))) as session:
        assert not session.has_tail
        without = logits_of(models.session("tied"), mel)
        np.testing.assert_allclose(logits_of(session, mel), without, atol=CLOSE)
        ctx = session.encode(mel).n_ctx
        session.has_tail = True
        assert session.encode(mel).n_ctx > ctx


def test_lengths_of_keys_are_the_graphs(models: Models, tmp_path: Path, gpu: FakeGpu) -> None:
    graphs = models.graphs("tied", has_tail=True)
    facts = PlanFacts.read(write_plans(gpu, graphs, tmp_path))
    oracle = OracleSession(graphs, threads=1)
    for has_tail, n_frames in itertools.product((False, True), (2, 40, 400, 2960, 2962, N_FRAMES)):
        oracle.has_tail = has_tail
        mel = noise(80, n_frames)
        n_ctx = oracle.encode(mel)["cross_k_0"].shape[3]
        n_taken = Tail.lengthened(mel, follows=has_tail).shape[1]
        assert n_ctx == facts.n_ctx(n_taken) <= facts.most_ctx


def test_plans_that_have_a_tail_unsaid_are_refused(
    gpu: FakeGpu, models: Models, tmp_path: Path
) -> None:
    folder = write_plans(gpu, models.graphs("tied", has_tail=True), tmp_path)
    file = folder / PlanFacts.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tail_starts": []}))
    with pytest.raises(EngineBrokenError, match="cross_bias"):
        TensorRTSession(folder)
