"""The TensorRT-LLM backend on a stand-in for it (llm_standin.py); never run on the real one.

What is tested is what we ask of its documented API, and what we make of what that answers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.backends.llm_standin import OnnxWhisper, RequestError, Standin, install
from tests.engine import fakes
from tests.engine.conftest import Models
from tests.support import HOME_EN, TIMEOUT_SECONDS, Client, FakeTranscriber, loud, run_server, until
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.backends.tensorrt_llm.api import Api
from wyoming_whisper.backends.tensorrt_llm.backend import (
    _LLMTranscriber,
    _options_for,
    _WithStandIn,
)
from wyoming_whisper.backends.tensorrt_llm.inference import LLMInference
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.commands.engine import _selftest_parser
from wyoming_whisper.commands.selftest.command import run
from wyoming_whisper.commands.selftest.compare import Case
from wyoming_whisper.errors import (
    EngineError,
    ModelUnavailableError,
    NotPossibleError,
    SettingsError,
)
from wyoming_whisper.grammar.automaton import Grammar
from wyoming_whisper.grammar.compiling import TemplateStore
from wyoming_whisper.grammar.filling import fill
from wyoming_whisper.grammar.service import GrammarService, HomeTexts
from wyoming_whisper.grammar.templates import compile_intents
from wyoming_whisper.home.index import NameIndex
from wyoming_whisper.home.inventory import Entity, Home
from wyoming_whisper.machine.host import Host
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.status import Status
from wyoming_whisper.transcriber import Abandoned, Samples, TranscribeOptions, Transcriber
from wyoming_whisper.whisper.inference import GenerateOptions
from wyoming_whisper.whisper.options import AudioContext, DecodingOptions

ENGLISH = TranscribeOptions(language="en")
TEXT = "turn off the pump"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder for all tests: the model is written there once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whisper(models: Models) -> OnnxWhisper:
    return OnnxWhisper(models.session("home-en"))


@pytest.fixture
def standin(whisper: OnnxWhisper, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """A GPU with a TensorRT-LLM."""
    fakes.install(monkeypatch)
    standin = install(monkeypatch, Standin(whisper))
    yield standin
    standin.gate.set()
    for llm in standin.llms:
        llm.shutdown()


def settings_of(data: Path, **values: Any) -> Settings:
    given = {"model": str(HOME_EN), "backend": "tensorrt-llm", "data_dir": (data,)} | values
    return Settings(**given)


def opened(data: Path, **values: Any) -> _LLMTranscriber:
    """Return the Transcriber over the stand-in, with nothing to stand in for it in turn."""
    transcriber = open_transcriber(settings_of(data, strict_backend=True, **values))
    assert isinstance(transcriber, _LLMTranscriber)
    return transcriber


SPOKEN = {file.stem.replace("-", " ").split()[0]: file for file in sorted(Case.CLIPS.glob("*.wav"))}
"""First word -> file, of the selftest's clips."""


def clip() -> Samples:
    """Say "turn off the pump"."""
    return read_audio(SPOKEN["turn"])


# What is heard


def test_commands_are_heard(standin: Standin, data: Path) -> None:
    transcriber = opened(data)
    for file in SPOKEN.values():
        found = transcriber.transcribe(read_audio(file), ENGLISH)
        assert found.text == file.stem.replace("-", " ")
        assert -0.3 < found.avg_logprob < 0
        assert 0 <= found.no_speech_prob < 0.5
    transcriber.close()


def test_the_evidence_is_ctranslate2s(standin: Standin, data: Path) -> None:
    ours = opened(data)
    theirs = open_transcriber(
        settings_of(
            data,
            backend="faster-whisper",
            audio_context="full",
            beam_size=1,
            compute_type="float32",
            device="cpu",
            cpu_threads=1,
        )
    )
    for file in (SPOKEN["turn"], SPOKEN["switch"]):
        one, other = (t.transcribe(read_audio(file), ENGLISH) for t in (ours, theirs))
        assert one.text == other.text
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=0.01)
        assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=0.01)
    ours.close()
    theirs.close()


