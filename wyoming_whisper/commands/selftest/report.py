"""What the selftest found, as JSON and as Markdown for an issue."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Heard:
    """What one runtime made of a case; times are medians, in seconds."""

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float | None
    """None where the runtime does not tell it."""
    encode: float
    decode: float
    """Of all tokens, the prompt included."""


@dataclass(frozen=True)
class Comparison:
    """A case, heard by both."""

    name: str
    window_seconds: float
    beam_size: int
    text: str
    reference: Heard
    engine: Heard
    verdict: str
    """same, tie (two tokens were equally likely), or what differs."""

    @property
    def good(self) -> bool:
        return self.verdict in ("same", "tie")

    @property
    def apart(self) -> str:
        """How far the mean log-probabilities are apart; of other texts they say nothing."""
        if self.engine.tokens != self.reference.tokens:
            return "-"
        return f"{abs(self.engine.avg_logprob - self.reference.avg_logprob):.1e}"


@dataclass(frozen=True)
class Stages:
    """Seconds, medians: of the first clip in the window that it would get."""

    encode: float
    prefill: float
    step: float
    """One token after another, each chosen by the engine."""


@dataclass(frozen=True)
class Report:
    """Everything that is told."""

    machine: dict[str, str]
    model: str
    runtime: str
    precision: str
    prepare_seconds: float
    """To write the graphs or build the engine; about 0 where it was there."""
    open_seconds: float
    memory_mb: dict[str, float]
    stages: Stages | None
    """None of a runtime that does all in one."""
    comparisons: list[Comparison]

    @property
    def failures(self) -> list[str]:
        found = [f"{c.name}: {c.verdict}" for c in self.comparisons if not c.good]
        if not any(c.verdict == "same" and c.reference.tokens for c in self.comparisons):
            found.append("no clip with words in it came out the same: that proves nothing")
        return found

    @property
    def passed(self) -> bool:
        return not self.failures


def as_json(report: Report) -> dict[str, Any]:
    """Return the report for machines."""
    verdict = {"passed": report.passed, "failures": report.failures}
    return verdict | dataclasses.asdict(report)


def as_text(report: Report) -> str:
    """Return the report for an issue: Markdown."""
    stages = report.stages
    facts = {
        **report.machine,
        "model": report.model,
        "engine": f"{report.runtime} in {report.precision}",
        "prepared, opened": f"{report.prepare_seconds:.1f} s, {report.open_seconds:.1f} s",
        **({"stages": _stages(stages)} if stages else {}),
        "memory": ", ".join(f"{name} {size:.0f} MB" for name, size in report.memory_mb.items()),
    }
    verdict = "PASSED" if report.passed else "FAILED: " + "; ".join(report.failures)
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join([*lines, "", _table(report.comparisons), "", f"selftest {verdict}"])


def _stages(stages: Stages) -> str:
    times = (stages.encode, stages.prefill, stages.step)
    return "encode {}, prefill {}, step {}".format(*map(ms, times))


def _table(comparisons: Sequence[Comparison]) -> str:
    head = (
        "clip",
        "window",
        "beam",
        "tokens",
        "verdict",
        "avg_logprob",
        "apart",
        "CTranslate2",
        "encode",
        "decode",
        "text",
    )
    rows = [head, ["---"] * len(head), *map(_row, comparisons)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def _row(found: Comparison) -> list[str]:
    reference, engine = found.reference, found.engine
    return [
        found.name,
        f"{found.window_seconds:.0f} s",
        str(found.beam_size),
        str(len(engine.tokens)),
        found.verdict,
        f"{engine.avg_logprob:.3f}",
        found.apart,
        ms(reference.encode + reference.decode),
        ms(engine.encode),
        ms(engine.decode),
        found.text,
    ]


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
