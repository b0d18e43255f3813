"""The end of speech: the policy on the clock of the audio, and what clients of the server see."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping

from tests.support import Client, FakeTranscriber, LoudnessVad, loud, quiet, run_server
from tests.utterance.test_utterance import InstantWorkshop, say, speaking, started
from wyoming_whisper.audio.pcm import PcmFormat
from wyoming_whisper.audio.speech import Speech
from wyoming_whisper.audio.vad import FRAME_SAMPLES, SpanOptions
from wyoming_whisper.errors import SettingsError
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription
from wyoming_whisper.utterance.endpointing import (
    End,
    Endpointer,
    _ending,
)
from wyoming_whisper.utterance.utterance import Utterance

FRAME = FRAME_SAMPLES / 16000
AUTO = Settings(endpointing="auto")


def waiting(seconds: float | None, **options: Any) -> Settings:
    return Settings(endpointing="auto" if seconds is None else str(seconds), **options)


def draft(text: str, avg_logprob: float = -0.1, language: str | None = "en") -> Transcription:
    return Transcription(text, language, avg_logprob=avg_logprob)


COMPLETE = draft("Turn on the kitchen light.")
UNSURE = draft("Turn on the kitchen light.", avg_logprob=-2.0)
DANGLING = draft("Turn on the")


@dataclass(frozen=True)
class Ended:
    """How listening ended."""

    why: End | None
    seconds: float
    """After so much audio."""


def listen(
    options: Settings,
    *parts: Samples,
    drafts: Sequence[Transcription | None] = (None,),
    sensitivity: str = "default",
    steps: Sequence[int] = (FRAME_SAMPLES,),
) -> Ended:
    """Return when the policy ends these samples; the n-th pause has the n-th draft, at once."""
    speech = Speech(LoudnessVad(), SpanOptions(pad_after_seconds=0.19))
    endpointer = Endpointer(options, sensitivity)
    known = [*drafts, *itertools.repeat(drafts[-1], 1000)]
    n_pauses, voiced = -1, -1
    for chunk in chunks(np.concatenate(parts), steps):
        speech.add(chunk)
        if speech.has_paused and speech.last_voiced != voiced:
            voiced, n_pauses = speech.last_voiced, n_pauses + 1
        has_draft = speech.last_voiced == voiced and n_pauses >= 0
        if why := endpointer.hear(speech, known[n_pauses] if has_draft else None):
            return Ended(why, speech.seconds)
    return Ended(None, speech.seconds)


def chunks(samples: Samples, steps: Sequence[int]) -> Iterator[Samples]:
    start = 0
    for step in itertools.cycle(steps):
        if start >= len(samples):
            return
        yield samples[start : start + step]
        start += step


# -- the policy ----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.0, 2.5])
def test_a_fixed_wait_is_waited(seconds: float) -> None:
    ended = listen(waiting(seconds), quiet(0.5), loud(1.024), quiet(4.0))
    assert ended.why == "pause"
    assert seconds <= ended.seconds - 1.524 < seconds + 2 * FRAME


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        (COMPLETE, Endpointer.COMPLETE_SECONDS),
        (UNSURE, Endpointer.UNSURE_SECONDS),
        (None, Endpointer.UNSURE_SECONDS),
        (DANGLING, Endpointer.DANGLING_SECONDS),
        (draft(""), Endpointer.DANGLING_SECONDS),
        (replace(draft(""), rejected="avg_logprob -0.40"), Endpointer.UNSURE_SECONDS),
    ],
)
def test_auto_waits_for_what_the_draft_makes_likely(
    found: Transcription | None, seconds: float
) -> None:
    ended = listen(AUTO, loud(1.024), quiet(3.0), drafts=[found])
    assert ended.why == "pause"
    assert seconds <= ended.seconds - 1.024 < seconds + 2 * FRAME


def test_a_fixed_wait_asks_no_draft() -> None:
    options = waiting(0.7)
    ends = {
        listen(options, loud(1.0), quiet(3.0), drafts=[found]).seconds
        for found in (COMPLETE, DANGLING, None)
    }
    assert len(ends) == 1


def test_who_hesitated_is_given_the_time_to_do_so_again() -> None:
    ended = listen(AUTO, loud(1.0), quiet(0.7), loud(1.0), quiet(3.0), drafts=[DANGLING, COMPLETE])
    assert ended.why == "pause"
    assert 1.5 * 0.6 < ended.seconds - 2.7 < Endpointer.DANGLING_SECONDS


def test_drafts_that_contradict_each_other_are_not_trusted() -> None:
    said = (loud(1.0), quiet(0.3), loud(1.0), quiet(3.0))
    other = draft("Close all the blinds.")
    agreed = listen(AUTO, *said, drafts=[draft("Turn on the kit."), COMPLETE])
    contradicted = listen(AUTO, *said, drafts=[other, COMPLETE])
    assert agreed.seconds < contradicted.seconds


def test_hardly_any_speech_ends_as_late_as_a_hesitation() -> None:
    """The end of the wake word, before a command."""
    for options in (waiting(0.4), AUTO):
        assert listen(options, loud(0.2), quiet(1.2), loud(1.0)).why is None
        ended = listen(options, loud(0.2), quiet(3.0), drafts=[COMPLETE])
        assert ended.why == "pause"
        assert ended.seconds == pytest.approx(0.2 + Endpointer.DANGLING_SECONDS, abs=2 * FRAME)


def test_without_speech_it_ends() -> None:
    options = waiting(0.5, no_speech_timeout=3)
    ended = listen(options, quiet(10.0))
    assert ended.why == "no speech"
    assert ended.seconds == pytest.approx(3.0, abs=FRAME)
    click = listen(options, quiet(1.0), loud(0.03), quiet(10.0))  # no evidence of speech
    assert click == ended
    assert listen(options, quiet(2.5), loud(4.0)).why is None  # it is no limit of commands


def test_what_never_pauses_ends_too() -> None:
    options = waiting(0.5, max_command_seconds=4)
    ended = listen(options, quiet(3.0), loud(20.0))
    assert ended.why == "too long"
    assert ended.seconds == pytest.approx(7.0, abs=0.2)


@pytest.mark.parametrize("seconds", [0.2, 0.4, 0.7, 1.0])
def test_the_sensitivity_is_home_assistants(seconds: float) -> None:
    waits = {
        name: listen(waiting(seconds), loud(1.024), quiet(5.0), sensitivity=name).seconds - 1.024
        for name in Endpointer.SENSITIVITIES
    }
    assert waits["aggressive"] <= waits["default"] < waits["relaxed"]
    assert waits["aggressive"] >= min(seconds, Endpointer.MIN_WAIT_SECONDS)
    assert waits["relaxed"] == pytest.approx(seconds * 1.25 / 0.7, abs=2 * FRAME)


def pauses(longest: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0.0, longest), min_size=1, max_size=5)


STEPS = st.lists(st.integers(160, 4000), min_size=1, max_size=4)
DRAFTS = st.lists(st.sampled_from([COMPLETE, UNSURE, DANGLING, None]), min_size=1, max_size=5)


def spoken(gaps: Sequence[float]) -> Samples:
    """Return speech with these pauses in it."""
    return np.concatenate([loud(0.4), *(np.append(quiet(gap), loud(0.4)) for gap in gaps)])


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.floats(0.3, 2.0), st.data(), STEPS)
def test_no_pause_shorter_than_the_wait_is_taken_for_the_end(
    wait: float, data: st.DataObject, steps: list[int]
) -> None:
    said = spoken(data.draw(pauses(wait * 0.999)))
    options = waiting(wait)
    ended = listen(options, said, quiet(wait + 1.0), steps=steps)
    assert ended.why == "pause"
    after = ended.seconds - len(said) / 16000
    assert wait - FRAME <= after <= wait + 2 * FRAME + max(steps) / 16000


@hypothesis_settings(max_examples=40, deadline=None)
@given(pauses(Endpointer.COMPLETE_SECONDS * 0.999), DRAFTS, STEPS)
def test_auto_ends_no_pause_that_is_shorter_than_its_shortest_wait(
    gaps: list[float], drafts: list[Transcription | None], steps: list[int]
) -> None:
    said = spoken(gaps)
    ended = listen(AUTO, said, quiet(3.0), drafts=drafts, steps=steps)
    assert ended.why == "pause"
    after = ended.seconds - len(said) / 16000
    assert after >= Endpointer.COMPLETE_SECONDS - FRAME
    assert after <= Endpointer.DANGLING_SECONDS + 2 * FRAME + max(steps) / 16000


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.0, 3.0)), max_size=12),
    st.sampled_from([None, 0.3, 0.7, 10.0]),
    st.sampled_from(sorted(Endpointer.SENSITIVITIES)),
    DRAFTS,
    STEPS,
)
def test_the_limits_hold_whatever_is_heard(
    parts: list[tuple[bool, float]],
    wait: float | None,
    sensitivity: str,
    drafts: list[Transcription | None],
    steps: list[int],
) -> None:
    options = waiting(wait, no_speech_timeout=2, max_command_seconds=4)
    sounds = [loud(seconds) if is_loud else quiet(seconds) for is_loud, seconds in parts]
    ended = listen(
        options, *sounds, loud(10.0), drafts=drafts, sensitivity=sensitivity, steps=steps
    )
    assert ended.why is not None
    latest = options.no_speech_timeout + options.max_command_seconds
    assert ended.seconds <= latest + max(steps) / 16000 + 4 * FRAME


# -- how a text ends -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Turn on the kitchen light.", "complete"),
        ("en", "turn the lights off", "complete"),
        ("en", "What's the weather like today?", "complete"),
        ("en", "set a timer for five minutes", "complete"),
        ("en", "Turn on the", "dangling"),
        ("en", "turn on", "dangling"),
        ("en", "Turn on the kitchen light and...", "dangling"),
        ("en", "Turn on the kitchen light,", "dangling"),
        ("en", "Uh", "dangling"),
        ("en", "What’s", "dangling"),  # noqa: RUF001
        ("en", "set the brightness to fifty", "unsure"),
        ("en", "Set the brightness to 50", "unsure"),
        ("en", "set the kitchen light", "unsure"),
        ("en", "turn the kitchen", "unsure"),
        ("en", "could you set the kitchen light", "unsure"),
        ("en", "please turn", "dangling"),
        ("en", "can you turn on", "dangling"),
        ("en", "could you please turn off the light", "complete"),
        ("en", "where is my brother's", "dangling"),
        ("en", "start a fifty one minute", "unsure"),
        ("en", "make the garden", "unsure"),
        ("en", "make the garden red", "complete"),
        ("en", "make me", "dangling"),
        ("en", "make me a coffee", "complete"),
        ("en", "announce everywhere that dinner is ready", "unsure"),
        ("de", "Kannst du das Licht", "unsure"),
        ("en", "stop", "unsure"),
        ("de", "Schalte das Licht in der Küche ein.", "complete"),
        ("de", "Schalte das Licht in der", "dangling"),
        ("de", "Schalte das Licht", "unsure"),
        ("de", "Licht aus", "complete"),
        ("es", "Enciende la luz de la cocina.", "complete"),
        ("es", "Enciende la luz de", "dangling"),
        ("fr", "Allume la lumière de la cuisine.", "complete"),
        ("fr", "Allume la lumière de l’", "dangling"),  # noqa: RUF001
        ("it", "Accendi la luce in cucina.", "complete"),
        ("it", "Accendi la luce della", "dangling"),
        ("nl", "Doe het licht in de keuken aan.", "complete"),
        ("nl", "Doe het licht in de", "dangling"),
        ("pl", "Włącz światło w kuchni.", "complete"),
        ("pl", "Włącz światło w", "dangling"),
        ("pt", "Acende a luz da cozinha.", "complete"),
        ("pt", "Acende a luz da", "dangling"),
        ("fi", "Sytytä keittiön valo.", "unsure"),  # nobody here could tell
        ("fi", "Sytytä keittiön...", "dangling"),
        (None, "Turn on the kitchen light.", "unsure"),
    ],
)
def test_how_a_text_ends(language: str | None, text: str, expected: str) -> None:
    assert _ending(draft(text, language=language)) == expected


def test_a_doubtful_or_a_withheld_text_is_not_complete() -> None:
    assert _ending(UNSURE) == "unsure"
    assert _ending(replace(COMPLETE, rejected="a phrase")) == "unsure"


# -- settings ------------------------------------------------------------------------------


def test_commands_are_ended_where_that_is_asked_for(tmp_path: Path) -> None:
    assert Endpointer.of(Settings(data_dir=(tmp_path,))) is None
    assert Endpointer.of(Settings(endpointing="0.7"))
    assert Endpointer.of(Settings(endpointing="auto"))


def test_somebody_has_to_end_commands() -> None:
    with pytest.raises(SettingsError, match="--no-requires-external-vad needs --endpointing"):
        Endpointer.of(Settings(requires_external_vad=False))


# -- one utterance -------------------------------------------------------------------------


async def _answer(workshop: InstantWorkshop, audio: list[Samples], ends: bool) -> tuple[str, int]:
    """Return the text, and of how many samples it is."""
    endpointer = Endpointer(AUTO) if ends else None
    spoken = Utterance(workshop, TranscribeOptions(language="en"), endpointer)
    n_samples = 0
    for part in audio:
        spoken.add(PcmFormat(16000, 2, 1), (part * 32767).astype("<i2").tobytes())
        n_samples += len(part)
        if spoken.is_over:
            break
    return (await spoken.transcription()).text, n_samples


@pytest.mark.usefixtures("_without_a_clock")
@hypothesis_settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(pauses(1.6), STEPS, st.booleans())
def test_the_text_is_that_of_the_same_samples_without_endpointing(
    gaps: list[float], steps: list[int], eager: bool
) -> None:
    audio = list(chunks(np.append(spoken(gaps), quiet(2.0)), steps))

    async def both() -> tuple[str, str]:
        text, n_samples = await _answer(InstantWorkshop(eager=eager), audio, ends=True)
        same = [np.concatenate(audio)[:n_samples]]
        whole, _ = await _answer(InstantWorkshop(eager=False), same, ends=False)
        return text, whole

    text, whole = asyncio.run(both())
    assert text
    assert text == whole


# -- the server ----------------------------------------------------------------------------


@dataclass
class Writing(FakeTranscriber):
    """Answers with one text."""

    text: str = ""

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        return replace(super().transcribe(samples, options), text=self.text, avg_logprob=-0.1)


async def answered_first(client: Client) -> bool:
    """Return whether a transcript came before the answer to a question asked now."""
    event = await client.ask(Ping().event())
    if event.type == "pong":
        return False
    assert event.type == "transcript"
    pong = await client.receive()
    assert pong is not None
    assert pong.type == "pong"
    return True


async def send(client: Client, *parts: Samples) -> None:
    audio = (np.concatenate(parts) * 32767).astype("<i2").tobytes()
    for start in range(0, len(audio), 1024):
        await client.send(AudioChunk(16000, 2, 1, audio[start : start + 1024]).event())


async def begin(client: Client, sensitivity: str | None = None) -> None:
    await client.send(Transcribe(language="en", vad_sensitivity=sensitivity).event())
    await client.send(AudioStart(16000, 2, 1).event())


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
@pytest.mark.parametrize("eager", [True, False])
async def test_the_transcript_comes_before_audio_stop_and_none_after(
    tmp_path: Path, eager: bool
) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake, endpointing="0.5", eager=eager) as client:
        for _ in range(2):  # the next one on the same connection is as the first
            await begin(client)
            await send(client, loud(0.5), quiet(0.7))
            text = (await client.transcript()).text
            assert text == f"{len(fake.requests[-1][0])} samples in en"
            await send(client, quiet(0.5), loud(1.0), quiet(1.0))  # not heard any more
            await client.send(AudioStop().event())
            assert not await answered_first(client)
    assert len(fake.requests) == 2


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_another_audio_start_begins_anew_without_an_audio_stop(tmp_path: Path) -> None:
    async with speaking(tmp_path, FakeTranscriber(), endpointing="0.5") as client:
        for _ in range(2):
            await begin(client)
            await send(client, loud(0.5), quiet(0.7))
            assert (await client.transcript()).text


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_a_client_that_ends_its_audio_first_gets_its_one_answer(tmp_path: Path) -> None:
    async with speaking(tmp_path, FakeTranscriber(), endpointing="0.5") as client:
        await begin(client)
        await send(client, loud(0.5), quiet(0.2))
        await client.send(AudioStop().event())
        assert (await client.transcript()).text
        assert not await answered_first(client)


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_off_the_client_alone_ends_a_command(tmp_path: Path) -> None:
    async with speaking(tmp_path, FakeTranscriber()) as client:
        await begin(client, "aggressive")
        await say(client, loud(0.5), quiet(20.0), loud(20.0))  # its ping was answered first
        await client.send(AudioStop().event())
        assert (await client.transcript()).text


@pytest.mark.usefixtures("_hear_loudness")
async def test_a_file_sent_at_once_is_heard_whole(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with speaking(tmp_path, fake, endpointing="0.3") as client:
        await begin(client)
        await say(client, quiet(1.5), loud(1.0), quiet(1.0), loud(1.0))
        await client.send(AudioStop().event())
        await client.transcript()
    assert [len(samples) >= 3 * 16000 for samples, _ in fake.requests] == [True]


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_nobody_speaks_or_nobody_stops(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    settings = {"endpointing": "auto", "no_speech_timeout": 2, "max_command_seconds": 3}
    async with speaking(tmp_path, fake, **settings) as client:
        await begin(client)
        await send(client, quiet(2.1))
        assert (await client.transcript()).text == ""
        assert not fake.requests
        await begin(client)
        await send(client, loud(3.5))
        assert (await client.transcript()).text


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_auto_reads_what_early_work_wrote(tmp_path: Path) -> None:
    fake = Writing(text="Turn on the")
    async with speaking(tmp_path, fake, endpointing="auto") as client:
        await begin(client)
        await say(client, loud(0.5), quiet(0.3))
        await asyncio.wait_for(started(fake, 1), 10)
        await asyncio.sleep(0.05)
        await say(client, quiet(0.9))  # more than an unsure text is given
        fake.text = "Turn on the kitchen light"
        await say(client, loud(0.5), quiet(0.3))
        await asyncio.wait_for(started(fake, 2), 10)
        await asyncio.sleep(0.05)
        await send(client, quiet(1.6))  # who hesitated once is given more time
        assert (await client.transcript()).text == fake.text
        await client.send(AudioStop().event())

        await begin(client)
        await say(client, loud(0.5), quiet(0.3))
        await asyncio.wait_for(started(fake, 3), 10)
        await asyncio.sleep(0.05)
        await send(client, quiet(0.1))
        assert (await client.transcript()).text == fake.text
    assert len(fake.requests) == 3


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
async def test_auto_does_without_early_work(tmp_path: Path) -> None:
    fake = Writing(text="Turn on the")
    async with speaking(tmp_path, fake, endpointing="auto", eager=False) as client:
        await begin(client)
        await send(client, loud(0.5), quiet(Endpointer.UNSURE_SECONDS + 0.1))
        assert (await client.transcript()).text == fake.text


@pytest.mark.usefixtures("_hear_loudness", "_without_a_clock")
@pytest.mark.parametrize(
    ("sensitivity", "silence", "is_over"),
    [
        ("aggressive", 0.32, True),
        (None, 0.32, False),
        ("default", 0.8, True),
        ("relaxed", 0.8, False),
        ("relaxed", 1.4, True),
    ],
)
async def test_a_request_may_want_an_earlier_or_a_later_end(
    tmp_path: Path, sensitivity: str | None, silence: float, is_over: bool
) -> None:
    async with speaking(tmp_path, FakeTranscriber(), endpointing="0.7") as client:
        await begin(client, sensitivity)
        await send(client, loud(0.512), quiet(silence))
        if is_over:
            assert (await client.transcript()).text
        assert not await answered_first(client)


@pytest.mark.parametrize("value", ["eager", "AGGRESSIVE", 7, ["default"], {}, True, ""])
@pytest.mark.parametrize("option", ["off", "auto"])
async def test_a_sensitivity_that_is_none_is_one_clear_error(
    tmp_path: Path, value: object, option: str
) -> None:
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), endpointing=option),
        Client(tmp_path) as client,
    ):
        await client.send(Event("transcribe", {"vad_sensitivity": value}))
        error = await client.error()
    assert error.code == "protocol-error"
    assert error.text.startswith("vad_sensitivity must be one of aggressive, default, relaxed")


@pytest.mark.parametrize("external", [True, False])
async def test_info_says_who_ends_commands(tmp_path: Path, external: bool) -> None:
    fake = FakeTranscriber()
    settings = {"endpointing": "auto", "requires_external_vad": external}
    async with run_server(tmp_path, lambda _: fake, **settings) as server:
        for _ in range(2):  # before the model is there, and then
            async with Client(tmp_path) as client:
                info = Info.from_event(await client.ask(Describe().event()))
            assert info.asr[0].requires_external_vad is external
            await asyncio.wait_for(asyncio.wrap_future(server.scheduler.opened), 10)


@pytest.mark.parametrize("language", ["en", "sv"])
def test_a_sentence_of_the_home_is_complete_in_every_language(language: str) -> None:
    text = draft("Tänd lampan i köket", avg_logprob=-0.9, language=language)
    assert _ending(text) == "unsure"
    assert _ending(replace(text, understood=True)) == "complete"
    assert _ending(replace(text, understood=False)) == "unsure"
    assert _ending(replace(text, understood=True, rejected="too unlikely")) == "unsure"
    assert _ending(replace(text, understood=True), "Stäng av musiken nu") == "unsure"


def test_a_sentence_of_the_home_may_go_on() -> None:
    """After a number a unit may follow."""
    number = replace(draft("Set the lamp to 50"), understood=True)
    assert _ending(number) == "unsure"
    assert _ending(replace(draft("Turn on the"), understood=True)) == "dangling"
