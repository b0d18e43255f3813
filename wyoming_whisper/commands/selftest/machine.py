"""What an issue should say of the machine."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ...engine.tensorrt.cuda import NoGpuError, find_gpus
from ...machine.cpu import cpu_name, instruction_set, physical_cores

if TYPE_CHECKING:
    from ...whisper.session import Session
_RELEASE = Path("/etc/nv_tegra_release")
_BOARD = Path("/proc/device-tree/model")
_POWER = Path("/var/lib/nvpmodel/status")
_STATUS = Path("/proc/self/status")
_MEMORY = Path("/proc/meminfo")


def machine() -> dict[str, str]:
    """Return what an issue should say of the machine, the GPU left out."""
    facts = {
        "system": platform.platform(),
        "board": _text(_BOARD),
        "L4T": _text(_RELEASE).partition("\n")[0].lstrip("# "),
        "power mode": _text(_POWER),
        "CPU": f"{cpu_name()}, {physical_cores()} cores ({instruction_set()})",
        "memory": _line(_MEMORY, "MemTotal"),
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {found}" for name, found in versions().items()),
        "GPU": _gpus(),
    }
    return {name: value for name, value in facts.items() if value}


def versions() -> dict[str, str]:
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
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _gpus() -> str:
    try:
        gpus = find_gpus()
    except NoGpuError as error:
        return f"none ({error})"
    return "; ".join(
        f"{gpu.name}, compute capability {'.'.join(map(str, gpu.compute_capability))}, "
        f"{gpu.total_bytes / 2**30:.1f} GiB{' shared' if gpu.integrated else ''}, "
        f"driver for CUDA {'.'.join(map(str, gpu.cuda_version))}"
        for gpu in gpus
    )


def resident_bytes() -> int:
    """Return the memory that this process has in RAM; 0 where the system does not say."""
    text = _line(_STATUS, "VmRSS")
    return int(text.split()[0]) * 1024 if text else 0


def memory_mb(session: Session, before: int) -> dict[str, float]:
    on_gpu: Callable[[], int] | None = getattr(session, "memory_bytes", None)
    found = {
        "process": resident_bytes() / 1e6,
        "of it since CTranslate2 was closed": (resident_bytes() - before) / 1e6,
    }
    return found | ({"GPU, held by the engine": on_gpu() / 1e6} if on_gpu else {})


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _line(path: Path, name: str) -> str:
    rows = (row.partition(":") for row in _text(path).splitlines())
    return next((" ".join(value.split()) for key, _, value in rows if key == name), "")
