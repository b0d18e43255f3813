"""Live text: what is sent while somebody speaks, and how often the model is asked for it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from tests.support import (
    TIMEOUT_SECONDS,
    Client,
    FakeTranscriber,
    LoudnessVad,
    SteppingTranscriber,
    loud,
    quiet,
    run_server,
)
from tests.utterance.test_eager_clips import Spoken, Workshop, utterances
from tests.utterance.test_utterance import PARTS, SPANS, InstantWorkshop
from wyoming_whisper.audio.pcm import PcmFormat
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import SileroVad, SpanOptions
from wyoming_whisper.errors import BusyError, TranscribeError
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.text.style import TextStyle
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription
from wyoming_whisper.utterance import utterance
from wyoming_whisper.utterance.job import Job, Priority
from wyoming_whisper.utterance.live import (
    LiveText,
    _agreed,
    _Agreement,
    _overlap,
    _Pace,
    _units,
)
from wyoming_whisper.utterance.scheduler import Scheduler
from wyoming_whisper.utterance.utterance import Utterance

OPTIONS = TranscribeOptions(language="en")
PLAIN = TextStyle(strip_punctuation=False)

# -- texts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("...", []),
        ("Turn on the light.", ["Turn", " on", " the", " light"]),
        ("The light, please!", ["The", " light", ", please"]),
        ("It's 21.5 °C, isn't it?", ["It's", " 21.5", " °C", ", isn't", " it"]),
        ("“Yes”, he said.", ["“Yes", "”, he", " said"]),
        ("the well-known one - yes", ["the", " well-known", " one", " -", " yes"]),
        ("बत्ती जलाओ।", ["बत्ती", " जलाओ"]),
        ("打开灯。 好", ["打", "开", "灯", "。 好"]),
        ("AIをつけて", ["AI", "を", "つ", "け", "て"]),
    ],
)
def test_a_text_is_cut_where_the_next_word_may_differ(text: str, expected: list[str]) -> None:
    assert _units(text) == expected


@given(st.text(st.sampled_from("aB1 ,.'\"«»-。灯しกิ\t\n"), max_size=30))
def test_no_letter_of_a_text_is_lost(text: str) -> None:
    assert text.startswith("".join(_units(text)))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["turn on the", "turn on the light"], "turn on the"),
        (["turn on the lie", "turn on the light"], "turn on the"),
        (["Turn on. The light", "turn on the light"], "turn on the light"),  # the newest spelling
        (["", "turn on"], ""),
        (["now on", "turn on"], ""),
        (["turn on it", "turn on the", "turn off"], "turn"),
    ],
)
def test_the_beginning_that_all_have_is_agreed_on(texts: list[str], expected: str) -> None:
    assert "".join(_agreed([_units(text) for text in texts])) == expected


@pytest.mark.parametrize(
    ("sent", "text", "rest"),
    [
        ("", "turn on the light.", "turn on the light."),
        ("turn on", "turn on the light.", " the light."),
        ("turn on the light", "turn on the light.", "."),
        ("Turn on the", "turn on, the light", " light"),
        ("turn on the chicken", "turn on the kitchen light", " light"),  # misheard
        ("turn on the light", "turn on the kitchen light now", " now"),  # left out
        ("turn on the the light", "turn on the light now", " now"),  # said twice
        ("turn on the kit chen", "turn on the kitchen light", " light"),  # parted
        ("turn on the light", "turn on", ""),  # taken back, which can't be
        ("turn on the light", "", ""),
        ("打开", "打开灯。", "灯。"),
        ("打关", "打开灯。", "灯。"),
    ],
)
def test_the_rest_of_the_final_text_follows_what_was_sent(sent: str, text: str, rest: str) -> None:
    agreement = _Agreement(n=1)
    agreement.add(sent)
    assert agreement.take() == sent
    assert agreement.rest(text) == rest


def test_a_contradiction_in_a_very_long_text_costs_no_time() -> None:
    sent, words = ["wrong"] * (101), ["right"] * 10_000
    assert _overlap(sent, words) == len(sent)
    assert _overlap(sent, words[:7]) == 7


def test_nothing_is_sent_before_two_transcriptions_agree_and_nothing_twice() -> None:
    agreement = _Agreement()
    taken = []
    for text in (
        "Turn",
        "Turn on the lie",
        "Turn on the light in the",
        "Turn on the light in the kitchen",
        "Turn on the light in",
        "Turn on the light in the chicken now",
        "Turn on the light in the chicken now please",
    ):
        agreement.add(text)
        taken.append(agreement.take())
    assert taken == ["", "Turn", " on the", " light in the", "", "", " chicken now"]
    assert agreement.rest("Turn on the light in the kitchen now, please.") == ", please."


WORDS = st.lists(st.sampled_from(["on", "off", "the", "light,", "The"]), max_size=6).map(" ".join)


@given(texts=st.lists(WORDS, max_size=8), final=WORDS, when=st.sets(st.integers(0, 7)))
def test_what_was_sent_stays_and_the_rest_is_the_end_of_the_final_text(
    texts: list[str], final: str, when: set[int]
) -> None:
    agreement = _Agreement()
    shown = ""
    for number, text in enumerate(texts):
        agreement.add(text)
        if number in when:
            shown += agreement.take()
    rest = agreement.rest(final)
    assert final.endswith(rest)
    sent, words = _units(shown), _units(final)
    if [unit.strip(" ,").lower() for unit in sent] == [
        unit.strip(" ,").lower() for unit in words[: len(sent)]
    ]:  # then it is the final text, in these or other letters and marks
        assert _units((shown + rest).lower()) == _units(
            ("".join([*sent, *words[len(sent) :]]) + ("," if final.endswith(",") else "")).lower()
        )


@given(cuts=st.lists(st.integers(0, 40), max_size=10))
def test_where_nothing_is_contradicted_the_chunks_are_the_final_text(cuts: list[int]) -> None:
    final = "Turn on the light, please, in 2.5 minutes. 打开灯。"
    words = _units(final)
    agreement = _Agreement()
    shown = ""
    for cut in sorted(cuts):
        agreement.add("".join(words[:cut]))
        shown += agreement.take()
    assert shown + agreement.rest(final) == final


# -- time ----------------------------------------------------------------------------------


@given(
    speaks=st.lists(st.booleans(), min_size=1, max_size=600),
    cost=st.floats(0.0, 3.0),
)
def test_all_transcriptions_of_an_utterance_cost_little(speaks: list[bool], cost: float) -> None:
    """Half of the time at most, and of as much audio as it is long, a fixed number of times."""
    pace = _Pace()
    now = voiced = busy = transcribed = 0.0
    until: float | None = None
    for is_voiced in speaks:
        now += 0.1
        voiced += 0.1 * is_voiced
        if until is not None and now >= until:
            pace.end(now)
            until = None
        if until is None and pace.allows(now, voiced, seconds=now):
            pace.begin(now, voiced)
            until = now + cost
            busy += cost
            transcribed += now
    assert transcribed <= voiced / _Pace.GROWTH + 1e-6
    assert busy <= (now + cost) / 2 + cost


# -- one utterance -------------------------------------------------------------------------


@dataclass
class Desk:
    """Takes work when it is free; tests say when it is done."""

    free: bool = True
    jobs: list[Job] = field(default_factory=list)
    now: float = 0.0

    def submit(self, samples: Samples, options: TranscribeOptions, priority: Priority) -> Job:
        assert priority is Priority.SPARE
        if not self.free:
            raise BusyError("the model has other work")
        self.jobs.append(Job(samples, options, priority))
        return self.jobs[-1]

    def finish(self, text: str = "", rejected: str | None = None) -> None:
        self.jobs[-1].future.set_result(Transcription(text, "en", rejected=rejected))


class Following:
    """An utterance that is followed on virtual time."""

    def __init__(self, style: TextStyle = PLAIN) -> None:
        self.desk = Desk()
        self.shown = ""
        self.live = LiveText(self.desk.submit, OPTIONS, style, lambda: self.desk.now)
        self.speech = Speech(LoudnessVad(), SPANS)

    def hear(self, samples: Samples, early: Job | None = None) -> str:
        """Hear more, 64 ms at once, and return what became certain meanwhile."""
        shown = ""
        for start in range(0, len(samples), 1024):
            part = samples[start : start + 1024]
            self.speech.add(part)
            self.desk.now += len(part) / 16000
            self.live.follow(self.speech, early)
            shown += self.live.take()
        self.shown += shown
        return shown


def test_words_come_while_they_are_spoken() -> None:
    following = Following()
    shown = []
    for text in ("Turn.", "Turn on the.", "Turn on the light", "Turn on the light, please"):
        following.hear(loud(0.6))
        following.desk.finish(text)
        shown.append(following.hear(loud(0.1)))
    assert shown == ["", "Turn", " on the", " light"]
    assert following.live.rest("Turn on the light, please.") == ", please."
    lengths = [len(job.samples) for job in following.desk.jobs]
    assert lengths == sorted(set(lengths))


def test_the_style_of_texts_is_kept() -> None:
    following = Following(TextStyle(strip_punctuation=True, lowercase=True))
    for text in ("¿Enciende", "¿Enciende la LUZ", "¿Enciende la LUZ?"):
        following.hear(loud(0.6))
        following.desk.finish(text)
    following.hear(loud(0.1))
    assert following.shown == "enciende la luz"


def test_fillers_are_not_shown_before_it_is_known_what_follows() -> None:
    following = Following(TextStyle())
    for text in ("Uh.", "Uh, um", "Uh, um, turn", "Uh, um, turn on", "Uh, um, turn on the"):
        following.hear(loud(0.6))
        following.desk.finish(text)
    following.hear(loud(0.1))
    assert following.shown == "Turn on"
    assert following.live.rest("Turn on the light") == " the light"


def test_one_transcription_at_a_time_and_then_a_rest_as_long() -> None:
    following = Following()
    following.hear(loud(4.0))
    assert len(following.desk.jobs) == 1
    following.desk.finish("turn")
    busy = following.desk.now
    while len(following.desk.jobs) == 1:
        following.hear(loud(0.064))
    assert following.desk.now >= 2 * busy - 2 * (_Pace.STEP_SECONDS + 0.1)


def test_who_is_busy_is_asked_again() -> None:
    following = Following()
    following.desk.free = False
    following.hear(loud(1.0))
    assert not following.desk.jobs
    following.desk.free = True
    following.hear(loud(0.1))
    assert len(following.desk.jobs) == 1


def test_nothing_is_begun_in_silence() -> None:
    following = Following()
    following.hear(loud(0.2))
    following.hear(quiet(3.0))
    following.hear(loud(0.02))
    assert not following.desk.jobs


def test_what_fails_or_is_doubtful_does_not_count() -> None:
    following = Following()
    texts = ["turn on", None, "", "turn on the", "turn on the light"]
    for text in texts:
        following.hear(loud(0.6))
        if text is None:
            following.desk.jobs[-1].future.set_exception(RuntimeError("broken"))
        elif not text:
            following.desk.finish(text, rejected="avg_logprob -0.40 is below -0.32")
        else:
            following.desk.finish(text)
    assert len(following.desk.jobs) == len(texts)
    following.hear(loud(0.1))
    assert following.shown == "turn on the"


def test_a_text_of_which_a_part_is_doubtful_counts() -> None:
    following = Following()
    for text in ("turn on the", "turn on the light"):
        following.hear(loud(0.6))
        following.desk.finish(text, rejected="avg_logprob -0.40 is below -0.32")
    following.hear(loud(0.1))
    assert following.shown == "turn on the"


def test_work_begun_early_counts_and_that_which_it_overtook_does_not() -> None:
    following = Following()
    following.hear(loud(0.6))
    following.desk.finish("turn on")
    following.hear(loud(0.9))
    overtaken = following.desk.jobs[-1]
    assert len(following.desk.jobs) == 2
    early = Job(loud(1.5), OPTIONS, Priority.EARLY)
    early.future.set_result(Transcription("turn on the light", "en"))
    assert following.hear(quiet(0.5), early) == "turn on"
    overtaken.future.set_result(Transcription("turn on the li", "en"))
    assert following.hear(quiet(0.5), early) == ""
    assert following.live.rest("turn on the light") == " the light"


def test_the_same_audio_does_not_agree_with_itself() -> None:
    following = Following()
    following.hear(loud(0.6))
    following.desk.finish("turn on")
    early = Job(loud(0.6), OPTIONS, Priority.EARLY)
    early.future.set_result(Transcription("turn on", "en"))
    assert following.hear(quiet(0.4), early) == "turn on"  # of more silence: that is more
    assert following.hear(quiet(2.0), early) == ""
    assert len(following.desk.jobs) == 1


def test_who_drops_it_ends_what_is_under_way() -> None:
    following = Following()
    following.hear(loud(0.6))
    following.live.drop()
    assert following.desk.jobs[0].future.cancelled()
    following.live.drop()


# -- spare work ----------------------------------------------------------------------------


def test_spare_work_is_done_by_who_has_nothing_else_to_do() -> None:
    fake = FakeTranscriber()
    scheduler = Scheduler(lambda: fake)
    scheduler.start()
    scheduler.opened.result(10)
    spare = scheduler.submit(loud(0.1), OPTIONS, Priority.SPARE)
    assert spare.future.result(10).text == "1600 samples in en"
    fake.gate.clear()
    fake.started.clear()
    waited_for = scheduler.submit(loud(0.2), OPTIONS)
    assert fake.started.wait(10)
    with pytest.raises(BusyError):
        scheduler.submit(loud(0.3), OPTIONS, Priority.SPARE)
    fake.gate.set()
    assert waited_for.future.result(10).text == "3200 samples in en"
    assert scheduler.close(10)
    with pytest.raises(TranscribeError, match="shutting down"):
        scheduler.submit(loud(0.1), OPTIONS, Priority.SPARE)


@pytest.mark.parametrize("priority", [p for p in Priority if p is not Priority.SPARE])
def test_spare_work_gives_way_to_all_other(priority: Priority) -> None:
    stepping = SteppingTranscriber()
    scheduler = Scheduler(lambda: stepping)
    scheduler.start()
    spare = scheduler.submit(loud(0.1), OPTIONS, Priority.SPARE)
    assert stepping.started.wait(10)
    other = scheduler.submit(loud(0.2), OPTIONS, priority)
    assert stepping.ended.wait(10)  # at its next checkpoint
    assert isinstance(other.future.exception(10), AssertionError)  # its turn came
    assert spare.future.exception(10) is not None
    assert scheduler.close(10)


def test_spare_work_that_waits_for_the_model_makes_way() -> None:
    fake, opening = FakeTranscriber(), threading.Event()

    def open_transcriber() -> FakeTranscriber:
        assert opening.wait(10)
        return fake

    scheduler = Scheduler(open_transcriber, max_queue=1)
    scheduler.start()
    spare = scheduler.submit(loud(0.1), OPTIONS, Priority.SPARE)
    other = scheduler.submit(loud(0.2), OPTIONS)
    assert spare.future.cancelled()
    opening.set()
    assert other.future.result(10).text == "3200 samples in en"
    assert [len(samples) for samples, _ in fake.requests] == [3200]
    assert scheduler.close(10)


# -- the final text ------------------------------------------------------------------------


class Spare:
    """Does spare work at once, with texts that seldom agree."""

    def __init__(self) -> None:
        self.n_jobs = 0

    def submit(self, samples: Samples, options: TranscribeOptions, priority: Priority) -> Job:
        self.n_jobs += 1
        job = Job(samples, options, priority)
        future: Future[Transcription] = job.future
        future.set_result(Transcription(f"{len(samples) // 9000} turn on {self.n_jobs // 3}"))
        return job


@pytest.mark.usefixtures("_without_a_clock")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS, step=st.integers(40, 5000), eager=st.booleans())
def test_the_answer_is_the_same_with_and_without_live_text(
    parts: list[tuple[bool, int]], step: int, eager: bool
) -> None:
    rng = np.random.default_rng(len(parts))
    pieces = [rng.uniform(0.2, 0.9, n) * is_loud for is_loud, n in parts]
    pcm = (np.concatenate([np.zeros(0), *pieces]) * 32767).astype("<i2")

    async def answer(live: LiveText | None) -> Transcription:
        spoken = Utterance(InstantWorkshop(eager=eager), OPTIONS, live=live)
        for start in range(0, len(pcm), step):
            spoken.add(PcmFormat(16000, 2, 1), pcm[start : start + step].tobytes())
        return await spoken.transcription()

    live = LiveText(Spare().submit, OPTIONS, TextStyle())
    assert asyncio.run(answer(live)) == asyncio.run(answer(None))


def test_the_same_samples_are_transcribed_with_and_without_live_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Spoken utterances, through the real VAD."""
    monkeypatch.setattr(utterance.Utterance, "MAX_AHEAD_SECONDS", float("inf"))
    vad, spans = SileroVad(), SpanOptions.of(Settings())
    n_live = 0

    async def hear(spoken: Spoken, live: LiveText | None) -> Samples | None:
        workshop = Workshop(True, vad, spans)
        following = Utterance(workshop, OPTIONS, live=live)
        pcm, start = (spoken.samples * 32767).astype("<i2"), 0
        for length in spoken.chunks:
            following.add(PcmFormat(16000, 2, 1), pcm[start : start + length].tobytes())
            start += length
        text = (await following.transcription()).text
        return workshop.heard[int(text)] if text else None

    for number, spoken in enumerate(utterances()):
        if number % 11 == 0:
            spare = Spare()
            live = LiveText(spare.submit, OPTIONS, TextStyle())
            one, other = asyncio.run(hear(spoken, live)), asyncio.run(hear(spoken, None))
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                np.testing.assert_array_equal(one, other)
                n_live += spare.n_jobs > 1
    assert n_live >= 15


