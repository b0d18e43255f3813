"""The torch model and what CTranslate2 makes of it."""

from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch

from training import export
from training.model import Shape, Whisper
from training.muon import Muon, orthogonalised
from training.tokens import Vocabulary, train
from training.train import greedy

from .test_tokens import SENTENCES


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(train(SENTENCES, size=400))


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary) -> Any:
    torch.manual_seed(0)
    made = Whisper(Shape(vocabulary.size), vocabulary.timestamp)
    with torch.no_grad():
        for p in made.parameters():  # untrained weights say nothing; louder ones say something
            p.mul_(2.0)
    return made.eval()


@pytest.fixture(scope="module")
def folder(model: Any, vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    state = {
        "model": model.state_dict(),
        "average": dict(model.named_parameters()),
        "step": 12,
        "passed": 60.0,
    }
    torch.save(state, work / "checkpoint.pt")
    weights = export.Weights(work / "checkpoint.pt")
    export.export(weights, vocabulary, work / "model", "float32")
    return work / "model"


def test_ctranslate2_decodes_what_torch_decodes(
    model: Any, vocabulary: Vocabulary, folder: Path
) -> None:
    loaded = ctranslate2.models.Whisper(str(folder), compute_type="float32")
    assert loaded.is_multilingual
    mel = np.random.default_rng(1).standard_normal((1, 80, 300)).astype(np.float32)
    encoded = np.array(loaded.encode(ctranslate2.StorageView.from_array(mel), to_cpu=True))
    with torch.inference_mode():
        expected = model.encode(torch.from_numpy(mel)).numpy()
    np.testing.assert_allclose(encoded, expected, atol=2e-4)
    result = loaded.generate(
        ctranslate2.StorageView.from_array(mel),
        [vocabulary.prompt(False)],
        beam_size=1,
        max_length=52,
        suppress_blank=False,
        suppress_tokens=[],
    )[0]
    said = vocabulary.decode(result.sequences_ids[0])
    assert said == greedy(model, torch.from_numpy(mel), vocabulary, False)[0]


def test_the_folder_has_all_a_server_needs(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "model.bin",
        "preprocessor_config.json",
        "tokenizer.json",
        "vocabulary.json",
        "wyoming_whisper.json",
    }


def test_calibrated_facts_survive_an_export(
    model: Any, vocabulary: Vocabulary, folder: Path
) -> None:
    facts = folder / export.FACTS
    facts.write_text('{"min_avg_logprob": -0.42}', encoding="utf-8")
    export.export(export.Weights(folder.parent / "checkpoint.pt"), vocabulary, folder, "float16")
    assert '"min_avg_logprob": -0.42' in facts.read_text(encoding="utf-8")


def test_orthogonalised_matrices_keep_directions_and_lose_scales() -> None:
    stack = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(stack))
    assert 0.5 < float(values.min()) < float(values.max()) < 1.5


def test_muon_follows_the_gradient() -> None:
    matrix = torch.nn.Parameter(torch.randn(8, 32, generator=torch.Generator().manual_seed(0)))
    muon = Muon([matrix])
    losses = []
    for _ in range(60):
        loss = matrix.square().sum()
        losses.append(loss.item())
        matrix.grad = None
        loss.backward()
        muon.step(0.02, 0.001)
    assert losses[-1] < losses[0] / 4
