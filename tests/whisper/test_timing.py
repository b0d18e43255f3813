"""When words were said: the path through the attention, words of tokens, pauses, real models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support import AUDIO
from tests.whisper.scripted import ByteTokenizer
from tests.whisper.test_decoding import ScriptedInference, at, decoder, mel_of
from wyoming_whisper.backends.faster_whisper import open_faster_whisper
from wyoming_whisper.backends.onnxruntime import OnnxRuntime
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.engine.checkpoint import Checkpoint
from wyoming_whisper.engine.cpu_graphs import Arithmetic, write_cpu_graphs
from wyoming_whisper.errors import ModelBrokenError
from wyoming_whisper.machine.host import HOST
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.transcriber import TranscribeOptions, Transcriber, Word
from wyoming_whisper.whisper.inference import Hypothesis
from wyoming_whisper.whisper.timing import (
    _cheapest_path,
    _median_filtered,
    _without_pauses,
    first_positions,
    timed_words,
)
from wyoming_whisper.whisper.tokenizer import Tokenizer

TOKENIZER = Tokenizer(ByteTokenizer(), multilingual=True)


# -- the path ------------------------------------------------------------------------------


def cost_of_the_best(costs: npt.NDArray[Any]) -> float:
    """Return the least cost of any path, by trying all of them."""

    def rest(row: int, column: int) -> float:
        if (row, column) == (costs.shape[0] - 1, costs.shape[1] - 1):
            return float(costs[row, column])
        steps = [(row + 1, column), (row, column + 1), (row + 1, column + 1)]
        onward = [rest(*step) for step in steps if np.all(np.array(step) < costs.shape)]
        return float(costs[row, column]) + min(onward)

    return rest(0, 0)


def cost_through(costs: npt.NDArray[Any], firsts: list[int]) -> float:
    """Return the least cost of a path that enters each row at these columns."""
    total = 0.0
    for row, first in enumerate(firsts):
        following = firsts[row + 1] if row + 1 < len(firsts) else costs.shape[1]
        # It may leave a row in the column before the next one's, or in the same.
        through = [costs[row, first:end].sum() for end in (following, following + 1) if end > first]
        total += min(through) if row + 1 < len(firsts) else through[0]
    return total


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (3, 3), (4, 6), (6, 4)])
def test_the_path_is_the_cheapest_of_all(shape: tuple[int, int]) -> None:
    for seed in range(20):
        costs = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        firsts = _cheapest_path(costs)
        assert len(firsts) == shape[0]
        assert firsts[0] == 0
        assert firsts == sorted(firsts)
        assert cost_through(costs, firsts) == pytest.approx(cost_of_the_best(costs), abs=1e-5)


def test_each_row_begins_where_its_attention_is() -> None:
    weights = np.full((2, 4, 40), 0.01, np.float32)
    for row, (start, end) in enumerate([(0, 8), (8, 15), (15, 31), (31, 40)]):
        weights[:, row, start:end] = 0.5
    weights[0, 1, 30] = 3.0  # a single position is an outlier
    assert first_positions(weights) == pytest.approx([0, 8, 15, 31], abs=1)
    assert first_positions(weights, slice(1, -1)) == pytest.approx([0, 15], abs=1)


@pytest.mark.parametrize("n", [1, 3, 4, 20])
def test_the_filter_takes_the_median_of_neighbours_and_reflects_the_ends(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(2, n)).astype(np.float32)
    found = _median_filtered(values)
    assert found.shape == values.shape
    if n <= 3:
        assert np.array_equal(found, values)
        return
    mirrored = [abs(i) if i < n else 2 * (n - 1) - i for i in range(-3, n + 3)]
    for i in range(n):
        assert found[:, i] == pytest.approx(np.median(values[:, mirrored[i : i + 7]], axis=1))


# -- words ---------------------------------------------------------------------------------


def words_of(text: str, language: str = "en") -> list[tuple[str, float, float]]:
    """Return the words of a text of which every byte, also a blank, takes 0.02 s."""
    tokens = list(text.encode())
    mel = np.zeros((80, 0), np.float32)
    found = timed_words(tokens, range(len(tokens) + 1), TOKENIZER, language, mel)
    return [(word.text, round(word.start / 0.02), round(word.end / 0.02)) for word in found]


def test_words_are_parted_by_blanks_and_stand_without_punctuation_and_its_time() -> None:
    assert words_of(" Turn on, please!") == [("Turn", 1, 5), ("on", 6, 8), ("please", 10, 16)]
    assert words_of(' "Don\'t" - 3.5% at 12:30...') == [
        ("Don't", 2, 7),
        ("3.5%", 11, 15),
        ("at", 16, 18),
        ("12:30", 19, 24),
    ]
    assert words_of("") == words_of(" ...") == []


def test_bytes_of_one_letter_stay_together() -> None:
    assert words_of(" heiß über") == [("heiß", 1, 6), ("über", 7, 12)]


def test_where_no_blanks_part_words_each_character_counts() -> None:
    assert words_of("開燈。TV 2", "zh") == [
        ("開", 0, 3),
        ("燈", 3, 6),
        ("TV", 9, 11),
        ("2", 12, 13),
    ]


def test_pauses_before_after_and_within_words_are_left_out() -> None:
    mel = np.zeros((80, 300), np.float32)
    for start, end in ((30, 50), (60, 100), (100 + 50, 180), (200, 240)):
        mel[:, start:end] = 1.0
    words = [Word(0.0, 0.52, "one"), Word(0.52, 0.92, "two"), Word(0.92, 2.6, "three")]
    found = _without_pauses(words, mel)
    assert [(word.start, word.end) for word in found] == [(0.3, 0.5), (0.6, 0.92), (1.5, 2.4)]
    silent = [Word(2.5, 2.9, "four")]
    assert _without_pauses(silent, mel) == silent
    assert _without_pauses(silent, np.zeros((80, 0), np.float32)) == silent


# -- a window's words ----------------------------------------------------------------------


@dataclass
class Aligning(ScriptedInference):
    """Says that every token takes 0.02 s, from 0.1 s on."""

    can_align: bool = True

    def align(
        self, audio_features: Any, prompt: Sequence[int], text: Sequence[int], n_positions: int
    ) -> list[int]:
        assert audio_features == len(self.windows)
        self.prompts.append(list(prompt))
        return [min(5 + i, n_positions - 1) for i in range(len(text) + 1)]


def test_segments_have_their_words_at_times_of_the_whole() -> None:
    first = [at(0), *b" ab cd", at(1), at(1), *b" ef", at(2), at(2)]
    second = [at(0), *b" gh", at(1)]
    inference = Aligning([Hypothesis(first, -0.1, 0.0)])
    inference.script += [inference.script[0], Hypothesis(second, -0.1, 0.0)]
    made = decoder(inference, timestamps=True, words=True)
    result = made.decode(mel_of(31), "en")
    assert [[word.text for word in segment.words] for segment in result.segments] == [
        ["ab", "cd"],
        ["ef"],
        ["gh"],
    ]
    ((ab, cd), (ef,), (gh,)) = (segment.words for segment in result.segments)
    assert (ab.start, cd.start, ef.start) == pytest.approx((0.12, 0.18, 0.24))
    assert gh.start == pytest.approx(2.12)


def test_without_being_asked_for_words_have_no_times() -> None:
    inference = Aligning([Hypothesis([at(0), *b" one", at(1)], -0.1, 0.0)])
    (segment,) = decoder(inference, timestamps=True).decode(mel_of(2), "en").segments
    assert segment.words == ()
    assert len(inference.prompts) == 1


@pytest.mark.parametrize("heads", ["[[1]]", "[1]", '"1,2"', "7", '[["a", "b"]]'])
def test_alignment_heads_that_are_none_are_a_broken_model(tmp_path: Path, heads: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(f'{{"alignment_heads": {heads}}}')
    with pytest.raises(ModelBrokenError, match="alignment_heads"):
        _ = ModelFolder(tmp_path).alignment_heads
    file.write_text('{"alignment_heads": [[1, 2], [3, 4]]}')
    assert ModelFolder(tmp_path).alignment_heads == [(1, 2), (3, 4)]
    file.write_text("{}")
    assert ModelFolder(tmp_path).alignment_heads == []


# -- real models ---------------------------------------------------------------------------

SPOKEN = "And so my fellow Americans ask not what your country can do for you "
SPOKEN += "ask what you can do for your country"
STARTS = {0: 0.32, 5: 3.28, 7: 5.41, 14: 8.19}
ENDS = {4: 2.16, 6: 4.33, 13: 7.63, 21: 10.45}
"""Where the speaker pauses: read off the recording's loudness, word by its number."""


