"""The week, shortened to seconds: what is promised is checked, and what breaks it is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.lib.clips import BUNDLED_CLIPS, Clip, read_clips
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.proxy import Proxy, standing
from benchmarks.siege import week as suite
from benchmarks.siege.week import life, plan, records, surroundings
from benchmarks.siege.week.house import Options
from benchmarks.siege.week.people import Expectations
from benchmarks.siege.week.plan import DAY, HOUR, HouseholdClock
from benchmarks.siege.week.records import Day, Excuse, Excuses, Held, Week
from tests.support import HOME_EN, TIMEOUT_SECONDS

MB = 10**6
HELD = Held(
    own=100 * MB,
    proportional=120 * MB,
    descriptors=20,
    threads=10,
    tasks=9,
    pid=1,
    allocated=20 * MB,
    blocks=300_000,
)


# -- the plan --------------------------------------------------------------------------------


def test_a_week_has_all_commands_and_each_clip_as_often() -> None:
    said = plan.episodes(7, 25, 200)
    clips = Counter(clip for episode in said for clip in episode.clips)
    assert sum(clips.values()) == 1400
    assert set(clips.values()) == {56}
    days = Counter(int(episode.at // DAY) for episode in said for _ in episode.clips)
    assert days == dict.fromkeys(range(7), 200)


def test_some_speak_at_the_same_time_and_nobody_at_night() -> None:
    said = plan.episodes(7, 25, 200)
    assert max(Counter(episode.at for episode in said).values()) == 2
    hours = {(episode.at % DAY) / HOUR + plan.MORNING for episode in said}
    assert 7 <= min(hours) < 8
    assert 22 < max(hours) < 23


@pytest.mark.parametrize("days", [1, 2, 7])
def test_all_goes_wrong_in_a_shorter_week_too(days: int) -> None:
    events = plan.events(days)
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert {name for _, _, name in plan.WEEKLY} < {event.name for event in events}
    assert events[-1].at < days * DAY
    kills = [event for event in events if event.name == "upstream is killed"]
    assert len(kills) == days


def test_a_day_begins_in_the_morning() -> None:
    assert plan.clock_time("07:00") == 0
    assert plan.clock_time("06:30") == DAY - HOUR / 2


# -- the clock -------------------------------------------------------------------------------


async def test_no_time_passes_for_the_household_while_its_clock_is_stopped() -> None:
    real = [0.0]
    clock = HouseholdClock(100, lambda: real[0])
    real[0] = 2.0
    assert clock.now == 200
    async with clock.stopped():
        real[0] = 50.0
        assert clock.now == 200
    real[0] = 51.0
    assert clock.now == 300
    await asyncio.wait_for(clock.until(300), TIMEOUT_SECONDS)


def test_only_the_time_of_a_shifted_process_is_wrong(tmp_path: Path) -> None:
    clock = surroundings.ShiftedClock(tmp_path)
    code = "import time; input(); print(time.time(), time.time_ns() / 1e9, time.monotonic())"
    with subprocess.Popen(
        [sys.executable, "-c", f"print(flush=True); {code}"],
        env={**os.environ, **clock.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()  # it has begun with the right time
        clock.set(-365 * DAY)
        told, _ = process.communicate("\n", timeout=TIMEOUT_SECONDS)
    import time

    shifted, shifted_ns, monotonic = map(float, told.split())
    assert shifted - time.time() == pytest.approx(-365 * DAY, abs=60)
    assert shifted_ns == pytest.approx(shifted, abs=60)
    assert monotonic == pytest.approx(time.monotonic(), abs=60)


# -- what is around --------------------------------------------------------------------------


async def test_a_gate_that_is_closed_cuts_and_refuses() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(10):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, standing(Proxy(server.sockets[0].getsockname()[1])) as gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        await gate.close()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", gate.port)
        await gate.listen()
        reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"
        writer.close()


def test_a_full_disk_takes_nothing_until_it_has_room(tmp_path: Path) -> None:
    with surroundings.data_disk(tmp_path / "data") as disk:
        (disk.folder / "before").write_bytes(b"x" * 5000)
        disk.fill()
        if disk.how_full.startswith("a folder") and os.geteuid() == 0:
            pytest.skip("for root, who can't mount here, no folder is closed")
        with pytest.raises(OSError, match=r"No space left|Permission denied"):
            (disk.folder / "full").write_bytes(b"x" * 5000)
        disk.empty()
        (disk.folder / "room").write_bytes(b"x" * 5000)
    assert os.listdir(tmp_path / "data") in ([], ["before", "room"])  # noqa: PTH208


# -- what is right ---------------------------------------------------------------------------


def test_a_request_is_excused_by_what_happened_meanwhile_alone() -> None:
    excuses = Excuses()
    excuses.begin(Excuse("restart", 10.0, "refused|reset", spares_begun=True))
    assert excuses.excuse(11.0, 12.0, "Connection Refused")
    assert not excuses.excuse(9.0, 12.0, "connection reset"), "it was under way: it is answered"
    assert excuses.excuse(9.0, 12.0, "connection reset", is_command=False)
    assert not excuses.excuse(11.0, 12.0, "out of memory")
    excuses.end("restart", 13.0)
    assert excuses.excuse(12.5, 14.0, "reset")
    assert not excuses.excuse(13.5, 14.0, "refused")
    excuses.begin(Excuse("power cut", 20.0, "reset"))
    assert excuses.excuse(19.0, 21.0, "reset")
    excuses.end("power cut", 22.0)
    excuses.begin(Excuse("page", 30.0, "reset", of_commands=False))
    assert not excuses.excuse(31.0, 32.0, "reset")
    assert excuses.excuse(31.0, 32.0, "reset", is_command=False)
    assert excuses.used == {"restart": 3, "power cut": 1, "page": 1}


def test_a_text_is_right_for_the_names_that_may_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    expectations = Expectations({"before": {"a": "rose"}, "after": {"a": "rows"}})
    expectations.known("before")
    expectations.known("before", "after")
    expectations.known("after")
    assert expectations.right("a", 5.0, 6.0) == {"rose"}
    assert expectations.right("a", 5.0, 11.0) == {"rose", "rows"}
    assert expectations.right("a", 15.0, 16.0) == {"rose", "rows"}
    assert expectations.right("a", 25.0, 26.0) == {"rows"}


def test_the_log_is_read_for_what_nothing_asks_for() -> None:
    log = (
        "INFO ready\n"
        "WARNING tcp://127.0.0.1:99 is not asked for now: it is gone\n"
        "WARNING 127.0.0.66: no Wyoming\n"
        "WARNING 127.0.0.1: no Wyoming\n"
        "tasks: 8\nallocated: -1 3000\n"
        "ERROR a request failed\nTraceback (most recent call last):\n  ...\nValueError: a bug\n"
        "Task was destroyed but it is pending!\n"
    )
    judged = week()
    judged.judge_log(log)
    assert judged.unexpected == ["WARNING 127.0.0.1: no Wyoming", "ERROR a request failed"]
    assert judged.unhandled == [
        "Traceback (most recent call last):",
        "ValueError: a bug",
        "Task was destroyed but it is pending!",
    ]
    assert judged.allowed["the upstream comes and goes"] == 1


def week(*rest: Held, **changes: object) -> Week:
    """Return a week in which nothing was wrong, but for the changes."""
    sound = Week([Day(commands=2, right=2, seconds=[0.1, 0.2])], rest=list(rest))
    return replace(sound, **changes)  # type: ignore[arg-type]


def test_what_is_as_after_the_first_hour_is_no_growth() -> None:
    end = replace(HELD, own=150 * MB, threads=14, tasks=10)
    assert not week(replace(HELD, pid=7, own=1), HELD, end).failures


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (week(HELD, replace(HELD, own=165 * MB)), "bytes of memory at rest grew from 100.0 to 165"),
        (week(HELD, replace(HELD, allocated=26 * MB)), "allocated at rest grew from 20.0 to 26.0"),
        (week(HELD, replace(HELD, blocks=360_000)), "blocks at rest grew from 0.3 to 0.4 million"),
        (week(HELD, replace(HELD, descriptors=22)), "descriptors at rest grew from 20 to 22"),
        (week(HELD, replace(HELD, tasks=11)), "tasks at rest grew from 9 to 11"),
        (week(HELD, replace(HELD, threads=15)), "threads at rest grew from 10 to 15"),
        (week(HELD), "not measured twice"),
        (week(HELD, replace(HELD, pid=2)), "measured once only"),
        (week(HELD, HELD, lost=["a.flac: gone"]), "1 commands were lost, such as a.flac: gone"),
        (week(HELD, HELD, wrong=["a.flac"]), "another text"),
        (week(HELD, HELD, failed=["metrics"]), "1 other requests failed"),
        (week(HELD, HELD, unhandled=["Traceback"]), "nobody handled"),
        (week(HELD, HELD, unexpected=["WARNING x"]), "not asked for"),
        (week(HELD, HELD, missing=["wakes: none"]), "did not happen"),
        (week(HELD, HELD, exit_status=1), "exit status 1"),
        (week(HELD, HELD, days=[Day()]), "no command was answered"),
    ],
)
def test_a_broken_promise_is_a_failure(broken: Week, told: str) -> None:
    (failure,) = broken.failures
    assert told in failure


def test_tables_show_a_day_without_figures() -> None:
    shown = records.show(week(HELD, HELD, days=[Day(), Day(held=HELD, seconds=[0.1])]))
    assert "100 MB" in shown
    assert "100 ms" in shown


# -- a week of seconds -----------------------------------------------------------------------

SHORT = Options(
    days=1,
    minutes=0.3,
    commands_a_day=30,
    describe_every=300.0,
    idle_seconds=1,
    rest_seconds=0.3,
)


def two_clips() -> list[Clip]:
    clips = sorted(read_clips(BUNDLED_CLIPS), key=lambda clip: len(clip.samples))
    return [clip for clip in clips if clip.kind == "clean"][:2]


async def test_a_sound_server_lives_through_it(tmp_path: Path) -> None:
    told: list[str] = []
    options = replace(SHORT, opens="benchmarks.lib.inside:standin")
    lived = await life.lived(tmp_path / "house", options, HOME_EN, two_clips(), told.append)
    too_short_for = ("grew from", "commands that the upstream answered: none")
    assert [f for f in lived.failures if not any(name in f for name in too_short_for)] == []
    (day,) = lived.days
    assert day.commands == day.right + day.excused
    assert day.right > 10
    assert day.commands + day.vanished >= 30
    assert day.wakes > 0
    assert lived.requests["describe"] > 200
    assert lived.requests["garbage sent"] > 30
    assert {held.pid for held in lived.rest} != {lived.rest[0].pid}, "it was started again"
    assert lived.happened["the clock jumped"] == " +86400 s -7200 s -31536000 s"
    assert any(line.endswith("power is cut") for line in told)


async def test_a_server_that_breaks_its_promises_is_noticed(tmp_path: Path) -> None:
    options = replace(SHORT, opens="tests.benchmarks.siege.week_standins:careless")
    lived = await life.lived(tmp_path / "house", options, HOME_EN, two_clips(), lambda _: None)
    failures = "\n".join(lived.failures)
    assert "it was lost" in lived.lost[0]
    assert "'something else', not '" in lived.wrong[0]
    assert f"{len(lived.lost)} commands were lost" in failures
    assert "descriptors at rest grew" in failures
    assert "such as ValueError: a bug" in failures
    assert "ERROR of no use" in failures


# -- the command -----------------------------------------------------------------------------


def test_a_broken_week_is_an_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def lived(folder: Path, *_: object) -> Week:
        (folder / "server").mkdir(parents=True)
        (folder / "server" / "server.log").write_text("INFO ready\n")
        return week(HELD, HELD, lost=["a.flac: gone"])

    monkeypatch.setattr(life, "lived", lived)
    monkeypatch.setattr(surroundings, "in_own_network", lambda _: None)
    files = [str(tmp_path / name) for name in ("week.json", "week.log")]
    assert command.main(["week", "--days", "1", "--json", files[0], "--log", files[1]]) == 1
    told = capsys.readouterr()
    assert "benchmarks week: 1 commands were lost, such as a.flac: gone" in told.err
    assert json.loads(Path(files[0]).read_text())["lost"] == ["a.flac: gone"]
    assert Path(files[1]).read_text() == "INFO ready\n"


def test_a_week_that_can_not_go_on_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def lived(*_: object) -> Week:
        raise BenchmarkError("the server does not answer")

    monkeypatch.setattr(life, "lived", lived)
    monkeypatch.setattr(surroundings, "in_own_network", lambda _: None)
    assert command.main(["week"]) == 1
    assert capsys.readouterr().err == "benchmarks week: the server does not answer\n"


def test_recordings_of_a_folder_are_said_too(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "mine.wav", np.zeros(1600, np.float32), 16_000)
    clips = {clip.file: clip.samples for clip in suite.clips_of([tmp_path])}
    assert len(clips["mine.wav"]) == 1600
    assert "jfk.flac" in clips
