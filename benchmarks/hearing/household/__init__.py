"""Commands of a household understood with its sentences known, and what is no command unchanged.

Every language has its household (lib/homes), and servers that hear its clips side by side, over
Wyoming, all of a clip at once; they take turns. Clips are those of household/PART.jsonl: recordings
from the folders of --voices, and what is made once into --spoken (--speech-python is a Python that
has what lib/synthesizers.py needs). Servers:

ours, ours-fw, ours-ort   without the household, on CTranslate2 or onnxruntime; -home: with it
official                  with the prompt that it makes of the household; -plain: without

"Understood" is what Home Assistant's own matcher makes of a text; "changed", what is no command and
is written otherwise than by the same server without the household.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from benchmarks.hearing.accuracy import BACKENDS, languages
from benchmarks.hearing.household import fit
from benchmarks.hearing.household.clips import COMMAND, KINDS, PARTS, Clip, make, read_list
from benchmarks.hearing.household.counts import Answer, shown, stages, tables
from benchmarks.hearing.household.prompt import official_prompt
from benchmarks.lib.client import say
from benchmarks.lib.errors import BenchmarkError
from benchmarks.lib.model import Model
from benchmarks.lib.official import install_official, official, ours
from benchmarks.lib.options import DECODING, add, names, one_of
from benchmarks.lib.report import Outcome, progress
from benchmarks.lib.servers import Program, Server, prepare, running, turned
from benchmarks.lib.understood import HOMES, matcher, read_home
from wyoming_whisper.models.folder import ModelFolder

SERVERS = ("ours-ort", "ours-ort-home", "official")
NAME = re.compile(r"official(-plain)?|ours(-fw|-ort)?(-home)?")
HAS_GRAMMAR = "grammar of the home in"  # our server logs that it is there, or that there is none


# -- servers -------------------------------------------------------------------------------


def program(
    name: str, args: argparse.Namespace, model: Path, language: str, folder: Path
) -> Program:
    """Return the server of a name in a language's household. Raises BenchmarkError."""
    plain, backend, home = parts_of(name)
    options = argparse.Namespace(
        model=model, threads=args.threads, beam_size=args.beam_size, compute_type=args.compute_type
    )
    extra = ["--language", language]
    if name.startswith("official"):
        extra += [] if plain else ["--initial-prompt", prompt(model, language, PARTS[args.part])]
        return official(options, name, *extra)
    extra += ["--backend", BACKENDS[backend]] if backend else []
    extra += ["--home", str(home_file(language, folder, PARTS[args.part]))] if home else []
    return ours(options, name, *extra)


def parts_of(name: str) -> tuple[str | None, str | None, str | None]:
    """Return what of a server's name is -plain, its backend, and -home. Raises BenchmarkError."""
    known = NAME.fullmatch(name)
    if known is None:
        raise BenchmarkError(f"there is no server {name!r}: names are such as {', '.join(SERVERS)}")
    plain, backend, home = known.groups()
    return plain, backend, home


def prompt(model: Path, language: str, homes: Path = HOMES) -> str:
    """Return what the official server tells a model of a language's household."""
    tokenizer = ModelFolder(model).tokenizer
    home = read_home(homes / f"{language}.yaml")
    return official_prompt(home, lambda text: len(tokenizer.encode(text)))


def home_file(language: str, folder: Path, homes: Path = HOMES) -> Path:
    """Write a language's household for --home; return the file."""
    content = yaml.safe_load((homes / f"{language}.yaml").read_text(encoding="utf-8"))
    del content["satellite"]  # the room that is spoken in is nothing of the home's
    file = folder / f"home-{language}.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return file


# -- running -------------------------------------------------------------------------------


def measure(args: argparse.Namespace, clips: Sequence[Clip]) -> list[Answer]:
    """Have the servers of all models hear everything. Raises BenchmarkError, AudioError."""
    answers: list[Answer] = []
    folders = [*args.voices, args.spoken]
    for model in args.models:
        known = languages(model)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            spoken = dict.fromkeys(clip.lang for clip in clips if clip.lang in known)
            for number, language in enumerate(spoken):
                own = [clip for clip in clips if clip.lang == language]
                programs = [program(name, args, model, language, folder) for name in args.servers]
                progress(f"{model.name}, {language}: {len(own)} clips")
                if number == 0:
                    prepare(programs, folder)
                with running(programs, folder) as servers:
                    answers += list(hear(model.name, servers, own, folders, args.part))
    order = {name: place for place, name in enumerate(args.servers)}
    return sorted(answers, key=lambda one: order[one.server])


