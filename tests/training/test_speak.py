import io
import random
import wave
from pathlib import Path

import numpy as np
import pytest

from training import speak
from training.speak import Job


def wav(samples: np.ndarray, rate: int, claimed: int = 0) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.setnframes(claimed)
        file.writeframes(samples.astype(np.int16).tobytes())
    return buffer.getvalue()


def test_a_wave_is_brought_to_16_khz() -> None:
    tone = 8000 * np.sin(np.arange(22050) * 0.05)
    assert abs(len(speak.read_wave(wav(tone, 22050))) - 16000) <= 2
    assert len(speak.read_wave(wav(tone, 16000))) == 22050


def test_silence_around_speech_is_cut() -> None:
    sound = np.zeros(32000, np.int16)
    sound[8000:16000] = 5000
    cut = speak.trimmed(sound)
    assert cut is not None
    assert len(cut) == 400 + 8000 + 799
    assert cut.max() == 20000


@pytest.mark.parametrize("sound", [np.zeros(16000, np.int16), np.zeros(0, np.int16)])
def test_no_speech_is_left_out(sound: speak.Samples) -> None:
    assert speak.trimmed(sound) is None


def test_held_out_voices_are_never_trained_on() -> None:
    r = random.Random(1)
    trained = {speak.train_job("hello", r).voice for _ in range(3000)}
    held_out = {speak.espeak_job("hello", True, r).voice for _ in range(200)}
    assert not trained & held_out
    assert not trained & {"slt", "cmu_us_slt_arctic_hts"}
    assert {voice.split("+")[1] for voice in held_out} == set(speak.HELD_OUT_VARIANTS)


def test_festival_says_many_at_once() -> None:
    jobs = [Job(str(i), "festival" if i % 2 else "espeak", "kal") for i in range(50)]
    batches = list(speak.batched(jobs))
    assert sorted(int(job.text) for batch in batches for job in batch) == list(range(50))
    assert max(map(len, batches)) == speak.FESTIVAL_BATCH


def test_a_shard_is_read_as_it_was_written(tmp_path: Path) -> None:
    spoken = [(Job(f"text {n}", "flite", "awb"), np.full(n, n, np.int16)) for n in (3, 1, 4)]
    speak.write_shard(tmp_path / "train-000", spoken)
    loaded = speak.load(tmp_path, "train")
    assert [u.text for u, _ in loaded] == ["text 3", "text 1", "text 4"]
    assert [list(samples) for _, samples in loaded] == [[3] * 3, [1], [4] * 4]
    assert speak.load(tmp_path, "dev") == []
