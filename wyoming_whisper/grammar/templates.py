"""Home Assistant's sentence templates of one language as a network of letters with slots.

hassil parses them; it and the templates are imported only by the process that compiles
(`compiling`), which keeps what comes of it on disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .letters import fold, words_of
from .network import ANY, END, FINAL, GAP, RETURNING, Arc, Network, NetworkBuilder, TooLargeError
from .numerals import numerals

MAX_NODES = 1_500_000
"""German, the largest language, has a tenth of these."""

MAX_DEPTH = 24  # of rules within rules

OF_THE_HOME = ("name", "area", "floor")
"""Lists whose values are the home's."""

FORMAT = 1

TEMPLATES_BY_CODE = {"zh": "zh-CN", "yue": "zh-HK", "no": "nb"}
"""What Home Assistant calls languages for which Whisper has another code."""


class TemplateError(Exception):
    """A template can't be used."""


@dataclass(frozen=True)
class Slot:
    """A place in sentences for one of many values."""

    kind: str
    """One of OF_THE_HOME, or "values"."""
    requires: Mapping[str, Any] = field(default_factory=dict)
    """Of a name: what must be true of its entity, such as {"domain": ["light"]}."""
    excludes: Mapping[str, Any] = field(default_factory=dict)
    """Of a name: what must not be."""
    node: int = -1
    """Of "values": the node that they begin with."""

    def admits(self, context: Mapping[str, str]) -> bool:
        """Return whether an entity of this domain and device class may be named here."""
        return all(
            context.get(key) in _alternatives(value) for key, value in self.requires.items()
        ) and not any(
            context.get(key) in _alternatives(value) for key, value in self.excludes.items()
        )


@dataclass(frozen=True)
class Templates:
    """All sentences of one language, without the names of a home."""

    language: str
    network: Network
    start: int
    """The node before all sentences."""
    led: int
    """The node before those that don't begin with free text."""
    skip: int
    """The node that words which mean nothing ("please") begin with; -1: there are none."""
    slots: tuple[Slot, ...]
    unparted: bool
    """Blanks mean nothing."""
    left_out: tuple[str, ...] = ()
    """One line for each template that could not be used."""

    def save(self, path: Path) -> None:
        network = self.network
        slots = [asdict(slot) for slot in self.slots]
        about = {
            "format": FORMAT,
            "language": self.language,
            "start": self.start,
            "led": self.led,
            "skip": self.skip,
            "slots": slots,
            "unparted": self.unparted,
            "left_out": self.left_out,
        }
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                first=network.first,
                labels=network.labels,
                targets=network.targets,
                about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            )

    @classmethod
    def load(cls, path: Path) -> Templates:
        """Read what `save` wrote. Raises OSError, ValueError where that is not what is there."""
        try:
            templates = cls._read(path)
        except OSError:
            raise
        except Exception as error:  # numpy raises of many kinds for a broken file
            raise ValueError(f"no templates: {error}") from error
        templates.network.check()
        nodes = [
            templates.start,
            templates.led,
            templates.skip,
            *(slot.node for slot in templates.slots),
        ]
        if max(nodes) >= len(templates.network):
            raise ValueError("a slot begins nowhere")
        return templates

    @classmethod
    def _read(cls, path: Path) -> Templates:
        with path.open("rb") as file, np.load(file) as arrays:
            about = json.loads(arrays["about"].tobytes())
            parts = [arrays[name].astype(np.int32) for name in ("first", "labels", "targets")]
        if about.pop("format") != FORMAT:
            raise ValueError("it has another format")
        slots = tuple(Slot(**slot) for slot in about.pop("slots"))
        about["left_out"] = tuple(about["left_out"])
        return cls(network=Network(*parts), slots=slots, **about)


def compile_templates(code: str, own: Sequence[Mapping[str, Any]] = ()) -> Templates:
    """Return the templates that Home Assistant brings for a language.

    `code` is Whisper's, with a region or without: where pt-XY has none, those of pt do. `own` are
    more of the user's, see `compile_intents`. Raises TemplateError where the language has none, or
    what there is can't be read.
    """
    import home_assistant_intents

    folder = Path(home_assistant_intents.__file__).parent / "data"
    files = {file.stem.lower(): file for file in folder.glob("*.json")}
    language = code.partition("-")[0]
    names = (code, TEMPLATES_BY_CODE.get(language, ""), language)
    path = next((files[name.lower()] for name in names if name.lower() in files), None)
    if path is None:
        raise TemplateError(f"Home Assistant has no sentences of {code!r}")
    content = json.loads(path.read_text(encoding="utf-8"))
    return compile_intents(content, own)


