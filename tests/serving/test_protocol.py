"""The protocol, over a real socket, with the wyoming library as the client."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event, async_read_event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping

from tests.support import (
    LOUD,
    TIMEOUT_SECONDS,
    Client,
    FakeTranscriber,
    LoudnessVad,
    SteppingTranscriber,
    connected,
    run_server,
    until,
)
from wyoming_whisper.audio.vad import FRAME_SAMPLES
from wyoming_whisper.errors import ModelUnavailableError, SettingsError, TranscribeError
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcriber, Transcription

DESCRIBE = Describe().event()


pytestmark = pytest.mark.usefixtures("_hear_loudness")


async def test_a_command_is_answered_with_text_and_language(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        await client.speak(0.5, language="de-DE")
        transcript = await client.transcript()
        assert transcript.text == "8000 samples in de"
        assert transcript.language == "de"


async def test_several_commands_follow_each_other_on_one_connection(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        for seconds in (0.1, 0.2, 0.3):
            await client.speak(seconds, language="en")
        texts = [(await client.transcript()).text for _ in range(3)]
        assert texts == ["1600 samples in en", "3200 samples in en", "4800 samples in en"]


async def test_a_second_audio_start_starts_afresh(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        await client.send(AudioStart(16000, 2, 1).event())
        await client.send(AudioChunk(16000, 2, 1, 20 * LOUD).event())
        await client.speak(0.1, language="en")
        assert (await client.transcript()).text == "1600 samples in en"


@pytest.mark.parametrize("start", [True, False])
async def test_audio_stop_without_audio_gives_an_empty_transcript(
    tmp_path: Path, start: bool
) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        if start:
            await client.send(AudioStart(16000, 2, 1).event())
        await client.send(AudioStop().event())
        assert (await client.transcript()).text == ""


async def test_chunks_need_no_audio_start(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        await client.send(AudioChunk(16000, 2, 1, 10 * LOUD).event())
        await client.send(AudioStop().event())
        assert (await client.transcript()).text == "1600 samples in None"


@pytest.mark.parametrize("step", [1, 3, 1023])
async def test_chunks_may_end_within_a_sample(tmp_path: Path, step: int) -> None:
    """As those read from a pipe or a socket do; half a sample at the end is dropped."""
    audio = 10 * LOUD + LOUD[:1]
    fake = FakeTranscriber()
    async with run_server(tmp_path, lambda _: fake), Client(tmp_path) as client:
        for start in range(0, len(audio), step):
            await client.send(AudioChunk(16000, 2, 1, audio[start : start + step]).event())
        await client.send(AudioStop().event())
        assert (await client.transcript()).text == "1600 samples in None"
    ((samples, _),) = fake.requests
    assert set(samples.tolist()) == {0.5}


async def test_context_comes_back(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        await client.send(Transcribe(context={"room": "kitchen"}).event())
        await client.send(AudioStop().event())
        assert (await client.transcript()).context == {"room": "kitchen"}


async def test_names_and_terms_reach_the_transcriber(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with run_server(tmp_path, lambda _: fake), Client(tmp_path) as client:
        request = Transcribe(transcript_names=["Brimlow"], transcript_terms=["heat pump"])
        await client.send(request.event())
        await client.send(AudioChunk(16000, 2, 1, 10 * LOUD).event())
        await client.send(AudioStop().event())
        await client.transcript()
    assert fake.requests[0][1].names == ("Brimlow", "heat pump")


@pytest.mark.parametrize(
    ("configured", "asked", "heard"),
    [
        ("auto", None, "None"),
        ("auto", "auto", "None"),
        ("de", None, "de"),
        ("de", "en", "en"),
        ("de", "auto", "None"),
        ("auto", "en_US", "en"),
        ("auto", "German", "de"),
    ],
)
async def test_the_client_names_the_language_or_the_server_does(
    tmp_path: Path, configured: str, asked: str | None, heard: str
) -> None:
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), language=configured),
        Client(tmp_path) as client,
    ):
        await client.speak(0.1, language=asked)
        assert (await client.transcript()).text == f"1600 samples in {heard}"


async def test_the_configured_language_serves_before_any_transcribe(tmp_path: Path) -> None:
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), language="de"),
        Client(tmp_path) as client,
    ):
        await client.send(AudioChunk(16000, 2, 1, 10 * LOUD).event())
        await client.send(AudioStop().event())
        assert (await client.transcript()).text == "1600 samples in de"


async def test_describe_names_one_program_with_the_users_model(tmp_path: Path) -> None:
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), model="tiny.en"),
        Client(tmp_path) as client,
    ):
        info = Info.from_event(await client.ask(DESCRIBE))
    (program,) = info.asr
    (model,) = program.models
    assert (program.name, model.name) == ("wyoming-whisper", "tiny.en")
    assert program.installed
    assert model.installed
    assert program.requires_external_vad
    assert program.version


@pytest.mark.parametrize("bias_names", [True, False])
async def test_a_name_of_the_home_is_no_filler(tmp_path: Path, bias_names: bool) -> None:
    class Named(FakeTranscriber):
        def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
            return Transcription("Um Bongo off.", "en")

    for names, text in ((("Um Bongo",), "Um Bongo off"), ((), "Bongo off")):
        settings = {"bias_names": bias_names, "names": names}
        async with (
            run_server(tmp_path, lambda _: Named(), **settings),
            Client(tmp_path) as client,
        ):
            await client.speak(0.5, "en")
            assert (await client.transcript()).text == text


@pytest.mark.parametrize(("gain", "noise"), [(True, True), (False, True), (True, False)])
async def test_describe_says_which_audio_is_preferred(
    tmp_path: Path, gain: bool, noise: bool
) -> None:
    settings = {"prefers_auto_gain": gain, "prefers_noise_reduction": noise}
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), **settings) as server,
        Client(tmp_path) as client,
    ):
        before = Info.from_event(await client.ask(DESCRIBE)).asr[0]
        await asyncio.wait_for(asyncio.wrap_future(server.scheduler.opened), 10)
        after = Info.from_event(await client.ask(DESCRIBE)).asr[0]
    for program in (before, after):
        assert program.prefers_auto_gain_enabled is gain
        assert program.prefers_noise_reduction_enabled is noise


async def test_an_english_model_claims_english_before_it_is_loaded(tmp_path: Path) -> None:
    gate = FakeTranscriber().gate
    gate.clear()

    def slow(_: Settings) -> Transcriber:
        gate.wait(5)
        return FakeTranscriber()

    async with run_server(tmp_path, slow, model="tiny.en"), Client(tmp_path) as client:
        info = Info.from_event(await client.ask(DESCRIBE))
        assert info.asr[0].models[0].languages == ["en"]
        gate.set()


async def test_ping_is_answered_with_its_text(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        assert await client.ask(Ping("hello").event()) == Event("pong", {"text": "hello"})


async def test_describe_and_ping_are_answered_while_the_model_loads(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    loading = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(_: Settings) -> Transcriber:
        loop.call_soon_threadsafe(loading.set)
        fake.gate.wait(10)
        return fake

    fake.gate.clear()
    async with run_server(tmp_path, slow), Client(tmp_path) as client:
        await loading.wait()
        await client.speak(0.1, language="en")
        assert (await client.ask(DESCRIBE)).type == "info"
        assert (await client.ask(Ping().event())).type == "pong"
        fake.gate.set()
        assert (await client.transcript()).text == "1600 samples in en"


async def test_describe_is_answered_while_transcribing_also_on_the_same_connection(
    tmp_path: Path,
) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with (
        run_server(tmp_path, lambda _: fake),
        Client(tmp_path) as busy,
        Client(tmp_path) as other,
    ):
        await busy.speak(0.1, language="en")
        await asyncio.to_thread(fake.started.wait, 10)
        assert (await busy.ask(DESCRIBE)).type == "info"
        assert (await other.ask(DESCRIBE)).type == "info"
        fake.gate.set()
        assert (await busy.transcript()).text == "1600 samples in en"


async def test_unknown_events_are_ignored(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        await client.send(Event("from-the-future", {"a": 1}, b"payload"))
        assert (await client.ask(Ping().event())).type == "pong"


async def test_the_program_and_the_model_may_be_selected_by_name(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        await client.send(SelectProgram("wyoming-whisper").event())
        await client.send(Transcribe(name="tiny", language="en").event())
        await client.send(AudioStop().event())
        assert (await client.transcript()).text == ""


@pytest.mark.parametrize(
    ("event", "code", "words"),
    [
        (Transcribe(name="large").event(), "unknown-model", ["'large'", "'tiny'"]),
        (SelectProgram("piper").event(), "unknown-model", ["'piper'", "'wyoming-whisper'"]),
        (Transcribe(language="tlh").event(), "unknown-language", ["'tlh'", "de, ", "yue"]),
        (Event("transcribe", {"language": 7}), "protocol-error", ["language"]),
        (Event("transcribe", {"transcript_names": [1]}), "protocol-error", ["transcript_names"]),
        (Event("transcribe", {"transcript_names": 7}), "protocol-error", ["transcript_names"]),
        (Event("audio-start", {"rate": 16000}), "protocol-error", ["audio-start", "'width'"]),
        (Event("select-program"), "protocol-error", ["select-program", "'name'"]),
        (AudioStart(0, 2, 1).event(), "invalid-audio", ["rate 0"]),
        (AudioStart(10**9, 2, 1).event(), "invalid-audio", ["rate 1000000000"]),
        (AudioChunk(16000, 5, 1, b"12345").event(), "invalid-audio", ["width 5"]),
        (AudioChunk(16000, 2, 0, b"12").event(), "invalid-audio", ["channels 0"]),
        (Event("audio-chunk", {"rate": "fast", "width": 2, "channels": 1}), "invalid-audio", []),
        (
            Event("audio-start", {"rate": 16000.5, "width": 2, "channels": 1}),
            *("invalid-audio", ["rate 16000.5"]),
        ),
        (
            Event("audio-start", {"rate": 1e300, "width": 2, "channels": 1}),
            *("invalid-audio", ["rate 1000000000"]),
        ),
        (
            Event("audio-start", {"rate": 16000, "width": "9", "channels": 1}),
            *("invalid-audio", ["width 9"]),
        ),
        (
            Event("audio-start", {"rate": 16000, "width": 2, "channels": True}),
            *("invalid-audio", ["channels True"]),
        ),
    ],
)
async def test_a_bad_event_is_an_error_in_one_sentence_and_a_closed_connection(
    tmp_path: Path, event: Event, code: str, words: list[str]
) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()):
        async with Client(tmp_path) as client:
            await client.send(event)
            error = await client.error()
            assert error.code == code
            assert all(word in error.text for word in words), error.text
            assert "\n" not in error.text
        async with Client(tmp_path) as client:
            assert (await client.ask(Ping().event())).type == "pong"


async def test_an_error_arrives_although_the_client_is_still_sending(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        await client.send(Transcribe(language="tlh").event())
        for _ in range(50):
            await client.send(AudioChunk(16000, 2, 1, 10 * LOUD).event())
        assert (await client.error()).code == "unknown-language"


async def test_a_request_that_fails_is_an_error_and_the_next_one_works(tmp_path: Path) -> None:
    fake = FakeTranscriber(error=TranscribeError("no, because of this"))
    async with run_server(tmp_path, lambda _: fake):
        async with Client(tmp_path) as client:
            await client.speak(0.1)
            assert (await client.error()).text == "no, because of this"
        fake.error = None
        async with Client(tmp_path) as client:
            await client.speak(0.1, language="en")
            assert (await client.transcript()).text == "1600 samples in en"


async def test_what_nobody_foresaw_is_an_error_without_its_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeTranscriber(error=ZeroDivisionError("secret"))
    async with run_server(tmp_path, lambda _: fake), Client(tmp_path) as client:
        await client.speak(0.1)
        error = await client.error()
    assert error.code == "internal-error"
    assert "secret" not in error.text
    assert "ZeroDivisionError" in caplog.text


async def test_memory_that_is_not_enough_for_the_audio_is_an_error_and_the_server_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    async with run_server(tmp_path, lambda _: FakeTranscriber()):
        with monkeypatch.context() as patch:
            patch.setattr("wyoming_whisper.utterance.utterance.Utterance.add", no_memory)
            async with Client(tmp_path) as client:
                await client.send(AudioChunk(16000, 2, 1, LOUD).event())
                assert "not enough memory" in (await client.error()).text
        async with Client(tmp_path) as client:
            await client.speak(0.1, language="en")
            assert (await client.transcript()).text == "1600 samples in en"


async def test_a_client_that_leaves_takes_its_waiting_work_along(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with run_server(tmp_path, lambda _: fake), Client(tmp_path) as first:
        await first.speak(0.1, language="en")
        await asyncio.to_thread(fake.started.wait, 10)
        async with Client(tmp_path) as leaving:
            await leaving.speak(0.2, language="en")
            await leaving.ask(Ping().event())  # its audio has been read
        async with Client(tmp_path) as third:
            await third.speak(0.3, language="en")
            await third.ask(Ping().event())
            await asyncio.sleep(0.1)
            fake.gate.set()
            assert (await third.transcript()).text == "4800 samples in en"
    assert [len(samples) for samples, _ in fake.requests] == [1600, 4800]


async def test_a_model_that_cannot_be_had_now_is_an_error_that_says_why_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.scheduler.Scheduler.FIRST_RETRY_SECONDS", 0.3)
    attempts = []

    def unreachable_once(_: Settings) -> Transcriber:
        attempts.append(1)
        if len(attempts) == 1:
            raise ModelUnavailableError("the hub can't be reached; connect the machine")
        return FakeTranscriber()

    async with run_server(tmp_path, unreachable_once) as server:
        async with Client(tmp_path) as client:
            assert (await client.ask(DESCRIBE)).type == "info"
            await client.speak(0.1)
            error = await client.error()
            assert (error.code, "connect the machine" in error.text) == ("model-unavailable", True)
        await asyncio.wait_for(asyncio.wrap_future(server.scheduler.opened), 10)
        async with Client(tmp_path) as client:
            await client.speak(0.1, language="en")
            assert (await client.transcript()).text == "1600 samples in en"
    loud = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(loud) == 1
    assert "connect the machine" in loud[0].getMessage()


async def test_a_model_that_can_never_be_opened_ends_the_server(tmp_path: Path) -> None:
    def impossible(_: Settings) -> Transcriber:
        raise SettingsError("no such device")

    with pytest.raises(SettingsError, match="no such device"):
        async with run_server(tmp_path, impossible) as server:
            await asyncio.wait_for(server._stopping.wait(), 10)


async def test_a_connection_without_a_word_leaves_no_trace_at_info(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()) as server:
        await asyncio.wait_for(asyncio.wrap_future(server.scheduler.opened), 10)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                async with Client(tmp_path):
                    pass
                async with Client(tmp_path) as client:
                    await client.ask(DESCRIBE)
            await asyncio.sleep(0.05)
        assert not caplog.records


async def test_nothing_spoken_is_logged_above_debug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
            await client.speak(0.1, language="en")
            await client.transcript()
    assert "s of audio answered" in caplog.text
    assert "samples in en" not in caplog.text


async def test_stopping_finishes_what_is_being_transcribed(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with connected(tmp_path, fake) as (client, server):
        await client.speak(0.1, language="en")
        await asyncio.to_thread(fake.started.wait, 10)
        server.stop()
        await asyncio.sleep(0.05)
        fake.gate.set()
        assert (await client.transcript()).text == "1600 samples in en"
        assert await client.receive() is None
    assert fake.closed


@pytest.mark.parametrize(
    ("rate", "width", "channels"),
    [(8000, 1, 1), (44100, 2, 2), (48000, 3, 1), (22050, 4, 2), (16000, 4, 1), (96000, 3, 6)],
)
async def test_any_pcm_becomes_16_khz_mono(
    tmp_path: Path, rate: int, width: int, channels: int
) -> None:
    fake = FakeTranscriber()
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    frames = np.repeat(np.round(tone * (2 ** (8 * width - 1) - 1)).astype(int), channels)
    audio = b"".join(
        int(value + (128 if width == 1 else 0)).to_bytes(width, "little", signed=width > 1)
        for value in frames
    )
    step = width * channels * rate // 50
    async with run_server(tmp_path, lambda _: fake), Client(tmp_path) as client:
        await client.send(AudioStart(rate, width, channels).event())
        for start in range(0, len(audio), step):
            await client.send(
                AudioChunk(rate, width, channels, audio[start : start + step]).event()
            )
        await client.send(AudioStop().event())
        await client.transcript()
    ((samples, _),) = fake.requests
    assert abs(len(samples) - 16000) <= 1
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / 16000)
    middle = slice(800, -800)
    assert np.abs(samples[middle] - expected[middle]).max() < (0.02 if width == 1 else 0.002)


@pytest.mark.parametrize(
    "numbers",
    [
        {"rate": "16000", "width": "2", "channels": "1"},
        {"rate": 16000.0, "width": 2.0, "channels": 1.0},
    ],
)
async def test_a_format_in_numbers_that_are_text_or_have_a_point_is_taken(
    tmp_path: Path, numbers: dict[str, object]
) -> None:
    fake = FakeTranscriber()
    async with run_server(tmp_path, lambda _: fake), Client(tmp_path) as client:
        await client.send(Event("audio-start", numbers))
        for _ in range(100):
            await client.send(Event("audio-chunk", numbers, LOUD))
        await client.send(AudioStop().event())
        await client.transcript()
    ((samples, _),) = fake.requests
    assert len(samples) == 100 * len(LOUD) // 2


# -- what is asked for late ----------------------------------------------------------------


async def test_a_transcribe_after_audio_start_counts_for_that_utterance(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with run_server(tmp_path, lambda _: fake), Client(tmp_path) as client:
        await client.send(Transcribe(language="en", context={"room": "hall"}).event())
        await client.send(AudioStart(16000, 2, 1).event())
        await client.send(AudioChunk(16000, 2, 1, 10 * LOUD).event())
        late = Transcribe(language="de", context={"room": "bath"}, transcript_names=["Brimlow"])
        await client.send(late.event())
        await client.send(AudioStop().event())
        transcript = await client.transcript()
    assert (transcript.text, transcript.language) == ("1600 samples in de", "de")
    assert transcript.context == {"room": "bath"}
    ((_, options),) = fake.requests
    assert options.names == ("Brimlow",)


async def test_work_begun_with_other_options_is_not_used(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with run_server(tmp_path, lambda _: fake) as server, Client(tmp_path) as client:
        await asyncio.wrap_future(server.scheduler.opened)
        await client.send(Transcribe(language="en").event())
        await client.send(AudioStart(16000, 2, 1).event())
        for chunk in [50 * LOUD, bytes(len(40 * LOUD))]:
            await client.send(AudioChunk(16000, 2, 1, chunk).event())
        assert await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        await client.send(Transcribe(language="de").event())
        await client.send(AudioStop().event())
        assert (await client.transcript()).text.endswith("in de")
    assert [options.language for _, options in fake.requests] == ["en", "de"]


async def test_the_same_asked_again_wastes_no_work(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with run_server(tmp_path, lambda _: fake) as server, Client(tmp_path) as client:
        await asyncio.wrap_future(server.scheduler.opened)
        await server.loaded_vad()  # what comes before is heard with what comes after
        await client.send(Transcribe(language="en").event())
        for chunk in [50 * LOUD, bytes(len(40 * LOUD))]:
            await client.send(AudioChunk(16000, 2, 1, chunk).event())
        assert await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        await client.send(Transcribe(language="en", context={"room": "hall"}).event())
        await client.send(AudioStop().event())
        assert (await client.transcript()).context == {"room": "hall"}
    assert len(fake.requests) == 1


# -- bounds --------------------------------------------------------------------------------


async def speak_on(client: Client, seconds: float) -> None:
    """Send sound without an end."""
    for _ in range(round(seconds * 10)):
        await client.send(AudioChunk(16000, 2, 1, 10 * LOUD).event())


async def test_an_utterance_too_long_is_answered_at_its_limit_and_the_rest_is_not_heard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before its end, which Home Assistant takes either way; no second answer at the end."""
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), max_utterance_seconds=1),
        Client(tmp_path) as client,
    ):
        await client.send(Transcribe(language="en").event())
        await client.send(AudioStart(16000, 2, 1).event())
        await speak_on(client, 3.05)
        assert (await client.transcript()).text == "16000 samples in en"
        await client.send(AudioStop().event())
        await client.speak(0.1, language="en")
        assert (await client.transcript()).text == "1600 samples in en"
        await speak_on(client, 1.5)
        assert (await client.transcript()).text == "16000 samples in en"
        await client.send(AudioStart(16000, 2, 1).event())  # the end of the last one is missing
        await client.send(AudioStop().event())
        assert (await client.transcript()).text == ""
    assert caplog.text.count("--max-utterance-seconds (1)") == 1


