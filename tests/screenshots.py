"""Draw the page for docs/images: python -m tests.screenshots. Speaks to a server for two minutes.

Needs Chromium and the extras test and browser, as tests/web/test_page.py does, and a stock model,
which script/models fetches. `--clips DIR` says other recordings than those of tests/audio.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from playwright.async_api import Browser, ViewportSize
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStop

from tests.browser import browsing, opened
from tests.support import AUDIO, Client, run_server
from tests.web.test_web import free_port, until_open
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.status import Status

IMAGES = Path(__file__).parent.parent / "docs" / "images"
N_COMMANDS = 24
CHUNK_SECONDS = 0.032
SHOWN = (("page", "light"), ("page", "dark"), ("page-phone", "light"), ("page-phone", "dark"))

VIEWPORTS = {
    "page": ViewportSize(width=1120, height=800),
    "page-phone": ViewportSize(width=390, height=844),
}


async def speak(folder: Path, clip: Path, silence_seconds: float) -> None:
    """Say a clip as fast as it was spoken, and then nothing for a while."""
    silence = np.zeros(round(silence_seconds * 16_000), np.float32)
    samples = np.concatenate([read_audio(clip), silence])
    audio = (samples * 32767).astype("<i2").tobytes()
    n_bytes = round(CHUNK_SECONDS * 32_000)
    async with Client(folder) as client:
        await client.send(Transcribe(language="en").event())
        for start in range(0, len(audio), n_bytes):
            await client.send(AudioChunk(16_000, 2, 1, audio[start : start + n_bytes]).event())
            await asyncio.sleep(CHUNK_SECONDS)
        await client.send(AudioStop().event())
        await client.transcript()


async def draw(browser: Browser, url: str, name: str, scheme: str, clip: Path) -> None:
    options = {"viewport": VIEWPORTS[name], "color_scheme": scheme, "reduced_motion": "reduce"}
    async with opened(browser, url, **options) as page:
        await page.get_by_label("Choose a clip").set_input_files(clip)
        await page.locator("#answer .said").wait_for()
        await page.get_by_role("row").nth(1).wait_for()
        await page.screenshot(path=IMAGES / f"{name}-{scheme}.png", full_page=True)


async def main(model: str, data_dir: Path, clips: list[Path]) -> None:
    spoken = islice(cycle(clips), N_COMMANDS)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        status = Status()
        opener = partial(open_transcriber, status=status)
        options = {"model": model, "data_dir": (data_dir,), "http_port": port, "http_text": True}
        async with run_server(Path(folder), opener, status, **options):
            await until_open(port)
            for number, clip in enumerate(spoken):
                # Home Assistant waits for 0.7 s of silence; now and then somebody presses a button.
                await speak(Path(folder), clip, 0.15 if number % 6 == 5 else 0.7)
            async with browsing() as browser:
                for (name, scheme), clip in zip(SHOWN, cycle(clips)):
                    await draw(browser, f"http://127.0.0.1:{port}/", name, scheme, clip)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots")
    parser.add_argument("--model", default="base", help="default: base")
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".models"), help="where it is; default: .models"
    )
    parser.add_argument("--clips", type=Path, default=AUDIO, help="default: tests/audio")
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    IMAGES.mkdir(parents=True, exist_ok=True)
    arguments = _parser().parse_args()
    asyncio.run(main(arguments.model, arguments.data_dir, sorted(arguments.clips.glob("*.flac"))))
