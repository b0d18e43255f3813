"""Every TensorRT name that our code uses, looked up in what the real packages have.

The lists in surfaces/ were taken from the packages themselves; `script/api-test` takes them again.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import wyoming_whisper
from tests.api.names import Surface, check, ordinary_names, unlike, uses_tensorrt
from tests.api.surface import arguments, signatures
from tests.engine.fakes import tensorrt

SURFACES = {
    path.stem: Surface.read(path)
    for path in sorted(Path(__file__).with_name("surfaces").glob("*.json"))
}
PACKAGE = Path(wyoming_whisper.__file__).parent
SOURCES = {
    str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}
ENGINE = [name for name in SOURCES if name.startswith("engine/")]
USERS = [name for name, source in SOURCES.items() if uses_tensorrt(source)]

ORDINARY = ordinary_names(s for name, s in SOURCES.items() if name.startswith("engine/"))

RTX = ("rtx-1.4", "rtx-1.7")
VERSIONS = ("8.6", "10.3", "10.16", "11.4", *RTX)


def used_by(source: str, version: str) -> tuple[set[str], set[str]]:
    found = check(source, SURFACES[version], SURFACES.values(), ORDINARY)
    return found.used, found.missing


def test_every_version_has_its_list() -> None:
    assert sorted(SURFACES) == sorted(VERSIONS)
    for label, surface in SURFACES.items():
        assert surface.version.startswith(label.removeprefix("rtx-"))
        assert {"create_network", "build_serialized_network"} <= set(surface.names["Builder"] or ())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("module", sorted({*ENGINE, *USERS}))
def test_the_version_has_every_name_we_use(module: str, version: str) -> None:
    used, missing = used_by(SOURCES[module], version)
    assert not missing
    assert used or module not in USERS


def test_the_modules_that_touch_tensorrt_were_found() -> None:
    assert {"engine/tensorrt/compile.py", "engine/tensorrt/engine.py"} <= set(USERS)


# -- that the check can fail --


MADE_UP = {
    "a name": ("import tensorrt as trt\ntrt.Bilder", "Bilder"),
    "a member": ("import tensorrt as trt\ntrt.BuilderFlag.FP17", "FP17"),
    "a local name": ("import tensorrt as trt\nF = trt.BuilderFlag\nF.FP17", "FP17"),
    "what a call returns": (
        "import tensorrt as trt\nnetwork = trt.Builder(log).create_network(0)\nnetwork.num_layer",
        "INetworkDefinition.num_layer",
    ),
    "what self holds": (
        """class A:
            def use(self):
                self.engine.num_io_tensor
            def __init__(self, trt):
                self.engine = trt.Runtime(None).deserialize_cuda_engine(b'')
        """,
        "ICudaEngine.num_io_tensor",
    ),
    "what is set": ("def f(context): context.device_memori = 1", "nobody knows .device_memori"),
    "an annotated parameter": (
        "def f(context: 'trt.IExecutionContext'): context.execute_async_v4(0)",
        "IExecutionContext.execute_async_v4",
    ),
    "anything": ("def f(context): context.execute_async_v4(0)", "nobody knows .execute_async_v4"),
    "too few arguments": (
        "import tensorrt as trt\nc = trt.Builder(log).create_builder_config()\nc.set_flag()",
        "IBuilderConfig.set_flag",
    ),
    "an unknown argument": (
        "import tensorrt as trt\nn = trt.Builder(log).create_network(flag=1)",
        "Builder.create_network",
    ),
    "an overridden method": (
        "import tensorrt as trt\nclass Log(trt.ILogger):\n    def write(self, s, m): pass",
        "ILogger.write",
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("source", "wrong"), MADE_UP.values(), ids=MADE_UP.keys())
def test_what_no_version_has_is_found(source: str, wrong: str, version: str) -> None:
    _, missing = used_by(source, version)
    assert any(wrong in sentence for sentence in missing)


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        ("import tensorrt as trt\ntrt.BuilderFlag.FP16", {"11.4", "rtx-1.7"}),
        ("import tensorrt as trt\ntrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED", {"8.6"}),
        (
            "import tensorrt as trt\ntrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
            {"11.4", "rtx-1.7"},
        ),
        ("def f(engine): engine.num_bindings", {"10.3", "10.16", "11.4", *RTX}),
        ("def f(engine): engine.device_memory_size_v2", {"8.6"}),
        ("import tensorrt as trt\ntrt.CudaGraphStrategy", {"8.6", "10.3", "10.16", "11.4"}),
        ("import tensorrt as trt\ntrt.ExecutionContextAllocationStrategy.USER_MANAGED", {"8.6"}),
    ],
)
def test_what_some_versions_lack_is_found(source: str, lacking: set[str]) -> None:
    assert {version for version in VERSIONS if used_by(source, version)[1]} == lacking


PROBED = {
    "if": "if hasattr(trt.BuilderFlag, 'FP16'):\n    trt.BuilderFlag.FP16",
    "not": "if not hasattr(trt.BuilderFlag, 'FP16'):\n    pass\nelse:\n    trt.BuilderFlag.FP16",
    "and": "hasattr(trt.BuilderFlag, 'FP16') and trt.BuilderFlag.FP16",
    "a name": "weak = hasattr(trt.BuilderFlag, 'FP16')\nif weak: trt.BuilderFlag.FP16",
    "an expression": "x = trt.BuilderFlag.FP16 if hasattr(trt.BuilderFlag, 'FP16') else 0",
    "a function": (
        "def weak(trt):\n    'Say so.'\n    return hasattr(trt.BuilderFlag, 'FP16')\n"
        "if weak(trt): trt.BuilderFlag.FP16"
    ),
    "an early return": (
        "def f():\n    if not hasattr(trt.BuilderFlag, 'FP16'):\n        return\n"
        "    trt.BuilderFlag.FP16"
    ),
    "a function that nothing else calls": (
        "def _f(): trt.BuilderFlag.FP16\ndef g():\n    if hasattr(trt.BuilderFlag, 'FP16'): _f()"
    ),
    "a getattr": (
        "kind = getattr(trt, 'IRuntimeConfig', None)\n"
        "if kind is None:\n    pass\nelse:\n    trt.IRuntimeConfig"
    ),
    "getattr": "getattr(trt.BuilderFlag, 'FP16', None)",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("source", PROBED.values(), ids=PROBED.keys())
def test_what_was_asked_for_first_is_no_fault(source: str, version: str) -> None:
    assert not used_by(f"import tensorrt as trt\n{source}", version)[1]


def test_a_function_that_other_code_calls_too_is_not_excused() -> None:
    source = (
        "import tensorrt as trt\ndef _f(): trt.BuilderFlag.FP16\n"
        "def g():\n    if hasattr(trt.BuilderFlag, 'FP16'): _f()\ndef h(): _f()"
    )
    assert used_by(source, "11.4")[1]


def test_the_other_branch_of_a_probe_is_not_excused() -> None:
    source = "if hasattr(trt.BuilderFlag, 'FP16'): pass\nelse: trt.BuilderFlag.FP16"
    assert used_by(source, "11.4")[1]
    assert not used_by(source, "8.6")[1]


# -- the stand-in that other tests run on --

STAND_INS = {
    "Builder": "Builder",
    "BuilderConfig": "IBuilderConfig",
    "Context": "IExecutionContext",
    "Engine": "ICudaEngine",
    "ILogger": "ILogger",
    "Layer": "ILayer",
    "Network": "INetworkDefinition",
    "OnnxParser": "OnnxParser",
    "OptimizationProfile": "IOptimizationProfile",
    "ParserError": "ParserError",
    "Runtime": "Runtime",
    "TimingCache": "ITimingCache",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("fake", "real"), STAND_INS.items(), ids=STAND_INS.keys())
def test_the_stand_in_takes_what_the_real_one_takes(fake: str, real: str, version: str) -> None:
    wrong = unlike(getattr(tensorrt, fake), SURFACES[version], real)
    # The fake hides by version what this method takes from 10 on.
    assert {w for w in wrong if (version, "strategy" in w) != ("8.6", True)} == set()


def test_a_stand_in_that_takes_something_else_is_found() -> None:
    class Config:
        def set_flag(self, option: object) -> None: ...
        def own(self) -> None: ...

    wrong = unlike(Config, SURFACES["10.3"], "IBuilderConfig")
    assert wrong == {"IBuilderConfig.set_flag(option), not (flag) -> None"}


# -- reading signatures --


def test_signatures_are_read_as_pybind11_writes_them() -> None:
    documentation = (
        "set_shape(*args, **kwargs)\nOverloaded function.\n\n"
        "1. set_shape(self: a.b.Profile, input: str, shape: a.Dims = (1, 2)) -> None\n\n Text (x)\n"
        "2. set_shape(self: a.b.Profile, arg0: Dict[str, int]) -> a.b.Dims\n"
    )
    assert signatures("set_shape", documentation) == [
        "(input, shape=) -> None",
        "(arg0) -> Dims",
    ]
    assert arguments("self: A, flags: int = 0") == ["self", "flags="]
