"""The graphs in onnxruntime, against CTranslate2 with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt
import pytest

from tests.engine import widen
from tests.engine.conftest import SIZES, Models, Size, save_random
from tests.support import AUDIO, HOME_EN, Clip, clips
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.engine import graphs
from wyoming_whisper.engine.checkpoint import Checkpoint, Dims
from wyoming_whisper.engine.onnx_graph import Precision
from wyoming_whisper.engine.session import OracleSession
from wyoming_whisper.errors import ModelBrokenError
from wyoming_whisper.whisper.audio import log_mel_spectrogram, pad_or_trim, silence_level
from wyoming_whisper.whisper.session import Session, StepOutput

Array = npt.NDArray[np.float32]
NEW_TOKENS = 30
LOGITS_TOLERANCE = 2e-4  # of logits that spread over +-10; two libraries' float32
HALF_TOLERANCE = 0.1  # of float16's, on the same scale


def noise(n_mels: int, n_frames: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n_mels, n_frames)).astype(np.float32)


def speech(clip: Clip) -> Array:
    mel = log_mel_spectrogram(read_audio(str(AUDIO / clip.file)))
    return pad_or_trim(mel, mel.shape[1] + mel.shape[1] % 2, silence_level(mel))


def row(tokens: list[int]) -> npt.NDArray[np.int32]:
    return np.array([tokens], np.int32)


def log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=-1, keepdims=True)))


def transcribe(
    session: Session, mel: Array, prompt: list[int], suppressed: list[int], count: int
) -> tuple[list[int], list[float], Array]:
    """Return tokens, their log-probabilities, and the logits after the prompt."""
    cache = session.open_cache(session.encode(mel), 1, 448)
    bias = session.bias(suppressed)
    output = session.step(cache, row(prompt), 0, bias)
    (token,), (logprob,) = output.best()
    first = output.logits()[0].copy()
    rest = list(session.greedy(cache, int(token), len(prompt), bias, count - 1))
    return [int(token), *(t for t, _ in rest)], [float(logprob), *(p for _, p in rest)], first


def oracle(
    model: Any, mel: Array, prompt: list[int], suppressed: list[int], max_length: int
) -> Any:
    features = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[np.newaxis]))
    (found,) = model.generate(
        features,
        [prompt],
        beam_size=1,
        max_length=max_length,
        return_scores=True,
        return_logits_vocab=True,
        suppress_blank=False,
        suppress_tokens=suppressed,
    )
    return found


def compare(session: Session, model: Any, size: Size, mel: Array, prompt: list[int]) -> int:
    """Assert that both say the same; return how many different tokens they said."""
    expected = oracle(model, mel, prompt, size.suppressed, 2 * NEW_TOKENS + len(prompt))
    wanted = expected.sequences_ids[0]
    ended = len(wanted) < NEW_TOKENS
    found, logprobs, logits = transcribe(
        session, mel, prompt, size.suppressed, len(wanted) + int(ended)
    )
    assert found[: len(wanted)] == wanted
    assert found[len(wanted) :] == [size.n_words] * int(ended)  # <|endoftext|>
    words = slice(0, size.n_words + 1)  # the others CTranslate2 has made impossible
    np.testing.assert_allclose(
        logits[words], np.array(expected.logits[0][0])[words], atol=LOGITS_TOLERANCE
    )
    # CTranslate2 counts the end token's probability, but not its place.
    assert sum(logprobs) / len(wanted) == pytest.approx(expected.scores[0], abs=1e-3)
    return len(set(found))


def test_it_is_a_session(models: Models) -> None:
    session: Session = models.session("tiny")
    features = session.encode(noise(80, 200))
    output: StepOutput = session.step(
        session.open_cache(features, 1, 64), row([1]), 0, session.bias([])
    )
    assert output.best()[0].shape == (1,)
    session.close()


def test_the_bundled_model_says_what_ctranslate2_says(models: Models) -> None:
    session, model = models.session("home-en"), models.oracle("home-en")
    prompt = [641, 642, 644, 648]
    heard = set()
    for clip in clips("clean", "noisy")[:12]:
        mel = speech(clip)
        wanted = oracle(model, mel, prompt, [], 448)
        found, logprobs, _ = transcribe(session, mel, prompt, [], len(wanted.sequences_ids[0]) + 1)
        assert found == [*wanted.sequences_ids[0], 640], clip.text
        assert sum(logprobs) / (len(found) - 1) == pytest.approx(wanted.scores[0], abs=1e-3)
        heard.add(tuple(found))
    assert len(heard) == 12


def test_a_model_of_openais_shape(tmp_path: Path) -> None:
    widen.widen(HOME_EN, widen.SIZES["tiny"], tmp_path / "tiny", "float16")
    weights = Checkpoint.read(tmp_path / "tiny" / "model.bin")
    dims = graphs.write_graphs(weights, tmp_path / "graphs", "float32")
    assert dims == Dims(80, 1500, 384, 6, 4, 51865, 448, 384, 6, 4)
    session = OracleSession(tmp_path / "graphs", threads=1)
    model = ctranslate2.models.Whisper(str(tmp_path / "tiny"), compute_type="float32")
    mel, prompt = speech(clips("clean")[0]), [641, 642, 644, 648]
    wanted = oracle(model, mel, prompt, [], 448).sequences_ids[0]
    assert len(wanted) > 3
    assert transcribe(session, mel, prompt, [], len(wanted) + 1)[0] == [*wanted, 640]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_weights_that_are_the_same_may_be_stored_once(precision: Precision, tmp_path: Path) -> None:
    """CTranslate2 stores a bias of zeros and a norm's shift of zeros as one variable."""
    size = SIZES["tied"]

    def plain(spec: Any) -> None:
        for part in (spec.encoder.layer[0], spec.decoder.layer[0]):
            part.self_attention.layer_norm.beta[:] = 0
            part.self_attention.linear[0].bias[:] = 0
            part.self_attention.linear[1].bias[:] = 0
        spec.decoder.layer[0].attention.linear[0].bias[:] = 0
        spec.decoder.layer[0].attention.linear[2].weight[:] = np.eye(size.n_head * 64)
        spec.decoder.layer[0].self_attention.linear[1].weight[:] = np.eye(size.n_head * 64)

    save_random(size, tmp_path / "model", change=plain)
    weights = Checkpoint.read(tmp_path / "model" / "model.bin")
    assert len(weights.aliases) >= 6
    graphs.write_graphs(weights, tmp_path / "graphs", precision)
    session = OracleSession(tmp_path / "graphs", threads=1)
    model = ctranslate2.models.Whisper(str(tmp_path / "model"), compute_type="float32")
    mel = noise(size.n_mels, 200)
    if precision == "float32":
        compare(session, model, size, mel, size.prompt)
    else:
        expected = oracle(model, mel, size.prompt, [], 8).logits[0][0]
        found = transcribe(session, mel, size.prompt, [], 1)[2]
        np.testing.assert_allclose(found, np.array(expected), atol=HALF_TOLERANCE)


