"""What the user said: defaults < options file < environment < flags -> one frozen Settings.

An option is written once, as a field of Settings; its flag, its variables and its key in the
options file follow from the field's name. Nothing is decided here: no model is looked up, no
device looked for.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, cast
from urllib.parse import urlsplit

from .. import __version__
from ..errors import SettingsError
from ..models.model_names import without_address
from ..text.replacements import Replacement, read_replacements
from ..upstreams.config import read_upstream
from ..whisper.tokenizer import language_code
from .bounds import BEAM_SIZE, CPU_THREADS, MILLISECONDS, PROBABILITY, SECONDS, Decimal, Whole
from .text_files import read_text_file

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")

Raw = str | bool | list[str]
"""A value as a source gives it, before it is read."""

Reader = Callable[[Raw], T]
"""Turns a raw value into the field's type; its ValueError says what is allowed: "it must ..."."""

PREFIXES = ("WYO_WHISPER_", "WYOMING_WHISPER_")
"""Of environment variables; the official server's names work, ours win over them."""

FILE_SUFFIX = "_FILE"
"""A variable with this ending names a file with the value (docker secrets)."""

SUPERVISOR_TOKEN = "SUPERVISOR_TOKEN"  # noqa: S105  (a variable's name)
"""The variable that Home Assistant's Supervisor gives to an add-on, and to nobody else."""

ADDON_OPTIONS = Path("/data/options.json")
"""Where the Supervisor writes what the user has set."""

ADDON_DEFAULTS: Mapping[str, str] = {
    "data_dir": "/data/models",
    "http_port": "8099",  # ingress_port in the manifest
    "http_allow": "172.30.32.2",  # the Supervisor, through which the page is shown (ingress)
}
"""What an add-on has instead of the defaults."""

# -- how a raw value is read ---------------------------------------------------------------

_ON = ("1", "true", "yes", "y", "on")
_OFF = ("0", "false", "no", "n", "off", "")


def _text(raw: Raw) -> str:
    if isinstance(raw, str) and raw.strip():
        return raw.strip()
    raise ValueError("it must be one text" if raw and not isinstance(raw, str) else _EMPTY)


_EMPTY = "it must not be empty"


def _model(raw: Raw) -> str:
    if isinstance(raw, str) and raw.strip():
        name = without_address(raw.strip())
        return name.lower() if name.lower() == "auto" else name
    raise ValueError("it must be auto, a model's name such as base, a repository or a folder")


def _optional_text(raw: Raw) -> str | None:
    # The official add-on passes the text "null" for what the user left unset.
    return None if raw in ("", "null") else _text(raw)


def _one_of(*choices: str) -> Reader[str]:
    def read(raw: Raw) -> str:
        if raw in choices:
            return str(raw)
        raise ValueError(f"it must be {_listed(choices)}{_did_you_mean(raw, choices)}")

    return read


def _socket_mode(raw: Raw) -> str | None:
    text = _optional_text(raw)
    if text is None or re.fullmatch(r"0?[0-7]{3}", text):
        return text
    raise ValueError("it must be a mode as chmod has it, such as 660")


_UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}


class Size(int):
    """Bytes, written as people do."""

    def __str__(self) -> str:
        unit = next(unit for unit, size in _UNITS.items() if self % size == 0)
        return f"{self // _UNITS[unit]}{unit}"


def _size(raw: Raw) -> Size:
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*([KMGT]?B)", str(raw).upper())
    if isinstance(raw, str) and found:
        return Size(float(found[1]) * _UNITS[found[2]])
    raise ValueError("it must be a size such as 500MB or 8GB")


def _port(raw: Raw) -> int:
    if isinstance(raw, str) and re.fullmatch(r"\d{1,5}", raw) and int(raw) <= 65535:
        return int(raw)
    raise ValueError("it must be a port from 1 to 65535, or 0 for none")


def _networks(raw: Raw) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(item, strict=False)) for item in _items(raw))
    except ValueError as error:
        raise ValueError(
            f"it must be addresses or networks such as 192.168.1.0/24 ({error})"
        ) from None


def _host_names(raw: Raw) -> tuple[str, ...]:
    names = tuple(item.lower() for item in _items(raw))
    for name in names:
        if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
            raise ValueError("it must be names such as whisper.example.org")
    return names


def _origins(raw: Raw) -> tuple[str, ...]:
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


def _items(raw: Raw) -> list[str]:
    items = raw if isinstance(raw, list) else re.split(r"[,\s]+", str(raw))
    return [item for item in items if item and item != "null"]


def _switch(raw: Raw) -> bool:
    word = str(raw).strip().lower() if isinstance(raw, str | bool) else None
    if word in _ON:
        return True
    if word in _OFF:
        return False
    raise ValueError("it must be on or off (1, true, yes, y, on, 0, false, no, n, off)")