async def test_a_chunk_that_names_hours_costs_what_its_beginning_costs(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    async with (
        run_server(tmp_path, lambda _: fake, max_utterance_seconds=2) as server,
        Client(tmp_path) as client,
    ):
        free = server.held_audio.free
        await client.send(AudioChunk(1000, 1, 1, b"\xff" * 2_000_000).event())
        await client.transcript()
        assert server.held_audio.free == free
    ((samples, _),) = fake.requests
    assert len(samples) <= 2.5 * 16000
    (answer,) = server.status.answers
    assert answer.truncated


async def test_an_utterance_of_exactly_the_limit_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), max_utterance_seconds=1) as server,
        Client(tmp_path) as client,
    ):
        await client.speak(1.0, language="en")
        assert (await client.transcript()).text == "16000 samples in en"
        (answer,) = server.status.answers
        assert not answer.truncated
    assert "--max-utterance-seconds" not in caplog.text


async def test_the_loop_goes_on_while_a_long_chunk_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []

    class CountingVad(LoudnessVad):
        def stream(self) -> LoudnessVad:
            return CountingVad()

        def push(self, samples: Samples) -> Samples:
            turns.append(len(samples))
            return super().push(samples)

    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", CountingVad)
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber()) as server,
        Client(tmp_path) as client,
    ):
        await server.loaded_vad()  # what comes before is heard with what comes after
        await client.send(AudioChunk(16000, 2, 1, 2000 * LOUD).event())
        await client.send(AudioStop().event())
        await client.transcript()
    assert sum(turns) >= 20 * 16000
    assert max(turns) < 2 * 16 * FRAME_SAMPLES


