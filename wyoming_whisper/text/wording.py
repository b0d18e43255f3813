"""A command's text in the words of Home Assistant's sentences: no "uh" at its start, no "½ hour".

Its matcher accepts whole numbers up to 100 before whole names of units, and little else: "½ hour",
"d'une heure" and "21 °C" are nothing to it, or a song's title. What it accepts stays as it is, and
so does all that others are to read: list items, announcements, what is to be played. The words that
tell are in each language's file (`languages/`); texts in other languages stay as they are.
"""

# ruff: noqa: RUF001  (marks and letters of all languages)

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from ..languages.words import LanguageWords, language_words


class Wording:
    """What one language's file says."""

    MAX_LENGTH = 1000
    """Characters; a longer text is no command."""

    def __init__(self, words: LanguageWords) -> None:
        fillers = _drawn_out(words["fillers"])
        # A hyphen or an apostrophe makes it part of a word: "uh-huh".
        self._filler = re.compile(rf"\W*(?P<word>{fillers})(?!['’-]?\w)(?P<end>\W*)", re.IGNORECASE)
        self._measures = _Measures(words)

    @staticmethod
    @cache
    def of(language: str | None) -> Wording | None:
        """Return that of a language, by Whisper's code; None where there is no file of it."""
        words = language_words(language)
        return Wording(words) if words else None

    def reworded(self, text: str, names: Sequence[str] = ()) -> str:
        """Return a command as Home Assistant's sentences have it.

        `names` are the home's: a word that one of them begins with is no filler.
        """
        if len(text) > self.MAX_LENGTH:
            return text
        text = self._without_fillers(text, names)
        rewritten = self._measures.rewritten(text)
        return text if _names_change(text, rewritten, names) else rewritten

    def is_filler(self, text: str) -> bool:
        """Return whether the text has nothing but fillers so far: more may begin the text."""
        while filler := self._filler.match(text):
            text = text[filler.end() :]
        return not any(letter.isalnum() for letter in text)

    def _without_fillers(self, text: str, names: Sequence[str]) -> str:
        """Return the text without fillers at its start, unless nothing else is in it."""
        rest = text
        while (filler := self._filler.match(rest)) and not (
            _is_word(filler) or _begins_with(rest, names)
        ):
            rest = rest[filler.end() :]
        if rest == text or not any(letter.isalnum() for letter in rest):
            return text
        word = rest.split(maxsplit=1)[0]
        is_capital = text.lstrip()[:1].isupper()
        return rest[:1].upper() + rest[1:] if is_capital and word.islower() else rest


def _drawn_out(fillers: Sequence[str]) -> str:
    """Return a pattern of fillers, each letter as long as it may be: "uhhh", "äääh"."""
    return "|".join("".join(f"{re.escape(letter)}+" for letter in filler) for filler in fillers)


def _is_word(filler: re.Match[str]) -> bool:
    """Whether it may be a word or a name: "ER", and "oh" or "ah" without a mark behind it."""
    word = filler["word"]
    is_exclamation = re.fullmatch("o+h+|a+h+", word, re.IGNORECASE)
    return (len(word) > 1 and word.isupper()) or bool(is_exclamation and filler["end"].isspace())


def _names_change(text: str, rewritten: str, names: Iterable[str]) -> bool:
    """Whether one of the names is in the text, and no longer once it is rewritten."""
    if rewritten == text:
        return False
    patterns = (rf"(?<!\w){_words_pattern([name])}(?!\w)" for name in names)
    return any(
        re.search(pattern, text, re.IGNORECASE) and not re.search(pattern, rewritten, re.IGNORECASE)
        for pattern in patterns
    )


def _begins_with(text: str, names: Iterable[str]) -> bool:
    """Whether the text begins with one of the names, whole words of it."""
    return any(
        re.match(rf"\W*{_words_pattern([name])}(?!\w)", text, re.IGNORECASE) for name in names
    )