def test_what_is_asked_is_what_the_documents_say(standin: Standin, data: Path) -> None:
    transcriber = opened(data)
    standin.requests.clear()
    transcriber.transcribe(clip(), ENGLISH)
    prompt, params = standin.requests[0]
    assert prompt == [641, 642, 644, 648]
    assert (params.temperature, params.logprobs, params.detokenize) == (0.0, 1, False)
    assert not params.use_beam_search
    arguments = standin.llms[0].arguments
    assert (arguments["backend"], arguments["attn_backend"]) == ("pytorch", "TRTLLM")
    assert arguments["dtype"] == "float16"
    cache = arguments["kv_cache_config"]
    assert (cache.enable_block_reuse, cache.free_gpu_memory_fraction) == (False, 0.3)
    assert cache.cross_kv_cache_fraction == 0.77
    assert arguments["scheduler_config"].use_python_scheduler
    transcriber.close()
    assert standin.llms[0]._thread is None


def test_a_prompt_goes_before_the_start(standin: Standin, data: Path) -> None:
    transcriber = opened(data, initial_prompt="Kitchen lights.")
    standin.requests.clear()
    found = transcriber.transcribe(clip(), ENGLISH)
    prompt, _ = standin.requests[0]
    assert prompt[0] == 646  # <|startofprev|>
    assert prompt[-4:] == [641, 642, 644, 648]
    assert len(prompt) > 6
    assert found.no_speech_prob < 0.5
    transcriber.close()


def test_long_audio_is_heard_in_pieces(standin: Standin, data: Path) -> None:
    """home-en, which learned commands, hears 8 s at a time."""
    pause = np.zeros(8_000, np.float32)
    play, switch = (read_audio(SPOKEN[word]) for word in ("play", "switch"))
    transcriber = opened(data)
    standin.requests.clear()
    found = transcriber.transcribe(np.concatenate([play, pause, switch, pause, play]), ENGLISH)
    assert len(standin.requests) >= 2
    assert {"play", "song", "printer"} <= set(found.text.split())
    transcriber.close()


def test_windows_of_stock_weights_are_never_over_30_s() -> None:
    options = _options_for(DecodingOptions())
    assert options.audio_context.longest == 2800
    assert (
        _options_for(DecodingOptions(audio_context=AudioContext.trained())).audio_context.longest
        == 800
    )
    assert not options.audio_context.retry


def test_samples_and_frames(standin: Standin, data: Path) -> None:
    inference = opened(data)._inference
    samples = np.arange(481, dtype=np.float32)
    assert LLMInference.frames(samples).shape == (160, 3)
    np.testing.assert_array_equal(inference.encode(LLMInference.frames(samples)), samples[:480])


def test_names_are_compared(standin: Standin, data: Path) -> None:
    """By the logits of the prompt, of which the candidates are the end."""
    transcriber = opened(data)
    standin.requests.clear()
    options = dataclasses.replace(ENGLISH, home=HomeTexts(NameIndex(["the plump"])))
    assert transcriber.transcribe(clip(), options).text == TEXT
    scored = [p for p, params in standin.requests if params.max_tokens == 1]
    assert scored
    assert all(prompt[:4] == [641, 642, 644, 648] and len(prompt) > 5 for prompt in scored)
    transcriber.close()


class Sentences(GrammarService):
    """Has the grammar of a home at once: "turn off the" and a name."""

    def __init__(self, name: str) -> None:
        super().__init__(TemplateStore(Path("/nowhere")))
        sentences = {"Off": {"data": [{"sentences": ["turn off the {name}"]}]}}
        templates = compile_intents({"language": "en", "intents": sentences})
        self._grammar = fill(templates, Home(entities=(Entity((name,), "switch"),)), None)

    def current(self, language: str, spelled: Callable[[], Sequence[bytes]]) -> Grammar | None:
        return self._grammar


def at_home(name: str) -> TranscribeOptions:
    return dataclasses.replace(ENGLISH, home=HomeTexts(NameIndex(()), Sentences(name)))


def test_sentences_of_the_home_are_compared(standin: Standin, data: Path) -> None:
    transcriber = opened(data)
    understood = transcriber.transcribe(clip(), at_home("Pump"))
    assert (understood.text, understood.understood) == (TEXT, True)
    standin.requests.clear()
    misheard = transcriber.transcribe(clip(), at_home("Pomp"))
    assert (misheard.text, misheard.free_text) == ("turn off the pomp", TEXT)
    scored = {tuple(prompt[4:]) for prompt, params in standin.requests if params.max_tokens == 1}
    assert tuple(transcriber._tokenizer.encode(" Turn off the pomp")) in scored
    other = transcriber.transcribe(clip(), at_home("Clock"))
    assert (other.text, other.understood, other.free_text) == (TEXT, False, None)
    transcriber.close()