# -- what a client sees --------------------------------------------------------------------

SENTENCE = "Turn on the kitchen light in five minutes, please, and close the door."


class Telling(FakeTranscriber):
    """Hears two words a second; `last` is what it takes the whole for, once speech has ended."""

    def __init__(self, last: str | None = None, error: Exception | None = None) -> None:
        super().__init__()
        self.last = last
        self.failure = error

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        super().transcribe(samples, options)
        silence = len(samples) - np.flatnonzero(np.abs(samples) > 0.1)[-1]
        if silence > 1600:  # that of speech which has ended
            if self.failure:
                raise self.failure
            if self.last is not None:
                return Transcription(self.last, "en")
        words = SENTENCE.split()[: max(1, 2 * len(samples) // 16000)]
        return Transcription(" ".join(words), "en")


class Viewer(Client):
    """A client that keeps whatever comes, in its order."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path)
        self.events: list[Event] = []

    async def __aenter__(self) -> Viewer:
        await super().__aenter__()
        return self

    async def say(self, samples: Samples) -> None:
        audio = (samples * 32767).astype("<i2").tobytes()
        for start in range(0, len(audio), 2048):
            await self.send(AudioChunk(16000, 2, 1, audio[start : start + 2048]).event())
        await self.send(Ping().event())
        while not Pong.is_type((event := await self.heard()).type):
            self.events.append(event)

    async def say_until(self, n_events: int) -> None:
        """Speak, half a second at once, until so much has come."""
        while len(self.events) < n_events:
            await self.say(loud(0.5))
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End the utterance, and wait for all that is to come of it."""
        await self.send(AudioStop().event())
        await self.read_until("transcript-stop")

    async def read_until(self, kind: str) -> None:
        """Read on, up to the next event of this kind."""
        while (event := await self.heard()).type != kind:
            self.events.append(event)
        self.events.append(event)

    async def heard(self) -> Event:
        event = await self.receive()
        assert event is not None
        return event

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def chunks(self) -> str:
        found = [event for event in self.events if TranscriptChunk.is_type(event.type)]
        return "".join(TranscriptChunk.from_event(event).text for event in found)

    @property
    def transcripts(self) -> list[str]:
        found = [event for event in self.events if Transcript.is_type(event.type)]
        return [Transcript.from_event(event).text for event in found]


@asynccontextmanager
async def viewing(
    tmp_path: Path, fake: FakeTranscriber, **settings: object
) -> AsyncIterator[Viewer]:
    options: dict[str, object] = {"live_text": True, "strip_punctuation": False, **settings}
    async with (
        run_server(tmp_path, lambda _: fake, **options) as server,
        Viewer(tmp_path) as viewer,
    ):
        await asyncio.wrap_future(server.scheduler.opened)
        await server.loaded_vad()
        yield viewer


@pytest.mark.parametrize("wanted", [True, False])
async def test_info_says_whether_there_is_live_text(tmp_path: Path, wanted: bool) -> None:
    async with viewing(tmp_path, FakeTranscriber(), live_text=wanted) as viewer:
        info = Info.from_event(await viewer.ask(Describe().event()))
    assert info.asr[0].supports_transcript_streaming is wanted


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_words_are_sent_while_they_are_spoken_and_the_whole_at_the_end(
    tmp_path: Path,
) -> None:
    async with viewing(tmp_path, Telling()) as viewer:
        await viewer.send(Transcribe(language="en", context={"a": 1}).event())
        await viewer.send(AudioStart(16000, 2, 1).event())
        await viewer.say_until(3)
        shown = viewer.chunks
        assert SENTENCE.startswith(shown)
        await viewer.stop()
    *streamed, transcript, _ = viewer.events
    assert viewer.types[0] == "transcript-start"
    assert viewer.events[0].data == {"language": "en", "context": {"a": 1}}
    assert {event.type for event in streamed[1:]} == {"transcript-chunk"}
    assert transcript.data == {"text": viewer.chunks, "language": "en", "context": {"a": 1}}
    assert viewer.chunks.startswith(shown)
    assert viewer.chunks != shown


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_without_live_text_a_transcript_is_all_that_comes(tmp_path: Path) -> None:
    fake = Telling()
    async with viewing(tmp_path, fake, live_text=False) as viewer:
        await viewer.say(loud(4.0))
        assert not fake.requests
        await viewer.send(AudioStop().event())
        await viewer.read_until("transcript")
        assert Pong.is_type((await viewer.ask(Ping().event())).type)
    assert viewer.types == ["transcript"]
    assert len(fake.requests) == 1


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_where_the_final_text_contradicts_what_was_sent_both_stay(tmp_path: Path) -> None:
    final = "Turn off the chicken light in five minutes, please, and so on."
    async with viewing(tmp_path, Telling(final)) as viewer:
        await viewer.say_until(3)
        await viewer.say(quiet(0.2))
        shown = viewer.chunks
        await viewer.stop()
    assert viewer.transcripts == [final]
    assert viewer.chunks.startswith(shown)
    assert viewer.chunks == shown + final[len(final) - len(viewer.chunks) + len(shown) :]
    assert viewer.chunks.endswith("so on.")
    assert len(viewer.chunks.split()) == len(final.split())


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_a_text_that_is_withheld_at_last_takes_nothing_back(tmp_path: Path) -> None:
    async with viewing(tmp_path, Telling("")) as viewer:
        await viewer.say_until(2)
        await viewer.say(quiet(0.2))
        shown = viewer.chunks
        await viewer.stop()
    assert shown
    assert viewer.chunks == shown
    assert viewer.transcripts == [""]


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_silence_has_a_beginning_and_an_end_too(tmp_path: Path) -> None:
    async with viewing(tmp_path, Telling()) as viewer:
        await viewer.say(quiet(1.0))
        await viewer.stop()
        await viewer.send(AudioStart(16000, 2, 1).event())
        await viewer.stop()
    assert viewer.types == 2 * ["transcript-start", "transcript", "transcript-stop"]


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_a_short_word_comes_in_one_chunk(tmp_path: Path) -> None:
    async with viewing(tmp_path, Telling()) as viewer:
        await viewer.say(loud(0.2))
        await viewer.stop()
    assert viewer.types == ["transcript-start", "transcript-chunk", "transcript", "transcript-stop"]
    assert viewer.chunks == viewer.transcripts[0] == "Turn"


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_what_was_said_up_to_a_pause_is_a_transcription_like_others(tmp_path: Path) -> None:
    fake = Telling()
    async with viewing(tmp_path, fake, eager=True) as viewer:
        await viewer.say(loud(0.4))  # not enough for two of its own
        while not fake.requests:  # noqa: ASYNC110 - it is another thread's
            await asyncio.sleep(0.005)
        while not viewer.events:
            await viewer.say(quiet(0.3))
            await asyncio.sleep(0.01)
        assert viewer.chunks == "Turn"
        assert len(fake.requests) == 2
        await viewer.stop()
    assert viewer.chunks == viewer.transcripts[0]
    assert len(fake.requests) == 2  # the early one was of use twice


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_utterances_do_not_mix(tmp_path: Path) -> None:
    """Of the next one nothing is sent before the last one is answered."""
    fake = Telling()
    async with viewing(tmp_path, fake, eager=False) as viewer:
        await viewer.say_until(2)
        fake.gate.clear()
        await viewer.send(AudioStop().event())
        await viewer.send(AudioStart(16000, 2, 1).event())
        await viewer.say(loud(2.0))
        before = viewer.types
        fake.gate.set()
        await viewer.say_until(len(before) + 5)
        await viewer.send(AudioStop().event())
        await viewer.read_until("transcript-stop")
    assert "transcript" not in before
    assert viewer.types.count("transcript-stop") == 2
    end = viewer.types.index("transcript-stop")
    assert viewer.types[:end].count("transcript-start") == 1
    assert viewer.types[end + 1] == "transcript-start"
    assert viewer.chunks == "".join(viewer.transcripts)


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_a_failure_is_an_error_also_after_words_were_sent(tmp_path: Path) -> None:
    failing = Telling(error=TranscribeError("no more"))
    async with viewing(tmp_path, failing) as viewer:
        await viewer.say_until(2)
        await viewer.say(quiet(0.2))
        await viewer.send(AudioStop().event())
        await viewer.read_until("error")
        assert Error.from_event(viewer.events[-1]).text == "no more"
        assert await viewer.receive() is None
    assert not viewer.transcripts


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_live_text_waits_while_somebody_waits_for_an_answer(tmp_path: Path) -> None:
    fake = Telling()
    async with viewing(tmp_path, fake) as viewer, Viewer(tmp_path) as busy:
        fake.gate.clear()
        await busy.speak(1.0)
        assert await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        await viewer.say(loud(3.0))
        assert len(fake.requests) == 1
        fake.gate.set()
        await busy.read_until("transcript-stop")
        await viewer.say_until(2)
        await viewer.stop()
    assert viewer.chunks == viewer.transcripts[0]


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_who_waits_for_an_answer_does_not_wait_for_live_text(tmp_path: Path) -> None:
    class Slow(Telling):
        """Never ends with its first request by itself."""

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

    fake = Slow()
    async with viewing(tmp_path, fake) as viewer, Viewer(tmp_path) as waiting:
        await viewer.say(loud(0.5))
        assert await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        await waiting.speak(1.0)
        await waiting.read_until("transcript-stop")
        assert fake.broken_off.is_set()
        await viewer.stop()
    assert viewer.transcripts == ["Turn"]


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_who_leaves_with_the_transcript_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Home Assistant does, which waits for no transcript-stop."""
    caplog.set_level(logging.INFO)
    fake = Telling()
    async with viewing(tmp_path, fake) as viewer:
        for _ in range(5):
            async with Viewer(tmp_path) as leaving:
                await leaving.say(loud(0.5))
                await leaving.send(AudioStop().event())
                await leaving.read_until("transcript")
        await viewer.say(loud(0.5))
        await viewer.stop()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert not [record for record in caplog.records if "Turn" in record.getMessage()]


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_a_command_that_the_server_ends_is_live_too(tmp_path: Path) -> None:
    async with viewing(tmp_path, Telling(), endpointing="0.5") as viewer:
        await viewer.say_until(2)
        await viewer.say(quiet(0.8))
        if viewer.types[-1] != "transcript-stop":  # it may have come before the answer to the ping
            await viewer.read_until("transcript-stop")
        before = viewer.types
        await viewer.say(loud(1.0))
        await viewer.send(AudioStop().event())
        await viewer.say(quiet(0.1))
    assert viewer.types == before
    assert viewer.chunks == viewer.transcripts[0]


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_a_language_that_is_not_known_yet_is_not_told(tmp_path: Path) -> None:
    async with viewing(tmp_path, Telling()) as viewer:
        await viewer.say_until(2)
        await viewer.stop()
    assert viewer.types[0] == "transcript-start"
    assert not viewer.events[0].data
    assert viewer.events[-2].data["language"] == "en"
