"""Segments with the bundled model, on CTranslate2 and on our own search: the same, and true."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.test_equivalence import BEAM, Pair, open_pair
from tests.support import AUDIO, HOME_EN, Clip, clips, voice_probabilities, words
from wyoming_whisper.backends.faster_whisper import CTranslate2Inference
from wyoming_whisper.backends.pipeline import WhisperTranscriber
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.errors import NotPossibleError
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcription
from wyoming_whisper.whisper.inference import Inference
from wyoming_whisper.whisper.options import AudioContext, DecodingOptions

SPOKEN = [clip for clip in clips("clean") if clip.file[:2] in ("02", "07", "13")]
TIMED = TranscribeOptions("en", timestamps=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return open_pair(HOME_EN, tmp_path_factory.mktemp("graphs"))


def transcriber(inference: Inference, beam_size: int) -> WhisperTranscriber:
    options = DecodingOptions(
        beam_size=beam_size, audio_context=AudioContext.trained(), min_avg_logprob=-0.32
    )
    settings = Settings(model=str(HOME_EN))
    return WhisperTranscriber(inference, ModelFolder(HOME_EN), settings, options, "")


def on_both(
    pair: Pair, samples: Samples, options: TranscribeOptions, beam_size: int = 1
) -> tuple[Transcription, Transcription]:
    theirs = transcriber(CTranslate2Inference(pair.theirs), beam_size)
    ours = transcriber(pair.ours, beam_size)
    return theirs.transcribe(samples, options), ours.transcribe(samples, options)


@pytest.mark.parametrize("clip", SPOKEN, ids=lambda clip: clip.file)
def test_a_segment_is_where_it_is_spoken_and_timestamps_change_no_text(
    pair: Pair, clip: Clip
) -> None:
    samples = read_audio(AUDIO / clip.file)
    plain = on_both(pair, samples, TranscribeOptions("en"))
    for beam_size in (1, BEAM):
        for before, timed in zip(plain, on_both(pair, samples, TIMED, beam_size), strict=True):
            assert words(timed.text) == words(before.text) == words(clip.text)
            assert before.segments == ()
            texts = [segment.text for segment in timed.segments]
            assert all(text[0] == " " for text in texts)
            assert "".join(texts).strip() == timed.text
            # The gate judges the words alone, whatever the times are worth.
            assert timed.avg_logprob == pytest.approx(before.avg_logprob, abs=0.05)
            for segment in timed.segments:
                assert 0 <= segment.start < segment.end <= len(samples) / SAMPLE_RATE
    spoken_at = np.flatnonzero(voice_probabilities(samples) > 0.5) * 512 / SAMPLE_RATE
    assert timed.segments[0].start == pytest.approx(spoken_at[0], abs=0.4)
    assert timed.segments[-1].end == pytest.approx(spoken_at[-1], abs=0.4)


def test_both_runtimes_find_the_same_segments_in_long_audio(pair: Pair) -> None:
    (clip,) = clips("long")
    theirs, ours = on_both(pair, read_audio(AUDIO / clip.file), TIMED)
    assert len(theirs.segments) > 5
    starts = [segment.start for segment in theirs.segments]
    assert starts == sorted(starts)
    assert starts[-1] > 30
    for their, our in zip(theirs.segments, ours.segments, strict=True):
        assert (their.text, their.tokens, their.temperature) == (
            our.text,
            our.tokens,
            our.temperature,
        )
        assert (their.start, their.end) == pytest.approx((our.start, our.end))
        assert their.avg_logprob == pytest.approx(our.avg_logprob, abs=1e-3)
        assert their.no_speech_prob == pytest.approx(our.no_speech_prob, abs=1e-3)


def test_a_request_may_have_a_prompt_and_a_temperature_of_its_own(pair: Pair) -> None:
    samples = read_audio(AUDIO / SPOKEN[0].file)
    options = TranscribeOptions("en", prompt="Front yard.", temperature=0.4, timestamps=True)
    for found in on_both(pair, samples, options):
        assert {segment.temperature for segment in found.segments} == {0.4}


def test_words_have_times_where_the_runtime_tells_and_are_a_sentence_elsewhere(pair: Pair) -> None:
    samples = read_audio(AUDIO / SPOKEN[0].file)
    theirs = transcriber(CTranslate2Inference(pair.theirs), BEAM)
    options = TranscribeOptions("en", timestamps=True, words=True)
    found = theirs.transcribe(samples, options)
    heard = [word for segment in found.segments for word in segment.words]
    assert words(" ".join(word.text for word in heard)) == words(SPOKEN[0].text)
    spoken_at = np.flatnonzero(voice_probabilities(samples) > 0.5) * 512 / SAMPLE_RATE
    assert heard[0].start == pytest.approx(spoken_at[0], abs=0.2)
    assert heard[-1].start > heard[-2].start > spoken_at[0] + 1.0
    assert heard[-1].end < spoken_at[-1] + 0.2
    # The graphs for TensorRT give no attention.
    with pytest.raises(NotPossibleError, match="faster-whisper and onnxruntime have them"):
        transcriber(pair.ours, 1).transcribe(samples, options)


def test_who_knows_english_alone_translates_nothing(pair: Pair) -> None:
    with pytest.raises(NotPossibleError, match="English"):
        on_both(pair, np.zeros(SAMPLE_RATE, np.float32), TranscribeOptions(task="translate"))
