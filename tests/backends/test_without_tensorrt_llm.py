"""TensorRT-LLM is a folder and its selftest: without them all else imports, and answers."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import read_event, write_event

from tests.support import AUDIO, HOME_EN, TIMEOUT_SECONDS, clips, words
from wyoming_whisper.commands.client import read_audio

WITHOUT = """
import importlib, pkgutil, sys
from pathlib import Path

FOLDER = "wyoming_whisper.backends.tensorrt_llm"
SELFTEST = "wyoming_whisper.commands.selftest.llm"


class Blocked:
    def find_spec(self, name, *_):
        if name in (FOLDER, SELFTEST) or name.startswith(FOLDER + "."):
            raise ModuleNotFoundError(f"{name} was removed", name=name)


sys.meta_path.insert(0, Blocked())
import wyoming_whisper

for module in pkgutil.walk_packages(wyoming_whisper.__path__, "wyoming_whisper.", lambda _: None):
    if not module.name.startswith((FOLDER, SELFTEST)):
        importlib.import_module(module.name)

from wyoming_whisper.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


def test_all_but_tensorrt_llm_works_without_its_folder(tmp_path: Path) -> None:
    said = BytesIO()
    clip = clips("clean")[1]
    samples = read_audio(AUDIO / clip.file)
    audio = (samples * 32767).astype(np.int16).tobytes()
    for event in (
        Transcribe(language="en").event(),
        AudioStart(16000, 2, 1).event(),
        AudioChunk(16000, 2, 1, audio).event(),
        AudioStop().event(),
    ):
        write_event(event, said)
    command = (sys.executable, "-W", "ignore", "-c", WITHOUT)
    done = subprocess.run(
        [*command, "--uri", "stdio://", "--model", HOME_EN, "--data-dir", tmp_path],
        input=said.getvalue(),
        capture_output=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr.decode()
    answers = BytesIO(done.stdout)
    events = iter(lambda: read_event(answers), None)
    (transcript,) = [event for event in events if event and Transcript.is_type(event.type)]
    assert words(Transcript.from_event(transcript).text) == words(clip.text)
