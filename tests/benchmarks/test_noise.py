"""Sounds made for the benchmark of noise, and what it counts."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import noise
from benchmarks.noise import LEVELS, SOUNDS, Noise, Result, made, make, recorded, table
from benchmarks.servers import add_arguments
from tests.support import AUDIO, clips
from wyoming_whisper.transcriber import SAMPLE_RATE
from wyoming_whisper.vad import SileroVad


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_has_its_length_and_level_and_is_the_same_again(name: str) -> None:
    sound = make(name, 1.5, -35.0, 7)
    assert sound.dtype == np.float32
    assert sound.shape == (round(1.5 * SAMPLE_RATE),)
    assert np.abs(sound).max() <= 1
    level = 10 * np.log10(np.mean(np.square(sound, dtype=np.float64)))
    assert level == pytest.approx(-35, abs=1)  # less where the loudest of it is clipped
    np.testing.assert_array_equal(sound, make(name, 1.5, -35.0, 7))
    assert not np.array_equal(sound, make(name, 1.5, -35.0, 8))


def test_there_are_so_many_minutes_of_each_sound_at_all_levels() -> None:
    noises = list(made(seconds=1.0, minutes=0.1))
    assert Counter(one.sound for one in noises) == dict.fromkeys(SOUNDS, 6)
    for level in LEVELS:
        assert sum(f"at {level:g} dB" in one.name for one in noises) == 2 * len(SOUNDS)


def test_a_recording_is_cut_into_whole_commands() -> None:
    file = AUDIO / clips("long")[0].file
    found = list(recorded(file, 6.0))
    assert len(found) > 1
    assert {len(one.samples) for one in found} == {6 * SAMPLE_RATE}
    assert found[1].name == f"{file.name} from 6 s"


def test_our_model_is_asked_about_speech_alone() -> None:
    vad = SileroVad()
    speech = next(recorded(AUDIO / clips("long")[0].file, 4.0))
    assert noise.heard_as_speech(speech, vad)
    assert not noise.heard_as_speech(Noise("fan", "", make("fan", 4.0, -20.0, 0)), vad)


def test_the_table_counts_texts_and_hours() -> None:
    half_a_minute = np.zeros(30 * SAMPLE_RATE, np.float32)
    noises = [Noise("fan", "a", half_a_minute), Noise("hum", "b", half_a_minute)]
    results = [
        Result("fan", "a", 30.0, "theirs", "Thank you.", None),
        Result("fan", "a", 30.0, "ours", "", None),
        Result("hum", "b", 30.0, "ours", "", "it broke"),
        Result("hum", "b", 30.0, "theirs", "", None),
    ]
    lines = table(["ours", "theirs"], noises, Counter({"fan": 1}), results).splitlines()
    cells = {row[0]: row[1:] for row in ([c.strip() for c in x.split("|")[1:-1]] for x in lines)}
    assert cells["fan"] == ["1", "0.5", "1", "0", "1", "0", "120"]
    assert cells["hum"] == ["1", "0.5", "0", "0", "0", "0", "0"]
    assert cells["all"] == ["2", "1.0", "1", "0", "1", "0", "60"]


def test_the_official_server_hears_it_with_and_without_its_vad(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    programs = noise._programs(parser.parse_args(["--model", str(tmp_path)]))
    assert [program.name for program in programs] == ["ours", "official", "official, VAD"]
    assert ["--vad-filter" in program.command for program in programs] == [False, False, True]
    assert len(noise._programs(parser.parse_args(["--no-official"]))) == 1


def test_the_table_of_words_counts_those_that_are_heard() -> None:
    clip = next(recorded(AUDIO / clips("long")[0].file, 2.0)).samples
    lines = noise.words_table([("a voice", clip), ("nobody", np.zeros_like(clip))], SileroVad())
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines.splitlines()]
    assert rows[0] == ["spoken in", "words", "1 frame", "3 frames (ours)", "5 frames"]
    assert rows[2] == ["quiet", "2", "1", "1", "1"]
