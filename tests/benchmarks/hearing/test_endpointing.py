"""What benchmarks.hearing.endpointing counts, and that its virtual time is that of the audio."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hearing.endpointing import (
    Command,
    Remembering,
    Take,
    Virtual,
    audio_chunks,
    cells,
    grouped,
    hesitating,
    last_word,
    read_commands,
    table,
    with_tail,
)
from benchmarks.lib.client import command_events
from benchmarks.lib.errors import ClipError
from tests.support import AUDIO, HOME_EN, FakeTranscriber, clips, loud, quiet
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import TranscribeOptions


def take(end: float | None, who: str = "ours", last: float = 2.0) -> Take:
    return Take("barista", who, "a.flac", last, end)


def test_the_last_word_ends_where_it_was_last_loud() -> None:
    click = np.zeros(16000, np.float32)
    click[8000:8200] = 0.9  # shorter than speech
    samples = np.concatenate([quiet(0.5), loud(1.0), quiet(0.3), loud(0.5), click])
    assert last_word(samples) == pytest.approx(2.3, abs=0.02)
    assert last_word(samples + np.float32(0.01)) == pytest.approx(2.3, abs=0.02)
    assert last_word(quiet(0.01)) == pytest.approx(0.01)


def test_a_hesitation_moves_the_last_word_and_changes_nothing_else() -> None:
    samples = np.concatenate([loud(1.0), quiet(0.06), loud(1.0), quiet(1.0)])
    command = Command("barista", "a.flac", samples, 2.06)
    slower = hesitating(command, 0.8)
    assert slower.last_word == pytest.approx(2.86)
    assert last_word(slower.samples) == pytest.approx(2.86, abs=0.02)
    assert len(slower.samples) == len(samples) + round(0.8 * 16000)
    assert not slower.samples[round(1.05 * 16000) : round(1.8 * 16000)].any()


def test_after_a_command_there_is_silence() -> None:
    heard = with_tail(Command("barista", "a.flac", loud(1.0), 1.0))
    assert len(heard) == 5 * 16000
    assert not heard[16000:].any()


def test_what_is_counted() -> None:
    takes = [take(1.5), take(1.99), take(2.5), take(2.7), take(None)]
    assert cells(takes) == ["5", "1 (20.0 %)", "1", "0.50 s", "0.70 s"]
    assert cells([take(None)])[-2:] == ["-", "-"]
    both = [take(2.5), take(2.5, "0.7 s"), take(2.6)]
    assert [len(own) for own in grouped(both).values()] == [2, 1]
    assert "| 0.7 s " in table(both)


def test_virtual_chunks_are_those_that_a_client_sends() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    sent = [event.payload for event in command_events(samples, chunk_ms=32)][2:]
    assert list(audio_chunks(samples, 512)) == sent


def manifest(folder: Path, **changes: str) -> None:
    row = {"file": "a.flac", "text": "stop", "lang": "en", "kind": "command", "source": "a"}
    rows = [{**row, "voice": "human", **changes}]
    (folder / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def test_commands_are_read_by_group_and_half(tmp_path: Path) -> None:
    for name in ("a.flac", "b.flac"):
        (tmp_path / name).write_bytes((AUDIO / clips("clean")[0].file).read_bytes())
    manifest(tmp_path)
    found = read_commands([tmp_path], [tmp_path], "all", None)
    assert [(one.group, one.file) for one in found] == [
        ("human, command, English", "a.flac"),
        (tmp_path.name, "a.flac"),
        (tmp_path.name, "b.flac"),
    ]
    halves = [read_commands([tmp_path], [], half, None) for half in ("fit", "report")]
    assert sorted(map(len, halves)) == [0, 1]
    manifest(tmp_path, lang="de")
    (german,) = read_commands([tmp_path], [], "all", None)
    assert (german.group, german.language) == ("human, command, others", "de")


def test_a_folder_without_recordings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no recordings"):
        read_commands([], [tmp_path], "all", None)


def test_virtual_time_is_the_audios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "wyoming_whisper.utterance.utterance.Utterance.MAX_AHEAD_SECONDS", 1.0
    )  # restored at the end
    settings = Settings(
        model=str(HOME_EN), data_dir=(), cpu_threads=1, backend="faster-whisper", beam_size=1
    )
    transcriber = Remembering(settings)
    virtual = Virtual(settings, transcriber, 32)
    clip = clips("clean")[7]
    samples = read_audio(AUDIO / clip.file)
    command = Command("clean", clip.file, samples, last_word(samples))
    audio = with_tail(command)
    auto = virtual.end(audio, Settings(endpointing="auto"), "en", 0.1)
    slow = virtual.end(audio, Settings(endpointing="auto"), "en", 2.0)
    fixed = virtual.end(audio, Settings(endpointing="1.0"), "en", 0.1)
    never = virtual.end(audio[: len(samples) // 2], Settings(endpointing="1.0"), "en", 0.1)
    transcriber.close()
    assert auto is not None
    assert slow is not None
    assert fixed is not None
    assert command.last_word + 0.3 < auto < slow < fixed < command.last_word + 1.3
    assert never is None


def test_the_same_speech_is_transcribed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTranscriber()
    monkeypatch.setattr("benchmarks.hearing.endpointing.open_transcriber", lambda *_, **__: fake)
    remembering = Remembering(Settings())
    for language in ("en", "en", "de"):
        remembering.transcribe(loud(0.5), TranscribeOptions(language=language))
    assert len(fake.requests) == 2
