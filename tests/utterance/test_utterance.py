"""Work that begins before the audio ends: when, how often, and that it changes no answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.ping import Ping

from tests.support import Client, FakeTranscriber, LoudnessVad, loud, quiet, run_server
from wyoming_whisper.audio.pcm import PcmFormat, PcmStream
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SpanOptions, Vad
from wyoming_whisper.errors import AudioError, BusyError
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.status import Answer
from wyoming_whisper.text.style import TextStyle
from wyoming_whisper.transcriber import SAMPLE_RATE, Samples, TranscribeOptions, Transcription
from wyoming_whisper.utterance import utterance
from wyoming_whisper.utterance.budget import Budget
from wyoming_whisper.utterance.early import EarlyWork
from wyoming_whisper.utterance.job import Job, Priority
from wyoming_whisper.utterance.languages import SpokenLanguages
from wyoming_whisper.utterance.service import Service
from wyoming_whisper.utterance.utterance import Utterance

SPANS = SpanOptions.of(Settings())


pytestmark = pytest.mark.usefixtures("_hear_loudness")


@asynccontextmanager
async def speaking(
    tmp_path: Path, fake: FakeTranscriber, **settings: object
) -> AsyncIterator[Client]:
    async with (
        run_server(tmp_path, lambda _: fake, **settings) as server,
        Client(tmp_path) as client,
    ):
        await asyncio.wrap_future(server.scheduler.opened)
        await server.loaded_vad()  # what comes before is heard with what comes after
        yield client


async def say(client: Client, *parts: Samples) -> None:
    audio = (np.concatenate(parts) * 32767).astype("<i2").tobytes()
    for start in range(0, len(audio), 1024):
        await client.send(AudioChunk(16000, 2, 1, audio[start : start + 1024]).event())
    await client.ask(Ping().event())  # all of it has been heard


async def started(fake: FakeTranscriber, n_requests: int) -> None:
    while len(fake.requests) < n_requests:  # noqa: ASYNC110 - it is another thread's
        await asyncio.sleep(0.005)


async def test_work_begins_at_a_pause_and_is_there_when_the_audio_ends(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake) as client:
        await say(client, loud(0.5), quiet(0.4))
        await asyncio.wait_for(started(fake, 1), 10)
        await say(client, quiet(0.5))
        await client.send(AudioStop().event())
        text = (await client.transcript()).text
    assert len(fake.requests) == 1
    assert text == f"{len(fake.requests[0][0])} samples in None"
    assert 0.5 < len(fake.requests[0][0]) / 16000 < 0.9  # the silence after it is left out


async def test_no_work_begins_before_the_pause_is_long_enough(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake) as client:
        await say(client, loud(0.5), quiet(SPANS.pad_after_seconds - 0.03))
        await asyncio.sleep(0.1)
        assert not fake.requests


async def test_a_file_sent_at_once_is_transcribed_once(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake) as client:
        await say(client, loud(1.0), quiet(0.5), loud(1.0), quiet(0.5), loud(1.0), quiet(0.5))
        await client.send(AudioStop().event())
        await client.transcript()
    assert [len(samples) > 3 * 16000 for samples, _ in fake.requests] == [True]


async def test_no_work_begins_early_when_the_user_wants_none(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake, eager=False) as client:
        await say(client, loud(0.5), quiet(1.0))
        await asyncio.sleep(0.1)
        assert not fake.requests
        await client.send(AudioStop().event())
        await client.transcript()
    assert len(fake.requests) == 1


@pytest.mark.usefixtures("_without_a_clock")
async def test_when_speech_goes_on_the_whole_is_transcribed(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake) as client:
        await say(client, loud(0.5), quiet(0.4))
        await asyncio.wait_for(started(fake, 1), 10)
        await say(client, loud(0.5), quiet(0.1))
        await client.send(AudioStop().event())
        text = (await client.transcript()).text
    assert [len(samples) for samples, _ in fake.requests][-1] > 1.4 * 16000
    assert text == f"{len(fake.requests[-1][0])} samples in None"


@pytest.mark.usefixtures("_without_a_clock")
async def test_waiting_work_is_dropped_when_speech_goes_on(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake) as client, Client(tmp_path) as busy:
        fake.gate.clear()
        await busy.speak(0.2)
        await asyncio.wait_for(started(fake, 1), 10)
        await say(client, loud(0.5), quiet(0.4))
        await say(client, loud(0.5))
        fake.gate.set()
        await busy.transcript()
        await client.send(AudioStop().event())
        await client.transcript()
    assert len(fake.requests) == 2


@pytest.mark.usefixtures("_without_a_clock")
async def test_work_that_speech_has_overtaken_is_broken_off(tmp_path: Path) -> None:
    class Stepping(FakeTranscriber):
        """Goes on with the first request until it is stopped."""

        broken_off = threading.Event()

        def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
            found = super().transcribe(samples, options)
            try:
                while len(self.requests) == 1:
                    options.checkpoint()
            except BaseException:
                self.broken_off.set()
                raise
            return found

    fake = Stepping()
    async with speaking(tmp_path, fake) as client:
        await say(client, loud(0.5), quiet(0.4))
        await asyncio.wait_for(started(fake, 1), 10)
        await say(client, loud(0.5))
        assert await asyncio.to_thread(fake.broken_off.wait, 10)
        await client.send(AudioStop().event())
        assert (await client.transcript()).text
    assert len(fake.requests) == 2


async def test_who_waits_goes_before_work_begun_early(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with (
        speaking(tmp_path, fake) as hesitating,
        Client(tmp_path) as busy,
        Client(tmp_path) as waiting,
    ):
        fake.gate.clear()
        await busy.speak(0.2)
        await asyncio.wait_for(started(fake, 1), 10)
        await say(hesitating, loud(0.5), quiet(0.4))
        await waiting.speak(0.3)
        await waiting.ask(Ping().event())
        fake.gate.set()
        await waiting.transcript()
        await hesitating.send(AudioStop().event())
        await hesitating.transcript()
    lengths = [len(samples) for samples, _ in fake.requests]
    assert lengths[1] == 0.3 * 16000
    assert len(lengths) == 3


async def test_early_work_is_waited_for_like_any_other_once_the_audio_has_ended(
    tmp_path: Path,
) -> None:
    fake = FakeTranscriber()
    async with (
        speaking(tmp_path, fake) as first,
        Client(tmp_path) as busy,
        Client(tmp_path) as other,
    ):
        fake.gate.clear()
        await busy.speak(0.2)
        await asyncio.wait_for(started(fake, 1), 10)
        await say(other, loud(0.7), quiet(0.4))
        await say(first, loud(0.5), quiet(0.4))
        await first.send(AudioStop().event())
        await first.ask(Ping().event())
        fake.gate.set()
        await first.transcript()
    lengths = [len(samples) for samples, _ in fake.requests]
    assert lengths[1] < 0.9 * 16000  # not the other's, which was begun before


@pytest.mark.usefixtures("_without_a_clock")
async def test_hesitation_cannot_keep_the_processor_busy(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake) as client:
        for pause in range(EarlyWork.MAX_EAGER_JOBS + 3):
            await say(client, loud(0.2), quiet(0.4))
            # A job that still waits when speech goes on is dropped and costs nothing.
            n_jobs = min(pause + 1, EarlyWork.MAX_EAGER_JOBS)
            await asyncio.wait_for(started(fake, n_jobs), 10)
        await client.send(AudioStop().event())
        await client.transcript()
    assert len(fake.requests) == EarlyWork.MAX_EAGER_JOBS + 1


async def test_a_client_that_leaves_takes_its_early_work_along(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake) as busy:
        fake.gate.clear()
        await busy.speak(0.2)
        await asyncio.wait_for(started(fake, 1), 10)
        async with Client(tmp_path) as leaving:
            await say(leaving, loud(0.5), quiet(0.4))
        await asyncio.sleep(0.1)
        fake.gate.set()
        await busy.transcript()
        await busy.speak(0.3)
        await busy.transcript()
    assert [len(samples) / 16000 for samples, _ in fake.requests] == [0.2, 0.3]


async def test_an_idle_model_is_unloaded_and_loaded_again_when_somebody_speaks(
    tmp_path: Path,
) -> None:
    opened: list[FakeTranscriber] = []

    def open_transcriber(_: object) -> FakeTranscriber:
        opened.append(FakeTranscriber())
        return opened[-1]

    async with (
        run_server(tmp_path, open_transcriber, idle_unload=0.2),
        Client(tmp_path) as client,
    ):
        await client.speak(0.1)
        await client.transcript()
        while not opened[0].closed:  # noqa: ASYNC110 - it is another thread's
            await asyncio.sleep(0.005)
        assert len(opened) == 1
        await client.send(AudioStart(16000, 2, 1).event())
        while len(opened) < 2:  # noqa: ASYNC110 - before any audio has come
            await asyncio.sleep(0.005)
        await client.speak(0.1)
        assert (await client.transcript()).text == "1600 samples in None"


async def test_an_idle_model_stays_while_something_is_built_for_it(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with (
        run_server(tmp_path, lambda _: fake, idle_unload=0.05) as server,
        Client(tmp_path) as client,
    ):
        server.status.update(building="building the engine")
        await client.speak(0.1)
        await client.transcript()
        await asyncio.sleep(0.3)
        assert not fake.closed
        server.status.update(building="")
        while not fake.closed:  # noqa: ASYNC110 - it is another thread's
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("rate", [1000, 16000, 44100])
@pytest.mark.parametrize("step", [10, 999, 2 * 1024 * 1024])
async def test_an_utterance_is_bounded(rate: int, step: int) -> None:
    """However it comes: of one chunk at 1 kHz that names 17 minutes only the beginning counts."""
    workshop = InstantWorkshop(eager=True, max_seconds=1)
    spoken = Utterance(workshop, TranscribeOptions())
    n_chunks = 0
    while not spoken.is_full:
        spoken.add(PcmFormat(rate, 1, 1), b"\xc0" * step)
        n_chunks += 1
    assert spoken.seconds <= 1.0
    assert n_chunks <= 2 * rate / step + 1  # the filter holds some back
    before, held = workshop.held_audio.free, spoken.seconds
    await spoken.transcription()
    (answer,) = workshop.answers
    assert 1.0 <= answer.seconds < 2.0
    assert workshop.held_audio.free == before + round(16000 * held)


async def test_all_utterances_together_are_bounded() -> None:
    workshop = InstantWorkshop(eager=True, max_seconds=1, held_seconds=2.5)
    second = PcmFormat(16000, 2, 1), bytes(32000)
    speakers = [Utterance(workshop, TranscribeOptions()) for _ in range(3)]
    speakers[0].add(*second)
    speakers[1].add(*second)
    with pytest.raises(BusyError):
        speakers[2].add(*second)
    await speakers[0].transcription()
    speakers[2].add(*second)
    for speaker in speakers:
        speaker.drop()
        speaker.drop()
    assert workshop.held_audio.free == 2.5 * 16000
    speakers[2].add(*second)  # as a thread may, after its client has gone
    assert workshop.held_audio.free == 2.5 * 16000


async def test_nothing_is_begun_for_who_left_while_a_long_chunk_was_converted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    converting, may_end = threading.Event(), threading.Event()

    def convert(_: PcmStream, pcm: PcmFormat, audio: bytes) -> Samples:
        converting.set()
        assert may_end.wait(20)
        return np.concatenate([loud(1.0), quiet(1.0)])

    monkeypatch.setattr(utterance.Utterance, "MAX_AHEAD_SECONDS", float("inf"))
    monkeypatch.setattr(PcmStream, "convert", convert)
    workshop = InstantWorkshop(eager=True)
    free = workshop.held_audio.free
    spoken = Utterance(workshop, TranscribeOptions())
    taking = asyncio.create_task(spoken.take(PcmFormat(16000, 2, 1), bytes(64000)))
    assert await asyncio.to_thread(converting.wait, 20)
    spoken.drop()
    may_end.set()
    await taking  # as if nobody had cancelled it
    assert workshop.n_jobs == 0
    assert workshop.held_audio.free == free


async def test_a_long_chunk_is_converted_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 1 kHz names half an hour in 2 MB."""
    lengths: list[int] = []
    convert = PcmStream.convert

    def counted(stream: PcmStream, pcm: PcmFormat, audio: bytes) -> Samples:
        lengths.append(len(audio))
        return convert(stream, pcm, audio)

    monkeypatch.setattr(PcmStream, "convert", counted)
    workshop = InstantWorkshop(eager=True, max_seconds=60)
    spoken = Utterance(workshop, TranscribeOptions())
    await spoken.take(PcmFormat(1000, 1, 1), b"\x80" * 2_000_000)
    assert spoken.is_full
    assert lengths == [10_000] * 6
    spoken.drop()


