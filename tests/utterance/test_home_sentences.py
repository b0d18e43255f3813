"""The home's sentences on their way: who is given them, and what is made of what comes back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support import Client, FakeTranscriber, run_server
from wyoming_whisper.grammar.service import GrammarService
from wyoming_whisper.status import Answer
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription

HOME = "areas: [Kitchen]\nentities:\n  - {name: Ceiling Lamp, domain: light}\n"


pytestmark = pytest.mark.usefixtures("_hear_loudness")


@dataclass
class Understanding(FakeTranscriber):
    """Answers as one that has put a sentence of the home in the place of what was heard."""

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        heard = super().transcribe(samples, options)
        return replace(heard, understood=True, free_text="Turn on the sealing lamp.")


def grammars_of(options: TranscribeOptions) -> GrammarService | None:
    return options.home.grammars if options.home else None


def home_file(tmp_path: Path, text: str = HOME) -> Path:
    file = tmp_path / "home.yaml"
    file.write_text(text)
    return file


async def answer_of(tmp_path: Path, fake: FakeTranscriber, **settings: object) -> list[Answer]:
    async with (
        run_server(tmp_path, lambda _: fake, **settings) as server,
        Client(tmp_path) as client,
    ):
        await asyncio.wrap_future(server.scheduler.opened)
        await client.speak(1.0)
        await client.transcript()
        return list(server.status.answers)


@pytest.mark.parametrize("text", [HOME, "sentences: [it's party time]\n"])
async def test_a_command_is_compared_with_the_home(tmp_path: Path, text: str) -> None:
    fake = FakeTranscriber()
    await answer_of(tmp_path, fake, home=home_file(tmp_path, text), data_dir=(tmp_path / "data",))
    assert fake.requests
    assert all(grammars_of(options) is not None for _, options in fake.requests)


async def test_a_front_end_of_replicas_makes_no_grammar(tmp_path: Path) -> None:
    """It says which home it is; they make the grammars."""
    fake = FakeTranscriber()
    settings = {"backend": "ray", "data_dir": (tmp_path / "data",)}
    await answer_of(tmp_path, fake, home=home_file(tmp_path), **settings)
    homes = [options.home and options.home.home for _, options in fake.requests]
    assert {home and home.areas for home in homes} == {("Kitchen",)}
    assert [grammars_of(options) for _, options in fake.requests] == [None] * len(homes)
    assert not (tmp_path / "data" / "grammar").exists()


@pytest.mark.parametrize("case", ["no home", "an empty one", "bias_names is off"])
async def test_without_a_home_nothing_is(tmp_path: Path, case: str) -> None:
    settings: dict[str, object] = {"data_dir": (tmp_path / "data",)}
    if case == "an empty one":
        settings["home"] = home_file(tmp_path, "areas: []\n")
    if case == "bias_names is off":
        settings |= {"home": home_file(tmp_path), "bias_names": False}
    fake = FakeTranscriber()
    await answer_of(tmp_path, fake, **settings)
    assert [grammars_of(options) for _, options in fake.requests] == [None] * len(fake.requests)
    assert fake.requests


@pytest.mark.parametrize("shown", [False, True])
async def test_what_was_heard_is_kept_only_where_texts_are_shown(
    tmp_path: Path, shown: bool
) -> None:
    (answer,) = await answer_of(tmp_path, Understanding(), http_text=shown)
    assert answer.understood
    assert answer.is_corrected
    assert answer.free_text == ("Turn on the sealing lamp." if shown else None)
