"""Every option of the server, once: name, default, how it is read, and what it is for.

`Settings` is what all of them come to; where they come from is in sources.py.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .bounds import BEAM_SIZE, CPU_THREADS, MILLISECONDS, PROBABILITY, SECONDS, Whole
from .option import ENDING, LOGGING, NAMES, SILENCE, SPEED, TEXT, Option, flag_field, option_field
from .readers import (
    Size,
    as_audio_context,
    as_clipped_libraries,
    as_device,
    as_endpointing,
    as_home_assistant,
    as_log_format,
    as_names,
    as_optional_text,
    as_ray_address,
    as_replacements,
    as_size,
    as_switch,
)
from .replacements import Replacement
from .server import ServerSettings

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings(ServerSettings):
    """What the user said."""

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

    backend: str = option_field(
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
    ray_address: str = option_field(
        "auto",
        SPEED,
        "the Ray cluster of --backend ray: HOST:PORT of its first machine; auto is the one that "
        "this machine is in",
        as_ray_address,
        metavar="ADDRESS",
    )
    strict_backend: bool = flag_field(
        SPEED,
        "end with an error where --backend tensorrt or tensorrt-llm is not possible, rather than "
        "use the CPU",
    )
    device: str = option_field(
        "auto", SPEED, "where the model runs: auto, cpu, cuda or cuda:N", as_device
    )
    compute_type: str = option_field(
        "default",
        SPEED,
        "arithmetic of the model; default is the best for the device",
        choices=COMPUTE_TYPES,
        metavar="TYPE",
    )
    max_cache_size: Size = option_field(  # noqa: RUF009
        Size(8 * 10**9),
        SPEED,
        "room for built TensorRT engines, such as 8GB: those unused for longest are removed",
        as_size,
        metavar="SIZE",
    )
    beam_size: int = option_field(
        0,
        SPEED,
        "texts followed at once while decoding: more is slower; 0 chooses for this machine",
        BEAM_SIZE,
        metavar="N",
    )
    cpu_threads: int = option_field(
        0,
        SPEED,
        "CPU threads of one transcription; 0 is what was measured to be fastest",
        CPU_THREADS,
        metavar="N",
    )
    eager: bool = option_field(
        True,
        SPEED,
        "begin when speech pauses, so that the answer is there when the audio ends; costs more "
        "processor time where speakers hesitate",
        as_switch,
        shape="switch",
    )
    live_text: bool = flag_field(
        SPEED,
        "send words while they are spoken, once two transcriptions in a row agree on them; takes "
        "up to half of the model's time while somebody speaks, and Home Assistant does not show "
        "them yet",
    )
    idle_unload: int = option_field(
        0,
        SPEED,
        "free the model's memory after so many seconds without work; it is loaded again while the "
        "next speaker is speaking; 0 is never",
        SECONDS,
        metavar="SECONDS",
    )
    audio_context: str = option_field(
        "auto",
        SPEED,
        "how much audio the encoder sees: auto fits the window to the speech, with a margin for "
        "models that were trained on 30 s; full is always 30 s; a number is the least seconds",
        as_audio_context,
        metavar="auto|full|SECONDS",
    )

    initial_prompt: str | None = option_field(
        None, TEXT, "text that precedes every command, to set style and words", as_optional_text
    )
    whisper_task: str = option_field(
        "transcribe",
        TEXT,
        "write what was said, or translate it to English",
        choices=("transcribe", "translate"),
    )

    strip_punctuation: bool = option_field(
        True,
        TEXT,
        "leave out quotation marks, and punctuation at the ends of the text: Home Assistant's "
        "sentences have none",
        as_switch,
        shape="switch",
    )
    hass_wording: bool = option_field(
        True,
        TEXT,
        "word commands as Home Assistant's sentences are: without 'uh' at the start, with "
        "'30 minutes' for '½ hour'",
        as_switch,
        shape="switch",
    )
    lowercase: bool = flag_field(TEXT, "write everything in small letters")
    replace: tuple[Replacement, ...] = option_field(
        (),
        TEXT,
        "write TO wherever FROM would be written, whole words; an empty TO drops them, @FILE is a "
        "file with a line for each; may be given several times",
        as_replacements,
        shape="lines",
        metavar="FROM=TO",
    )

    bias_names: bool = option_field(
        True,
        NAMES,
        "compare what was heard with the names of the home, and write the name where it was "
        "misheard",
        as_switch,
        shape="switch",
    )
    names: tuple[str, ...] = option_field(
        (),
        NAMES,
        "names that are spoken of in this home, separated by commas; those that Home Assistant "
        "knows need not be among them",
        as_names,
        metavar="LIST",
    )
    hass_api: str = option_field(
        "http://homeassistant.local:8123/api",
        NAMES,
        "Home Assistant, which is asked for names where there is a --hass-token; the app "
        "(add-on) needs neither",
        as_home_assistant,
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
                as_optional_text,
                secret=True,
            )
        },
    )

    vad_filter: bool = flag_field(SILENCE, "cut out what is not speech before transcribing")
    vad_threshold: float = option_field(
        0.5, SILENCE, "probability from which --vad-filter hears speech", PROBABILITY, metavar="P"
    )
    vad_min_speech_ms: int = option_field(
        250, SILENCE, "shortest speech that --vad-filter keeps", MILLISECONDS, metavar="MS"
    )
    vad_min_silence_ms: int = option_field(
        2000, SILENCE, "shortest silence that --vad-filter cuts out", MILLISECONDS, metavar="MS"
    )
    vad_clip: tuple[str, ...] | None = option_field(
        None,
        SILENCE,
        "cut silence off both ends before transcribing; the official server's names of libraries "
        "may follow, of which faster-whisper counts here",
        as_clipped_libraries,
        shape="words",
        metavar="LIBRARY",
    )
    vad_clip_threshold: float = option_field(
        0.5, SILENCE, "probability from which --vad-clip hears speech", PROBABILITY, metavar="P"
    )
    vad_clip_pad_ms: int = option_field(
        400, SILENCE, "what --vad-clip leaves around speech", MILLISECONDS, metavar="MS"
    )

    endpointing: str = option_field(
        "off",
        ENDING,
        "end a command after so much silence, and answer before the client says that it has ended; "
        "auto waits for less silence where the text sounds finished, for more where it doesn't",
        as_endpointing,
        metavar="off|SECONDS|auto",
    )
    no_speech_timeout: int = option_field(
        8,
        ENDING,
        "--endpointing: if nobody has spoken until then, nobody will",
        Whole(1, 3600),
        metavar="SECONDS",
    )
    max_command_seconds: int = option_field(
        15,
        ENDING,
        "--endpointing: longest command, from its first word",
        Whole(1, 3600),
        metavar="SECONDS",
    )
    requires_external_vad: bool = option_field(
        True,
        ENDING,
        "have Home Assistant end commands too; off leaves it to --endpointing alone, and "
        "satellites then go on listening until the answer is there (docs/protocol.md)",
        as_switch,
        shape="switch",
    )
    prefers_auto_gain: bool = option_field(
        True,
        SILENCE,
        "tell Home Assistant that audio with automatic gain is preferred",
        as_switch,
        shape="switch",
    )
    prefers_noise_reduction: bool = option_field(
        True,
        SILENCE,
        "tell Home Assistant that audio without noise is preferred; with both off, satellites with "
        "two channels send the unprocessed one",
        as_switch,
        shape="switch",
    )

    debug: bool = flag_field(LOGGING, "log more")
    log_format: str = option_field(
        logging.BASIC_FORMAT, LOGGING, "format of log lines", as_log_format, metavar="FORMAT"
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
