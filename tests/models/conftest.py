from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from tests.models.fakes import model_files
from tests.models.hub_standin import HubStandin, serve
from wyoming_whisper.models import mirror
from wyoming_whisper.settings.options import Settings

REPO = "Systran/faster-whisper-tiny"
MODEL_FILES = model_files(weight_bytes=600_000)


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the machine's token nor its proxies, nor a folder named as a model."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    delays = "wyoming_whisper.models.download.HubDownload.RETRY_DELAYS_S"
    monkeypatch.setattr(delays, (0.0, 0.0, 0.0))
    monkeypatch.setattr("wyoming_whisper.models.store.ModelStore.SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(mirror, "MIRRORS", {})  # an index on the network is no part of these tests


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=(tmp_path / "data",))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandin]:
    with serve({REPO: MODEL_FILES}) as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        yield standin
    huggingface_hub.close_session()