def _path(raw: Raw) -> Path:
    try:
        return Path(_text(raw)).expanduser()
    except RuntimeError:  # "~" of a user without a home folder
        raise ValueError("it must be a path; there is no such home folder") from None


def _paths(raw: Raw) -> tuple[Path, ...]:
    paths = tuple(_path(item) for item in (raw if isinstance(raw, list) else [raw]))
    if not paths:
        raise ValueError("it must name at least one folder")
    return paths


def _uri(raw: Raw) -> str:
    text = _text(raw)
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


def _ray_address(raw: Raw) -> str:
    text = _text(raw)
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


def _name_or_default(raw: Raw) -> str | None:
    """Return the name to announce, "" for the server's own, None for no announcement."""
    if raw == "":
        return ""
    try:
        return "" if _switch(raw) else None
    except ValueError:
        return _text(raw)


def _device(raw: Raw) -> str:
    if isinstance(raw, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", raw):
        return raw
    raise ValueError("it must be auto, cpu, cuda or cuda:N")


def _names(raw: Raw) -> tuple[str, ...]:
    items = raw if isinstance(raw, list) else re.split(r"[,\n]", str(raw))
    return tuple(dict.fromkeys(item.strip() for item in items if item.strip()))


def _replacements(raw: Raw) -> tuple[Replacement, ...]:
    items = raw if isinstance(raw, list) else str(raw).splitlines()
    return read_replacements([item for item in items if item.strip()])


def _home_assistant(raw: Raw) -> str:
    text = _text(raw)
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname)
        known = known and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket left open
        known = False
    if known:
        return text
    raise ValueError("it must be an address such as http://homeassistant.local:8123")


def _upstreams(raw: Raw) -> tuple[str, ...]:
    items = tuple(dict.fromkeys(_items(raw)))
    for item in items:
        read_upstream(item)
    return items


def _number(raw: Raw) -> float:
    try:
        return float(raw) if isinstance(raw, str) else float("nan")
    except ValueError:
        raise ValueError("it must be a number") from None


def _languages(raw: Raw) -> tuple[str, ...]:
    found = {item: language_code(item) for item in _items(raw)}
    unknown = [item for item, code in found.items() if code is None]
    if unknown:
        raise ValueError(f"Whisper doesn't know {unknown[0]!r}; it must be codes such as en,de")
    return tuple(dict.fromkeys(code for code in found.values() if code))


def _audio_context(raw: Raw) -> str:
    if raw in ("auto", "full"):
        return str(raw)
    if isinstance(raw, str) and re.fullmatch(r"\d{1,2}(\.\d+)?", raw) and 1 <= float(raw) <= 30:
        return raw
    raise ValueError("it must be auto, full, or seconds from 1 to 30")


SHORTEST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds of silence after which a command may end


def _endpointing(raw: Raw) -> str:
    if raw == "auto":
        return "auto"
    seconds = _wait(raw)
    return "off" if seconds is None else f"{seconds:g}"


def _wait(raw: Raw) -> float | None:
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


