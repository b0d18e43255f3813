"""What an option's text, number or list is read as. Each reader raises ValueError in few words."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from ..models.stock import without_address
from ..text.replacements import Replacement, read_replacements
from ..upstreams.config import read_upstream
from ..whisper.tokenizer import language_code
from .messages import did_you_mean, listed

T = TypeVar("T")
Raw = str | bool | list[str]
"""A value as a source gives it, before it is read."""
Reader = Callable[[Raw], T]
"""Turns a raw value into the field's type; its ValueError says what is allowed: "it must ..."."""
_ON = ("1", "true", "yes", "y", "on")
_OFF = ("0", "false", "no", "n", "off", "")


def as_text(raw: Raw) -> str:
    empty = "it must not be empty"
    if isinstance(raw, str) and raw.strip():
        return raw.strip()
    raise ValueError("it must be one text" if raw and not isinstance(raw, str) else empty)


def as_model(raw: Raw) -> str:
    if isinstance(raw, str) and raw.strip():
        name = without_address(raw.strip())
        return name.lower() if name.lower() == "auto" else name
    raise ValueError("it must be auto, a model's name such as base, a repository or a folder")


def as_optional_text(raw: Raw) -> str | None:
    # The official add-on passes the text "null" for what the user left unset.
    return None if raw in ("", "null") else as_text(raw)


def one_of(*choices: str) -> Reader[str]:
    def read(raw: Raw) -> str:
        if raw in choices:
            return str(raw)
        raise ValueError(f"it must be {listed(choices)}{did_you_mean(raw, choices)}")

    return read


def as_socket_mode(raw: Raw) -> str | None:
    text = as_optional_text(raw)
    if text is None or re.fullmatch(r"0?[0-7]{3}", text):
        return text
    raise ValueError("it must be a mode as chmod has it, such as 660")


_UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}


class Size(int):
    """Bytes, written as people do."""

    def __str__(self) -> str:
        unit = next(unit for unit, size in _UNITS.items() if self % size == 0)
        return f"{self // _UNITS[unit]}{unit}"


def as_size(raw: Raw) -> Size:
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*([KMGT]?B)", str(raw).upper())
    if isinstance(raw, str) and found:
        return Size(float(found[1]) * _UNITS[found[2]])
    raise ValueError("it must be a size such as 500MB or 8GB")


def as_port(raw: Raw) -> int:
    if isinstance(raw, str) and re.fullmatch(r"\d{1,5}", raw) and int(raw) <= 65535:
        return int(raw)
    raise ValueError("it must be a port from 1 to 65535, or 0 for none")


def as_networks(raw: Raw) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(item, strict=False)) for item in as_items(raw))
    except ValueError as error:
        raise ValueError(
            f"it must be addresses or networks such as 192.168.1.0/24 ({error})"
        ) from None


def as_host_names(raw: Raw) -> tuple[str, ...]:
    names = tuple(item.lower() for item in as_items(raw))
    for name in names:
        if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
            raise ValueError("it must be names such as whisper.example.org")
    return names


def as_origins(raw: Raw) -> tuple[str, ...]:
    items = raw if isinstance(raw, list) else re.split(r"[,\s]+", str(raw))
    origins = tuple(item.lower() for item in items if item)
    for origin in origins:
        if origin == "null":
            raise ValueError(
                "null is what any sandboxed frame or local file is: it must be origins such as "
                "https://notes.example, or * for any page"
            )
        if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s]*", origin):
            raise ValueError(
                "it must be origins such as https://notes.example or app://obsidian.md"
            )
    return origins


def as_items(raw: Raw) -> list[str]:
    items = raw if isinstance(raw, list) else re.split(r"[,\s]+", str(raw))
    return [item for item in items if item and item != "null"]


def as_switch(raw: Raw) -> bool:
    word = str(raw).strip().lower() if isinstance(raw, str | bool) else None
    if word in _ON:
        return True
    if word in _OFF:
        return False
    raise ValueError("it must be on or off (1, true, yes, y, on, 0, false, no, n, off)")


def as_path(raw: Raw) -> Path:
    try:
        return Path(as_text(raw)).expanduser()
    except RuntimeError:  # "~" of a user without a home folder
        raise ValueError("it must be a path; there is no such home folder") from None


def as_paths(raw: Raw) -> tuple[Path, ...]:
    paths = tuple(as_path(item) for item in (raw if isinstance(raw, list) else [raw]))
    if not paths:
        raise ValueError("it must name at least one folder")
    return paths


def as_uri(raw: Raw) -> str:
    text = as_text(raw)
    try:
        parts = urlsplit(text)
        known = (
            text == "stdio://"
            or (parts.scheme == "tcp" and bool(parts.hostname) and parts.port is not None)
            or (parts.scheme == "unix" and not parts.netloc and len(parts.path) > 1)
        )
    except ValueError:  # a port that is no number, a bracket left open
        known = False
    if known:
        return text
    raise ValueError("it must be tcp://HOST:PORT, unix:///PATH or stdio://")