class InstantWorkshop(Service):
    """Answers at once, with a text that tells the samples apart."""

    span_options = SPANS
    text_style = TextStyle()
    spoken = SpokenLanguages()

    def __init__(self, *, eager: bool, max_seconds: int = 900, held_seconds: float = 1800) -> None:
        self.eager = eager
        self.max_utterance_samples = max_seconds * SAMPLE_RATE
        self.held_audio = Budget(round(held_seconds * SAMPLE_RATE), "audio")
        self.deadline_seconds = 0
        self.vad: Vad | None = LoudnessVad()
        self.n_jobs = 0
        self.answers: list[Answer] = []

    async def loaded_vad(self) -> Vad:
        assert self.vad
        return self.vad

    def wake(self) -> None: ...

    def submit(self, samples: Samples, options: TranscribeOptions, priority: Priority) -> Job:
        self.n_jobs += 1
        job = Job(samples, options, priority)
        future: Future[Transcription] = job.future
        future.set_result(self.transcribe(samples, options))
        return job

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)

    # It is a Transcriber too.
    languages: tuple[str, ...] = ("en",)
    description = "instant"

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        return Transcription(f"{len(samples)} {float(samples.sum()):.4f}")

    def close(self) -> None: ...


async def _answer_to(workshop: InstantWorkshop, *parts: Samples) -> Answer:
    spoken = Utterance(workshop, TranscribeOptions(language="en"))
    for part in parts:
        spoken.add(PcmFormat(16000, 2, 1), (part * 32767).astype("<i2").tobytes())
    await spoken.transcription()
    (answer,) = workshop.answers
    return answer


