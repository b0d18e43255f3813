"""What was measured once: it is kept, and nothing breaks where it can't be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wyoming_whisper.machine.measured import recall, remember


def test_what_is_remembered_under_two_keys_is_recalled(tmp_path: Path) -> None:
    file = tmp_path / "data" / "measured.json"
    assert recall(file) == {}
    remember(file, "base on a fast machine", "onnxruntime")
    remember(file, "tiny, größer", {"threads": 4})
    expected = {"base on a fast machine": "onnxruntime", "tiny, größer": {"threads": 4}}
    assert recall(file) == expected
    remember(file, "base on a fast machine", "faster-whisper")
    assert recall(file) == {**expected, "base on a fast machine": "faster-whisper"}
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe"])
def test_a_file_that_is_damaged_is_written_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "measured.json"
    file.write_bytes(content)
    assert recall(file) == {}
    remember(file, "key", 3)
    assert json.loads(file.read_text(encoding="utf-8")) == {"key": 3}


def test_in_a_folder_that_cannot_be_written_nothing_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "measured.json"
    remember(file, "key", 3)

    def refuse(self: Path, *_: object, **__: object) -> None:  # root may write anywhere
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    remember(file, "key", 4)
    remember(file, "other", 5)
    assert recall(file) == {"key": 3}


def test_where_a_file_stands_in_the_place_of_the_folder_nothing_is_remembered(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").write_text("mine")
    remember(tmp_path / "data" / "measured.json", "key", 3)
    assert recall(tmp_path / "data" / "measured.json") == {}
    assert (tmp_path / "data").read_text() == "mine"
