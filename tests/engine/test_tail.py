"""The frozen tail: what it is made of, and that it stands for the silence of a full window."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import ctranslate2
import numpy as np
import pytest
from ctranslate2.specs import whisper_spec

from tests.engine.conftest import SIZES, Models, save_random
from tests.engine.test_oracle import noise
from wyoming_whisper.engine import tail as frozen
from wyoming_whisper.engine.checkpoint import Checkpoint, Dims
from wyoming_whisper.engine.cpu_graphs import Arithmetic, write_cpu_graphs
from wyoming_whisper.engine.graphs import write_graphs
from wyoming_whisper.engine.onnx_graph import Precision
from wyoming_whisper.engine.session import N_POSITIONS, Arrays, CpuSession, OracleSession
from wyoming_whisper.engine.tail import GROUP, KEPT, LEVEL, Tail
from wyoming_whisper.whisper.audio import N_FRAMES, Array
from wyoming_whisper.whisper.session import Session, Tokens

CLOSE = 1e-2
"""Of sums in float32 that are made in another order, the tail being kept in float16 meanwhile."""


@pytest.fixture(scope="module")
def checkpoint(models: Models) -> Checkpoint:
    return Checkpoint.read(models.model("tiny") / "model.bin")


def with_tail(folder: Path) -> CpuSession:
    return CpuSession(folder, threads=1, has_tail=True)


def silence(n_frames: int, n_mels: int = 80) -> Array:
    return np.full((n_mels, n_frames), LEVEL, np.float32)


def check_close(features: Arrays, full: Arrays, n_positions: int) -> None:
    """Compare the keys and values of the first positions."""
    assert features.keys() == full.keys()
    for name in (name for name in full if name != "cross_bias"):
        first, of_full = (values[name][:, :, :n_positions] for values in (features, full))
        np.testing.assert_allclose(first, of_full, atol=CLOSE, err_msg=name)


# What it is made of


def test_every_position_is_in_one_entry(checkpoint: Checkpoint) -> None:
    tail = Tail.frozen(checkpoint, Dims.of(checkpoint))
    assert tail.counts.sum() == N_POSITIONS
    assert len(tail.starts) == Tail.n_groups(N_POSITIONS) + 1
    assert tail.starts[0] == 0
    assert tail.starts[-1] == len(tail.counts)
    for first, last in zip(tail.starts, tail.starts[1:], strict=False):
        assert tail.counts[first:last].sum() == GROUP
    assert len(tail.counts) <= Tail.n_groups(N_POSITIONS) + KEPT
    np.testing.assert_array_equal(np.exp(tail.log_counts).round(), tail.counts)


def test_what_is_unlike_its_neighbours_is_kept(tmp_path: Path) -> None:
    places = [3, 777, 1234]

    def change(spec: whisper_spec.WhisperSpec) -> None:
        encodings = np.zeros_like(spec.encoder.position_encodings.encodings)
        encodings[places] = 20 * np.random.default_rng(0).standard_normal(encodings.shape[1])
        spec.encoder.position_encodings.encodings = encodings

    weights = Checkpoint.read(save_random(SIZES["tied"], tmp_path, change=change) / "model.bin")
    dims = Dims.of(weights)
    tail = Tail.frozen(weights, dims)
    keys = next(frozen._silent_pairs(weights, dims))[0]
    for place in places:
        group = slice(tail.starts[place // GROUP], tail.starts[place // GROUP + 1])
        alone = tail.encoder[0][0][group][tail.counts[group] == 1]
        assert (np.abs(alone - keys[place]).max(axis=1) < CLOSE * np.abs(keys).max()).any()


def test_numpys_encoder_is_ctranslate2s(checkpoint: Checkpoint, models: Models) -> None:
    """Its last layer shows through the keys of the decoder, which are a matrix times its output."""
    dims = Dims.of(checkpoint)
    keys = list(frozen._silent_pairs(checkpoint, dims))[dims.n_audio_layer][0]
    oracle: ctranslate2.models.Whisper = models.oracle("tiny")
    encoded = oracle.encode(ctranslate2.StorageView.from_array(silence(N_FRAMES)[np.newaxis]))
    width = dims.n_text_state
    matrix, bias = (
        checkpoint.weights(f"decoder/layer_0/attention/linear_1/{part}")[:width]
        for part in ("weight", "bias")
    )
    np.testing.assert_allclose(keys, np.array(encoded)[0] @ matrix.T + bias, atol=CLOSE)


# In the graphs


@pytest.mark.parametrize("name", ["tiny", "turbo"])
def test_with_nothing_merged_silence_is_as_in_the_full_window(
    name: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "KEPT", N_POSITIONS)
    write_cpu_graphs(Checkpoint.read(models.model(name) / "model.bin"), tmp_path, "float32")
    session = with_tail(tmp_path)
    full = session.encode(silence(N_FRAMES, session.n_mels))
    features = session.encode(silence(10 * GROUP, session.n_mels))
    assert not features["cross_bias"].any()
    check_close(features, full, N_POSITIONS)


def test_what_is_alike_is_merged_without_loss(tmp_path: Path) -> None:
    """Positions of a group have one encoding here; only the window's ends are unlike."""

    def change(spec: whisper_spec.WhisperSpec) -> None:
        encodings = spec.encoder.position_encodings.encodings
        spec.encoder.position_encodings.encodings = np.repeat(encodings[::GROUP], GROUP, axis=0)

    size = SIZES["tiny"]
    folder = save_random(size, tmp_path / "model", change=change)
    write_cpu_graphs(Checkpoint.read(folder / "model.bin"), tmp_path / "graphs", "float32")
    session = with_tail(tmp_path / "graphs")
    n_positions = 8 * GROUP
    features = session.encode(silence(2 * n_positions))
    full = session.encode(silence(N_FRAMES))
    check_close(features, full, n_positions)
    assert features["cross_bias"].shape[0] < N_POSITIONS / 5
    tokens = np.array([size.prompt], np.int32)
    logits, by_full = (
        session.step(session.open_cache(one, 1, 64), tokens, 0, session.bias(())).logits()
        for one in (features, full)
    )
    np.testing.assert_allclose(logits, by_full, atol=10 * CLOSE)


