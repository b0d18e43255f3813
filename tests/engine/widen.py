"""home-en in the shape of a stock model.

Every vector is tiled r times and every matrix tiled and divided by r along its input, which layer
norms do not notice; heads are copied; more layers are added whose outputs are zero; the vocabulary
is filled up with tokens that never win. The widened model has the official shape and writes what
`home-en` writes. Sizes: see SIZES.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ctranslate2.specs import whisper_spec

from wyoming_whisper.engine.checkpoint import Checkpoint

HEAD = 64  # width of a head in every Whisper
OFFICIAL_VOCABULARY = 51865
SHIFT = 0.05  # small beside what the norm gives, so that int8 rounds as it would without
NEVER = -40.0  # logit of the tokens that fill the vocabulary: fifty thousand of them weigh nothing
COPIED = ("tokenizer.json", "preprocessor_config.json", "wyoming_whisper.json")

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """An official Whisper's shape."""

    width: int
    layers: int
    """Of the encoder, and of the decoder."""


SIZES = {
    "tiny": Size(384, 4),
    "base": Size(512, 6),
    "small": Size(768, 12),
    "medium": Size(1024, 24),
    "large": Size(1280, 32),
}


class Widener:
    """Writes a checkpoint's layers, tiled, into a CTranslate2 specification."""

    def __init__(self, checkpoint: Checkpoint, width: int) -> None:
        self._checkpoint = checkpoint
        self.narrow = len(checkpoint["encoder/layer_norm/gamma"])
        self.times, rest = divmod(width, self.narrow)
        if rest or self.times < 2:
            raise ValueError(f"width {width} is not a multiple of {self.narrow}")

    def vector(self, name: str) -> Array:
        """A bias, a norm, or rows of position encodings, tiled."""
        return np.tile(self._checkpoint.weights(name), self.times)

    def norm(self, spec: object, name: str) -> None:
        """A layer norm."""
        spec.gamma = self.vector(f"{name}/gamma")  # type: ignore[attr-defined]
        spec.beta = self.vector(f"{name}/beta")  # type: ignore[attr-defined]

    def linear(self, spec: object, name: str, parts: int = 1, silent: bool = False) -> None:
        """A linear layer made of `parts` side by side; a silent one gives zeros."""
        weight = self._checkpoint.weights(f"{name}/weight")
        bias = self._checkpoint.weights(f"{name}/bias")
        tiled = [
            np.tile(part / self.times, (self.times, self.times)) for part in np.split(weight, parts)
        ]
        wide = np.concatenate(tiled)
        shift = np.concatenate([np.tile(part, self.times) for part in np.split(bias, parts)])
        gain = np.float32(not silent)
        spec.weight, spec.bias = wide * gain, shift * gain  # type: ignore[attr-defined]

    def convolution(self, spec: object, name: str, tiled_input: bool) -> None:
        """One of the two convolutions before the encoder; the first one's input stays as it is."""
        weight, times = self._checkpoint.weights(f"{name}/weight"), self.times
        if tiled_input:
            spec.weight = np.tile(weight / times, (times, times, 1))  # type: ignore[attr-defined]
        else:
            spec.weight = np.tile(weight, (times, 1, 1))  # type: ignore[attr-defined]
        spec.bias = self.vector(f"{name}/bias")  # type: ignore[attr-defined]

    def layers(self, stack: str) -> int:
        """How many layers the narrow encoder or decoder has."""
        names = [*self._checkpoint.variables, *self._checkpoint.aliases]
        return len({n.split("/")[1] for n in names if re.match(stack + r"/layer_\d+/", n)})

    def block(self, spec: object, name: str, silent: bool) -> None:
        """A layer of the encoder or decoder; a silent one adds nothing."""
        attention, ffn = spec.self_attention, spec.ffn  # type: ignore[attr-defined]
        self.norm(attention.layer_norm, f"{name}/self_attention/layer_norm")
        self.linear(attention.linear[0], f"{name}/self_attention/linear_0", 3)
        self.linear(attention.linear[1], f"{name}/self_attention/linear_1", 1, silent)
        self.norm(ffn.layer_norm, f"{name}/ffn/layer_norm")
        self.linear(ffn.linear_0, f"{name}/ffn/linear_0")
        self.linear(ffn.linear_1, f"{name}/ffn/linear_1", 1, silent)

    def cross_attention(self, spec: object, name: str, silent: bool) -> None:
        """The decoder's attention to the audio."""
        self.norm(spec.layer_norm, f"{name}/layer_norm")  # type: ignore[attr-defined]
        linear = spec.linear  # type: ignore[attr-defined]
        self.linear(linear[0], f"{name}/linear_0")
        self.linear(linear[1], f"{name}/linear_1", 2)
        self.linear(linear[2], f"{name}/linear_2", 1, silent)

    def output(self, spec: object, vocabulary: int) -> None:
        """Embeddings, their use as logits, and the norm before them.

        That norm's bias is moved by +shift in the first copy of the width and by -shift in the
        second: a tiled embedding cancels it, and the rows of the added tokens, which are -v and +v
        there and zero elsewhere, make NEVER of it whatever is said.
        """
        embedding = np.tile(self._checkpoint.weights("decoder/embeddings/weight"), (1, self.times))
        gamma, beta = (
            self.vector("decoder/layer_norm/gamma"),
            self.vector("decoder/layer_norm/beta"),
        )
        shift = np.float32(SHIFT * np.abs(gamma).mean() / self.times)
        slope = np.zeros(len(gamma), np.float32)
        slope[: self.narrow], slope[self.narrow : 2 * self.narrow] = 1, -1
        added = slope * np.float32(NEVER / (2 * self.narrow * shift))
        rows = np.tile(added, (vocabulary - len(embedding), 1))
        spec.layer_norm.gamma = gamma / self.times  # type: ignore[attr-defined]
        spec.layer_norm.beta = beta / self.times + shift * slope  # type: ignore[attr-defined]
        spec.embeddings.weight = np.concatenate([embedding, rows])  # type: ignore[attr-defined]
        spec.projection.weight = spec.embeddings.weight  # type: ignore[attr-defined]


