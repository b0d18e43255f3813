"""Whole servers on a corpus: which are started, what is sent, what is counted, and the tables."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.hearing import accuracy
from benchmarks.hearing.accuracy import SERVERS, Task, program, tasks, transcribe_all
from benchmarks.lib.client import Heard
from benchmarks.lib.corpus import Recording, read_corpus
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.scores import Report, Result, Score, beside, shown, tables
from benchmarks.lib.servers import Memory
from benchmarks.lib.words import WordErrors
from tests.benchmarks.lib.test_corpus import ROW, named, noise, write
from tests.support import AUDIO, HOME_EN
from wyoming_whisper.models.vocabulary import Vocabulary

SPOKEN = "change our front yard window to seventy one percent"  # in 02-clean.flac
ASKED = argparse.Namespace(threads=1, beam_size=0, compute_type="default", prompt=None)


# -- servers -------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder of which nothing but its languages is known."""
    words = [str(number) for number in range(Vocabulary.MULTILINGUAL)]
    (tmp_path / "vocabulary.json").write_text(json.dumps([*words, "<|en|>", "<|de|>"]))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def last(command: tuple[str, ...], flag: str) -> str:
    """Return the value of a flag that counts: that of the last."""
    return command[len(command) - command[::-1].index(flag)]


@pytest.mark.parametrize(
    ("name", "backend", "window"),
    [
        ("ours-fw", "faster-whisper", None),
        ("ours-ort", "onnxruntime", None),
        ("ours-fw-full", "faster-whisper", "full"),
        ("ours-ort-3", "onnxruntime", "3"),
        ("ours", None, None),
    ],
)
def test_a_name_says_how_our_server_is_started(
    model: Path, name: str, backend: str | None, window: str | None
) -> None:
    found = program(name, ASKED, model)
    assert (found.name, found.is_ours) == (name, True)
    assert ("--backend" in found.command) == (backend is not None)
    assert ("--audio-context" in found.command) == (window is not None)
    assert backend is None or last(found.command, "--backend") == backend
    assert window is None or last(found.command, "--audio-context") == window


def test_a_name_says_how_the_official_server_is_started(model: Path) -> None:
    plain = program("official", ASKED, model).command
    assert "wyoming_faster_whisper" in plain
    assert not {"--vad-filter", "--compute-type"} & set(plain)
    other = program("official-int8-vad", ASKED, model)
    assert (other.name, other.is_ours) == ("official-int8-vad", False)
    assert "--vad-filter" in other.command
    assert last(other.command, "--compute-type") == "int8"


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_gets_the_same_model_prompt_and_language(model: Path, name: str) -> None:
    asked = argparse.Namespace(**{**vars(ASKED), "prompt": "Zorbo, Hedwig"})
    command = program(name, asked, model).command
    assert last(command, "--model") == str(model.resolve())
    assert last(command, "--initial-prompt") == "Zorbo, Hedwig"
    assert last(command, "--language") == "auto"
    assert last(program(name, ASKED, HOME_EN).command, "--language") == "en"


@pytest.mark.parametrize("name", ["", "theirs", "ours-trt", "ours-fw-", "official-5"])
def test_no_server_has_another_name(model: Path, name: str) -> None:
    with pytest.raises(BenchmarkError, match="there is no server"):
        program(name, ASKED, model)


# -- what is sent --------------------------------------------------------------------------


def recordings(folder: Path) -> list[Recording]:
    rows = [ROW, named("de.wav", lang="de", kind="speech", text="guten tag"), noise("n.wav")]
    return read_corpus(write(folder, *rows))


def test_every_condition_is_heard_but_for_noise(tmp_path: Path) -> None:
    found = tasks(recordings(tmp_path), ["clean", "noise10"], ["en", "de"])
    assert [(one.recording.file, one.label) for one in found] == [
        ("a.wav", "clean"),
        ("de.wav", "clean"),
        ("n.wav", "clean"),
        ("a.wav", "noise10"),
        ("de.wav", "noise10"),
    ]


