"""benchmarks.fidelity: what is counted, and the command on one recording."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fidelity
from benchmarks.corpus import read_corpus
from benchmarks.fidelity import FACTS, Spoken, Text, heard, row, show, show_languages, without_gate
from benchmarks.words import WordErrors
from tests.benchmarks.test_corpus import ROW, noise, write
from tests.support import AUDIO, HOME_EN
from wyoming_whisper.settings import Settings

SAID = "change our front yard window to seventy one percent"
SPEECH = [
    Spoken(file, lang, said, np.zeros(0, np.float32))
    for file, lang, said in (("a", "en", "turn it on"), ("b", "en", "a b"), ("c", "de", "drei"))
]
REFERENCE = [Text("turn it on", -0.1), Text("a b", -0.2), Text("zwei", -0.3)]


def spoken(folder: Path) -> Path:
    """Write a corpus of one recording of speech, one without, and one of noise."""
    (folder / "02-clean.flac").write_bytes((AUDIO / "02-clean.flac").read_bytes())
    voice = {**ROW, "file": "02-clean.flac", "text": SAID}
    return write(folder, voice, {**ROW, "file": "tone.wav"}, noise("n.wav"))


def test_rows_count_what_is_the_same_and_what_is_worse() -> None:
    found = [Text("turn it on", -0.2), Text("a d", -0.2), Text("3", -0.3)]
    counted = row("x", SPEECH, found, REFERENCE)
    assert (counted.same, counted.clips) == (1, 3)
    assert counted.apart == pytest.approx(0.1)
    assert counted.errors == {"de": WordErrors(words=1), "en": WordErrors(1, 0, 0, 5)}
    assert (counted.better, counted.worse, counted.points) == (1, 1, 0)
    assert counted.total == WordErrors(1, 0, 0, 6)


def test_tables() -> None:
    rows = [
        row("fw-float32", SPEECH, REFERENCE, REFERENCE),
        row("x", SPEECH, [*REFERENCE[:2], Text("drei", 0)], REFERENCE),
    ]
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in show(rows).splitlines()]
    assert lines[2][:7] == ["fw-float32", "3", "3", "100.0 %", "0.0000", "16.7 %", "-"]
    assert lines[3][:7] == ["x", "3", "2", "66.7 %", "0.0000", "0.0 %", "-16.67"]
    assert lines[3][-2:] == ["1", "0"]
    assert "| de       |     1 |    100.0 % | 0.0 % |" in show_languages(rows)


def test_only_speech_is_heard(tmp_path: Path) -> None:
    (found,) = heard(read_corpus(spoken(tmp_path)), Settings(data_dir=()))
    assert (found.file, found.lang, found.said) == ("02-clean.flac", "en", SAID)
    assert len(found.speech) > 16000


def test_the_copy_differs_in_the_gate_alone(tmp_path: Path) -> None:
    told = json.loads((HOME_EN / FACTS).read_text())
    copied = without_gate(HOME_EN, tmp_path / "copy")
    del told["min_avg_logprob"]
    assert json.loads((copied / FACTS).read_text()) == told
    assert (copied / "model.bin").samefile(HOME_EN / "model.bin")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    argv = ["--corpus", str(spoken(tmp_path)), "--part", "all", "--model", str(HOME_EN)]
    argv += ["--arithmetics", "fw-float32,fw-int8,ort-uint8", "--json", str(report)]
    assert fidelity.main(argv) == 0
    written = json.loads(report.read_text())
    assert {one["name"]: (one["same"], one["clips"]) for one in written["rows"]} == {
        "fw-float32": (1, 1),
        "fw-int8": (1, 1),
        "ort-uint8": (1, 1),
    }
    assert [text[0]["written"] for text in written["texts"].values()] == [SAID] * 3
    assert "| ort-uint8 " in capsys.readouterr().out


def test_what_cannot_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", str(HOME_EN)]
    assert fidelity.main([*model, "--corpus", str(tmp_path)]) == 1
    assert "manifest.jsonl can't be read" in capsys.readouterr().err
    write(tmp_path, noise("n.wav"))
    assert fidelity.main([*model, "--corpus", str(tmp_path), "--part", "all"]) == 1
    assert "there is no speech" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        fidelity.main([*model, "--arithmetics", "trt-int8"])
    assert "'trt-int8' is no arithmetic" in capsys.readouterr().err
