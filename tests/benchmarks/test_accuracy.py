import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy, heldout, report
from benchmarks.accuracy import CLEAN, Result, Score, conditions, details, scores, summary
from benchmarks.clips import (
    SECONDS_AFTER,
    SECONDS_BEFORE,
    Clip,
    ClipError,
    noisy,
    read_clips,
    read_labels,
    room_noise,
    speech_level,
    with_silence,
)
from benchmarks.words import WordErrors, normalised, word_errors
from wyoming_whisper.transcriber import Samples

AUDIO = Path(__file__).parent.parent / "audio"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" Turn on the lamp. ", ["turn", "on", "the", "lamp"]),
        ("Don't!", ["don't"]),
        ("don’t", ["don't"]),  # noqa: RUF001
        ("living-room", ["living", "room"]),
        ("21 °C", ["c"]),
        ("?!", []),
    ],
)
def test_words_are_compared_without_case_and_signs(text: str, words: list[str]) -> None:
    assert normalised(text) == words


@pytest.mark.parametrize(
    ("reference", "written", "substitutions", "deletions", "insertions"),
    [
        ("turn on the lamp", "Turn on the lamp.", 0, 0, 0),
        ("turn on the lamp", "", 0, 4, 0),
        ("", "thank you", 0, 0, 2),
        ("", "", 0, 0, 0),
        ("turn on the lamp", "turn off the lamp", 1, 0, 0),
        ("turn on the lamp", "turn on lamp", 0, 1, 0),
        ("turn on the lamp", "turn on the big lamp", 0, 0, 1),
        ("a b c d", "b c d e", 0, 1, 1),  # not four substitutions
        ("a b c", "x y", 2, 1, 0),
        ("a", "x y z", 1, 0, 2),
        ("turn it on on", "turn on", 0, 2, 0),
    ],
)
def test_fewest_word_errors(
    reference: str, written: str, substitutions: int, deletions: int, insertions: int
) -> None:
    found = word_errors(reference, written)
    words = len(reference.split())
    assert found == WordErrors(substitutions, deletions, insertions, words)
    assert found.errors == substitutions + deletions + insertions


def test_word_errors_add_up() -> None:
    assert WordErrors(1, 2, 3, 4) + WordErrors(4, 3, 2, 1) == WordErrors(5, 5, 5, 5)


def speech(seconds: float = 2.0) -> Samples:
    """Something of which half is loud and half is silent."""
    time = np.arange(round(seconds * 16000)) / 16000
    return (0.1 * np.sin(2 * np.pi * 300 * time) * (time % 1 < 0.5)).astype(np.float32)


def test_level_is_that_of_the_speech_not_of_the_pauses() -> None:
    assert speech_level(speech()) == pytest.approx(0.1 / math.sqrt(2), rel=0.01)
    assert speech_level(with_silence(speech())) == pytest.approx(speech_level(speech()), rel=0.01)
    assert speech_level(np.zeros(16000, np.float32)) == 0
    assert speech_level(np.zeros(0, np.float32)) == 0


@pytest.mark.parametrize("decibels", [0.0, 10.0, 20.0])
def test_noise_has_the_level_asked_for(decibels: float) -> None:
    added = noisy(speech(), decibels, "a clip") - speech()
    ratio = speech_level(speech()) / np.sqrt(np.mean(np.square(added)))
    assert 20 * np.log10(ratio) == pytest.approx(decibels, abs=0.1)


def test_noise_is_white_and_pink() -> None:
    power = np.abs(np.fft.rfft(room_noise(160000, np.random.default_rng(1)))) ** 2
    low, high = power[: len(power) // 8].sum(), power[-len(power) // 8 :].sum()
    assert 3 < low / high < 30  # white alone would be 1


def test_noise_is_the_same_for_the_same_clip_only() -> None:
    assert np.array_equal(noisy(speech(), 10, "a"), noisy(speech(), 10, "a"))
    assert not np.array_equal(noisy(speech(), 10, "a"), noisy(speech(), 10, "b"))


def test_loud_noise_does_not_clip() -> None:
    mixed = noisy(9 * speech(), -10, "a")
    assert mixed.dtype == np.float32
    assert np.abs(mixed).max() == pytest.approx(1.0)


def test_silence_around_a_command() -> None:
    samples = with_silence(np.ones(16000, np.float32))
    before, after = round(SECONDS_BEFORE * 16000), round(SECONDS_AFTER * 16000)
    assert len(samples) == before + 16000 + after
    assert not samples[:before].any()
    assert samples[before : before + 16000].all()
    assert not samples[-after:].any()


def test_labels(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    rows = [
        {"file": "a.wav", "text": "hello", "voice": "v"},
        {"file": "b", "text": "", "kind": "k"},
    ]
    labels.write_text(json.dumps(rows))
    assert read_labels(labels) == [("a.wav", "hello", None), ("b", "", "k")]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "{}",
        "[]",
        '["a.wav"]',
        '[{"file": "a.wav"}]',
        '[{"file": 1, "text": ""}]',
        '[{"file": "a.wav", "text": null}]',
        '[{"file": "a.wav", "text": "", "kind": 1}]',
    ],
)
def test_labels_that_are_none(tmp_path: Path, content: str) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(content)
    with pytest.raises(ClipError, match=r"labels\.json"):
        read_labels(labels)


def test_labels_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="can't be read"):
        read_labels(tmp_path / "labels.json")


