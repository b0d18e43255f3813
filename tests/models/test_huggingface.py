"""Models in Hugging Face's layout: the weights that were written are the weights that were read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest

from tests.engine.conftest import SIZES, Models, random_spec, save_random
from tests.models.huggingface import NumpyWhisper, read_safetensors
from tests.support import HOME_EN
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.commands.selftest.compare import Case
from wyoming_whisper.engine.checkpoint import Checkpoint
from wyoming_whisper.errors import ModelBrokenError
from wyoming_whisper.models.folder import (
    ModelFolder,
    _safetensors_shapes,
)
from wyoming_whisper.models.huggingface import (
    _structure,
    _tensors,
    _write_safetensors,
    write_folder,
)
from wyoming_whisper.whisper.audio import log_mel_spectrogram

MAX_TOKENS = 30


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, written in float32."""
    folder = tmp_path_factory.mktemp("home-en")
    write_folder(HOME_EN, folder, "float32")
    return folder


def numpy_whisper(model_bin: Path, tmp_path: Path, n_tokens: int) -> NumpyWhisper:
    weights = Checkpoint.read(model_bin)
    _write_safetensors(tmp_path / "w.safetensors", [*_tensors(weights, n_tokens)], "float32")
    return NumpyWhisper(_structure(weights, n_tokens), read_safetensors(tmp_path / "w.safetensors"))


# Numbers


@pytest.mark.parametrize("name", ["tiny", "turbo", "distil", "tied"])
def test_logits_are_those_of_our_graphs(name: str, models: Models, tmp_path: Path) -> None:
    size = SIZES[name]
    n_tokens = random_spec(size).decoder.embeddings.weight.shape[0]
    theirs = numpy_whisper(models.model(name) / "model.bin", tmp_path, n_tokens)
    ours = models.session(name)
    mel = np.random.default_rng(1).normal(0.0, 1.0, (size.n_mels, 120)).astype(np.float32)
    tokens = [*size.prompt, 17, 5]
    expected = ours.step(
        ours.open_cache(ours.encode(mel), 1, 64), np.array([tokens], np.int32), 0, ours.bias([])
    ).logits()[0]
    found = theirs.logits(theirs.encode(mel), tokens)[-1]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=0)


def test_what_home_en_writes_is_what_ctranslate2_writes(home: Path) -> None:
    model = NumpyWhisper.read(home)
    reference: Any = ctranslate2.models.Whisper(
        str(HOME_EN), compute_type="float32", intra_threads=1
    )
    never = json.loads((home / "generation_config.json").read_text())
    for clip in sorted(Case.CLIPS.glob("*.wav"))[:1]:
        mel = log_mel_spectrogram(read_audio(clip))
        mel = mel[:, : mel.shape[1] // 2 * 2]
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None]))
        prompt = [641, 642, 644, 648]
        expected = reference.generate(
            view, [prompt], beam_size=1, suppress_tokens=never["suppress_tokens"]
        )[0].sequences_ids[0]
        assert expected
        assert greedy(model, mel, prompt, never) == expected


def greedy(model: NumpyWhisper, mel: Any, prompt: list[int], never: dict[str, Any]) -> list[int]:
    features, tokens = model.encode(mel), list(prompt)
    for _ in range(MAX_TOKENS):
        logits = model.logits(features, tokens)[-1].copy()
        logits[never["suppress_tokens"]] = -np.inf
        if len(tokens) == len(prompt):
            logits[never["begin_suppress_tokens"]] = -np.inf
        tokens.append(int(np.argmax(logits)))
        if tokens[-1] == never["eos_token_id"]:
            return tokens[len(prompt) : -1]
    raise AssertionError("no end")


@pytest.mark.parametrize("quantization", ["int8", "float16", "int16"])
def test_quantized_weights_come_out_as_what_they_stand_for(
    quantization: str, tmp_path: Path
) -> None:
    size = SIZES["tied"]
    n_tokens = random_spec(size).decoder.embeddings.weight.shape[0]
    exact = Checkpoint.read(save_random(size, tmp_path / "exact") / "model.bin")
    rough = Checkpoint.read(save_random(size, tmp_path / "rough", quantization) / "model.bin")
    for name, weights in (("exact", exact), ("rough", rough)):
        _write_safetensors(tmp_path / name / "w.safetensors", [*_tensors(weights, n_tokens)])
    before = read_safetensors(tmp_path / "exact" / "w.safetensors")
    after = read_safetensors(tmp_path / "rough" / "w.safetensors")
    assert before.keys() == after.keys()
    for name, values in before.items():
        largest = np.abs(values).max()
        np.testing.assert_allclose(after[name], values, atol=largest / 100, err_msg=name)


