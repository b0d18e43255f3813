"""What the user set for every request, and how much the encoder sees."""

from __future__ import annotations

from dataclasses import dataclass, field

from .audio import FRAMES_PER_POSITION, FRAMES_PER_SECOND, N_FRAMES
from .tokenizer import Task

N_TEXT_CTX = 448
MAX_NEW_TOKENS = N_TEXT_CTX // 2


@dataclass(frozen=True)
class AudioContext:
    """How much the encoder sees of utterances shorter than 30 s, in mel frames.

    Without anything set they get the full window. Whisper was trained on 30 s windows; the
    encoder's cost grows faster than the window. Stock weights bear a shorter one with some silence
    behind the speech: whisper.cpp#1855 measured no more errors at length + 128 positions,
    whisper.cpp#1117 loops below 0.3 of the window.
    """

    minimum: int = N_FRAMES
    margin: int = 0
    """Of silence after the audio."""
    retry: bool = True
    """Whether a doubtful text is heard again in the full window."""
    longest: int = N_FRAMES
    """Longer audio is cut at its quietest moments into pieces no longer than this; at N_FRAMES it
    is cut where the model's timestamps say, as Whisper does."""
    multiple: int = FRAMES_PER_POSITION
    """Windows are rounded up to one, as the encoder halves them; larger where the runtime prefers
    few different sizes."""

    @classmethod
    def safe(cls) -> AudioContext:
        """Return what stock weights bear."""
        return cls(minimum=512 * FRAMES_PER_POSITION, margin=128 * FRAMES_PER_POSITION)

    @classmethod
    def frozen(cls) -> AudioContext:
        """Return what stock weights bear with the rest of their window frozen."""
        return cls(minimum=FRAMES_PER_SECOND, margin=FRAMES_PER_SECOND)

    @classmethod
    def trained(cls) -> AudioContext:
        """Return that of weights which were trained on commands, in windows of any length."""
        return cls(minimum=FRAMES_PER_SECOND, retry=False, longest=8 * FRAMES_PER_SECOND)

    def frames(self, audio_frames: int) -> int:
        """Return the window for this much audio."""
        n_frames = max(audio_frames + self.margin, self.minimum)
        return min(n_frames + -n_frames % self.multiple, N_FRAMES)


@dataclass(frozen=True)
class DecodingOptions:
    """What the user set for every request."""

    # what to write
    task: Task = "transcribe"
    initial_prompt: str | None = None
    timestamps: bool = False  # whether the result has segments
    words: bool = False  # whether those have their words' times

    # how to search
    beam_size: int = 5
    best_of: int = 5  # samples when the temperature is above zero

    # when to distrust a result and try the next temperature (the paper's values)
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio_threshold: float = 2.4
    logprob_threshold: float = -1.0
    no_speech_threshold: float = 0.6
    fallback_seconds: float = 5.0  # no further temperature is tried after this long

    # the quality gate: below this mean log-probability nothing is said rather than a guess
    min_avg_logprob: float | None = None

    # how much the encoder sees
    audio_context: AudioContext = field(default_factory=AudioContext)