def test_the_languages_of_a_model(model: Path) -> None:
    assert accuracy.languages(model) == ("en", "de")
    assert accuracy.languages(HOME_EN) == ("en",)


def test_a_model_hears_the_languages_that_it_knows(tmp_path: Path) -> None:
    found = tasks(recordings(tmp_path), ["clean"], ["en"], "Zorbo")
    assert [(one.recording.file, one.label) for one in found] == [
        ("a.wav", "clean, prompt"),
        ("n.wav", "clean, prompt"),
    ]


class FakeServer:
    """Answers what it was sent, fails where it is told to."""

    def __init__(self, name: str, log: list[tuple[str, str]], breaks: bool = False) -> None:
        self.name = name
        self.uri = name
        self.log = log
        self.breaks = breaks

    async def say(self, language: str) -> Heard:
        self.log.append((self.name, language))
        if self.breaks:
            return Heard("", 0.5, "nobody is there")
        return Heard(f"  {self.name}  says {language}\n", 0.5)


def test_servers_take_turns_and_one_that_dies_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, str]] = []
    fakes = {name: FakeServer(name, log, breaks=name == "b") for name in ("a", "b")}

    async def say(uri: str, samples: object, *, language: str, chunk_ms: int) -> Heard:
        return await fakes[uri].say(language)

    monkeypatch.setattr(accuracy, "say", say)
    todo = [Task(one, "clean", "clean") for one in recordings(tmp_path)]
    servers: Any = list(fakes.values())
    found = transcribe_all("base", servers, todo, 10)
    assert log == [("b", "en"), ("a", "en"), ("a", "de"), ("b", "de"), ("b", "en"), ("a", "en")]
    assert [one.server for one in found] == ["a", "a", "a", "b", "b", "b"]
    assert [one.written for one in found[:3]] == ["a says en", "a says de", "a says en"]
    assert [one.error for one in found] == [None] * 3 + ["nobody is there"] * 3
    assert [one.lang for one in found[:3]] == ["en", "de", ""]


# -- what is counted -----------------------------------------------------------------------


def result(server: str, said: str, written: str, **fields: Any) -> Result:
    values: dict[str, Any] = {
        "model": "base",
        "condition": "clean",
        "file": said,
        "lang": "en",
        "kind": "command",
        "seconds": 0.1,
    }
    return Result(server=server, said=said, written=written, **{**values, **fields})


ON, OFF = "turn on the bedroom light", "turn off the bedroom light"


def test_a_score_counts_words_commands_and_noise() -> None:
    score = Score(
        [
            result("x", ON, "Turn on the bedroom light."),
            result("x", OFF, ON, seconds=0.6),
            result("x", "turn on the garage light", "turn on the garbage", seconds=0.2),
            result("x", "what time is it", "", error="it broke", seconds=9),
            result("x", "seven of clubs", ON),  # no command here, whatever is made of it
            result("x", ON, ON, kind="speech"),  # words alone are asked for
            result("x", "", "Thank you.", kind="noise", lang=""),
            result("x", "", " ... ", kind="noise", lang=""),
        ]
    )
    assert (score.understood, score.another, len(score.commands)) == (1, 1, 4)
    assert (score.invented, len(score.noises)) == (1, 2)
    assert (score.exact, len(score.spoken), score.failed) == (2, 6, 1)
    assert score.errors == WordErrors(substitutions=5, deletions=5, insertions=2, words=27)
    assert sorted(score.seconds) == [0.1, 0.1, 0.1, 0.2, 0.6]


def test_a_command_in_its_own_language() -> None:
    assert result("x", "wie spät ist es", "Wie spät ist es?", lang="de").is_understood
    assert not result("x", "wie spät ist es", "Wie spät ist es?", lang="en").is_meant


MEMORY = Memory(resident=200_000_000, peak=300_000_000, own=1)


