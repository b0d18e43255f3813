"""Speech-to-text server for Home Assistant: the Wyoming protocol in front of Whisper."""

import os as _os

__version__ = "0.1.0"

# Since 1.29 onnxruntime tells Microsoft of every start and session, unless it finds this when it is
# loaded. Here, because nothing of ours runs before. The hub's library does the like.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
_os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# numpy's OpenBLAS has a thread for each core, which goes on spinning for a tenth of a second after
# the one small product of a spectrogram: the encoder, which comes next, took twice as long.
_os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
