import json
from pathlib import Path

import pytest

from benchmarks.lib import report
from benchmarks.lib.servers import (
    BenchmarkError,
    Memory,
    Program,
    official_beam_size,
    read_memory,
    running,
)
from benchmarks.speed import responsiveness
from benchmarks.speed.responsiveness import (
    Answers,
    Start,
    long_audio,
    short_clips,
    show_commands,
    show_describe,
    show_memory,
    show_starts,
)

AUDIO = Path(__file__).parents[2] / "audio"

STATUS = """\
Name:\tpython3
VmHWM:\t  150000 kB
VmRSS:\t  120000 kB
RssAnon:\t   70000 kB
"""
ROLLUP = """\
00400000-7ffc0000 ---p 00000000 00:00 0                          [rollup]
Rss:              120004 kB
Pss:               90000 kB
Pss_Anon:          70000 kB
"""


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 1.0), (10, 1.0), (11, 2.0), (50, 5.0), (95, 10.0), (100, 10.0)]
)
def test_percentile(percent: float, expected: float) -> None:
    assert (
        report.percentile([float(n) for n in (3, 1, 2, 10, 4, 6, 5, 9, 8, 7)], percent) == expected
    )


def test_percentile_of_one() -> None:
    assert report.percentile([7.0], 95) == 7.0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.00123, "1.23 ms"),
        (0.0123, "12.3 ms"),
        (0.123, "123 ms"),
        (12.3, "12300 ms"),
    ],
)
def test_times_are_shown_with_the_digits_that_count(seconds: float, shown: str) -> None:
    assert report.milliseconds(seconds) == shown


def test_memory_of_a_process() -> None:
    assert read_memory(STATUS, ROLLUP) == Memory(
        resident=120000 * 1024, peak=150000 * 1024, own=70000 * 1024, proportional=90000 * 1024
    )


def test_memory_that_the_system_does_not_tell() -> None:
    with pytest.raises(BenchmarkError, match="VmRSS"):
        read_memory("", ROLLUP)


@pytest.mark.parametrize(
    ("machine", "beam"), [("x86_64", 5), ("aarch64", 1), ("armv7l", 1), ("ARM64", 1)]
)
def test_beam_of_the_official_server(machine: str, beam: int) -> None:
    assert official_beam_size(machine) == beam


def cells(table: str) -> list[list[str]]:
    rows = (row.strip("|").split("|") for row in table.splitlines())
    return [[cell.strip() for cell in row] for row in rows]


def test_starts_side_by_side() -> None:
    found = {
        "ours": [Start(0.1, 0.2, 0.4), Start(0.3, 0.4, 0.5), Start(0.2, 0.3, 0.6)],
        "official": [Start(0.4, 0.5, 1.5)] * 3,
    }
    head, _, *rows = cells(show_starts(found))
    assert head == ["", "ours", "official", "official / ours"]
    assert rows[0] == ["start to listening, median", "200 ms", "400 ms", "2.00x"]
    assert rows[-1] == ["start to first transcript, slowest", "600 ms", "1500 ms", "2.50x"]


def test_ours_alone_has_no_ratio() -> None:
    assert cells(show_starts({"ours": [Start(0.1, 0.2, 0.4)]}))[0] == ["", "ours"]
    assert cells(show_commands({"ours": [0.1]}))[0] == ["", "ours"]


def test_memory_side_by_side() -> None:
    found = {"ours": Memory(10**8, 2 * 10**8, 5 * 10**7, 9 * 10**7)}
    found["official"] = Memory(3 * 10**8, 3 * 10**8, 10**8, 10**8)
    rows = cells(show_memory(found))
    assert rows[2] == ["resident (VmRSS)", "100 MB", "300 MB", "3.00x"]
    assert rows[-1] == [
        "proportional (Pss)",
        "90 MB",
        "100 MB",
        "",
    ]  # ours shares with this process


def test_describe_side_by_side() -> None:
    found = {
        name: {
            "idle": Answers([0.001 * factor], []),
            "busy": Answers([0.001 * factor, 0.002 * factor, 0.003 * factor], [0.5 * factor]),
        }
        for name, factor in (("ours", 1), ("official", 4))
    }
    rows = {row[0]: row[1:] for row in cells(show_describe(found))}
    assert rows["describe, busy, median"] == ["2.00 ms", "8.00 ms", "4.00x"]
    assert rows["describe, busy, slowest"] == ["3.00 ms", "12.0 ms", "4.00x"]
    assert rows["questions while busy"] == ["3", "3", ""]
    assert rows["one transcription, median"] == ["500 ms", "2000 ms", "4.00x"]


def test_commands_are_compared_one_by_one() -> None:
    rows = cells(show_commands({"ours": [0.1, 0.2, 0.4], "official": [0.5, 0.4, 1.6]}))
    assert rows[-1] == ["the same command, median ratio", "", "", "4.00x"]


def test_short_commands_and_long_audio() -> None:
    clips = short_clips(AUDIO)
    assert clips
    assert all(clip.text and len(clip.samples) < 8 * 16000 for clip in clips)
    assert len(long_audio(clips, 25.0)) == 25 * 16000


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    broken = Program("broken", ("/bin/sh", "-c", "echo it is broken; exit 1", "sh"))
    with pytest.raises(BenchmarkError, match="it is broken"), running([broken], tmp_path):
        pass


def test_our_server_with_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "responsiveness.json"
    few = ["--starts", "1", "--utterances", "1", "--seconds", "0.2", "--rounds", "1"]
    argv = ["--no-official", *few, "--commands", "2", "--json", str(file)]
    assert responsiveness.main(argv) == 0
    written = json.loads(file.read_text())
    (start,) = written["starts"]["ours"]
    assert start["listening"] < start["info"] < start["transcript"]
    assert written["memory"]["ours"]["resident"] > 10**7
    assert len(written["commands"]["ours"]) == 2
    assert written["describe"]["ours"]["busy"]["seconds"]
    told = capsys.readouterr().out
    assert "start to listening" in told
    assert "one transcription" in told
