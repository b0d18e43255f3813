"""How long people waited for servers: every utterance, rows of them, and whether texts agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from benchmarks.lib import report
from benchmarks.lib.words import WordErrors, word_errors

BURST, REAL_TIME = PARTS = ("burst", "real-time")
EAGER, NOT_EAGER, WIDE, OFFICIAL = "ours", "ours, not eager", "ours, 30 s", "official"
PLAIN = "ours, faster-whisper"


@dataclass(frozen=True)
class Take:
    """One utterance, heard by one server."""

    server: str
    clip: str
    silence: float
    """Seconds after the speech, before audio-stop."""

    said: str
    written: str
    seconds: float
    """From audio-stop to transcript."""

    late: float = 0.0
    """Seconds by which this client sent audio-stop too late."""

    error: str | None = None


@dataclass(frozen=True)
class Meter:
    """What a server's process took."""

    cpu_seconds: float
    """Of all its threads, for one utterance."""

    peak_bytes: int
    """The most that was ever in RAM (VmHWM)."""


@dataclass(frozen=True)
class Part:
    """What was measured of some servers with one model and beam."""

    mode: str
    model: str
    beam_size: int
    takes: list[Take]
    meters: dict[str, Meter]

    unsteady: frozenset[tuple[str, float]] = frozenset()
    """Clips and silences to which the same server writes now this, now that."""

    @property
    def where(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "model": self.model,
            "beam_size": self.beam_size,
        }


@dataclass(frozen=True)
class Cell:
    """What one row is made of: a server's takes, of one silence or of all in turn."""

    part: Part
    server: str
    silence: float | None
    takes: list[Take]

    @property
    def seconds(self) -> list[float]:
        return [take.seconds for take in self.takes if take.error is None]

    @property
    def failed(self) -> int:
        return sum(take.error is not None for take in self.takes)

    @property
    def words(self) -> WordErrors:
        return sum((word_errors(take.said, take.written) for take in self.takes), WordErrors())

    def percentile(self, percent: float) -> float:
        """Return the wait that so many don't exceed; 0 where nothing was answered."""
        return report.percentile(self.seconds, percent) if self.seconds else 0.0

    @property
    def median(self) -> float:
        return median(self.seconds) if self.seconds else 0.0


# -- tables --------------------------------------------------------------------------------


def cells(part: Part) -> list[Cell]:
    """Return the rows of a part: by silence where a server heard all of them."""
    found: list[Cell] = []
    for server in dict.fromkeys(take.server for take in part.takes):
        takes = [take for take in part.takes if take.server == server]
        every = part.mode == REAL_TIME and server == EAGER
        silences = sorted({take.silence for take in takes}) if every else [None]
        for silence in silences:
            of_it = [take for take in takes if silence is None or take.silence == silence]
            found.append(Cell(part, server, silence, of_it))
    return sorted(found, key=lambda cell: _ORDER.index(cell.server))


_ORDER = (EAGER, NOT_EAGER, PLAIN, WIDE, OFFICIAL)


def official_median(part: Part) -> float:
    """Return the official server's median; 0 where it was left out."""
    return next((cell.median for cell in cells(part) if cell.server == OFFICIAL), 0.0)


def show(parts: Sequence[Part], mode: str) -> str:
    """Return the table of one mode."""
    head = [
        "model",
        "beam",
        *(["silence"] if mode == REAL_TIME else []),
        "server",
        "number",
        "median",
        "95 %",
        "worst",
    ]
    head += ["official / it", "WER", "failed"]
    shown = [part for part in parts if part.mode == mode]
    if any(part.meters for part in shown):
        head += ["CPU", "peak RAM"]
    rows = [
        [part.model, str(part.beam_size), *_silence(cell), cell.server, *_numbers(cell)]
        for part in shown
        for cell in cells(part)
    ]
    return f"{mode}\n\n{report.table(head, rows)}"


