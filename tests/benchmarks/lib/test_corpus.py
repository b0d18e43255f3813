"""Folders of recordings: what is read, what is refused, which are heard, and how."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.lib import corpus
from benchmarks.lib.clips import speech_level, with_silence, write_wav
from benchmarks.lib.corpus import MANIFEST, as_heard, condition, read_corpus, select
from benchmarks.lib.errors import ClipError
from benchmarks.lib.options import CORPUS, add
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

ROW = {"file": "a.wav", "text": "turn it on", "lang": "en", "kind": "command", "source": "a"}


def tone(seconds: float = 1.0) -> Samples:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.1 * np.sin(2 * np.pi * 300 * times)).astype(np.float32)


def write(folder: Path, *rows: object) -> Path:
    """Write a manifest of rows, or of lines that are none; every file it names is there."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / MANIFEST).write_text("\n".join(lines))
    for row in rows:
        if isinstance(row, dict) and str(row.get("file", "")).endswith(".wav"):
            write_wav(folder / row["file"], tone())
    return folder


def named(file: str, **fields: Any) -> dict[str, Any]:
    return {**ROW, "file": file, "source": file, **fields}


def noise(file: str) -> dict[str, Any]:
    return named(file, text="", lang="", kind="noise")


def test_a_manifest(tmp_path: Path) -> None:
    write(tmp_path, ROW, "", named("b.wav", text=None, voice="human", slots={"intent": "order"}))
    one, other = read_corpus(tmp_path)
    assert (one.file, one.text, one.lang, one.kind) == ("a.wav", "turn it on", "en", "command")
    assert (one.source, one.voice) == ("a", "unknown")
    assert (other.text, other.voice) == (None, "human")
    np.testing.assert_allclose(one.samples(), tone(), atol=2 / 32768)


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        ("{", "Expecting property name"),
        ("[]", "no JSON object"),
        ({**ROW, "kind": "song"}, "kind must be command, speech, noise, not 'song'"),
        ({name: value for name, value in ROW.items() if name != "text"}, "has no text"),
        ({name: value for name, value in ROW.items() if name != "source"}, "has no source"),
        ({**ROW, "source": ""}, "source must say where"),
        ({**ROW, "text": 5}, "text can't be 5"),
        ({**ROW, "text": " "}, "text must be what is said, or null"),
        ({**ROW, "lang": ""}, "lang must be the code"),
        ({**ROW, "kind": "noise"}, 'text must be ""'),
        ({**ROW, "vocals": "yes"}, 'vocals can\'t be "yes"'),
        ({**ROW, "file": "missing.flac"}, "missing.flac is not there"),
        ({**ROW, "file": "../a.flac"}, r"file must be inside .*, not \.\./a\.flac"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, row: object, mistake: str) -> None:
    write(tmp_path, named("fine.wav"), row)
    with pytest.raises(ClipError, match=rf"manifest\.jsonl, line 2: .*{mistake}"):
        read_corpus(tmp_path)


def test_a_file_is_there_once(tmp_path: Path) -> None:
    write(tmp_path, ROW, ROW)
    with pytest.raises(ClipError, match=r"line 2: a\.wav is there twice"):
        read_corpus(tmp_path)


def test_a_folder_without_recordings(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"manifest\.jsonl can't be read"):
        read_corpus(tmp_path)
    write(tmp_path)
    with pytest.raises(ClipError, match="names no recording"):
        read_corpus(tmp_path)


def test_a_source_is_always_of_the_same_part(tmp_path: Path) -> None:
    rows = [named(file, source=file[0]) for file in ("a.wav", "d.wav", "another.wav")]
    found = read_corpus(write(tmp_path, *rows))
    assert [one.part for one in found] == ["report", "fit", "report"]  # crc32(b"d") is even


def test_what_is_heard_is_what_was_asked_for(tmp_path: Path) -> None:
    rows = [
        named("en-1.wav"),
        named("en-2.wav"),
        named("de-1.wav", lang="de", kind="speech"),
        named("slots.wav", text=None),
        {**noise("song.wav"), "vocals": True},
        noise("noise.wav"),
    ]
    everything = read_corpus(write(tmp_path, *rows))

    def files(**asked: Any) -> list[str]:
        return [one.file for one in select(everything, **{"part": "all", **asked})]

    assert files() == ["en-1.wav", "en-2.wav", "de-1.wav", "noise.wav"]
    assert files(kinds=["speech"]) == ["de-1.wav"]
    assert files(languages=["en"]) == ["en-1.wav", "en-2.wav", "noise.wav"]
    assert files(limit=1) == ["en-1.wav", "de-1.wav", "noise.wav"]
    parts = Counter(one.part for one in everything if one.file in files())
    assert len(files(part="fit")) == parts["fit"]
    assert len(files(part="report")) == parts["report"]


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser, *CORPUS)
    return parser.parse_args(argv)


def test_options_choose_among_several_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, ROW, named("de.wav", lang="de"))
    folders = [f"--corpus={tmp_path / name}" for name in ("one", "two")]
    found = corpus.chosen(arguments(*folders, "--part", "all", "--languages", "de"))
    assert [(one.folder.name, one.file) for one in found] == [("one", "de.wav"), ("two", "de.wav")]
    (found_without,) = corpus.chosen(arguments(folders[0], "--part", "all", "--without", "a.wav"))
    assert found_without.file == "de.wav"
    with pytest.raises(ClipError, match=r"--without names x\.wav, which is no recording"):
        corpus.chosen(arguments(*folders, "--without", "a.wav,x.wav"))
    with pytest.raises(ClipError, match="none of 4 recordings is what was asked for"):
        corpus.chosen(arguments(*folders, "--kinds", "noise"))
    with pytest.raises(ClipError, match="--corpus must name a folder"):
        corpus.chosen(arguments())


def test_a_condition_must_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert [condition(name) for name in ("clean", "noise10", "quiet45")]
    with pytest.raises(argparse.ArgumentTypeError, match="'loud' is none of clean, noiseN"):
        condition("loud")
    with pytest.raises(SystemExit):
        arguments("--kinds", "song")
    assert "'song' is none of command, speech, noise" in capsys.readouterr().err


def test_conditions_change_speech_and_leave_noise_as_it_is(tmp_path: Path) -> None:
    spoken, nobody = read_corpus(write(tmp_path, ROW, noise("n.wav")))
    clean = as_heard(spoken)
    np.testing.assert_array_equal(clean, with_silence(spoken.samples()))
    quiet = as_heard(spoken, "quiet45")
    assert 20 * np.log10(speech_level(quiet)) == pytest.approx(-45, abs=0.1)
    added = as_heard(spoken, "noise10") - clean
    ratio = speech_level(clean) / float(np.sqrt(np.mean(np.square(added))))
    assert 20 * np.log10(ratio) == pytest.approx(10, abs=0.1)
    for under in ("quiet45", "noise10"):
        np.testing.assert_array_equal(as_heard(nobody, under), with_silence(nobody.samples()))