def compile_intents(content: Mapping[str, Any], own: Sequence[Mapping[str, Any]] = ()) -> Templates:
    """Return the templates of Home Assistant's intents, as JSON or YAML has them.

    `own` are the user's, in the format of its custom sentences, or {"sentences": [...]}: in these
    a list that isn't there is free text, as in the sentences that automations wait for.
    """
    unparted = bool((content.get("settings") or {}).get("ignore_whitespace"))
    compiler = _Compiler(str(content["language"]), unparted=unparted)
    starts: list[int] = []
    for part in (content, *own):
        starts += compiler.intents(part)
        starts += compiler.sentences(part.get("sentences"))
    skipped = [words_of(str(word)) for word in _list(content.get("skip_words"))]
    return compiler.finish(starts, [word for word in skipped if word])


def _alternatives(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        value = value.get("value")
    return value if isinstance(value, list | tuple) else (value,)


@dataclass(frozen=True)
class _Scope:
    """What the names in one block of sentences mean."""

    rules: Mapping[str, Any]
    lists: Mapping[str, Any]
    requires: Mapping[str, Any]
    excludes: Mapping[str, Any]
    in_list: bool = False
    unknown_is_free: bool = False
    """A list that isn't there is free text."""


class _Compiler:
    def __init__(self, language: str, *, unparted: bool) -> None:
        self.language = language
        self.unparted = unparted
        self.builder = NetworkBuilder(MAX_NODES)
        self.slots: dict[str, tuple[int, Slot]] = {}
        self.left_out: list[str] = []
        self._lists: dict[str, Any] = {}
        self._rules: dict[str, Any] = {}

    def intents(self, content: Mapping[str, Any]) -> list[int]:
        """Return the first nodes of all sentences; what can't be used is noted in `left_out`."""
        self._lists = {**self._lists, **_mapping(content.get("lists"))}
        self._rules = {**self._rules, **self._parsed_rules(content.get("expansion_rules"))}
        starts = []
        for intent, its in _mapping(content.get("intents")).items():
            for block in _list(_mapping(its).get("data")):
                if not isinstance(block, Mapping):
                    self._leave_out(intent, "it is no block of sentences")
                    continue
                scope = self._scope(block)
                for sentence in _list(block.get("sentences")):
                    node = self._sentence(sentence, scope)
                    if node is not None:
                        starts.append(node)
        return starts

    def sentences(self, texts: object) -> list[int]:
        """Return the first nodes of sentences that stand for themselves."""
        scope = _Scope(self._rules, self._lists, {}, {}, unknown_is_free=True)
        nodes = [self._sentence(text, scope) for text in _list(texts)]
        return [node for node in nodes if node is not None]

    def finish(self, starts: Sequence[int], skipped: Iterable[str]) -> Templates:
        builder = self.builder
        start = builder.either([*dict.fromkeys(starts)]) if starts else builder.node(())
        # With sentences that begin with free text, anything would be a beginning.
        start, led = self._before(start, ()), self._before(start, (ANY,))
        skip = builder.either([self._text(word, RETURNING) for word in skipped] or [RETURNING])
        slots = [slot for _, slot in self.slots.values()]
        static = [slot.node if slot.node >= 0 else END for slot in slots]
        network, places = builder.finish([start, led, skip, *static])
        return Templates(
            self.language,
            network,
            places[0],
            places[1],
            -1 if skip == RETURNING else places[2],
            tuple(
                Slot(slot.kind, slot.requires, slot.excludes, place if slot.node >= 0 else -1)
                for slot, place in zip(slots, places[3:], strict=True)
            ),
            self.unparted,
            tuple(self.left_out),
        )

    def _before(self, start: int, dropped: Collection[int]) -> int:
        """Return the node before a sentence, without the arcs at its beginning that are `dropped`.

        What may be there without a word is none.
        """
        arcs: set[Arc] = set()
        fresh = [start]
        for node in fresh:
            for label, target in self.builder.arcs(node):
                if label == GAP and target not in fresh:
                    fresh.append(target)
                elif label not in (GAP, FINAL, *dropped):
                    arcs.add((label, target))
        return self.builder.node(((GAP, self.builder.node(arcs)),))

    # -- sentences ---------------------------------------------------------------------------

    def _scope(self, block: Mapping[str, Any]) -> _Scope:
        requires = {
            key: value
            for key, value in _mapping(block.get("requires_context")).items()
            if not (isinstance(value, Mapping) and value.get("slot"))  # the satellite's area
        }
        return _Scope(
            {**self._rules, **self._parsed_rules(block.get("expansion_rules"))},
            {**self._lists, **_mapping(block.get("lists"))},
            requires,
            _mapping(block.get("excludes_context")),
        )

    def _sentence(self, text: object, scope: _Scope) -> int | None:
        try:
            return self._expression(_parsed(text), END, scope, 0)
        except (TemplateError, TooLargeError) as error:
            self._leave_out(str(text)[:100], str(error))
            return None

    def _parsed_rules(self, rules: object) -> dict[str, Any]:
        parsed = {}
        for name, body in _mapping(rules).items():
            try:
                parsed[str(name)] = _parsed(body)
            except TemplateError as error:
                self._leave_out(f"<{name}>", str(error))
        return parsed

    def _leave_out(self, what: str, why: str) -> None:
        self.left_out.append(f"{what}: {why}")

    # -- expressions -------------------------------------------------------------------------

    def _expression(self, expression: Any, then: int, scope: _Scope, depth: int) -> int:
        """Return the node before an expression that is followed by node `then`."""
        import hassil.expression as hassil

        if isinstance(expression, hassil.TextChunk):
            return self._text(_folded_chunk(expression.text), then)
        if isinstance(expression, hassil.Alternative):
            nodes = [self._expression(item, then, scope, depth) for item in expression.items]
            return self.builder.either([*dict.fromkeys(nodes)])
        if isinstance(expression, hassil.Permutation):
            return self._permutation(expression.items, then, scope, depth)
        if isinstance(expression, hassil.Group):
            for item in reversed(expression.items):
                then = self._expression(item, then, scope, depth)
            return then
        if isinstance(expression, hassil.RuleReference):
            rule = scope.rules.get(expression.rule_name)
            if rule is None:
                raise TemplateError(f"there is no rule <{expression.rule_name}>")
            if depth >= MAX_DEPTH:
                raise TemplateError("its rules name each other without an end")
            return self._expression(rule, then, scope, depth + 1)
        if isinstance(expression, hassil.ListReference):
            return self._list(expression, then, scope)
        raise TemplateError(f"{type(expression).__name__} is not known")

    def _text(self, folded: str, then: int) -> int:
        return self.builder.text(folded.replace(" ", "") if self.unparted else folded, then)

    def _permutation(self, items: Sequence[Any], then: int, scope: _Scope, depth: int) -> int:
        if len(items) > 6:
            raise TemplateError("it has more than 6 parts in any order")
        made: dict[frozenset[int], int] = {frozenset(): then}

        def before(left: frozenset[int]) -> int:
            if left not in made:
                made[left] = self.builder.either(
                    [self._expression(items[i], before(left - {i}), scope, depth) for i in left]
                )
            return made[left]

        return before(frozenset(range(len(items))))

    # -- lists -------------------------------------------------------------------------------

    def _list(self, reference: Any, then: int, scope: _Scope) -> int:
        name = reference.list_name
        if scope.in_list:
            raise TemplateError("it has a list within a list")
        content = scope.lists.get(name)
        if content is None and name in OF_THE_HOME:
            return self._slot_of_the_home(name, then, scope)
        if content is None and reference.is_inline_range:
            start, stop, step = reference.get_inline_range()
            content = {"range": {"from": start, "to": stop, "step": step}}
        is_free = content.get("wildcard") if isinstance(content, Mapping) else scope.unknown_is_free
        if not (is_free or isinstance(content, Mapping)):
            raise TemplateError(f"there is no list {{{name}}}")
        if is_free:
            return self.builder.free_text(then)
        key = json.dumps(content, sort_keys=True, default=str)
        return self._slot(key, lambda: self._values(_mapping(content), scope), then)

    def _slot_of_the_home(self, name: str, then: int, scope: _Scope) -> int:
        # Home Assistant tells nothing of areas and floors that a template could require.
        its = (scope.requires, scope.excludes) if name == "name" else ({}, {})
        key = json.dumps([name, *its], sort_keys=True, default=str)
        return self._slot(key, lambda: Slot(name, *its), then)

    def _slot(self, key: str, make: Callable[[], Slot], then: int) -> int:
        if key not in self.slots:
            slot = make()
            self.slots[key] = (len(self.slots), slot)
        return self.builder.slot(self.slots[key][0], then)

    def _values(self, content: Mapping[str, Any], scope: _Scope) -> Slot:
        """Return the slot of a list of values."""
        if "range" in content:
            texts = numerals(_mapping(content["range"]), self.language)
            nodes = [self._text(text, RETURNING) for text in texts]
        else:
            nodes, within = [], replace(scope, in_list=True)
            for value in _list(content.get("values")):
                template = value.get("in") if isinstance(value, Mapping) else value
                nodes.append(self._expression(_parsed(template), RETURNING, within, 0))
        nodes = [node for node in nodes if node != RETURNING]
        if not nodes:
            raise TemplateError("a list of it is empty")
        return Slot("values", node=self.builder.either([*dict.fromkeys(nodes)]))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _folded_chunk(text: str) -> str:
    """Return a piece of a template folded; blanks at its ends stay."""
    return "".join(map(fold, text))


def _parsed(text: object) -> Any:
    """Return hassil's expression of a template. Raises TemplateError."""
    from hassil.parse_expression import parse_sentence

    if not isinstance(text, str):
        raise TemplateError("it is no text")
    try:
        return parse_sentence(text).expression
    except RecursionError:
        raise TemplateError("it is nested too deeply") from None
    except Exception as error:  # hassil raises of several kinds, assertions among them
        raise TemplateError(f"it can't be read ({type(error).__name__})") from error
