"""Which TensorRT names a module of ours uses, and which of them a version lacks.

The source is walked as it would run on that version: a branch behind a `hasattr` that is false
there is left out, whatever stands between (names for it, `not`, `and`, `or`, a small function that
returns it, `if not hasattr(...): return`, `getattr(..., None)` compared with None). What is reached
is looked up three ways:

- `trt.A.B`, also through a local name for it: must exist;
- members of what the signatures say it is (`runtime.deserialize_cuda_engine(...)` is an
  ICudaEngine): must exist in that class, and a call must fit one of its signatures;
- members of anything else, such as a parameter: if any version's TensorRT has the name, this
  version must have it in some class; and what is neither there nor in our own code, Python's or
  numpy's must not look like one of TensorRT's.

Private functions that only unreached code of their module calls are not reached either.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import difflib
import importlib
import json
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MODULE_NAMES = ("trt", "tensorrt")
MODULE_ATTRIBUTES = ("trt", "_trt")
ALIKE = 0.85  # of difflib's ratio: a name so near to one of TensorRT's is a slip

Members = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Surface:
    """What surface.py printed of one version."""

    version: str
    names: Mapping[str, Members | None]
    members: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Surface:
        found = json.loads(path.read_text(encoding="utf-8"))
        members = {m for kind in found["names"].values() if kind for m in kind}
        return cls(found["version"], found["names"], frozenset(members))

    def is_class(self, name: str | None) -> bool:
        return name is not None and bool(self.names.get(name))


@dataclass(frozen=True)
class Value:
    """What an expression is, as far as that is known."""

    kind: str
    """module, class, instance, method, answer (of a probe) or none (of a getattr)."""
    name: str = ""
    member: str = ""
    answer: bool = False


@dataclass
class Found:
    """What a walk found out."""

    used: set[str] = field(default_factory=set)
    """Names that the version has, such as Builder.create_network."""
    missing: set[str] = field(default_factory=set)
    """Sentences: line, name, what is wrong."""


def ordinary_names(sources: Iterable[str]) -> frozenset[str]:
    """Return attributes that our modules, what they import, Python and numpy define."""
    kinds: list[object] = [
        *(getattr(builtins, name) for name in dir(builtins)),
        *(types.ModuleType, types.FunctionType, np.ndarray, np.generic, np.dtype),
        *(ctypes.Structure, ctypes.Array, ctypes._Pointer),
    ]
    names: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            names.update(_defined(node))
            kinds += _imported(node)
    for kind in kinds:
        names.update(dir(kind))
        if isinstance(kind, types.ModuleType):
            for value in vars(kind).values():
                names.update(dir(value) if isinstance(value, type) else ())
    return frozenset(names)


def _defined(node: ast.AST) -> Iterable[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(inner, ast.Assign):
                yield from (name.id for name in inner.targets if isinstance(name, ast.Name))
    elif isinstance(node, ast.AnnAssign):
        target = node.target
        yield getattr(target, "attr", "") or getattr(target, "id", "")
    elif (
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and getattr(node.value, "id", "") == "self"  # and not one of TensorRT's objects
    ):
        yield node.attr


def _imported(node: ast.AST) -> Iterable[object]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [node.module]
    for name in names:
        if name.partition(".")[0] not in MODULE_NAMES:
            yield importlib.import_module(name)


class Walker(ast.NodeVisitor):
    """One module on one version."""

    def __init__(
        self, surface: Surface, vocabulary: frozenset[str], ordinary: frozenset[str]
    ) -> None:
        self.found = Found()
        self._surface = surface
        self._vocabulary = vocabulary
        self._ordinary = ordinary
        self._scopes: list[dict[str, Value]] = [{}]
        self._attributes: dict[str, Value] = {}
        self._functions: dict[str, ast.expr] = {}
        self._uncalled: set[str] = set()
        """Private functions that the module calls, but not in what was reached so far."""

    def walk(self, source: str) -> Found:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = [n for n in node.body if not _is_docstring(n)]
                if len(body) == 1 and isinstance(body[0], ast.Return) and body[0].value:
                    self._functions[node.name] = body[0].value
        self._uncalled = _referenced(tree) & _private_functions(tree)
        # Again and again: what a method stores in self is known to the methods above it, too, and
        # what is called is walked the next time.
        before: object = None
        while before != (before := (set(self._uncalled), dict(self._attributes))):
            self.found = Found()
            self._block(tree.body)
        return self.found

    # -- statements: what is reached, and what names stand for --

    def _block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if isinstance(statement, ast.If):
                answer = self._answer(statement.test)
                self.visit(statement.test)
                if answer is not None:
                    live = statement.body if answer else statement.orelse
                    self._block(live)
                    if live and isinstance(live[-1], (ast.Return, ast.Raise, ast.Continue)):
                        return
                    continue
                self._block(statement.body)
                self._block(statement.orelse)
            else:
                self.visit(statement)

    def generic_visit(self, node: ast.AST) -> None:
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._block(value)
            else:
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        self.visit(child)

    def visit_Name(self, node: ast.Name) -> None:
        self._uncalled.discard(node.id)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in self._uncalled:
            return
        scope: dict[str, Value] = {}
        given = node.args
        for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs]:
            if argument.annotation is not None:
                scope[argument.arg] = self._annotated(argument.annotation)
        self._scopes.append(scope)
        self._block(node.body)
        self._scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            value = self._value(base)
            if value and value.kind == "class":
                members = self._surface.names[value.name] or {}
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name[0] != "_":
                        self._check(method, f"{value.name}.{method.name}", method.name in members)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._assign(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self._assign(node.target, node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        known = self._value(value) or Value("unknown")
        if isinstance(target, ast.Name):
            self._scopes[-1][target.id] = known
        elif isinstance(target, ast.Attribute):
            self.visit(target)
            if isinstance(target.value, ast.Name) and target.value.id == "self":
                self._attributes[target.attr] = known

    def visit_IfExp(self, node: ast.IfExp) -> None:
        answer = self._answer(node.test)
        self.visit(node.test)
        if answer is not False:
            self.visit(node.body)
        if answer is not True:
            self.visit(node.orelse)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        stop = isinstance(node.op, ast.Or)
        for value in node.values:
            self.visit(value)
            if self._answer(value) is stop:
                return

    # -- names --

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._uncalled.discard(node.attr)
        self.visit(node.value)
        owner = self._value(node.value)
        name = node.attr
        if owner and owner.kind == "module":
            if not name.startswith("_"):
                self._check(node, name, name in self._surface.names)
        elif owner and owner.kind in ("class", "instance"):
            members = self._surface.names[owner.name] or {}
            if not name.startswith("__"):
                self._check(node, f"{owner.name}.{name}", name in members)
        elif name in self._ordinary or name.startswith("__"):
            return
        elif name in self._vocabulary:
            self._check(node, f"?.{name}", name in self._surface.members)
        else:
            for alike in difflib.get_close_matches(name, self._vocabulary, 1, ALIKE):
                wrong = f"line {node.lineno}: nobody knows .{name}; TensorRT has {alike}"
                self.found.missing.add(wrong)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self._value(node.func)
        if called and called.kind == "method":
            wanted = (self._surface.names[called.name] or {}).get(called.member, [])
            if wanted and not any(_fits(node, signature) for signature in wanted):
                self._check(node, f"{called.name}.{called.member}{wanted}", known=False)

    def _check(self, node: ast.expr | ast.stmt, name: str, known: bool) -> None:
        if known:
            self.found.used.add(name)
        else:
            version = self._surface.version
            self.found.missing.add(f"line {node.lineno}: TensorRT {version} has no {name}")

    # -- what expressions are --

    def _value(self, node: ast.expr) -> Value | None:
        if isinstance(node, ast.Name):
            if node.id in MODULE_NAMES:
                return Value("module")
            return next((s[node.id] for s in reversed(self._scopes) if node.id in s), None)
        if isinstance(node, ast.Attribute):
            return self._member(node)
        if isinstance(node, ast.Call):
            return self._returned(node)
        answer = self._answer(node)
        return None if answer is None else Value("answer", answer=answer)

    def _member(self, node: ast.Attribute) -> Value | None:
        if node.attr in MODULE_ATTRIBUTES:
            return Value("module")
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return self._attributes.get(node.attr)
        owner = self._value(node.value)
        if owner and owner.kind == "module" and self._surface.is_class(node.attr):
            return Value("class", node.attr)
        if owner and owner.kind == "instance":
            return Value("method", owner.name, node.attr)
        return None

    def _returned(self, node: ast.Call) -> Value | None:
        answer = self._answer(node)
        if answer is not None:
            return Value("answer", answer=answer)
        if isinstance(node.func, ast.Name) and node.func.id == "getattr":
            return self._got(node.args)
        called = self._value(node.func)
        if called and called.kind == "class":
            return Value("instance", called.name)
        if called and called.kind == "method":
            members = self._surface.names[called.name] or {}
            for signature in members.get(called.member, []):
                returned = signature.rpartition(" -> ")[2]
                if self._surface.is_class(returned):
                    return Value("instance", returned)
        return None

    def _annotated(self, node: ast.expr) -> Value:
        """A parameter `builder: trt.Builder`; as a string, too."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        value = self._value(node)
        known = value is not None and value.kind == "class"
        return Value("instance", value.name) if value and known else Value("unknown")

    def _got(self, arguments: Sequence[ast.expr]) -> Value | None:
        """`getattr(owner, "name", None)`: a class of the module, or None where it has none."""
        owner, name = self._value(arguments[0]), arguments[1]
        wanted = name.value if isinstance(name, ast.Constant) else None
        if not owner or owner.kind != "module" or not isinstance(wanted, str):
            return None
        if self._surface.is_class(wanted):
            return Value("class", wanted)
        return Value("none") if wanted not in self._surface.names else None

    # -- probes --

    def _answer(self, node: ast.expr) -> bool | None:
        """Return what a test gives on this version; None where that is not known."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            answer = self._answer(node.operand)
            return None if answer is None else not answer
        if isinstance(node, ast.Compare):
            return self._compared_with_none(node)
        if isinstance(node, ast.BoolOp):
            answers = [self._answer(value) for value in node.values]
            decisive = isinstance(node.op, ast.Or)
            if decisive in answers:
                return decisive
            return None if None in answers else not decisive
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "hasattr":
                return self._has(node.args[0], node.args[1])
            if node.func.id in self._functions:
                return self._answer(self._functions[node.func.id])
            return None
        if isinstance(node, (ast.Name, ast.Attribute)):
            value = self._value(node)
            return value.answer if value and value.kind == "answer" else None
        return None

    def _compared_with_none(self, node: ast.Compare) -> bool | None:
        value, (right, operator) = self._value(node.left), (node.comparators[0], node.ops[0])
        is_none = isinstance(right, ast.Constant) and right.value is None
        if not is_none or value is None or value.kind not in ("none", "class"):
            return None
        if isinstance(operator, ast.Is):
            return value.kind == "none"
        return value.kind == "class" if isinstance(operator, ast.IsNot) else None

    def _has(self, owner: ast.expr, name: ast.expr) -> bool | None:
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            return None
        value = self._value(owner)
        if value and value.kind == "module":
            return name.value in self._surface.names
        if value and value.kind in ("class", "instance"):
            return name.value in (self._surface.names[value.name] or {})
        if name.value in self._vocabulary:
            return name.value in self._surface.members
        return None


def _fits(call: ast.Call, signature: str) -> bool:
    """Return whether a call fits "(argument, optional=) -> X"; star arguments fit anything."""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(not k.arg for k in call.keywords):
        return True
    inside = signature[1 : signature.rindex(") -> ")]
    wanted = [a for a in inside.split(", ") if a]
    names = _argument_names(signature)
    if any(a.startswith("*") for a in wanted):
        return True
    given = set(names[: len(call.args)]) | {str(k.arg) for k in call.keywords}
    needed = {a for a in wanted if not a.endswith("=")}
    return len(call.args) <= len(names) and given <= set(names) and needed <= given


def _argument_names(signature: str) -> list[str]:
    inside = signature[1 : signature.rindex(") -> ")]
    return [a.rstrip("=") for a in inside.split(", ") if a]


def uses_tensorrt(source: str) -> bool:
    """Return whether a module names the package, other than in text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            named = {alias.name.partition(".")[0] for alias in node.names}
            where = [node.module, node.level] if isinstance(node, ast.ImportFrom) else []
            if where == ["tensorrt", 0] or (not where and "tensorrt" in named):
                return True
        if (
            isinstance(node, ast.Attribute)
            and getattr(node.value, "id", "") in MODULE_NAMES
            and node.attr != "__version__"  # of any module
        ):
            return True
    return False


def _private_functions(tree: ast.AST) -> set[str]:
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def _referenced(tree: ast.AST) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def check(
    source: str, surface: Surface, surfaces: Iterable[Surface], ordinary: frozenset[str]
) -> Found:
    """Return what `source` uses of one version, and what it lacks there."""
    vocabulary = frozenset().union(*(each.members for each in surfaces))
    return Walker(surface, vocabulary, ordinary).walk(source)


def unlike(fake: type, surface: Surface, real: str) -> set[str]:
    """Return methods of a stand-in that take other arguments than the real class's do.

    What the real class does not have at all is the stand-in's own.
    """
    members = surface.names.get(real) or {}
    wrong = set()
    for name, method in vars(fake).items():
        known = members.get(name)
        if known and name != "__init__" and isinstance(method, types.FunctionType):
            code = method.__code__
            taken = list(code.co_varnames[1 : code.co_argcount])
            if not any(taken == _argument_names(signature) for signature in known):
                wrong.add(f"{real}.{name}({', '.join(taken)}), not {' or '.join(known)}")
    return wrong
