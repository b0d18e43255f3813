"""Options of the server itself: where it listens, its page, its model, other servers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import SplitResult

from ..errors import SettingsError
from ..models.stock import without_address
from ..whisper.tokenizer import LANGUAGES, language_code
from .option import Decimal, Items, Option, Raw, Switch, Text, Whole
from .upstreams import Upstream


def _uri(raw: Raw) -> str:
    def is_valid(parts: SplitResult) -> bool:
        if parts.scheme == "tcp":
            return bool(parts.hostname) and parts.port is not None
        return parts.scheme == "unix" and not parts.netloc and len(parts.path) > 1

    about = "it must be tcp://HOST:PORT, unix:///PATH or stdio://"
    return raw if raw == "stdio://" else Text(about, is_address=is_valid)(raw)


def _name(raw: Raw) -> str | None:
    """Return the name to announce, "" for the server's own, None for no announcement."""
    try:
        return "" if raw == "" or Switch()(raw) else None
    except ValueError:
        return Text()(raw)


def _network(item: str) -> str:
    try:
        return str(ip_network(item, strict=False))
    except ValueError as error:
        raise ValueError(
            f"it must be addresses or networks such as 192.168.1.0/24 ({error})"
        ) from None


def _folders(raw: Raw) -> tuple[Path, ...]:
    paths = tuple(Text().path(item) for item in (raw if isinstance(raw, list) else [raw]))
    if not paths:
        raise ValueError("it must name at least one folder")
    return paths


