"""Whether a model in Hugging Face's layout is the model that CTranslate2 has.

`python -m benchmarks.huggingface FOLDER --model NAME`, FOLDER being what `wyoming-whisper engine
export --layout huggingface` wrote: transformers loads it, in float32, and hears the clips of the
selftest. Its logits are compared with those of our ONNX graphs, its tokens with CTranslate2's;
then it transcribes by itself, with its own spectrogram and search, as the folder's files say.

It needs torch and transformers, which are no dependency of anything here: install them into an
environment of their own, with this package.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from wyoming_whisper.backends.pipeline import decoding_options
from wyoming_whisper.commands.selftest.cases import NOISE, Case, make_cases, sounds
from wyoming_whisper.commands.selftest.compare import MAX_NEW_TOKENS, hear
from wyoming_whisper.commands.selftest.reference import open_reference
from wyoming_whisper.commands.selftest.report import Heard
from wyoming_whisper.engine.checkpoint import read
from wyoming_whisper.engine.graphs import write_graphs
from wyoming_whisper.engine.session import OnnxSession
from wyoming_whisper.models import WEIGHTS, suppressed_begin
from wyoming_whisper.settings import Settings
from wyoming_whisper.whisper.audio import N_FRAMES, SAMPLE_RATE, Array
from wyoming_whisper.whisper.search import SLOTS

MAX_LOGITS_APART = 1e-3
"""In float32. Logits reach about 20; two runtimes add in different order."""


@dataclass(frozen=True)
class Row:
    """One clip."""

    clip: str
    window_seconds: float
    tokens: int
    same_tokens: bool
    logits_apart: float
    """Largest difference of any logit, after the prompt and after each token of the text."""


class Transformers:
    """The model as transformers has it."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        self._torch = torch
        transformers.logging.disable_progress_bar()
        model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        self.model = model.eval()
        arguments = inspect.signature(self.model.model.encoder.layers[0].forward).parameters
        self._masks = sum(name.endswith("_mask") for name in arguments)  # two before 5.0
        self.processor: Any = transformers.AutoProcessor.from_pretrained(folder)
        self.versions = f"transformers {transformers.__version__}, torch {torch.__version__}"

    def logits(self, mel: Array, tokens: Sequence[int]) -> Array:
        """Return what comes after each of `tokens`, shape = (n_tokens, n_vocab)."""
        torch = self._torch
        with torch.inference_mode():
            features = self._encode(torch.from_numpy(mel)[None])
            output = self.model(
                encoder_outputs=(features,), decoder_input_ids=torch.tensor([list(tokens)])
            )
        found: Array = output.logits[0].numpy()
        return found

    def _encode(self, mel: Any) -> Any:
        """Return the encoder's output; transformers itself takes 30 s and nothing else."""
        encoder = self.model.model.encoder
        gelu = self._torch.nn.functional.gelu
        x = gelu(encoder.conv2(gelu(encoder.conv1(mel)))).permute(0, 2, 1)
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        if mel.shape[-1] == N_FRAMES:
            return encoder(mel).last_hidden_state
        for layer in encoder.layers:
            out = layer(x, *[None] * self._masks)
            x = out[0] if isinstance(out, tuple) else out
        return encoder.layer_norm(x)

    def greedy(self, mel: Array, prompt: Sequence[int], never: Sequence[int]) -> list[int]:
        """Return the likeliest tokens, by the rules of generation_config.json."""
        config = self.model.generation_config
        tokens = list(prompt)
        while len(tokens) < len(prompt) + MAX_NEW_TOKENS:
            logits = self.logits(mel, tokens)[-1].copy()
            logits[list(config.suppress_tokens or ())] = -np.inf
            if len(tokens) == len(prompt):
                logits[list(never)] = -np.inf
            tokens.append(int(np.argmax(logits)))
            if tokens[-1] == config.eos_token_id:
                tokens.pop()
                break
        return tokens[len(prompt) :]

    def transcribe(self, samples: Array) -> str:
        """Return what transformers writes when it is left alone."""
        mel = self.processor.feature_extractor(
            samples, sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).input_features
        language = {"language": "en", "task": "transcribe"}
        multilingual = self.model.generation_config.is_multilingual
        found = self.model.generate(mel, **(language if multilingual else {}))
        text: str = self.processor.tokenizer.decode(found[0], skip_special_tokens=True)
        return " ".join(text.split())


def compare(theirs: Transformers, source: Path, settings: Settings) -> list[Row]:
    """Hear the clips with all three; return what each gave."""
    context = decoding_options(settings, source, beam_size=1).audio_context
    with open_reference(source) as reference:
        tokenizer = reference.tokenizer
        cases = make_cases(reference.inference.n_mels, tokenizer, context)
        heard = [hear(reference.inference, case, tokenizer) for case in cases]
    with tempfile.TemporaryDirectory() as graphs:
        write_graphs(read(source / WEIGHTS), Path(graphs), "float32")
        session = OnnxSession(Path(graphs), threads=1)
        rows = [
            _row(theirs, session, case, found, suppressed_begin(source))
            for case, found in zip(cases, heard, strict=True)
        ]
        session.close()
    return rows


def _row(
    theirs: Transformers, session: OnnxSession, case: Case, heard: Heard, never: Sequence[int]
) -> Row:
    tokens = [*case.prompt, *heard.tokens]
    found = theirs.logits(case.mel, tokens)[len(case.prompt) - 1 :]
    slots = next(n for n in SLOTS if n >= len(tokens))
    cache = session.open_cache(session.encode(case.mel), 1, slots)
    ours = []
    for n in range(len(case.prompt), len(tokens) + 1):
        start = 0 if n == len(case.prompt) else n - 1
        step = session.step(cache, np.array([tokens[start:n]], np.int32), start, session.bias([]))
        ours.append(step.logits()[0].copy())
    n_vocab = found.shape[1]  # CTranslate2's may have an empty token more
    apart = np.abs(np.array(ours)[:, :n_vocab] - found).max()
    same = tuple(theirs.greedy(case.mel, case.prompt, never)) == heard.tokens
    return Row(case.name, case.mel.shape[1] / 100, len(heard.tokens), same, float(apart))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    models.add_model(parser)  # what it was exported from
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    settings = Settings(model=str(arguments.model.resolve()))
    theirs = Transformers(arguments.folder)
    rows = compare(theirs, arguments.model, settings)
    clips = {name: samples for name, samples in sounds().items() if name != NOISE}
    texts = {said: theirs.transcribe(samples) for said, samples in clips.items()}
    if arguments.json:
        told = {"rows": [dataclasses.asdict(row) for row in rows], "texts": texts}
        print(json.dumps(told, indent=1))
    else:
        print(f"{theirs.versions}\n")
        print("| clip | window | tokens | same as CTranslate2's | logits apart |")
        print("| --- | --- | --- | --- | --- |")
        for row in rows:
            same = "yes" if row.same_tokens else "NO"
            window, apart = f"{row.window_seconds:.0f} s", f"{row.logits_apart:.1e}"
            print(f"| {row.clip} | {window} | {row.tokens} | {same} | {apart} |")
        print("\nby itself:", *(f"{text!r}" for text in texts.values()))
    good = all(row.same_tokens and row.logits_apart < MAX_LOGITS_APART for row in rows)
    return 0 if good and any(row.tokens for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
