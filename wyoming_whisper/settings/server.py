"""Options of the server itself: where it listens, its page, its model, other servers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SettingsError
from .bounds import SECONDS, Decimal, Whole
from .option import MODEL, SERVER, UPSTREAMS, WEB, Option, flag_field, option_field
from .readers import (
    OUR_LIBRARIES,
    as_host_names,
    as_languages,
    as_model,
    as_name_or_default,
    as_networks,
    as_optional_text,
    as_origins,
    as_path,
    as_paths,
    as_port,
    as_socket_mode,
    as_stt_library,
    as_switch,
    as_upstreams,
    as_uri,
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
class ServerSettings:
    """What of it is not about speech; see Settings. Flags are the fields' names with dashes,
    variables with PREFIXES.
    """

    uri: str = option_field(
        "tcp://0.0.0.0:10300",
        SERVER,
        "address to listen on: tcp://HOST:PORT, unix:///PATH or stdio://",
        as_uri,
    )
    zeroconf: str | None = option_field(
        None,
        SERVER,
        "announce the server in the local network, under NAME or a name of its own",
        as_name_or_default,
        shape="maybe",
        metavar="NAME",
    )
    allow: tuple[str, ...] = option_field(
        (),
        SERVER,
        "addresses and networks that may connect, besides this machine; without any, all may",
        as_networks,
        metavar="LIST",
    )
    socket_mode: str | None = option_field(
        None, SERVER, "who may use the unix socket, as chmod has it, such as 660", as_socket_mode
    )
    max_connections: int = option_field(
        64,
        SERVER,
        "connections at once; beyond them the one that was silent for longest is closed",
        Whole(1, 10_000),
        metavar="N",
    )
    max_utterance_seconds: int = option_field(
        900,
        SERVER,
        "longest utterance, also of dictation, which is transcribed in pieces while it is spoken: "
        "what was said until then is transcribed, the rest is not heard",
        Whole(1, 3600),
        metavar="SECONDS",
    )
    max_queue: int = option_field(
        32,
        SERVER,
        "transcriptions that may wait for their turn; further ones are refused",
        Whole(1, 10_000),
        metavar="N",
    )
    deadline: int = option_field(
        120,
        SERVER,
        "an answer that is not there so long after the end of the audio is an error; a model that "
        "does not get on for twice that time (more for more than 10 s of audio, and on a slow "
        "machine) hangs, and the server starts again; 0 is never",
        SECONDS,
        metavar="SECONDS",
    )
    drain_seconds: int = option_field(
        8,
        SERVER,
        "time to finish what is being said and transcribed when the server is stopped",
        SECONDS,
        metavar="SECONDS",
    )
    options: Path | None = option_field(  # noqa: RUF009  (a field, no call's result)
        None,
        SERVER,
        "read options from this YAML or JSON file; flags and variables win over it",
        as_path,
        metavar="FILE",
    )

    http_port: int = option_field(
        0,
        WEB,
        "show a page with the server's state at this port, and /health and /metrics; 0 is none",
        as_port,
        metavar="PORT",
    )
    http_allow: tuple[str, ...] = option_field(
        (),
        WEB,
        "addresses and networks that may see the page, besides this machine; without any, all may",
        as_networks,
        metavar="LIST",
    )
    http_names: tuple[str, ...] = option_field(
        (),
        WEB,
        "domain names under which the page may be opened, besides addresses and local names",
        as_host_names,
        metavar="LIST",
    )
    http_text: bool = flag_field(WEB, "show on the page what was said last; it stays in memory")
    openai_api: bool = flag_field(
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
                as_optional_text,
                flag=False,
                secret=True,
            )
        },
    )
    openai_origins: tuple[str, ...] = option_field(
        (),
        WEB,
        "web pages and apps that may use --openai-api from a browser, such as "
        "https://notes.example or app://obsidian.md; * is any page",
        as_origins,
        metavar="LIST",
    )

    model: str = option_field(
        "auto",
        MODEL,
        "name (tiny, base-int8, small.en, ...), Hugging Face repository, or folder; "
        "auto chooses for this machine",
        as_model,
    )
    language: str = option_field("auto", MODEL, "spoken language where the client names none")
    languages: tuple[str, ...] = option_field(
        (),
        MODEL,
        "languages spoken in this home, such as en,de: where one has to be detected, it is one of "
        "these",
        as_languages,
        metavar="LIST",
    )
    ignore_client_language: bool = flag_field(
        MODEL,
        "use --language, or detect one, whatever language a client asks for; Home Assistant always "
        "asks for its assistant's",
    )
    prefer_recent_languages: bool = option_field(
        True,
        MODEL,
        "where a language has to be detected and that is uncertain, prefer those that were surely "
        "heard lately",
        as_switch,
        shape="switch",
    )
    data_dir: tuple[Path, ...] = field(
        default_factory=lambda: (default_data_dir(os.environ),),
        metadata={
            "option": Option(
                MODEL,
                "folder to look for models in; may be given several times "
                "(default: ~/.local/share/wyoming-whisper)",
                as_paths,
                shape="repeat",
                metavar="DIR",
            )
        },
    )
    download_dir: Path | None = option_field(  # noqa: RUF009
        None, MODEL, "folder to download models to (default: the first data folder)", as_path
    )
    local_files_only: bool = flag_field(MODEL, "never download a model")
    hf_token: str | None = field(
        default=None,
        repr=False,
        metadata={
            "option": Option(
                MODEL, "token for private models", as_optional_text, flag=False, secret=True
            )
        },
    )
    stt_library: str = option_field(
        "auto",
        MODEL,
        "for command lines of the official server; other libraries are not in this one",
        as_stt_library,
        choices=OUR_LIBRARIES,
    )

    upstreams: tuple[str, ...] = option_field(
        (),
        UPSTREAMS,
        "servers that are asked first, in this order: tcp://HOST:PORT (Wyoming) or https://HOST/v1 "
        "(like OpenAI's); the model here answers when they don't",
        as_upstreams,
        metavar="LIST",
    )
    upstream_key: str | None = field(
        default=None,
        repr=False,
        metadata={
            "option": Option(
                UPSTREAMS,
                "key of the one upstream that names none by ?key_file=FILE or ?key_variable=NAME",
                as_optional_text,
                flag=False,
                secret=True,
            )
        },
    )
    upstream_hedge: float = option_field(
        1.0,
        UPSTREAMS,
        "an upstream that has not answered so long after the end of the audio is not waited for "
        "alone: the next one is asked as well",
        Decimal(0, 60, "seconds"),
        metavar="SECONDS",
    )
