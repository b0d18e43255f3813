"""`wyoming-whisper models ...`: see and manage the models on this machine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from ..backends import gpu_of, model_of
from ..errors import ModelError, SettingsError
from ..models.autopick import AutoModel
from ..models.disk import megabytes
from ..models.listing import ModelEntry
from ..models.stock import AUTO, Layout
from ..models.store import ModelStore
from ..settings.options import Settings
from ..settings.sources import RETIRED_MODELS
from .console import CommandParser, table


def run(argv: Sequence[str]) -> int:
    """Run an action; return the exit status. Raises WyomingWhisperError."""
    arguments, settings = _parser().start(argv)
    if (arguments.action == "list") != (arguments.name is None):
        needs = "takes no" if arguments.action == "list" else "needs a"
        raise SettingsError(f"models {arguments.action} {needs} model's name")
    if arguments.action != "list":
        print(_answer(arguments.action, arguments.name, settings, arguments.layout))
    elif arguments.json:
        described = [entry.as_json() for entry in ModelEntry.all(settings)]
        print(json.dumps(described, ensure_ascii=False, indent=2))
    else:
        entries = ModelEntry.all(settings)
        rows = [(e.name, e.state, megabytes(e.size_bytes), e.languages) for e in entries]
        print(table(("NAME", "STATE", "SIZE", "LANGUAGES"), *rows))
        for entry in entries:
            if entry.problem:
                print(f"{entry.name} is broken: {entry.problem}")
    return 0


def _parser() -> CommandParser:
    about = """\
See and manage the models on this machine.

  list             what there is, and what can be downloaded
  download NAME    fetch a model, where it isn't here already
  remove NAME      delete a downloaded model
  path NAME        where a model's files are"""
    parser = CommandParser(
        "models", about, CommandParser.PLACES, "list|download|remove|path [NAME] [flags]"
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
    return parser


def _answer(action: str, name: str, settings: Settings, layout: Layout) -> str:
    if about := RETIRED_MODELS.get(name):
        more = "`models list` shows those that there are, such as base"
        raise ModelError(f"{about}; {more}", "unknown-model")
    if name.lower() == AUTO and action != "remove" and layout == "ctranslate2":
        return str(_auto(action, settings))
    if action == "download":
        return str(ModelStore(settings).ensure(name, layout=layout))
    if action == "remove":
        freed = ModelStore(settings).remove(name, layout)
        return f"{name} is removed, {megabytes(freed)} are free"
    return str(ModelStore(settings).find(name, layout))


def _auto(action: str, settings: Settings) -> Path:
    """Return the folder of the model that auto is here, downloading it if that is the action."""
    if action == "download":
        return model_of(dataclasses.replace(settings, model=AUTO))[1]
    return ModelStore(settings).find(AutoModel(settings, gpu_of(settings)).pick())
