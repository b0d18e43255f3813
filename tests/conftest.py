"""What holds for all tests, and the stock models that some of them need."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import LoudnessVad
from wyoming_whisper.errors import ModelError
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings

# A slow or busy machine is no failure: no test here asserts a wall-clock time.
settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("long", settings.get_profile("default"), max_examples=10_000)
settings.load_profile("default")

STOCK = Path(__file__).parent.parent / ".models"
"""Where script/models puts them."""


@pytest.fixture
def _hear_loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is loud for speech, without a model of it."""
    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", LoudnessVad)


@pytest.fixture
def _without_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take audio that comes faster than anybody speaks for a speaker's nonetheless."""
    monkeypatch.setattr(
        "wyoming_whisper.utterance.utterance.Utterance.MAX_AHEAD_SECONDS", float("inf")
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"stock_base", "stock_tiny_en"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("stock")


@pytest.fixture(scope="session")
def stock_base() -> Path:
    """The folder of the stock model base."""
    return _stock("base")


@pytest.fixture(scope="session")
def stock_tiny_en() -> Path:
    """The folder of the stock model tiny.en."""
    return _stock("tiny.en")


def _stock(name: str) -> Path:
    try:
        return ModelStore(Settings(data_dir=(STOCK,), local_files_only=True)).find(name)
    except ModelError as error:
        pytest.fail(f"this test needs the stock model {name}, which script/models fetches: {error}")
