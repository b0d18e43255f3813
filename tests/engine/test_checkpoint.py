"""Reading model.bin: every precision, and nothing but ModelBrokenError from damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.conftest import Size, random_spec, save_random
from wyoming_whisper.engine import checkpoint
from wyoming_whisper.engine.checkpoint import Checkpoint, Dims
from wyoming_whisper.errors import ModelBrokenError

SMALL = Size(
    n_head=1,
    n_audio_layer=1,
    n_text_layer=1,
    n_mels=2,
    n_words=8,
    n_times=2,
    n_audio_ctx=4,
    n_text_ctx=4,
    tied=True,
)


def string(text: bytes) -> bytes:
    return struct.pack("<H", len(text) + 1) + text + b"\0"


HEADER = struct.pack("<I", 6) + string(b"WhisperSpec") + struct.pack("<I", 3)
VARIABLE = string(b"w") + struct.pack("<BIIBI", 2, 1, 2, 0, 8) + struct.pack("<ff", 1, 2)
GOOD = HEADER + struct.pack("<I", 1) + VARIABLE + struct.pack("<I", 1) + string(b"v") + string(b"w")


def test_variables_and_aliases(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(GOOD)
    found = Checkpoint.read(tmp_path / "model.bin")
    assert (found.name, found.revision) == ("WhisperSpec", 3)
    np.testing.assert_array_equal(found["v"], [[1, 2]])
    np.testing.assert_array_equal(found.weights("w"), [[1, 2]])
    assert "v" in found
    assert "x" not in found


@pytest.mark.parametrize(
    ("quantization", "tolerance"),
    [
        (None, 0.0),
        ("float16", 1e-3),
        ("int16", 5e-3),
        ("int8_float32", 3e-2),
        ("int8_float16", 3e-2),
    ],
)
def test_every_precision_gives_back_the_weights(
    quantization: str | None, tolerance: float, tmp_path: Path
) -> None:
    found = Checkpoint.read(save_random(SMALL, tmp_path, quantization) / "model.bin")
    spec = random_spec(SMALL)
    expected = {
        "encoder/conv2/weight": spec.encoder.conv2.weight,
        "encoder/layer_0/ffn/linear_0/bias": spec.encoder.layer[0].ffn.linear_0.bias,
        "decoder/layer_norm/gamma": spec.decoder.layer_norm.gamma,
        "decoder/layer_0/attention/linear_1/weight": spec.decoder.layer[0]
        .attention.linear[1]
        .weight,
        "decoder/projection/weight": spec.decoder.embeddings.weight,  # by its alias
    }
    for name, weights in expected.items():
        values = found.weights(name)
        assert values.dtype == np.float32
        largest = np.abs(weights).max()
        np.testing.assert_allclose(values, weights, atol=tolerance * largest, rtol=0)


@pytest.mark.parametrize("size", range(1, len(GOOD)))
def test_a_file_cut_anywhere_is_refused(size: int, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(GOOD[:size])
    with pytest.raises(ModelBrokenError, match=r"model\.bin is cut short"):
        Checkpoint.read(tmp_path / "model.bin")


ONE = HEADER + struct.pack("<I", 1)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (struct.pack("<I", 5), "version 5"),
        (HEADER + struct.pack("<I", 2**32 - 1), "4294967295 variables"),
        (ONE + string(b"\xff"), "not text"),
        (ONE + struct.pack("<H", 2) + b"ww", "without an end"),
        (ONE + struct.pack("<H", 0), "without an end"),
        (ONE + string(b"w") + b"\x09", "9 dimensions"),
        (ONE + string(b"w") + struct.pack("<BB", 0, 6), "type 6"),
        (ONE + string(b"w") + struct.pack("<BIBI", 1, 9, 0, 8), "8 bytes"),
        (ONE + string(b"w") + struct.pack("<BIIBI", 2, 0, 2**32 - 1, 0, 0), "0 bytes"),
        (ONE + string(b"w") + struct.pack("<BIBI", 1, 2**30, 1, 2**30), "cut short"),
        (HEADER + struct.pack("<I", 2) + 2 * VARIABLE, "'w' twice"),
        (ONE + VARIABLE + struct.pack("<I", 2**31), "2147483648 aliases"),
    ],
)
def test_nonsense_is_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ModelBrokenError, match=complaint):
        Checkpoint.read(tmp_path / "model.bin")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelBrokenError, match=r"model\.bin can't be read: No such file"):
        Checkpoint.read(tmp_path / "model.bin")
    with pytest.raises(ModelBrokenError, match="can't be read"):
        Checkpoint.read(tmp_path)
    (tmp_path / "model.bin").touch()
    with pytest.raises(ModelBrokenError, match=r"model\.bin is empty"):
        Checkpoint.read(tmp_path / "model.bin")


def test_a_later_format_is_read_but_no_engine_is_made_of_it(tmp_path: Path) -> None:
    later = struct.pack("<I", checkpoint.Checkpoint.VERSION + 1)
    (tmp_path / "model.bin").write_bytes(later + GOOD[len(later) :])
    found = Checkpoint.read(tmp_path / "model.bin")
    with pytest.raises(ModelBrokenError, match=r"has binary version 7, not 6"):
        Dims.of(found)


def variable(name: bytes, kind: int, shape: tuple[int, ...], data: bytes) -> bytes:
    head = struct.pack("<B", len(shape)) + struct.pack(f"<{len(shape)}I", *shape)
    return string(name) + head + struct.pack("<BI", kind, len(data)) + data


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    values = np.array([0.0, 1.0, -2.5, 3.140625, 1e30, -1e-30, np.inf], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    weights = variable(b"w", 5, (7,), upper.tobytes())
    content = HEADER + struct.pack("<I", 1) + weights + struct.pack("<I", 0)
    (tmp_path / "model.bin").write_bytes(content)
    found = Checkpoint.read(tmp_path / "model.bin").weights("w")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, rtol=2**-7)
    np.testing.assert_array_equal(found[:4], values[:4])  # these need no more than 8 bits


@pytest.mark.parametrize(
    ("scale", "complaint"),
    [
        (b"", "no w_scale"),
        (variable(b"w_scale", 0, (3,), struct.pack("<3f", 1, 1, 1)), "does not fit"),
        (variable(b"w_scale", 1, (2,), b"\1\1"), "does not fit"),
        (variable(b"w_scale", 0, (2,), struct.pack("<2f", 1, 0)), "zeros"),
        (variable(b"w_scale", 0, (2,), struct.pack("<2f", 1, float("nan"))), "no numbers"),
    ],
)
def test_scales_that_scale_nothing(scale: bytes, complaint: str, tmp_path: Path) -> None:
    count = struct.pack("<I", 1 + bool(scale))
    weights = variable(b"w", 1, (2, 2), b"\1\2\3\4")
    content = HEADER + count + weights + scale + struct.pack("<I", 0)
    (tmp_path / "model.bin").write_bytes(content)
    found = Checkpoint.read(tmp_path / "model.bin")
    with pytest.raises(ModelBrokenError, match=complaint):
        found.weights("w")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = save_random(SMALL, tmp_path_factory.mktemp("small"), "int8")
    return (folder / "model.bin").read_bytes()


@pytest.fixture(scope="module")
def heads(whole: bytes) -> list[int]:
    """Where names, ranks, shapes, types and lengths stand: nearly all bytes are weights."""
    names = (b"encoder/conv1/weight\0", b"decoder/embeddings/weight\0", b"encoder/num_heads\0")
    starts = [whole.index(name) for name in names]
    tail = range(len(whole) - 60, len(whole))
    return [*range(30), *(i for at in starts for i in range(at - 2, at + 80)), *tail]


def read_all(path: Path) -> int:
    """Read everything; return how many weights were refused."""
    found, refused = Checkpoint.read(path), 0
    for name in (*found.variables, *found.aliases):
        try:
            if found[name].ndim:  # the others are settings, such as num_heads
                assert found.weights(name).shape == found[name].shape
        except ModelBrokenError as error:
            assert str(path) in str(error)  # noqa: PT017 - some are refused, others are not
            refused += 1
    Dims.of(found)
    return refused


def test_an_undamaged_file_is_read(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(whole)
    assert read_all(tmp_path / "model.bin") == 0


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read(
    data: st.DataObject, whole: bytes, heads: list[int], tmp_path: Path
) -> None:
    damaged = bytearray(whole)
    places = st.one_of(st.sampled_from(heads), st.integers(0, len(whole) - 1))
    for place in data.draw(st.lists(places, max_size=4)):
        width = data.draw(st.sampled_from([1, 2, 4]))
        damaged[place : place + width] = data.draw(st.binary(min_size=width, max_size=width))
    end = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    path = tmp_path / "model.bin"
    path.write_bytes(damaged[:end])
    try:
        read_all(path)
    except ModelBrokenError as error:
        assert str(path) in str(error)  # noqa: PT017 - most files are refused, some are not
