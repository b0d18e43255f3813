"""What a TensorRT package offers, as JSON: run by the Python that the package is for.

`python surface.py MODULE` prints {"version": ..., "names": {name: null | {member: signatures}}}; a
class maps its public members to their signatures, and those without any to []. A signature is
"(argument, optional=) -> Returned", as pybind11 documents it. Nothing here needs a GPU or
TensorRT's libraries, and nothing but the standard library is imported.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from types import ModuleType

# Layers made by hand and plugins: nothing that comes by way of a parser touches them.
LEFT_OUT = re.compile(r"I\w+Layer|I?Plugin\w*|\w+Plugin\w*|\w*plugin\w*|I?Algorithm\w*|Refitter")
OVERLOAD = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\)(?: -> (.+))?$")


def arguments(text: str) -> list[str]:
    """Return the names of "self: X, flags: int = 0", those with a default followed by "="."""
    depth, parts = 0, [""]
    for char in text:
        depth += (char in "[({") - (char in "])}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    named = [part.strip() for part in parts if part.strip()]
    return [re.split(r"[:=]", p)[0].strip() + "=" * ("=" in p) for p in named]


def signatures(name: str, documentation: str) -> list[str]:
    """Return the overloads that pybind11 wrote at the head of a docstring."""
    found = []
    for line in documentation.splitlines():
        match = OVERLOAD.match(line.strip())
        if match and match[1] == name and "*args, **kwargs" not in line:
            taken = [a for a in arguments(match[2]) if a != "self"]
            returned = (match[3] or "None").rsplit(".", 1)[-1]
            found.append(f"({', '.join(taken)}) -> {returned}")
    return found


def members(kind: type) -> dict[str, list[str]]:
    """Return the public members of a class, and its __init__."""
    names = [n for n in dir(kind) if not n.startswith("_") or n == "__init__"]
    return {n: signatures(n, getattr(getattr(kind, n), "__doc__", None) or "") for n in names}


def surface(module: ModuleType) -> dict[str, object]:
    """Return what the module offers."""
    names: dict[str, object] = {}
    for name in sorted(dir(module)):
        value = getattr(module, name)
        if name.startswith("_") or isinstance(value, ModuleType) or LEFT_OUT.fullmatch(name):
            continue
        names[name] = members(value) if isinstance(value, type) else None
    return {"version": module.__version__, "names": names}


if __name__ == "__main__":
    found = surface(importlib.import_module(sys.argv[1]))
    json.dump(found, sys.stdout, sort_keys=True)
