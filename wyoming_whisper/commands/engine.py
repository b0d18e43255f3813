"""`wyoming-whisper engine ...`: build engines, see and remove them, export graphs, test itself."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends import model_of
from ..backends.engines import Engines
from ..backends.onnxruntime import OnnxRuntime
from ..backends.tensorrt import Runtime
from ..engine.cache import Entry
from ..engine.progress import GRAPHS, BuildDisplay, BuildProgress
from ..engine.tensorrt.compile import import_graphs
from ..engine.tensorrt.cuda import NoGpuError
from ..engine.tensorrt.library import LIBRARIES, RTX, Library
from ..errors import EngineBrokenError, SettingsError, did_you_mean
from ..models.disk import megabytes
from ..models.folder import ModelFolder
from ..models.huggingface import write_folder
from ..settings.options import Settings
from .console import CommandParser, table

if TYPE_CHECKING:
    from ..engine.onnx_graph import Precision


def run(argv: Sequence[str]) -> int:
    """Run an action; return the exit status. Raises WyomingWhisperError."""
    about = """\
Engines: a model made for TensorRT on NVIDIA GPUs, or for onnxruntime on CPUs. The server builds
what it needs by itself; these are for looking and for preparing.

  build      build the engine of a model now, or say where it is
  list       the engines that are built
  remove     delete engines: names from the list, or all
  export     write a model's graphs as encoder.onnx and decoder.onnx, or its weights as
             transformers and TensorRT-LLM read them
  selftest   compare an engine with CTranslate2 on this machine