@pytest.mark.parametrize(
    "event",
    [
        Event("ping", None),  # type: ignore[arg-type]
        Event("audio-stop", {"timestamp": "soon"}),
        Event("transcribe", {"language": None, "name": None, "context": None}),
        Event("audio-chunk", {"rate": 16000, "width": 2, "channels": 1}),
        Event("audio-chunk", {"rate": 16000, "width": 2, "channels": 1}, b""),
        Event("audio-start", {"rate": 16000, "width": 2, "channels": 1, "timestamp": None}, b"12"),
        Event("", {}),
        Event("transcript", {"text": "mine"}),
        Event("info", {}),
    ],
)
async def test_what_is_odd_but_harmless_is_taken(tmp_path: Path, event: Event) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        await client.send(event)
        await client.send(AudioStart(16000, 2, 1).event())
        await client.send(Ping("still here").event())
        while (answer := await client.receive()) != Event("pong", {"text": "still here"}):
            assert answer is not None
            assert answer.type in ("pong", "transcript")


@pytest.mark.parametrize("place", ["name", "program", "language", "rate"])
async def test_a_peers_words_come_back_short(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    long = 100_000 * "x"
    event = {
        "name": Event("transcribe", {"name": long}),
        "program": Event("select-program", {"name": long}),
        "language": Event("transcribe", {"language": long}),
        "rate": Event("audio-start", {"rate": long, "width": 2, "channels": 1}),
    }[place]
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as client:
        await client.send(event)
        assert len((await client.error()).text) < 1000
    assert len(caplog.text) < 3000


async def test_a_half_sent_event_is_an_error_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.wire.MAX_EVENT_SECONDS", 0.2)
    async with run_server(tmp_path, lambda _: FakeTranscriber()), Client(tmp_path) as silent:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(b'{"type":"audio-chunk","payload_length":100}\nhalf')
        event = await asyncio.wait_for(async_read_event(reader), TIMEOUT_SECONDS)
        assert event is not None
        assert (event.type, event.data["code"]) == ("error", "protocol-error")
        assert await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS) == b""
        writer.close()
        assert (await silent.ask(Ping().event())).type == "pong"


