"""The benchmark of dictation: what is spoken, and what is counted."""

from __future__ import annotations

import numpy as np

from benchmarks.hearing.dictation import PAUSES, Dictated, all_clips, joined, tables
from benchmarks.lib.clips import Clip
from wyoming_whisper.transcriber import SAMPLE_RATE


def clip(text: str, seconds: float) -> Clip:
    return Clip(f"{text}.wav", text, "clean", np.ones(round(seconds * SAMPLE_RATE), np.float32))


def test_recordings_are_joined_with_pauses_until_there_are_enough() -> None:
    spoken = joined([clip("one", 4.0), clip("two", 6.0)], 60.0)
    assert 50 < spoken.seconds <= 60
    assert spoken.text.startswith("one two one two")
    speech = sum(len(one.samples) for one in spoken.clips)
    assert np.count_nonzero(spoken.samples) == speech
    silence = (len(spoken.samples) - speech) / SAMPLE_RATE / len(spoken.clips)
    assert PAUSES[0] <= silence <= PAUSES[1]


def test_words_lost_and_changed_are_counted() -> None:
    spoken = joined([clip("turn on the light", 4.0), clip("close the door", 4.0)], 10.0)
    found = Dictated(spoken.seconds, "Turn on light. Clothes the door", 0.5, 2**28, 2**27)
    words, facts = tables(spoken, ["Turn on the light", "Close the door"], found)
    beside_alone = words.splitlines()[2].split("|")[1:-1]
    assert [cell.strip() for cell in beside_alone[1:5]] == ["7", "1", "0", "1"]
    assert "500 ms" in facts
    assert "2 recordings" in facts


def test_the_projects_own_recordings_are_enough_to_try_it() -> None:
    clips = all_clips()
    assert len(clips) >= 2
    assert all(one.text for one in clips)
