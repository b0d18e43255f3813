"""From a checkpoint to engines, in a process of its own: its memory goes back, its crash harms
nobody. An engine is two plans of TensorRT or TensorRT-RTX, or graphs for onnxruntime on a CPU.

`python -m wyoming_whisper.engine.child` reads a BuildRequest as one line of JSON, writes its
progress as lines of JSON, leaves what it made in the request's folder, and ends with 0; or says in
one sentence what went wrong, and ends with 1. `builder.EngineBuild` is its other end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import cast

from ..errors import WyomingWhisperError
from .checkpoint import Checkpoint
from .progress import GRAPHS, READING, Report
from .spec import ONNXRUNTIME, BuildRequest
from .tensorrt.compile import build


def _main() -> int:
    """Do what stdin asks for; return the exit status."""
    stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no report
    request = BuildRequest.from_json(sys.stdin.readline())
    make = _build_cpu if request.runtime == ONNXRUNTIME else build
    report = Report(stdout)
    _live_with(request.parent)
    try:
        make(request, report)
    except WyomingWhisperError as error:
        report.say(error=str(error))
    except OSError as error:
        report.say(error=f"{error.filename or request.folder}: {error.strerror or error}")
    except MemoryError:
        report.say(error="there is not enough memory")
    else:
        return 0
    return 1


def _build_cpu(request: BuildRequest, report: Report) -> None:
    """Write the graphs for onnxruntime into the request's folder. Raises ModelBrokenError."""
    from .cpu_graphs import Arithmetic, write_cpu_graphs

    report.shares = {READING: 0.02, GRAPHS: 0.98}
    report.phase(READING)
    checkpoint = Checkpoint.read(Path(request.model_bin))
    report.phase(GRAPHS)
    arithmetic = cast("Arithmetic", request.precision)
    write_cpu_graphs(checkpoint, Path(request.folder), arithmetic, report.fraction)


def _live_with(parent: int) -> None:
    """Be nice to the others, be the first to go when memory is short, and end with the parent."""
    pr_set_pdeathsig = 1  # of prctl(2)
    badness = 1000  # who the kernel ends first when memory is short: not the server
    niceness = 10  # the CPU backend answers while engines build
    os.nice(niceness)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(badness))
    libc = ctypes.CDLL(None)
    libc.prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(_main())
