"""The order of imports in docs/architecture.md, executed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wyoming_whisper

PACKAGE = Path(wyoming_whisper.__file__).parent
ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"

RUNTIMES = (
    *("ctranslate2", "faster_whisper", "onnxruntime", "onnx"),
    *("tensorrt", "tensorrt_rtx", "tensorrt_llm", "torch", "transformers"),
)
HUB = ("huggingface_hub", "av", "tqdm")
WEB = ("aiohttp", "prometheus_client")

OTHER_HALVES = (
    "wyoming_whisper.whisper",
    "wyoming_whisper.backends",
    "wyoming_whisper.serving.server",
)

ABOVE_ENGINES = (
    "wyoming_whisper.whisper.search",
    "wyoming_whisper.whisper.decoding",
    "wyoming_whisper.whisper.tokenizer",
    "wyoming_whisper.backends",
    "wyoming_whisper.serving.server",
)

OTHER_SIDES = (
    "wyoming_whisper.backends",
    "wyoming_whisper.serving.server",
    "wyoming_whisper.serving.handler",
)

MUST_NOT_LOAD = {
    "wyoming_whisper.errors": ("numpy", "wyoming", "asyncio"),
    "wyoming_whisper.settings.options": ("numpy", "wyoming.", "asyncio", *RUNTIMES, *HUB),
    "wyoming_whisper.commands.console": ("numpy", "wyoming.", "asyncio", *RUNTIMES, *HUB),
    "wyoming_whisper.__main__": ("numpy", "wyoming.", *RUNTIMES, *HUB),
    "wyoming_whisper.transcriber": ("wyoming.", "asyncio", *RUNTIMES, *HUB),
    "wyoming_whisper.serving.connections": ("wyoming_whisper.backends", *RUNTIMES, *HUB),
    "wyoming_whisper.serving.handler": ("wyoming_whisper.backends", *RUNTIMES, *HUB),
    "wyoming_whisper.serving.info": ("numpy", *RUNTIMES, *HUB, *WEB),
    "wyoming_whisper.utterance.service": (
        "wyoming_whisper.backends",
        "wyoming_whisper.serving",
        *RUNTIMES,
        *HUB,
        *WEB,
    ),
    "wyoming_whisper.serving.server": (
        "wyoming_whisper.backends",
        "zeroconf",
        *RUNTIMES,
        *HUB,
        *WEB,
    ),
    "wyoming_whisper.web.app": (
        "wyoming_whisper.backends",
        "wyoming_whisper.serving.server",
        *RUNTIMES,
    ),
    "wyoming_whisper.settings.upstreams": ("wyoming.", "asyncio", "numpy", *RUNTIMES, *HUB, *WEB),
    "wyoming_whisper.upstreams.health": ("wyoming.", "asyncio", "numpy", *RUNTIMES, *HUB, *WEB),
    "wyoming_whisper.upstreams.relay": (*OTHER_SIDES, *RUNTIMES, *HUB, *WEB),
    "wyoming_whisper.upstreams.pool": (*OTHER_SIDES, *RUNTIMES, *HUB, *WEB),
    "wyoming_whisper.web.transcriptions": (
        "wyoming_whisper.backends",
        "wyoming_whisper.serving.server",
        "soundfile",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.serving.discovery": ("wyoming.", "numpy"),
    "wyoming_whisper.serving.supervisor": ("asyncio", "wyoming.", "numpy"),
    "wyoming_whisper.home.snapper": (
        "wyoming.",
        "asyncio",
        "numpy",
        "rapidfuzz",
        "jellyfish",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.home.household": (
        "wyoming.",
        "numpy",
        "rapidfuzz",
        *OTHER_HALVES,
        *RUNTIMES,
        *WEB,
    ),
    "wyoming_whisper.home.inventory": ("asyncio", "numpy", "yaml", *OTHER_HALVES),
    "wyoming_whisper.home.home_file": ("wyoming.", "asyncio", "numpy", *OTHER_HALVES, *RUNTIMES),
    "wyoming_whisper.grammar.automaton": (
        "wyoming.",
        "asyncio",
        "hassil",
        "wyoming_whisper.home",
        "wyoming_whisper.settings",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.grammar.service": (
        "wyoming.",
        "asyncio",
        "hassil",
        "home_assistant_intents",
        "wyoming_whisper.home.household",
        "wyoming_whisper.settings.options",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.languages.words": ("wyoming.", "asyncio", "numpy", *RUNTIMES, *HUB),
    "wyoming_whisper.utterance.languages": ("wyoming.", "asyncio", *OTHER_HALVES, *RUNTIMES, *HUB),
    "wyoming_whisper.models.huggingface": (
        "wyoming.",
        "asyncio",
        "tokenizers",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.tasks": ("wyoming.", "numpy", *OTHER_HALVES, *RUNTIMES, *HUB),
    "wyoming_whisper.utterance.hangs": (
        "wyoming.",
        "asyncio",
        "numpy",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.status": ("wyoming.", "asyncio", "numpy", *OTHER_HALVES, *RUNTIMES, *HUB),
    "wyoming_whisper.machine.process": (
        "wyoming.",
        "asyncio",
        "numpy",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.peers": ("wyoming.", "asyncio", "numpy", *RUNTIMES, *HUB),
    "wyoming_whisper.utterance.endpointing": (
        "wyoming.",
        "asyncio",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.utterance.scheduler": ("wyoming.", "asyncio", *OTHER_HALVES, *RUNTIMES, *HUB),
    "wyoming_whisper.audio.recording": (
        "wyoming.",
        "asyncio",
        "soundfile",
        "soxr",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.audio.speech": ("wyoming.", "asyncio", *OTHER_HALVES, *RUNTIMES, *HUB),
    "wyoming_whisper.utterance.budget": ("wyoming.", "asyncio", *OTHER_HALVES, *RUNTIMES, *HUB),
    "wyoming_whisper.utterance.dictation": (
        "wyoming.",
        "wyoming_whisper.utterance.utterance",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.audio.pcm": ("wyoming.", "asyncio", "soxr", *RUNTIMES, *HUB),
    "wyoming_whisper.utterance.live": (
        "wyoming.",
        "asyncio",
        "wyoming_whisper.utterance.utterance",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.utterance.utterance": (
        "wyoming_whisper.backends",
        "wyoming_whisper.serving",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.machine.host": ("wyoming.", "asyncio", "numpy", *RUNTIMES, *HUB),
    "wyoming_whisper.machine.measured": (
        "wyoming.",
        "asyncio",
        "numpy",
        "wyoming_whisper.settings.options",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.whisper.search": ("wyoming.", "asyncio", "tokenizers", *RUNTIMES, *HUB),
    "wyoming_whisper.text.style": (
        "wyoming.",
        "asyncio",
        "wyoming_whisper.settings.options",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.text.wording": (
        "wyoming.",
        "asyncio",
        "numpy",
        "yaml",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.text.replacements": (
        "wyoming.",
        "asyncio",
        "numpy",
        *OTHER_HALVES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.audio.vad": ("wyoming.", "wyoming_whisper.serving.server", *RUNTIMES, *HUB),
    "wyoming_whisper.whisper.audio": ("wyoming.", "asyncio", *RUNTIMES, *HUB),
    "wyoming_whisper.whisper.tokenizer": ("wyoming.", "numpy", *RUNTIMES, *HUB),
    "wyoming_whisper.whisper.decoding": (
        "wyoming.",
        "wyoming_whisper.backends",
        "asyncio",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.models.store": ("wyoming.", "asyncio", *RUNTIMES, *HUB),
    "wyoming_whisper.engine.checkpoint": ("wyoming.", "asyncio", *OTHER_HALVES, *RUNTIMES, *HUB),
    "wyoming_whisper.engine.graphs": (
        "wyoming.",
        "asyncio",
        *ABOVE_ENGINES,
        *HUB,
        *(runtime for runtime in RUNTIMES if runtime != "onnx"),
    ),
    "wyoming_whisper.engine.cpu_graphs": (
        "wyoming.",
        "asyncio",
        *ABOVE_ENGINES,
        *HUB,
        *(runtime for runtime in RUNTIMES if runtime != "onnx"),
    ),
    "wyoming_whisper.engine.session": ("wyoming.", "asyncio", *ABOVE_ENGINES, *RUNTIMES, *HUB),
    "wyoming_whisper.engine.tensorrt.cuda": (
        "wyoming.",
        "asyncio",
        *ABOVE_ENGINES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.engine.tensorrt.session": (
        "wyoming.",
        "asyncio",
        *ABOVE_ENGINES,
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.engine.cache": ("wyoming.", "asyncio", "numpy", *RUNTIMES, *HUB),
    "wyoming_whisper.engine.child": ("wyoming.", "asyncio", *ABOVE_ENGINES, *RUNTIMES, *HUB),
    "wyoming_whisper.engine.builder": ("wyoming.", "asyncio", *ABOVE_ENGINES, *RUNTIMES, *HUB),
    "wyoming_whisper.commands.selftest.report": ("wyoming.", "asyncio", *RUNTIMES, *HUB),
    "wyoming_whisper.commands.serve": ("numpy", "wyoming.", "asyncio", *RUNTIMES, *HUB),
    "wyoming_whisper.commands.models": ("wyoming.", "asyncio", *RUNTIMES, *HUB),
    "wyoming_whisper.commands.connection": ("numpy", *OTHER_HALVES, *RUNTIMES, *HUB),
    "wyoming_whisper.commands.health": ("wyoming_whisper.serving.server", *RUNTIMES, *HUB),
    "wyoming_whisper.commands.transcribe": ("wyoming_whisper.serving", *RUNTIMES, *HUB),
    "wyoming_whisper.commands.engine": (
        "wyoming.",
        "wyoming_whisper.serving.server",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.backends.pipeline": (
        "wyoming.",
        "wyoming_whisper.serving.server",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.backends.faster_whisper": (
        "wyoming.",
        "wyoming_whisper.serving.server",
        *RUNTIMES,
    ),
    "wyoming_whisper.cluster.front_end": (
        "wyoming.",
        "asyncio",
        "wyoming_whisper.serving.server",
        "ray",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.cluster.replica": (
        "wyoming.",
        "wyoming_whisper.serving.server",
        "ray",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.commands.ray": (
        "wyoming.",
        "wyoming_whisper.serving.server",
        "ray",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.backends.engines": (
        "wyoming.",
        "asyncio",
        "wyoming_whisper.serving.server",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.backends.onnxruntime": (
        "wyoming.",
        "asyncio",
        "wyoming_whisper.serving.server",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.backends.tensorrt": (
        "wyoming.",
        "wyoming_whisper.serving.server",
        *RUNTIMES,
        *HUB,
    ),
    "wyoming_whisper.backends.tensorrt_llm.backend": (
        "wyoming.",
        "asyncio",
        "wyoming_whisper.serving.server",
        *RUNTIMES,
        *HUB,
    ),
}


@pytest.mark.parametrize(("module", "banned"), MUST_NOT_LOAD.items(), ids=MUST_NOT_LOAD.keys())
def test_importing_a_module_loads_nothing_from_the_other_side(
    module: str, banned: tuple[str, ...]
) -> None:
    # Each in its own process: what another test has imported must not count.
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert module in loaded
    wrong = [
        name
        for name in loaded
        for start in banned
        if name == start.rstrip(".") or name.startswith(start.rstrip(".") + ".")
    ]
    assert not wrong


class Imports(ast.NodeVisitor):
    """The package's modules that a file imports when it runs, as paths from the package."""

    def __init__(self, file: Path) -> None:
        self.package = file.relative_to(PACKAGE).parent.parts
        self.targets: list[tuple[str, ...]] = []
        self.visit(ast.parse(file.read_text(encoding="utf-8")))

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level:
            folder = self.package[: len(self.package) - node.level + 1]
            path = (*folder, *(node.module.split(".") if node.module else ()))
            self.targets += [path] if path else [(alias.name,) for alias in node.names]


def layers() -> list[list[str]]:
    """Return the lines of the list of docs/architecture.md, top first."""
    (block,) = re.findall(r"```\n(__main__\n.*?)```", ARCHITECTURE.read_text(), re.DOTALL)
    return [re.split(r"\s{2,}", line)[0].split(", ") for line in block.splitlines()]


def arrows() -> Iterator[tuple[str, str, str]]:
    """Yield (file, its folder or module of the root, one that it imports)."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        for target in Imports(file).targets:
            if parts != ("__init__",) and target[0] not in (parts[0], "__version__"):
                yield "/".join(parts), parts[0], target[0]


def test_the_order_has_every_folder_once() -> None:
    in_package = {
        path.stem if path.is_file() else path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    }
    listed = [name for layer in layers() for name in layer]
    assert sorted(listed) == sorted(in_package - {"__init__"})


def test_imports_point_down_the_order() -> None:
    place = {name: number for number, layer in enumerate(layers()) for name in layer}
    all_arrows = list(arrows())
    assert len(all_arrows) > 300
    upwards = [
        f"{file} imports {target}"
        for file, folder, target in all_arrows
        if place[target] < place[folder]
    ]
    assert upwards == []