def test_the_halves_are_told_apart(tmp_path: Path) -> None:
    """Queries, keys and values of random weights differ, so each must be where it belongs."""
    size = SIZES["turbo"]
    weights = Checkpoint.read(save_random(size, tmp_path / "model") / "model.bin")
    _write_safetensors(tmp_path / "w.safetensors", [*_tensors(weights, 100)], "float32")
    found, width = read_safetensors(tmp_path / "w.safetensors"), size.n_head * 64
    fused = weights.weights("decoder/layer_0/self_attention/linear_0/weight")
    for i, part in enumerate("qkv"):
        rows = fused[i * width : (i + 1) * width]
        np.testing.assert_array_equal(
            found[f"model.decoder.layers.0.self_attn.{part}_proj.weight"], rows
        )
    assert found["model.decoder.embed_tokens.weight"].shape == (100, width)
    assert found["proj_out.weight"].shape == (100, width)
    assert len(found) == 12 + 15 * size.n_audio_layer + 24 * size.n_text_layer


# Files


def test_the_folder_is_a_whole_model(home: Path) -> None:
    ModelFolder(home).check("huggingface")
    assert ModelFolder(home).is_multilingual
    assert ModelFolder(home).languages("whatever") == ("en",)
    config = json.loads((home / "config.json").read_text())
    generation = json.loads((home / "generation_config.json").read_text())
    tokenizer = json.loads((home / "tokenizer.json").read_text())
    ids = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    assert config["vocab_size"] == max(ids.values()) + 1
    assert config["decoder_start_token_id"] == ids["<|startoftranscript|>"]
    assert generation["eos_token_id"] == ids["<|endoftext|>"]
    assert generation["no_timestamps_token_id"] == ids["<|notimestamps|>"]
    assert generation["lang_to_id"] == {"<|en|>": ids["<|en|>"]}
    assert ids["<|nospeech|>"] in generation["suppress_tokens"]
    assert generation["begin_suppress_tokens"] == [220, ids["<|endoftext|>"]]
    shapes = _safetensors_shapes(home / "model.safetensors")
    assert shapes["model.encoder.conv2.weight"] == (128, 128, 3)
    assert shapes["model.decoder.embed_tokens.weight"] == (config["vocab_size"], 128)


def test_float16_is_half_as_large(home: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    write_folder(HOME_EN, tmp_path, progress=shares.append)
    small, large = ((folder / "model.safetensors").stat().st_size for folder in (tmp_path, home))
    assert 0.49 < small / large < 0.52
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "float16"
    assert not list(tmp_path.glob(".export-*"))


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "cut", "longer", "no header", "huge", "no JSON"]
)
def test_a_damaged_safetensors_file_is_named(damage: str, home: Path, tmp_path: Path) -> None:
    whole = (home / "model.safetensors").read_bytes()
    file = tmp_path / "model.safetensors"
    content = {
        "empty": b"",
        "cut": whole[:-1],
        "longer": whole + b"0",
        "no header": whole[:5],
        "huge": b"\xff" * 8 + whole[8:],
        "no JSON": whole[:8] + b"\0" + whole[9:],
    }
    if damage != "missing":
        file.write_bytes(content[damage])
    with pytest.raises(ModelBrokenError, match=r"model\.safetensors"):
        _safetensors_shapes(file)


def test_a_model_that_is_no_whisper_is_refused(home: Path, tmp_path: Path) -> None:
    for file in home.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelBrokenError, match="type t5, not whisper"):
        ModelFolder(tmp_path).check("huggingface")


def test_weights_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    def spoil(spec: Any) -> None:
        spec.encoder.layer_norm.gamma = spec.encoder.layer_norm.gamma * np.float32(np.nan)

    folder = save_random(SIZES["tied"], tmp_path / "model", change=spoil)
    with pytest.raises(ModelBrokenError, match="no numbers"):
        _write_safetensors(
            tmp_path / "w.safetensors", [*_tensors(Checkpoint.read(folder / "model.bin"), 10)]
        )
