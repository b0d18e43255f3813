"""Whisper as one writes it in torch: the yardstick of `benchmarks.gpu`. Needs torch and numpy.

Nothing is compiled or captured: a cache that grows by concatenation, and one look at the token from
the host per step, in float16 on the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import report
from wyoming_whisper.engine.checkpoint import Checkpoint, read

if TYPE_CHECKING:
    from benchmarks.gpu import Packed

HEAD_WIDTH = 64
LAYERS = 64  # no Whisper has more in its encoder or decoder


def has_gpu() -> bool:
    """Return whether this torch sees one."""
    return bool(torch.cuda.is_available())


class Whisper:
    """A checkpoint's encoder and decoder."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self.device = device
        self.dtype = torch.float16 if device == "cuda" else torch.float32
        self._checkpoint = checkpoint
        names = {*checkpoint.variables, *checkpoint.aliases}
        self._weights = {
            name: torch.from_numpy(np.array(checkpoint.weights(name))).to(device, self.dtype)
            for name in names
            if not name.endswith("_scale") and checkpoint[name].ndim
        }
        self.n_layers = {
            half: sum(f"{half}/layer_{i}/ffn/linear_0/weight" in names for i in range(LAYERS))
            for half in ("encoder", "decoder")
        }

    def encode(self, mel: Any) -> list[tuple[Any, Any]]:
        """Return keys and values of the audio, one pair a layer of the decoder."""
        w = self._weights
        x = mel.to(self.dtype)
        for name, stride in (("encoder/conv1", 1), ("encoder/conv2", 2)):
            x = functional.conv1d(x, w[f"{name}/weight"], w[f"{name}/bias"], stride, 1)
            x = functional.gelu(x)
        x = x.transpose(1, 2)
        x = x + w["encoder/position_encodings/encodings"][: x.shape[1]]
        for i in range(self.n_layers["encoder"]):
            name = f"encoder/layer_{i}"
            x, _ = self._self_attention(x, name, None)
            x = self._feed_forward(x, name)
        x = self._norm(x, "encoder/layer_norm")
        pairs = []
        for i in range(self.n_layers["decoder"]):
            kv = self._linear(x, f"decoder/layer_{i}/attention/linear_1")
            keys, values = (self._heads(part) for part in kv.chunk(2, -1))
            pairs.append((keys, values))
        return pairs

    def decode(
        self, tokens: Any, audio: Sequence[tuple[Any, Any]], cache: list[Any], position: int
    ) -> Any:
        """Return the logits after `tokens`, shape = (1, n_tokens); `cache` grows by them."""
        w = self._weights
        positions = w["decoder/position_encodings/encodings"][position:]
        x = w["decoder/embeddings/weight"][tokens] + positions[: tokens.shape[1]]
        for i in range(self.n_layers["decoder"]):
            name = f"decoder/layer_{i}"
            x, cache[i] = self._self_attention(x, name, cache[i], causal=tokens.shape[1] > 1)
            y = self._norm(x, f"{name}/attention/layer_norm")
            queries = self._heads(self._linear(y, f"{name}/attention/linear_0"))
            y = functional.scaled_dot_product_attention(queries, *audio[i])
            x = x + self._linear(self._merged(y), f"{name}/attention/linear_2")
            x = self._feed_forward(x, name)
        x = self._norm(x[:, -1], "decoder/layer_norm")
        return x @ w["decoder/projection/weight"].T

    def _self_attention(
        self, x: Any, name: str, past: Any, causal: bool = False
    ) -> tuple[Any, tuple[Any, Any]]:
        y = self._norm(x, f"{name}/self_attention/layer_norm")
        y = self._linear(y, f"{name}/self_attention/linear_0")
        queries, keys, values = (self._heads(part) for part in y.chunk(3, -1))
        if past is not None:
            keys, values = (torch.cat(both, 2) for both in zip(past, (keys, values), strict=True))
        y = functional.scaled_dot_product_attention(queries, keys, values, is_causal=causal)
        return x + self._linear(self._merged(y), f"{name}/self_attention/linear_1"), (keys, values)

    def _feed_forward(self, x: Any, name: str) -> Any:
        y = self._linear(self._norm(x, f"{name}/ffn/layer_norm"), f"{name}/ffn/linear_0")
        return x + self._linear(functional.gelu(y), f"{name}/ffn/linear_1")

    def _norm(self, x: Any, name: str) -> Any:
        w = self._weights
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}/gamma"], w[f"{name}/beta"])

    def _linear(self, x: Any, name: str) -> Any:
        return functional.linear(x, self._weights[f"{name}/weight"], self._weights[f"{name}/bias"])

    @staticmethod
    def _heads(x: Any) -> Any:
        return x.view(*x.shape[:2], -1, HEAD_WIDTH).transpose(1, 2)

    @staticmethod
    def _merged(x: Any) -> Any:
        return x.transpose(1, 2).flatten(2)


