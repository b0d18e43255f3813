"""Long utterances: pieces while they are spoken, nothing lost or doubled, and bounded memory."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import AUDIO, LoudnessVad, clips, loud, quiet, words
from wyoming_whisper.audio.pcm import PcmFormat
from wyoming_whisper.audio.speech import Section, Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions, Vad
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.errors import BusyError, ModelUnavailableError, TranscribeError
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.status import Answer
from wyoming_whisper.text.evidence import Voicing
from wyoming_whisper.text.style import TextStyle
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcription
from wyoming_whisper.utterance import utterance
from wyoming_whisper.utterance.budget import Budget
from wyoming_whisper.utterance.dictation import Dictation, _Part, _together
from wyoming_whisper.utterance.job import Job, Priority
from wyoming_whisper.utterance.languages import SpokenLanguages
from wyoming_whisper.utterance.live import LiveText
from wyoming_whisper.utterance.service import Service
from wyoming_whisper.utterance.utterance import Utterance

SPANS = SpanOptions.of(Settings())
RATE = 16000


class Desk(Service):
    """The server of an utterance: keeps the jobs, and does them when told, or at once."""

    span_options = SPANS
    text_style = TextStyle()
    eager = True

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.max_utterance_samples = 900 * SAMPLE_RATE
        self.held_audio = Budget(1800 * SAMPLE_RATE, "audio")
        self.deadline_seconds = 0
        self.spoken = SpokenLanguages()
        self.vad: Vad | None = LoudnessVad()
        self.jobs: list[Job] = []
        self.answers: list[Answer] = []
        self.error: Exception | None = None

    async def loaded_vad(self) -> Vad:
        assert self.vad
        return self.vad

    def wake(self) -> None: ...

    def submit(self, samples: Samples, options: TranscribeOptions, priority: Priority) -> Job:
        if self.error:
            raise self.error
        job = Job(samples, options, priority)
        self.jobs.append(job)
        if self.at_once:
            self.do(job)
        return job

    def do(self, job: Job, error: Exception | None = None) -> None:
        future: Future[Transcription] = job.future
        if not future.set_running_or_notify_cancel():
            return
        if error:
            future.set_exception(error)
            return
        text = said(job.samples)
        language = job.options.language or "de"
        future.set_result(
            Transcription(text, language, n_tokens=4, avg_logprob=-0.1, stages={"decode": 1.0})
        )

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)


def said(samples: Samples) -> str:
    """Return a sentence for each phrase: phrases differ in their level."""
    levels = np.unique(np.round(200 * samples[samples > 0]).astype(int))
    return " ".join(f"Phrase {level}." for level in levels)


def say(spoken: Utterance, *parts: Samples, step: int = 1600) -> None:
    pcm = (np.concatenate(parts) * 32767).astype("<i2")
    for start in range(0, len(pcm), step):
        spoken.add(PcmFormat(RATE, 2, 1), pcm[start : start + step].tobytes())


def phrases(count: int, seconds: float = 4.0, pause: float = 1.0) -> list[Samples]:
    """Phrases that can be told apart by their level."""
    return [
        part
        for number in range(count)
        for part in (loud(seconds) * (0.4 + 0.02 * number), quiet(pause))
    ]


@pytest.mark.parametrize("is_spoken", [False, True])
async def test_pieces_are_transcribed_while_they_are_spoken(
    monkeypatch: pytest.MonkeyPatch, is_spoken: bool
) -> None:
    if is_spoken:
        monkeypatch.setattr(utterance.Utterance, "MAX_AHEAD_SECONDS", float("inf"))
    desk = Desk()
    spoken = Utterance(desk, TranscribeOptions("en"))
    say(spoken, *phrases(24))  # two minutes
    before = len(desk.jobs)
    assert before >= 4
    assert all(len(job.samples) <= Section.WHOLE_SECONDS * SAMPLE_RATE for job in desk.jobs)
    transcription = await spoken.transcription()
    assert len(desk.jobs) <= before + 1  # at the end, one piece at most
    assert transcription.seconds == 120.0
    # Each once and in order, in the style of the whole.
    assert transcription.text == said(np.concatenate(phrases(24))).rstrip(".")
    assert desk.held_audio.free == 1800 * SAMPLE_RATE


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.tuples(st.floats(0.2, 45.0), st.floats(0.0, 35.0)), min_size=1, max_size=4),
    step=st.integers(500, 20_000),
)
def test_no_sample_of_speech_is_lost_or_doubled(
    parts: list[tuple[float, float]], step: int
) -> None:
    """Speech of any length, with pauses of any length or none."""
    rng = np.random.default_rng(len(parts))
    audio = np.concatenate(
        [
            np.concatenate([rng.uniform(0.2, 0.9, round(on * RATE)), np.zeros(round(off * RATE))])
            for on, off in parts
        ]
    )
    pcm = (audio * 32767).astype("<i2")

    async def heard() -> list[Samples]:
        desk = Desk()
        desk.eager = False  # what is begun early may be dropped
        spoken = Utterance(desk, TranscribeOptions("en"))
        for start in range(0, len(pcm), step):
            spoken.add(PcmFormat(RATE, 2, 1), pcm[start : start + step].tobytes())
        await spoken.transcription()
        return [job.samples for job in desk.jobs]

    whole, position = (pcm / 32768).astype(np.float32), 0
    covered = np.zeros(len(whole), bool)
    for piece in asyncio.run(heard()):
        assert len(piece) <= Section.WHOLE_SECONDS * SAMPLE_RATE
        first = int(np.flatnonzero(piece)[0])
        starts = (position + np.flatnonzero(whole[position + first :] == piece[first])).tolist()
        start = next(n for n in starts if np.array_equal(whole[n : n + len(piece)], piece))
        position = start + len(piece)
        covered[start:position] = True
    assert not np.any(whole[~covered])


async def test_what_is_no_longer_than_a_piece_is_one_transcription_as_ever() -> None:
    desk = Desk()
    spoken = Utterance(desk, TranscribeOptions("en"))
    parts = [quiet(1.0), loud(Section.WHOLE_SECONDS - 2.0), quiet(1.0)]
    say(spoken, *parts)
    await spoken.transcription()
    (job,) = desk.jobs
    heard = Speech(LoudnessVad(), SPANS)
    pcm = (np.concatenate(parts) * 32767).astype("<i2")
    heard.add(pcm.astype(np.float32) / np.float32(32768))
    heard.finish()
    np.testing.assert_array_equal(job.samples, heard.cut(heard.spans()))


@pytest.mark.parametrize("seconds", [20, 100])
async def test_silence_before_and_after_a_command_changes_nothing(seconds: int) -> None:
    """However long: the very samples that the command alone has, transcribed once."""
    desk = Desk()
    alone, within = (Utterance(desk, TranscribeOptions("en")) for _ in range(2))
    command = [loud(1.0), quiet(0.3), loud(0.5)]
    lead = quiet(512 * 40 / RATE)
    say(alone, lead, *command, quiet(1.0))
    say(within, *([lead] * seconds), *command, quiet(100.0))
    texts = [(await spoken.transcription()).text for spoken in (alone, within)]
    assert texts[0] == texts[1]
    assert len(desk.jobs) == 2
    np.testing.assert_array_equal(desk.jobs[0].samples, desk.jobs[1].samples)


async def test_work_begun_early_in_the_last_pause_is_the_piece() -> None:
    desk = Desk()
    spoken = Utterance(desk, TranscribeOptions("en"))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as context:
        context.setattr(utterance.Utterance, "MAX_AHEAD_SECONDS", float("inf"))
        say(spoken, loud(3.0), quiet(60.0))
    await spoken.transcription()
    assert len(desk.jobs) == 1
    (answer,) = desk.answers
    assert answer.early


async def test_memory_is_bounded_while_it_is_spoken() -> None:
    desk = Desk()
    spoken = Utterance(desk, TranscribeOptions("en"))
    free = desk.held_audio.free
    most = 0
    for _ in range(20):  # ten minutes
        say(spoken, *phrases(6))
        most = max(most, free - desk.held_audio.free)
    assert 0 < most <= Section.WHOLE_SECONDS * SAMPLE_RATE
    await spoken.transcription()
    assert desk.held_audio.free == free


async def test_what_waits_for_the_model_is_held_and_counted() -> None:
    desk = Desk(at_once=False)
    spoken = Utterance(desk, TranscribeOptions("en"))
    free = desk.held_audio.free
    say(spoken, *phrases(24))
    assert free - desk.held_audio.free >= 118 * RATE
    (job,) = desk.jobs  # one at a time
    desk.do(job)
    say(spoken, quiet(0.6))
    assert free - desk.held_audio.free < 118 * RATE
    assert len(desk.jobs) == 2
    spoken.drop()
    assert desk.held_audio.free == free
    assert desk.jobs[1].future.cancelled()
    say(spoken, *phrases(12))
    assert len(desk.jobs) == 2


async def test_the_language_of_the_first_words_is_that_of_the_rest() -> None:
    desk = Desk()
    spoken = Utterance(desk, TranscribeOptions())
    say(spoken, *phrases(15))
    transcription = await spoken.transcription()
    assert [job.options.language for job in desk.jobs][:2] == [None, "de"]
    assert {job.options.language for job in desk.jobs[1:]} == {"de"}
    assert transcription.language == "de"


async def test_a_piece_that_fails_is_tried_once_more_and_then_told() -> None:
    desk = Desk(at_once=False)
    spoken = Utterance(desk, TranscribeOptions("en"))
    say(spoken, *phrases(8))
    desk.do(desk.jobs[0], TranscribeError("not this time"))
    say(spoken, quiet(0.6))
    answering = asyncio.create_task(spoken.transcription())
    await until_jobs(desk, 2)
    np.testing.assert_array_equal(desk.jobs[0].samples, desk.jobs[1].samples)
    desk.do(desk.jobs[1], TranscribeError("never"))
    with pytest.raises(TranscribeError, match="never"):
        await answering
    (answer,) = desk.answers
    assert answer.outcome == "failed"


async def until_jobs(desk: Desk, count: int) -> None:
    while len(desk.jobs) < count:  # noqa: ASYNC110 - in a few turns of this loop
        await asyncio.sleep(0)


async def test_a_model_that_comes_late_transcribes_all_of_it() -> None:
    desk = Desk()
    desk.error = ModelUnavailableError("not yet")
    spoken = Utterance(desk, TranscribeOptions("en"))
    say(spoken, *phrases(14))
    assert desk.jobs == []
    desk.error = None
    transcription = await spoken.transcription()
    assert len(desk.jobs) >= 3
    assert transcription.text == said(np.concatenate(phrases(14))).rstrip(".")


async def test_other_options_count_for_all_that_is_not_done() -> None:
    desk = Desk(at_once=False)
    spoken = Utterance(desk, TranscribeOptions("en"))
    say(spoken, *phrases(8))
    spoken.ask(TranscribeOptions("fr"), None, "default")
    say(spoken, quiet(0.6))
    assert desk.jobs[0].future.cancelled()
    assert [job.options.language for job in desk.jobs] == ["en", "fr"]
    np.testing.assert_array_equal(desk.jobs[0].samples, desk.jobs[1].samples)
    spoken.drop()


@pytest.mark.usefixtures("_without_a_clock")
async def test_live_text_is_of_all_that_was_said() -> None:
    desk = Desk()
    spare: list[Job] = []

    def begin(samples: Samples, options: TranscribeOptions, priority: Priority) -> Job:
        job = Job(samples, options, priority)
        desk.do(job)
        spare.append(job)
        return job

    now: list[float] = [0.0]
    live = LiveText(begin, TranscribeOptions("en"), TextStyle(), lambda: now[0])
    spoken = Utterance(desk, TranscribeOptions("en"), live=live)
    for part in phrases(10):
        for start in range(0, len(part), 3200):
            now[0] += 0.2
            say(spoken, part[start : start + 3200])
    shown = live.take()
    transcription = await spoken.transcription()
    assert transcription.text == said(np.concatenate(phrases(10))).rstrip(".")
    assert transcription.text.startswith(shown)
    assert shown.count("Phrase") >= 8  # of more than one piece
    assert max(len(job.samples) for job in spare) <= Section.WHOLE_SECONDS * SAMPLE_RATE


def part(text: str, **how: Any) -> _Part:
    return Transcription(text, "en", n_tokens=len(text.split()), **how), Voicing(10.0, 300)


def test_parts_are_one_text_without_what_nobody_said() -> None:
    made_up, _ = part("Thank you.", noise_logprob=-0.1, heard_logprob=-2.0, no_speech_prob=0.9)
    nobody = made_up, Voicing(0.1, 0)
    parts = [part("One, two.", stages={"mel": 1.0}), nobody, part("Three.", stages={"mel": 2.0})]
    whole = _together(parts)
    assert whole.text == "One, two. Three."
    assert whole.stages == {"mel": 3.0}
    assert whole.n_tokens == 3
    assert _together([part("電気をつけて。"), part("ドアを閉めて。")]).text == (
        "電気をつけて。ドアを閉めて。"
    )
    assert _together([nobody, nobody]).rejected
    assert _together([part(""), part("")]).text == ""


SENTENCE = "Ask not what your country can do for you, ask what you can do for your country."


class OneSentenceDesk(Desk):
    """Hears the same sentence in every piece."""

    def do(self, job: Job, error: Exception | None = None) -> None:
        job.future.set_result(Transcription(SENTENCE, "en", n_tokens=20))


def _refuse(*_: object) -> Job:
    raise BusyError("the model has other work")


@pytest.mark.usefixtures("_without_a_clock")
async def test_what_is_said_in_every_piece_stays_in_every_piece() -> None:
    desk = OneSentenceDesk()
    live = LiveText(_refuse, TranscribeOptions("en"), TextStyle())
    spoken = Utterance(desk, TranscribeOptions("en"), live=live)
    for part in phrases(12):
        say(spoken, part)
    transcription = await spoken.transcription()
    n_pieces = transcription.n_tokens // 20
    assert n_pieces >= 6
    assert transcription.text.count("Ask not") == n_pieces
    assert live.before.count("Ask not") >= n_pieces - 2  # of the pieces that were done by then


def test_the_voicing_of_a_dictation_is_that_of_all_its_pieces() -> None:
    dictation = Dictation(Desk().submit, TranscribeOptions("en"))
    for _ in range(3):
        dictation.add(np.zeros(16000, np.float32), Voicing(4.0, 100), 16000)
    assert dictation.voicing(Voicing(1.0, 20)) == Voicing(13.0, 320)


async def test_a_real_model_writes_of_a_dictation_what_it_writes_of_its_sentences(
    stock_tiny_en: Path,
) -> None:
    """Real voices and the real VAD: no word is lost at a joint, and none is doubled."""
    options = Settings(model=str(stock_tiny_en), cpu_threads=1, beam_size=5, language="en")
    transcriber, vad = open_faster_whisper(options, stock_tiny_en), SileroVad()
    sentences = [read_audio(AUDIO / clip.file) for clip in clips() if clip.kind == "human"] * 4
    pause = quiet(0.8)
    whole = np.concatenate([part for samples in sentences for part in (samples, pause)])

    class Real(Desk):
        span_options = SpanOptions.of(options)

        def do(self, job: Job, error: Exception | None = None) -> None:
            job.future.set_result(transcriber.transcribe(job.samples, job.options))

    async def text(samples: Samples) -> str:
        desk = Real()
        desk.vad, desk.eager = vad, False
        spoken = Utterance(desk, TranscribeOptions("en"))
        say(spoken, samples)
        return (await spoken.transcription()).text

    alone, written = words(await text(sentences[0])), words(await text(whole))
    # A phrase by itself may be misheard; none is missing, none comes twice.
    assert abs(len(written) - 4 * len(alone)) <= 2, written
    for word in ("fellow", "americans", "not", "country", "what"):
        assert written.count(word) == 4 * alone.count(word), written
