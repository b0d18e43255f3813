"""Write a checkpoint as a CTranslate2 folder: `python -m training.export --work DIR`.

The folder loads in faster-whisper as any converted Whisper does. Its own facts are in
wyoming_whisper.json; `training.evaluate --calibrate` later sets min_avg_logprob there.
"""

import argparse
import datetime as dt
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ctranslate2.specs import whisper_spec

from training.features import MELS
from training.tokens import Vocabulary

BUNDLED = Path(__file__).parent.parent / "wyoming_whisper" / "bundled" / ".home-en"
FACTS = "wyoming_whisper.json"

Array = npt.NDArray[np.float32]


class Weights:
    """A checkpoint's averaged weights by name."""

    def __init__(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, weights_only=True)
        self._tensors = {**state["model"], **state["average"]}
        self.step, self.minutes = int(state["step"]), state["passed"] / 60

    def __getitem__(self, name: str) -> Array:
        array: Array = self._tensors[name].detach().numpy().astype(np.float32)
        return array

    def layers(self, stack: str) -> int:
        """How many blocks `encoder` or `decoder` has."""
        numbers = {name.split(".")[1] for name in self._tensors if name.startswith(stack + ".")}
        return len(numbers)


def specification(weights: Weights, vocabulary: Vocabulary) -> whisper_spec.WhisperSpec:
    """The model as CTranslate2 describes it."""
    width = weights["embedding.weight"].shape[1]
    layers = weights.layers("encoder"), weights.layers("decoder")
    spec = whisper_spec.WhisperSpec(layers[0], width // 64, layers[1], width // 64)
    _encoder(spec.encoder, weights)
    _decoder(spec.decoder, weights, vocabulary.id("<|startoflm|>"))
    space = vocabulary.tokenizer.token_to_id("Ġ")
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [space, vocabulary.eot]
    spec.config.lang_ids = [vocabulary.id("<|en|>")]
    spec.config.alignment_heads = [(layers[1] - 1, head) for head in range(width // 64)]
    # CTranslate2 knows a multilingual model, which is asked with language and task tokens,
    # by an empty token.
    names = [vocabulary.tokenizer.id_to_token(i) for i in range(vocabulary.size)]
    spec.register_vocabulary([*names, ""])
    return spec


def _encoder(spec: whisper_spec.WhisperEncoderSpec, weights: Weights) -> None:
    for name in ("conv1", "conv2"):
        getattr(spec, name).weight = weights[f"{name}.weight"]
        getattr(spec, name).bias = weights[f"{name}.bias"]
    spec.position_encodings.encodings = weights["position_encodings"]
    _norm(spec.layer_norm, weights, "encoder_norm")
    for number, layer in enumerate(spec.layer):
        _block(layer, weights, f"encoder.{number}")


def _decoder(spec: object, weights: Weights, never: int) -> None:
    """`never` is a token that is never the likeliest: the empty token becomes its twin."""
    embedding = weights["embedding.weight"]
    rows = np.concatenate([embedding, embedding[never : never + 1]])
    spec.embeddings.weight = rows  # type: ignore[attr-defined]
    spec.projection.weight = spec.embeddings.weight  # type: ignore[attr-defined]
    spec.position_encodings.encodings = weights["positions"]  # type: ignore[attr-defined]
    _norm(spec.layer_norm, weights, "decoder_norm")  # type: ignore[attr-defined]
    for number, layer in enumerate(spec.layer):  # type: ignore[attr-defined]
        _block(layer, weights, f"decoder.{number}")
        _norm(layer.attention.layer_norm, weights, f"decoder.{number}.cross_norm")
        _attention(layer.attention, weights, f"decoder.{number}.cross", cross=True)


def _block(layer: object, weights: Weights, name: str) -> None:
    attention, ffn = layer.self_attention, layer.ffn  # type: ignore[attr-defined]
    _norm(attention.layer_norm, weights, f"{name}.attention_norm")
    _attention(attention, weights, f"{name}.attention", cross=False)
    _norm(ffn.layer_norm, weights, f"{name}.mlp_norm")
    _linear(ffn.linear_0, weights, [f"{name}.mlp_in"])
    _linear(ffn.linear_1, weights, [f"{name}.mlp_out"])


def _attention(spec: object, weights: Weights, name: str, cross: bool) -> None:
    query, key, value, out = (f"{name}.{part}" for part in ("query", "key", "value", "out"))
    groups = [[query], [key, value], [out]] if cross else [[query, key, value], [out]]
    for linear, names in zip(spec.linear, groups, strict=True):  # type: ignore[attr-defined]
        _linear(linear, weights, names)


def _linear(spec: object, weights: Weights, names: list[str]) -> None:
    """Several linear layers side by side; a key's missing bias is zero."""
    matrices = [weights[f"{name}.weight"] for name in names]
    biases = [
        np.zeros(len(matrix), np.float32) if name.endswith(".key") else weights[f"{name}.bias"]
        for name, matrix in zip(names, matrices, strict=True)
    ]
    spec.weight = np.concatenate(matrices)  # type: ignore[attr-defined]
    spec.bias = np.concatenate(biases)  # type: ignore[attr-defined]


def _norm(spec: object, weights: Weights, name: str) -> None:
    spec.gamma = weights[f"{name}.weight"]  # type: ignore[attr-defined]
    spec.beta = weights[f"{name}.bias"]  # type: ignore[attr-defined]


def export(weights: Weights, vocabulary: Vocabulary, folder: Path, precision: str) -> None:
    """Write the whole folder; facts that are there already are kept where not made here."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = specification(weights, vocabulary)
    spec.validate()
    spec.optimize(quantization=precision)
    spec.save(str(folder))
    vocabulary.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write(folder / "preprocessor_config.json", {"feature_size": MELS})
    known = folder / FACTS
    facts = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    facts = {"languages": ["en"], "tight_window": True, "min_avg_logprob": -1.0, **facts}
    facts |= {
        "license": "MIT",
        "trained": dt.date.today().isoformat(),
        "steps": weights.step,
        "minutes": round(weights.minutes),
        "voices": "espeak-ng, flite, festival: synthetic speech only",
    }
    _write(known, facts)


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Export the averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with checkpoint.pt")
    parser.add_argument("--output", type=Path, default=BUNDLED)
    parser.add_argument("--precision", default="float16", choices=("float32", "float16", "int8"))
    args = parser.parse_args()
    vocabulary = Vocabulary.load(args.work / "tokenizer.json")
    weights = Weights(args.work / "checkpoint.pt")
    export(weights, vocabulary, args.output, args.precision)
    size = sum(path.stat().st_size for path in args.output.iterdir())
    print(f"{args.output.name}: step {weights.step}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
