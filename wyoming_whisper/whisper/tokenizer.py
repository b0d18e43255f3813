"""Text to tokens and back; Whisper's special tokens; languages by code, tag and name.

A Tokenizer never changes after it is made: one client's language can't leak into another's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

Task = Literal["transcribe", "translate"]

_TABLES = json.loads(Path(__file__).with_name("languages.json").read_text(encoding="utf-8"))
LANGUAGES: dict[str, str] = _TABLES["languages"]
"""Code -> English name, in the order of the language tokens (openai/whisper, tokenizer.py)."""
_CODES_BY_NAME = {name: code for code, name in LANGUAGES.items()}


def language_code(tag: str) -> str | None:
    """Return Whisper's code for a code, BCP 47 tag or English name; None if it has none.

    `aliases` in languages.json are what people and Home Assistant call by another name than Whisper
    does: Bokmål ("nb"), for one, is what its Norwegian writes.

    >>> language_code("pt-BR"), language_code("zh-HK"), language_code("nb"), language_code("xx")
    ('pt', 'yue', 'no', None)
    """
    tag = tag.strip().lower().replace("_", "-")
    for candidate in (tag, tag.partition("-")[0]):
        code = _TABLES["aliases"].get(candidate) or _CODES_BY_NAME.get(candidate, candidate)
        if code in LANGUAGES:
            return code
    return None


@cache
def _bytes_by_letter() -> dict[str, int]:
    """Return the letters that byte-level BPE (GPT-2) writes bytes as: printable ones alone."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): b for i, b in enumerate(others)}


class Tokenizer:
    """A model's vocabulary; `multilingual` models are told language and task, `.en` ones not.

    `tokenizer` is a `tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer: Any, *, multilingual: bool) -> None:
        self._tokenizer = tokenizer
        self.multilingual = multilingual
        self.eot = self._id("<|endoftext|>")
        self.sot = self._id("<|startoftranscript|>")
        self.sot_prev = self._id("<|startofprev|>")
        self.no_timestamps = self._id("<|notimestamps|>")
        self.timestamp_begin = self.no_timestamps + 1

    def check(self) -> None:
        """Look every token up that is needed later. Raises ValueError where one is missing."""
        for language in [*self.language_tokens][:1] if self.multilingual else [None]:
            self.sot_sequence(language, "translate" if self.multilingual else "transcribe")
        if self.multilingual and not self.language_tokens:
            raise ValueError("the vocabulary has no token of a language")
        if not (self.no_speech and self.suppressed_tokens and self.encode(" a")):
            raise ValueError("the vocabulary has no text")

    @cached_property
    def no_speech(self) -> int:
        """The token whose probability after `<|startoftranscript|>` says that nobody speaks."""
        new, old = (self._tokenizer.token_to_id(f"<|{n}|>") for n in ("nospeech", "nocaptions"))
        return self._id("<|nospeech|>") if old is None or new is not None else old

    @cached_property
    def language_tokens(self) -> dict[str, int]:
        """Code -> token, of the languages that this vocabulary has."""
        tokens = {code: self._tokenizer.token_to_id(f"<|{code}|>") for code in LANGUAGES}
        return {code: token for code, token in tokens.items() if token is not None}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`; special and timestamp tokens have none."""
        text: str = self._tokenizer.decode([token for token in tokens if token < self.eot])
        return text

    def spelled(self) -> list[bytes]:
        """Return the bytes of each text token: those below `eot`, a token's number is its place.

        A token may end within a letter. What is no token of byte-level BPE has no bytes.
        """
        texts = [self._tokenizer.id_to_token(number) or "" for number in range(self.eot)]
        letters = _bytes_by_letter()
        return [
            bytes(map(letters.__getitem__, text)) if letters.keys() >= set(text) else b""
            for text in texts
        ]

    def sot_sequence(self, language: str | None, task: Task = "transcribe") -> list[int]:
        """Return the tokens that start a transcript: bare for `.en` models (openai/whisper)."""
        if not self.multilingual:
            return [self.sot]
        return [self.sot, self._id(f"<|{language}|>"), self._id(f"<|{task}|>")]

    @cached_property
    def suppressed_tokens(self) -> list[int]:
        """Tokens that are never spoken: symbols, speaker tags, and the special ones."""
        names = ("translate", "transcribe", "startoftranscript", "startofprev", "startoflm")
        special = [self._tokenizer.token_to_id(f"<|{name}|>") for name in names]
        special += [self._tokenizer.token_to_id(t) for t in ("<|nospeech|>", "<|nocaptions|>")]
        return sorted({token for token in special if token is not None} | self._non_speech())

    def _non_speech(self) -> set[int]:
        """Symbols that transcribers write but nobody says (openai/whisper: non_speech_tokens)."""
        notes = "♩♪♫♬♭♮♯"  # may be several tokens: their first one is theirs alone
        symbols = [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』', "<<", ">>", "<<<", ">>>", "--", "---"]
        symbols += ["-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}"]
        symbols += ["♪♪", "♪♪♪", *notes]
        # Within words, hyphen and apostrophe are speech; starting one, they are not.
        found = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in symbols:
            for tokens in (self.encode(symbol), self.encode(" " + symbol)):
                if len(tokens) == 1 or symbol in notes:
                    found.add(tokens[0])
        return found

    def _id(self, token: str) -> int:
        token_id: int | None = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the vocabulary has no token {token}")
        return token_id
