"""The structure of the package: script/house.py measures it, and its bounds hold."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "script" / "house.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def package(folder: Path, **files: str) -> Path:
    root = folder / "home"
    root.mkdir()
    for name, text in {"__init__": "", **files}.items():
        path = root / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return root


def test_the_package_is_within_its_bounds(house: ModuleType) -> None:
    figures = house.figures_of(house.PACKAGE)
    assert {
        name: figures[name] for name in house.BOUNDS if figures[name] > house.BOUNDS[name]
    } == {}


def test_a_circle_is_found_also_where_only_types_are_imported(
    house: ModuleType, tmp_path: Path
) -> None:
    lazily = "def f():\n    from . import a\n    return a\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import f\n"
    root = package(tmp_path, a="from .b import x\n", b=typed, c=lazily, d="from . import a\n")
    modules = house.read(root)
    (ring,) = house.circles({one.name: one.imports for one in modules.values()})
    assert ring == ["home.a", "home.b", "home.c"]
    assert house.measure(modules, "home")["import circles"] == 1


def test_what_is_counted(house: ModuleType, tmp_path: Path) -> None:
    text = (
        "import logging\n_LOGGER = logging.getLogger(__name__)\nSIZE = 1\n_LIMIT: int = 2\n"
        "lower = 3\nclass Public:\n    INNER = 1\n    def method(self):\n        import os\n"
        "        return os\ndef _private():\n    return 1\n"
    )
    figures = house.measure(house.read(package(tmp_path, a=text, b="x = 1\n" * 501)), "home")
    assert figures == {
        "lines": 12 + 501,
        "modules in the root": 3,
        "files over 500 lines": 1,
        "import circles": 0,
        "module constants": 2,
        "public names": 1,
        "imports inside functions": 1,
        "longest function": 3,
    }


def test_every_file_says_what_it_is_for(house: ModuleType) -> None:
    modules = house.read(house.PACKAGE)
    assert [name for name, module in modules.items() if not module.about] == []