def test_requests_at_once_share_the_sentences(standin: Standin, data: Path) -> None:
    transcriber, options = opened(data), at_home("Pump")
    with ThreadPoolExecutor(transcriber.at_once) as pool:
        asked = [pool.submit(transcriber.transcribe, clip(), options) for _ in range(16)]
        assert all(one.result(TIMEOUT_SECONDS).understood for one in asked)
    transcriber.close()


def test_scores_are_those_of_the_other_backends(
    standin: Standin, data: Path, models: Models
) -> None:
    from wyoming_whisper.whisper.audio import (
        N_FRAMES,
        log_mel_spectrogram,
        pad_or_trim,
        silence_level,
    )
    from wyoming_whisper.whisper.search import SessionInference

    transcriber = opened(data)
    tokenizer, prompt = transcriber._tokenizer, [641, 642, 644, 648]
    texts = [tokenizer.encode(text) for text in (" turn on the light", " play music")]
    samples = clip()
    ours = transcriber._inference.score(samples, prompt, texts)
    mel = log_mel_spectrogram(samples)
    other = SessionInference(models.session("home-en"), tokenizer, [220, 640])
    theirs = other.score(
        other.encode(pad_or_trim(mel, N_FRAMES, silence_level(mel))), prompt, texts
    )
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, two, atol=0.02)
    transcriber.close()


def test_higher_temperatures_are_samples_with_seeds(standin: Standin, data: Path) -> None:
    inference = opened(data)._inference
    standin.requests.clear()
    options = GenerateOptions(1, 0.8, 3, 20, ())
    first = inference.generate(clip(), [641, 642, 644, 648], options)
    assert [(p.temperature, p.seed) for _, p in standin.requests] == [(0.8, s) for s in range(3)]
    again = inference.generate(clip(), [641, 642, 644, 648], options)
    assert first.tokens == again.tokens
    assert len(first.others) == 2


def test_beams(standin: Standin, data: Path) -> None:
    transcriber = opened(data, beam_size=3)
    found = transcriber.transcribe(clip(), ENGLISH)
    assert found.text == TEXT
    assert standin.llms[0].arguments["max_beam_width"] == 3
    params = [params for _, params in standin.requests]
    assert all((p.use_beam_search, p.best_of, p.n) == (True, 3, 3) for p in params)
    assert transcriber._decoding.temperatures == (0.0,)
    transcriber.close()


def test_a_text_without_an_end_is_taken_as_it_is(standin: Standin, data: Path) -> None:
    inference = opened(data)._inference
    whole = inference.generate(clip(), [641, 642, 644, 648], GenerateOptions(1, 0.0, 1, 60, ()))
    cut = inference.generate(clip(), [641, 642, 644, 648], GenerateOptions(1, 0.0, 1, 3, ()))
    assert cut.tokens == whole.tokens[:3]
    assert 640 not in whole.tokens


# Languages, with a model that knows three


class Trilingual:
    """Hears German, and gives the logits for it."""

    def encode(self, samples: Samples) -> Samples:
        return samples

    def logits(self, _: Samples, tokens: Sequence[int]) -> Any:
        return np.array([self.last(_, tokens)] * len(tokens))

    def last(self, _: Samples, tokens: Sequence[int]) -> Any:
        logits = np.full(2150, -5.0, np.float32)
        logits[[642, 600, 601]] = [2.0, 3.0, 1.0]  # en, and two that stand for de and fr
        return logits


