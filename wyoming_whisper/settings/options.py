"""Every option of the server, once: name, default, how it is read, and what it is for.

`Settings` is what all of them come to; where they come from is in sources.py.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult

from ..text.replacements import Replacements
from .option import (
    Choice,
    Decimal,
    Items,
    Option,
    Raw,
    Size,
    Switch,
    Text,
    Whole,
)
from .server import ServerSettings


def _ray_address(raw: Raw) -> str:
    def is_valid(parts: SplitResult) -> bool:
        return bool(parts.hostname and parts.port) and parts.netloc == text and "@" not in text

    text = Text()(raw)
    if text == "auto":
        return text
    about = "it must be auto, or HOST:PORT such as 192.168.1.20:6379"
    Text(about, is_address=is_valid)(f"//{text}")
    return text


def _audio_context(raw: Raw) -> str:
    if raw in ("auto", "full"):
        return str(raw)
    if isinstance(raw, str) and re.fullmatch(r"\d{1,2}(\.\d+)?", raw) and 1 <= float(raw) <= 30:
        return raw
    raise ValueError("it must be auto, full, or seconds from 1 to 30")


def _replacements(raw: Raw) -> Replacements:
    items = raw if isinstance(raw, list) else str(raw).splitlines()
    return Replacements.read([item for item in items if item.strip()])


def _is_home_assistant(parts: SplitResult) -> bool:
    return (
        parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname) and parts.port != 0
    )


def _clipping(raw: Raw) -> bool:
    """Return whether silence is cut off; the official server has libraries named, for which."""
    if isinstance(raw, bool):
        return raw
    text = raw if isinstance(raw, str) else " ".join(raw)
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if len(words) == 1 and words[0].lower() in Switch.ON + Switch.OFF:
        return Switch()(words[0])
    others = ("transformers", "sherpa", "onnx-asr", "funasr", "qwen3-asr")
    libraries = [Choice(("faster-whisper", *others))(word) for word in words]
    return not libraries or "faster-whisper" in libraries


def _endpointing(raw: Raw) -> str:
    shortest, longest = 0.1, 10.0
    if raw == "auto":
        return "auto"
    if Switch.is_off(raw):
        return "off"
    if isinstance(raw, str) and re.fullmatch(r"\d{1,2}(\.\d{1,6})?", raw):
        seconds = float(raw)
        if shortest <= seconds <= longest:
            return f"{seconds:g}"
    raise ValueError(
        f"it must be off, auto, or seconds of silence from {shortest:g} to {longest:g}"
    )


def _log_format(raw: Raw) -> str:
    text = Text()(raw)
    try:
        logging.Formatter(text).format(logging.makeLogRecord({}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"it must be a format of Python's logging ({error})") from None
    return text


@dataclass(frozen=True)
class Settings(ServerSettings):
    """What the user said."""

    backend: str = Option.field(
        "auto",
        "speed",
        "what runs the model; auto is tensorrt where an NVIDIA GPU and TensorRT are there, else "
        "faster-whisper or onnxruntime, whichever is faster on this processor; tensorrt-llm is for "
        "large GPUs that many share (docs/engines.md); ray is replicas on other machines "
        "(docs/scaling.md); none is no model here, only --upstreams",
        Choice(
            ("auto", "faster-whisper", "onnxruntime", "tensorrt", "tensorrt-llm", "ray", "none")
        ),
    )
    ray_address: str = Option.field(
        "auto",
        "speed",
        "the Ray cluster of --backend ray: HOST:PORT of its first machine; auto is the one that "
        "this machine is in",
        _ray_address,
        metavar="ADDRESS",
    )
    strict_backend: bool = Option.switch(
        False,
        "speed",
        "end with an error where --backend tensorrt or tensorrt-llm is not possible, rather than "
        "use the CPU",
    )
    device: str = Option.field(
        "auto",
        "speed",
        "where the model runs: auto, cpu, cuda or cuda:N",
        Text("it must be auto, cpu, cuda or cuda:N", r"auto|cpu|cuda(:\d+)?"),
    )
    compute_type: str = Option.field(
        "default",
        "speed",
        "arithmetic of the model; default is the best for the device",
        Choice(
            (
                *("default", "auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16"),
                *("int16", "float16", "bfloat16", "float32"),
            )
        ),
        metavar="TYPE",
    )
    max_cache_size: Size = Option.field(  # noqa: RUF009
        Size(8 * 10**9),
        "speed",
        "room for built TensorRT engines, such as 8GB: those unused for longest are removed",
        Size.read,
        metavar="SIZE",
        rare=True,
    )
    beam_size: int = Option.field(
        0,
        "speed",
        "texts followed at once while decoding: more is slower; 0 chooses for this machine",
        Whole(0, 20),
        metavar="N",
    )
    cpu_threads: int = Option.field(
        0,
        "speed",
        "CPU threads of one transcription; 0 is what was measured to be fastest",
        Whole(0, 256),
        metavar="N",
    )
    eager: bool = Option.switch(
        True,
        "speed",
        "begin when speech pauses, so that the answer is there when the audio ends; costs more "
        "processor time where speakers hesitate",
    )
    live_text: bool = Option.switch(
        False,
        "speed",
        "send words while they are spoken, once two transcriptions in a row agree on them; takes "
        "up to half of the model's time while somebody speaks, and Home Assistant does not show "
        "them yet",
    )
    idle_unload: int = Option.field(
        0,
        "speed",
        "free the model's memory after so many seconds without work; it is loaded again while the "
        "next speaker is speaking; 0 is never",
        Whole(),
        metavar="SECONDS",
    )
    audio_context: str = Option.field(
        "auto",
        "speed",
        "how much audio the encoder computes: auto is the speech, with a margin for models that "
        "were trained on 30 s; full is always 30 s; a number is the least seconds",
        _audio_context,
        metavar="auto|full|SECONDS",
        rare=True,
    )

    initial_prompt: str | None = Option.field(
        None, "text", "text that precedes every command, to set style and words", Text().optional
    )
    whisper_task: str = Option.field(
        "transcribe",
        "text",
        "write what was said, or translate it to English",
        Choice(("transcribe", "translate")),
    )

    strip_punctuation: bool = Option.switch(
        True,
        "text",
        "leave out quotation marks, and punctuation at the ends of the text: Home Assistant's "
        "sentences have none",
    )
    hass_wording: bool = Option.switch(
        True,
        "text",
        "word commands as Home Assistant's sentences are: without 'uh' at the start, with "
        "'30 minutes' for '½ hour'",
    )
    lowercase: bool = Option.switch(False, "text", "write everything in small letters")
    replace: Replacements = Option.field(  # noqa: RUF009
        Replacements(),
        "text",
        "write TO wherever FROM would be written, whole words; an empty TO drops them, @FILE is a "
        "file with a line for each; may be given several times",
        _replacements,
        shape="lines",
        metavar="FROM=TO",
    )

    bias_names: bool = Option.switch(
        True,
        "names",
        "compare what was heard with the sentences that Home Assistant understands and the names "
        "of the home, and write the one that was misheard",
    )
    names: tuple[str, ...] = Option.field(
        (),
        "names",
        "names that are spoken of in this home, separated by commas; those that Home Assistant "
        "knows need not be among them",
        Items(str, r"[,\n]"),
        metavar="LIST",
    )
    home: Path | None = Option.field(  # noqa: RUF009  (a field, no call's result)
        None,
        "names",
        "a home that you wrote down: a YAML file with areas, floors, entities and sentences "
        "(docs/home.md); what Home Assistant knows is added",
        Text().path,
        metavar="FILE",
    )
    hass_api: str = Option.field(
        "http://homeassistant.local:8123/api",
        "names",
        "Home Assistant, which is asked for names where there is a --hass-token; the app "
        "(add-on) needs neither",
        Text(
            "it must be an address such as http://homeassistant.local:8123",
            is_address=_is_home_assistant,
        ),
        metavar="URL",
    )
    hass_token: str | None = Option.field(
        None,
        "names",
        "long-lived access token of an administrator of Home Assistant; better in the "
        "variable WYOMING_WHISPER_HASS_TOKEN or a file, since others can see a command "
        "line",
        Text().optional,
        secret=True,
        flag=True,
    )

    vad_filter: bool = Option.switch(
        False, "silence", "cut out what is not speech before transcribing", rare=True
    )
    vad_threshold: float = Option.field(
        0.5,
        "silence",
        "probability from which --vad-filter hears speech",
        Decimal(),
        metavar="P",
        rare=True,
    )
    vad_min_speech_ms: int = Option.field(
        250,
        "silence",
        "shortest speech that --vad-filter keeps",
        Whole(),
        metavar="MS",
        rare=True,
    )
    vad_min_silence_ms: int = Option.field(
        2000,
        "silence",
        "shortest silence that --vad-filter cuts out",
        Whole(),
        metavar="MS",
        rare=True,
    )
    vad_clip: bool = Option.field(
        False,
        "silence",
        "cut silence off both ends before transcribing; the official server's names of libraries "
        "may follow, of which faster-whisper counts here",
        _clipping,
        shape="words",
        metavar="LIBRARY",
        rare=True,
    )
    vad_clip_threshold: float = Option.field(
        0.5,
        "silence",
        "probability from which --vad-clip hears speech",
        Decimal(),
        metavar="P",
        rare=True,
    )
    vad_clip_pad_ms: int = Option.field(
        400,
        "silence",
        "what --vad-clip leaves around speech",
        Whole(),
        metavar="MS",
        rare=True,
    )

    endpointing: str = Option.field(
        "off",
        "end of speech",
        "end a command after so much silence, and answer before the client says that it has ended; "
        "auto waits for less silence where the text sounds finished, for more where it doesn't",
        _endpointing,
        metavar="off|SECONDS|auto",
    )
    no_speech_timeout: int = Option.field(
        8,
        "end of speech",
        "--endpointing: if nobody has spoken until then, nobody will",
        Whole(1, 3600),
        metavar="SECONDS",
        rare=True,
    )
    max_command_seconds: int = Option.field(
        15,
        "end of speech",
        "--endpointing: longest command, from its first word",
        Whole(1, 3600),
        metavar="SECONDS",
        rare=True,
    )
    requires_external_vad: bool = Option.switch(
        True,
        "end of speech",
        "have Home Assistant end commands too; off leaves it to --endpointing alone, and "
        "satellites then go on listening until the answer is there (docs/protocol.md)",
        rare=True,
    )
    prefers_auto_gain: bool = Option.switch(
        True,
        "silence",
        "tell Home Assistant that audio with automatic gain is preferred",
        rare=True,
    )
    prefers_noise_reduction: bool = Option.switch(
        True,
        "silence",
        "tell Home Assistant that audio without noise is preferred; with both off, satellites with "
        "two channels send the unprocessed one",
        rare=True,
    )

    debug: bool = Option.switch(False, "logging", "log more")
    log_format: str = Option.field(
        logging.BASIC_FORMAT,
        "logging",
        "format of log lines",
        _log_format,
        metavar="FORMAT",
        rare=True,
    )

    @property
    def model_name(self) -> str:
        """The model's name for others to see; of a folder only the last part."""
        is_folder = self.model.startswith(("/", ".", "~"))
        return Path(self.model).name if is_folder else self.model


OPTIONS: Mapping[str, Option] = {f.name: f.metadata["option"] for f in dataclasses.fields(Settings)}
"""Every option there is, by the name of its field."""
