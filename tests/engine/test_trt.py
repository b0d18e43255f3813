"""The session on TensorRT, on a GPU made of Python, against the same graphs in onnxruntime."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.engine.conftest import SIZES, Models
from tests.engine.fakes import RTX, VERSIONS, FakeGpu, install
from tests.engine.fakes.driver import ILLEGAL_ADDRESS, OUT_OF_MEMORY
from tests.engine.fakes.plans import MAX_BATCH, write_plans
from tests.support import AUDIO, HOME_EN, clips
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.engine.tensorrt.cuda import NoGpuError
from wyoming_whisper.engine.tensorrt.library import TENSORRT
from wyoming_whisper.engine.tensorrt.plan import PlanFacts, Profile
from wyoming_whisper.engine.tensorrt.session import TensorRTSession
from wyoming_whisper.errors import EngineBrokenError, EngineError, WyomingWhisperError
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.whisper.audio import log_mel_spectrogram, pad_or_trim, silence_level
from wyoming_whisper.whisper.inference import GenerateOptions
from wyoming_whisper.whisper.search import SessionInference
from wyoming_whisper.whisper.session import Session

Array = npt.NDArray[np.float32]
Said = list[tuple[int, float]]

TINY = SIZES["tiny"]
TIED = SIZES["tied"]
N_NEW = 12


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A fake GPU on which nothing may be done wrongly, and nothing left."""
    gpu = install(monkeypatch)
    yield gpu
    gpu.assert_nothing_left()


@pytest.fixture
def tiny(gpu: FakeGpu, models: Models, tmp_path: Path) -> Iterator[TensorRTSession]:
    """Random weights, with beams of two."""
    session = TensorRTSession(
        write_plans(gpu, models.graphs("tiny", beam_size=2), tmp_path / "tiny")
    )
    yield session
    session.close()


@pytest.fixture
def oracle(models: Models) -> Iterator[Session]:
    session = models.session("tiny", beam_size=2)
    yield session
    session.close()


def noise(n_frames: int, seed: int = 0, n_mels: int = 80) -> Array:
    return np.random.default_rng(seed).standard_normal((n_mels, n_frames)).astype(np.float32)


def say(
    session: Session, mel: Array, prompt: list[int], n_slots: int = 64, n_new: int = N_NEW
) -> Said:
    """Return tokens and log-probabilities of greedy search."""
    cache = session.open_cache(session.encode(mel), 1, n_slots)
    bias = session.bias([len(prompt), 3])
    tokens, logprobs = session.step(cache, np.array([prompt], np.int32), 0, bias).best()
    token, logprob = int(tokens[0]), float(logprobs[0])
    rest = session.greedy(cache, token, len(prompt), bias, n_new - 1)
    return [(token, logprob), *rest]


def assert_same(found: Said, expected: Said) -> None:
    assert [token for token, _ in found] == [token for token, _ in expected]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-5)


# The same results.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_greedy_search_is_onnxruntimes_at_every_version(
    monkeypatch: pytest.MonkeyPatch,
    models: Models,
    tmp_path: Path,
    version: str,
    cuda_graphs: bool,
) -> None:
    gpu = install(monkeypatch, version)
    session = TensorRTSession(write_plans(gpu, models.graphs("tiny"), tmp_path), 0, cuda_graphs)
    expected = models.session("tiny")
    for seed, n_frames in enumerate((400, 200, 400, 1200)):
        mel = noise(n_frames, seed)
        assert_same(say(session, mel, TINY.prompt), say(expected, mel, TINY.prompt))
    ours = cuda_graphs and version != RTX  # TensorRT-RTX captures its own
    assert bool(gpu.driver.calls["cuGraphLaunch"]) is ours
    session.close()
    gpu.assert_nothing_left()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_home_en_says_on_the_gpu_what_it_says_on_the_cpu(
    gpu: FakeGpu, models: Models, tmp_path: Path, precision: Any
) -> None:
    graphs = models.graphs("home-en", precision, beam_size=3)
    sessions: list[Session] = [
        TensorRTSession(write_plans(gpu, graphs, tmp_path)),
        models.session("home-en", precision, beam_size=3),
    ]
    tokenizer = ModelFolder(HOME_EN).tokenizer
    for clip in clips()[:4]:
        mel = log_mel_spectrogram(read_audio(str(AUDIO / clip.file)))
        mel = pad_or_trim(mel, -(-mel.shape[1] // 200) * 200, silence_level(mel))
        for beam_size, temperature in ((1, 0.0), (3, 0.0), (1, 0.6)):
            options = GenerateOptions(beam_size, temperature, 3, 40, tokenizer.suppressed_tokens)
            prompt = [*tokenizer.sot_sequence("en"), tokenizer.no_timestamps]
            found, expected = (
                inference.generate(inference.encode(mel), prompt, options)
                for inference in (SessionInference(s, tokenizer, [tokenizer.eot]) for s in sessions)
            )
            assert found.tokens
            assert found.tokens == expected.tokens
            assert found.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-4)
            assert found.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-4)
    for session in sessions:
        session.close()


