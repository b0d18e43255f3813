"""`wyoming-whisper transcribe ...`: write what is said in audio files."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence

from ..audio.speech import Speech
from ..audio.vad import SileroVad, SpanOptions
from ..backends import open_transcriber
from ..errors import TranscribeError, WyomingWhisperError
from ..grammar.service import HomeTexts
from ..home.index import NameIndex
from ..settings.options import OPTIONS, Settings
from ..text.style import TextStyle
from ..transcriber import Samples, TranscribeOptions, Transcription
from .client import read_audio, transcribe_remote
from .console import CommandParser, complain


def run(argv: Sequence[str]) -> int:
    """Write a line for each file; return the exit status, 1 where one failed."""
    arguments, settings = _parser().start(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    failed = False
    with _recogniser(arguments, settings) as recognise:
        for file in arguments.files:
            try:
                line = _transcribe_file(file, recognise, arguments)
            except WyomingWhisperError as error:  # the other files may do
                failed = True
                complain(error)
            else:
                print(line, flush=True)
    return 1 if failed else 0


def _parser() -> CommandParser:
    of_servers = ("server", "web page", "upstreams")
    parser = CommandParser(
        "transcribe",
        "Write what is said in audio files, one line each.",
        [
            name
            for name, option in OPTIONS.items()
            if option.group not in of_servers and name not in ("hass_api", "hass_token", "home")
        ],
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
    parser.add_timeout(60.0, "wait for a server")
    return parser


@contextlib.contextmanager
def _recogniser(
    arguments: argparse.Namespace, settings: Settings
) -> Iterator[Callable[[Samples], Transcription]]:
    """Give what turns samples into text: a running server, or a model opened here."""
    language = settings.spoken_language
    if arguments.server:

        def ask(samples: Samples) -> Transcription:
            waiting = transcribe_remote(
                arguments.server, samples, language=language, timeout=arguments.timeout
            )
            return asyncio.run(waiting)

        yield ask
        return
    vad, spans = SileroVad(), SpanOptions.of(settings)
    style = TextStyle.from_settings(settings)
    with contextlib.closing(open_transcriber(settings, build_missing=False)) as transcriber:
        home = HomeTexts(NameIndex(settings.names)) if settings.bias_names else None
        options = TranscribeOptions(language=language, home=home)

        def recognise(samples: Samples) -> Transcription:
            return Speech.whole(samples, vad, spans).transcribed(transcriber, options, style)

        yield recognise


def _transcribe_file(
    file: str, recognise: Callable[[Samples], Transcription], arguments: argparse.Namespace
) -> str:
    samples = read_audio(file)
    try:
        transcription = recognise(samples)
    except WyomingWhisperError as error:
        raise TranscribeError(f"{file}: {error}") from error
    if arguments.json:
        fields = transcription.to_dict()
        if arguments.server:  # a server doesn't tell more
            fields = {key: fields[key] for key in ("text", "language", "seconds", "stages")}
        return json.dumps({"file": file, **fields}, ensure_ascii=False)
    return f"{file}: {transcription.text}" if len(arguments.files) > 1 else transcription.text
