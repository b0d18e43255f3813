"""Several channels to one: the average, and what stands in for it where channels cancel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wyoming_whisper.audio.pcm import Frames, PcmStream
from wyoming_whisper.transcriber import Samples

RATE = 16000
BLOCK = RATE // 100  # what is mixed in one way, at least


def noise(seconds: float, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def mixed(*channels: Samples) -> Samples:
    return PcmStream().mix(np.stack(channels, axis=1), RATE)


def average(*channels: Samples) -> Samples:
    mean: Samples = np.stack(channels, axis=1).mean(axis=1, dtype=np.float32)
    return mean


@pytest.mark.parametrize(
    "channels",
    [
        (noise(1), noise(1)),
        (noise(1), noise(1, seed=1)),  # nothing in common
        (noise(1), 0 * noise(1)),  # a jack with one contact
        (noise(1), 0.3 * noise(1)),
        (noise(1), -0.3 * noise(1)),
        (noise(1), -0.5 * noise(1) + 0.9 * noise(1, seed=1)),  # correlated by -0.5
        (0 * noise(1), 0 * noise(1)),
        (noise(1), noise(1, seed=1), noise(1, seed=2)),
    ],
)
def test_what_does_not_cancel_is_averaged_to_the_bit(channels: tuple[Samples, ...]) -> None:
    np.testing.assert_array_equal(mixed(*channels), average(*channels))


def test_of_two_that_cancel_the_louder_is_heard_after_one_block() -> None:
    voice = noise(1)
    got = mixed(-0.8 * voice, voice)
    np.testing.assert_array_equal(got[BLOCK:], voice[BLOCK:])
    np.testing.assert_allclose(got[:BLOCK], 0.1 * voice[:BLOCK], rtol=1e-4)


def test_one_of_four_that_cancel_is_heard() -> None:
    voice = noise(1)
    got = mixed(voice, -voice, voice, -voice)
    np.testing.assert_array_equal(np.abs(got[BLOCK:]), np.abs(voice[BLOCK:]))


def test_a_choice_stays_in_pauses_and_when_the_other_is_a_little_louder() -> None:
    """Speech, a pause with unrelated hiss, speech with the other channel a little louder."""
    voice = noise(0.5)
    hiss = (0.01 * noise(3, seed=1), 0.01 * noise(3, seed=2))
    left = np.concatenate([voice, hiss[0], voice])
    right = np.concatenate([-0.9 * voice, hiss[1], -1.1 * voice])
    np.testing.assert_array_equal(mixed(left, right)[BLOCK:], left[BLOCK:])


def test_hum_that_cancels_does_not_hide_who_speaks_into_one_of_the_channels() -> None:
    hum = (0.02 * np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE)).astype(np.float32)
    voice = np.concatenate([0 * noise(0.5), noise(0.5)])
    got = mixed(-hum, hum + voice)
    np.testing.assert_array_equal(
        got[RATE // 2 + 2 * BLOCK :], (hum + voice)[RATE // 2 + 2 * BLOCK :]
    )


def test_another_number_of_channels_begins_anew() -> None:
    voice, stream = noise(0.1), PcmStream()
    stream.mix(np.stack([voice, -voice], axis=1), RATE)
    np.testing.assert_array_equal(stream.mix(voice[:, None], RATE), voice)
    three = np.stack([voice, noise(0.1, seed=1), 0 * voice], axis=1)
    np.testing.assert_array_equal(stream.mix(three, RATE), average(*three.T))


@given(step=st.integers(1, 1000), delay=st.integers(0, 3))
def test_it_does_not_depend_on_how_the_audio_was_cut(step: int, delay: int) -> None:
    voice = noise(0.2)
    frames: Frames = np.stack([voice, -np.roll(voice, delay)], axis=1)
    pieces, whole = PcmStream(), PcmStream()
    got = [pieces.mix(frames[start : start + step], RATE) for start in range(0, len(frames), step)]
    np.testing.assert_array_equal(np.concatenate(got), whole.mix(frames, RATE))
