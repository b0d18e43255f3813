"""Our graphs, compiled by the real TensorRT-RTX: that needs no GPU, and no driver.

What TensorRT makes of a graph is read where it can be without one: the network that its parser
makes, tensor by tensor, and the program that lies in a plan as text. The inspector wants an engine
that is loaded, for which there has to be a GPU. The optimization level and the profiles are those
of the server.
"""

from __future__ import annotations

import itertools
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.api.names import Surface, check
from tests.api.surface import surface
from tests.api.test_names import ENGINE, ORDINARY, SOURCES, SURFACES
from tests.engine.conftest import Models
from tests.engine.test_build import Quiet
from wyoming_whisper.engine.builder import EngineBuild
from wyoming_whisper.engine.checkpoint import Checkpoint, Dims
from wyoming_whisper.engine.spec import BuildRequest
from wyoming_whisper.engine.tail import Tail
from wyoming_whisper.engine.tensorrt.compile import _Compiler, _encoder_shapes, _plan_facts
from wyoming_whisper.engine.tensorrt.engine import Engine
from wyoming_whisper.engine.tensorrt.library import RTX, Kernels, Library
from wyoming_whisper.engine.tensorrt.plan import PlanFacts
from wyoming_whisper.errors import EngineBrokenError, EngineError, ModelError

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the test extra has TensorRT-RTX for x86-64 Linux",
)

HALVES = ("encoder", "decoder")
ONNX_TYPES = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
}
PROGRAM_TYPES = {"FLOAT": "float", "HALF": "half", "INT32": "int32", "INT64": "int64"}
IN_FLOAT32 = {"NORMALIZATION", "TOPK"}
"""Layers that are so in every precision, as docs/engines.md says."""
IN_FLOAT32_BY_NAME = ("logits", "logprobs", "candidate_logprobs")


@dataclass(frozen=True)
class Made:
    """A model's graphs, and what has to be known of them."""

    folder: Path
    facts: PlanFacts

    def graph(self, half: str) -> Any:
        return onnx.load(self.folder / f"{half}.onnx")


def made(
    model_bin: Path, folder: Path, precision: Any, beam_size: int, *, has_tail: bool = False
) -> Made:
    from wyoming_whisper.engine import graphs

    weights = Checkpoint.read(model_bin)
    tail = Tail.frozen(weights, Dims.of(weights)) if has_tail else None
    dims = graphs.write_graphs(weights, folder, precision, beam_size, tail=tail)
    request = BuildRequest(
        str(model_bin), str(folder), runtime=RTX.runtime, precision=precision, beam_size=beam_size
    )
    return Made(folder, _plan_facts(dims, request, tail))


@pytest.fixture(params=["home-en", pytest.param("tiny.en", marks=pytest.mark.stock)])
def model_bin(request: pytest.FixtureRequest, models: Models) -> Path:
    if request.param == "home-en":
        return models.model("home-en") / "model.bin"
    folder: Path = request.getfixturevalue("stock_tiny_en")
    return folder / "model.bin"


every = pytest.mark.parametrize(
    ("precision", "beam_size"), [*itertools.product(("float16", "float32"), (1, 5))]
)


# -- the parser ----------------------------------------------------------------------------


@every
def test_the_parser_gives_every_tensor_the_graphs_type_and_shape(
    model_bin: Path, tmp_path: Path, precision: str, beam_size: int
) -> None:
    assert_parsed(made(model_bin, tmp_path, precision, beam_size), precision)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_so_it_does_where_a_frozen_tail_follows_the_window(
    models: Models, tmp_path: Path, precision: str
) -> None:
    model_bin = models.model("home-en") / "model.bin"
    it = made(model_bin, tmp_path, precision, 1, has_tail=True)
    assert_parsed(it, precision)
    request = BuildRequest("", str(tmp_path), runtime=RTX.runtime, precision=precision)
    compiler = _Compiler(RTX.load(), request, Quiet(), 1 << 29)  # type: ignore[arg-type]
    shapes = _encoder_shapes(it.facts)
    compiler.compile("encoder engine", tmp_path / "encoder.onnx", shapes, "encoder.plan")
    assert all(program.is_capturable for program in programs_of(tmp_path / "encoder.plan"))


def assert_parsed(it: Made, precision: str) -> None:
    trt, folder = RTX.load(), it.folder
    request = BuildRequest("", str(folder), runtime=RTX.runtime, precision=precision)
    compiler = _Compiler(trt, request, Quiet(), 1 << 29)  # type: ignore[arg-type]
    for half in HALVES:
        network = compiler._parsed(folder / f"{half}.onnx")
        tensors = network_tensors(network)
        expected = graph_tensors(it.graph(half))
        missing = set(expected) - set(tensors)
        assert not missing
        for name, (dtype, shape) in expected.items():
            assert tensors[name][0] == dtype, name
            assert fits(tensors[name][1], shape), (name, tensors[name][1], shape)
        for name, dtype, kind in network_outputs(network):
            if kind in IN_FLOAT32 and dtype in ("HALF", "FLOAT"):
                assert dtype == "FLOAT", name
        assert {tensors[n][0] for n in IN_FLOAT32_BY_NAME if n in tensors} <= {"FLOAT"}
        if precision == "float32":
            assert "HALF" not in {dtype for dtype, _ in tensors.values()}