wyoming-whisper engine ACTION --help tells more about each."""
    actions = {
        "build": (_build_parser, _build),
        "list": (_list_parser, _list),
        "remove": (_remove_parser, _remove),
        "export": (_export_parser, _export),
        "selftest": (_selftest_parser, _selftest),
    }
    return CommandParser.run_action("engine", about, actions, argv)


# -- build ---------------------------------------------------------------------------------


def _build_parser(command: str) -> CommandParser:
    parser = CommandParser(
        command,
        "Build the engine of a model, or find it built, and try it out. Takes minutes for "
        "TensorRT, less than one for TensorRT-RTX, seconds for onnxruntime. An engine for "
        "TensorRT-RTX needs no GPU to be built: it is for other machines then, and not tried out.",
        (
            *CommandParser.MODEL,
            *("backend", "device", "compute_type", "beam_size", "audio_context"),
            *("max_cache_size", "cpu_threads"),
        ),
    )
    parser.add_argument(
        "--runtime",
        choices=(*LIBRARIES, "onnxruntime"),
        help="what the engine is for (default: what --backend says; for its auto and tensorrt, "
        "tensorrt-rtx where there are a GPU and the package for it, else tensorrt)",
    )
    parser.add_argument(
        "--gpus",
        choices=tuple(_PORTABLE),
        help="for GPUs of these generations, on whatever machine (tensorrt-rtx; default: the GPU "
        "that is here, else ampere: RTX 30, 40, 50; turing: RTX 20, GTX 16)",
    )
    return parser


_PORTABLE = {"ampere": Library.AMPERE, "turing": Library.TURING}


def _build(arguments: argparse.Namespace, settings: Settings) -> int:
    engines, is_for_here = _engines(settings, arguments.runtime, arguments.gpus)
    with contextlib.closing(BuildDisplay(f"the engine of {engines.label}")) as display:
        folder = engines.build(display.show_build)
    try:
        if is_for_here:
            engines.open(folder).close()
    except EngineBrokenError:
        engines.discard()
        raise
    print(folder)
    return 0


def _engines(settings: Settings, runtime: str | None, gpus: str | None) -> tuple[Engines, bool]:
    """Return what builds, and whether it can be opened here."""
    runtime = runtime or (RTX.runtime if gpus else None)
    if gpus and runtime != RTX.runtime:
        raise SettingsError(
            f"--gpus is for --runtime {RTX.runtime}; {runtime} builds for what is here"
        )
    if (runtime or settings.backend) == "onnxruntime":
        OnnxRuntime.choose_arithmetic(settings)  # what is not possible is told before all else
        return OnnxRuntime(*model_of(settings)).engines(), True
    if not runtime and settings.backend not in ("auto", "tensorrt"):
        raise SettingsError(
            f"--backend {settings.backend} has no engines; tensorrt and onnxruntime have"
        )
    if gpus:
        return Runtime.portable_engines(*model_of(settings), _PORTABLE[gpus]), False
    try:
        found = Runtime.find(settings.device, runtime or "")
    except NoGpuError:
        if runtime != RTX.runtime:
            raise
        return Runtime.portable_engines(*model_of(settings), Library.AMPERE), False
    return found.engines(*model_of(settings, found.gpu)), True


# -- list, remove --------------------------------------------------------------------------


def _list_parser(command: str) -> CommandParser:
    about = "The engines that are built, the last used first."
    parser = CommandParser(command, about, CommandParser.PLACES)
    parser.add_argument("--json", action="store_true", help="one JSON array")
    return parser


def _list(arguments: argparse.Namespace, settings: Settings) -> int:
    entries = Engines.cache_of(settings).entries(with_others=True)
    if arguments.json:
        rows = [
            dataclasses.asdict(entry) | {"used": _when(entry.used), "path": str(entry.path)}
            for entry in entries
        ]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    elif not entries:
        print("no engine is built yet")
    else:
        head = ("MODEL", "DEVICE", "RUNTIME", "PRECISION", "SIZE", "LAST USED", "NAME")
        print(table(head, *map(_row, entries)))
    return 0


def _remove_parser(command: str) -> CommandParser:
    usage = "NAME... | all [flags]"
    parser = CommandParser(command, "Delete engines.", CommandParser.PLACES, usage)
    parser.add_argument("names", nargs="+", metavar="NAME", help="from the list; all is all of it")
    return parser


def _remove(arguments: argparse.Namespace, settings: Settings) -> int:
    cache = Engines.cache_of(settings)
    built = [entry.name for entry in cache.entries()]
    names = built if arguments.names == ["all"] else list(dict.fromkeys(arguments.names))
    unknown = [name for name in names if name not in built]
    if unknown:
        hint = did_you_mean(unknown[0], built, cutoff=0.3) or ": engine list shows them"
        raise SettingsError(f"there is no engine {unknown[0]}{hint}")
    freed = 0
    for name in names:
        try:
            freed += cache.discard(name)
        except OSError as error:
            raise SettingsError(
                f"{cache.root / name} can't be removed: {error.strerror}"
            ) from error
    print(f"{', '.join(names) or 'nothing'} removed, {megabytes(freed)} are free")
    return 0


def _row(entry: Entry) -> tuple[str, ...]:
    about = (entry.model, entry.device, entry.runtime, entry.precision)
    return (*about, megabytes(entry.size_bytes), _when(entry.used), entry.name)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "?"


# -- export --------------------------------------------------------------------------------


def _export_parser(command: str) -> CommandParser:
    layouts = ("onnx", "huggingface")
    parser = CommandParser(
        command,
        "Write a model for other programs; needs no GPU. As onnx: the graphs that onnxruntime and "
        "TensorRT run (encoder.onnx, decoder.onnx, and .data beside one that is large). As "
        "huggingface: the folder that transformers and TensorRT-LLM load.",
        (*CommandParser.MODEL, "beam_size"),
        "--output DIR [flags]",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for it")
    parser.add_argument(
        "--layout", choices=layouts, default="onnx", help="what to write (default: onnx)"
    )
    parser.add_argument(
        "--precision",
        choices=("float16", "float32"),
        default="float16",
        help="of weights and activations (default: float16)",
    )
    return parser


def _export(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.layout == "onnx":
        import_graphs()  # what is missing for it is told before anything is fetched
    settings, source = model_of(settings)
    output, started = arguments.output, time.monotonic()
    display = BuildDisplay(f"exporting {settings.model}")
    phase = GRAPHS if arguments.layout == "onnx" else "weights"

    def show(fraction: float) -> None:
        display.show_build(BuildProgress(phase, fraction, time.monotonic() - started))

    try:
        if arguments.layout == "onnx":
            beam_size = settings.beam_size or 1
            written = _write_graphs(source, output, arguments.precision, beam_size, show)
        else:
            written = write_folder(source, output, arguments.precision, show)
    except OSError as error:
        raise SettingsError(f"--output {output}: {error.strerror or error}") from error
    finally:
        display.close()
    for file in written:
        print(file)
    return 0


def _write_graphs(
    source: Path, output: Path, precision: Precision, beam_size: int, show: Callable[[float], None]
) -> list[Path]:
    checkpoint = ModelFolder(source).checkpoint()
    output.mkdir(parents=True, exist_ok=True)
    # Aside first: what is there already is not lost to a failure.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output) as aside:
        import_graphs().write_graphs(checkpoint, Path(aside), precision, beam_size, show)
        written = sorted(Path(aside).iterdir())
        for file in written:
            file.replace(output / file.name)
    return [output / file.name for file in written]


# -- selftest ------------------------------------------------------------------------------


def _selftest_parser(command: str) -> CommandParser:
    parser = CommandParser(
        command,
        "Compare an engine with CTranslate2 on this machine: texts, log-probabilities, times, "
        "memory. The report is made to be pasted into an issue.",
        (*CommandParser.MODEL, "device", "beam_size", "cpu_threads", "max_cache_size"),
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "onnxruntime", *LIBRARIES, "tensorrt-llm"),
        default="auto",
        help="what runs the engine (default: tensorrt-rtx or tensorrt where there is a GPU for it, "
        "else onnxruntime); "
        "tensorrt-llm is only tested where it is named",
    )
    parser.add_argument(
        "--precision",
        choices=("float16", "bfloat16", "float32"),
        help="arithmetic of the engine (default: float16 on GPUs, float32 on onnxruntime); "
        "bfloat16 is for tensorrt-llm alone",
    )
    parser.add_argument("--json", action="store_true", help="write the report as JSON")
    return parser


def _selftest(arguments: argparse.Namespace, settings: Settings) -> int:
    from .selftest.command import run as run_selftest  # loads onnx, onnxruntime and ctranslate2

    return run_selftest(arguments, settings)