def as_ray_address(raw: Raw) -> str:
    text = as_text(raw)
    if text == "auto":
        return text
    try:
        parts = urlsplit(f"//{text}")
        known = bool(parts.hostname and parts.port) and parts.netloc == text and "@" not in text
    except ValueError:  # a port that is no number, a bracket left open
        known = False
    if known:
        return text
    raise ValueError("it must be auto, or HOST:PORT such as 192.168.1.20:6379")


def as_name_or_default(raw: Raw) -> str | None:
    """Return the name to announce, "" for the server's own, None for no announcement."""
    if raw == "":
        return ""
    try:
        return "" if as_switch(raw) else None
    except ValueError:
        return as_text(raw)


def as_device(raw: Raw) -> str:
    if isinstance(raw, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", raw):
        return raw
    raise ValueError("it must be auto, cpu, cuda or cuda:N")


def as_names(raw: Raw) -> tuple[str, ...]:
    items = raw if isinstance(raw, list) else re.split(r"[,\n]", str(raw))
    return tuple(dict.fromkeys(item.strip() for item in items if item.strip()))


def as_replacements(raw: Raw) -> tuple[Replacement, ...]:
    items = raw if isinstance(raw, list) else str(raw).splitlines()
    return read_replacements([item for item in items if item.strip()])


def as_home_assistant(raw: Raw) -> str:
    text = as_text(raw)
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname)
        known = known and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket left open
        known = False
    if known:
        return text
    raise ValueError("it must be an address such as http://homeassistant.local:8123")


def as_upstreams(raw: Raw) -> tuple[str, ...]:
    items = tuple(dict.fromkeys(as_items(raw)))
    for item in items:
        read_upstream(item)
    return items


def as_number(raw: Raw) -> float:
    try:
        return float(raw) if isinstance(raw, str) else float("nan")
    except ValueError:
        raise ValueError("it must be a number") from None


def as_languages(raw: Raw) -> tuple[str, ...]:
    found = {item: language_code(item) for item in as_items(raw)}
    unknown = [item for item, code in found.items() if code is None]
    if unknown:
        raise ValueError(f"Whisper doesn't know {unknown[0]!r}; it must be codes such as en,de")
    return tuple(dict.fromkeys(code for code in found.values() if code))


def as_audio_context(raw: Raw) -> str:
    if raw in ("auto", "full"):
        return str(raw)
    if isinstance(raw, str) and re.fullmatch(r"\d{1,2}(\.\d+)?", raw) and 1 <= float(raw) <= 30:
        return raw
    raise ValueError("it must be auto, full, or seconds from 1 to 30")


SHORTEST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds of silence after which a command may end


def as_endpointing(raw: Raw) -> str:
    if raw == "auto":
        return "auto"
    seconds = as_wait(raw)
    return "off" if seconds is None else f"{seconds:g}"


def as_wait(raw: Raw) -> float | None:
    """Return seconds, None for what is off, as for the official server's --vad-endpointing."""
    off = (*_OFF, "0.0", "null")
    if raw is False or (isinstance(raw, str) and raw.strip().lower() in off):
        return None
    if isinstance(raw, str) and re.fullmatch(r"\d{1,2}(\.\d{1,6})?", raw):
        seconds = float(raw)
        if SHORTEST_WAIT <= seconds <= LONGEST_WAIT:
            return seconds
    raise ValueError(
        f"it must be off, auto, or seconds of silence from {SHORTEST_WAIT:g} to {LONGEST_WAIT:g}"
    )


def as_log_format(raw: Raw) -> str:
    text = as_text(raw)
    try:
        logging.Formatter(text).format(logging.makeLogRecord({}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"it must be a format of Python's logging ({error})") from None
    return text


OUR_LIBRARIES = ("auto", "faster-whisper")
_OTHER_LIBRARIES = ("transformers", "sherpa", "onnx-asr", "funasr", "qwen3-asr")


def as_stt_library(raw: Raw) -> str:
    if raw in _OTHER_LIBRARIES:
        raise ValueError("this server runs Whisper with faster-whisper, not with other libraries")
    return one_of(*OUR_LIBRARIES)(raw)


def as_clipped_libraries(raw: Raw) -> tuple[str, ...] | None:
    """Return the libraries to clip for; () means all, None clipping is off."""
    if isinstance(raw, bool):
        return () if raw else None
    text = raw if isinstance(raw, str) else " ".join(raw)
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if len(words) == 1 and words[0].lower() in _ON + _OFF:
        return () if as_switch(words[0]) else None
    read = one_of(*OUR_LIBRARIES[1:], *_OTHER_LIBRARIES)
    return tuple(read(word) for word in words)


def absent(reason: str) -> Reader[None]:
    """Accept only what leaves an option off, for options of the official server not had here."""

    def read(raw: Raw) -> None:
        off = (*_OFF, "0.0", "null")
        if raw is not False and not (isinstance(raw, str) and raw.strip().lower() in off):
            raise ValueError(reason)

    return read
