"""What every benchmark prints and writes: the machine, statistics, tables, JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wyoming_whisper.machine.host import HOST

NOTHING = "-"  # in a cell without a number
NOT_ASKED = ("json", "read")


@dataclass(frozen=True)
class Outcome:
    """What a suite found."""

    shown: Sequence[str]
    """Tables and sentences, which are printed with an empty line between two."""

    facts: Mapping[str, Any]
    """What --json writes, beside the machine and what was asked."""

    failures: Sequence[str] = ()
    """Promises that were broken, a sentence each."""


def progress(line: str) -> None:
    """Say how far a suite is, on stderr."""
    print(line, file=sys.stderr, flush=True)


def asked(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments for a report; folders by name alone, which is all that matters."""
    values = {name: value for name, value in vars(args).items() if name not in NOT_ASKED}
    return {name: _as_json(value) for name, value in values.items()}


def _as_json(value: object) -> object:
    if isinstance(value, Path):
        return value.name
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value


def machine() -> dict[str, Any]:
    """Return where the figures come from; the load is that before the benchmark's own."""
    return {
        "cpu": HOST.cpu_name,
        "cores": HOST.cores,
        "instruction_set": HOST.instruction_set,
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "ctranslate2": _version("ctranslate2"),
        "faster_whisper": _version("faster-whisper"),
        "wyoming_whisper": _version("wyoming-whisper"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a machine with a GPU and little else
        return NOTHING


def machine_line(facts: Mapping[str, Any]) -> str:
    """Return the machine in one line."""
    line = (
        f"{facts['cpu']}, {facts['cores']} cores ({facts['instruction_set']}), "
        f"{facts['memory_gib']:g} GiB, load {facts['load_average']:g} before the start, "
        f"Python {facts['python']}, CTranslate2 {facts['ctranslate2']}"
    )
    if facts["load_average"] > facts["cores"] / 4:
        line += "\nThe machine was busy with something else: don't trust the times."
    return line


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def counted(complaints: Mapping[str, Sequence[object]]) -> list[str]:
    """Return a sentence, with an example, for each name that there are complaints of."""
    return [f"{len(all_)} {name}, such as {all_[0]}" for name, all_ in complaints.items() if all_]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values don't exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def milliseconds(seconds: float) -> str:
    """Return a time with three digits that count."""
    value = seconds * 1000
    return (
        f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"
    )


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else NOTHING


def times(numerator: float, denominator: float) -> str:
    """Return a ratio, such as 3.20 times."""
    return f"{numerator / denominator:.2f}x" if denominator else NOTHING


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, aligned for reading: words to the left, numbers to the right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    numeric = [all(_is_number(cell) for cell in column[1:]) and bool(rows) for column in columns]
    rule = [
        "-" * (width - 1) + ":" if right else "-" * width
        for width, right in zip(widths, numeric, strict=True)
    ]
    lines = [_line(head, widths, numeric), _line(rule, widths, numeric)]
    return "\n".join(lines + [_line(row, widths, numeric) for row in rows])


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return f"| {' | '.join(padded)} |"


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell in ("", NOTHING)


def write_json(path: Path | None, facts: Mapping[str, Any]) -> None:
    """Write a report where one was asked for."""
    if path is not None:
        text = json.dumps(facts, ensure_ascii=False, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