@pytest.mark.usefixtures("_without_a_clock")
async def test_what_an_answer_took_is_noted() -> None:
    early = await _answer_to(InstantWorkshop(eager=True), loud(1.0), quiet(1.0))
    assert (early.outcome, early.early, early.seconds) == ("text", True, 2.0)
    assert early.text
    late = await _answer_to(InstantWorkshop(eager=False), loud(1.0), quiet(1.0))
    assert (late.outcome, late.early) == ("text", False)
    nothing = await _answer_to(InstantWorkshop(eager=True), quiet(1.0))
    assert (nothing.outcome, nothing.early, nothing.text) == ("silence", False, "")
    assert nothing.confidence is None


class FailingWorkshop(InstantWorkshop):
    """Refuses the work, as a server without its model does."""

    error: Exception = AudioError("no ears")

    def submit(self, samples: Samples, options: TranscribeOptions, priority: Priority) -> Job:
        raise self.error


async def test_a_failure_is_noted_without_what_is_not_for_users() -> None:
    workshop = FailingWorkshop(eager=False)
    with pytest.raises(AudioError):
        await _answer_to(workshop, loud(1.0))
    workshop.error = RuntimeError("secret")
    with pytest.raises(RuntimeError):
        await _answer_to(workshop, loud(1.0))
    ours, theirs = workshop.answers
    assert (ours.outcome, ours.error, ours.code) == ("failed", "no ears", "invalid-audio")
    assert (theirs.outcome, theirs.code) == ("failed", "internal-error")
    assert "secret" not in theirs.error


