import random

import numpy as np
import pytest
import torch

from training.tokens import SPELLING, Vocabulary, spell, train
from training.windows import IGNORE, Composer, Placed, Spoken, label

from .test_tokens import SENTENCES


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(train(SENTENCES, size=400))


@pytest.fixture
def composer(vocabulary: Vocabulary) -> Composer:
    g = np.random.default_rng(0)
    speech = [
        Spoken(text, (g.standard_normal(int(g.integers(8000, 40000))) * 3000).astype(np.int16))
        for text in SENTENCES[:80]
    ]
    foreign = [Spoken("", spoken.samples) for spoken in speech[:5]]
    made = Composer(vocabulary, speech, foreign, ["kitchen lamp", "tv"], seed=1)
    made.strength = 1.0
    return made


def written(vocabulary: Vocabulary, tokens: list[int]) -> str:
    return " ".join(str(vocabulary.tokenizer.id_to_token(t)) for t in tokens if t >= vocabulary.eot)


def test_segments_are_written_as_whisper_writes_them(vocabulary: Vocabulary) -> None:
    placed = Placed(np.zeros(9, np.float32), [("on", 0.2, 1.0), ("off", 1.5, 2.0)], cut=2.5)
    tokens, labels, ctc = label(vocabulary, placed, True)
    assert written(vocabulary, [t for t in labels if t != IGNORE]) == (
        "<|en|> <|0.20|> <|1.00|> <|1.50|> <|2.00|> <|2.50|> <|endoftext|>"
    )
    assert tokens[:3] == vocabulary.prompt(True)
    assert ctc == spell("on") + spell("off")


def test_without_timestamps_there_is_text_only(vocabulary: Vocabulary) -> None:
    placed = Placed(np.zeros(9, np.float32), [("on", 0.2, 1.0), ("off", 1.5, 2.0)])
    tokens, labels, _ = label(vocabulary, placed, False)
    assert vocabulary.decode(tokens) == "on off"
    assert written(vocabulary, [t for t in labels if t != IGNORE]) == "<|en|> <|endoftext|>"


def test_labels_follow_their_tokens_and_prompts_bear_no_loss(vocabulary: Vocabulary) -> None:
    previous = vocabulary.encode("before this")
    placed = Placed(np.zeros(9, np.float32), [("on", 0.2, 1.0)])
    tokens, labels, _ = label(vocabulary, placed, False, previous)
    assert len(tokens) == len(labels)
    sot = len(previous) + 1
    assert tokens[0] == vocabulary.id("<|startofprev|>")
    assert labels[:sot] == [IGNORE] * sot
    assert labels[sot] == vocabulary.id("<|en|>")
    for position in range(sot + 3, len(tokens) - 1):
        assert labels[position] == tokens[position + 1]


def test_nothing_to_understand_is_no_speech_and_then_the_end(vocabulary: Vocabulary) -> None:
    _, labels, ctc = label(vocabulary, Placed(np.zeros(9, np.float32)), False)
    assert written(vocabulary, [t for t in labels if t != IGNORE]) == "<|nospeech|> <|endoftext|>"
    assert ctc == []


def test_a_late_start_is_written_as_the_latest_allowed(vocabulary: Vocabulary) -> None:
    placed = Placed(np.zeros(9, np.float32), [("on", 1.3, 2.0)])
    _, labels, _ = label(vocabulary, placed, True)
    assert vocabulary.id("<|1.00|>") in labels


def test_batches_are_whole(composer: Composer, vocabulary: Vocabulary) -> None:
    tight = composer.tight(4, random.Random(1))
    for batch in [next(tight), composer.packed(8, 2), composer.packed(29.9, 1), composer.single(2)]:
        assert batch.mel.shape[1] == 80
        assert 100 <= batch.mel.shape[2] <= 3000
        assert batch.mel.shape[2] % 2 == 0
        assert bool(torch.isfinite(batch.mel).all())
        assert batch.tokens.shape == batch.labels.shape
        assert int(batch.labels.max()) < vocabulary.size
        assert len(batch.ctc) == int(batch.ctc_lengths.sum())
        assert all(letter < len(SPELLING) for letter in batch.ctc.tolist())
    assert composer.single(1).mel.shape[2] == 3000


def test_timestamps_lie_where_the_sound_is(composer: Composer, vocabulary: Vocabulary) -> None:
    composer.strength = 0.0
    tone = Spoken("on", np.full(16000, 9000, np.int16))
    placed = composer._place([tone, tone], [0.5, 1.0], 0.3)
    assert [(start, end) for _, start, end in placed.segments] == [(0.5, 1.5), (2.5, 3.5)]
    assert np.abs(placed.audio[: int(0.5 * 16000)]).max() == 0
    assert placed.audio[int(2.6 * 16000)] > 0.03
