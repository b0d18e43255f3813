"""Nothing leaves the machine unasked, whatever the libraries do by default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_onnxruntime_neither_marks_this_machine_nor_keeps_a_diary(tmp_path: Path) -> None:
    """Where it reports to Microsoft it has an id and a database in the home folder."""
    code = "from wyoming_whisper.vad import SileroVad; SileroVad()"
    environ = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI")}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        env=environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""},
    )
    assert list(tmp_path.rglob("*")) == []


def test_the_libraries_are_told_so_before_they_are_loaded() -> None:
    code = (
        "import os, wyoming_whisper.settings as _; "
        "print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    )
    environ = {k: v for k, v in os.environ.items() if "TELEMETRY" not in k}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environ, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "1"]
