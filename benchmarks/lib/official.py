"""The official server, installed beside ours, and both as programs that differ in nothing else."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version

from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.report import progress
from benchmarks.lib.servers import ROOT, Program

VENV = ROOT / ".venv-official"
PYTHON = VENV / "bin" / "python"
VERSION = "3.8.1"


def ours(args: argparse.Namespace, name: str = "ours", *extra: str) -> Program:
    """Return this repository's server, run with this Python."""
    command = (sys.executable, "-m", "wyoming_whisper", "serve", *_common(args), *extra)
    return Program(name, command, is_ours=True)


def official(args: argparse.Namespace, name: str = "official", *extra: str) -> Program:
    """Return the official server."""
    command = (str(PYTHON), "-m", "wyoming_faster_whisper", *_common(args))
    # By its own choice it would run another library's model for English if one is installed.
    return Program(name, (*command, "--stt-library", "faster-whisper", *extra))


def _common(args: argparse.Namespace) -> list[str]:
    flags = ["--model", str(args.model.resolve()), "--language", "en", "--local-files-only"]
    flags += ["--cpu-threads", str(args.threads)]
    if args.beam_size:
        flags += ["--beam-size", str(args.beam_size)]
    if args.compute_type != "default":
        flags += ["--compute-type", args.compute_type]
    return flags


def install_official() -> dict[str, str]:
    """Install the official server, if it isn't yet; return what it runs on.

    It gets the same CTranslate2: the servers are compared, not releases of their runtime.
    Raises BenchmarkError.
    """
    packages = {
        "wyoming-faster-whisper": VERSION,
        "ctranslate2": version("ctranslate2"),
        "faster-whisper": version("faster-whisper"),
    }
    try:
        if not PYTHON.exists() or _versions(packages) != packages:
            _install(packages)
        return _versions(packages)
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(
            "the official server can't be installed; --no-official leaves it out"
        ) from error


def _install(packages: Mapping[str, str]) -> None:
    progress(f"installing wyoming-faster-whisper {VERSION} in {VENV.name}")
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *(f"{name}=={one}" for name, one in packages.items())], check=True)


def _versions(packages: Mapping[str, str]) -> dict[str, str]:
    """Return which of the packages are there, and their versions."""
    command = [str(PYTHON), "-m", "pip", "list", "--format", "json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    versions = {row["name"]: row["version"] for row in json.loads(answer.stdout)}
    return {name: versions[name] for name in packages if name in versions}
