"""Damaged JSON beside the weights: a broken model whose file is named, or one that opens."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models.conftest import MODEL_FILES, REPO
from tests.models.fakes import huggingface_files, write_folder
from tests.models.hub_standin import HubStandin
from tests.support import HOME_EN
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.errors import ModelBrokenError
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings

EXTRAS = ModelFolder.EXTRAS
FILES = ("config.json", "tokenizer.json", "vocabulary.json", "preprocessor_config.json", EXTRAS)

READ = {
    *("suppress_ids", "suppress_ids_begin", "lang_ids", "alignment_heads"),
    *("added_tokens", "model", "pre_tokenizer", "decoder"),
    *("languages", "min_avg_logprob", "tight_window"),
}
"""What is read of objects, by us or by the libraries."""

CONTENTS: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"3",
    b'"text"',
    b"[]",
    b"{}",
    b"[1, 2]",
    b'["a", "\\ud800"]',
    b'{"a": "\\ud800"}',
    b"NaN",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 5000,
    b"<!DOCTYPE html><title>login</title>",
    bytes(100),
]
VALUES: list[Any] = [
    *(None, True, 3, -1, 10**12, 10**400, 0.5, float("nan"), "x"),
    *([], {}, [[]], ["x"], [None], [10**12], [-(10**12)], {"x": []}),
]


def changes(file: Path) -> Iterator[bytes]:
    """Yield the contents that the file might have instead of its own."""
    whole = file.read_bytes()
    yield from CONTENTS
    yield from (whole[: len(whole) // 2], whole[:-1], whole[: len(whole) // 3] + whole[-9:])
    content = json.loads(whole)
    if isinstance(content, dict):
        yield from (json.dumps(change).encode() for change in _changed(content))


def _changed(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the object with one value less, or another."""
    for key in sorted(READ & content.keys()):
        yield {name: content[name] for name in content if name != key}
        yield from ({**content, key: other} for other in VALUES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HOME_EN, tmp_path / "model"))


def opened(folder: Path) -> None:
    """Open the model and ask for all that is read of its JSON."""
    settings = Settings(model=str(folder), data_dir=(folder.parent,), cpu_threads=1, device="cpu")
    open_faster_whisper(settings, folder).close()
    assert isinstance(ModelFolder(folder).suppressed_begin, list)


def complaint(folder: Path) -> str | None:
    """Return what is said of the model that does not open, None for one that does."""
    try:
        opened(folder)
    except ModelBrokenError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", FILES)
def test_a_model_with_a_damaged_file_opens_or_is_broken_and_the_file_is_named(
    folder: Path, name: str
) -> None:
    said = []
    for content in changes(HOME_EN / name):
        (folder / name).write_bytes(content)
        said.append(complaint(folder))
    complaints = [one for one in said if one is not None]
    assert all(str(folder / name) in one and "\n" not in one for one in complaints), complaints
    # Of preprocessor_config.json nothing is read.
    assert bool(complaints) is (name != "preprocessor_config.json")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", {"suppress_ids_begin": "x"}, "suppress_ids_begin is not a list of whole"),
        (
            "config.json",
            {"suppress_ids": [2151]},
            "suppress_ids is not of a model with 2151",
        ),
        ("config.json", {"lang_ids": [None]}, "lang_ids is not a list of whole numbers"),
        ("config.json", {"alignment_heads": [[1]]}, "alignment_heads is not a list of pairs"),
        (EXTRAS, {"languages": ["xx"]}, "languages is not a list of Whisper's codes"),
        (EXTRAS, {"languages": "en"}, "languages is not a list"),
        (EXTRAS, {"min_avg_logprob": "low"}, "min_avg_logprob is not a number"),
        (EXTRAS, {"min_avg_logprob": float("nan")}, "min_avg_logprob is not a number"),
        (EXTRAS, {"tight_window": "no"}, "tight_window is not true or false"),
    ],
)
def test_a_value_of_another_type_is_named(
    folder: Path, name: str, change: dict[str, Any], message: str
) -> None:
    content = {**json.loads((folder / name).read_text()), **change}
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ModelBrokenError, match=f"{re.escape(str(folder / name))} is damaged: .*"):
        ModelFolder(folder).check()
    with pytest.raises(ModelBrokenError, match=message):
        ModelStore(Settings(data_dir=(folder.parent,))).ensure(str(folder))


@pytest.mark.parametrize(
    "change",
    [
        {"alignment_heads": [[20, 3], [31, 1]]},  # of the large model that this one was made of
        {"alignment_heads": [[2, 0], [2, 19]]},
        {"alignment_heads": None},
        {"suppress_ids": None},
        {"suppress_ids_begin": None},
    ],
)
def test_what_a_distilled_model_says_of_another_decoder_ends_no_process(
    folder: Path, change: dict[str, Any]
) -> None:
    content = {**json.loads((folder / "config.json").read_text()), **change}
    (folder / "config.json").write_text(json.dumps(content))
    assert complaint(folder) is None
    del content[next(iter(change))]
    (folder / "config.json").write_text(json.dumps(content))
    assert complaint(folder) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("generation_config.json", b'{"lang_to_id": [1]}'),
        ("generation_config.json", b'{"lang_to_id": {"<|en|>": "x"}}'),
        ("generation_config.json", b"[" * 100_000),
        ("preprocessor_config.json", b"{"),
        (EXTRAS, b"["),
    ],
)
def test_the_other_layouts_files_are_named_too(tmp_path: Path, name: str, content: bytes) -> None:
    folder = write_folder(tmp_path / "model", {**huggingface_files(), name: content})
    with pytest.raises(ModelBrokenError, match=f"{re.escape(str(folder / name))} is damaged"):
        ModelFolder(folder).check("huggingface")


def test_damaged_facts_are_fetched_again(settings: Settings, hub: HubStandin) -> None:
    hub.repos[REPO] = {**MODEL_FILES, "config.json": b'{"suppress_ids": []}'}
    path = ModelStore(settings).ensure("tiny")
    blob = (path / "config.json").resolve()
    blob.write_bytes(b'{"suppress_ids": "damaged"}')
    assert ModelStore(settings).ensure("tiny") == path
    assert blob.read_bytes() == b'{"suppress_ids": []}'