@pytest.mark.parametrize("name", [*SIZES, "home-en"])
def test_float16_is_close_to_float32(name: str, models: Models) -> None:
    exact, half = models.session(name), models.session(name, "float16")
    mel, prompt = noise(exact.n_mels, 500), [1, 2, 3, 4]
    wanted = transcribe(exact, mel, prompt, [], 1)[2]
    found = transcribe(half, mel, prompt, [], 1)[2]
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < HALF_TOLERANCE
    assert np.abs(found - wanted).max() > 0  # else it is not float16 at all


def test_parents_hold_for_a_whole_prompt(models: Models) -> None:
    session, size = models.session("tied", beam_size=2), SIZES["tied"]
    features, bias = session.encode(noise(size.n_mels, 100)), session.bias([])
    past = np.array([[1], [2]], np.int32)
    new = np.random.default_rng(3).integers(0, size.n_words, (2, 100)).astype(np.int32)
    cache = session.open_cache(features, 2, 128)
    session.step(cache, past, 0, bias)
    found = session.step(cache, new, 1, bias, np.array([1, 0], np.int32)).logits().copy()
    cache = session.open_cache(features, 2, 128)
    expected = session.step(cache, np.concatenate([past[::-1], new], axis=1), 0, bias).logits()
    np.testing.assert_allclose(found, expected, atol=LOGITS_TOLERANCE)


