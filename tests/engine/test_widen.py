"""home-en widened: the same transcripts from official shapes."""

import json
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
from faster_whisper import WhisperModel

from tests.engine import widen
from tests.support import AUDIO, HOME_EN
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.engine.checkpoint import Checkpoint

SMALLEST = 6  # clips enough for a test


@pytest.fixture(scope="module")
def clips() -> list[Any]:
    labels = json.loads((AUDIO / "labels.json").read_text(encoding="utf-8"))
    chosen = [row for row in labels if row["kind"] == "clean"][:SMALLEST]
    return [read_audio(str(AUDIO / row["file"])) for row in chosen]


def heard(folder: Path, clips: list[Any]) -> list[tuple[str, float]]:
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=2)
    found = []
    for clip in clips:
        segments, _ = model.transcribe(clip, beam_size=1, temperature=0, without_timestamps=True)
        parts = list(segments)
        found.append((" ".join(s.text.strip() for s in parts), sum(s.avg_logprob for s in parts)))
    return found


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_transcripts_are_those_of_the_narrow_model(
    size: str, clips: list[Any], tmp_path: Path
) -> None:
    widen.widen(HOME_EN, widen.SIZES[size], tmp_path)
    narrow, wide = heard(HOME_EN, clips), heard(tmp_path, clips)
    assert [text for text, _ in wide] == [text for text, _ in narrow]
    assert all(text for text, _ in narrow)
    for (_, expected), (_, found) in zip(narrow, wide, strict=True):
        assert found == pytest.approx(expected, abs=0.15)


def test_the_shape_is_official(tmp_path: Path) -> None:
    widen.widen(HOME_EN, widen.SIZES["tiny"], tmp_path)
    wide = Checkpoint.read(tmp_path / "model.bin")
    assert wide["decoder/embeddings/weight"].shape == (51865, 384)
    assert wide["encoder/position_encodings/encodings"].shape == (1500, 384)
    assert wide["decoder/position_encodings/encodings"].shape == (448, 384)
    for half in ("encoder", "decoder"):
        assert wide[f"{half}/layer_3/ffn/linear_0/weight"].shape == (1536, 384)
        assert f"{half}/layer_4/ffn/linear_0/weight" not in {*wide.variables, *wide.aliases}
    for name in widen.COPIED:
        assert (tmp_path / name).read_bytes() == (HOME_EN / name).read_bytes()
    assert ctranslate2.models.Whisper(str(tmp_path)).is_multilingual


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_every_precision_is_read_back(precision: str, tmp_path: Path) -> None:
    size = widen.Size(256, 4)
    widen.widen(HOME_EN, size, tmp_path, precision)
    narrow = Checkpoint.read(HOME_EN / "model.bin").weights("decoder/embeddings/weight")
    wide = Checkpoint.read(tmp_path / "model.bin").weights("decoder/embeddings/weight")
    np.testing.assert_allclose(wide[: len(narrow), :128], narrow, atol=0.02)


def test_only_multiples_of_the_width_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        widen.widen(HOME_EN, widen.Size(200, 4), tmp_path)
    with pytest.raises(ValueError, match="more than 1"):
        widen.widen(HOME_EN, widen.Size(256, 1), tmp_path)
