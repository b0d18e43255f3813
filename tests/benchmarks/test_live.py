"""What benchmarks.live makes of what it heard, and that it hears it of a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import live
from benchmarks.clips import SECONDS_BEFORE
from benchmarks.live import LIVE, PLAIN, Take, different, judge, plain, row, show, spoken_at
from tests.support import AUDIO, HOME_EN

needs_model = pytest.mark.skipif(
    not (HOME_EN / "model.bin").exists(), reason="the bundled model is not here"
)


def take(**fields: Any) -> Take:
    values: dict[str, Any] = {
        "server": LIVE,
        "clip": "a",
        "said": "stop it now",
        "ended": 2.0,
        "stopped": 3.0,
        "chunks": [],
        "written": "Stop it now.",
        "at": 3.1,
        "cpu_seconds": 0.5,
    }
    return Take(**(values | fields))


def test_words_are_compared_without_marks_and_capitals() -> None:
    assert plain("It's 2.5, “Isn\u2019t it?” ok_") == ["it's", "2.5", "isn't", "it", "ok"]


def test_a_word_is_spoken_at_the_end_of_its_share_of_the_speech() -> None:
    assert spoken_at(["stop", "it", "now"], 1.0, 4.0) == [2.25, 3.0, 4.0]
    assert spoken_at([], 0.0, 1.0) == []


def test_words_are_counted_by_when_they_were_shown() -> None:
    words = judge(take(chunks=[(1.0, "Stop"), (2.5, " it"), (3.05, " now.")]))
    assert (words.total, words.before_end, words.live, words.sent, words.wrong) == (3, 1, 2, 2, 0)
    spoken = spoken_at(["stop", "it", "now"], SECONDS_BEFORE, 2.0)
    assert words.delays == [1.0 - spoken[0], 2.5 - spoken[1], 3.1 - spoken[2]]


def test_a_word_that_is_not_in_the_transcript_was_wrong() -> None:
    words = judge(take(chunks=[(1.0, "Stop at"), (1.5, " now")]))
    assert (words.before_end, words.sent, words.wrong) == (2, 3, 1)
    nothing = judge(take(written="", chunks=[(1.0, "Stop")]))
    assert (nothing.total, nothing.sent, nothing.wrong, nothing.delays) == (0, 1, 1, [])


def test_who_sends_no_live_text_shows_all_at_the_end() -> None:
    found = row(PLAIN, [take(server=PLAIN)], streams=False)
    assert (found.before_end, found.live, found.sent) == (0, 0, 0)
    table = show([row(LIVE, [take(chunks=[(1.0, "Stop it now")])], streams=True), found])
    assert "| shown before the speech was over" in table
    assert "100.0 %" in table


def test_a_transcript_that_depends_on_live_text_is_told() -> None:
    same = [take(), take(server=PLAIN)]
    assert different(same) == []
    other = [take(clip="b"), take(clip="b", server=PLAIN, written="Stop it.")]
    assert [found["clip"] for found in different([*same, *other])] == ["b"]


@needs_model
def test_a_clip_is_spoken_to_real_servers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "a.flac").write_bytes((AUDIO / "04-clean.flac").read_bytes())
    label = {"file": "a.flac", "text": "my top blue", "kind": "clean"}
    (clips / "labels.json").write_text(json.dumps([label]))
    report = tmp_path / "live.json"
    arguments = ["--clips", str(clips), "--no-official", "--threads", "1", "--json", str(report)]
    assert live.main([*arguments, "--silence", "0.4"]) == 0
    assert "The same transcript with live text and without: 1 of 1" in capsys.readouterr().out
    with_live, without = json.loads(report.read_text())["rows"]["Commands"]
    assert (with_live["streams"], without["streams"]) == (True, False)
    assert (with_live["words"], without["sent"]) == (3, 0)


@needs_model
def test_clips_are_followed_on_virtual_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "live.json"
    arguments = ["--agreeing", "1,2", "--limit", "1", "--threads", "1", "--json", str(report)]
    labels = [{"file": "04-clean.flac", "text": "my top blue", "kind": "clean"}]
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "04-clean.flac").write_bytes((AUDIO / "04-clean.flac").read_bytes())
    (clips / "labels.json").write_text(json.dumps(labels))
    assert live.main([*arguments, "--clips", str(clips)]) == 0
    one, two = json.loads(report.read_text())["utterances"]
    assert one["written"] == two["written"] == "my top blue"
    assert one["chunks"][0][0] < two["chunks"][0][0] < one["stopped"]
    assert "processor time" in capsys.readouterr().out


def test_a_folder_without_speech_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert live.main(["--clips", str(tmp_path), "--no-official"]) == 1
    assert capsys.readouterr().err.startswith("benchmarks.live: ")