async def test_a_peer_is_warned_of_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def misbehave(times: int) -> None:
        for _ in range(times):
            async with Client(tmp_path) as client:
                await client.send(AudioStart(0, 2, 1).event())
                await client.error()

    def warnings() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    async with run_server(tmp_path, lambda _: FakeTranscriber()):
        await misbehave(5)
        (first,) = warnings()
        assert "a unix socket" in first
        assert "rate 0" in first
        monkeypatch.setattr("wyoming_whisper.peers.PeerLog.QUIET_SECONDS", 0.0)
        await misbehave(1)
        assert "4 more" in warnings()[1]


async def test_a_client_that_reads_nothing_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.serving.handler.Handler.WRITE_SECONDS", 0.2)
    monkeypatch.setattr("wyoming_whisper.serving.handler.Handler.LINGER_SECONDS", 0.2)
    async with run_server(tmp_path, lambda _: FakeTranscriber()) as server:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket", limit=1)
        writer.write(b'{"type":"describe"}\n' * 20_000)
        await until(lambda: bool(server.connections))
        await until(lambda: not server.connections)
        writer.close()
        del reader


# -- too much work -------------------------------------------------------------------------


async def test_more_than_may_wait_is_refused(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with (
        run_server(tmp_path, lambda _: fake, max_queue=1),
        Client(tmp_path) as first,
        Client(tmp_path) as second,
        Client(tmp_path) as third,
    ):
        await first.speak(0.1, language="en")
        await asyncio.to_thread(fake.started.wait, 10)
        await second.speak(0.2, language="en")
        await second.ask(Ping().event())
        await third.speak(0.3, language="en")
        error = await third.error()
        assert (error.code, "--max-queue" in error.text) == ("busy", True)
        fake.gate.set()
        assert (await first.transcript()).text == "1600 samples in en"
        assert (await second.transcript()).text == "3200 samples in en"


async def test_an_answer_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    fake = FakeTranscriber()
    fake.gate.clear()
    async with run_server(tmp_path, lambda _: fake, deadline=1):
        async with Client(tmp_path) as at_work, Client(tmp_path) as waiting:
            await at_work.speak(0.1)
            await asyncio.to_thread(fake.started.wait, 10)
            await waiting.speak(0.1)
            error = await at_work.error()
            assert error.code == "deadline-exceeded"
            assert "still at it" in error.text
            assert "its turn" in (await waiting.error()).text
        fake.gate.set()
        async with Client(tmp_path) as client:
            await client.speak(0.2, language="en")
            assert (await client.transcript()).text == "3200 samples in en"
    assert len(fake.requests) == 2  # whose turn had not come was forgotten


async def test_a_connection_too_many_goes_at_the_cost_of_the_one_longest_silent(
    tmp_path: Path,
) -> None:
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), max_connections=2),
        Client(tmp_path) as speaking,
        Client(tmp_path) as silent,
    ):
        await silent.ask(Ping().event())
        await speaking.send(AudioStart(16000, 2, 1).event())
        async with Client(tmp_path) as third:
            error = await silent.error()
            assert (error.code, "--max-connections" in error.text) == ("busy", True)
            await third.speak(0.1, language="en")
            assert (await third.transcript()).text == "1600 samples in en"
        await speaking.speak(0.2, language="en")
        assert (await speaking.transcript()).text == "3200 samples in en"