class Loop:
    """Greedy decoding of one clip after the other."""

    def __init__(self, model: Whisper, suppressed: Sequence[int], never_first: Sequence[int]):
        self._model = model
        self._suppressed = list(suppressed)
        self._never_first = list(never_first)

    def wait(self) -> None:
        if self._model.device == "cuda":
            torch.cuda.synchronize()

    def hear(
        self, mel: Any, prompt: Sequence[int], n_tokens: int, eot: int | None
    ) -> tuple[list[int], list[float]]:
        """Return tokens up to `eot`, and the moments: start, encoded, then after each token."""
        model = self._model
        self.wait()
        times = [time.perf_counter()]
        features = torch.from_numpy(np.array(mel[None])).to(model.device)
        audio = model.encode(features)
        self.wait()
        times.append(time.perf_counter())
        cache: list[Any] = [None] * model.n_layers["decoder"]
        found: list[int] = []
        given, position = list(prompt), 0
        while len(found) < n_tokens:
            tokens = torch.tensor([given], device=model.device)
            logits = model.decode(tokens, audio, cache, position)
            logits[:, self._suppressed] = -torch.inf
            if not found:
                logits[:, self._never_first] = -torch.inf
            position += len(given)
            given = [int(logits.argmax(-1).item())]
            times.append(time.perf_counter())
            if given[0] == eot:
                break
            found += given
        return found, times


def measure(
    packed: Packed,
    weights: Path,
    runs: int,
    windows: Sequence[int],
    steps: int,
    warm_steps: int,
    on_cpu: bool = False,
) -> dict[str, Any]:
    """Return which clips come out as CTranslate2's, and the times of the stages per window."""
    with torch.inference_mode():
        return _measure(packed, weights, runs, windows, steps, warm_steps, on_cpu)


def _measure(
    packed: Packed,
    weights: Path,
    runs: int,
    windows: Sequence[int],
    steps: int,
    warm_steps: int,
    on_cpu: bool,
) -> dict[str, Any]:
    model = Whisper(read(weights), "cpu" if on_cpu else "cuda")
    tokens = packed.tokens
    loop = Loop(model, tokens.suppressed_tokens, packed.suppressed_begin)
    same = {}
    for case, heard in zip(packed.cases, packed.references, strict=True):
        n_tokens = len(heard.tokens)
        found, _ = loop.hear(case.mel, case.prompt, n_tokens + 1, tokens.eot)
        same[case.name] = tuple(found[:n_tokens]) == heard.tokens
    endless = Loop(model, [*tokens.suppressed_tokens, tokens.eot], packed.suppressed_begin)
    stages = {}
    for seconds in windows:
        encode: list[float] = []
        step: list[float] = []
        for run in range(runs + 1):
            _, times = endless.hear(packed.window(seconds), packed.prompt, steps, None)
            if run:
                encode.append(times[1] - times[0])
                step += np.diff(times[2 + warm_steps :]).tolist()
        stages[str(seconds)] = {
            name: {"median": median(values), "p95": report.percentile(values, 95)}
            for name, values in (("encode", encode), ("step", step))
        }
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name() if model.device == "cuda" else "cpu",
        "same_as_ctranslate2": same,
        "windows": stages,
    }