def test_clips_of_the_repository() -> None:
    clips = read_clips(AUDIO, limit=1)
    assert len(clips) == len({clip.kind for clip in clips}) > 1
    assert all(len(clip.samples) > 8000 for clip in clips)


def test_labels_apart_from_their_clips(tmp_path: Path) -> None:
    file = read_labels(AUDIO / "labels.json")[0][0]
    labels = tmp_path / "words.json"
    labels.write_text(json.dumps([{"file": file, "text": "so"}]))
    (clip,) = read_clips(AUDIO, labels, "real")
    assert (clip.file, clip.text, clip.kind) == (file, "so", "real")


def test_clips_made_of_held_out_speech(tmp_path: Path) -> None:
    said = (20000 * speech()).astype(np.int16)
    spoken = [
        ("clean", heldout.Spoken("hello", "a voice", said)),
        ("foreign", heldout.Spoken("", "another", said)),
    ]
    heldout.write(tmp_path, spoken)
    clips = read_clips(tmp_path)
    assert [(clip.kind, clip.text) for clip in clips] == [("clean", "hello"), ("foreign", "")]
    expected = said * (heldout.PEAK / said.max())
    assert np.abs(clips[0].samples - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("hello", "clean", [CLEAN, "noise 10 dB"]),
        ("hello", "noisy", [CLEAN]),
        ("", "silence", [CLEAN]),
    ],
)
def test_noise_only_where_there_is_speech_to_drown(
    text: str, kind: str, expected: list[str]
) -> None:
    found = conditions(Clip("a.wav", text, kind, speech()), 10.0)
    assert [condition for condition, _ in found] == expected


def result(server: str, written: str, **fields: object) -> Result:
    values: dict[str, object] = {
        "clip": "a.wav",
        "kind": "clean",
        "condition": CLEAN,
        "said": "turn on the lamp",
        "seconds": 0.1,
    }
    return Result(server=server, written=written, **(values | fields))  # type: ignore[arg-type]


def test_score() -> None:
    score = Score(
        [
            result("ours", "Turn on the lamp."),
            result("ours", "turn off the lamp", seconds=0.6),
            result("ours", "", error="it broke", seconds=0.2),
        ]
    )
    assert (score.right, score.empty, score.wrong, score.failed) == (1, 1, 1, 1)
    assert score.errors == WordErrors(1, 4, 0, 12)
    assert score.mean_seconds == pytest.approx(0.3)
    assert score.median_seconds == pytest.approx(0.2)


def test_silence_is_right_when_nothing_is_written() -> None:
    score = Score([result("ours", "", said=""), result("ours", "thank you", said="")])
    assert (score.right, score.empty, score.wrong) == (1, 1, 1)


def test_tables() -> None:
    gathered = scores(
        [
            result("official", "", said="", kind="silence", seconds=0.2),
            result("ours", "", said="", kind="silence"),
            result("official", "turn off the lamp", seconds=0.3),
            result("ours", "turn on the lamp"),
        ]
    )
    assert summary(gathered).splitlines() == [
        "| clips   | condition   | number |                     ours |                official |",
        "| ------- | ----------- | -----: | -----------------------: | ----------------------: |",
        "| clean   | as recorded |      1 | 0.0 % WER, 100.0 % right | 25.0 % WER, 0.0 % right |",
        "| silence | as recorded |      1 |       100.0 % left empty |      100.0 % left empty |",
    ]
    lines = details(gathered).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    head = "server words S D I WER right empty wrong failed mean s median s time"
    assert " ".join(rows[0][2:]) == head
    assert [row[2:] for row in rows[2:4]] == [
        ["ours", "4", "0", "0", "0", "0.0 %", "100.0 %", "0", "0", "0", "0.100", "0.100", "1.00x"],
        [
            "official",
            "4",
            "1",
            "0",
            "0",
            "25.0 %",
            "0.0 %",
            "0",
            "1",
            "0",
            "0.300",
            "0.300",
            "3.00x",
        ],
    ]


def test_machine_line_warns_of_other_work() -> None:
    facts = report.machine()
    assert facts["cpu"] in report.machine_line(facts)
    idle = report.machine_line(facts | {"load_average": 0.0})
    busy = report.machine_line(facts | {"load_average": 100.0})
    assert "don't trust" not in idle
    assert "don't trust" in busy


def test_our_server_with_the_bundled_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((AUDIO / "labels.json").read_text())
    some = {row["kind"]: row for row in rows if row["kind"] in ("clean", "silence")}
    labels, file = tmp_path / "labels.json", tmp_path / "accuracy.json"
    labels.write_text(json.dumps([row | {"kind": None} for row in some.values()]))
    argv = ["--no-official", "--real", str(AUDIO), "--labels", str(labels), "--json", str(file)]
    assert accuracy.main(argv) == 0
    written = json.loads(file.read_text())
    results = [(row["server"], row["condition"]) for row in written["results"] if row["said"]]
    noise = "noise 10 dB"
    assert sorted(results) == [
        ("ours", CLEAN),
        ("ours", noise),
        ("ours, 30 s", CLEAN),
        ("ours, 30 s", noise),
    ]
    assert not any(row["error"] for row in written["results"])
    assert not any(row["written"] for row in written["results"] if not row["said"])
    told = capsys.readouterr().out
    assert "| real " in told
    assert "median s" in told


def test_no_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--no-official", "--clips", str(tmp_path)]) == 1
    assert "labels.json can't be read" in capsys.readouterr().err
