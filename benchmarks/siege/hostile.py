"""Hostile clients, all kinds at once, beside honest ones who speak: nobody honest may notice.

Our server runs `tiny.en`, and four speakers say the clips of tests/audio at the pace of speech, in
turns of quiet and siege. In a siege another process is all clients of lib/attackers.py: they write
slowly, don't read, open 500 connections, name lengths of 4 GB, and leave at every stage of a
command. Every honest command must be answered with the text it had in quiet, and 95 % of them in at
most twice the time.

What attackers do on other machines costs this one nothing; here it does: they run at the lowest
priority, and the processor time that they and the server took is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.lib import report
from benchmarks.lib.attackers import besieged
from benchmarks.lib.clips import short_clips
from benchmarks.lib.options import add_number
from benchmarks.lib.report import Outcome
from benchmarks.lib.servers import Remains, free_port, watched
from benchmarks.lib.speakers import Speakers, Toll

MAX_SLOWDOWN = 2.0
SETTLE_SECONDS = 3.0


@dataclass
class Result:
    """What came of all turns."""

    quiet: Toll = field(default_factory=Toll)
    siege: Toll = field(default_factory=Toll)
    processor_seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Of the server, in quiet and in a siege."""
    attacks: dict[str, int] = field(default_factory=dict)
    remains: Remains = field(default_factory=Remains)

    @property
    def slowdown(self) -> float:
        """How many times longer 95 % of the honest commands take in a siege."""
        if not self.siege.seconds:
            return float("inf")
        quiet = report.percentile(self.quiet.seconds, 95)
        return report.percentile(self.siege.seconds, 95) / quiet

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, a sentence each."""
        said = [f"honest commands in quiet: {what}" for what in self.quiet.failures]
        said += [f"honest commands in a siege: {what}" for what in self.siege.failures]
        if self.slowdown > MAX_SLOWDOWN:
            said.append(f"95 % took {self.slowdown:.1f} times as long in a siege")
        return said + self.remains.failures()

    def show(self) -> str:
        turns = (self.quiet, self.siege)
        times = zip(*(turn.times for turn in turns), strict=True)
        rows = [
            ["honest commands", *(str(len(turn.seconds)) for turn in turns)],
            ["without the right text", *(str(len(turn.lost + turn.wrong)) for turn in turns)],
            *(
                [f"audio-stop to transcript, {name}", *of_turns]
                for name, of_turns in zip(("median", "95 %"), times, strict=True)
            ),
            [
                "seconds of processor time, the server",
                *(f"{seconds:.0f}" for seconds in self.processor_seconds),
            ],
            *([name, "", str(count)] for name, count in sorted(self.attacks.items())),
            *([name, "", value] for name, value in self.remains.rows()),
        ]
        table = report.table(["", "in quiet", "in a siege"], rows)
        how = f"95 % of the honest commands: {self.slowdown:.2f} times as long in a siege."
        return f"{table}\n\n{how}"


def measure(folder: Path, seconds: float, rounds: int, speakers: int) -> Result:
    """Speak in turns of quiet and siege to a server of its own. Raises BenchmarkError."""
    result, uri = Result(), f"tcp://127.0.0.1:{free_port()}"
    with watched(folder, "--zeroconf", "off", uri=uri) as server:
        honest = asyncio.run(Speakers.who_know(uri, short_clips()))

        def turn(number: int, toll: Toll) -> None:
            before = server.processor_seconds()
            asyncio.run(_turn(honest, toll, speakers, seconds))
            result.processor_seconds[number] += server.processor_seconds() - before

        time.sleep(SETTLE_SECONDS)
        before = server.counts()
        for _ in range(rounds):
            turn(0, result.quiet)
            with besieged(uri) as counts:
                turn(1, result.siege)
            result.attacks = dict(Counter(result.attacks) + counts)
            time.sleep(SETTLE_SECONDS)
        result.remains = server.remains(before, SETTLE_SECONDS)
    return result


async def _turn(honest: Speakers, toll: Toll, speakers: int, seconds: float) -> None:
    """Have people say the clips that are begun within so many seconds; not all begin at once."""
    end = time.perf_counter() + seconds
    turns = (
        itertools.islice(itertools.cycle(honest.clips), number, None, speakers)
        for number in range(speakers)
    )
    speaking = (
        honest.speak(
            itertools.takewhile(lambda _: time.perf_counter() <= end, clips),
            toll,
            in_time=True,
            after=0.7 * number,
        )
        for number, clips in enumerate(turns)
    )
    await asyncio.gather(*speaking)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "--seconds", 60.0, "of each turn")
    add_number(parser, "--rounds", 2)
    add_number(parser, "--speakers", 4)


def run(args: argparse.Namespace) -> Outcome:
    """Speak; what the siege did to the honest is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.seconds, args.rounds, args.speakers)
    return Outcome([result.show()], asdict(result), result.failures)
