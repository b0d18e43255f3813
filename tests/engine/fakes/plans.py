"""Graphs to an engine's folder through the fake TensorRT, without the child that builds engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from tests.engine.fakes import FakeGpu
from wyoming_whisper.engine.spec import EngineSpec
from wyoming_whisper.engine.tensorrt.compile import _decoder_shapes, _encoder_shapes
from wyoming_whisper.engine.tensorrt.library import RTX, tensorrt_log
from wyoming_whisper.engine.tensorrt.plan import PlanFacts, Profile

MAX_BATCH = 3


def write_plans(gpu: FakeGpu, graphs: Path, folder: Path, sharing: bool = True) -> Path:
    """Write encoder.plan, decoder.plan and engine.json for this GPU; return `folder`.

    `sharing` False: as TensorRT 8.6 builds unless it is asked for profiles that contexts share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = facts_of(graphs, "tensorrt-rtx" if gpu.tensorrt.is_rtx else "tensorrt")
    (folder / facts.FILE).write_text(facts.to_json())
    for graph, plan, profiles in (
        ("encoder.onnx", facts.ENCODER_PLAN, _encoder_shapes(facts)),
        ("decoder.onnx", facts.DECODER_PLAN, _decoder_shapes(facts)),
    ):
        (folder / plan).write_bytes(
            _compile(gpu.tensorrt.module, graphs / graph, profiles, sharing)
        )
    return folder


def facts_of(graphs: Path, runtime: str = "tensorrt") -> PlanFacts:
    """Return what plans of these graphs can do."""
    encoder = onnx.load(graphs / "encoder.onnx", load_external_data=False).graph
    mel = encoder.input[0]
    decoder = onnx.load(graphs / "decoder.onnx", load_external_data=False).graph
    inputs = {value.name: value.type.tensor_type for value in decoder.input}
    outputs = {value.name: value.type.tensor_type for value in decoder.output}
    cache = inputs["self_k_0"]
    beams = outputs["candidates"].shape.dim[1].dim_value // 2 if "parents" in inputs else 1
    return PlanFacts(
        runtime=runtime,
        n_mels=mel.type.tensor_type.shape.dim[1].dim_value,
        n_vocab=inputs["logit_bias"].shape.dim[0].dim_value,
        n_text_ctx=448,
        n_text_head=cache.shape.dim[1].dim_value,
        n_text_layer=sum(name.startswith("self_k_") for name in inputs),
        beam_size=beams,
        max_batch=max(beams, MAX_BATCH),
        precision="float16" if cache.elem_type == onnx.TensorProto.FLOAT16 else "float32",
        n_frames=EngineSpec.FRAMES,
        profiles=(
            Profile("step", (1, 1), (1, 1)),
            Profile("prompt", (1, 1), (2, PlanFacts.MAX_PREFILL_TOKENS)),
            Profile("rows", (2, max(beams, MAX_BATCH)), (1, PlanFacts.MAX_PREFILL_TOKENS)),
        ),
        tail_starts=tuple(
            int(start)
            for constant in encoder.initializer
            if constant.name == "tail/starts"
            for start in onnx.numpy_helper.to_array(constant)
        ),
    )


def _compile(trt: Any, graph: Path, profiles: list[dict[str, Any]], sharing: bool) -> bytes:
    log = tensorrt_log(trt)
    builder = trt.Builder(log)
    known = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(
        1 << int(getattr(known, "STRONGLY_TYPED", getattr(known, "EXPLICIT_BATCH", 0)))
    )
    assert trt.OnnxParser(network, log).parse_from_file(str(graph))
    config = builder.create_builder_config()
    RTX.set_target(trt, config, "8.0")
    if sharing and hasattr(trt.PreviewFeature, "PROFILE_SHARING_0806"):
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            if -1 in tensor.shape:
                profile.set_shape(tensor.name, *shapes[tensor.name])
        config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    assert built is not None, log.errors
    return bytes(built)
