"""No transcript, and no model run, for what is no speech; a word, however short, is speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import AUDIO, Client, FakeTranscriber, clips, run_server
from tests.utterance.sounds import LEVELS, SOUNDS, make
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, Span, SpanOptions
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples

COMMAND_SECONDS = 6.0
OPTIONS = SpanOptions.of(Settings(data_dir=()))


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad()


def spans(samples: Samples, vad: SileroVad) -> list[Span]:
    speech = Speech(vad, OPTIONS)
    speech.add(samples)
    speech.finish()
    return speech.spans()


@pytest.mark.parametrize("decibels", LEVELS)
@pytest.mark.parametrize("sound", SOUNDS)
def test_the_model_is_not_asked_about_noise(sound: str, decibels: float, vad: SileroVad) -> None:
    for seed in range(3):
        samples = make(sound, COMMAND_SECONDS, decibels, seed)
        assert np.abs(samples).max() > 0
        assert spans(samples, vad) == []


@pytest.mark.parametrize("sound", ["fan", "music", "coughs", "keyboard"])
def test_a_voice_is_heard_in_the_same_noise(sound: str, vad: SileroVad) -> None:
    """Otherwise the test above could not fail."""
    for clip in clips("clean")[:4]:
        samples = read_audio(str(AUDIO / clip.file))
        noise = make(sound, len(samples) / SAMPLE_RATE + 1, -35.0, 0)
        noise[: len(samples)] += samples
        assert spans(noise, vad), clip


def test_a_word_of_a_quarter_of_a_second_is_speech(vad: SileroVad) -> None:
    """The loudest quarter of a second of each command, as short as "off"."""
    length = SAMPLE_RATE // 4
    for clip in clips("clean"):
        samples = read_audio(str(AUDIO / clip.file))
        loudness = np.convolve(np.square(samples), np.ones(length), mode="valid")
        start = int(np.argmax(loudness))
        word = np.pad(samples[start : start + length], SAMPLE_RATE)
        assert spans(word, vad), clip


async def test_noise_is_answered_with_an_empty_transcript(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with run_server(tmp_path, lambda _: fake), Client(tmp_path) as client:
        for sound in SOUNDS:
            await client.speak(samples=make(sound, 2.0, -35.0, 1), language="en")
            assert (await client.transcript()).text == ""
        assert fake.requests == []
        clip = read_audio(str(AUDIO / clips("clean")[0].file))
        await client.speak(samples=clip, language="en")
        assert (await client.transcript()).text != ""
        assert len(fake.requests) == 1
