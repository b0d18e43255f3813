"""Latency: its arguments, tables, audio, and the real thing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main, parser_of
from benchmarks.lib.clips import Clip, read_clips
from benchmarks.lib.errors import ClipError
from benchmarks.speed import latency
from benchmarks.speed.latency import (
    BURST,
    CUT,
    EAGER,
    NOT_EAGER,
    OFFICIAL,
    PLAIN,
    REAL_TIME,
    WIDE,
    Cell,
    Meter,
    Part,
    Take,
    notes,
    plan,
    programs,
    show,
    trimmed,
)
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

AUDIO = Path(__file__).parents[2] / "audio"
SHORTEST = "04-clean.flac"


def take(server: str, seconds: float = 0.1, **fields: Any) -> Take:
    values: dict[str, Any] = {"clip": "a", "silence": 0.7, "said": "stop it", "written": "stop it"}
    return Take(server=server, seconds=seconds, **(values | fields))


def part(mode: str, takes: list[Take], cpu: dict[str, float] | None = None, **fields: Any) -> Part:
    meters = {server: Meter(seconds, 10**8) for server, seconds in (cpu or {}).items()}
    return Part(mode, "base", 5, takes, meters, **fields)


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


# -- figures -------------------------------------------------------------------------------


def test_waits_of_a_cell() -> None:
    takes = [take(EAGER, seconds) for seconds in (0.1, 0.2, 0.3)]
    takes.append(take(EAGER, 0.0, written="", error="it broke"))
    row = [EAGER, "4", "200 ms", "300 ms", "300 ms", "2.00x", "25.0 %", "1"]
    assert Cell(EAGER, None, takes).row(0.4) == row
    assert Cell(EAGER, None, takes[:3]).row(0.0)[5] == "-"
    assert Cell(EAGER, None, takes[3:]).row(0.4)[2:6] == ["-", "-", "-", "-"]


def test_silences_are_told_apart_where_a_server_heard_them_all() -> None:
    takes = [take(OFFICIAL, 2.0, silence=s) for s in (0.25, 1.84)]
    takes += [take(EAGER, 0.5 / s, silence=s) for s in (1.84, 0.25)]
    whole = part(REAL_TIME, takes)
    assert [(cell.server, cell.silence, len(cell.takes)) for cell in whole.cells()] == [
        (EAGER, 0.25, 1),
        (EAGER, 1.84, 1),
        (OFFICIAL, None, 2),
    ]
    assert [row[2] for row in rows(show([whole], REAL_TIME))[2:]] == ["0.25 s", "1.84 s", "any"]


def test_table() -> None:
    takes = [take(OFFICIAL, 1.5), take(EAGER, 0.15), take(EAGER, 0.1), take(EAGER, 0.2)]
    table = rows(show([part(BURST, takes, {EAGER: 0.25, OFFICIAL: 2.0})], BURST))
    head = "model beam server number median 95 % worst official / it WER failed CPU peak RAM"
    assert " ".join(table[0]) == head
    assert [row[2:] for row in table[2:]] == [
        [EAGER, "3", "150 ms", "200 ms", "200 ms", "10.00x", "0.0 %", "0", "250 ms", "100 MB"],
        [OFFICIAL, "1", *["1500 ms"] * 3, "1.00x", "0.0 %", "0", "2000 ms", "100 MB"],
    ]


def test_what_early_work_costs() -> None:
    told = notes([part(REAL_TIME, [], {EAGER: 0.3, NOT_EAGER: 0.2})])
    assert told == ["real-time, base: eager takes 1.50 times the processor time"]
    for unknown in ({EAGER: 0.3, NOT_EAGER: 0.0}, {EAGER: 0.3}):
        assert notes([part(REAL_TIME, [], unknown)]) == []


# -- arguments -----------------------------------------------------------------------------


def arguments(*argv: str) -> argparse.Namespace:
    return parser_of("latency", latency).parse_args(argv)


def test_a_burst_of_each_and_real_time_with_the_wider_beam() -> None:
    assert plan(arguments()) == [
        ("tiny.en", 1, BURST),
        ("tiny.en", 5, BURST),
        ("base", 1, BURST),
        ("base", 5, BURST),
        ("base", 5, REAL_TIME),
    ]


def test_a_model_in_real_time_alone() -> None:
    argv = ("real-time", "burst", "--models", "tiny.en", "--real-time", "base", "--beam-size", "1")
    expected = [("tiny.en", 1, BURST), ("base", 1, BURST), ("base", 1, REAL_TIME)]
    assert plan(arguments(*argv)) == expected


@pytest.mark.parametrize(
    "argv",
    [
        ["quickly"],
        ["--models", "huge"],
        ["--real-time", "huge"],
        ["--beam-size", "0"],
        ["--beam-size", "1,x"],
        ["--silences", "0.7,-1"],
    ],
)
def test_arguments_that_are_wrong(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(*argv)
    assert "error" in capsys.readouterr().err


def test_servers_differ_in_nothing_else() -> None:
    args = argparse.Namespace(threads=2, compute_type="int8", no_official=False)
    found = programs(args, Path("model"), 5)
    assert [program.name for program in found] == [EAGER, NOT_EAGER, PLAIN, CUT, WIDE, OFFICIAL]
    first, second, plain, cut, wide, other = (" ".join(program.command) for program in found)
    assert first.replace("--eager", "--no-eager") == second
    assert plain == f"{second} --backend faster-whisper"
    assert cut == f"{second} --audio-context 10"
    assert wide == f"{second} --audio-context full"
    for flags in ("--beam-size 5", "--cpu-threads 2", "--compute-type int8", "--language en"):
        assert flags in first
        assert flags in other


# -- audio ---------------------------------------------------------------------------------


def last_word(samples: Samples, vad: SileroVad) -> float:
    speech = Speech(vad, SpanOptions(pad_before_seconds=0, pad_after_seconds=0))
    speech.add(samples)
    speech.finish()
    return speech.spans()[-1][1] / SAMPLE_RATE


def test_after_the_speech_there_is_the_silence_asked_for() -> None:
    vad = SileroVad()
    for clip in read_clips(AUDIO)[:6]:
        whole = latency.followed_by_silence(trimmed(clip, vad).samples, 0.7)
        assert len(whole) / SAMPLE_RATE - last_word(whole, vad) == pytest.approx(0.7, abs=0.1)


def test_nobody_speaks() -> None:
    with pytest.raises(ClipError, match="nobody speaks"):
        trimmed(Clip("a", "", "silence", np.zeros(SAMPLE_RATE, np.float32)), SileroVad())


# -- the real thing ------------------------------------------------------------------------


def test_our_server_with_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = json.loads((AUDIO / "labels.json").read_text())
    (tmp_path / SHORTEST).write_bytes((AUDIO / SHORTEST).read_bytes())
    chosen = [row for row in labels if row["file"] == SHORTEST]
    (tmp_path / "labels.json").write_text(json.dumps(chosen))
    file = tmp_path / "latency.json"
    few = ["--models", "tiny.en", "--beam-size", "1", "--utterances", "1", "--silences", "0.7"]
    argv = ["burst", "real-time", "--no-official", "--clips", str(tmp_path), *few]
    monkeypatch.setattr(latency, "SETTLE_SECONDS", 0.05)
    assert main(["latency", *argv, "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    burst, real_time = written["parts"]
    assert (burst["mode"], real_time["mode"]) == (BURST, REAL_TIME)
    for part in written["parts"]:
        assert [take["server"] for take in part["takes"]] == [EAGER, NOT_EAGER, PLAIN, CUT, WIDE]
        assert not any(take["error"] for take in part["takes"])
        assert all(meter["peak_bytes"] > 10**7 for meter in part["meters"].values())
    # One utterance may take less than a tick of 10 ms, which is all that the kernel counts in.
    meters = [meter for part in written["parts"] for meter in part["meters"].values()]
    assert any(meter["cpu_seconds"] > 0 for meter in meters)
    told = capsys.readouterr()
    assert "This client sent audio-stop" in told.out
    assert "real-time, tiny.en, beam 1" in told.err