@pytest.mark.parametrize("arithmetic", ["float32", "uint8"])
@pytest.mark.parametrize("n_frames", [2, 38, 40, 42, 1000, N_FRAMES - 2 * GROUP])
def test_it_follows_windows_of_any_length(
    n_frames: int, arithmetic: Arithmetic, models: Models
) -> None:
    session = with_tail(models.cpu_graphs("tied", arithmetic))
    bias = session.encode(noise(80, n_frames))["cross_bias"]
    n_positions = np.count_nonzero(np.cumsum(bias != 0) == 0)
    assert n_positions >= n_frames // 2
    assert np.exp(bias).sum() == pytest.approx(N_POSITIONS, rel=1e-4)


def test_nothing_follows_the_full_window(models: Models) -> None:
    folder, mel = models.cpu_graphs("tied"), noise(80, N_FRAMES)
    features, without = with_tail(folder).encode(mel), CpuSession(folder, threads=1).encode(mel)
    assert not features["cross_bias"].any()
    for name, values in without.items():
        np.testing.assert_array_equal(features[name], values)


def test_only_who_asks_for_it_gets_it(models: Models) -> None:
    session = models.cpu_session("tied")
    assert session.encode(noise(80, 200))["cross_bias"].shape == (100,)
    session.has_tail = True
    assert session.encode(noise(80, 200))["cross_bias"].shape > (100,)


