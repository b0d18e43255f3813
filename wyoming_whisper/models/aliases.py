"""Which names of models mean the same weights, and which mean the model that runs.

Programs have a model's name built in, or let their user choose from a fixed list: OpenAI's own
names, the repository that another server loads, the bare size. Each of those is answered where it
names the weights that run here; OpenAI's names, which no other server has either, always are.
"""

from __future__ import annotations

import re

from .known import AUTO, KNOWN_MODELS, KnownModel

ALIAS = "whisper-1"
"""OpenAI's name for Whisper, which some programs always ask for."""

HOSTED = re.compile(r"whisper-1|gpt-4o(-mini)?-transcribe(-\d{4}-\d{2}-\d{2})?")
"""Names of models that OpenAI alone has, and their dated versions. Not the one that tells speakers
apart (gpt-4o-transcribe-diarize), since nothing here does."""


def _canonical(model: KnownModel) -> str:
    return (model.alias_of or model.name).removesuffix("-int8")


def _stock_names() -> dict[str, str]:
    """Return name or repository of stock weights, in small letters -> their one name."""
    repositories, names = {}, {}
    for model in KNOWN_MODELS.values():
        canonical = _canonical(model)
        for repository in (
            model.repo,
            model.repo_in("huggingface"),
            f"guillaumekln/faster-whisper-{model.name}",  # Systran's until 2023
            f"deepdml/faster-whisper-{model.name}-ct2",
        ):
            repositories[repository.lower()] = canonical
        for name in (model.name, f"whisper-{model.name}", f"faster-whisper-{model.name}"):
            names[name] = canonical
    without_owner = {name.partition("/")[2]: model for name, model in repositories.items()}
    # openai/whisper-large are the first weights of this size, but whisper-large are the last.
    return without_owner | repositories | names


_STOCK = _stock_names()


def is_same_stock(name: str, other: str) -> bool:
    """Whether two names or repositories are of the same stock weights."""
    stock = _STOCK.get(name.lower())
    return stock is not None and stock == _STOCK.get(other.lower())


def is_same_model(name: str, model: str) -> bool:
    """Whether a program that asks for `name` means `model`: a name or repository, or a folder's.

    Who sets `auto` leaves the choice to the server: then it is whatever stock model is named.

    >>> is_same_model("Systran/faster-whisper-base", "base"), is_same_model("small", "base")
    (True, False)
    """
    if HOSTED.fullmatch(name) or name == model or is_same_stock(name, model):
        return True
    return model == AUTO and name.lower() in _STOCK
