"""Every benchmark: `python -m benchmarks` lists them, with SUITE --help it tells of one.

A suite is a module, or a package, in speed/, hearing/ or siege/. Its docstring is its help, and the
first line is what the list shows. It has:

add_options(parser)     adds its own options (lib/options.py has those that several suites share)
run(args) -> Outcome    measures; raises WyomingWhisperError
read(args) -> Outcome   optional: the outcome again, from files that --json wrote (args.read)
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from benchmarks.lib import report
from benchmarks.lib.report import Outcome, asked
from wyoming_whisper.errors import WyomingWhisperError

FOLDERS = ("speed", "hearing", "siege")


def suites() -> dict[str, str]:
    """Return the module of each suite, by its name, in the order of the list."""
    return {
        path.stem: f"benchmarks.{folder}.{path.stem}"
        for folder in FOLDERS
        for path in sorted((Path(__file__).parent / folder).iterdir())
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }


def listing() -> str:
    """Return what `python -m benchmarks` prints: a line for each suite."""
    lines = ["usage: python -m benchmarks SUITE [OPTION...]"]
    for folder in FOLDERS:
        lines += ["", folder]
        for name, module in suites().items():
            if module.split(".")[1] == folder:
                lines.append(f"  {name:<15} {_first_line(module)}")
    return "\n".join(lines)


def _first_line(module: str) -> str:
    """Return the first line of a module's docstring, without importing what it needs."""
    path = Path(__file__).parents[1] / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0]


def parser_of(name: str, suite: ModuleType) -> argparse.ArgumentParser:
    """Return what reads a suite's command line: its own options, and those of all."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=suite.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    suite.add_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    if hasattr(suite, "read"):
        again = "print the tables of such files again, together; nothing is measured"
        parser.add_argument("--read", type=Path, nargs="+", metavar="FILE", help=again)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a suite, print its tables, write its JSON; return 1 where a promise was broken."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(listing())
        return 0
    if name not in suites():
        print(f"benchmarks: {name!r} is none of {', '.join(suites())}", file=sys.stderr)
        return 2
    suite = import_module(suites()[name])
    args = parser_of(name, suite).parse_args(rest)
    machine = report.machine()
    try:
        if getattr(args, "read", None):
            outcome: Outcome = suite.read(args)
        else:
            outcome = suite.run(args)
            print(report.machine_line(machine), end="\n\n")
    except (WyomingWhisperError, ModuleNotFoundError) as error:
        print(f"benchmarks {name}: {error}", file=sys.stderr)
        return 1
    print(*outcome.shown, sep="\n\n")
    report.write_json(args.json, {"machine": machine, "asked": asked(args), **outcome.facts})
    for failure in outcome.failures:
        print(f"benchmarks {name}: {failure}", file=sys.stderr)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
