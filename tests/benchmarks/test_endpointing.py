"""What benchmarks.endpointing counts, and that its virtual time is that of the audio."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.client import command_events
from benchmarks.clips import ClipError
from benchmarks.endpointing import (
    Command,
    Row,
    Take,
    Virtual,
    audio_chunks,
    hesitating,
    last_word,
    read_commands,
    rows,
    spread,
    table,
    with_tail,
)
from tests.support import AUDIO, HOME_EN, clips, loud, quiet
from wyoming_whisper.endpointing import EndpointOptions


def take(end: float | None, who: str = "ours", last: float = 2.0) -> Take:
    return Take("virtual", "barista", "none", who, "a.flac", last, end)


def test_the_last_word_ends_where_it_was_last_loud() -> None:
    click = np.zeros(16000, np.float32)
    click[8000:8200] = 0.9  # shorter than speech
    samples = np.concatenate([quiet(0.5), loud(1.0), quiet(0.3), loud(0.5), click])
    assert last_word(samples) == pytest.approx(2.3, abs=0.02)
    assert last_word(samples + np.float32(0.01)) == pytest.approx(2.3, abs=0.02)
    assert last_word(quiet(0.01)) == pytest.approx(0.01)


def test_a_hesitation_moves_the_last_word_and_changes_nothing_else() -> None:
    samples = np.concatenate([loud(1.0), quiet(0.06), loud(1.0), quiet(1.0)])
    command = Command("barista", "a.flac", samples, 2.06)
    slower = hesitating(command, 0.8)
    assert slower.last_word == pytest.approx(2.86)
    assert last_word(slower.samples) == pytest.approx(2.86, abs=0.02)
    assert len(slower.samples) == len(samples) + round(0.8 * 16000)
    assert not slower.samples[round(1.05 * 16000) : round(1.8 * 16000)].any()


def test_noise_is_as_far_below_speech_as_was_asked() -> None:
    command = Command("barista", "a.flac", 0.2 * loud(1.0), 1.0)
    noise = np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    heard = with_tail(command, noise, 20.0)
    assert len(heard) == 5 * 16000
    rest = float(np.sqrt(np.mean(np.square(heard[16000:]))))
    assert rest == pytest.approx(0.2 * 0.5 * 0.1, rel=0.02)
    assert not with_tail(command, None, None)[16000:].any()


def test_what_is_counted() -> None:
    row = Row([take(1.5), take(1.99), take(2.5), take(2.7), take(None)])
    assert (row.cut_off, row.never, len(row.late)) == (1, 1, 3)
    assert row.cells() == ["5", "1 (20.0 %)", "1", "0.50 s", "0.70 s", "-"]
    written = replace(take(2.6), text="stop")
    assert Row([*row.takes, written]).cells()[-1] == "0.60 s (1)"
    assert Row([take(None)]).cells()[-3:] == ["-", "-", "-"]
    both = [take(2.5), take(2.5, "official"), take(2.6)]
    assert [len(row.takes) for row in rows(both).values()] == [2, 1]
    assert "| official " in table(both)


def test_a_sample_is_of_all() -> None:
    commands = [Command("a", str(number), quiet(0.1), 0.1) for number in range(10)]
    assert [command.file for command in spread(commands, 3)] == ["0", "3", "6"]
    assert len(spread(commands, 100)) == 10


def test_virtual_chunks_are_those_that_a_client_sends() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    sent = [event.payload for event in command_events(samples, chunk_ms=32)][2:]
    assert [chunk.audio for chunk in audio_chunks(samples, 512)] == sent


def test_a_folder_without_recordings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no recordings"):
        read_commands([tmp_path], None)


def test_virtual_time_is_the_audios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.MAX_AHEAD_SECONDS", 1.0)  # restored at the end
    args = argparse.Namespace(
        threads=1, compute_type="int8", model=HOME_EN, draft_ms=100, chunk_ms=32
    )
    virtual = Virtual(args)
    clip = clips("clean")[7]
    (command,) = (c for c in read_commands([AUDIO], None) if c.file == clip.file)
    audio = with_tail(command, None, None)
    auto, text = virtual.end(audio, EndpointOptions())
    fixed, _ = virtual.end(audio, EndpointOptions(1.0))
    never, _ = virtual.end(audio[: len(command.samples) // 2], EndpointOptions(1.0))
    assert text.lower() == clip.text
    assert auto is not None
    assert fixed is not None
    assert command.last_word + 0.3 < auto < fixed < command.last_word + 1.3
    assert never is None