async def test_where_all_speak_the_connection_too_many_is_refused(tmp_path: Path) -> None:
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), max_connections=1),
        Client(tmp_path) as speaking,
    ):
        await speaking.send(AudioStart(16000, 2, 1).event())
        async with Client(tmp_path) as second:
            await second.send(AudioStart(16000, 2, 1).event())
            assert (await second.error()).code == "busy"
        await speaking.speak(0.2, language="en")
        assert (await speaking.transcript()).text == "3200 samples in en"


async def test_hundreds_of_silent_connections_leave_room_to_speak(tmp_path: Path) -> None:
    async with run_server(tmp_path, lambda _: FakeTranscriber(), max_connections=8) as server:
        silent = [await asyncio.open_unix_connection(tmp_path / "socket") for _ in range(200)]
        async with Client(tmp_path) as client:
            await client.speak(0.1, language="en")
            assert (await client.transcript()).text == "1600 samples in en"
        for _, writer in silent:
            writer.close()
        await until(lambda: not server.connections)


async def test_far_too_many_connections_are_cut_unheard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.serving.connections.Connections.MAX_UNSETTLED", 0)
    async with (
        run_server(tmp_path, lambda _: FakeTranscriber(), max_connections=1),
        Client(tmp_path) as first,
    ):
        await first.ask(Ping().event())
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        assert await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS) == b""
        writer.close()


