"""The benchmark of where recordings are cut: what is heard, and by which rule."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.hearing.cuts import Part, cutting, recordings
from wyoming_whisper.audio.pieces import Cutting
from wyoming_whisper.transcriber import SAMPLE_RATE


def test_a_rule_is_read_and_what_is_none_is_refused() -> None:
    assert cutting("2-12/0.3+30") == Cutting()
    assert cutting("10-30/inf").pause == float("inf")
    with pytest.raises(ValueError, match="no rule"):
        cutting("sometimes")


def test_short_recordings_are_of_one_window_and_nothing_is_left_out() -> None:
    samples = np.ones(8 * SAMPLE_RATE, np.float32)
    parts = [Part(f"{number}", "en", f"text {number}", samples) for number in range(7)]
    joined = recordings(["short"], parts, 1)
    assert sorted(part.text for one in joined for part in one.parts) == [one.text for one in parts]
    assert max(one.seconds for one in joined) < Cutting().whole
