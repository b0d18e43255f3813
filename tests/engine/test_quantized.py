"""The decoder in int8 beside the one in float32: nearly the same numbers, nearly one text."""

from __future__ import annotations

import itertools
from pathlib import Path

import ctranslate2
import numpy as np
import onnx
import pytest

from tests.engine.conftest import SIZES, Models, save_random
from tests.support import AUDIO, clips
from wyoming_whisper.backends.decoder import int8_bytes
from wyoming_whisper.backends.pipeline import load_tokenizer
from wyoming_whisper.client import read_audio
from wyoming_whisper.engine.checkpoint import read
from wyoming_whisper.engine.dims import dims_of
from wyoming_whisper.engine.graphs import write_graphs
from wyoming_whisper.engine.quantized import DecoderModels, decoder_models
from wyoming_whisper.engine.session import MAX_PREFILL_TOKENS, DecoderSession, OnnxSession
from wyoming_whisper.errors import ModelBrokenError
from wyoming_whisper.models import BUNDLED_FOLDER, suppressed_begin
from wyoming_whisper.whisper.audio import Array, log_mel_spectrogram
from wyoming_whisper.whisper.decoding import GenerateOptions
from wyoming_whisper.whisper.search import SessionInference

BEAM = 5
BUDGET = 60
N_THREADS = 1
SAME_TEXTS = 0.85
"""Of the clips at least: home-en is small, and its doubts are close calls."""
CORRELATION = 0.99


@pytest.fixture(scope="module", params=[1, BEAM])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SessionInference, SessionInference, int]:
    """Return the search in float32, and that in int8 over the same encoder's output."""
    folder = tmp_path_factory.mktemp("graphs")
    checkpoint = read(BUNDLED_FOLDER / "model.bin")
    write_graphs(checkpoint, folder, "float32", request.param)
    exact = OnnxSession(folder, N_THREADS)
    session = DecoderSession(decoder_models(checkpoint, request.param), exact.n_mels, N_THREADS)
    tokenizer = load_tokenizer(BUNDLED_FOLDER, multilingual=True)
    begin = suppressed_begin(BUNDLED_FOLDER)
    return (
        SessionInference(exact, tokenizer, begin),
        SessionInference(session, tokenizer, begin),
        request.param,
    )


def audio_features(mel: Array) -> Array:
    """Return what CTranslate2's encoder makes of `mel`."""
    model = ctranslate2.models.Whisper(str(BUNDLED_FOLDER), compute_type="float32")
    return np.asarray(model.encode(ctranslate2.StorageView.from_array(mel[None])))


def test_texts_are_those_of_the_decoder_in_float32(
    pair: tuple[SessionInference, SessionInference, int],
) -> None:
    exact, quantized, beam = pair
    tokenizer = load_tokenizer(BUNDLED_FOLDER, multilingual=True)
    prompt = [*tokenizer.sot_sequence("en"), tokenizer.no_timestamps]
    options = GenerateOptions(beam, 0.0, 1, BUDGET, tuple(tokenizer.suppressed_tokens))
    same, n_clips = 0, 0
    for clip in itertools.islice(clips("clean", "noisy"), 24):
        samples = read_audio(str(AUDIO / clip.file))
        mel = log_mel_spectrogram(samples, 80)
        mel = np.ascontiguousarray(mel[:, : mel.shape[1] // 2 * 2])
        expected = exact.generate(exact.encode(mel), prompt, options)
        found = quantized.generate(quantized.encode(audio_features(mel)), prompt, options)
        assert found.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=0.05)
        same += found.tokens == expected.tokens
        n_clips += 1
        if found.tokens == expected.tokens:
            assert found.avg_logprob == pytest.approx(expected.avg_logprob, abs=0.05)
    assert n_clips > 20
    assert same >= SAME_TEXTS * n_clips


@pytest.mark.parametrize("name", SIZES)
def test_logits_are_near_those_in_float32(name: str, models: Models) -> None:
    """Also after a prompt that takes several calls, and where no matrix is shared."""
    size = SIZES[name]
    mel = np.random.default_rng(1).normal(0, 0.5, (size.n_mels, 200)).astype(np.float32)
    exact = models.session(name)
    checkpoint = read(models.model(name) / "model.bin")
    session = DecoderSession(decoder_models(checkpoint), size.n_mels, N_THREADS)
    encoded = models.oracle(name).encode(ctranslate2.StorageView.from_array(mel[None]))
    random = np.random.default_rng(2)
    for n_tokens in (1, 4, MAX_PREFILL_TOKENS + 20):
        tokens = random.integers(1, size.n_words, (1, n_tokens)).astype(np.int32)
        logits = [
            one.step(one.open_cache(features, 1, 128), tokens, 0, one.bias(())).logits()[0].copy()
            for one, features in (
                (exact, exact.encode(mel)),
                (session, session.encode(np.asarray(encoded))),
            )
        ]
        assert np.corrcoef(*logits)[0, 1] > CORRELATION


@pytest.mark.parametrize("quantization", [None, "float16", "int8", "int16"])
def test_weights_of_every_kind_that_is_stored(quantization: str | None, tmp_path: Path) -> None:
    folder = save_random(SIZES["tied"], tmp_path, quantization)
    session = DecoderSession(decoder_models(read(folder / "model.bin")), 80, N_THREADS)
    features = session.encode(np.ones((1, 10, 128), np.float32))
    step = session.step(
        session.open_cache(features, 1, 64), np.ones((1, 1), np.int32), 0, session.bias(())
    )
    assert np.isfinite(step.logits()).all()
    assert step.logits().std() > 0.1


def test_the_weights_are_integers() -> None:
    checkpoint = read(BUNDLED_FOLDER / "model.bin")
    models = decoder_models(checkpoint)
    sizes: dict[int, int] = {}
    for part in (models.cross, models.decoder):
        for tensor in onnx.load_from_string(part).graph.initializer:
            kind, n_values = tensor.data_type, int(np.prod(tensor.dims))
            sizes[kind] = sizes.get(kind, 0) + n_values
    # The position encodings are what is left.
    assert sizes[onnx.TensorProto.FLOAT] < 0.1 * sizes[onnx.TensorProto.INT8]
    assert sizes[onnx.TensorProto.INT8] == pytest.approx(int8_bytes(dims_of(checkpoint)), rel=0.1)


def test_what_cannot_be_loaded_is_one_sentence() -> None:
    with pytest.raises(ModelBrokenError, match="a decoder made in memory can't be loaded"):
        DecoderSession(DecoderModels(b"nonsense", b""), 80)
