"""A replica without Ray: its queue, homes, what is cancelled, and its health."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import (
    HOME_EN,
    TIMEOUT_SECONDS,
    FakeTranscriber,
    SteppingTranscriber,
    loud,
    on_state,
    until,
)
from wyoming_whisper import __version__
from wyoming_whisper.cluster.front_end import About, HomeDescription, SharedHome
from wyoming_whisper.cluster.replica import Replica, _on_this_node
from wyoming_whisper.errors import ModelError, ModelUnavailableError, TranscribeError
from wyoming_whisper.grammar.service import HomeLanguages
from wyoming_whisper.home.inventory import Home
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.status import Status
from wyoming_whisper.transcriber import TranscribeOptions, Transcriber

OPTIONS = TranscribeOptions("en")


OPEN = "wyoming_whisper.cluster.replica.open_transcriber"


@contextlib.contextmanager
def replica_of(transcriber: Transcriber, **settings: Any) -> Iterator[Replica]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OPEN, lambda *_: transcriber)
        one = Replica(Settings(data_dir=(Path("/nowhere"),), **settings))
        yield one
        assert one._scheduler.close(TIMEOUT_SECONDS)


async def test_it_answers_in_its_turn_and_says_what_it_is() -> None:
    fake = FakeTranscriber()
    with replica_of(fake) as one:
        assert one.about() == About(__version__, ("en", "de"), "a fake")
        chunks = np.array_split(loud(0.5), 3)
        answers = await asyncio.gather(*(one.transcribe(OPTIONS, None, *chunks) for _ in range(3)))
        assert [answer.text for answer in answers if not isinstance(answer, Exception)] == [
            "8000 samples in en"
        ] * 3


async def test_an_error_of_ours_is_an_answer() -> None:
    fake = FakeTranscriber(error=TranscribeError("no such language"))
    with replica_of(fake) as one:
        answer = await one.transcribe(OPTIONS, None, loud(0.1))
        assert isinstance(answer, TranscribeError)
        assert str(pickle.loads(pickle.dumps(answer))) == "no such language"


async def test_a_bug_is_an_answer_too_or_it_would_be_asked_of_every_replica() -> None:
    with replica_of(FakeTranscriber(error=ZeroDivisionError("oops"))) as one:
        answer = await one.transcribe(OPTIONS, None, loud(0.1))
        assert isinstance(answer, TranscribeError)
        assert "oops" in str(answer)


async def test_cancelling_a_request_ends_its_work() -> None:
    stepping = SteppingTranscriber()
    with replica_of(stepping) as one:
        asked = asyncio.create_task(one.transcribe(OPTIONS, None, loud(0.1)))
        assert await asyncio.to_thread(stepping.started.wait, TIMEOUT_SECONDS)
        assert not stepping.ended.is_set()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await asyncio.to_thread(stepping.ended.wait, TIMEOUT_SECONDS)


async def test_a_request_is_given_the_home_that_is_there() -> None:
    described = HomeDescription(("Kitchen Lamp",), Home(("Kitchen",)), HomeLanguages())

    class Reference:
        async def _get(self) -> HomeDescription:
            return described

        def __await__(self) -> Any:
            return self._get().__await__()

    fake = FakeTranscriber()
    home = SharedHome(described.version, None, Reference(), with_sentences=True)
    with replica_of(fake) as one:
        await one.transcribe(OPTIONS, home, loud(0.1))
        await until(lambda: one._homes.texts(home))
        await one.transcribe(OPTIONS, home, loud(0.1))
        await one.transcribe(OPTIONS, None, loud(0.1))
    before, there, without = (options.home for _, options in fake.requests)
    assert before is None
    assert there is not None
    assert there.names.names == ("Kitchen Lamp",)
    assert there.grammars is not None
    there.grammars.close()
    assert without is None


async def test_a_model_that_hangs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    fake = FakeTranscriber()
    with replica_of(fake, deadline=10) as one:
        one.check_health()
        fake.gate.clear()
        asked = asyncio.create_task(one.transcribe(OPTIONS, None, loud(0.1)))
        assert await asyncio.to_thread(fake.started.wait, TIMEOUT_SECONDS)
        now[0] = 100.0
        one.check_health()  # it has seen this request for the first time
        now[0] = 119.0
        one.check_health()
        now[0] = 121.0
        with pytest.raises(RuntimeError, match="for 20 s: it hangs"):
            one.check_health()
        fake.gate.set()
        await asked
        await one.transcribe(OPTIONS, None, loud(0.1))
        one.check_health()  # that was long ago


def test_a_replica_whose_model_does_not_come_back_is_not_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = threading.Event()

    def open_transcriber(_settings: Settings, status: Status) -> Transcriber:
        on_state(status, lambda state: failing.set() if state.phase == "unavailable" else None)
        if status.state.description:  # it had been there
            raise ModelUnavailableError("the disk is gone")
        return FakeTranscriber()

    settings = Settings(
        data_dir=(Path("/nowhere"),),
        idle_unload=0.01,  # type: ignore[arg-type]  # sooner than a user can have it
    )
    monkeypatch.setattr(OPEN, open_transcriber)
    one = Replica(settings)
    one.check_health()
    one._scheduler.wake()
    while not failing.wait(0.01):
        one._scheduler.wake()
    with pytest.raises(RuntimeError, match="the disk is gone"):
        one.check_health()
    one._scheduler.close()


@pytest.mark.parametrize("error", [ModelUnavailableError("no network"), ModelError("broken")])
def test_a_model_that_can_not_be_had_ends_the_replica_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, error: ModelError
) -> None:
    def fail(_settings: Settings, _status: Status) -> Transcriber:
        raise error

    monkeypatch.setattr(OPEN, fail)
    with pytest.raises(ModelError, match=str(error)):
        Replica(Settings(data_dir=(Path("/nowhere"),)))


def test_folders_and_tokens_are_the_machines_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WYOMING_WHISPER_HF_TOKEN", "secret")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    here = _on_this_node(Settings(data_dir=(), beam_size=3))
    assert (here.data_dir, here.hf_token) == ((tmp_path / "wyoming-whisper",), "secret")
    assert here.beam_size == 3
    named = _on_this_node(Settings(data_dir=(Path("/models"),)))
    assert named.data_dir == (Path("/models"),)


def test_a_model_is_looked_for_before_anything_is_replaced(tmp_path: Path) -> None:
    there = Replica.fetch_model(Settings(model=str(HOME_EN), data_dir=(tmp_path,)))
    assert isinstance(there, str)
    assert (Path(there) / "model.bin").is_file()
    missing = Replica.fetch_model(Settings(model=f"{tmp_path}/none", data_dir=(tmp_path,)))
    assert isinstance(missing, ModelError)