def network_outputs(network: Any) -> list[tuple[str, str, str]]:
    """Return (name, type, kind of layer) of everything that a layer gives."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return [
        (output.name, output.dtype.name, layer.type.name)
        for layer in layers
        for output in (layer.get_output(i) for i in range(layer.num_outputs))
    ]


def network_tensors(network: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [layer.get_output(i) for layer in layers for i in range(layer.num_outputs)]
    return {t.name: (t.dtype.name, tuple(t.shape)) for t in tensors}


def graph_tensors(model: Any) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    """Return type and shape of inputs and of what nodes give, -1 for a length that varies."""
    known = onnx.shape_inference.infer_shapes(model).graph
    values = {v.name: v for v in (*known.value_info, *known.input, *known.output)}
    names = [v.name for v in known.input] + [n for node in known.node for n in node.output]
    return {name: described(values[name]) for name in names}


def described(value: Any) -> tuple[str, tuple[int, ...] | None]:
    kind = value.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return ONNX_TYPES[kind.elem_type], shape


def fits(found: tuple[int, ...], shape: tuple[int, ...] | None) -> bool:
    """Return whether two shapes agree where both are known."""
    if shape is None:
        return True
    return len(found) == len(shape) and all(
        mine in (-1, its) or its == -1 for mine, its in zip(found, shape, strict=True)
    )


def test_what_the_parser_refuses_is_said_in_its_own_words(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Det", ["x"], ["y"], name="the_node")
    kind = onnx.TensorProto.FLOAT
    values = [
        onnx.helper.make_tensor_value_info(name, kind, shape)
        for name, shape in (("x", [1, 2, 2]), ("y", [1]))
    ]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    (tmp_path / "encoder.onnx").write_bytes(model.SerializeToString())
    request = BuildRequest("", str(tmp_path), runtime=RTX.runtime)
    compiler = _Compiler(RTX.load(), request, Quiet(), 1 << 29)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"TensorRT-RTX can't read encoder\.onnx: .*Det"):
        compiler.compile("encoder engine", tmp_path / "encoder.onnx", [], "encoder.plan")


def test_the_installed_version_has_every_name_that_we_use() -> None:
    trt = RTX.load()
    found: Any = surface(trt)
    members = frozenset(m for kind in found["names"].values() if kind for m in kind)
    installed = Surface(found["version"], found["names"], members)
    for module in ENGINE:
        assert not check(SOURCES[module], installed, SURFACES.values(), ORDINARY).missing


@pytest.mark.parametrize(
    "name", ["cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"]
)
def test_what_is_set_at_run_time_can_be_set(name: str) -> None:
    """A configuration is had from a loaded engine alone, for which there is no GPU here."""
    assert vars(RTX.load().IRuntimeConfig)[name].fset


# -- plans ---------------------------------------------------------------------------------


@every
def test_plans_are_built_without_a_gpu_and_keep_types_and_shapes(
    model_bin: Path, tmp_path: Path, precision: str, beam_size: int
) -> None:
    assert_plans(model_bin, tmp_path, precision, beam_size, has_tail=False)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_so_are_those_with_a_frozen_tail(model_bin: Path, tmp_path: Path, precision: str) -> None:
    assert_plans(model_bin, tmp_path, precision, 5, has_tail=True)


def assert_plans(
    model_bin: Path, tmp_path: Path, precision: str, beam_size: int, *, has_tail: bool
) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    request = BuildRequest(
        str(model_bin),
        str(folder),
        runtime=RTX.runtime,
        precision=precision,
        beam_size=beam_size,
        has_tail=has_tail,
        compute_capability=Library.AMPERE.compute_capability,
    )
    EngineBuild(request).run()
    facts = PlanFacts.read(folder)
    assert (facts.runtime, facts.precision) == (RTX.runtime, precision)
    it = made(model_bin, tmp_path / "graphs", precision, beam_size, has_tail=has_tail)
    assert facts.tail_starts == it.facts.tail_starts
    assert facts.has_tail == has_tail
    for half, n_profiles in (("encoder", len(facts.n_frames)), ("decoder", len(facts.profiles))):
        programs = programs_of(folder / f"{half}.plan")
        assert all(program.is_capturable for program in programs)
        lookups = [program for program in programs if is_lookup(program)]
        assert len(lookups) == (n_profiles if has_tail and half == "encoder" else 0)
        programs = [program for program in programs if not is_lookup(program)]
        assert len(programs) == n_profiles
        for program in programs:
            assert program.architecture == "sm80"
            assert_same(program.inputs, it.graph(half).graph.input)
            assert_same(program.outputs, it.graph(half).graph.output)


def test_a_plan_for_turing_is_another(models: Models, tmp_path: Path) -> None:
    request = BuildRequest(
        str(models.model("home-en") / "model.bin"),
        str(tmp_path),
        runtime=RTX.runtime,
        compute_capability=Library.TURING.compute_capability,
    )
    EngineBuild(request).run()
    for half in HALVES:
        programs = programs_of(tmp_path / f"{half}.plan")
        assert {program.architecture for program in programs} == {"sm75"}


Tensors = list[tuple[str, str, list[str]]]


@dataclass(frozen=True)
class Program:
    """What a plan does for one profile, as far as it says so in text."""

    is_capturable: bool
    architecture: str
    inputs: Tensors
    """(name, type, dimensions), in the graph's order."""
    outputs: Tensors


