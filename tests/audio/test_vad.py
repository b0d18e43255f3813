"""Spans of speech from probabilities; Silero itself on real sound."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import AUDIO, clips, voice_probabilities
from wyoming_whisper.audio.speech import Section
from wyoming_whisper.audio.vad import FRAME_SAMPLES, SileroVad, Span, SpanOptions
from wyoming_whisper.commands.client import read_audio

F = FRAME_SAMPLES
NO_PAD = SpanOptions(0.5, 0.0, 0.1, 0.0, 0.0, min_sure_frames=1)


@pytest.mark.parametrize(
    ("probabilities", "options", "spans"),
    [
        ([], NO_PAD, []),
        ([0.1, 0.4, 0.1], NO_PAD, []),
        ([0.0, 0.9, 0.9, 0.0], NO_PAD, [(F, 3 * F)]),
        ([0.9, 0.9], NO_PAD, [(0, 2 * F)]),
        # once begun, a span goes on until the probability falls clearly below the threshold
        ([0.6, 0.4, 0.36, 0.3, 0.4], NO_PAD, [(0, 3 * F)]),
        # a pause of 3 frames (96 ms) is shorter than 0.1 s, one of 4 is longer
        ([0.9, 0, 0, 0, 0.9], NO_PAD, [(0, 5 * F)]),
        ([0.9, 0, 0, 0, 0, 0.9], NO_PAD, [(0, F), (5 * F, 6 * F)]),
        ([0.9, 0, 0, 0, 0, 0.9, 0.9], SpanOptions(0.5, 0.05, 0.1, 0.0, 0.0, 1), [(5 * F, 7 * F)]),
    ],
)
def test_probabilities_become_spans(
    probabilities: list[float], options: SpanOptions, spans: list[Span]
) -> None:
    found = np.array(probabilities, np.float32)
    assert options.spans(found, len(found) * F) == spans


def test_a_moment_above_the_threshold_is_no_speech() -> None:
    options = SpanOptions(0.5)
    assert options.sure == pytest.approx(0.6)
    for probabilities in ([0.99, 0.99, 0.5], [0.55] * 20, [0.7, 0, 0.7]):
        found = np.array(probabilities, np.float32)
        assert options.spans(found, len(found) * F) == []
    found = np.array([0.7, 0.1, 0.7, 0.7], np.float32)
    assert options.spans(found, 4 * F) != []
    assert 0.95 < SpanOptions(0.95).sure < 1.0


def test_padding_stays_inside_and_neighbours_share_a_narrow_gap() -> None:
    pad = 4 * F / 16000
    options = SpanOptions(0.5, 0.0, 0.1, pad, pad, min_sure_frames=1)
    found = np.zeros(40, np.float32)
    found[[2, 10, 30]] = 1.0
    spans = options.spans(found, 40 * F - 7)
    assert spans == [(0, 13 * F // 2), (13 * F // 2, 15 * F), (26 * F, 35 * F)]
    found = np.zeros(12, np.float32)
    found[[1, 6]] = 1.0
    spans = options.spans(found, 12 * F)
    assert spans == [(0, 4 * F), (4 * F, 11 * F)]
    found = np.array([0, 0, 0, 0, 0, 1, 0, 0, 0], np.float32)
    before, after = F / 16000, 2 * F / 16000
    uneven = SpanOptions(pad_before_seconds=before, pad_after_seconds=after, min_sure_frames=1)
    assert uneven.spans(found, 9 * F) == [(4 * F, 8 * F)]


def test_cut_keeps_only_the_spans() -> None:
    samples = np.arange(10, dtype=np.float32)
    section = Section(0, samples, samples)
    assert section.cut([(1, 3), (5, 6)]).tolist() == [1, 2, 5]
    assert section.cut([(2, 4)]).tolist() == [2, 3]


def test_silero_hears_every_voice_and_no_silence() -> None:
    for clip in clips():
        samples = read_audio(str(AUDIO / clip.file))
        heard = voice_probabilities(samples).max() >= 0.5
        assert heard == bool(clip.text), clip


@pytest.mark.parametrize("step", [160, 512, 1000, 4096])
def test_a_stream_hears_what_the_whole_hears(step: int) -> None:
    samples = read_audio(str(AUDIO / clips("noisy")[0].file))
    stream = SileroVad().stream()
    parts = [stream.push(samples[i : i + step]) for i in range(0, len(samples), step)]
    heard = np.concatenate([*parts, stream.finish()])
    np.testing.assert_allclose(heard, voice_probabilities(samples), atol=1e-5)


def test_probabilities_cover_a_last_short_frame() -> None:
    assert len(voice_probabilities(np.zeros(0, np.float32))) == 0
    assert len(voice_probabilities(np.zeros(1, np.float32))) == 1
    assert len(voice_probabilities(np.zeros(513, np.float32))) == 2
