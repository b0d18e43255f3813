"""Commands of a household: the lists of clips, what servers are told, what is counted."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.__main__ import main
from benchmarks.hearing import household
from benchmarks.hearing.household import clips, home_file, program
from benchmarks.hearing.household.clips import PARTS, Clip, make, read_list, under
from benchmarks.hearing.household.counts import Answer, Count, counts, shown, stages, tables
from benchmarks.hearing.household.noises import KINDS, noise
from benchmarks.hearing.household.prompt import official_prompt
from benchmarks.lib import spoken
from benchmarks.lib.client import Heard
from benchmarks.lib.errors import BenchmarkError, ClipError
from benchmarks.lib.synthesizers import VOICES
from benchmarks.lib.understood import Home, languages, meaning
from tests.support import AUDIO, HOME_EN, loud
from wyoming_whisper.home.inventory import Entity
from wyoming_whisper.transcriber import Samples

ON, OFF = "turn on the bedroom light", "turn off the bedroom light"

# -- the lists -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lists() -> dict[str, list[Clip]]:
    return {part: read_list(part) for part in PARTS}


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(PARTS, 2)))
def test_nothing_is_in_two_parts(one: str, other: str, lists: dict[str, list[Clip]]) -> None:
    both = [lists[one], lists[other]]
    for field in ("file", "name"):
        assert not set.intersection(*({getattr(clip, field) for clip in part} for part in both))
    said = ({(clip.lang, clip.text.casefold()) for clip in part if clip.text} for part in both)
    assert not set.intersection(*said)
    voices = ({clip.voice for clip in part if clip.voice in VOICES} for part in both)
    assert not set.intersection(*voices)


@pytest.mark.parametrize("part", ["test", "fresh"])
def test_there_is_enough_to_measure_with(part: str, lists: dict[str, list[Clip]]) -> None:
    test = lists[part]
    commands = [one for one in test if one.kind == "command"]
    assert len([one for one in commands if one.condition != "room" or one.lang == "en"]) >= 300
    assert len({one.lang for one in commands}) >= 8
    assert sum(one.kind == "other" for one in test) >= 300
    assert sum(one.kind == "noise" for one in test) >= 150


@pytest.mark.parametrize("part", ["test", "fresh"])
def test_every_command_is_understood_as_it_is_said(part: str, lists: dict[str, list[Clip]]) -> None:
    said = {(one.lang, one.text or ""): one.kind for one in lists[part]}
    commands = [key for key, kind in said.items() if kind == "command"]
    assert [key for key in commands if meaning(key[1], key[0], PARTS[part]) is None] == []
    others = [key for key, kind in said.items() if kind in ("near", "other")]
    assert [key for key in others if meaning(key[1], key[0], PARTS[part])] == []


def test_every_language_of_a_command_has_a_household(lists: dict[str, list[Clip]]) -> None:
    for part, homes in PARTS.items():
        spoken_there = {one.lang for one in lists[part] if one.kind == "command"}
        assert spoken_there <= set(languages(homes))


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("[]", "line 1"),
        ('{"file": "a.wav"}', "line 1: .*missing"),
        ('{"file": "a.wav", "lang": "en", "kind": "song", "text": ""}', "'song' is no kind"),
    ],
)
def test_a_list_with_a_mistake(tmp_path: Path, line: str, mistake: str) -> None:
    (tmp_path / "fit.jsonl").write_text(line + "\n")
    with pytest.raises(ClipError, match=mistake):
        read_list("fit", tmp_path)


def test_a_clip_is_there_once(tmp_path: Path) -> None:
    row = json.dumps({"file": "a.wav", "lang": "en", "kind": "noise", "text": ""})
    (tmp_path / "fit.jsonl").write_text(f"{row}\n{row}\n")
    with pytest.raises(ClipError, match="line 2: a is there twice"):
        read_list("fit", tmp_path)


# -- what is heard -------------------------------------------------------------------------


def clip(file: str = "02-clean.flac", **fields: Any) -> Clip:
    return Clip(**{"file": file, "lang": "en", "kind": "command", "text": ON, **fields})


def test_a_part_of_a_recording() -> None:
    whole = clip().samples([AUDIO])
    part = clip(start=0.5, seconds=0.25).samples([AUDIO / "none", AUDIO])
    assert len(whole) - len(part) > 0
    assert len(part) == round((0.2 + 0.25 + 0.8) * 16000)
    assert clip(start=0.5, seconds=0.25).name == "02-clean+0.5s"


def test_a_recording_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"x\.wav is in none of"):
        clip("x.wav").samples([tmp_path])


def test_conditions() -> None:
    speech = loud(1.0)
    assert under(speech, "", "a") is speech
    assert len(under(speech, "fast1.25", "a")) == pytest.approx(len(speech) / 1.25, abs=2)
    far = under(speech, "room", "a")
    assert np.array_equal(far, under(speech, "room", "a"))
    assert not np.array_equal(far, under(speech, "room", "b"))
    assert not np.array_equal(under(speech, "noise10", "a"), speech)
    with pytest.raises(ClipError, match="'loud' is none of room, noiseN, fastN"):
        under(speech, "loud", "a")


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_noises_are_sounds_and_always_the_same(kind: int) -> None:
    sound = noise("a", kind)
    assert 1.5 <= len(sound) / 16000 <= 5
    assert np.isfinite(sound).all()
    assert 0.01 < np.abs(sound).max() <= 0.51
    assert np.array_equal(sound, noise("a", kind))
    assert not np.array_equal(sound[:16000], noise("b", kind)[:16000])


STAND_IN = """
import json, sys, wave
for line in sys.stdin:
    job = json.loads(line)
    assert (job["voice"], job["lang"], job["pace"]) == ("joe", "en", 1.2)
    with wave.open(job["file"], "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"0" * 3200)
"""


def test_what_is_missing_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "synthesizers.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(spoken, "SYNTHESIZERS", script)
    made = [
        clip("joe/a.wav", voice="joe", pace=1.2),
        clip("made/test-03.wav", kind="noise", text=""),
        clip("people/b.flac", voice="human"),
    ]
    make(tmp_path / "made", made, sys.executable)
    assert len(made[0].samples([tmp_path / "made"])) > 0
    assert len(made[1].samples([tmp_path / "made"])) > 16000
    assert not (tmp_path / "made" / "people").exists()
    script.write_text("raise SystemExit('spoken twice')")
    make(tmp_path / "made", made, sys.executable)


# -- servers -------------------------------------------------------------------------------

ASKED = argparse.Namespace(threads=1, beam_size=0, compute_type="int8", part="test")


def last(command: tuple[str, ...], flag: str) -> str:
    return command[len(command) - command[::-1].index(flag)]


def test_who_is_told_of_the_home(tmp_path: Path) -> None:
    started = {
        name: program(name, ASKED, HOME_EN, "en", tmp_path).command
        for name in ("ours", "ours-ort-home", "official", "official-plain")
    }
    assert [name for name, one in started.items() if "--home" in one] == ["ours-ort-home"]
    assert [name for name, one in started.items() if "--initial-prompt" in one] == ["official"]
    assert last(started["ours-ort-home"], "--backend") == "onnxruntime"
    assert last(started["official"], "--initial-prompt").startswith("Living Room, Kitchen,")
    assert all(last(one, "--language") == "en" for one in started.values())


@pytest.mark.parametrize("name", ["theirs", "ours-home-fw", "official-home"])
def test_no_server_has_another_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BenchmarkError, match="there is no server"):
        program(name, ASKED, HOME_EN, "en", tmp_path)


def test_a_home_is_written_without_who_speaks(tmp_path: Path) -> None:
    content = yaml.safe_load(home_file("de", tmp_path).read_text(encoding="utf-8"))
    assert set(content) == {"areas", "floors", "entities"}
    assert {"name": "Haustür", "domain": "lock"} in content["entities"]


HOME = Home(
    areas={"Kitchen": "Kitchen", "Galley": "Kitchen"},
    floors={"Attic": "Attic"},
    entities=(
        Entity(("Front Door", "Door"), "lock"),
        Entity(("Lamp", "kitchen", "Big Light"), "light"),
    ),
    satellite="Kitchen",
)


def test_the_official_prompt_has_places_then_what_is_named_aloud_then_the_rest() -> None:
    prompt = official_prompt(HOME, lambda text: len(text.split()))
    assert prompt == "Kitchen, Galley, Attic, Lamp, Big Light, Front Door, Door."


def test_the_official_prompt_ends_before_the_name_that_is_too_much() -> None:
    def count(text: str) -> int:
        return 201 if "Big Light" in text else 1

    assert official_prompt(HOME, count) == "Kitchen, Galley, Attic, Lamp."


class FakeServer:
    """Says what it is told to, and logs as ours does."""

    def __init__(self, name: str, texts: Sequence[str]) -> None:
        self.name = self.uri = name
        self.log = ""
        self.waited: list[str] = []
        self._texts = list(texts)

    async def say(self, samples: Samples, language: str) -> Heard:
        assert language == "en"
        self.log += (
            "INFO 1.0 s of audio answered 0.100 s after its end "
            "(begun early: encode 0.200, grammar 0.050)\n"
        )
        return Heard(f" {self._texts.pop(0)}\n", 0.1)

    def until_logged(self, line: str) -> None:
        self.waited.append(line)


def test_servers_hear_every_clip_once_they_know_the_sentences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fakes = {name: FakeServer(name, ["warm", ON, OFF]) for name in ("ours-ort", "ours-ort-home")}

    async def say(uri: str, samples: Samples, *, language: str) -> Heard:
        return await fakes[uri].say(samples, language)

    monkeypatch.setattr(household, "say", say)
    servers: Any = list(fakes.values())
    both = [clip(), clip(start=0.0, seconds=1.0, kind="other")]
    found = list(household.hear("base", servers, both, [AUDIO], "test"))
    assert [(one.server, one.clip, one.written) for one in found] == [
        ("ours-ort", "02-clean", ON),
        ("ours-ort-home", "02-clean", ON),
        ("ours-ort-home", "02-clean+0s", OFF),
        ("ours-ort", "02-clean+0s", OFF),
    ]
    assert found[0].stages == {"encode": 0.2, "grammar": 0.05}
    assert [fake.waited for fake in fakes.values()] == [[], [household.HAS_GRAMMAR]]


# -- what is counted -----------------------------------------------------------------------


def answer(server: str, kind: str, said: str, written: str, **fields: Any) -> Answer:
    values = {"model": "base", "clip": f"{kind} {said}", "lang": "en", "seconds": 0.1, **fields}
    return Answer(server=server, kind=kind, said=said, written=written, **values)


def pairs(*rows: tuple[str, str, str, str], added: float = 0.05) -> list[Answer]:
    """Return answers of both servers for (kind, said, free text, text)."""
    free = [answer("ours-ort", kind, said, text) for kind, said, text, _ in rows]
    known = [
        answer("ours-ort-home", kind, said, text, stages={"encode": 0.2, "grammar": added})
        for kind, said, _, text in rows
    ]
    return [*free, *known]


ANSWERS = pairs(
    ("command", ON, "turn on the bad room light", "Turn on the bedroom light."),
    ("command", OFF, OFF, OFF),
    ("command", "what time is it", "what time", ON),
    ("near", "pull the blinds", "pull the blinds", ON),
    ("other", "turn on, tune in", "Turn on, tune in.", "Turn on, tune in."),
    ("other", "how old are you", "how old are you", "How old are you?"),
    ("noise", "", "", ON),
    ("noise", "", "lol", "lol"),
)


def test_answers_are_counted_beside_those_without_the_home() -> None:
    found = counts(ANSWERS)
    free, known = found["base", "ours-ort"], found["base", "ours-ort-home"]
    assert [sum(a.is_understood for a in one.of("command")) for one in (free, known)] == [1, 2]
    assert [sum(a.is_another for a in one.of("command")) for one in (free, known)] == [0, 1]
    assert (free.has_free, known.has_free) == (False, True)
    assert [a.written for a in known.changed] == ["How old are you?", ON]
    assert [a.kind for a in known.made_up] == ["near", "noise"]
    assert not free.made_up


def test_time_is_counted_by_whether_the_free_text_was_understood() -> None:
    known = counts(ANSWERS)["base", "ours-ort-home"]
    assert known.added(understood=True) == [0.05]
    assert known.added(understood=False) == [0.05, 0.05]
    assert Count(known.answers).added(understood=True) == []


def test_stages_are_those_of_the_last_answer() -> None:
    log = (
        "INFO 2.0 s of audio answered 0.1 s after its end by a:1 (mel 0.001)\n"
        "INFO 2.0 s of audio answered 0.1 s after its end (begun early: mel 0.002, decode 0.1)\n"
    )
    assert stages(log) == {"mel": 0.002, "decode": 0.1}
    assert stages("INFO ready\n") == {}


def test_tables_and_what_went_wrong() -> None:
    summary, _, by_language, _, times = tables(ANSWERS)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in summary.splitlines()]
    assert rows[2][2:10] == ["1 of 3 (33.3 %)", "0", "0 of 1", "-", "0 of 2", "1", "0 of 2", "0"]
    assert rows[3][2:7] == ["2 of 3 (66.7 %)", "1", "1 of 1", "1 of 2 (50.0 %)", "0 of 2"]
    assert "| all      |        3 |        1 |             2 |" in by_language.splitlines()
    assert by_language.splitlines()[-1].startswith("| far away |        0 |")
    assert times.splitlines()[-1].count("25.0 %") == 2
    lines = list(shown(ANSWERS))
    assert "base, ours-ort-home, another: command what time is it ('what time is it')" in "".join(
        line for line in lines
    )
    assert sum("made up" in line for line in lines) == 2


# -- the command ---------------------------------------------------------------------------


def test_tables_are_printed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.json"
    rows = [{**vars(one), "stages": dict(one.stages)} for one in pairs(("command", ON, ON, ON))]
    file.write_text(json.dumps({"answers": rows}))
    assert main(["household", "--read", str(file), "--show"]) == 0
    assert "1 of 1 (100.0 %)" in capsys.readouterr().out
    file.write_text("{}")
    assert main(["household", "--read", str(file)]) == 1
    assert "a.json can't be read" in capsys.readouterr().err


def test_our_server_hears_a_household(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        household, "read_list", lambda part: [clip(), clip("made/test-00.wav", kind="noise")]
    )
    file = tmp_path / "found.json"
    argv = ["--voices", str(AUDIO), "--spoken", str(tmp_path), "--models", str(HOME_EN)]
    argv += ["--servers", "ours-fw", "--threads", "1", "--json", str(file)]
    assert main(["household", *argv]) == 0
    found = json.loads(file.read_text())["answers"]
    assert [(one["clip"], one["error"]) for one in found] == [
        ("02-clean", None),
        ("made/test-00", None),
    ]
    assert found[0]["written"] == "change our front yard window to seventy one percent"
    assert found[0]["stages"]["encode"] > 0
    assert "Commands understood" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "mistake"),
    [
        (["--servers", "x"], "there is no server 'x'"),
        (["--languages", "xx"], "no clip is what was asked for"),
    ],
)
def test_what_is_wrong_is_said(
    capsys: pytest.CaptureFixture[str], argv: list[str], mistake: str
) -> None:
    assert main(["household", "--models", str(HOME_EN), *argv]) == 1
    assert mistake in capsys.readouterr().err


def test_clips_are_limited_by_kind_and_language(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [clip(f"{lang}{n}.wav", lang=lang) for n in range(3) for lang in ("en", "de", "xx")]
    monkeypatch.setattr(household, "read_list", lambda part: listed)
    args = argparse.Namespace(part="test", kinds=("command",), languages=(), limit=2)
    assert [one.file for one in household.chosen(args)] == [
        "en0.wav",
        "de0.wav",
        "en1.wav",
        "de1.wav",
    ]
    assert clips.is_made(clip("joe/a.wav", voice="joe"))