def is_lookup(program: Program) -> bool:
    """Return whether all that it does is to look up where the tail begins."""
    one_integer = ("int64", ["1"])
    return [value[1:] for value in (*program.inputs, *program.outputs)] == [one_integer] * 2


LINE = re.compile(rb"^  (inputs|outputs|stream_capturable|accelerators|tensor)=(.*)$", re.MULTILINE)
NAME = re.compile(r'"([^"]+)"')
DIMS = re.compile(r"dims=\{ ([^}]*)\}")
TENSOR_NAME = re.compile(r' name="([^"]+)"')
TYPE = re.compile(r" type=(\w+) \}$")


def programs_of(plan: Path) -> list[Program]:
    """Return the programs in a plan; those of single kernels are for any accelerator (`*`)."""
    tensors: dict[str, tuple[str, list[str]]] = {}
    programs: list[dict[str, str]] = []
    for match in LINE.finditer(plan.read_bytes()):
        kind, rest = match[1].decode(), match[2].decode("latin-1")
        if kind == "tensor":
            name, dims, dtype = TENSOR_NAME.search(rest), DIMS.search(rest), TYPE.search(rest)
            if name and dims and dtype:
                tensors.setdefault(name[1], (dtype[1], dims[1].split()))
        elif kind == "inputs":
            programs.append({kind: rest})
        elif programs:
            programs[-1].setdefault(kind, rest)

    def described(names: str) -> Tensors:
        return [
            (re.sub(r"( \[profile \d+\])?\.1$", "", name), *tensors[name])
            for name in NAME.findall(names)
            if "shapeInput" not in name
        ]

    return [
        Program(
            program["stream_capturable"] == "1",
            program["accelerators"].strip("{ }"),
            described(program["inputs"]),
            described(program["outputs"]),
        )
        for program in programs
        if "stream_capturable" in program
    ]


def assert_same(found: Tensors, values: Any) -> None:
    """Compare with the graph's. Some have a name of TensorRT's own: the order is the graph's."""
    assert len(found) == len(values)
    for (name, kind, dims), value in zip(found, values, strict=True):
        assert name == value.name or name.startswith("__mye")
        dtype, shape = described(value)
        assert kind == PROGRAM_TYPES[dtype], value.name
        assert shape is not None
        assert len(dims) == len(shape)
        for dim, size in zip(dims, shape, strict=True):
            assert size == -1 or dim == str(size), (value.name, dims, shape)


# -- what needs a GPU says so --------------------------------------------------------------


@pytest.fixture
def plan(models: Models, tmp_path: Path) -> Path:
    """The encoder of the small weights."""
    it = made(models.model("home-en") / "model.bin", tmp_path / "graphs", "float16", 1)
    request = BuildRequest("", str(tmp_path), runtime=RTX.runtime)
    compiler = _Compiler(RTX.load(), request, Quiet(), 1 << 29)  # type: ignore[arg-type]
    shapes = _encoder_shapes(it.facts)
    compiler.compile("encoder engine", it.folder / "encoder.onnx", shapes, "encoder.plan")
    return tmp_path / "encoder.plan"


def load(plan: Path) -> Engine:
    trt = RTX.load()
    return Engine(trt, plan, Kernels(trt, None))


def test_a_plan_is_not_loaded_without_a_driver(plan: Path) -> None:
    with pytest.raises(EngineError, match="driver"):
        load(plan)


@pytest.mark.parametrize("content", [b"", b"none at all", bytes(1000)])
def test_what_is_no_plan_is_told_from_its_first_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "encoder.plan").write_bytes(content)
    with pytest.raises(EngineBrokenError, match=r"encoder\.plan"):
        load(tmp_path / "encoder.plan")
