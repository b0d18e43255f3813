"""What people give as a model and is none: the sentence says what it is, and what to do."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.models.fakes import (
    huggingface_files,
    model_files,
    vocabulary,
    weights,
    write_folder,
)
from tests.models.hub_standin import HubStandin
from wyoming_whisper.errors import ModelBrokenError, ModelError
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.models.listing import ModelEntry
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings

NOISE = bytes(range(256)) * 4
ZIP = b"PK\x03\x04" + NOISE
WHISPER = json.dumps(
    {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]}
).encode()

# Files


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ggml-base.bin", NOISE, "a model of whisper.cpp, which is not read here: --model base is"),
        ("ggml-base.en-q5_1.bin", b"lmgg" + NOISE, "whisper.cpp, .* --model base.en is OpenAI's"),
        ("mine.bin", b"lmgg" + NOISE, "whisper.cpp, .* name a model that `wyoming-whisper models"),
        ("small.gguf", NOISE, "a model of whisper.cpp, .* --model small is"),
        ("tiny.en.pt", ZIP, "a checkpoint of PyTorch, which is not read here: --model tiny.en is"),
        ("large-v3-turbo.pt", b"\x80\x02" + NOISE, "--model large-v3-turbo is OpenAI's model"),
        ("mine.pt", ZIP, "a checkpoint of PyTorch, .* or give the folder of a CTranslate2 model"),
        ("decoder_model.onnx", NOISE, "an ONNX model, which is not read here: "),
        ("base.zip", ZIP, r"an archive: unpack it, and give the folder with model\.bin"),
        ("base.tar.gz", b"\x1f\x8b" + NOISE, "an archive: unpack it"),
        ("parakeet.nemo", NOISE, "a model of NeMo, which is not Whisper"),
        ("model.bin", weights(), r"a file of a model: give its folder, --model .*models"),
        ("model.bin", b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        ("model.bin", b"<!DOCTYPE html>", "a web page"),
        ("notes.txt", b"x", "is a file: --model takes a name, a hub repository .* or a folder"),
    ],
)
def test_a_file_is_called_what_it_is_and_never_taken_for_a_repository(
    hub: HubStandin,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    message: str,
    relative: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "models" / name
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        ModelStore(settings).ensure(f"models/{name}" if relative else str(file))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hub.requests == []


def test_a_file_in_the_data_folder_is_called_what_it_is(settings: Settings) -> None:
    settings.data_dir[0].mkdir()
    (settings.data_dir[0] / "ggml-base.bin").write_bytes(NOISE)
    with pytest.raises(ModelError, match=r"whisper\.cpp, .* --model base is"):
        ModelStore(settings).find("ggml-base.bin")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "vocabulary.json"])
def test_any_file_of_a_model_names_its_folder(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    folder = write_folder(tmp_path / "my model", model_files(n_tokens=200))
    with pytest.raises(ModelError, match=f"give its folder, --model '{folder}'$"):
        ModelStore(settings).find(str(folder / name))


@pytest.mark.parametrize("name", ["models/ggml-base.bin", "base.pt", "a/b.gguf", "a/b.onnx"])
def test_a_file_that_is_not_there_is_no_repository(
    hub: HubStandin, settings: Settings, name: str
) -> None:
    with pytest.raises(ModelError, match=f"there is no file {name}"):
        ModelStore(settings).ensure(name)
    assert hub.requests == []


# Folders


def test_a_folder_of_transformers_names_the_command_that_converts_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {**huggingface_files(), "config.json": WHISPER}
    write_folder(tmp_path / "whisper de", files)
    with pytest.raises(ModelBrokenError, match="a Whisper in transformers' layout") as caught:
        ModelStore(settings).ensure("./whisper de")
    command = str(caught.value).split("`")[1]
    output = f"{tmp_path}/whisper de-ct2"
    assert shlex.split(command) == [
        *("ct2-transformers-converter", "--model", "whisper de", "--output_dir", output),
        *("--copy_files", "tokenizer.json", "preprocessor_config.json"),
        *("--quantization", "float16"),
    ]
    assert str(caught.value).endswith(f"--model '{output}'")


def test_the_command_copies_what_is_there_alone(settings: Settings, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", {"config.json": WHISPER, "model.safetensors": b""})
    with pytest.raises(ModelBrokenError) as caught:
        ModelStore(settings).find(str(folder))
    assert "--copy_files" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pytorch_model.bin": ZIP}, "holds weights of transformers; if they are Whisper's, conv"),
        (
            {"model-00001-of-2.safetensors": b"", "model.safetensors.index.json": b"{}"},
            "convert it",
        ),
        ({"config.json": b'{"model_type": "wav2vec2"}'}, "a model of type 'wav2vec2', not Whisper"),
        ({"ggml-small.bin": NOISE}, r"model\.bin is missing; .*whisper\.cpp.*--model small is"),
        ({"medium.pt": ZIP}, r"model\.bin is missing; .*PyTorch.*--model medium is"),
        ({"encoder.onnx": NOISE}, r"model\.bin is missing; .*an ONNX model"),
        ({"parakeet-tdt.nemo": NOISE}, r"model\.bin is missing; .*NeMo, which is not Whisper"),
        ({"README.md": b"x"}, r"model\.bin is missing: .* is not the folder of a CTranslate2"),
        ({"config.json": b"[" * 100_000}, r"model\.bin is missing"),
        (
            {"model.bin": ZIP, "config.json": WHISPER},
            "not a CTranslate2 Whisper model, but a",
        ),
        ({"model.bin": b"version https://git-lfs"}, "not a CTranslate2 .*`git lfs pull`"),
    ],
)
def test_a_folder_of_something_else_is_called_what_it_is(
    settings: Settings, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    folder = write_folder(tmp_path / "model", files)
    with pytest.raises(ModelBrokenError, match=message) as caught:
        ModelStore(settings).ensure(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("below", ["base", "snapshots/abc", "models--a--b/snapshots/abc"])
def test_a_folder_above_the_models_names_the_models(
    settings: Settings, tmp_path: Path, below: str
) -> None:
    folder = write_folder(tmp_path / "models" / below, model_files(n_tokens=200))
    with pytest.raises(ModelBrokenError, match=f"in a folder below: --model {folder}$"):
        ModelStore(settings).find(str(tmp_path / "models"))


# Folders put together of two models


def tokenizer(tokens: list[str]) -> bytes:
    """Return the tokenizer.json that goes with a vocabulary."""
    special = [(i, token) for i, token in enumerate(tokens) if token.startswith("<|")]
    text = {token: i for i, token in enumerate(tokens) if not token.startswith("<|")}
    added = [{"id": i, "content": token, "special": True} for i, token in special]
    return json.dumps({"added_tokens": added, "model": {"type": "BPE", "vocab": text}}).encode()


ENGLISH = vocabulary(51_864)
MULTILINGUAL = vocabulary(51_865)
SINCE_V3 = vocabulary(51_866, yue=True)
ALL = (ENGLISH, MULTILINGUAL, SINCE_V3)


def folder_of(path: Path, own: list[str], of_tokenizer: list[str], listed: list[str]) -> Path:
    """Write a model of the tokens `own` with a tokenizer and a vocabulary."""
    shapes = {"encoder/conv1/weight": (8, 80, 3), "decoder/embeddings/weight": (len(own), 1)}
    files = {
        "config.json": b"{}",
        "model.bin": weights(shapes),
        "tokenizer.json": tokenizer(of_tokenizer),
        "vocabulary.json": json.dumps(listed).encode(),
    }
    return write_folder(path, files)


@pytest.mark.parametrize("tokens", ALL, ids=len)
def test_a_model_with_its_own_tokenizer_is_accepted(tmp_path: Path, tokens: list[str]) -> None:
    ModelFolder(folder_of(tmp_path / "model", tokens, tokens, tokens)).check()


@pytest.mark.parametrize("tokens", ALL, ids=len)
@pytest.mark.parametrize("others", ALL, ids=len)
def test_the_tokenizer_of_another_model_is_called_that(
    settings: Settings, tokens: list[str], others: list[str]
) -> None:
    if tokens is others:
        return
    settings.data_dir[0].mkdir()
    folder = folder_of(settings.data_dir[0] / "mixed", tokens, others, tokens)
    message = r"tokenizer\.json is the tokenizer of another model: .* delete it \(it is made again"
    with pytest.raises(ModelBrokenError, match=message):
        ModelStore(settings).ensure("mixed")
    (entry,) = (entry for entry in ModelEntry.all(settings) if entry.name == "mixed")
    assert entry.state == "broken"
    assert "is the tokenizer of another model" in entry.problem
    (folder / "tokenizer.json").unlink()
    ModelFolder(folder).check()
    (folder / "vocabulary.json").write_text(json.dumps(others))
    with pytest.raises(ModelBrokenError, match=r"vocabulary\.json is of another model: it has"):
        ModelFolder(folder).check()


def test_stock_models_with_each_others_tokenizers(
    tmp_path: Path, stock_base: Path, stock_tiny_en: Path
) -> None:
    """tiny.en with base's tokenizer.json: what people copy."""
    for own, other in ((stock_tiny_en, stock_base), (stock_base, stock_tiny_en)):
        ModelFolder(own).check()
        folder = tmp_path / own.name
        folder.mkdir()
        for file in own.iterdir():
            source = other if file.name == "tokenizer.json" else own
            (folder / file.name).symlink_to(source.resolve() / file.name)
        with pytest.raises(ModelBrokenError, match="is the tokenizer of another model"):
            ModelFolder(folder).check()


def test_a_vocabulary_cut_off_at_a_line_is_broken(tmp_path: Path) -> None:
    tokens = vocabulary(200)
    folder = folder_of(tmp_path / "model", tokens, tokens, tokens[:-1])
    with pytest.raises(ModelBrokenError, match=r"cut off, or no Whisper's: it has no <\|notimest"):
        ModelFolder(folder).check()


def test_in_the_other_layout_a_foreign_tokenizer_is_called_that_too(tmp_path: Path) -> None:
    ids = {"eos_token_id": MULTILINGUAL.index("<|endoftext|>"), "decoder_start_token_id": [1]}
    files = {**huggingface_files(), "generation_config.json": json.dumps(ids).encode()}
    own = write_folder(tmp_path / "own", {**files, "tokenizer.json": tokenizer(MULTILINGUAL)})
    ModelFolder(own).check("huggingface")
    other = write_folder(tmp_path / "other", {**files, "tokenizer.json": tokenizer(ENGLISH)})
    with pytest.raises(ModelBrokenError, match="is the tokenizer of another model"):
        ModelFolder(other).check("huggingface")