def test_slots_beyond_the_tokens_do_not_matter(models: Models) -> None:
    session, size = models.session("tiny"), SIZES["tiny"]
    features, bias = session.encode(noise(size.n_mels, 300)), session.bias([])
    found = []
    for n_slots in (4, 64, 448):
        cache = session.open_cache(features, 1, n_slots)
        found.append(session.step(cache, row(size.prompt), 0, bias).logits())
    np.testing.assert_allclose(found[1], found[0], atol=LOGITS_TOLERANCE)
    np.testing.assert_allclose(found[2], found[0], atol=LOGITS_TOLERANCE)


def test_what_is_gone_is_refused(models: Models) -> None:
    session, size = models.session("tied"), SIZES["tied"]
    mel, bias = noise(size.n_mels, 100), session.bias([])
    cache = session.open_cache(session.encode(mel), 1, 64)
    first = session.step(cache, row([1]), 0, bias)
    other = session.open_cache(session.encode(mel), 1, 64)
    with pytest.raises(RuntimeError, match="others have been encoded"):
        session.step(cache, row([1]), 0, bias)
    session.step(other, row([1]), 0, bias)
    with pytest.raises(RuntimeError, match="not the last one"):
        first.best()
    session.open_cache(other.features, 1, 64)
    with pytest.raises(RuntimeError, match="another of its size"):
        session.step(other, row([1]), 0, bias)


def test_what_does_not_fit_is_refused(models: Models) -> None:
    session, size = models.session("tied"), SIZES["tied"]
    for shape in ((size.n_mels + 1, 100), (size.n_mels, 101), (size.n_mels, 0), (80, 3002)):
        with pytest.raises(ValueError, match="mel has the shape"):
            session.encode(noise(*shape))
    features, bias = session.encode(noise(size.n_mels, 100)), session.bias([])
    for batch in (0, session.max_batch + 1):
        with pytest.raises(ValueError, match="rows"):
            session.open_cache(features, batch, 64)
    cache = session.open_cache(features, 1, 64)
    for tokens, position in (([1] * 65, 0), ([1], 64), ([1], -1)):
        with pytest.raises(ValueError, match="cache of 64 slots"):
            session.step(cache, row(tokens), position, bias)
    for shape in ((2, 1), (1, 0)):
        with pytest.raises(ValueError, match="tokens have the shape"):
            session.step(cache, np.zeros(shape, np.int32), 0, bias)
    with pytest.raises(ValueError, match="no parents"):
        session.step(cache, row([1]), 0, bias, np.zeros(1, np.int32))
    with pytest.raises(RuntimeError, match="no candidates"):
        session.step(cache, row([1]), 0, bias).candidates()


def test_files_that_are_no_graphs(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ModelBrokenError, match=r"encoder\.onnx"):
        OracleSession(tmp_path)
    whole = models.graphs("tied")
    (tmp_path / "encoder.onnx").write_bytes((whole / "encoder.onnx").read_bytes())
    (tmp_path / "decoder.onnx").write_bytes((whole / "decoder.onnx").read_bytes()[:5000])
    with pytest.raises(ModelBrokenError, match=r"decoder\.onnx"):
        OracleSession(tmp_path)