@pytest.mark.parametrize("backend", ["faster-whisper", "onnxruntime"])
def test_words_are_where_they_are_spoken(stock_base: Path, tmp_path: Path, backend: str) -> None:
    settings = Settings(model=str(stock_base), device="cpu", cpu_threads=1)
    transcriber: Transcriber
    if backend == "faster-whisper":
        transcriber = open_faster_whisper(settings, stock_base)
    else:
        arithmetic: Arithmetic = "int8" if HOST.adds_int8_exactly else "uint8"
        write_cpu_graphs(Checkpoint.read(ModelFolder(stock_base).weights), tmp_path, arithmetic)
        transcriber = OnnxRuntime(settings, stock_base).engines().open(tmp_path)
    samples = read_audio(AUDIO / "jfk.flac")
    options = TranscribeOptions("en", timestamps=True, words=True)
    found = transcriber.transcribe(samples, options)
    transcriber.close()
    words = [word for segment in found.segments for word in segment.words]
    assert [word.text for word in words] == SPOKEN.split()
    for number, start in STARTS.items():
        assert words[number].start == pytest.approx(start, abs=0.15), words[number]
    for number, end in ENDS.items():
        assert words[number].end == pytest.approx(end, abs=0.35), words[number]
    assert all(0.04 <= word.end - word.start < 0.8 for word in words)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))
