"""The graphs' shape: operators, inputs, outputs, files. What they compute is in test_oracle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.engine.conftest import SIZES, Models, save_random
from tests.engine.test_oracle import noise, transcribe
from wyoming_whisper.engine import graphs
from wyoming_whisper.engine.checkpoint import Checkpoint, Dims
from wyoming_whisper.engine.onnx_graph import Precision, Storage
from wyoming_whisper.engine.session import OracleSession
from wyoming_whisper.errors import ModelBrokenError

# What onnxruntime's CPU provider and the TensorRT parsers from 8.6 to 11 have, in the types used
# here: onnx-tensorrt's docs/operators.md at 8.6-GA and 10.1-GA.
ALLOWED = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Exp", "Log", "Erf"),
    *("Equal", "Greater", "Where", "Cast"),
    *("Conv", "MatMul", "Gemm", "LayerNormalization", "Softmax", "ReduceSum", "TopK"),
    *("Gather", "Slice", "Split", "Concat", "Reshape", "Transpose", "Unsqueeze", "Shape"),
}

OFFICIAL = {
    "tiny": Dims(80, 1500, 384, 6, 4, 51865, 448, 384, 6, 4),
    "tiny.en": Dims(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4),
    "base": Dims(80, 1500, 512, 8, 6, 51865, 448, 512, 8, 6),
    "small": Dims(80, 1500, 768, 12, 12, 51865, 448, 768, 12, 12),
    "medium": Dims(80, 1500, 1024, 16, 24, 51865, 448, 1024, 16, 24),
    "large-v2": Dims(80, 1500, 1280, 20, 32, 51865, 448, 1280, 20, 32),
    "large-v3": Dims(128, 1500, 1280, 20, 32, 51866, 448, 1280, 20, 32),
    "turbo": Dims(128, 1500, 1280, 20, 32, 51866, 448, 1280, 20, 4),
    "distil-small.en": Dims(80, 1500, 768, 12, 12, 51864, 448, 768, 12, 4),
    "distil-large-v3": Dims(128, 1500, 1280, 20, 32, 51866, 448, 1280, 20, 2),
}


def empty(dims: Dims) -> Checkpoint:
    """A checkpoint of these dimensions that takes no memory: all weights are the same zero."""
    shapes = dims.shapes()
    variables = {name: np.broadcast_to(np.float16(0), shape) for name, shape in shapes.items()}
    del variables["decoder/projection/weight"]
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    variables["encoder/num_heads"] = np.array(dims.n_audio_head, np.int16)
    return Checkpoint("WhisperSpec", 3, variables, aliases, Path("model.bin"))


def both(models: Models, name: str, precision: Precision, beam_size: int) -> list[Any]:
    folder = models.graphs(name, precision, beam_size)
    return [onnx.load(str(folder / f"{half}.onnx")) for half in ("encoder", "decoder")]


def shapes(values: Any) -> dict[str, tuple[int, tuple[int | str, ...]]]:
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    }


@pytest.mark.parametrize("name", OFFICIAL)
def test_dimensions_are_openais(name: str) -> None:
    assert Dims.of(empty(OFFICIAL[name])) == OFFICIAL[name]


def test_in_float16_weights_lie_beside_the_graphs_from_medium_on() -> None:
    beside = set()
    for name, dims in OFFICIAL.items():
        for half, parts in graphs._parts(dims, tied=True).items():
            size = graphs._bytes(parts, "float16")
            if size > Storage.MAX_BYTES_INSIDE:
                beside.add(f"{half} of {name}")
    assert beside == {
        *("encoder of medium", "decoder of medium"),
        *("encoder of large-v2", "decoder of large-v2"),
        *("encoder of large-v3", "decoder of large-v3"),
        *("encoder of turbo", "encoder of distil-large-v3"),
    }


@pytest.mark.parametrize("beam_size", [1, 5])
@pytest.mark.parametrize("precision", ["float16", "float32"])
@pytest.mark.parametrize("name", SIZES)
def test_graphs_are_sound_and_of_safe_operators(
    name: str, precision: Precision, beam_size: int, models: Models
) -> None:
    for model in both(models, name, precision, beam_size):
        onnx.checker.check_model(model, full_check=True)
        assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (
            8,
            [("", 17)],
        )
        assert {node.op_type for node in model.graph.node} <= ALLOWED
        kinds = {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
        assert kinds <= {onnx.TensorProto.INT32, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
        used = {name for node in model.graph.node for name in node.input}
        given = {v.name for v in model.graph.input} | {w.name for w in model.graph.initializer}
        assert given <= used
        for weights in model.graph.initializer:
            assert np.isfinite(onnx.numpy_helper.to_array(weights)).all()


def test_norms_are_float32_in_float16(models: Models) -> None:
    for model in both(models, "turbo", "float16", 5):
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        kinds = shapes([*inferred.graph.value_info, *inferred.graph.output])
        half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
        for node in model.graph.node:
            if node.op_type in ("LayerNormalization", "Exp", "Log", "TopK"):
                assert kinds[node.output[0]][0] == full
            if node.op_type in ("MatMul", "Gemm", "Conv", "Erf", "Softmax"):
                assert kinds[node.output[0]][0] == half


def test_inputs_and_outputs(models: Models) -> None:
    half, full, int32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    encoder, decoder = both(models, "distil", "float16", 5)
    cache = ("batch", 1, "n_slots", 64)
    assert shapes(encoder.graph.input) == {"mel": (full, ("batch", 80, "n_frames"))}
    assert shapes(encoder.graph.output) == {
        "cross_k_0": (half, ("batch", 1, 64, "n_ctx")),
        "cross_v_0": (half, ("batch", 1, "n_ctx", 64)),
        "cross_k_1": (half, ("batch", 1, 64, "n_ctx")),
        "cross_v_1": (half, ("batch", 1, "n_ctx", 64)),
    }
    assert shapes(decoder.graph.input) == {
        "tokens": (int32, ("batch", "n_tokens")),
        "positions": (int32, ("n_tokens",)),
        "slots": (int32, ("n_slots",)),
        "logit_bias": (full, (350,)),
        "parents": (int32, ("batch",)),
        **{f"self_{letter}_{i}": (half, cache) for letter in "kv" for i in range(2)},
        **{f"cross_k_{i}": (half, (1, 1, 64, "n_ctx")) for i in range(2)},
        **{f"cross_v_{i}": (half, (1, 1, "n_ctx", 64)) for i in range(2)},
    }
    assert shapes(decoder.graph.output) == {
        **{f"new_self_{letter}_{i}": (half, cache) for letter in "kv" for i in range(2)},
        "next_tokens": (int32, ("batch", 1)),
        "next_positions": (int32, (1,)),
        "logprobs": (full, ("batch", 1)),
        "logits": (full, ("batch", 350)),
        "candidates": (int32, ("batch", 10)),
        "candidate_logprobs": (full, ("batch", 10)),
    }
    _, greedy = both(models, "distil", "float16", 1)
    assert set(shapes(decoder.graph.input)) - set(shapes(greedy.graph.input)) == {"parents"}
    assert set(shapes(decoder.graph.output)) - set(shapes(greedy.graph.output)) == {
        "candidates",
        "candidate_logprobs",
    }


def test_the_scale_of_the_queries_is_exact_in_float16(models: Models) -> None:
    weights = Checkpoint.read(models.model("tiny") / "model.bin")
    _, decoder = both(models, "tiny", "float16", 1)
    found = {w.name: onnx.numpy_helper.to_array(w) for w in decoder.graph.initializer}
    name = "decoder/layer_0/self_attention/linear_0/weight"
    expected = weights.weights(name).T.astype(np.float16)
    expected[:, :128] /= 8
    smallest = float(np.finfo(np.float16).smallest_subnormal)  # below the normal ones bits go
    np.testing.assert_allclose(found[name], expected, rtol=0, atol=smallest)
    normal = np.abs(expected) > np.finfo(np.float16).smallest_normal
    np.testing.assert_array_equal(found[name][normal], expected[normal])


def test_weights_beside_the_graphs_are_the_same(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Storage, "MAX_BYTES_INSIDE", 10_000)
    weights = Checkpoint.read(models.model("tied") / "model.bin")
    graphs.write_graphs(weights, tmp_path / "new" / "folder", "float32", 2)
    files = {path.name: path.stat().st_size for path in (tmp_path / "new" / "folder").iterdir()}
    assert set(files) == {
        *("encoder.onnx", "encoder.onnx.data"),
        *("decoder.onnx", "decoder.onnx.data"),
    }
    for half in ("encoder", "decoder"):
        path = tmp_path / "new" / "folder" / f"{half}.onnx"
        assert files[path.name] < 100_000 < files[f"{path.name}.data"]
        onnx.checker.check_model(str(path), full_check=True)
    inside = models.session("tied", beam_size=2)
    beside = OracleSession(tmp_path / "new" / "folder", threads=1)
    mel = noise(80, 200)
    said = [transcribe(session, mel, [1, 2, 3], [], 8) for session in (inside, beside)]
    assert said[0][:2] == said[1][:2]
    np.testing.assert_array_equal(said[0][2], said[1][2])


@pytest.mark.parametrize("name", ["tied", "turbo"])
def test_progress_goes_up_to_one(name: str, models: Models, tmp_path: Path) -> None:
    told: list[float] = []
    weights = Checkpoint.read(models.model(name) / "model.bin")
    graphs.write_graphs(weights, tmp_path, "float16", 1, told.append)
    assert told == sorted(told)
    assert 0 < told[0] < 0.5
    assert told[-1] == pytest.approx(1.0)
    assert len(told) > 20


def test_integer_weights_are_multiplied_out(models: Models, tmp_path: Path) -> None:
    exact = Checkpoint.read(save_random(SIZES["tied"], tmp_path / "exact") / "model.bin")
    int8 = Checkpoint.read(save_random(SIZES["tied"], tmp_path / "int8", "int8") / "model.bin")
    graphs.write_graphs(int8, tmp_path / "graphs", "float32")
    mel = noise(80, 200)
    found = transcribe(OracleSession(tmp_path / "graphs", 1), mel, [1, 2, 3], [], 1)[2]
    expected = transcribe(models.session("tied"), mel, [1, 2, 3], [], 1)[2]
    assert Dims.of(int8) == Dims.of(exact)
    difference = np.abs(found - expected).max()
    assert 0 < difference < expected.std()


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("encoder/conv1/weight", None, "no encoder/conv1/weight"),
        ("encoder/conv1/weight", (384, 80), "odd shapes"),
        ("encoder/conv1/weight", (100, 80, 3), "not (64, 80, 3)"),
        ("encoder/conv1/weight", (384, 80, 5), "not (384, 80, 3)"),
        ("decoder/layer_3/ffn/linear_1/bias", None, "no decoder/layer_3/ffn/linear_1/bias"),
        ("decoder/layer_0/attention/linear_1/weight", (384, 384), "not (768, 384)"),
        ("decoder/embeddings/weight", (51865, 512), "not (51865, 384)"),
        ("encoder/num_heads", (2,), "64 wide"),
    ],
)
def test_other_weights_are_refused(
    name: str, change: tuple[int, ...] | None, complaint: str
) -> None:
    model = empty(OFFICIAL["tiny"])
    variables = dict(model.variables)
    if change is None:
        del variables[name]
    else:
        variables[name] = np.broadcast_to(np.float16(0), change)
    with pytest.raises(ModelBrokenError) as caught:
        Dims.of(dataclasses.replace(model, variables=variables))
    assert complaint in str(caught.value)


def test_other_models_are_refused() -> None:
    model = empty(OFFICIAL["tiny"])
    with pytest.raises(ModelBrokenError, match="'TransformerSpec'"):
        Dims.of(dataclasses.replace(model, name="TransformerSpec"))
    heads = {**model.variables, "decoder/num_heads": np.array(12, np.int16)}
    with pytest.raises(ModelBrokenError, match="heads of the decoder are not 64 wide"):
        Dims.of(dataclasses.replace(model, variables=heads))
