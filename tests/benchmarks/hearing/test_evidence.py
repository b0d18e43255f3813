"""What is counted, and what is fitted, of texts that were made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.hearing import evidence
from benchmarks.hearing.evidence import Case, features, fit, heard_as, rows, weighed
from benchmarks.lib.corpus import Recording
from wyoming_whisper.text.evidence import SpeechEvidence, Voicing
from wyoming_whisper.transcriber import SAMPLE_RATE, Transcription

SAID = Transcription(
    "Turn it on.", no_speech_prob=0.2, n_tokens=4, heard_logprob=-0.5, noise_logprob=-3.0
)


def case(
    number: int, is_speech: bool, *values: float, part: str = "fit", evidence: float = 1.0
) -> Case:
    return Case(
        "base", f"{number}.wav", part, "clean", is_speech, True, "a text", True, values, evidence
    )


def test_features_are_what_the_server_weighs() -> None:
    server = SpeechEvidence()
    weights = (
        *(server.per_clear, server.per_gain, server.per_logprob),
        *(server.per_no_speech, server.per_slowness),
    )
    for said in (SAID, replace(SAID, heard_logprob=-3.0), replace(SAID, noise_logprob=-9.0)):
        for voicing in (Voicing(1.0, 12), Voicing(4.0, 90), Voicing(0.0, 0)):
            found = features(said, voicing)
            total = server.bias + float(np.dot(weights, found))
            assert total == pytest.approx(server.of(said, voicing))


def test_an_unweighed_text_has_none() -> None:
    with pytest.raises(ValueError, match="not weighed"):
        features(Transcription("Turn it on."), Voicing(1.0, 10))


def test_the_fit_finds_what_made_the_difference() -> None:
    """Speech has more of the first, noise of the second, and the third says nothing."""
    random = np.random.default_rng(3)
    cases = [
        case(
            number,
            number % 3 > 0,
            random.normal(2.0 if number % 3 else 0.0),
            random.normal(0.0 if number % 3 else 1.0),
            random.normal(),
        )
        for number in range(900)
    ]
    bias, first, second, third = fit(cases)
    # Of two normal distributions d apart the log-odds rise by d for each unit.
    assert first == pytest.approx(2.0, abs=0.4)
    assert second == pytest.approx(-1.0, abs=0.3)
    assert abs(third) < 0.3
    assert bias == pytest.approx(-2.0 + 0.5, abs=0.5)  # even odds half-way, whatever the counts


def test_only_the_part_for_it_is_fitted_to_and_only_what_was_heard_right() -> None:
    cases = [
        case(0, True, 1.0),
        case(1, True, 1.0, part="report"),
        replace(case(2, True, 1.0), right=False),
        case(3, False, 1.0),
        replace(case(4, False), written="", features=()),
    ]
    assert [one.file for one in weighed(cases)] == ["0.wav", "3.wav"]


def test_counts() -> None:
    cases = [
        case(0, True, evidence=2.0),
        case(1, True, evidence=-0.1),
        replace(case(2, True, evidence=-3.0), right=False),  # nothing worth keeping is lost
        replace(case(3, True), fired=False, written=""),
        case(4, False, evidence=0.5),
        case(5, False, evidence=-2.0),
    ]
    assert rows(cases) == [
        ["base", "fit", "speech", "4", "3", "2", "1", "-"],
        ["base", "fit", "noise", "2", "2", "2", "-", "1"],
    ]


def test_noise_is_heard_higher_and_lower_and_speech_in_every_condition(tmp_path: Path) -> None:
    from benchmarks.lib.clips import write_wav

    write_wav(tmp_path / "a.wav", np.full(SAMPLE_RATE, 0.1, np.float32))
    noise = Recording(tmp_path, "a.wav", "", "", "noise", "somewhere")
    lengths = {name: len(samples) for name, samples in heard_as(noise)}
    assert list(lengths) == ["pitch 1", "pitch 0.8", "pitch 1.25"]
    assert lengths["pitch 0.8"] > lengths["pitch 1"] > lengths["pitch 1.25"]
    speech = replace(noise, kind="command", text="turn it on", lang="en")
    assert [name for name, _ in heard_as(speech)] == ["clean", "noise10", "quiet45"]


def test_a_whole_run(
    stock_tiny_en: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.lib.corpus import MANIFEST, write_manifest

    folder = tmp_path / "corpus"
    assert main(["noise", "--output", str(folder), "--count", "1", "--seconds", "2"]) == 0
    lines = (folder / MANIFEST).read_text().splitlines()
    clip = Path(__file__).parents[2] / "audio" / "jfk.flac"
    (folder / "jfk.flac").write_bytes(clip.read_bytes())
    said = (
        "And so my fellow Americans, ask not what your country can do for you, "
        "ask what you can do for your country."
    )
    row = {"file": "jfk.flac", "text": said, "lang": "en", "kind": "speech", "source": "jfk"}
    write_manifest(folder, [*map(json.loads, lines), row])
    out = tmp_path / "out.json"
    argv = ["--corpus", str(folder), "--models", str(stock_tiny_en), "--json", str(out), "--show"]
    assert main(["evidence", *argv]) == 0
    cases = [Case(**one) for one in json.loads(out.read_text())["cases"]]
    spoken = [one for one in cases if one.is_speech]
    assert [(one.condition, one.right, one.is_kept) for one in spoken] == [
        (condition, True, True) for condition in evidence.CONDITIONS
    ]
    assert {one.condition.endswith("prompt") for one in cases if not one.is_speech} == {True, False}
    assert "tiny.en" in capsys.readouterr().out