def _silence(cell: Cell) -> list[str]:
    if cell.part.mode == REAL_TIME:
        return ["any" if cell.silence is None else f"{cell.silence:g} s"]
    return []


def _numbers(cell: Cell) -> list[str]:
    meter, words = cell.part.meters.get(cell.server), cell.words
    theirs = official_median(cell.part)
    percentiles = (cell.median, cell.percentile(95), cell.percentile(100))
    numbers = [
        str(len(cell.takes)),
        *(report.milliseconds(seconds) if seconds else report.NOTHING for seconds in percentiles),
        report.times(theirs, cell.median) if theirs else report.NOTHING,
        report.percent(words.errors, words.words),
        str(cell.failed),
    ]
    if meter:
        numbers += [report.milliseconds(meter.cpu_seconds), report.megabytes(meter.peak_bytes)]
    return numbers


@dataclass(frozen=True)
class Agreement:
    """Whether early work changes a text: it must not."""

    same: int
    different: list[dict[str, Any]]
    random: list[dict[str, Any]]
    """Different too, but they are without early work."""


def agreement(parts: Sequence[Part]) -> Agreement:
    """Compare the texts of the same audio, eager and not."""
    found = Agreement(0, [], [])
    for part in parts:
        texts: dict[tuple[str, float], dict[str, str]] = {}
        for take in part.takes:
            if take.error is None and take.server in (EAGER, NOT_EAGER):
                texts.setdefault((take.clip, take.silence), {})[take.server] = take.written
        for (clip, silence), both in texts.items():
            if len(both) < 2:
                continue
            if both[EAGER] == both[NOT_EAGER]:
                found = replace(found, same=found.same + 1)
                continue
            one = {**part.where, "clip": clip, "silence": silence, **both}
            drawn = (clip, silence) in part.unsteady
            (found.random if drawn else found.different).append(one)
    return found


def eager_cost(part: Part) -> float | None:
    """Return how many times the processor time it takes to begin early, if that was measured."""
    meters = part.meters
    if EAGER not in meters or NOT_EAGER not in meters or not meters[NOT_EAGER].cpu_seconds:
        return None
    return meters[EAGER].cpu_seconds / meters[NOT_EAGER].cpu_seconds


def notes(parts: Sequence[Part]) -> list[str]:
    """Return the sentences below the tables."""
    lines = []
    for part in parts:
        cost = eager_cost(part)
        if cost is not None and part.mode == REAL_TIME:
            lines.append(
                f"{part.mode}, {part.model}: eager takes {cost:.2f} times the processor time"
            )
    found = agreement(parts)
    if compared := found.same + len(found.different) + len(found.random):
        lines.append(f"The same text, eager or not: {found.same} of {compared}")
    if found.random:
        lines.append(f"Not the same, but random even when not eager: {len(found.random)}")
    late = [take.late for part in parts if part.mode != BURST for take in part.takes]
    if late:
        lines.append(f"This client sent audio-stop {report.milliseconds(max(late))} late at most")
    return lines


def as_json(parts: Sequence[Part]) -> dict[str, Any]:
    """Return rows with their figures, what is compared, and every utterance."""
    return {
        "cells": [_cell_as_json(cell) for part in parts for cell in cells(part)],
        "agreement": asdict(agreement(parts)),
        "utterances": [{**part.where, **asdict(take)} for part in parts for take in part.takes],
    }


def _cell_as_json(cell: Cell) -> dict[str, Any]:
    meter = cell.part.meters.get(cell.server)
    return {
        **cell.part.where,
        "server": cell.server,
        "silence": cell.silence,
        "number": len(cell.takes),
        "failed": cell.failed,
        "median_seconds": cell.median,
        "p95_seconds": cell.percentile(95),
        "worst_seconds": cell.percentile(100),
        "official_seconds": official_median(cell.part),
        **(asdict(meter) if meter else {}),
        "words": asdict(cell.words),
    }
