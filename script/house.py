"""Measure the structure of the package: its size, its circles, what a reader has to hold.

The benchmarks beside it are measured by their lines alone.

`python script/house.py [--json] [FOLDER]`: exit code 1 where a bound is broken. With `--files` it
prints every module with the first line of its docstring instead.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "wyoming_whisper"
BENCHMARKS = PACKAGE.with_name("benchmarks")
BOUNDS = {
    "modules in the root": 8,
    "files over 500 lines": 0,
    "import circles": 0,
    "longest function": 60,
    "module constants": 150,
    "public names": 290,
    "imports inside functions": 60,
    "lines of benchmarks": 6_500,
}
"""The largest value that each of these may have."""

GOALS = BOUNDS | {
    "lines": 20_000,
    "public names": 250,
}
"""What all are to come to; these two were set for two thirds of what the package does now."""

CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Module:
    """What one file says of itself."""

    name: str
    lines: int
    imports: set[str] = field(default_factory=set)
    constants: list[str] = field(default_factory=list)
    public: list[str] = field(default_factory=list)
    lazy: int = 0
    longest: int = 0
    about: str = ""
    """The first line of its docstring."""
    is_folder: bool = False


def read(root: Path) -> dict[str, Module]:
    """Return the package's modules by dotted name."""
    paths = {_dotted(path, root): path for path in sorted(root.rglob("*.py"))}
    return {name: _module(name, path, paths) for name, path in paths.items()}


def measure(modules: dict[str, Module], root: str) -> dict[str, int]:
    """Return what BOUNDS and GOALS name of a package."""
    mine = modules.values()
    return {
        "lines": sum(module.lines for module in mine),
        "modules in the root": sum(
            module.name == root or (module.name.count(".") == 1 and not module.is_folder)
            for module in mine
        ),
        "files over 500 lines": sum(module.lines > 500 for module in mine),
        "import circles": len(circles({m.name: m.imports for m in mine})),
        "module constants": sum(len(module.constants) for module in mine),
        "public names": sum(len(module.public) for module in mine),
        "imports inside functions": sum(module.lazy for module in mine),
        "longest function": max(module.longest for module in mine),
    }


def figures_of(root: Path) -> dict[str, int]:
    """Return what is measured of a package, and of the benchmarks beside ours."""
    figures = measure(read(root), root.name)
    if root == PACKAGE:
        sources = (path.read_text() for path in BENCHMARKS.rglob("*.py"))
        figures["lines of benchmarks"] = sum(len(text.splitlines()) for text in sources)
    return figures


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected sets of more than one module (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    rings: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(arrows[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            ring = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(ring) > 1:
                rings.append(sorted(ring))

    sys.setrecursionlimit(10_000)
    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return rings


def _dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module(name: str, path: Path, paths: dict[str, Path]) -> Module:
    text = path.read_text()
    tree = ast.parse(text)
    module = Module(name, len(text.splitlines()), is_folder=path.name == "__init__.py")
    module.about = (ast.get_docstring(tree) or "").partition("\n")[0]
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            module.public.append(node.name)
        module.constants += [
            one for one in _assigned(node) if CONSTANT.fullmatch(one) and one != "_LOGGER"
        ]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module.imports |= set(_targets(node, name, path, paths)) - {name}
        if isinstance(node, FUNCTIONS):
            module.longest = max(module.longest, (node.end_lineno or 0) - node.lineno + 1)
    module.lazy = len({id(one) for one in _lazy(tree)})
    return module


def _assigned(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _lazy(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            yield from (n for n in ast.walk(node) if isinstance(n, (ast.Import, ast.ImportFrom)))


def _targets(
    node: ast.Import | ast.ImportFrom, name: str, path: Path, paths: dict[str, Path]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in paths)
        return
    base = node.module or ""
    if node.level:
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        package = package[: len(package) - node.level + 1]
        base = ".".join([*package, *([base] if base else [])])
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        if inner in paths:
            yield inner
        elif base in paths:
            yield base


def main() -> int:
    """Print the figures beside their bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGE)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--files", action="store_true", help="every file, and what it is for")
    parser.add_argument("--verbose", action="store_true", help="name what breaks a bound")
    args = parser.parse_args()
    root = args.folder.resolve()
    modules = read(root)
    if args.files:
        for module in modules.values():
            print(f"{module.name.partition('.')[2] or module.name:32} {module.about}")
        return 0
    figures = figures_of(root)
    if args.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            is_broken = value > BOUNDS.get(name, value)
            mark = "  <- too many" if is_broken else "  <- to go" if value > GOALS[name] else ""
            print(f"{name:26} {value:6} of {GOALS[name]}{mark}")
    if args.verbose:
        for ring in circles({m.name: m.imports for m in modules.values()}):
            print("circle:", *ring)
        for module in modules.values():
            if module.lines > 500:
                print(f"{module.lines} lines: {module.name}")
    return int(any(value > BOUNDS.get(name, value) for name, value in figures.items()))


if __name__ == "__main__":
    sys.exit(main())
