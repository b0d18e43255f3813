"""A CTranslate2 folder asked as our server and as a stock one asks it, for measuring."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper.feature_extractor import FeatureExtractor

from training.augment import Audio
from training.features import RATE, WINDOW_FRAMES
from training.tokens import Vocabulary

TRAIL_SECONDS = 0.4  # silence that a tight window keeps after speech
MIN_FRAMES = 100
MAX_TOKENS = 200


@dataclass(frozen=True)
class Heard:
    """A transcript and how sure the model is of it."""

    text: str
    avg_logprob: float
    no_speech_prob: float


class Recogniser:
    """One model, one window at a time."""

    def __init__(self, folder: Path, compute_type: str = "int8", threads: int = 1) -> None:
        self.vocabulary = Vocabulary.load(folder / "tokenizer.json")
        self._model = ctranslate2.models.Whisper(
            str(folder), compute_type=compute_type, intra_threads=threads
        )
        self._features = FeatureExtractor(feature_size=80)

    def hear(
        self,
        audio: Audio,
        full: bool = False,
        timestamps: bool = False,
        names: Sequence[str] = (),
        beam: int = 1,
    ) -> Heard:
        """Transcribe at most 30 s, in a window that fits or in a full one."""
        prompt = self._prompt(timestamps, names)
        result: Any = self._model.generate(
            ctranslate2.StorageView.from_array(self._mel(audio, full)),
            [prompt],
            beam_size=beam,
            max_length=min(448, len(prompt) + MAX_TOKENS),
            return_scores=True,
            return_no_speech_prob=True,
            max_initial_timestamp_index=50,
        )[0]
        tokens = result.sequences_ids[0]
        total = result.scores[0] * len(tokens)  # the length penalty is 1
        text = self.vocabulary.decode(tokens)
        return Heard(text, total / (len(tokens) + 1), result.no_speech_prob)

    def _prompt(self, timestamps: bool, names: Sequence[str]) -> list[int]:
        prompt = self.vocabulary.prompt(timestamps)
        if names:
            previous = self.vocabulary.encode(", ".join(names))
            prompt = [self.vocabulary.id("<|startofprev|>"), *previous, *prompt]
        return prompt

    def _mel(self, audio: Audio, full: bool) -> npt.NDArray[np.float32]:
        mel = self._features(audio)
        frames = WINDOW_FRAMES if full else max(MIN_FRAMES, mel.shape[1] // 2 * 2)
        mel = np.pad(mel[:, :frames], ((0, 0), (0, max(0, frames - mel.shape[1]))))
        return np.ascontiguousarray(mel[None], np.float32)


def tight(audio: Audio) -> Audio:
    """Speech without silence around it, as the server would cut it."""
    lead = np.zeros(int(0.2 * RATE), np.float32)
    return np.concatenate([lead, audio, np.zeros(int(TRAIL_SECONDS * RATE), np.float32)])
