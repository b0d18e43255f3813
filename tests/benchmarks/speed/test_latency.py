"""Latency: its share of time, its arguments, audio, and the real thing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main, parser_of
from benchmarks.lib.clips import Clip, read_clips
from benchmarks.lib.errors import ClipError
from benchmarks.lib.waits import (
    BURST,
    EAGER,
    NOT_EAGER,
    OFFICIAL,
    PLAIN,
    REAL_TIME,
    WIDE,
    Part,
    Take,
)
from benchmarks.speed import latency
from benchmarks.speed.latency import programs, rounds, shares, trimmed
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

AUDIO = Path(__file__).parents[2] / "audio"
SHORTEST = "04-clean.flac"


def take(server: str, written: str, clip: str) -> Take:
    return Take(server, clip, 0.7, "stop it", written, 0.1)


@pytest.mark.parametrize(("again", "drawn"), [("stop it", False), ("stop that", True)])
def test_a_text_that_is_drawn_at_random(
    again: str, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    async def heard(server: Any, clip: Clip, silence: float, mode: str) -> Take:
        asked.append((server.name, clip.file))
        return take(server.name, again if len(asked) == 3 else "stop it", clip.file)

    monkeypatch.setattr(latency, "_take", heard)
    clips = [Clip(name, "stop it", "clean", np.ones(80, np.float32)) for name in "ab"]
    servers: list[Any] = [argparse.Namespace(name=name) for name in (EAGER, NOT_EAGER)]
    takes = [take(EAGER, "stop", "a"), take(NOT_EAGER, "stop it", "a")]
    setting = latency.Setting(servers, clips, "base", 5)
    found = latency.unsteady(Part(REAL_TIME, "base", 5, takes, {}), setting)
    assert found == ({("a", 0.7)} if drawn else set())
    assert asked == [(NOT_EAGER, "a")] * latency.ASKED_AGAIN


# -- time ----------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float, rounds: Iterator[int]) -> int:
        count = 0
        for _ in rounds:
            self.now += seconds
            count += 1
        return count


@pytest.mark.parametrize(
    ("each", "seconds", "count"),
    [(5.0, 25.0, 5), (1.0, 100.0, 10), (20.0, 10.0, latency.LEAST_ROUNDS)],
)
def test_rounds_end_with_the_time_but_some_are_worth_being_late(
    each: float, seconds: float, count: int
) -> None:
    clock = Clock()
    assert clock.spend(each, rounds(10, seconds, clock=clock)) == count


# -- arguments -----------------------------------------------------------------------------


def arguments(*argv: str) -> argparse.Namespace:
    return parser_of("latency", latency).parse_args(argv)


def test_defaults() -> None:
    # A burst of each model with each beam; the rest once, with the wider beam.
    plan = shares(arguments("--minutes", "8"))
    assert [one[:3] for one in plan] == [
        ("tiny.en", 1, BURST),
        ("tiny.en", 5, BURST),
        ("base", 1, BURST),
        ("base", 5, BURST),
        ("base", 5, REAL_TIME),
    ]
    assert [one[3] for one in plan] == [60, 60, 60, 60, 240]


def test_a_model_in_real_time_alone() -> None:
    argv = ("real-time", "burst", "--models", "tiny.en", "--real-time", "base", "--beam-size", "1")
    plan = [one[:3] for one in shares(arguments(*argv))]
    assert plan == [("tiny.en", 1, BURST), ("base", 1, BURST), ("base", 1, REAL_TIME)]


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
    assert [program.name for program in found] == [EAGER, NOT_EAGER, PLAIN, WIDE, OFFICIAL]
    first, second, plain, wide, other = (" ".join(program.command) for program in found)
    assert first.replace("--eager", "--no-eager") == second
    assert plain == f"{second} --backend faster-whisper"
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
    assert [(cell["mode"], cell["server"], cell["silence"]) for cell in written["cells"]] == [
        (BURST, EAGER, None),
        (BURST, NOT_EAGER, None),
        (BURST, PLAIN, None),
        (BURST, WIDE, None),
        (REAL_TIME, EAGER, 0.7),
        (REAL_TIME, NOT_EAGER, None),
        (REAL_TIME, PLAIN, None),
        (REAL_TIME, WIDE, None),
    ]
    assert not any(cell["failed"] for cell in written["cells"])
    assert all(cell["peak_bytes"] > 10**7 for cell in written["cells"])
    # One utterance may take less than a tick of 10 ms, which is all that the kernel counts in.
    assert any(cell["cpu_seconds"] > 0 for cell in written["cells"])
    assert not written["agreement"]["different"]
    told = capsys.readouterr()
    assert "The same text, eager or not: " in told.out
    assert "real-time, tiny.en, beam 1" in told.err
