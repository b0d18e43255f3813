"""What is counted of commands after prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.hearing import prompts
from benchmarks.lib.corpus import Recording, write_manifest

LAMP = Recording(Path(), "lamp.wav", "turn on the lamp", "en", "command", "here")
COMMANDS = ("turn on the lamp", "what time is it", "pause music", "stop", "close blinds")


def test_a_command_is_after_its_own_text_and_after_others() -> None:
    by_kind = dict(prompts.prompts(LAMP, COMMANDS))
    assert "Turn on the lamp." in by_kind[prompts.OWN]
    assert "lamp" not in by_kind[prompts.OTHER]
    assert dict(prompts.prompts(LAMP, COMMANDS)) == by_kind


@pytest.mark.parametrize(
    ("answered", "is_right", "is_echo"),
    [
        ("Turn on the lamp", True, False),
        ("What time is it?", False, True),
        ("Turn on the lamb", False, False),
        ("", False, False),
    ],
)
def test_an_echo_is_the_prompt_s_and_wrong(answered: str, is_right: bool, is_echo: bool) -> None:
    prompt = "Turn on the lamp. What time is it."
    case = prompts._case("base", prompts.OWN, "clean", LAMP, answered, prompt, None)
    assert (case.is_right, case.is_echo) == (is_right, is_echo)


def test_a_whole_run(
    stock_tiny_en: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = Path(__file__).parents[2] / "audio" / "jfk.flac"
    (tmp_path / "jfk.flac").write_bytes(clip.read_bytes())
    said = (
        "And so my fellow Americans, ask not what your country can do for you, "
        "ask what you can do for your country."
    )
    row = {"file": "jfk.flac", "text": said, "lang": "en", "kind": "command", "source": "jfk"}
    write_manifest(tmp_path, [row])
    out = tmp_path / "out.json"
    argv = ["--corpus", str(tmp_path), "--part", "all", "--models", str(stock_tiny_en)]
    assert main(["prompts", *argv, "--json", str(out), "--show"]) == 0
    cases = [prompts.Case(**case) for case in json.loads(out.read_text())["cases"]]
    clean = [case for case in cases if case.condition == "clean"]
    assert [(case.prompt, case.is_right) for case in clean] == [("others", True), ("its own", True)]
    assert "tiny.en" in capsys.readouterr().out