def a_report() -> Report:
    pairs = [(ON, ON, OFF), (OFF, OFF, OFF), ("it is late", "it is late", "is late")]
    results = [result("ours", said, written) for said, written, _ in pairs]
    results += [result("official", said, written, seconds=0.4) for said, _, written in pairs]
    results.append(result("official", "", "Thank you.", kind="noise", file="cough.flac"))
    return Report(results, {("base", "ours"): MEMORY})


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_tables() -> None:
    told = list(tables(a_report()))
    assert told[0] == "## base, clean"
    found = cells(told[1])
    head = "word errors,words,exact,of,understood,of,another command,noise with text,of,failed"
    assert found["server"][:10] == head.split(",")
    assert ",".join(found["ours"]) == "0.0 %,13,3,3,2,2,0,0,0,0,0.100,0.100,200 MB,300 MB"
    assert ",".join(found["official"]) == "15.4 %,13,1,3,1,2,1,1,1,0,0.400,0.400,-,-"
    assert told[2] == "Word errors by language:"
    assert cells(told[3])["en"] == ["3", "13", "0.0 %", "15.4 %"]
    assert told[4] == "Commands understood by language:"
    assert cells(told[5])["en"] == ["2", "2", "1"]


def test_servers_are_set_beside_the_first_one_recording_by_recording() -> None:
    found = cells(beside(a_report().of("base", "clean")))
    fewer, more, points, _, gained, lost = found["official"]
    assert (fewer, more, points, gained, lost) == ("0", "2", "+15.38", "0", "1")


def test_what_went_wrong_is_shown() -> None:
    failed = result("ours", ON, "", error="it broke")
    lines = list(shown([*a_report().results, failed]))
    assert lines == [
        f"base, clean, official: {ON} is {ON!r}: {OFF!r}, HassTurnOff(name=bedroom light)",
        "base, clean, official: cough.flac is noise: 'Thank you.'",
        f"base, clean, ours: {ON} failed: it broke",
    ]


# -- the command ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "mistake"),
    [
        (["--models", "{model}"], "--corpus must name a folder"),
        (["--models", "{model}", "--corpus", "{folder}"], "manifest.jsonl can't be read"),
        (["--models", "{model}", "--corpus", "{corpus}", "--servers", "x"], "no server 'x'"),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], mistake: str
) -> None:
    (tmp_path / "corpus").mkdir()
    corpus = write(tmp_path / "corpus", {**ROW, "source": "a"})
    filled = [text.format(model=HOME_EN, folder=tmp_path, corpus=corpus) for text in argv]
    assert main(["accuracy", *filled]) == 1
    assert mistake in capsys.readouterr().err


def test_our_server_on_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoken = {"file": "02-clean.flac", "text": SPOKEN, "lang": "en", "kind": "command"}
    silence = {"file": "n.wav", "text": "", "lang": "", "kind": "noise"}
    write(tmp_path, {**spoken, "source": "a"}, {**silence, "source": "n"})
    (tmp_path / "02-clean.flac").write_bytes((AUDIO / "02-clean.flac").read_bytes())
    file = tmp_path / "found.json"
    argv = ["--corpus", str(tmp_path), "--part", "all", "--models", str(HOME_EN)]
    argv += ["--servers", "ours-fw,ours-ort", "--threads", "1", "--json", str(file)]
    assert main(["accuracy", *argv]) == 0
    found = json.loads(file.read_text())
    texts = {(one["server"], one["file"]): one["written"] for one in found["results"]}
    assert texts == {
        ("ours-fw", "02-clean.flac"): SPOKEN,
        ("ours-fw", "n.wav"): "",
        ("ours-ort", "02-clean.flac"): SPOKEN,
        ("ours-ort", "n.wav"): "",
    }
    assert [one["error"] for one in found["results"]] == [None] * 4
    assert [one["server"] for one in found["memory"]] == ["ours-fw", "ours-ort"]
    assert "0.0 %" in capsys.readouterr().out