def test_the_last_position_sees_silence_behind_it(models: Models) -> None:
    """A window that ends a group earlier is computed as one that goes on."""
    session = with_tail(models.cpu_graphs("tied"))
    mel = np.hstack([noise(80, 100), silence(10 * GROUP - 100)])
    features = session.encode(mel)
    with_more = session.encode(np.hstack([mel, silence(2 * GROUP)]))
    n_positions = mel.shape[1] // 2
    assert features["cross_k_0"].shape[2] != with_more["cross_k_0"].shape[2]
    values, more = (one["cross_v_0"][:, :, n_positions - 1] for one in (features, with_more))
    zeros = np.pad(mel, ((0, 0), (0, 2)))
    padded = CpuSession(models.cpu_graphs("tied"), threads=1).encode(zeros)["cross_v_0"]
    assert np.abs(values - more).mean() < np.abs(padded[:, :, n_positions - 1] - more).mean()


# In the graphs for TensorRT


def oracle_with_tail(
    models: Models, name: str, folder: Path, precision: Precision
) -> OracleSession:
    weights = Checkpoint.read(models.model(name) / "model.bin")
    tail = Tail.frozen(weights, Dims.of(weights))
    write_graphs(weights, folder, precision, beam_size=5, tail=tail)
    return OracleSession(folder, threads=1)


def logits_of(session: Session, mel: Array, tokens: Tokens) -> Array:
    cache = session.open_cache(session.encode(mel), 1, 64)
    return session.step(cache, tokens, 0, session.bias(())).logits()


@pytest.mark.parametrize("name", ["tiny", "turbo"])
def test_both_kinds_of_graphs_say_the_same(name: str, models: Models, tmp_path: Path) -> None:
    """Those for TensorRT, and those for CPUs: of windows with a tail, and the full one."""
    size = SIZES[name]
    oracle = oracle_with_tail(models, name, tmp_path, "float32")
    ours = with_tail(models.cpu_graphs(name))
    tokens = np.array([size.prompt], np.int32)
    for n_frames in (2 * GROUP, 20 * GROUP, 500, N_FRAMES - 2 * GROUP, 2980, N_FRAMES):
        mel = np.hstack([noise(size.n_mels, 36), silence(n_frames - 36, size.n_mels)])
        one, other = logits_of(oracle, mel, tokens), logits_of(ours, mel, tokens)
        np.testing.assert_allclose(one, other, atol=CLOSE)


def test_in_float16_it_is_close_to_float32(models: Models, tmp_path: Path) -> None:
    tokens = np.array([SIZES["tied"].prompt], np.int32)
    mel = np.hstack([noise(80, 200), silence(200)])
    logits = []
    for precision in get_args(Precision):
        oracle = oracle_with_tail(models, "tied", tmp_path / precision, precision)
        logits.append(logits_of(oracle, mel, tokens))
    half, single = logits
    assert np.abs(half - single).mean() < 0.05 * single.std()


@pytest.mark.parametrize("n_frames", [2, 38, 40, 1000, 1002, N_FRAMES - 2 * GROUP, N_FRAMES])
def test_windows_become_whole_groups_and_one_position_for_the_tail(n_frames: int) -> None:
    mel = noise(80, n_frames)
    for has_tail in (False, True):
        n_positions, left = divmod(Tail.lengthened(mel, follows=has_tail).shape[1], 2)
        assert left == 0
        follows = has_tail and n_frames <= N_FRAMES - 2 * GROUP
        assert n_positions % GROUP == follows
        assert 0 <= n_positions - n_frames // 2 <= GROUP
    np.testing.assert_array_equal(Tail.lengthened(mel, follows=True)[:, :n_frames], mel)


@pytest.mark.parametrize("n_frames", [200, 1000, N_FRAMES])
def test_graphs_for_tensorrt_can_do_without_it(
    n_frames: int, models: Models, tmp_path: Path
) -> None:
    """A model that does not bear it needs no other engine."""
    oracle = oracle_with_tail(models, "tiny", tmp_path, "float32")
    oracle.has_tail = False
    tokens, mel = np.array([SIZES["tiny"].prompt], np.int32), noise(80, n_frames)
    without = logits_of(models.session("tiny"), mel, tokens)
    np.testing.assert_allclose(logits_of(oracle, mel, tokens), without, atol=1e-4)
