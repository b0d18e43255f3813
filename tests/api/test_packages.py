"""The lists in surfaces/ against the packages on PyPI, and what runs of them without a GPU.

Downloads 0.8 GB, needs Python 3.10 and gcc on x86-64 Linux: `script/api-test` runs it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.packages import PACKAGES, Package, run, surface_text

SURFACES = Path(__file__).with_name("surfaces")
CALLS = Path(__file__).with_name("calls.py")

pytestmark = pytest.mark.api


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.label)
def test_the_list_is_what_the_package_has(package: Package) -> None:
    kept = (SURFACES / f"{package.label}.json").read_text(encoding="utf-8")
    assert surface_text(package) == kept


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.label)
def test_what_needs_no_gpu_runs(package: Package) -> None:
    done = run(package, CALLS, package.module)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all calls done"
