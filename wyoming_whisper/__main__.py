"""The commands: serve (the default), transcribe, models, engine, ray, health.

What a command needs is imported when it runs, so that --help and mistakes are answered at once.
stdout carries a command's answer, or the protocol with stdio://; everything else goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .errors import (
    ServerUnavailableError,
    SettingsError,
    TranscribeError,
    UnknownModelError,
    WyomingWhisperError,
)
from .settings.flags import OptionParser
from .settings.official import about_retired
from .settings.options import OPTIONS, Settings
from .settings.sources import settings_from

if TYPE_CHECKING:
    from pathlib import Path

    from wyoming.event import Event
    from wyoming.info import Info

    from .models.listing import ModelEntry
    from .models.stock import Layout
    from .transcriber import Samples, Transcription

PROG = "wyoming-whisper"


_COMMON = ("options", "debug", "log_format")
_MODELS = ("data_dir", "download_dir", "local_files_only", *_COMMON)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0, or 1 with one sentence on stderr."""
    # Exit status after Ctrl-C, as shells have it.
    interrupted = 130
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # here, where a closed pipe is still caught
    except WyomingWhisperError as error:
        _complain(error)
        return 1
    except KeyboardInterrupt:
        return interrupted
    except BrokenPipeError:  # `| head` has read enough
        # Python flushes again at exit; there it would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _run(argv: Sequence[str]) -> int:
    name, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else ("serve", argv)
    if name not in _COMMANDS:
        nearest = difflib.get_close_matches(name, _COMMANDS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(_COMMANDS)}"
        raise SettingsError(f"{name!r} is not a command; {hint}")
    try:
        return _COMMANDS[name](rest)
    except SystemExit as done:  # argparse after --help and --version
        return int(done.code or 0)


def _complain(error: WyomingWhisperError) -> None:
    print(f"{PROG}: {' '.join(str(error).split())}", file=sys.stderr)


def _start_logging(settings: Settings) -> None:
    level = logging.DEBUG if settings.debug else logging.INFO
    logging.basicConfig(level=level, format=settings.log_format, stream=sys.stderr)


# -- serve ---------------------------------------------------------------------------------

_ABOUT = """\
Speech-to-text server for Home Assistant: the Wyoming protocol in front of Whisper.

commands:
  serve                        answer Home Assistant (what is done when no command is named)
  transcribe FILE...           write what is said in audio files
  models list|download|remove|path
                               see and manage the models on this machine
  engine build|list|remove|export|selftest
                               TensorRT engines, for NVIDIA GPUs
  ray deploy|status|remove     replicas on many machines
  health                       ask a running server whether it works

wyoming-whisper COMMAND --help tells more about each. serve takes the flags below."""


def _serve(argv: Sequence[str]) -> int:
    parser = OptionParser(PROG, _ABOUT, arguments="[COMMAND] [flags]")
    settings = settings_from(vars(parser.parse(argv)), os.environ)
    _start_logging(settings)
    from .machine.process import is_in_native_code, leave
    from .serving.server import serve

    try:
        return serve(settings)
    except WyomingWhisperError as error:
        _complain(error)
    if is_in_native_code():
        leave(1)
    return 1


# -- transcribe ----------------------------------------------------------------------------


def _transcribe(argv: Sequence[str]) -> int:
    arguments = _transcribe_parser().parse(argv)
    settings = settings_from(vars(arguments), os.environ)
    _start_logging(settings)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    failed = False
    with _recogniser(arguments, settings) as recognise:
        for file in arguments.files:
            try:
                line = _transcribe_file(file, recognise, arguments)
            except WyomingWhisperError as error:  # the other files may do
                failed = True
                _complain(error)
            else:
                print(line, flush=True)
    return 1 if failed else 0