def specification(checkpoint: Checkpoint, size: Size, vocabulary: int) -> whisper_spec.WhisperSpec:
    """The widened model."""
    wide = Widener(checkpoint, size.width)
    heads = size.width // HEAD
    spec = whisper_spec.WhisperSpec(size.layers, heads, size.layers, heads)
    wide.convolution(spec.encoder.conv1, "encoder/conv1", False)
    wide.convolution(spec.encoder.conv2, "encoder/conv2", True)
    for name in ("encoder", "decoder"):
        half, have = getattr(spec, name), wide.layers(name)
        rows = checkpoint.weights(f"{name}/position_encodings/encodings")
        half.position_encodings.encodings = np.tile(rows, (1, wide.times))
        if have > size.layers:
            raise ValueError(f"the {name} has {have} layers, more than {size.layers}")
        for number, layer in enumerate(half.layer):
            source, silent = f"{name}/layer_{min(number, have - 1)}", number >= have
            wide.block(layer, source, silent)
            if name == "decoder":
                wide.cross_attention(layer.attention, f"{source}/attention", silent)
    wide.norm(spec.encoder.layer_norm, "encoder/layer_norm")
    spec.decoder.scale_embeddings = False
    wide.output(spec.decoder, vocabulary)
    return spec


def widen(model: Path, size: Size, folder: Path, precision: str = "float16") -> None:
    """Write the folder of a widened model; everything faster-whisper needs is in it."""
    checkpoint = Checkpoint.read(model / "model.bin")
    spec = specification(checkpoint, size, OFFICIAL_VOCABULARY)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    for key in ("suppress_ids", "suppress_ids_begin", "lang_ids", "alignment_heads"):
        setattr(spec.config, key, config[key])
    tokens = json.loads((model / "vocabulary.json").read_text(encoding="utf-8"))
    tokens += [f"<|unused{i}|>" for i in range(OFFICIAL_VOCABULARY - len(tokens))]
    spec.register_vocabulary(tokens)
    spec.validate()
    spec.optimize(quantization=precision)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    for name in COPIED:
        shutil.copyfile(model / name, folder / name)
