"""Sentences drawn from Home Assistant's templates, by walking what hassil parses."""

from __future__ import annotations

import random
from typing import Any

import hassil.expression as parsed
from hassil.intents import RangeSlotList, TextSlotList
from hassil.numbers import get_rbnf_engine

from benchmarks.lib.understood import Matcher

FREE = ("apple pie", "Tee", "the blue one")


def draw(matcher: Matcher, r: random.Random) -> str:
    """Return a sentence, not always one that is understood: a lock may be dimmed."""
    intents = matcher.intents
    block = r.choice(r.choice([*intents.intents.values()]).data)
    return " ".join(_said(r.choice(block.sentences).expression, matcher, r).split())


def _said(expression: Any, matcher: Matcher, r: random.Random) -> str:
    if isinstance(expression, parsed.TextChunk):
        return str(expression.text)
    if isinstance(expression, parsed.Alternative):
        return _said(r.choice(expression.items), matcher, r)
    if isinstance(expression, parsed.RuleReference):
        rule = matcher.intents.expansion_rules[expression.rule_name]
        return _said(rule.expression, matcher, r)
    if isinstance(expression, parsed.ListReference):
        return _value(expression.list_name, matcher, r)
    items = [*expression.items]
    if isinstance(expression, parsed.Permutation):
        r.shuffle(items)
    return "".join(_said(item, matcher, r) for item in items)


def _value(name: str, matcher: Matcher, r: random.Random) -> str:
    its = {**matcher.intents.slot_lists, **matcher.lists}[name]
    if isinstance(its, TextSlotList):
        return _said(r.choice(its.values).text_in, matcher, r) if its.values else ""
    if isinstance(its, RangeSlotList):
        number = r.choice([*its.get_numbers()])
        words = get_rbnf_engine(matcher.language).format_number(number).text
        return r.choice((f"{number:g}", words))
    return r.choice(FREE)