def _host_name(item: str) -> str:
    about = "it must be names such as whisper.example.org"
    return Text(about, r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")(item.lower())


def _origin(item: str) -> str:
    if item.lower() == "null":
        raise ValueError(
            "null is what any sandboxed frame or local file is: it must be origins such as "
            "https://notes.example, or * for any page"
        )
    about = "it must be origins such as https://notes.example or app://obsidian.md"
    return Text(about, r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s]*")(item.lower())


def _model(raw: Raw) -> str:
    about = "it must be auto, a model's name such as base, a repository or a folder"
    name = without_address(Text(about)(raw))
    return name.lower() if name.lower() == "auto" else name


def _language(item: str) -> str:
    code = language_code(item)
    if code is None:
        raise ValueError(f"Whisper doesn't know {item!r}; it must be codes such as en,de")
    return code


def _upstream(item: str) -> str:
    Upstream.read(item)
    return item


@dataclass(frozen=True)
class ServerSettings:
    """The part of Settings that is not about speech."""

    uri: str = Option.field(
        "tcp://0.0.0.0:10300",
        "server",
        "address to listen on: tcp://HOST:PORT, unix:///PATH or stdio://",
        _uri,
    )
    zeroconf: str | None = Option.field(
        None,
        "server",
        "announce the server in the local network, under NAME or a name of its own",
        _name,
        shape="maybe",
        metavar="NAME",
    )
    allow: tuple[str, ...] = Option.field(
        (),
        "server",
        "addresses and networks that may connect, besides this machine; without any, all may",
        Items(_network),
        metavar="LIST",
    )
    socket_mode: str | None = Option.field(
        None,
        "server",
        "who may use the unix socket, as chmod has it, such as 660",
        Text("it must be a mode as chmod has it, such as 660", "0?[0-7]{3}").optional,
        rare=True,
    )
    max_connections: int = Option.field(
        64,
        "server",
        "connections at once; beyond them the one that was silent for longest is closed",
        Whole(1, 10_000),
        metavar="N",
        rare=True,
    )
    max_utterance_seconds: int = Option.field(
        900,
        "server",
        "longest utterance, also of dictation, which is transcribed in pieces while it is spoken: "
        "what was said until then is transcribed, the rest is not heard",
        Whole(1, 3600),
        metavar="SECONDS",
        rare=True,
    )
    max_queue: int = Option.field(
        32,
        "server",
        "transcriptions that may wait for their turn; further ones are refused",
        Whole(1, 10_000),
        metavar="N",
        rare=True,
    )
    deadline: int = Option.field(
        120,
        "server",
        "an answer that is not there so long after the end of the audio is an error; a model that "
        "does not get on for twice that time (more for more than 10 s of audio, and on a slow "
        "machine) hangs, and the server starts again; 0 is never",
        Whole(),
        metavar="SECONDS",
        rare=True,
    )
    drain_seconds: int = Option.field(
        8,
        "server",
        "time to finish what is being said and transcribed when the server is stopped",
        Whole(),
        metavar="SECONDS",
        rare=True,
    )
    options: Path | None = Option.field(  # noqa: RUF009  (a field, no call's result)
        None,
        "server",
        "read options from this YAML or JSON file; flags and variables win over it",
        Text().path,
        metavar="FILE",
    )

    http_port: int = Option.field(
        0,
        "web page",
        "show a page with the server's state at this port, and /health and /metrics; 0 is none",
        Whole(0, 65535, "it must be a port from 1 to 65535, or 0 for none"),
        metavar="PORT",
    )
    http_allow: tuple[str, ...] = Option.field(
        (),
        "web page",
        "addresses and networks that may see the page, besides this machine; without any, all may",
        Items(_network),
        metavar="LIST",
        rare=True,
    )
    http_names: tuple[str, ...] = Option.field(
        (),
        "web page",
        "domain names under which the page may be opened, besides addresses and local names",
        Items(_host_name),
        metavar="LIST",
        rare=True,
    )
    http_text: bool = Option.switch(
        False, "web page", "show on the page what was said last; it stays in memory"
    )
    openai_api: bool = Option.switch(
        False,
        "web page",
        "answer at --http-port as OpenAI's API does (/v1/audio/transcriptions), for other "
        "programs; --allow says whose",
    )
    openai_key: str | None = Option.field(
        None,
        "web page",
        "key that programs must send to use --openai-api; without one they need none",
        Text().optional,
        secret=True,
    )
    openai_origins: tuple[str, ...] = Option.field(
        (),
        "web page",
        "web pages and apps that may use --openai-api from a browser, such as "
        "https://notes.example or app://obsidian.md; * is any page",
        Items(_origin),
        metavar="LIST",
    )

    model: str = Option.field(
        "auto",
        "model",
        "name (tiny, base-int8, small.en, ...), Hugging Face repository, or folder; "
        "auto chooses for this machine",
        _model,
    )
    language: str = Option.field(
        "auto", "model", "spoken language where the client names none", Text()
    )
    languages: tuple[str, ...] = Option.field(
        (),
        "model",
        "languages spoken in this home, such as en,de: where one has to be detected, it is one of "
        "these",
        Items(_language),
        metavar="LIST",
    )
    ignore_client_language: bool = Option.switch(
        False,
        "model",
        "use --language, or detect one, whatever language a client asks for; Home Assistant always "
        "asks for its assistant's",
    )
    prefer_recent_languages: bool = Option.switch(
        True,
        "model",
        "where a language has to be detected and that is uncertain, prefer those that were surely "
        "heard lately",
        rare=True,
    )
    data_dir: tuple[Path, ...] = field(
        default_factory=lambda: (ServerSettings.default_data_dir(os.environ),),
        metadata={
            "option": Option(
                _folders,
                "folder to look for models in; may be given several times "
                "(default: ~/.local/share/wyoming-whisper)",
                "model",
                shape="repeat",
                metavar="DIR",
            )
        },
    )
    download_dir: Path | None = Option.field(  # noqa: RUF009
        None,
        "model",
        "folder to download models to (default: the first data folder)",
        Text().path,
    )
    local_files_only: bool = Option.switch(False, "model", "never download a model")
    hf_token: str | None = Option.field(
        None, "model", "token for private models", Text().optional, secret=True
    )

    upstreams: tuple[str, ...] = Option.field(
        (),
        "upstreams",
        "servers that are asked first, in this order: tcp://HOST:PORT (Wyoming) or https://HOST/v1 "
        "(like OpenAI's); the model here answers when they don't",
        Items(_upstream),
        metavar="LIST",
    )
    upstream_key: str | None = Option.field(
        None,
        "upstreams",
        "key of the one upstream that names none by ?key_file=FILE or ?key_variable=NAME",
        Text().optional,
        secret=True,
        rare=True,
    )
    upstream_hedge: float = Option.field(
        1.0,
        "upstreams",
        "an upstream that has not answered so long after the end of the audio is not waited for "
        "alone: the next one is asked as well",
        Decimal(0, 60, "seconds"),
        metavar="SECONDS",
        rare=True,
    )

    @property
    def spoken_language(self) -> str | None:
        """Whisper's code for `language`, None for auto. Raises SettingsError for an unknown one."""
        if self.language == "auto":
            return None
        code = language_code(self.language)
        if code is None:
            raise SettingsError(
                f"--language {self.language} is not a language that Whisper knows; "
                f"choose auto, {', '.join(sorted(LANGUAGES))}"
            )
        return code

    @staticmethod
    def default_data_dir(environ: Mapping[str, str]) -> Path:
        """Return the user's folder for models. Raises SettingsError without a home folder."""
        base = Path(environ.get("XDG_DATA_HOME", ""))
        if not base.is_absolute():  # unset, or to be ignored by the XDG specification
            try:
                base = Path(environ.get("HOME") or Path.home()) / ".local" / "share"
            except RuntimeError:
                raise SettingsError(
                    "There is no home folder for models; name one: --data-dir"
                ) from None
        return base / "wyoming-whisper"