def test_prompts_longer_than_one_call_are_fed_in_several(
    tiny: TensorRTSession, oracle: Session
) -> None:
    mel = noise(300)
    for length in (64, 65, 130):
        prompt = [i % 290 for i in range(length)]
        assert_same(say(tiny, mel, prompt, 256), say(oracle, mel, prompt, 256))


def test_rows_follow_their_parents(tiny: TensorRTSession, oracle: Session) -> None:
    told = []
    for session in (tiny, oracle):
        cache = session.open_cache(session.encode(noise(300)), 3, 64)
        bias = session.bias([5])
        prompt = np.array([TINY.prompt, [*TINY.prompt[:3], 7], [1, 2, 3, 4]], np.int32)
        output = session.step(cache, prompt, 0, bias)
        answers = [*output.candidates(), output.logits(), *output.best()]
        for position, parents in ((4, [2, 0, 0]), (5, [1, 1, 2])):
            tokens = np.array([[position], [9], [8]], np.int32)
            output = session.step(cache, tokens, position, bias, np.array(parents, np.int32))
            answers += [*output.candidates(), output.logits()]
        told.append([np.array(answer) for answer in answers])
    for found, expected in zip(*told, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_greedy_search_of_several_rows_is_the_first_rows(
    tiny: TensorRTSession, oracle: Session
) -> None:
    found, expected = (
        list(s.greedy(s.open_cache(s.encode(noise(300)), 2, 64), 9, 0, s.bias([3]), 5))
        for s in (tiny, oracle)
    )
    assert_same(found, expected)


def test_what_a_loop_left_unread_does_not_disturb_the_next_step(
    tiny: TensorRTSession, oracle: Session
) -> None:
    """One step too many has been launched when a caller has seen enough."""
    told = []
    for session in (tiny, oracle):
        cache = session.open_cache(session.encode(noise(300)), 1, 64)
        bias, other = session.bias([3]), session.bias([4, 5])
        session.step(cache, np.array([TINY.prompt], np.int32), 0, bias)
        loop = session.greedy(cache, 9, 4, bias, 20)
        said = [next(loop) for _ in range(3)]
        loop.close()  # type: ignore[attr-defined]
        tokens, logprobs = session.step(cache, np.array([[11, 12]], np.int32), 6, other).best()
        said.append((int(tokens[0]), float(logprobs[0])))
        said += session.greedy(cache, 13, 8, other, 4)
        said += session.greedy(cache, 14, 5, bias, 4)
        told.append(said)
    assert_same(*told)


def test_a_loop_ends_where_the_cache_does(tiny: TensorRTSession) -> None:
    cache = tiny.open_cache(tiny.encode(noise(300)), 1, 64)
    bias = tiny.bias([])
    assert len(list(tiny.greedy(cache, 9, 60, bias, 10))) == 4
    assert list(tiny.greedy(cache, 9, 64, bias, 10)) == []
    assert list(tiny.greedy(cache, 9, 0, bias, 0)) == []


def test_caches_of_different_sizes_live_side_by_side(
    tiny: TensorRTSession, oracle: Session
) -> None:
    told = []
    for session in (tiny, oracle):
        features = session.encode(noise(300))
        one, three = (session.open_cache(features, n, 64) for n in (1, 3))
        bias = session.bias([3])
        session.step(one, np.array([TINY.prompt], np.int32), 0, bias)
        session.step(three, np.array([[1], [2], [3]], np.int32), 0, bias)
        said = list(session.greedy(one, 9, 4, bias, 3))
        tokens, logprobs = session.step(three, np.array([[4], [5], [6]], np.int32), 1, bias).best()
        said += zip(tokens.tolist(), logprobs.tolist(), strict=True)
        larger = session.open_cache(features, 3, 200)  # more memory than the rows had
        session.step(larger, np.array([[1], [2], [3]], np.int32), 0, bias)
        tokens, logprobs = session.step(larger, np.array([[4], [5], [6]], np.int32), 1, bias).best()
        said += zip(tokens.tolist(), logprobs.tolist(), strict=True)
        told.append(said)
    assert_same(*told)


# One launch per token.


def test_a_token_costs_one_launch_and_no_wait_for_the_stream(
    gpu: FakeGpu, tiny: TensorRTSession
) -> None:
    cache = tiny.open_cache(tiny.encode(noise(300)), 1, 64)
    bias = tiny.bias([])
    list(tiny.greedy(cache, 9, 0, bias, 2))
    before = gpu.driver.calls.copy()
    loop = tiny.greedy(cache, 9, 0, bias, 10)
    next(loop)
    launched = (gpu.driver.calls - before)["cuGraphLaunch"]
    assert launched == 2  # the host is one step ahead
    before = gpu.driver.calls.copy()
    assert len(list(loop)) == 9
    made = gpu.driver.calls - before
    assert made == {
        "cuGraphLaunch": 8,
        "cuEventRecord": 8,
        "cuEventSynchronize": 9,
        "cuCtxSetCurrent": 9,
    }


def test_graphs_are_captured_once_for_a_length_and_the_oldest_go(
    gpu: FakeGpu, tiny: TensorRTSession, oracle: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.engine.tensorrt.loops.Loops.MAX_LOOPS", 2)
    captured = []
    for n_frames in (200, 400, 200, 600, 200, 400):
        before = gpu.driver.calls["cuStreamBeginCapture_v2"]
        mel = noise(n_frames)
        assert_same(say(tiny, mel, TINY.prompt), say(oracle, mel, TINY.prompt))
        captured.append(gpu.driver.calls["cuStreamBeginCapture_v2"] - before)
    assert captured == [2, 2, 0, 2, 0, 2]


def test_warming_up_captures_what_comes_later(
    gpu: FakeGpu, tiny: TensorRTSession, oracle: Session
) -> None:
    tiny.warm_up((200, 400), 64)
    captured = gpu.driver.calls["cuStreamBeginCapture_v2"]
    assert captured == 4
    mel = noise(400)
    assert_same(say(tiny, mel, TINY.prompt), say(oracle, mel, TINY.prompt))
    assert gpu.driver.calls["cuStreamBeginCapture_v2"] == captured


def test_without_profiles_to_share_decoding_goes_on_without_graphs(
    monkeypatch: pytest.MonkeyPatch,
    models: Models,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """TensorRT 8.6 lets contexts share a profile only if it was built so."""
    gpu = install(monkeypatch, "8.6.1")
    folder = write_plans(gpu, models.graphs("tiny"), tmp_path, sharing=False)
    session, expected = TensorRTSession(folder), models.session("tiny")
    for n_frames in (200, 400):
        mel = noise(n_frames)
        assert_same(say(session, mel, TINY.prompt), say(expected, mel, TINY.prompt))
    assert [r.levelname for r in caplog.records].count("WARNING") == 1
    assert "without CUDA graphs" in caplog.text
    session.close()
    gpu.assert_nothing_left()


def test_the_same_bias_is_in_memory_once(gpu: FakeGpu, tiny: TensorRTSession) -> None:
    features = tiny.encode(noise(200))
    cache = tiny.open_cache(features, 1, 64)
    used = []
    for token in (3, 4, 3, 4):
        bias = tiny.bias([token])
        assert token not in [t for t, _ in tiny.greedy(cache, token, 0, bias, 5)]
        used.append(gpu.driver.used_bytes)
    assert used[0] < used[1] == used[2] == used[3]


def test_outputs_last_until_the_next_step(tiny: TensorRTSession, oracle: Session) -> None:
    told = []
    for session in (tiny, oracle):
        features = session.encode(noise(300))
        cache, bias = session.open_cache(features, 1, 64), session.bias([3])
        output = session.step(cache, np.array([TINY.prompt], np.int32), 0, bias)
        session.bias([7])
        session.open_cache(features, 2, 64)
        said = [(int(tokens[0]), float(logprobs[0])) for tokens, logprobs in [output.best()]]
        for found in session.greedy(cache, 9, 4, bias, 5):
            said.append(found)
            session.bias([8])
        told.append(said)
    assert_same(*told)


# What is not possible.


def test_what_is_gone_is_refused(tiny: TensorRTSession) -> None:
    features = tiny.encode(noise(200))
    bias = tiny.bias([])
    cache = tiny.open_cache(features, 1, 64)
    output = tiny.step(cache, np.array([[1]], np.int32), 0, bias)
    loop = tiny.greedy(cache, 1, 1, bias, 9)
    next(loop)
    with pytest.raises(RuntimeError, match="done something else"):
        output.best()
    again = tiny.greedy(cache, 1, 1, bias, 9)
    next(again)
    with pytest.raises(RuntimeError, match="done something else"):
        next(loop)
    tiny.open_cache(features, 1, 64)
    with pytest.raises(RuntimeError, match="this cache is gone"):
        next(again)
    with pytest.raises(RuntimeError, match="this cache is gone"):
        tiny.step(cache, np.array([[1]], np.int32), 0, bias)
    tiny.encode(noise(200))
    with pytest.raises(RuntimeError, match="audio features are gone"):
        list(tiny.greedy(cache, 1, 0, bias, 2))


def test_what_does_not_fit_is_refused(tiny: TensorRTSession) -> None:
    for shape in ((80, 301), (79, 300), (80, 100), (80, 3002)):
        with pytest.raises(ValueError, match="the engine takes 80 mels"):
            tiny.encode(np.zeros(shape, np.float32))
    features = tiny.encode(noise(200))
    for batch, n_slots in ((0, 64), (MAX_BATCH + 1, 64), (1, 0), (1, 449)):
        with pytest.raises(ValueError, match="are possible"):
            tiny.open_cache(features, batch, n_slots)
    cache, bias = tiny.open_cache(features, 1, 64), tiny.bias([])
    for tokens, position in (([[1], [2]], 0), ([[]], 0), ([[1, 2]], 63), ([[1]], -1)):
        with pytest.raises(ValueError, match="tokens"):
            tiny.step(cache, np.array(tokens, np.int32), position, bias)


def test_an_engine_for_greedy_search_has_no_beams(
    gpu: FakeGpu, models: Models, tmp_path: Path
) -> None:
    session = TensorRTSession(write_plans(gpu, models.graphs("tied"), tmp_path))
    assert session.n_candidates == 0
    cache, bias = session.open_cache(session.encode(noise(200)), 2, 64), session.bias([])
    rows = np.array([[1], [2]], np.int32)
    with pytest.raises(RuntimeError, match="no candidates"):
        session.step(cache, rows, 0, bias).candidates()
    with pytest.raises(ValueError, match="no parents"):
        session.step(cache, rows, 1, bias, np.array([1, 0], np.int32))
    session.close()


def test_a_closed_engine_says_so(tiny: TensorRTSession) -> None:
    features = tiny.encode(noise(200))
    loop = tiny.greedy(tiny.open_cache(features, 1, 64), 1, 0, tiny.bias([]), 9)
    next(loop)
    tiny.close()
    tiny.close()
    with pytest.raises(RuntimeError, match="gone"):
        next(loop)
    for call in (
        lambda: tiny.encode(noise(200)),
        lambda: tiny.bias([]),
        lambda: tiny.open_cache(features, 1, 64),
    ):
        with pytest.raises(EngineError, match="closed"):
            call()


# Threads, memory, the log.


def test_each_call_may_come_from_another_thread(
    gpu: FakeGpu, models: Models, tmp_path: Path
) -> None:
    folder = write_plans(gpu, models.graphs("tiny"), tmp_path)

    def elsewhere(call: Callable[[], Any]) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(call()))
        thread.start()
        thread.join()
        return found[0]

    session = elsewhere(lambda: TensorRTSession(folder))
    features = elsewhere(lambda: session.encode(noise(300)))
    cache = elsewhere(lambda: session.open_cache(features, 1, 64))
    bias = elsewhere(lambda: session.bias([3]))
    output = elsewhere(lambda: session.step(cache, np.array([TINY.prompt], np.int32), 0, bias))
    tokens, logprobs = elsewhere(output.best)
    loop = session.greedy(cache, int(tokens[0]), len(TINY.prompt), bias, 3)
    said = [(int(tokens[0]), float(logprobs[0])), *(elsewhere(lambda: next(loop)) for _ in "123")]
    expected = models.session("tiny")
    features = expected.encode(noise(300))
    cache = expected.open_cache(features, 1, 64)
    bias = expected.bias([3])
    tokens, logprobs = expected.step(cache, np.array([TINY.prompt], np.int32), 0, bias).best()
    rest = expected.greedy(cache, int(tokens[0]), len(TINY.prompt), bias, 3)
    assert_same(said, [(int(tokens[0]), float(logprobs[0])), *rest])
    elsewhere(session.close)


def test_the_memory_that_is_held_is_told(
    gpu: FakeGpu, models: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = write_plans(gpu, models.graphs("tiny"), tmp_path)
    session = TensorRTSession(folder)
    plans = sum(path.stat().st_size for path in folder.glob("*.plan"))
    device = sum(b.n_bytes for b in gpu.driver._blocks.values() if b.kind == "device")
    assert session.memory_bytes() == plans + device
    assert f"with {session.memory_bytes() / 1e6:.0f} MB of GPU memory" in caplog.text
    assert gpu.driver.used_bytes - session.memory_bytes() < 10_000  # TensorRT's own contexts
    session.close()
    assert gpu.driver.used_bytes == 0
    assert gpu.tensorrt.alive == 0


# Failures.


def session_life(folder: Path) -> Said:
    """Do a bit of everything; close."""
    session = TensorRTSession(folder)
    try:
        said = say(session, noise(200), TIED.prompt, n_new=4)
        cache = session.open_cache(session.encode(noise(400)), 2, 64)
        bias = session.bias([5])
        output = session.step(cache, np.array([[1], [2]], np.int32), 0, bias)
        tokens, logprobs = output.best()
        said += zip(tokens.tolist(), logprobs.tolist(), strict=True)
        np.testing.assert_equal(output.logits().shape, (2, session.n_vocab))
    finally:
        session.close()
    return said


@pytest.mark.parametrize(
    ("status", "sticky"), [(OUT_OF_MEMORY, False), (ILLEGAL_ADDRESS, True)], ids=["once", "forever"]
)
def test_whatever_call_fails_the_answer_is_right_or_an_error_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, models: Models, tmp_path: Path, status: int, sticky: bool
) -> None:
    gpu = install(monkeypatch)
    folder = write_plans(gpu, models.graphs("tied"), tmp_path)
    before = gpu.driver.n_calls
    expected = session_life(folder)
    n_calls = gpu.driver.n_calls - before
    outcomes = []
    for nth in range(1, n_calls + 1):
        gpu.driver.fail(nth=nth, status=status, sticky=sticky)
        try:
            assert_same(session_life(folder), expected)
            outcomes.append("right")
        except EngineError:
            outcomes.append("error")
        gpu.driver.heal()
        assert gpu.tensorrt.alive == 0
        gpu.assert_nothing_left()
    assert outcomes.count("error") > n_calls / 2
    assert outcomes[-1] == "right"  # what is given back last may fail as it likes


def test_too_little_memory_is_an_error_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, models: Models, tmp_path: Path
) -> None:
    gpu = install(monkeypatch)
    folder = write_plans(gpu, models.graphs("tied"), tmp_path)
    session = TensorRTSession(folder)
    enough = gpu.driver.used_bytes
    session.close()
    for share in (0.05, 0.3, 0.6, 0.9, 0.99):
        gpu.driver.total_bytes = int(enough * share)
        with pytest.raises(EngineError, match=r"(?i)memory"):
            TensorRTSession(folder)
        gpu.assert_nothing_left()
    gpu.driver.total_bytes = enough + (1 << 20)
    session_life(folder)
    gpu.assert_nothing_left()


def test_an_error_between_two_tokens_ends_the_loop_with_it(
    gpu: FakeGpu, tiny: TensorRTSession
) -> None:
    cache, bias = tiny.open_cache(tiny.encode(noise(200)), 1, 64), tiny.bias([])
    loop = tiny.greedy(cache, 1, 0, bias, 9)
    next(loop)
    gpu.driver.fail("cuEventSynchronize", status=ILLEGAL_ADDRESS, sticky=True)
    with pytest.raises(EngineError, match="ILLEGAL_ADDRESS"):
        list(loop)
    with pytest.raises(EngineError, match="ILLEGAL_ADDRESS"):
        tiny.encode(noise(200))
    tiny.close()
    gpu.driver.heal()


# Engines that are not what they should be.


def cut(folder: Path, gpu: FakeGpu) -> None:
    path = folder / PlanFacts.DECODER_PLAN
    path.write_bytes(path.read_bytes()[:-1])


def empty(folder: Path, gpu: FakeGpu) -> None:
    (folder / PlanFacts.ENCODER_PLAN).write_bytes(b"")


def missing(folder: Path, gpu: FakeGpu) -> None:
    (folder / PlanFacts.ENCODER_PLAN).unlink()


def foreign_gpu(folder: Path, gpu: FakeGpu) -> None:
    gpu.driver.compute_capability = (9, 0)


def foreign_version(folder: Path, gpu: FakeGpu) -> None:
    gpu.tensorrt.version = "10.3.1"


def no_facts(folder: Path, gpu: FakeGpu) -> None:
    (folder / PlanFacts.FILE).unlink()


def facts_no_json(folder: Path, gpu: FakeGpu) -> None:
    (folder / PlanFacts.FILE).write_bytes(b"\xff{")


def swapped(folder: Path, gpu: FakeGpu) -> None:
    plans = [folder / PlanFacts.ENCODER_PLAN, folder / PlanFacts.DECODER_PLAN]
    first, second = (path.read_bytes() for path in plans)
    plans[0].write_bytes(second)
    plans[1].write_bytes(first)


def with_facts(**changes: object) -> Callable[[Path, FakeGpu], None]:
    def change(folder: Path, gpu: FakeGpu) -> None:
        facts = PlanFacts.read(folder)
        text = dataclasses.replace(facts, **changes).to_json()  # type: ignore[arg-type]
        (folder / PlanFacts.FILE).write_text(text)

    return change


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        empty,
        missing,
        foreign_gpu,
        foreign_version,
        no_facts,
        facts_no_json,
        swapped,
        with_facts(n_vocab=17),
        with_facts(n_text_head=1 + TIED.n_head),
        with_facts(n_text_layer=2),
        with_facts(beam_size=2),
        with_facts(precision="float16"),
        with_facts(profiles=(Profile("step", (1, 1), (1, 1)),)),
        with_facts(n_frames=((200, 3000),)),
        with_facts(n_mels=128),
    ],
)
def test_an_engine_that_is_not_what_it_should_be_is_refused(
    gpu: FakeGpu, models: Models, tmp_path: Path, spoil: Callable[[Path, FakeGpu], None]
) -> None:
    folder = write_plans(gpu, models.graphs("tied"), tmp_path)
    spoil(folder, gpu)
    with pytest.raises(EngineBrokenError, match=str(tmp_path)):
        TensorRTSession(folder)


# Finding TensorRT.


def test_tensorrt_is_imported_only_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, n_devices=0)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(NoGpuError, match="finds no GPU"):
        TENSORRT.load()


def test_what_is_wrong_with_tensorrt_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = install(monkeypatch, "8.5.2")
    with pytest.raises(EngineError, match=r"TensorRT 8\.5\.2 is too old"):
        TENSORRT.load()
    monkeypatch.delitem(sys.modules, "tensorrt")
    with pytest.raises(EngineError, match="not installed"):
        TENSORRT.load()
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=r"can't be loaded: libnvinfer\.so\.10"):
        TENSORRT.load()
    gpu.assert_nothing_left()


def test_the_errors_here_are_told_to_users() -> None:
    assert issubclass(NoGpuError, WyomingWhisperError)
    assert {EngineError.code, EngineBrokenError.code} == {"engine-failed", "engine-broken"}