@pytest.mark.parametrize("beam_size", [1, 3])
def test_the_language_is_the_first_token(
    beam_size: int, standin: Standin, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber = opened(data, beam_size=beam_size)
    languages = {"en": 642, "de": 600, "fr": 601}
    monkeypatch.setitem(vars(transcriber._tokenizer), "language_tokens", languages)
    standin.whisper = Trilingual()
    standin.requests.clear()
    found = transcriber._inference.detect_language(loud(0.5))
    assert [code for code, _ in found] == ["de", "en", "fr"]
    shares = dict(found)
    assert shares["de"] / shares["en"] == pytest.approx(math.e, rel=1e-3)
    prompt, params = standin.requests[0]
    assert (prompt, params.max_tokens) == ([641], 1)
    transcriber.close()


def test_a_version_that_gives_few_alternatives(
    standin: Standin, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber = opened(data)
    inference = transcriber.inference
    languages = {"en": 642, "de": 600, "fr": 601}
    monkeypatch.setitem(vars(transcriber._tokenizer), "language_tokens", languages)
    standin.whisper = Trilingual()
    standin.fails = lambda p: RequestError("logprobs > 1") if (p.logprobs or 0) > 1 else None
    inference.try_detection(loud(0.5))
    shares = dict(inference.detect_language(loud(0.5)))
    assert 0 < shares.pop("de") < 1
    assert set(shares.values()) == {0.0}
    standin.fails = lambda _: RequestError("none")
    with pytest.raises(EngineError, match="none"):
        inference.try_detection(loud(0.5))


def test_a_language_that_is_not_known_is_refused(standin: Standin, data: Path) -> None:
    with pytest.raises(NotPossibleError, match="german"):
        opened(data).transcribe(clip(), TranscribeOptions(language="de"))


# Many at once


def test_requests_are_in_flight_together(standin: Standin, data: Path) -> None:
    transcriber = opened(data)
    assert getattr(transcriber, "at_once", 1) == Api.AT_ONCE
    standin.gate.clear()
    texts: list[str] = []

    def ask() -> None:
        texts.append(transcriber.transcribe(clip(), ENGLISH).text)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while standin.in_flight < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    standin.gate.set()
    for thread in threads:
        thread.join()
    assert len(texts) == 4
    assert set(texts) == {TEXT}
    transcriber.close()


async def test_a_server_has_many_speakers_in_flight(
    standin: Standin, data: Path, tmp_path: Path
) -> None:
    """Over Wyoming, each on a connection of its own; none waits for another."""
    values = {"model": str(HOME_EN), "backend": "tensorrt-llm", "data_dir": (data,), "eager": False}
    async with (
        run_server(tmp_path, open_transcriber, **values),
        contextlib.AsyncExitStack() as all_,
    ):
        first, *speakers = [await all_.enter_async_context(Client(tmp_path)) for _ in range(6)]
        await first.speak(samples=clip(), language="en")
        assert (await first.transcript()).text == TEXT
        standin.gate.clear()
        for speaker in speakers:
            await speaker.speak(samples=clip(), language="en")
        await until(lambda: standin.in_flight == len(speakers))
        standin.gate.set()
        texts = [(await speaker.transcript()).text for speaker in speakers]
    assert texts == [TEXT] * len(speakers)


def test_who_leaves_takes_his_request_along(standin: Standin, data: Path) -> None:
    transcriber = opened(data)
    standin.gate.clear()
    asked = 0

    def checkpoint() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise Abandoned

    options = dataclasses.replace(ENGLISH, checkpoint=checkpoint)
    with pytest.raises(Abandoned):
        transcriber.transcribe(clip(), options)
    assert standin.futures[-1].aborted()
    standin.gate.set()


def test_what_hangs_is_given_up(
    standin: Standin, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber = opened(data)
    monkeypatch.setattr(
        "wyoming_whisper.backends.tensorrt_llm.inference.LLMInference.GENERATE_SECONDS", 0.2
    )
    standin.gate.clear()
    with pytest.raises(EngineError, match="gave no answer in 0 s"):
        transcriber.transcribe(clip(), ENGLISH)
    assert standin.futures[-1].aborted()


# What a version may lack


def test_of_long_prompts_no_logits_are_asked_for(standin: Standin, data: Path) -> None:
    """Of each token they are as many as the vocabulary is large."""
    transcriber = opened(data, initial_prompt="kitchen " * 70)
    standin.requests.clear()
    assert transcriber.transcribe(clip(), ENGLISH).no_speech_prob == 0
    assert not any(params.return_context_logits for _, params in standin.requests)
    transcriber.close()


def test_without_the_logits_of_the_prompt(
    standin: Standin, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    standin.gives_context_logits = False
    caplog.set_level(logging.INFO)
    transcriber = opened(data)
    assert "no logits of the prompt" in caplog.text
    home = NameIndex(["printer"])
    found = transcriber.transcribe(clip(), dataclasses.replace(ENGLISH, home=HomeTexts(home)))
    assert found.text == TEXT
    assert found.no_speech_prob == 0
    with pytest.raises(RuntimeError, match="no logits of a prompt"):
        transcriber._inference.score(clip(), [641], [[5]])
    transcriber.close()


def test_a_version_that_refuses_to_give_them(standin: Standin, data: Path) -> None:
    standin.fails = lambda p: RequestError("no context logits") if p.return_context_logits else None
    transcriber = opened(data)
    assert not transcriber._inference.sees_prompt
    assert transcriber.transcribe(clip(), ENGLISH).text
    transcriber.close()


def test_without_preprocess_prompts_are_left_out(
    standin: Standin, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr("tests.backends.llm_standin._LLM.preprocess")
    transcriber = opened(data, initial_prompt="Kitchen lights.")
    found = transcriber.transcribe(clip(), ENGLISH)
    assert found.text == TEXT
    assert standin.requests[-1][0] == [641, 642, 644, 648]
    assert "takes no prompts, so they are left out" in caplog.text
    transcriber.close()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"llmapi": {"SchedulerConfig": None}}, "has no SchedulerConfig in its LLM API; 1.3"),
        ({"llmapi": {"LLM": None}}, "has no LLM in its LLM API"),
    ],
)
def test_another_api_is_one_sentence(
    standin: Standin, change: dict[str, dict[str, None]], sentence: str
) -> None:
    for module, names in change.items():
        for name in names:
            delattr(sys.modules[f"tensorrt_llm.{module}"], name)
    with pytest.raises(EngineError, match=sentence):
        Api.load()


def test_an_argument_that_is_gone_is_one_sentence(standin: Standin, data: Path) -> None:
    llm = sys.modules["tensorrt_llm.llmapi"].LLM

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("LLM got invalid argument: attn_backend\nand a traceback")

    llm.__init__ = refuse
    with pytest.raises(SettingsError, match=r"invalid argument: attn_backend$") as caught:
        opened(data)
    assert "does not open the model (Whisper needs 1.3.0rc24 or later)" in str(caught.value)


def test_sampling_params_that_changed_are_one_sentence(standin: Standin, data: Path) -> None:
    def changed(*, max_tokens: int) -> None: ...

    sys.modules["tensorrt_llm.llmapi"].SamplingParams = changed  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match="unexpected keyword argument"):
        opened(data)
    assert standin.llms[0]._thread is None  # nothing is left on the GPU


