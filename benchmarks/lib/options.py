"""Options that several suites share, each defined once, and what reads the values of all."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib import models
from benchmarks.lib.clips import BUNDLED_CLIPS
from benchmarks.lib.corpus import KINDS, MANIFEST, PARTS
from wyoming_whisper.machine.host import HOST
from wyoming_whisper.settings.options import Settings

# -- values --------------------------------------------------------------------------------


def names(text: str) -> tuple[str, ...]:
    """Read a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return what reads a list of positive numbers with commas; `kind` is int or float."""

    def read(text: str) -> list[Any]:
        items = [kind(item) for item in text.split(",")]
        if min(items) <= 0:
            raise ValueError
        return items

    read.__name__ = "list"  # named so in argparse's complaint
    return read


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """Return what reads one of some names."""

    def read(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return read


def several(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Return what reads a list with commas, each item by `read`."""
    return lambda text: tuple(map(read, names(text)))


# -- options -------------------------------------------------------------------------------

_FOLDERS: Mapping[str, Any] = {"type": Path, "action": "append", "default": [], "metavar": "DIR"}
_LIST: Mapping[str, Any] = {"default": (), "metavar": "LIST"}

SHARED: Mapping[str, Mapping[str, Any]] = {
    "--corpus": {**_FOLDERS, "help": f"folder of recordings with a {MANIFEST}; repeatable"},
    "--recordings": {
        **_FOLDERS,
        "help": "folder of commands whose words nobody wrote down; repeatable",
    },
    "--part": {
        "choices": PARTS,
        "default": "report",
        "help": "of the recordings (default: %(default)s)",
    },
    "--kinds": {
        **_LIST,
        "type": several(one_of(KINDS)),
        "default": KINDS,
        "help": f"default: {','.join(KINDS)}",
    },
    "--languages": {**_LIST, "type": names, "help": "default: all there are"},
    "--without": {**_LIST, "type": names, "help": "files that are not heard"},
    "--limit": {
        "type": int,
        "metavar": "N",
        "help": "recordings of a kind and language (default: all)",
    },
    "--clips": {
        "type": Path,
        "default": BUNDLED_CLIPS,
        "metavar": "DIR",
        "help": f"folder with a labels.json (default: {BUNDLED_CLIPS.name})",
    },
    "--model": {
        "type": models.model_folder,
        "default": models.BASE,
        "metavar": "NAME|DIR",
        "help": "a stock model's name, or the folder of a model (default: %(default)s)",
    },
    "--models": {
        "type": several(models.model_folder),
        "default": models.BASE,
        "metavar": "LIST",
        "help": "stock models' names, or folders of models (default: %(default)s)",
    },
    "--threads": {
        "type": int,
        "default": HOST.cores,
        "metavar": "N",
        "help": "default: all physical cores",
    },
    "--beam-size": {
        "type": int,
        "default": 0,
        "metavar": "N",
        "help": "default: what each chooses",
    },
    "--compute-type": {
        "default": "int8",
        "help": "`default` is what each chooses (default: %(default)s)",
    },
    "--chunk-ms": {
        "type": int,
        "default": 10,
        "choices": (10, 32),
        "help": "audio in each event (default: %(default)s)",
    },
    "--backend": {
        "choices": ("faster-whisper", "onnxruntime"),
        "default": "faster-whisper",
        "help": "default: %(default)s; the other as `wyoming-whisper engine build` made it",
    },
    "--data-dir": {
        "type": Path,
        "default": Path("data"),
        "metavar": "DIR",
        "help": "what was built is there (default: %(default)s)",
    },
    "--no-official": {"action": "store_true", "help": "ours alone"},
}
"""What argparse is told of each."""

CORPUS = ("--corpus", "--part", "--kinds", "--languages", "--without", "--limit")
"""What says which recordings are heard: for corpus.chosen."""
DECODING = ("--threads", "--beam-size", "--compute-type")
"""What each server or model computes with."""
BACKEND = ("--model", "--backend", "--data-dir", "--threads", "--beam-size")
"""What says what a suite's own process transcribes with: for backend_settings."""


def backend_settings(args: argparse.Namespace) -> Settings:
    """Return the settings that BACKEND asks for."""
    return Settings(
        model=str(args.model),
        data_dir=(args.data_dir,),
        backend=args.backend,
        strict_backend=True,
        cpu_threads=args.threads,
        beam_size=args.beam_size,
    )


def add(parser: argparse.ArgumentParser, *flags: str, **changes: Any) -> None:
    """Add shared options; with `changes` to what argparse is told of them, such as a default."""
    for flag in flags:
        parser.add_argument(flag, **{**SHARED[flag], **changes})


def add_number(parser: argparse.ArgumentParser, flag: str, default: float, about: str = "") -> None:
    """Add a number, whole where its default is."""
    shown = f"{about} (default: {default:g})" if about else f"default: {default:g}"
    parser.add_argument(flag, type=type(default), default=default, metavar="N", help=shown)


def add_parts(
    parser: argparse.ArgumentParser,
    parts: Sequence[str],
    default: Sequence[str] = (),
    metavar: str = "PART",
) -> None:
    """Add names of what is measured, all where there is no default: `args.parts`."""
    parser.add_argument(
        "parts",
        nargs="*",
        type=one_of(parts),
        default=list(default or parts),
        metavar=metavar,
        help=f"of {', '.join(parts)} (default: {', '.join(default) or 'all'})",
    )
