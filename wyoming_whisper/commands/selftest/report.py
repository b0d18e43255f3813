"""What the selftest heard and measured, on which machine: as JSON, and as Markdown for an issue."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...engine.tensorrt.cuda import Gpu, NoGpuError
from ...machine.host import HOST
from ...text.repetition import loops
from ...whisper.search import SessionInference

if TYPE_CHECKING:
    from ...whisper.session import Session


@dataclass(frozen=True)
class Decoded:
    """What one runtime made of a case; times are medians, in seconds."""

    # How far results may be apart. float16 rounds logits of about 20 to steps of about 0.01,
    # bfloat16 to steps of 0.125.
    LOGPROB_TOLERANCE: ClassVar[Mapping[str, float]] = {
        "float32": 1e-3,
        "float16": 0.05,
        "bfloat16": 0.3,
    }
    NO_SPEECH_TOLERANCE: ClassVar[Mapping[str, float]] = {
        "float32": 1e-3,
        "float16": 0.05,
        "bfloat16": 0.1,
    }
    TIE: ClassVar[Mapping[str, float]] = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
    """Two tokens whose logits are no further apart are equally likely; either may be chosen."""

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float | None
    """None where the runtime does not tell it."""
    encode: float
    decode: float
    """Of all tokens, the prompt included."""

    def n_common(self, other: Decoded) -> int:
        """Return how many tokens both begin with."""
        pairs = enumerate(zip(self.tokens, other.tokens, strict=False))
        shorter = min(len(self.tokens), len(other.tokens))
        return next((i for i, (a, b) in pairs if a != b), shorter)

    def has_other_tokens(self, reference: Decoded) -> bool:
        """Whether the texts differ; one that our search ended as it goes round does not."""
        return self.tokens != reference.tokens and not self._is_ended_loop(reference)

    def verdict(self, reference: Decoded, precision: str) -> str:
        """Return "same", or in a few words what differs."""
        if self.has_other_tokens(reference):
            return f"other tokens from number {self.n_common(reference) + 1} on"
        # Written so that what is no number is no success.
        apart = abs(self.avg_logprob - reference.avg_logprob)
        if not self._is_ended_loop(reference) and not apart <= self.LOGPROB_TOLERANCE[precision]:
            return f"avg_logprob {self.avg_logprob:.4f}, not {reference.avg_logprob:.4f}"
        if self.no_speech_prob is None or reference.no_speech_prob is None:
            return "same"
        apart = abs(self.no_speech_prob - reference.no_speech_prob)
        if not apart <= self.NO_SPEECH_TOLERANCE[precision]:
            return f"no_speech_prob {self.no_speech_prob:.4f}, not {reference.no_speech_prob:.4f}"
        return "same"

    def _is_ended_loop(self, reference: Decoded) -> bool:
        """Whether it is the reference's text as far as our search went on with its repetitions.

        CTranslate2's goes on; then what there is of it counts, not its mean log-probability.
        """
        is_beginning = self.n_common(reference) == len(self.tokens)
        return is_beginning and loops(self.tokens, SessionInference.STOP_REPEATS)


@dataclass(frozen=True)
class Comparison:
    """A case, heard by both."""

    name: str
    window_seconds: float
    beam_size: int
    text: str
    reference: Decoded
    engine: Decoded
    verdict: str
    """same, tie (two tokens were equally likely), as likely (another text with the frozen tail than
    in the full window, whose text is as likely with it), or what differs."""

    @property
    def good(self) -> bool:
        return self.verdict in ("same", "tie", "as likely")

    @property
    def apart(self) -> str:
        """How far the mean log-probabilities are apart; of other texts they say nothing."""
        if self.engine.tokens != self.reference.tokens:
            return "-"
        return f"{abs(self.engine.avg_logprob - self.reference.avg_logprob):.1e}"


@dataclass(frozen=True)
class Report:
    machine: dict[str, str]
    model: str
    runtime: str
    precision: str
    prepare_seconds: float
    """To write the graphs or build the engine; about 0 where it was there."""
    open_seconds: float
    memory_mb: dict[str, float]
    stages: dict[str, float] | None
    """Seconds, medians, of the first clip in the window that it would get: encode, prefill, and a
    step, which is a token chosen by the engine. None of a runtime that does all in one."""
    comparisons: list[Comparison]

    @property
    def failures(self) -> list[str]:
        failures = [f"{c.name}: {c.verdict}" for c in self.comparisons if not c.good]
        if not any(c.verdict == "same" and c.reference.tokens for c in self.comparisons):
            failures.append("no clip with words in it came out the same: that proves nothing")
        return failures

    @property
    def passed(self) -> bool:
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        verdict = {"passed": self.passed, "failures": self.failures}
        return verdict | dataclasses.asdict(self)

    def as_text(self) -> str:
        """Return it for an issue: Markdown."""
        stages = ", ".join(f"{k} {_milliseconds(s)}" for k, s in (self.stages or {}).items())
        facts = {
            **self.machine,
            "model": self.model,
            "engine": f"{self.runtime} in {self.precision}",
            "prepared, opened": f"{self.prepare_seconds:.1f} s, {self.open_seconds:.1f} s",
            **({"stages": stages} if stages else {}),
            "memory": ", ".join(f"{name} {size:.0f} MB" for name, size in self.memory_mb.items()),
        }
        verdict = "PASSED" if self.passed else "FAILED: " + "; ".join(self.failures)
        lines = [f"- {name}: {value}" for name, value in facts.items()]
        return "\n".join([*lines, "", _table(self.comparisons), "", f"selftest {verdict}"])

    @staticmethod
    def of_machine(root: Path = Path("/")) -> dict[str, str]:
        """Return what an issue should say of the machine whose files are below `root`."""
        facts = {
            "system": platform.platform(),
            "board": _text(root / "proc/device-tree/model"),
            "L4T": _text(root / "etc/nv_tegra_release").partition("\n")[0].lstrip("# "),
            "power mode": _text(root / "var/lib/nvpmodel/status"),
            "CPU": f"{HOST.cpu_name}, {HOST.cores} cores ({HOST.instruction_set})",
            "memory": _line(root / "proc/meminfo", "MemTotal"),
            "Python": platform.python_version(),
            "packages": ", ".join(f"{name} {number}" for name, number in _versions().items()),
            "GPU": _gpus(),
        }
        return {name: value for name, value in facts.items() if value}

    @staticmethod
    def resident_bytes() -> int:
        """Return the memory of this process that is in RAM; 0 where the system does not say."""
        text = _line(Path("/proc/self/status"), "VmRSS")
        return int(text.split()[0]) * 1024 if text else 0

    @classmethod
    def memory(cls, before: int, session: Session | None = None) -> dict[str, float]:
        """Return what this process holds, in MB.

        `before` are the bytes when CTranslate2 was closed, and no engine was open.
        """
        on_gpu: Callable[[], int] | None = getattr(session, "memory_bytes", None)
        now = cls.resident_bytes()
        memory = {
            "process": now / 1e6,
            "of it since CTranslate2 was closed": (now - before) / 1e6,
        }
        return memory | ({"GPU, held by the engine": on_gpu() / 1e6} if on_gpu else {})


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


def _row(row: Comparison) -> list[str]:
    reference, engine = row.reference, row.engine
    return [
        row.name,
        f"{row.window_seconds:.0f} s",
        str(row.beam_size),
        str(len(engine.tokens)),
        row.verdict,
        f"{engine.avg_logprob:.3f}",
        row.apart,
        _milliseconds(reference.encode + reference.decode),
        _milliseconds(engine.encode),
        _milliseconds(engine.decode),
        row.text,
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


# -- the machine ---------------------------------------------------------------------------


def _versions() -> dict[str, str]:
    packages = (
        "wyoming-whisper",
        "numpy",
        "ctranslate2",
        "onnx",
        "onnxruntime",
        "tensorrt",
        "tensorrt-cu12",
        "tensorrt-cu13",
        "tensorrt-llm",
        "torch",
    )
    versions = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _gpus() -> str:
    try:
        gpus = Gpu.all()
    except NoGpuError as error:
        return f"none ({error})"
    return "; ".join(
        f"{gpu.name}, compute capability {'.'.join(map(str, gpu.compute_capability))}, "
        f"{gpu.total_bytes / 2**30:.1f} GiB{' shared' if gpu.integrated else ''}, "
        f"driver for CUDA {'.'.join(map(str, gpu.cuda_version))}"
        for gpu in gpus
    )


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _line(path: Path, name: str) -> str:
    rows = (row.partition(":") for row in _text(path).splitlines())
    return next((" ".join(value.split()) for key, _, value in rows if key == name), "")