def hear(
    model: str,
    servers: Sequence[Server],
    clips: Sequence[Clip],
    folders: Sequence[Path],
    part: str,
) -> Iterator[Answer]:
    """Yield the answer of every server to every clip; who hears it first takes turns."""
    _warm_up(servers, clips[0], folders)
    for number, clip in enumerate(clips):
        samples = clip.samples(folders)
        for server in turned(servers, number):
            before = len(server.log)
            heard = asyncio.run(say(server.uri, samples, language=clip.lang))
            yield Answer(
                model,
                server.name,
                clip.name,
                clip.lang,
                clip.kind,
                clip.text or "",
                " ".join(heard.text.split()),
                round(heard.seconds, 4),
                stages(server.log[before:]),
                heard.error,
                part,
            )


def _warm_up(servers: Sequence[Server], clip: Clip, folders: Sequence[Path]) -> None:
    """Have each server answer once, and wait for the sentences of those that know the home."""
    for server in servers:
        heard = asyncio.run(say(server.uri, clip.samples(folders), language=clip.lang))
        if heard.error:
            raise BenchmarkError(f"{server.name}: {heard.error}")
        if server.name.endswith("-home"):
            server.until_logged(HAS_GRAMMAR)


# -- the suite -----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--voices",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of the recordings that the lists name; repeatable",
    )
    parser.add_argument(
        "--spoken",
        type=Path,
        default=Path("data") / "household",
        metavar="DIR",
        help="folder for what is made (default: %(default)s)",
    )
    parser.add_argument(
        "--speech-python",
        default="python3",
        metavar="FILE",
        help="a Python that has what lib/synthesizers.py needs (default: %(default)s)",
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="find the weights of the evidence anew, from the part fit: no server is started",
    )
    parser.add_argument(
        "--part", choices=tuple(PARTS), default="test", help="(default: %(default)s)"
    )
    add(parser, "--models", *DECODING)
    parser.add_argument(
        "--servers",
        type=names,
        default=SERVERS,
        metavar="LIST",
        help=f"default: {','.join(SERVERS)}",
    )
    parser.add_argument(
        "--kinds",
        type=lambda text: tuple(map(one_of(tuple(KINDS)), names(text))),
        default=tuple(KINDS),
        metavar="LIST",
        help=f"default: {','.join(KINDS)}",
    )
    parser.add_argument("--languages", type=names, default=(), metavar="LIST", help="default: all")
    parser.add_argument("--limit", type=int, metavar="N", help="clips of a kind and language")
    parser.add_argument("--show", action="store_true", help="print what went wrong, one by one")


def chosen(args: argparse.Namespace) -> list[Clip]:
    """Return the clips that are asked for. Raises ClipError, BenchmarkError."""
    counted: dict[tuple[str, str], int] = {}
    clips = []
    for clip in read_list(args.part):
        if clip.kind not in args.kinds or (args.languages and clip.lang not in args.languages):
            continue
        if matcher(clip.lang, PARTS[args.part]) is None:  # nobody's household
            continue
        key = clip.kind, clip.lang
        counted[key] = counted.get(key, 0) + 1
        if args.limit is None or counted[key] <= args.limit:
            clips.append(clip)
    if not clips:
        raise BenchmarkError("no clip is what was asked for")
    return sorted(clips, key=lambda one: one.kind != COMMAND)


def read(args: argparse.Namespace) -> Outcome:
    """Return the tables of what was measured before. Raises BenchmarkError."""
    answers = []
    for file in args.read:
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))["answers"]
            answers += [Answer(**row) for row in rows]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(f"{file} can't be read: {error}") from error
    return _outcome(answers, args)


def run(args: argparse.Namespace) -> Outcome:
    """Make what is not there, and have all servers hear everything."""
    if args.fit:
        return refit(args)
    clips = chosen(args)
    for name in args.servers:
        parts_of(name)  # what is wrong with a name is said at once
    runtime = install_official() if any("official" in name for name in args.servers) else {}
    make(args.spoken, clips, args.speech_python)
    outcome = _outcome(measure(args, clips), args)
    return dataclasses.replace(outcome, facts={"official": runtime, **outcome.facts})


def refit(args: argparse.Namespace) -> Outcome:
    """Find the weights of the evidence with the first model."""
    args.part = "fit"
    clips = chosen(args)
    make(args.spoken, clips, args.speech_python)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        homes = {clip.lang: home_file(clip.lang, folder) for clip in clips}
        model = Model(args.models[0], args.beam_size, args.threads, folder / "graphs")
        cases = list(fit.collect(model, clips, [*args.voices, args.spoken], homes))
    facts = {"cases": [dataclasses.asdict(one) for one in cases]}
    return Outcome(list(fit.tables(cases)), facts)


def _outcome(answers: Sequence[Answer], args: argparse.Namespace) -> Outcome:
    wrong = ["\n".join(shown(answers))] if args.show else []
    return Outcome(
        [*tables(answers), *wrong], {"answers": [dataclasses.asdict(a) for a in answers]}
    )
