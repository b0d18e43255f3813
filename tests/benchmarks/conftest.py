"""Benchmarks tried out: with the tests' own model, whatever stock model they ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.lib import models
from tests.support import HOME_EN


@pytest.fixture(autouse=True, scope="session")
def no_stock_weights() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "stock", lambda _: HOME_EN)
        yield