PARTS = st.lists(st.tuples(st.booleans(), st.integers(1, 16_000)), max_size=12)


@pytest.mark.usefixtures("_without_a_clock")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS, step=st.integers(1, 5000))
def test_the_answer_is_the_same_with_and_without_early_work(
    parts: list[tuple[bool, int]], step: int
) -> None:
    """Pauses and chunks of any length: equal to the recording transcribed as a whole."""
    rng = np.random.default_rng(len(parts))
    pieces = [rng.uniform(0.2, 0.9, n) * is_loud for is_loud, n in parts]
    pcm = (np.concatenate([np.zeros(0), *pieces]) * 32767).astype("<i2")

    async def answer(workshop: InstantWorkshop) -> Transcription:
        spoken = Utterance(workshop, TranscribeOptions())
        for start in range(0, len(pcm), step):
            spoken.add(PcmFormat(16000, 2, 1), pcm[start : start + step].tobytes())
        return await spoken.transcription()

    eager, patient = InstantWorkshop(eager=True), InstantWorkshop(eager=False)
    expected = Speech.whole((pcm / 32768).astype(np.float32), LoudnessVad(), SPANS).transcribed(
        patient, TranscribeOptions()
    )
    assert asyncio.run(answer(eager)) == asyncio.run(answer(patient)) == expected
    assert patient.n_jobs <= 1
    assert eager.n_jobs <= EarlyWork.MAX_EAGER_JOBS + 1