# Where it can't be


def test_without_a_gpu(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """This machine has none: the same rules as for --backend tensorrt."""
    status = Status()
    transcriber = open_transcriber(settings_of(data, device="cpu"), status)
    assert "--backend tensorrt-llm is not possible here, so faster-whisper answers" in caplog.text
    assert status.state.backend == "faster-whisper"
    assert "--device is cpu" in status.state.why
    transcriber.close()
    with pytest.raises(SettingsError, match="--backend tensorrt-llm is not possible here"):
        open_transcriber(settings_of(data, device="cpu", strict_backend=True))


def test_without_the_package(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)
    with pytest.raises(EngineError, match=r"pip install 'wyoming-whisper\[tensorrt-llm\]'"):
        Api.find()


def test_a_package_that_breaks_on_import(
    standin: Standin, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise ImportError("libmpi.so.40: cannot open shared object file\nmore")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(EngineError, match=r"can't be imported: libmpi\.so\.40: cannot open"):
        Api.load()


def test_auto_never_takes_it(standin: Standin, data: Path) -> None:
    transcriber = open_transcriber(settings_of(data, backend="auto", device="cpu"))
    assert not standin.llms
    transcriber.close()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"device": "cuda:1"}, "CUDA_VISIBLE_DEVICES"),
        ({"compute_type": "int8"}, "it can float16, bfloat16, float32"),
    ],
)
def test_what_it_cannot_do_is_said(
    values: dict[str, str], sentence: str, standin: Standin, data: Path
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        open_transcriber(settings_of(data, **values))


def test_it_reports_nothing_to_nvidia(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in Api.NO_USAGE_STATS:
        monkeypatch.delenv(name, raising=False)
    Api.load()
    assert os.environ["TRTLLM_NO_USAGE_STATS"] == "1"


# Where it fails later


def test_once_is_no_failure(standin: Standin, data: Path) -> None:
    status = Status()
    transcriber = open_transcriber(settings_of(data), status)
    assert status.state.backend == "tensorrt-llm"
    errors = [RequestError("out of memory")]
    standin.fails = lambda _: errors.pop() if errors else None
    assert transcriber.transcribe(clip(), ENGLISH).text == TEXT
    assert status.state.backend == "tensorrt-llm"
    transcriber.close()


def test_twice_and_faster_whisper_answers(
    standin: Standin, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    status = Status()
    transcriber = open_transcriber(settings_of(data), status)
    standin.fails = lambda _: RequestError("CUDA error: an illegal memory access")
    for _ in range(2):
        found = transcriber.transcribe(clip(), ENGLISH)
        assert found.text == TEXT
    assert caplog.text.count("TensorRT-LLM has failed") == 1
    assert status.state.backend == "faster-whisper"
    assert "illegal memory access" in status.state.why
    assert "on CPU" in transcriber.description
    assert standin.llms[0]._thread is None
    transcriber.close()


def test_who_waits_while_it_is_lost_is_answered_too(standin: Standin, data: Path) -> None:
    transcriber = open_transcriber(settings_of(data))
    standin.gate.clear()
    texts: list[str] = []

    def ask() -> None:
        texts.append(transcriber.transcribe(clip(), ENGLISH).text)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while standin.in_flight < 3:
        time.sleep(0.01)
    standin.fails = lambda _: RequestError("gone")
    standin.gate.set()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)
    assert texts == [TEXT] * 3
    transcriber.close()


@dataclasses.dataclass
class Failing(FakeTranscriber):
    """A GPU's Transcriber that has broken down."""

    at_once: int = Api.AT_ONCE
    error: BaseException | None = dataclasses.field(default_factory=lambda: EngineError("gone"))


@pytest.fixture
def opening() -> Iterator[tuple[Callable[[], Transcriber], threading.Event, threading.Event]]:
    """A stand-in that takes its time: how to open it, that it has begun, and that it may end."""
    begun, may_end = threading.Event(), threading.Event()

    def open_stand_in() -> Transcriber:
        begun.set()
        assert may_end.wait(TIMEOUT_SECONDS)
        return FakeTranscriber()

    yield open_stand_in, begun, may_end
    may_end.set()


def test_who_comes_while_the_stand_in_is_opened_waits_for_it(
    opening: tuple[Callable[[], Transcriber], threading.Event, threading.Event],
) -> None:
    open_stand_in, begun, may_end = opening
    transcriber = _WithStandIn(Failing(), open_stand_in, Status())
    answers: list[str] = []
    waits = threading.Event()

    def ask(checkpoint: Callable[[], None] = lambda: None) -> None:
        options = dataclasses.replace(ENGLISH, checkpoint=checkpoint)
        answers.append(transcriber.transcribe(loud(1.0), options).text)

    first = threading.Thread(target=ask)
    first.start()
    assert begun.wait(TIMEOUT_SECONDS)
    second = threading.Thread(target=ask, args=(waits.set,))
    second.start()
    assert waits.wait(TIMEOUT_SECONDS)
    may_end.set()
    for thread in (first, second):
        thread.join(TIMEOUT_SECONDS)
    assert answers == ["16000 samples in en"] * 2
    transcriber.close()


def test_who_waits_for_the_stand_in_may_be_given_up(
    opening: tuple[Callable[[], Transcriber], threading.Event, threading.Event],
) -> None:
    open_stand_in, begun, may_end = opening
    transcriber = _WithStandIn(Failing(), open_stand_in, Status())
    first = threading.Thread(target=transcriber.transcribe, args=(loud(1.0), ENGLISH))
    first.start()
    assert begun.wait(TIMEOUT_SECONDS)

    def give_up() -> None:
        raise Abandoned

    with pytest.raises(Abandoned):
        transcriber.transcribe(loud(1.0), dataclasses.replace(ENGLISH, checkpoint=give_up))
    may_end.set()
    first.join(TIMEOUT_SECONDS)
    assert transcriber.transcribe(loud(1.0), ENGLISH).text == "16000 samples in en"
    transcriber.close()


def test_a_stand_in_that_could_not_be_had_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(
        "wyoming_whisper.backends.tensorrt_llm.backend.time",
        SimpleNamespace(monotonic=lambda: clock[0]),
    )
    outcomes: list[Transcriber | ModelUnavailableError] = [
        ModelUnavailableError("the hub can't be reached"),
        FakeTranscriber(),
    ]

    def open_stand_in() -> Transcriber:
        outcome = outcomes.pop(0)
        if isinstance(outcome, ModelUnavailableError):
            raise outcome
        return outcome

    transcriber = _WithStandIn(Failing(), open_stand_in, Status())
    for _ in range(3):
        with pytest.raises(EngineError, match="nothing stands in for it: the hub can't be reached"):
            transcriber.transcribe(loud(1.0), ENGLISH)
    assert len(outcomes) == 1
    clock[0] += _WithStandIn.STAND_IN_RETRY_SECONDS
    assert transcriber.transcribe(loud(1.0), ENGLISH).text == "16000 samples in en"
    transcriber.close()
    with pytest.raises(EngineError, match="was closed"):
        transcriber.transcribe(loud(1.0), ENGLISH)


def test_nothing_stands_in(standin: Standin, caplog: pytest.LogCaptureFixture) -> None:
    def missing() -> Transcriber:
        raise ModelUnavailableError("no model.bin here")

    gpu = Failing()
    transcriber = _WithStandIn(gpu, missing, Status())
    for _ in range(2):
        with pytest.raises(EngineError):
            transcriber.transcribe(loud(1.0), ENGLISH)
    assert gpu.closed
    assert "no model.bin here" in caplog.text


def test_a_wish_that_cannot_be_is_no_failure(standin: Standin, data: Path) -> None:
    transcriber = open_transcriber(settings_of(data))
    with pytest.raises(NotPossibleError):
        transcriber.transcribe(clip(), TranscribeOptions(language="de"))
    assert standin.llms[0]._thread is not None
    transcriber.close()


# The selftest


def selftest_arguments(*argv: str) -> argparse.Namespace:
    return _selftest_parser("engine selftest").parse(["--runtime", "tensorrt-llm", *argv])


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are not what is tested."""
    monkeypatch.setattr("wyoming_whisper.commands.selftest.compare.Case.RUNS", 1)
    monkeypatch.setattr(Host, "cores", 1)  # threads wait for each other


@pytest.mark.usefixtures("quickly")
def test_the_selftest_compares_it_with_ctranslate2(
    standin: Standin, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(selftest_arguments(), settings_of(data))
    out = capsys.readouterr().out
    assert (status, out.splitlines()[-1]) == (0, "selftest PASSED")
    assert "engine: tensorrt-llm 1.3.0rc25 in float16" in out
    assert "logits of the prompt: yes" in out
    assert f"at once: {Api.AT_ONCE} commands in" in out
    assert "long prompt" in out
    assert standin.llms[0]._thread is None


@pytest.mark.usefixtures("quickly")
def test_the_selftest_fails_where_other_words_come_out(
    standin: Standin, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.gives_context_logits = False
    real = standin.whisper

    class Deaf:
        """Writes something else after the second token."""

        def encode(self, samples: Samples) -> Any:
            return real.encode(samples)

        def logits(self, audio_features: Any, tokens: Sequence[int]) -> Any:
            return real.logits(audio_features, tokens)

        def last(self, audio_features: Any, tokens: Sequence[int]) -> Any:
            logits = real.last(audio_features, tokens).copy()
            if len(tokens) == 6:
                logits[300] = logits.max() + 9
            return logits

    standin.whisper = Deaf()
    status = run(selftest_arguments("--json"), settings_of(data))
    told = json.loads(capsys.readouterr().out)
    assert (status, told["passed"]) == (1, False)
    assert any("turn off the pump: other tokens from number 3 on" in f for f in told["failures"])
    assert told["comparisons"][0]["engine"]["no_speech_prob"] is None
    assert told["machine"]["logits of the prompt"].startswith("no")


def test_the_selftest_says_at_once_what_is_missing(data: Path) -> None:
    with pytest.raises(EngineError):
        run(selftest_arguments(), settings_of(data, device="cpu"))


def test_bfloat16_is_its_own() -> None:
    arguments = selftest_arguments("--precision", "bfloat16")
    arguments.runtime = "onnxruntime"
    with pytest.raises(SettingsError, match="onnxruntime has float16 and float32"):
        run(arguments, Settings())
