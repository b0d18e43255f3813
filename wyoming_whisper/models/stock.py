"""The stock models by name, and which names mean the same weights, or the model that runs.

Programs have a model's name built in, or let their user choose from a fixed list: OpenAI's own
names, the repository that another server loads, the bare size. Each of those is answered where it
names the weights that run here; OpenAI's names, which no other server has either, always are.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ..whisper.tokenizer import LANGUAGES

AUTO = "auto"
ALIAS = "whisper-1"
"""OpenAI's name for Whisper, which some programs always ask for."""
Layout = Literal["ctranslate2", "huggingface"]
"""How a model's files are laid out: for faster-whisper and our engines, or as transformers has
them, for TensorRT-LLM. A name stands for another repository in each."""


@dataclass(frozen=True)
class StockModel:
    """A model by the name that faster-whisper or the official add-on gives it."""

    name: str
    repo: str
    """owner/name on the hub."""
    download_mb: int
    """About; what is really needed is asked of the hub before a download."""
    languages: str
    """What it was trained to understand: "en", "multilingual" or "multilingual+yue"."""
    n_mels: int = 80
    alias_of: str | None = None
    """The name under which it is listed, if not this one."""

    @property
    def download_bytes(self) -> int:
        return self.download_mb * 1_000_000

    @property
    def weights_name(self) -> str:
        """The name that it shares with what has the same weights in other types."""
        return (self.alias_of or self.name).removesuffix("-int8")

    @property
    def size(self) -> int:
        """How large it is among Whisper's sizes: the larger, the better it hears."""
        sizes = ("tiny", "base", "small", "medium", "turbo", "large")
        return next(i for i, size in enumerate(sizes) if re.search(rf"\b{size}\b", self.name))

    def repo_in(self, layout: Layout) -> str:
        """Return owner/name of its weights in this layout."""
        if layout == "ctranslate2":
            return self.repo
        name = self.weights_name
        if name.startswith("distil-"):
            return f"distil-whisper/{name}"
        openai_names = {"large-v1": "large", "turbo": "large-v3-turbo"}
        return f"openai/whisper-{openai_names.get(name, name)}"

    @staticmethod
    def named(name: str) -> StockModel | None:
        """Return the one of a name in any case; the official server also takes `base.int8`."""
        name = re.sub(r"\.int8$", "-int8", name, flags=re.IGNORECASE)
        return STOCK_MODELS.get(name) or STOCK_MODELS.get(name.lower())

    @classmethod
    def languages_of(cls, name: str) -> tuple[str, ...]:
        """Return Whisper's codes of the languages that any model of this name understands."""
        stock = cls.named(name)
        is_english = re.search(r"\.en\b", name.rstrip("/").rpartition("/")[2])
        if is_english or (stock is not None and stock.languages == "en"):
            return ("en",)
        has_yue = stock.languages.endswith("+yue") if stock else re.search(r"v3|turbo", name)
        return tuple(code for code in LANGUAGES if has_yue or code != "yue")

    @classmethod
    def are_same(cls, name: str, other: str) -> bool:
        """Whether two names or repositories are of the same stock weights."""
        stock = cls._weights_names().get(name.lower())
        return stock is not None and stock == cls._weights_names().get(other.lower())

    @classmethod
    def is_meant(cls, name: str, model: str) -> bool:
        """Whether a program that asks for `name` means `model`: a name or repository, or a
        folder's.

        Who sets `auto` leaves the choice to the server: then it is whatever stock model is named.

        >>> StockModel.is_meant("Systran/faster-whisper-base", "base")
        True
        >>> StockModel.is_meant("small", "base")
        False
        """
        # Names of models that OpenAI alone has, and their dated versions. Not the one that tells
        # speakers apart (gpt-4o-transcribe-diarize), since nothing here does.
        is_hosted = re.fullmatch(r"whisper-1|gpt-4o(-mini)?-transcribe(-\d{4}-\d{2}-\d{2})?", name)
        if is_hosted or name == model or cls.are_same(name, model):
            return True
        return model == AUTO and name.lower() in cls._weights_names()

    @staticmethod
    @cache
    def _weights_names() -> dict[str, str]:
        """Return name or repository of stock weights, in small letters -> their one name."""
        repositories, names = {}, {}
        for model in STOCK_MODELS.values():
            canonical = model.weights_name
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


STOCK_MODELS: dict[str, StockModel] = {
    entry["name"]: StockModel(**entry)
    for entry in json.loads(Path(__file__).with_name("stock.json").read_text(encoding="utf-8"))
}
"""By name. What was distilled on English alone is English, whatever its vocabulary says."""


def without_address(name: str) -> str:
    """Return owner/name of a repository's address on the hub; any other name as it is.

    >>> without_address("https://huggingface.co/Systran/faster-whisper-base")
    'Systran/faster-whisper-base'
    """
    address = re.fullmatch(
        r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#\s]+/[^/?#\s]+)"
        r"(?:/(?:tree|blob)/main(?:/[^?#\s]*)?)?/?(?:[?#]\S*)?",
        name.strip(),
        re.IGNORECASE,
    )
    return address[1] if address else name
