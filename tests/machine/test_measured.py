"""What was measured once: it is kept, and nothing breaks where it can't be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wyoming_whisper.machine.measured import Measurements


def content(folder: Path) -> object:
    return json.loads((folder / Measurements.FILE).read_text(encoding="utf-8"))


def test_what_is_kept_under_two_keys_is_there_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert Measurements([folder]).get("base on a fast machine") is None
    Measurements([folder, tmp_path]).put("base on a fast machine", "onnxruntime")
    Measurements([folder]).put("tiny, größer", {"threads": 4})
    assert Measurements([folder]).get("tiny, größer") == {"threads": 4}
    Measurements([folder]).put("base on a fast machine", "faster-whisper")
    expected = {"base on a fast machine": "faster-whisper", "tiny, größer": {"threads": 4}}
    assert content(folder) == expected
    assert [file.name for file in folder.iterdir()] == [Measurements.FILE]


def test_without_a_folder_nothing_is_kept() -> None:
    Measurements([]).put("key", 3)
    assert Measurements([]).get("key") is None


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe"])
def test_a_file_that_is_damaged_is_written_anew(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / Measurements.FILE).write_bytes(damaged)
    assert Measurements([tmp_path]).get("key") is None
    Measurements([tmp_path]).put("key", 3)
    assert content(tmp_path) == {"key": 3}


def test_what_cannot_be_written_is_kept_while_the_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Measurements([tmp_path]).put("key", 3)

    def refuse(self: Path, *_: object, **__: object) -> None:  # root may write anywhere
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "replace", refuse)
    Measurements([tmp_path]).put("other", 5)
    assert content(tmp_path) == {"key": 3}
    assert Measurements([tmp_path]).get("other") == 5
    assert Measurements([tmp_path / "another"]).get("other") is None


def test_where_a_file_stands_in_the_place_of_the_folder_it_stays(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    Measurements([tmp_path / "data"]).put("key", 3)
    assert Measurements([tmp_path / "data"]).get("key") == 3
    assert (tmp_path / "data").read_text() == "mine"
