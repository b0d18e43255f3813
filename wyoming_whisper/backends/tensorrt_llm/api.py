"""TensorRT-LLM itself: imported where that is possible, its model opened."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine.tensorrt.cuda import Gpu, NoGpuError
from ...errors import EngineError, SettingsError
from ...whisper.audio import FRAMES_PER_POSITION, N_FRAMES
from ...whisper.options import N_TEXT_CTX

if TYPE_CHECKING:
    from ...settings.options import Settings


@dataclass(frozen=True)
class Api:
    """The parts of tensorrt_llm.llmapi that are used, and its version."""

    PACKAGE = "tensorrt_llm"
    FIRST_VERSION = "1.3.0rc24"
    NAMES = ("LLM", "KvCacheConfig", "SamplingParams", "SchedulerConfig")
    """What is used of tensorrt_llm.llmapi, in the order of the fields."""
    NO_USAGE_STATS = ("TRTLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
    """It reports its use to NVIDIA unless one of these is set (tensorrt_llm/usage/usage_lib.py)."""
    AT_ONCE = 16
    """Requests in flight: it batches them as they come."""

    version: str
    llm: Any
    kv_cache_config: Any
    sampling_params: Any
    scheduler_config: Any

    @classmethod
    def find(cls, device: str = "auto") -> tuple[Api, str]:
        """Return the package and the GPU's name. Raises EngineError: what is missing."""
        if device == "cpu":
            raise NoGpuError("--device is cpu")
        gpu = Gpu.all()[0]
        return cls.load(), gpu.name

    @classmethod
    def load(cls) -> Api:
        """Import what is used of TensorRT-LLM. Raises EngineError in one sentence."""
        for name in cls.NO_USAGE_STATS:
            os.environ.setdefault(name, "1")
        try:
            # It greets on stdout, which is not its own.
            with contextlib.redirect_stdout(sys.stderr):
                package = importlib.import_module(cls.PACKAGE)
                llmapi = importlib.import_module(f"{cls.PACKAGE}.llmapi")
        except ModuleNotFoundError as error:
            if error.name != cls.PACKAGE:
                raise EngineError(f"TensorRT-LLM lacks the package {error.name}") from error
            raise EngineError(
                f"the package {cls.PACKAGE} is not installed: "
                "pip install 'wyoming-whisper[tensorrt-llm]'"
            ) from error
        except Exception as error:  # it loads CUDA, MPI and torch, which fail in ways of their own
            raise EngineError(f"TensorRT-LLM can't be imported: {cls.first_line(error)}") from error
        version = str(getattr(package, "__version__", "of unknown version"))
        missing = [name for name in cls.NAMES if not hasattr(llmapi, name)]
        if missing:
            raise EngineError(
                f"TensorRT-LLM {version} has no {missing[0]} in its LLM API; {cls.FIRST_VERSION} "
                "or later is needed"
            )
        return cls(version, *(getattr(llmapi, name) for name in cls.NAMES))

    @staticmethod
    def choose_dtype(settings: Settings) -> str:
        """Return the arithmetic. Raises SettingsError for what TensorRT-LLM's Whisper can't do."""
        if settings.device.startswith("cuda:"):
            raise SettingsError(
                f"--device {settings.device}: TensorRT-LLM takes the first GPU that it sees; "
                "use --device auto, and CUDA_VISIBLE_DEVICES to choose one"
            )
        if settings.compute_type in ("default", "auto"):
            return "float16"  # as Whisper's weights are; bfloat16 would round them
        possible = ("float16", "bfloat16", "float32")
        if settings.compute_type not in possible:
            raise SettingsError(
                f"--compute-type {settings.compute_type} is not possible with TensorRT-LLM: "
                f"it can {', '.join(possible)}"
            )
        return settings.compute_type

    def open(self, path: Path, dtype: str, beam_size: int) -> Any:
        """Return an LLM of the model in folder `path`, as encoder-decoder.md sizes one for Whisper.

        Raises EngineError.
        """
        # Of what is free on the GPU once the weights are there, for keys and values. Its own
        # default is 0.9, on a GPU that others may use; for AT_ONCE requests large-v3 needs 5 GB,
        # turbo less than 1.
        gpu_memory_fraction = 0.3
        max_num_tokens = 8192  # encoded at once: five windows, and what is being written meanwhile
        n_audio_ctx, self_tokens = N_FRAMES // FRAMES_PER_POSITION, N_TEXT_CTX * beam_size
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return self.llm(
                    model=str(path),
                    backend="pytorch",
                    attn_backend="TRTLLM",
                    dtype=dtype,
                    max_batch_size=self.AT_ONCE,
                    max_beam_width=beam_size,
                    max_input_len=n_audio_ctx,
                    max_num_tokens=max_num_tokens,
                    enable_chunked_prefill=False,
                    kv_cache_config=self.kv_cache_config(
                        enable_block_reuse=False,
                        free_gpu_memory_fraction=gpu_memory_fraction,
                        cross_kv_cache_fraction=round(n_audio_ctx / (n_audio_ctx + self_tokens), 2),
                    ),
                    scheduler_config=self.scheduler_config(use_python_scheduler=True),
                )
        except Exception as error:
            raise EngineError(
                f"TensorRT-LLM {self.version} does not open the model (Whisper needs "
                f"{self.FIRST_VERSION} or later): {self.first_line(error)}"
            ) from error

    @staticmethod
    def first_line(error: BaseException) -> str:
        """Return what an error says, for a sentence: its first line; its type where it is empty."""
        text = str(error).strip().partition("\n")[0]
        return text or type(error).__name__