def _log_format(raw: Raw) -> str:
    text = _text(raw)
    try:
        logging.Formatter(text).format(logging.makeLogRecord({}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"it must be a format of Python's logging ({error})") from None
    return text


_OUR_LIBRARIES = ("auto", "faster-whisper")
_OTHER_LIBRARIES = ("transformers", "sherpa", "onnx-asr", "funasr", "qwen3-asr")


def _stt_library(raw: Raw) -> str:
    if raw in _OTHER_LIBRARIES:
        raise ValueError("this server runs Whisper with faster-whisper, not with other libraries")
    return _one_of(*_OUR_LIBRARIES)(raw)


def _clipped_libraries(raw: Raw) -> tuple[str, ...] | None:
    """Return the libraries to clip for; () means all, None clipping is off."""
    if isinstance(raw, bool):
        return () if raw else None
    text = raw if isinstance(raw, str) else " ".join(raw)
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if len(words) == 1 and words[0].lower() in _ON + _OFF:
        return () if _switch(words[0]) else None
    read = _one_of(*_OUR_LIBRARIES[1:], *_OTHER_LIBRARIES)
    return tuple(read(word) for word in words)


def _absent(reason: str) -> Reader[None]:
    """Accept only what leaves an option off, for options of the official server not had here."""

    def read(raw: Raw) -> None:
        off = (*_OFF, "0.0", "null")
        if raw is not False and not (isinstance(raw, str) and raw.strip().lower() in off):
            raise ValueError(reason)

    return read


# -- the options ---------------------------------------------------------------------------

Shape = Literal["one", "switch", "maybe", "repeat", "lines", "words"]
"""What a flag takes: one value, none, none or one, one each time it is given (in variables parted
as paths are, or a line each), any number."""


@dataclass(frozen=True)
class Option:
    """How a field of Settings is given by flag, variable or options file."""

    group: str
    """Heading in --help."""

    help: str
    read: Reader[object]
    shape: Shape = "one"
    metavar: str | None = None

    choices: tuple[str, ...] = ()
    """All values there are; empty when they can't be listed."""

    flag: bool = True
    """False where a command line, which other users of the machine see, is no place for it."""

    hidden: bool = False
    """True keeps it out of --help."""

    secret: bool = False
    """True keeps its value out of messages."""


def _option(
    default: T,
    group: str,
    about: str,
    read: Reader[object] | None = None,
    *,
    choices: tuple[str, ...] = (),
    shape: Shape = "one",
    metavar: str | None = None,
) -> T:
    """Return a dataclass field that carries its Option."""
    read = read or (_one_of(*choices) if choices else _text)
    option = Option(group, about, read, shape, metavar, choices)
    return field(default=default, metadata={"option": option})


def _flag(group: str, about: str) -> bool:
    """Return a field that is off unless switched on."""
    return _option(False, group, about, _switch, shape="switch")


SERVER = "server"
WEB = "web page"
MODEL = "model"
UPSTREAMS = "upstreams"
SPEED = "speed"
TEXT = "text"
NAMES = "names"
SILENCE = "silence"
ENDING = "end of speech"
LOGGING = "logging"

COMPUTE_TYPES = (
    "default",
    "auto",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
    "float32",
)


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Return the user's folder for models; raises SettingsError where there is no home folder."""
    base = Path(environ.get("XDG_DATA_HOME", ""))
    if not base.is_absolute():  # unset, or to be ignored by the XDG specification
        try:
            base = Path(environ.get("HOME") or Path.home()) / ".local" / "share"
        except RuntimeError:
            raise SettingsError(
                "There is no home folder for models; name one: --data-dir"
            ) from None
    return base / "wyoming-whisper"


@dataclass(frozen=True)
class Settings:
    """What the user said. Flags are the fields' names with dashes, variables with PREFIXES."""

    uri: str = _option(
        "tcp://0.0.0.0:10300",
        SERVER,
        "address to listen on: tcp://HOST:PORT, unix:///PATH or stdio://",
        _uri,
    )
    zeroconf: str | None = _option(
        None,
        SERVER,
        "announce the server in the local network, under NAME or a name of its own",
        _name_or_default,
        shape="maybe",
        metavar="NAME",
    )
    allow: tuple[str, ...] = _option(
        (),
        SERVER,
        "addresses and networks that may connect, besides this machine; without any, all may",
        _networks,
        metavar="LIST",
    )
    socket_mode: str | None = _option(
        None, SERVER, "who may use the unix socket, as chmod has it, such as 660", _socket_mode
    )
    max_connections: int = _option(
        64,
        SERVER,
        "connections at once; beyond them the one that was silent for longest is closed",
        Whole(1, 10_000),
        metavar="N",
    )
    max_utterance_seconds: int = _option(
        900,
        SERVER,
        "longest utterance, also of dictation, which is transcribed in pieces while it is spoken: "
        "what was said until then is transcribed, the rest is not heard",
        Whole(1, 3600),
        metavar="SECONDS",
    )
    max_queue: int = _option(
        32,
        SERVER,
        "transcriptions that may wait for their turn; further ones are refused",
        Whole(1, 10_000),
        metavar="N",
    )
    deadline: int = _option(
        120,
        SERVER,
        "an answer that is not there so long after the end of the audio is an error; a model that "
        "does not get on for twice that time (more for more than 10 s of audio, and on a slow "
        "machine) hangs, and the server starts again; 0 is never",
        SECONDS,
        metavar="SECONDS",
    )
    drain_seconds: int = _option(
        8,
        SERVER,
        "time to finish what is being said and transcribed when the server is stopped",
        SECONDS,
        metavar="SECONDS",
    )
    options: Path | None = _option(  # noqa: RUF009  (a field, no call's result)
        None,
        SERVER,
        "read options from this YAML or JSON file; flags and variables win over it",
        _path,
        metavar="FILE",
    )

    http_port: int = _option(
        0,
        WEB,
        "show a page with the server's state at this port, and /health and /metrics; 0 is none",
        _port,
        metavar="PORT",
    )
    http_allow: tuple[str, ...] = _option(
        (),
        WEB,
        "addresses and networks that may see the page, besides this machine; without any, all may",
        _networks,
        metavar="LIST",
    )
    http_names: tuple[str, ...] = _option(
        (),
        WEB,
        "domain names under which the page may be opened, besides addresses and local names",
        _host_names,
        metavar="LIST",
    )
    http_text: bool = _flag(WEB, "show on the page what was said last; it stays in memory")
    openai_api: bool = _flag(
        WEB,
        "answer at --http-port as OpenAI's API does (/v1/audio/transcriptions), for other "
        "programs; --allow says whose",
    )
    openai_key: str | None = field(
        default=None,
        repr=False,
        metadata={
            "option": Option(
                WEB,
                "key that programs must send to use --openai-api; without one they need none",
                _optional_text,
                flag=False,
                secret=True,
            )
        },
    )
    openai_origins: tuple[str, ...] = _option(
        (),
        WEB,
        "web pages and apps that may use --openai-api from a browser, such as "
        "https://notes.example or app://obsidian.md; * is any page",
        _origins,
        metavar="LIST",
    )

    model: str = _option(
        "auto",
        MODEL,
        "name (tiny, base-int8, small.en, ...), Hugging Face repository, or folder; "
        "auto chooses for this machine",
        _model,
    )
    language: str = _option("auto", MODEL, "spoken language where the client names none")
    languages: tuple[str, ...] = _option(
        (),
        MODEL,
        "languages spoken in this home, such as en,de: where one has to be detected, it is one of "
        "these",
        _languages,
        metavar="LIST",
    )
    ignore_client_language: bool = _flag(
        MODEL,
        "use --language, or detect one, whatever language a client asks for; Home Assistant always "
        "asks for its assistant's",
    )
    prefer_recent_languages: bool = _option(
        True,
        MODEL,
        "where a language has to be detected and that is uncertain, prefer those that were surely "
        "heard lately",
        _switch,
        shape="switch",
    )
    data_dir: tuple[Path, ...] = field(
        default_factory=lambda: (default_data_dir(os.environ),),
        metadata={
            "option": Option(
                MODEL,
                "folder to look for models in; may be given several times "
                "(default: ~/.local/share/wyoming-whisper)",
                _paths,
                shape="repeat",
                metavar="DIR",
            )
        },
    )
    download_dir: Path | None = _option(  # noqa: RUF009
        None, MODEL, "folder to download models to (default: the first data folder)", _path
    )
    local_files_only: bool = _flag(MODEL, "never download a model")
    hf_token: str | None = field(
        default=None,
        repr=False,
        metadata={
            "option": Option(
                MODEL, "token for private models", _optional_text, flag=False, secret=True
            )
        },
    )
    stt_library: str = _option(
        "auto",
        MODEL,
        "for command lines of the official server; other libraries are not in this one",
        _stt_library,
        choices=_OUR_LIBRARIES,
    )

    upstreams: tuple[str, ...] = _option(
        (),
        UPSTREAMS,
        "servers that are asked first, in this order: tcp://HOST:PORT (Wyoming) or https://HOST/v1 "
        "(like OpenAI's); the model here answers when they don't",
        _upstreams,
        metavar="LIST",
    )
    upstream_key: str | None = field(
        default=None,
        repr=False,
        metadata={
            "option": Option(
                UPSTREAMS,
                "key of the one upstream that names none by ?key_file=FILE or ?key_variable=NAME",
                _optional_text,
                flag=False,
                secret=True,
            )
        },
    )
    upstream_hedge: float = _option(
        1.0,
        UPSTREAMS,
        "an upstream that has not answered so long after the end of the audio is not waited for "
        "alone: the next one is asked as well",
        Decimal(0, 60, "seconds"),
        metavar="SECONDS",
    )

    backend: str = _option(
        "auto",
        SPEED,
        "what runs the model; auto is tensorrt where an NVIDIA GPU and TensorRT are there, else "
        "faster-whisper or onnxruntime, whichever is faster on this processor; tensorrt-llm is for "
        "large GPUs that many share (docs/engines.md); ray is replicas on other machines "
        "(docs/scaling.md); none is no model here, only --upstreams",
        choices=(
            *("auto", "faster-whisper", "onnxruntime", "tensorrt"),
            *("tensorrt-llm", "ray", "none"),
        ),
    )
    ray_address: str = _option(
        "auto",
        SPEED,
        "the Ray cluster of --backend ray: HOST:PORT of its first machine; auto is the one that "
        "this machine is in",
        _ray_address,
        metavar="ADDRESS",
    )
    strict_backend: bool = _flag(
        SPEED,
        "end with an error where --backend tensorrt or tensorrt-llm is not possible, rather than "
        "use the CPU",
    )
    device: str = _option("auto", SPEED, "where the model runs: auto, cpu, cuda or cuda:N", _device)
    compute_type: str = _option(
        "default",
        SPEED,
        "arithmetic of the model; default is the best for the device",
        choices=COMPUTE_TYPES,
        metavar="TYPE",
    )
    max_cache_size: Size = _option(  # noqa: RUF009
        Size(8 * 10**9),
        SPEED,
        "room for built TensorRT engines, such as 8GB: those unused for longest are removed",
        _size,
        metavar="SIZE",
    )
    beam_size: int = _option(
        0,
        SPEED,
        "texts followed at once while decoding: more is slower; 0 chooses for this machine",
        BEAM_SIZE,
        metavar="N",
    )
    cpu_threads: int = _option(
        0,
        SPEED,
        "CPU threads of one transcription; 0 is what was measured to be fastest",
        CPU_THREADS,
        metavar="N",
    )
    eager: bool = _option(
        True,
        SPEED,
        "begin when speech pauses, so that the answer is there when the audio ends; costs more "
        "processor time where speakers hesitate",
        _switch,
        shape="switch",
    )
    live_text: bool = _flag(
        SPEED,
        "send words while they are spoken, once two transcriptions in a row agree on them; takes "
        "up to half of the model's time while somebody speaks, and Home Assistant does not show "
        "them yet",
    )
    idle_unload: int = _option(
        0,
        SPEED,
        "free the model's memory after so many seconds without work; it is loaded again while the "
        "next speaker is speaking; 0 is never",
        SECONDS,
        metavar="SECONDS",
    )
    audio_context: str = _option(
        "auto",
        SPEED,
        "how much audio the encoder sees: auto fits the window to the speech, with a margin for "
        "models that were trained on 30 s; full is always 30 s; a number is the least seconds",
        _audio_context,
        metavar="auto|full|SECONDS",
    )

    initial_prompt: str | None = _option(
        None, TEXT, "text that precedes every command, to set style and words", _optional_text
    )
    whisper_task: str = _option(
        "transcribe",
        TEXT,
        "write what was said, or translate it to English",
        choices=("transcribe", "translate"),
    )

    strip_punctuation: bool = _option(
        True,
        TEXT,
        "leave out quotation marks, and punctuation at the ends of the text: Home Assistant's "
        "sentences have none",
        _switch,
        shape="switch",
    )
    hass_wording: bool = _option(
        True,
        TEXT,
        "word commands as Home Assistant's sentences are: without 'uh' at the start, with "
        "'30 minutes' for '½ hour'",
        _switch,
        shape="switch",
    )
    lowercase: bool = _flag(TEXT, "write everything in small letters")
    replace: tuple[Replacement, ...] = _option(
        (),
        TEXT,
        "write TO wherever FROM would be written, whole words; an empty TO drops them, @FILE is a "
        "file with a line for each; may be given several times",
        _replacements,
        shape="lines",
        metavar="FROM=TO",
    )

    bias_names: bool = _option(
        True,
        NAMES,
        "compare what was heard with the names of the home, and write the name where it was "
        "misheard",
        _switch,
        shape="switch",
    )
    names: tuple[str, ...] = _option(
        (),
        NAMES,
        "names that are spoken of in this home, separated by commas; those that Home Assistant "
        "knows need not be among them",
        _names,
        metavar="LIST",
    )
    hass_api: str = _option(
        "http://homeassistant.local:8123/api",
        NAMES,
        "Home Assistant, which is asked for names where there is a --hass-token; the app "
        "(add-on) needs neither",
        _home_assistant,
        metavar="URL",
    )
    hass_token: str | None = field(
        default=None,
        repr=False,
        metadata={
            "option": Option(
                NAMES,
                "long-lived access token of an administrator of Home Assistant; better in the "
                "variable WYOMING_WHISPER_HASS_TOKEN or a file, since others can see a command "
                "line",
                _optional_text,
                secret=True,
            )
        },
    )

    vad_filter: bool = _flag(SILENCE, "cut out what is not speech before transcribing")
    vad_threshold: float = _option(
        0.5, SILENCE, "probability from which --vad-filter hears speech", PROBABILITY, metavar="P"
    )
    vad_min_speech_ms: int = _option(
        250, SILENCE, "shortest speech that --vad-filter keeps", MILLISECONDS, metavar="MS"
    )
    vad_min_silence_ms: int = _option(
        2000, SILENCE, "shortest silence that --vad-filter cuts out", MILLISECONDS, metavar="MS"
    )
    vad_clip: tuple[str, ...] | None = _option(
        None,
        SILENCE,
        "cut silence off both ends before transcribing; the official server's names of libraries "
        "may follow, of which faster-whisper counts here",
        _clipped_libraries,
        shape="words",
        metavar="LIBRARY",
    )
    vad_clip_threshold: float = _option(
        0.5, SILENCE, "probability from which --vad-clip hears speech", PROBABILITY, metavar="P"
    )
    vad_clip_pad_ms: int = _option(
        400, SILENCE, "what --vad-clip leaves around speech", MILLISECONDS, metavar="MS"
    )

    endpointing: str = _option(
        "off",
        ENDING,
        "end a command after so much silence, and answer before the client says that it has ended; "
        "auto waits for less silence where the text sounds finished, for more where it doesn't",
        _endpointing,
        metavar="off|SECONDS|auto",
    )
    no_speech_timeout: int = _option(
        8,
        ENDING,
        "--endpointing: if nobody has spoken until then, nobody will",
        Whole(1, 3600),
        metavar="SECONDS",
    )
    max_command_seconds: int = _option(
        15,
        ENDING,
        "--endpointing: longest command, from its first word",
        Whole(1, 3600),
        metavar="SECONDS",
    )
    requires_external_vad: bool = _option(
        True,
        ENDING,
        "have Home Assistant end commands too; off leaves it to --endpointing alone, and "
        "satellites then go on listening until the answer is there (docs/protocol.md)",
        _switch,
        shape="switch",
    )
    prefers_auto_gain: bool = _option(
        True,
        SILENCE,
        "tell Home Assistant that audio with automatic gain is preferred",
        _switch,
        shape="switch",
    )
    prefers_noise_reduction: bool = _option(
        True,
        SILENCE,
        "tell Home Assistant that audio without noise is preferred; with both off, satellites with "
        "two channels send the unprocessed one",
        _switch,
        shape="switch",
    )

    debug: bool = _flag(LOGGING, "log more")
    log_format: str = _option(
        logging.BASIC_FORMAT, LOGGING, "format of log lines", _log_format, metavar="FORMAT"
    )

    @property
    def model_name(self) -> str:
        """The model's name for others to see; of a folder only the last part."""
        is_folder = self.model.startswith(("/", ".", "~"))
        return Path(self.model).name if is_folder else self.model

    @property
    def clips_speech(self) -> bool:
        """Whether silence is cut off both ends."""
        return self.vad_clip is not None and (
            not self.vad_clip or "faster-whisper" in self.vad_clip
        )


OPTIONS: Mapping[str, Option] = {f.name: f.metadata["option"] for f in dataclasses.fields(Settings)}
"""Every option there is, by the name of its field."""


def _known_but_absent(reason: str, shape: Shape = "one", flag: bool = True) -> Option:
    return Option("", "", _absent(reason), shape, flag=flag, hidden=True, secret=True)


_NO_SHERPA = "this server runs Whisper with faster-whisper, not with sherpa"

_ABSENT: Mapping[str, Option] = {
    "sherpa_streaming": _known_but_absent(_NO_SHERPA, "switch"),
    # Home Assistant tells of changes here, nothing waits for it, and names are not put into the
    # prompt: these need no choice.
    "hass_refresh_seconds": Option("", "", _number, hidden=True),
    "hass_prompt_max_tokens": Option("", "", _number, hidden=True),
    "hass_prompt_timeout": Option("", "", _number, hidden=True),
}
"""The official server's options that this one hasn't: without effect, or an error when used."""

_ALIASES: Mapping[str, Option] = {"vad_endpointing": Option("", "", _wait, hidden=True)}
"""The official server's options that are others here."""

_KNOWN = {**OPTIONS, **_ABSENT, **_ALIASES}

_ADDON_KEYS = ("debug_logging", "custom_model", "custom_model_type")
"""Keys of the official add-on that are no option of either server."""


RETIRED_MODEL = "home-en"
"""A model that came with earlier versions, and that options saved then may name."""

ABOUT_RETIRED = f"{RETIRED_MODEL} is gone from this program: it understood synthetic voices alone"

# -- sources -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """A value and where it came from, for messages."""

    raw: Raw
    origin: str


def load_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings of `wyoming-whisper [serve] ARGV`.

    Raises SettingsError for what is unknown, ill-typed or unreadable.
    """
    return settings_from(vars(OptionParser("wyoming-whisper").parse(argv)), environ)


def settings_from(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings for parsed flags (an OptionParser's), variables and the options file.

    What is no option among `flags` is passed over. An overridden value is not looked at.
    Raises SettingsError.
    """
    given = _from_environment(environ) | _from_flags(flags)
    if "options" in given:
        given = _from_file(cast("Path", _read("options", given["options"]))) | given
    elif SUPERVISOR_TOKEN in environ:
        given = _from_addon() | given
    values: dict[str, Any] = {name: _read(name, found) for name, found in given.items()}
    if seconds := values.pop("vad_endpointing", None):
        # The official server then tells Home Assistant not to end commands itself.
        values = {"endpointing": f"{seconds:g}", "requires_external_vad": False} | values
    if values.get("model") == RETIRED_MODEL:
        _LOGGER.warning(
            "%s: %s; auto chooses a model instead; set it to auto, or to what `models list` shows",
            *(given["model"].origin, ABOUT_RETIRED),
        )
        values["model"] = "auto"
    if "data_dir" not in values:
        values["data_dir"] = (default_data_dir(environ),)
    return Settings(**{name: value for name, value in values.items() if name in OPTIONS})


def _read(name: str, given: _Given) -> object:
    option = _KNOWN[name]
    try:
        return option.read(given.raw)
    except ValueError as error:
        state = "set" if option.secret else _shown(given.raw)
        raise SettingsError(f"{given.origin} is {state}, but {error}") from None


def _from_flags(flags: Mapping[str, Any]) -> dict[str, _Given]:
    return {
        name: _Given(flags[name], flag_name(name)) for name in _KNOWN if flags.get(name) is not None
    }


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for prefix in PREFIXES:  # the later one wins
        for name, option in _KNOWN.items():
            found = _from_variable(prefix + name.upper(), option, environ)
            if found is not None:
                given[name] = found
    _warn_of_unknown_variables(environ)
    return given


def _from_variable(variable: str, option: Option, environ: Mapping[str, str]) -> _Given | None:
    text, origin = environ.get(variable), variable
    file = environ.get(variable + FILE_SUFFIX)
    if file and option.shape == "lines":
        return _Given([f"@{file}"], f"{variable}{FILE_SUFFIX}")
    if file:
        origin = f"{variable}{FILE_SUFFIX} ({file})"
        text = _read_text(Path(file), origin)
    if text is None or (not text.strip() and option.shape in ("one", "repeat", "lines")):
        return None
    if option.shape == "repeat":  # paths, where blanks and commas are letters
        return _Given([item for item in text.split(os.pathsep) if item.strip()], origin)
    return _Given(text.strip(), origin)


def _warn_of_unknown_variables(environ: Mapping[str, str]) -> None:
    # A misspelled variable would go unnoticed: the default stays.
    for variable in sorted(environ):
        for prefix in PREFIXES:
            name = variable.removeprefix(prefix)
            if name == variable or name.removesuffix(FILE_SUFFIX).lower() in _KNOWN:
                continue
            known = [prefix + option.upper() for option in OPTIONS]
            hint = _did_you_mean(variable, known)
            _LOGGER.warning("The variable %s is no option and does nothing%s", variable, hint)


def _from_addon() -> dict[str, _Given]:
    given = {name: _Given(raw, "the app (add-on)") for name, raw in ADDON_DEFAULTS.items()}
    if ADDON_OPTIONS.exists():
        given |= _from_file(ADDON_OPTIONS, of_addon=True)
    return given


def _from_file(path: Path, *, of_addon: bool = False) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    known = {*_KNOWN, *_ADDON_KEYS} - {"options"}
    for key, raw in _parse_options(path).items():
        origin = f"{key} in {path}"
        if key not in known and of_addon:
            # Misspelt it can't be, the Supervisor knows the manifest: it is of another version.
            _LOGGER.warning("%s is not an option of this version and does nothing", origin)
            continue
        if key not in known:
            raise SettingsError(f"{origin} is not an option{_did_you_mean(key, known)}")
        if raw is None or (raw == "" and key not in ("zeroconf", "vad_clip")):
            continue
        if not _is_raw(raw):
            raise SettingsError(f"{origin} must be one value or a list")
        given[key] = _Given(raw, origin)
    return _without_addon_keys(given)


def _parse_options(path: Path) -> Mapping[Any, Any]:
    """Return the file's keys and values, numbers as text; raises SettingsError."""
    text = _read_text(path, "The options file")
    try:
        content = _from_json(text) if path.suffix == ".json" else _from_yaml(text)
    except ValueError as error:
        raise SettingsError(f"The options file {path} can't be understood: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise SettingsError(f"The options file {path} must hold lines of the form NAME: VALUE")
    return content


def _from_json(text: str) -> object:
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)


def _from_yaml(text: str) -> object:
    """Return the content with every scalar but null as text: `language: no` is Norwegian."""
    import yaml  # not needed by those who give flags only

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012  (yaml's own attribute)
            first: [(tag, regexp) for tag, regexp in resolvers if tag == "tag:yaml.org,2002:null"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return cast("object", yaml.load(text, Loader))  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        # Not str(error), which quotes the line: a token may stand there.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"line {line}: {error.problem}") from None
    except yaml.YAMLError:
        raise ValueError("it has characters that are not text") from None


def _is_raw(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str | bool)


def _without_addon_keys(given: dict[str, _Given]) -> dict[str, _Given]:
    """Return the options with the official add-on's spellings translated to ours."""
    debug, custom, library = (given.pop(key, None) for key in _ADDON_KEYS)
    if debug is not None:
        given.setdefault("debug", debug)
    model = given.get("model")
    if model is not None and model.raw == "custom":
        if custom is None or custom.raw == "null":
            raise SettingsError(f"{model.origin} is 'custom', but custom_model names no model")
        given["model"] = custom
        if library is not None:
            given["stt_library"] = library
    return given


def _read_text(path: Path, origin: str) -> str:
    try:
        return read_text_file(path)
    except ValueError as error:
        raise SettingsError(f"{origin}: {error}") from None


# -- flags ---------------------------------------------------------------------------------


def flag_name(name: str) -> str:
    """Return the flag of a field: "--beam-size" for "beam_size"."""
    return "--" + name.replace("_", "-")


_ARGPARSE: Mapping[Shape, Mapping[str, Any]] = {
    "one": {},
    "switch": {"action": argparse.BooleanOptionalAction},
    "maybe": {"nargs": "?", "const": ""},
    "repeat": {"action": "append"},
    "lines": {"action": "append"},
    "words": {"nargs": "*"},
}


_EPILOG = """\
Every option is also an environment variable, and a line of the options file. For --beam-size 5:
  WYOMING_WHISPER_BEAM_SIZE=5, or WYOMING_WHISPER_BEAM_SIZE_FILE=FILE for a file that holds it;
  beam_size: 5
A flag wins over a variable, a variable over the options file. The official server's variables
(WYO_WHISPER_...) and the options of its add-on are understood too."""


class OptionParser(argparse.ArgumentParser):
    """Flags for some options, or all of them; what is wrong on a command line is a SettingsError.

    Values stay raw: settings_from() reads them, so that all sources are read alike.
    """

    def __init__(
        self,
        prog: str,
        description: str = "",
        options: Collection[str] = tuple(_KNOWN),
        arguments: str = "[flags]",
    ) -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} {arguments}",
            description=description,
            epilog=_EPILOG,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--version", action="version", version=f"wyoming-whisper {__version__}")
        groups: dict[str, Any] = {}
        for name in options:
            option = _KNOWN[name]
            if option.flag:
                if option.group not in groups:
                    groups[option.group] = self.add_argument_group(option.group)
                group = groups[option.group]
                group.add_argument(
                    flag_name(name), default=None, **_argparse_keywords(name, option)
                )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the flags, None for those not given; raises SettingsError.

        --help and --version print and raise SystemExit.
        """
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            raise SettingsError(self._about_unknown(unknown))
        return arguments

    def error(self, message: str) -> NoReturn:
        """Raise instead of argparse's usage text and exit."""
        raise SettingsError(f"{message.removeprefix('argument ')} ({self.prog} --help tells more)")

    def _about_unknown(self, unknown: Sequence[str]) -> str:
        word = next((word for word in unknown if word.startswith("-")), unknown[0]).split("=")[0]
        name = word.removeprefix("--").replace("-", "_")
        if name in OPTIONS and not OPTIONS[name].flag:
            return f"{word} is not a flag, as others can see it: set {PREFIXES[-1]}{name.upper()}"
        if not word.startswith("-"):
            return f"{word!r} doesn't belong here ({self.prog} --help tells more)"
        flags = [flag for action in self._actions for flag in action.option_strings]
        return f"{word} is not an option{_did_you_mean(word, flags) or f' of {self.prog}'}"


def _argparse_keywords(name: str, option: Option) -> dict[str, Any]:
    keywords = dict(_ARGPARSE[option.shape])
    if option.shape != "switch":
        names = "|".join(option.choices)
        keywords["metavar"] = option.metavar or names or name.rpartition("_")[2].upper()
    keywords["help"] = argparse.SUPPRESS if option.hidden else _help(name, option)
    return keywords


def _help(name: str, option: Option) -> str:
    default = getattr(Settings, name, None)  # no class attribute where a factory makes it
    text = option.help
    if option.metavar == "TYPE":
        text += f": {', '.join(option.choices)}"
    if default is not None and default != () and not isinstance(default, bool):
        text += f" (default: {default})"
    return text.replace("%", "%%")


# -- messages ------------------------------------------------------------------------------

_SHOWN_LENGTH = 80


def _shown(raw: object) -> str:
    text = "on" if raw is True else "off" if raw is False else repr(raw)
    return text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "..."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _did_you_mean(word: object, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(str(word), sorted(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