# -- who leaves ----------------------------------------------------------------------------


@pytest.mark.parametrize("deadline", [0, 1])
async def test_the_transcription_ends_when_nobody_waits_for_it(
    tmp_path: Path, deadline: int
) -> None:
    stepping = SteppingTranscriber()
    async with (
        run_server(tmp_path, lambda _: stepping, deadline=deadline),
        Client(tmp_path) as client,
    ):
        await client.speak(0.1)
        await asyncio.to_thread(stepping.started.wait, 10)
        if deadline:
            assert (await client.error()).code == "deadline-exceeded"
        else:
            await client.leave()
        assert await asyncio.to_thread(stepping.ended.wait, 10)


async def test_connections_leave_no_task_behind(tmp_path: Path) -> None:
    """At whatever moment the client leaves, and whatever it got."""
    fake = FakeTranscriber()
    async with run_server(tmp_path, lambda _: fake) as server:
        await asyncio.wrap_future(server.scheduler.opened)
        await asyncio.sleep(0.05)
        before = asyncio.all_tasks()
        free = server.held_audio.free
        for events in (
            [],
            [Ping().event()],
            [AudioStart(16000, 2, 1).event()],
            [AudioChunk(16000, 2, 1, 50 * LOUD).event()],
            [AudioChunk(16000, 2, 1, 100 * LOUD).event()],
            [AudioChunk(16000, 2, 1, 100 * LOUD).event(), AudioStop().event()],
            10 * [AudioChunk(16000, 2, 1, LOUD).event(), AudioStop().event()],
            [AudioStart(0, 2, 1).event()],
            [Transcribe(language="tlh").event(), AudioStop().event()],
        ):
            for pause in (0, 0.02):
                async with Client(tmp_path) as client:
                    for event in events:
                        await client.send(event)
                    await asyncio.sleep(pause)
        await until(lambda: not (asyncio.all_tasks() - before or server.connections))
        assert server.held_audio.free == free
        assert server.scheduler._jobs == []
