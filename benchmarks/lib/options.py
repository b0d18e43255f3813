"""Options that several suites share, each defined once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib import models
from benchmarks.lib.corpus import KINDS, MANIFEST, PARTS
from wyoming_whisper.machine.host import HOST

# -- lists ---------------------------------------------------------------------------------


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


def add_number(parser: argparse.ArgumentParser, flag: str, default: float, about: str = "") -> None:
    """Add a number, whole where its default is."""
    shown = f"{about} (default: {default:g})" if about else f"default: {default:g}"
    parser.add_argument(flag, type=type(default), default=default, metavar="N", help=shown)


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """Return what reads one of some names."""

    def read(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return read


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


# -- recordings ----------------------------------------------------------------------------


def add_folders(
    parser: argparse.ArgumentParser,
    flag: str = "--corpus",
    about: str = f"folder of recordings with a {MANIFEST}; repeatable",
) -> None:
    """Add an option whose value is a list of folders."""
    parser.add_argument(flag, type=Path, action="append", default=[], metavar="DIR", help=about)


def add_recordings(parser: argparse.ArgumentParser) -> None:
    """Add --recordings: a list of folders, for corpus.read_recordings."""
    about = "folder of commands whose words nobody wrote down; repeatable"
    add_folders(parser, "--recordings", about)


def add_part(parser: argparse.ArgumentParser, default: str = "report") -> None:
    """Add --part."""
    parser.add_argument(
        "--part", choices=PARTS, default=default, help=f"of the recordings (default: {default})"
    )


def add_corpus(parser: argparse.ArgumentParser, part: str = "report") -> None:
    """Add what says which recordings are heard: for corpus.chosen."""
    add_folders(parser)
    add_part(parser, part)
    parser.add_argument(
        "--kinds", type=_kinds, default=KINDS, metavar="LIST", help=f"default: {','.join(KINDS)}"
    )
    parser.add_argument(
        "--languages", type=names, default=(), metavar="LIST", help="default: all there are"
    )
    parser.add_argument(
        "--without", type=names, default=(), metavar="LIST", help="files that are not heard"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="recordings of a kind and language (default: all)"
    )


def _kinds(text: str) -> tuple[str, ...]:
    return tuple(map(one_of(KINDS), names(text)))


def add_clips(parser: argparse.ArgumentParser, default: Path) -> None:
    """Add --clips, a folder with a labels.json."""
    parser.add_argument(
        "--clips", type=Path, default=default, metavar="DIR", help=f"default: {default.name}"
    )


# -- models and what runs them -------------------------------------------------------------


def add_model(parser: argparse.ArgumentParser, default: str = models.BASE) -> None:
    """Add --model: its value is the folder."""
    parser.add_argument(
        "--model",
        type=models.model_folder,
        default=default,
        metavar="NAME|DIR",
        help=f"a stock model's name, or the folder of a model (default: {default})",
    )


def add_models(
    parser: argparse.ArgumentParser,
    default: str = models.BASE,
    read: Callable[[str], Any] = models.model_folder,
) -> None:
    """Add --models: its value is a tuple of folders, or of what `read` makes of a name."""
    parser.add_argument(
        "--models",
        type=lambda text: tuple(map(read, names(text))),
        default=default,
        metavar="LIST",
        help=f"stock models' names, or folders of models (default: {default})",
    )


def add_decoding(
    parser: argparse.ArgumentParser, beam_size: int | list[int] = 0, compute_type: str = "int8"
) -> None:
    """Add --threads, --beam-size and --compute-type, of each server or model.

    Where `beam_size` is a list, so is the option's value.
    """
    parser.add_argument(
        "--threads", type=int, default=HOST.cores, help="default: all physical cores"
    )
    several = isinstance(beam_size, list)
    parser.add_argument(
        "--beam-size",
        type=numbers(int) if several else int,
        default=beam_size,
        metavar="LIST" if several else "N",
        help=f"default: {beam_size or 'what each chooses'}",
    )
    parser.add_argument(
        "--compute-type",
        default=compute_type,
        help=f"`default` is what each chooses (default: {compute_type})",
    )


def add_official(parser: argparse.ArgumentParser) -> None:
    """Add --no-official."""
    parser.add_argument("--no-official", action="store_true", help="ours alone")


def add_chunk_ms(parser: argparse.ArgumentParser, default: int = 10) -> None:
    """Add --chunk-ms."""
    parser.add_argument(
        "--chunk-ms",
        type=int,
        default=default,
        choices=(10, 32),
        help=f"audio in each event (default: {default})",
    )