def _words_pattern(words: Iterable[str]) -> str:
    """Return a pattern of any of the words, longest first: blanks as hyphens, * any letters."""
    alternatives = sorted(words, key=len, reverse=True)
    return "(?:" + "|".join(map(_word_pattern, alternatives)) + ")" if alternatives else "(?!)"


def _word_pattern(word: str) -> str:
    parts = {" ": r"[\s-]+", "'": "['’]", "’": "['’]", "*": r"\w*"}
    return "".join(parts.get(letter) or re.escape(letter) for letter in word)


@dataclass(frozen=True)
class _Span:
    """A duration in a text."""

    start: int
    end: int
    unit: str
    """The largest that it is written in."""

    seconds: Fraction
    is_variant: bool
    """Whether Home Assistant's templates lack what is written."""

    prefix: str = ""


class _Measures:
    """Durations, temperatures and shares, as patterns made of one language's file."""

    SECONDS: Mapping[str, int] = {"hour": 3600, "minute": 60, "second": 1}
    LARGEST = 100  # of the ranges of hours, minutes, seconds and degrees in all languages

    FRACTIONS: Mapping[str, Fraction] = {
        "½": Fraction(1, 2),
        "¼": Fraction(1, 4),
        "¾": Fraction(3, 4),
    }
    # "1 1/2", "1/2", "1½", "½", "1.5", "1"; not part of anything longer.
    _DIGITS = (
        r"(?<![\w.,/:°−-])(?:"
        r"(?:\d{1,3}\s)?[1-9]/[2-9](?![\d/])|\d{0,3}\s?[½¼¾]|\d{1,4}(?:[.,]\d{1,2})?(?![\d½¼¾]))"
    )

    # Patterns without capitals take these for s and i, and the tables that follow don't.
    _LIKE_OTHERS = re.compile("[ſıİ]")
    _BLANK = r"[\s-]?"
    _SIGN = r"°\s?[CF](?!\w)|º\s?[CF](?!\w)|[℃℉]"
    _KELVIN = re.compile(
        r"(?<![\w.,])(\d{1,2})[.,\s](\d{3})\s?(?:k|kelvins?|kelwin\w*)(?!\w)", re.IGNORECASE
    )

    def __init__(self, language: LanguageWords) -> None:
        self._words = words = language["measures"]
        self._values: dict[str, int] = {**words["numbers"], **words["number_variants"]}
        self._spans = {_plain(text): seconds for text, seconds in words["durations"].items()}
        self._accepted_spans = set(map(_plain, words["accepted_durations"]))
        self._units = {
            name: (unit, name in forms["accepted"])
            for unit, forms in words["units"].items()
            for name in (*forms["accepted"], *forms["variants"])
        }
        self._wildcards = _whole_words(words["wildcards"])
        self._wildcards_unless_timer = _whole_words(words["wildcards_unless_timer"])
        self._timer = _whole_words(words["timer_words"])
        delays = _words_pattern(words["delay_words"])
        self._delay = re.compile(rf"(?<!\w){delays}\s+\Z", re.IGNORECASE)
        names = _words_pattern(words["name_words"])
        self._before_name = re.compile(rf"(?<!\w){names}\s+\Z", re.IGNORECASE)
        self._before_timer = re.compile(
            rf"\s+{_words_pattern(words['timer_words'])}(?!\w)", re.IGNORECASE
        )
        self._temperature = _whole_words(words["temperature_words"])
        self._scales = _whole_words(words["conversion_words"])
        self._joint = re.compile(
            rf"[\s,-]*(?:{_words_pattern(words['joins'])}[\s-]+)?", re.IGNORECASE
        )
        tens = _words_pattern([*words["tens"], *(w for w, n in self._values.items() if n > 1)])
        joins = _words_pattern(words["joins"])
        # What a duration can't follow: then it is the rest of a larger number.
        self._number_before = re.compile(
            rf"(?:(?<!\w){tens}\s|\w-|(?<!\w){joins}[\s-])\s*\Z", re.IGNORECASE
        )
        self._duration = re.compile(self._duration_pattern(), re.IGNORECASE)
        self._degrees = re.compile(self._degrees_pattern(), re.IGNORECASE)
        self._percent = re.compile(
            rf"(?<=\w)[\s-]?{_words_pattern(words['percent_variants'])}(?!\w)", re.IGNORECASE
        )
        self._patterns = [
            (re.compile(pattern, re.IGNORECASE), new) for pattern, new in words["patterns"]
        ]

    def rewritten(self, text: str) -> str:
        """Return the text with each measure as Home Assistant's templates have it."""
        if self._wildcards.search(text) or self._LIKE_OTHERS.search(text):
            return text
        is_timer = bool(self._timer.search(text))
        if is_timer:
            for pattern, new in self._patterns:
                text = pattern.sub(new, text)
        has_wildcard = bool(self._wildcards_unless_timer.search(text))
        if is_timer or not has_wildcard:
            text = self._with_durations(text, is_timer)
        if is_timer or has_wildcard:
            return text
        text = self._KELVIN.sub(rf"\1\2 {self._words['kelvin']}", text)
        return self._percent.sub("%", self._with_degrees(text))

    # Durations.

    def _duration_pattern(self) -> str:
        words = self._words
        article = _words_pattern(word for word, value in self._values.items() if value == 1)
        lone = _words_pattern(names[0] for names in self._written().values())
        elided = _words_pattern(words["elisions"])
        units = _words_pattern(self._units)
        minutes = _words_pattern(words["minutes_after_hours"])
        # "1 heure 5", "1 ora e 30"; of "1 ora e 2 luci" nothing is minutes.
        joins, values = _words_pattern(words["joins"]), _words_pattern(self._values)
        more = rf"\s?{units}(?!\w)|\s(?:{joins}\s)?(?:\d|{values}(?!\w))"
        bare = rf"(?:[0-5]?\d|{minutes}|{joins}\s(?:[0-5]\d|{minutes}))(?![\w-])(?!{more})"
        return (
            rf"(?<!\w)(?P<cut>{elided})?(?P<span>{_words_pattern(self._spans)})(?!\w)"
            r"|(?<![\w.,/:])(?P<hours>\d{1,2})\s?h\s?(?P<minutes>[0-5]\d)(?:\s?m(?:in)?)?(?!\w)"
            rf"|(?<!\w)(?P<elided>{elided})?"
            rf"(?:(?P<article>{article})\s)?"
            rf"(?P<number>{self._DIGITS}|(?<![^\W_-]){_words_pattern(self._values)})"
            rf"(?:{self._BLANK}(?P<before>{_words_pattern(words['half_before'])}))?"
            rf"(?P<blank>{self._BLANK})(?:(?P<of>{_words_pattern(words['fraction_of'])})\s?)?"
            rf"(?P<unit>{units})(?!\w)(?P<stop>\.?)"
            rf"(?:\s(?P<after>{_words_pattern(words['half_after'])})(?!\w)"
            rf"|\s(?P<bare>{bare if words['minutes_after_hours'] else '(?!)'}))?"
            rf"|(?<=\b[nz]a\s)(?P<lone>{lone if words['lone_units'] else '(?!)'})(?!\w)"
        )

    def _written(self) -> dict[str, list[str]]:
        return {unit: forms["write"] for unit, forms in self._words["units"].items()}

    def _with_durations(self, text: str, is_timer: bool) -> str:
        groups: list[list[_Span]] = []
        for match in self._duration.finditer(text):
            span = self._span(match)
            if span is None:
                continue
            last = groups[-1][-1] if groups else None
            if last and self._joint.fullmatch(text, last.end, span.start):
                groups[-1].append(span)
            else:
                groups.append([span])
        for group in reversed(groups):
            start, end = group[0].start, group[-1].end
            written = self._in_units(group)
            before = text[:start]
            is_name = self._before_name.search(before)
            is_meant = not is_name and (is_timer or self._delay.search(before))
            is_whole = not self._number_before.search(before)
            if written and is_meant and is_whole and any(span.is_variant for span in group):
                rest = text[end:]
                if re.match(r"-\w", rest):  # "5-Minuten-Timer"
                    rest = " " + rest[1:]
                text = before + group[0].prefix + written + rest
        return text

    def _span(self, match: re.Match[str]) -> _Span | None:
        """Return what a match says; None where it is no duration."""
        start, end = match.span()
        if match["span"]:
            name = _plain(match["span"])
            seconds, is_variant = (
                self._spans[name],
                name not in self._accepted_spans or bool(match["cut"]),
            )
            # "a timer for half an hour" has a template, "half an hour timer" has none.
            is_variant |= bool(self._before_timer.match(match.string, end))
            unit = "minute" if seconds >= self.SECONDS["minute"] else "second"
            return _Span(
                start, end, unit, Fraction(seconds), is_variant, self._prefix(match["cut"])
            )
        if match["hours"]:
            seconds = int(match["hours"]) * 3600 + int(match["minutes"]) * 60
            return _Span(start, end, "hour", Fraction(seconds), True)
        if match["lone"]:
            unit, _ = self._units[match["lone"].lower()]
            return _Span(start, end, unit, Fraction(self.SECONDS[unit]), True)
        return self._counted(match)

    def _counted(self, match: re.Match[str]) -> _Span | None:
        """Return what a number of units says; None where it is no duration."""
        text = match["number"]
        number, is_accepted = self._number(text)
        unit, is_accepted_unit = self._units[match["unit"].lower()]
        in_words = not text[:1].isdigit() and text[-1] not in self.FRACTIONS
        is_glued = in_words and not match["blank"] and text[-1] not in "'’"  # "eins"
        if (match["of"] and number >= 1) or is_glued:
            return None
        start, end = match.span()
        if match["article"] and number >= 1:  # "a 5 minute timer" keeps its article
            start = match.start("number")
        if match["stop"] and is_accepted_unit and not (match["after"] or match["bare"]):
            end -= 1  # it ends a sentence
        is_variant = not (is_accepted and is_accepted_unit) or number > self.LARGEST
        is_variant |= match.string[end : end + 1] == "-" and not self._words["accepts_hyphen"]
        seconds = number * self.SECONDS[unit]
        if match["before"] or match["after"]:
            seconds += Fraction(1, 2) * self.SECONDS[unit]
        if match["bare"]:  # "1 heure 30"
            seconds += Fraction(self._bare(match["bare"]) * self.SECONDS[unit], 60)
        is_variant |= self._is_variant(match, in_words)
        return _Span(start, end, unit, seconds, is_variant, self._prefix(match["elided"]))

    def _is_variant(self, match: re.Match[str], in_words: bool) -> bool:
        """Whether Home Assistant's templates lack what stands around a number and its unit."""
        return bool(
            match["of"]
            or match["elided"]
            or match["bare"]
            or (match["blank"] == "-" and not self._words["accepts_hyphen"])
            or (match["before"] and not (in_words and self._words["accepts_half_before"]))
            or (match["after"] and not self._words["accepts_half_after"])
        )

    def _prefix(self, elided: str | None) -> str:
        return self._words["elisions"][_plain(elided)] if elided else ""

    def _bare(self, text: str) -> int:
        minutes = self._words["minutes_after_hours"]
        joins = _words_pattern(self._words["joins"])
        number = re.sub(rf"\A{joins}\s", "", text, flags=re.IGNORECASE)
        return int(number) if number.isdecimal() else minutes[_plain(number)]

    def _number(self, text: str) -> tuple[Fraction, bool]:
        """Return a number's value, and whether Home Assistant's templates have it."""
        plain = text.lower().replace("’", "'")
        if plain in self._values:
            return Fraction(self._values[plain]), plain not in self._words["number_variants"]
        return self._value(plain)

    def _in_units(self, group: Sequence[_Span]) -> str:
        """Return durations as one in hours, minutes and seconds; empty where that is impossible."""
        seconds = sum((span.seconds for span in group), Fraction(0))
        if seconds.denominator != 1 or not 0 < seconds <= self.LARGEST * self.SECONDS["hour"]:
            return ""
        rest, forms, parts = int(seconds), self._written(), []
        largest = max(self.SECONDS[span.unit] for span in group)
        for unit, length in self.SECONDS.items():
            if length > largest and rest <= self.LARGEST * largest:
                continue  # "90 minutes" are accepted, and stay what they are
            count, rest = divmod(rest, length)
            if count:
                parts.append(f"{count} {_form(count, forms[unit])}")
        return " ".join(parts)

    # Temperatures.

    def _degrees_pattern(self) -> str:
        words = self._words
        degrees = words["degrees"]
        names = _words_pattern([*degrees["accepted"], *degrees["variants"]])
        before = _words_pattern(words["half_before"])
        return (
            rf"(?:(?P<number>{self._DIGITS})|(?<=[^\W\d_])(?P<word>))"
            rf"(?:{self._BLANK}(?P<before>{before}))?"
            rf"{self._BLANK}(?:(?P<sign>{self._SIGN})|(?P<name>{names})(?!\w)|°)"
            rf"(?:\s(?P<scale>{_words_pattern(words['scales'])})(?!\w))?"
            rf"(?:\s(?P<after>{_words_pattern(words['half_after'])})(?!\w))?"
        )

    def _with_degrees(self, text: str) -> str:
        matches = list(self._degrees.finditer(text))
        # One temperature to be set; where there are two, one may be what the other is to be in.
        if len(matches) != 1 or not self._temperature.search(text) or self._scales.search(text):
            return text
        return self._degrees.sub(self._degree, text)

    def _degree(self, match: re.Match[str]) -> str:
        degrees, half = self._words["degrees"], match["before"] or match["after"]
        name = match["name"] and match["name"].lower()
        is_variant = bool(half) or name in degrees["variants"]
        is_variant |= bool(match["sign"] or match["scale"]) and not self._words["accepts_scales"]
        if match["number"] is None:  # in words, which are accepted
            point_five = self._words["point_five"]
            if not is_variant or (half and not point_five):
                return match[0]
            return f" {point_five} {degrees['write']}" if half else f" {degrees['write']}"
        number, is_accepted = self._value(match["number"])
        number += Fraction(1, 2) if half else 0
        if number > self.LARGEST or not (is_variant or self._is_fraction(match["number"])):
            return match[0]
        if is_accepted or half or self._is_fraction(match["number"]):
            written = f"{float(number):g}"
        else:
            written = match["number"]
        return f"{written.replace('.', self._words['decimal'])} {degrees['write']}"

    def _is_fraction(self, number: str) -> bool:
        return "/" in number or any(sign in number for sign in self.FRACTIONS)

    def _value(self, number: str) -> tuple[Fraction, bool]:
        """Return the value of a number in digits, and whether it is a plain whole one."""
        if number.isdecimal():
            return Fraction(number), True
        if number[-1] in self.FRACTIONS:
            return Fraction(number[:-1].strip() or 0) + self.FRACTIONS[number[-1]], False
        return sum(
            (Fraction(part.replace(",", ".")) for part in number.split()), Fraction(0)
        ), False


def _plain(text: str) -> str:
    return re.sub(r"[\s-]+", " ", text.lower().replace("’", "'"))


def _whole_words(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){_words_pattern(words)}(?!\w)", re.IGNORECASE)


def _form(count: int, forms: list[str]) -> str:
    """Return a unit's name after a count: singular, plural, or as in Polish 1, 2 to 4, 5."""
    if count == 1:
        return forms[0]
    few = count % 10 in (2, 3, 4) and count % 100 not in (12, 13, 14)
    return forms[1] if few or len(forms) == 2 else forms[2]