def _transcribe_parser() -> OptionParser:
    serving = (
        "uri",
        "zeroconf",
        "allow",
        "socket_mode",
        "max_connections",
        "max_utterance_seconds",
        "max_queue",
        "deadline",
        "drain_seconds",
        "http_port",
        "http_allow",
        "http_names",
        "http_text",
        "hass_api",
        "hass_token",
        "upstreams",
        "upstream_key",
        "upstream_hedge",
    )
    parser = OptionParser(
        f"{PROG} transcribe",
        "Write what is said in audio files, one line each.",
        [name for name in OPTIONS if name not in serving],
        "FILE... [flags]",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio or video; - is stdin")
    parser.add_argument("--json", action="store_true", help="one JSON object per file")
    parser.add_argument(
        "--uri",
        dest="server",
        metavar="URI",
        help="have a running server do it: tcp://HOST:PORT or unix:///PATH; of the flags below, "
        "only --language is sent to it",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="wait for a server (default: 60)",
    )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


@contextlib.contextmanager
def _recogniser(
    arguments: argparse.Namespace, settings: Settings
) -> Iterator[Callable[[Samples], Transcription]]:
    """Give what turns samples into text: a running server, or a model opened here."""
    from .utterance.service import configured_language

    language = configured_language(settings.language)
    if arguments.server:
        from .commands.client import transcribe_remote

        def ask(samples: Samples) -> Transcription:
            waiting = transcribe_remote(
                arguments.server, samples, language=language, timeout=arguments.timeout
            )
            return asyncio.run(waiting)

        yield ask
        return
    from .audio.speech import span_options, transcribe_speech
    from .audio.vad import SileroVad
    from .backends import open_transcriber
    from .home.index import NameIndex
    from .text.style import TextStyle
    from .transcriber import TranscribeOptions

    vad, spans = SileroVad(), span_options(settings)
    style = TextStyle.from_settings(settings)
    with contextlib.closing(open_transcriber(settings, build_missing=False)) as transcriber:
        home = NameIndex(settings.names) if settings.bias_names else None
        options = TranscribeOptions(language=language, home=home)
        yield lambda samples: transcribe_speech(samples, transcriber, options, vad, spans, style)


def _transcribe_file(
    file: str, recognise: Callable[[Samples], Transcription], arguments: argparse.Namespace
) -> str:
    from .commands.client import read_audio
    from .transcriber import transcription_to_dict

    samples = read_audio(file)
    try:
        transcription = recognise(samples)
    except WyomingWhisperError as error:
        raise TranscribeError(f"{file}: {error}") from error
    if arguments.json:
        told = transcription_to_dict(transcription)
        if arguments.server:  # a server doesn't tell more
            told = {key: told[key] for key in ("text", "language", "seconds", "stages")}
        return json.dumps({"file": file, **told}, ensure_ascii=False)
    return f"{file}: {transcription.text}" if len(arguments.files) > 1 else transcription.text


# -- models --------------------------------------------------------------------------------

_ABOUT_MODELS = """\
See and manage the models on this machine.

  list             what there is, and what can be downloaded
  download NAME    fetch a model, where it isn't here already
  remove NAME      delete a downloaded model
  path NAME        where a model's files are"""


def _models(argv: Sequence[str]) -> int:
    parser = OptionParser(
        f"{PROG} models", _ABOUT_MODELS, _MODELS, "list|download|remove|path [NAME] [flags]"
    )
    actions = ("list", "download", "remove", "path")
    parser.add_argument("action", choices=actions, metavar="ACTION", help="see above")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a model's name, as for --model")
    parser.add_argument("--json", action="store_true", help="list as one JSON array")
    parser.add_argument(
        "--layout",
        choices=("ctranslate2", "huggingface"),
        default="ctranslate2",
        help="the model's files for TensorRT-LLM are huggingface (default: ctranslate2)",
    )
    arguments = parser.parse(argv)
    if (arguments.action == "list") != (arguments.name is None):
        wanted = "takes no" if arguments.action == "list" else "needs a"
        raise SettingsError(f"models {arguments.action} {wanted} model's name")
    settings = settings_from(vars(arguments), os.environ)
    _start_logging(settings)
    if arguments.action == "list":
        print(_models_list(settings, as_json=arguments.json))
    else:
        print(_models_answer(arguments.action, arguments.name, settings, arguments.layout))
    return 0


def _models_list(settings: Settings, *, as_json: bool) -> str:
    from .models.listing import list_models

    entries = list_models(settings)
    return _as_json(entries) if as_json else _as_table(entries)


def _models_answer(action: str, name: str, settings: Settings, layout: Layout) -> str:
    from .models.find import ensure_model, find_model
    from .models.listing import remove_model
    from .models.stock import AUTO

    if about := about_retired(name):
        raise UnknownModelError(f"{about}; `models list` shows those that there are, such as base")
    if name.lower() == AUTO and action != "remove" and layout == "ctranslate2":
        return str(_auto(action, settings))
    if action == "download":
        return str(ensure_model(name, settings, layout=layout))
    if action == "remove":
        freed = remove_model(name, settings, layout)
        return f"{name} is removed, {_megabytes(freed)} are free"
    return str(find_model(name, settings, layout))


def _auto(action: str, settings: Settings) -> Path:
    """Return the folder of the model that auto is here, downloading it if that is the action."""
    from .backends.auto import gpu_of, model_of
    from .models.autopick import pick_model
    from .models.find import find_model
    from .models.stock import AUTO

    if action == "download":
        return model_of(replace(settings, model=AUTO))[1]
    return find_model(pick_model(settings, gpu_of(settings)), settings)


def _as_json(entries: Sequence[ModelEntry]) -> str:
    return json.dumps([_entry_to_dict(entry) for entry in entries], ensure_ascii=False, indent=2)


def _entry_to_dict(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "repo": entry.repo,
        "state": entry.state,
        "size_bytes": entry.size_bytes,
        "languages": entry.languages,
        "path": None if entry.path is None else str(entry.path),
        "problem": entry.problem or None,
    }


def _as_table(entries: Sequence[ModelEntry]) -> str:
    head = ("NAME", "STATE", "SIZE", "LANGUAGES")
    rows = [head, *((e.name, e.state, _megabytes(e.size_bytes), e.languages) for e in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    problems = [f"{entry.name} is broken: {entry.problem}" for entry in entries if entry.problem]
    return "\n".join(lines + problems)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


# -- health --------------------------------------------------------------------------------


def _health(argv: Sequence[str]) -> int:
    parser = OptionParser(
        f"{PROG} health",
        "Ask a running server whether it works. --uri is the address that it listens on. "
        "The exit code is 0 where commands are answered, or will be once the model is there.",
        ("uri", *_COMMON),
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=15.0,
        metavar="SECONDS",
        help="wait for the answer (default: 15)",
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: what runs, on which backend, and why"
    )
    arguments = parser.parse(argv)
    settings = settings_from(vars(arguments), os.environ)
    from .commands.client import describe_event

    described = asyncio.run(describe_event(settings.uri, arguments.timeout))
    answer = _server_state(settings.uri, *described)
    is_failure = answer["health"] == "unhealthy"
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
    elif is_failure:
        raise ServerUnavailableError(f"{settings.uri} is unhealthy: {answer['reason']}")
    else:
        print(_health_line(answer))
    return 1 if is_failure else 0


def _health_line(answer: Mapping[str, Any]) -> str:
    word = "ok" if answer["health"] == "healthy" else answer["health"]
    name = " ".join(answer[key] for key in ("program", "version") if answer[key])
    reason = f" ({answer['reason']})" if answer["reason"] else ""
    return f"{word}: {name}, model {answer['model'] or 'not loaded yet'}{reason}"


def _server_state(uri: str, info: Info, event: Event) -> dict[str, Any]:
    from .serving.info import ServingInfo

    if not info.asr:
        raise ServerUnavailableError(f"{uri} answers, but offers no speech-to-text")
    program = info.asr[0]
    model = program.models[0] if program.models else None
    serving = ServingInfo.beyond_wyoming(event)
    return {
        "uri": uri,
        "health": serving.get("health", "healthy"),  # who is not ours answers, and says no more
        "phase": serving.get("phase"),
        "reason": serving.get("reason") or "",
        "program": program.name,
        "version": program.version,
        "model": model.name if model else None,
        "languages": model.languages if model else [],
        "description": serving.get("description") or (model and model.description) or "",
        "backend": serving.get("backend"),
        "why": serving.get("why"),
    }


# -- engine --------------------------------------------------------------------------------


def _engine(argv: Sequence[str]) -> int:
    from .commands.engine import run

    return run(argv, _start_logging)


# -- ray -----------------------------------------------------------------------------------


def _ray(argv: Sequence[str]) -> int:
    from .commands.ray import run

    return run(argv, _start_logging)


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "serve": _serve,
    "transcribe": _transcribe,
    "models": _models,
    "engine": _engine,
    "ray": _ray,
    "health": _health,
}


if __name__ == "__main__":
    sys.exit(main())
