"""The web page in a real browser: what a user sees, hears, records, and reaches by keyboard."""

from __future__ import annotations

import asyncio
import re
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soxr
from aiohttp import ClientSession, web
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.audio.test_recording import made
from tests.browser import browsing, opened
from tests.support import (
    AUDIO,
    HOME_EN,
    Client,
    FakeTranscriber,
    LoudnessVad,
    clips,
    loud,
    run_server,
    words,
)
from tests.web.test_web import free_port, until_open
from wyoming_whisper.backends import open_transcriber
from wyoming_whisper.commands.client import read_audio
from wyoming_whisper.serving.server import Server
from wyoming_whisper.transcriber import Samples

pytestmark = pytest.mark.browser

SURE = next(clip for clip in clips("clean") if words(clip.text)[:2] == ["turn", "off"])
DESKTOP = {"width": 1100, "height": 800}
PHONE = {"width": 360, "height": 740}
PATIENCE_MS = 30_000  # far more than anything here takes; only a hang reaches it

expect.set_options(timeout=PATIENCE_MS)


def write_wav(path: Path, samples: Samples, rate: int = 48_000, channels: int = 2) -> Path:
    """Write a clip as browsers and phones do, at another rate and in stereo."""
    resampled = np.repeat(soxr.resample(samples, 16_000, rate), channels)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((resampled * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """The real thing: the bundled model behind the page."""
    port = free_port()
    async with run_server(
        tmp_path, open_transcriber, model=str(HOME_EN), http_port=port, http_text=True
    ) as server:
        await until_open(port)
        await asyncio.wrap_future(server.scheduler.opened)
        yield server


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.settings.http_port}/"


async def said(page: Page) -> str:
    """Return the text that appears after a clip."""
    await expect(page.locator("#answer .said, #answer .error")).to_be_visible()
    return await page.locator("#answer p").first.inner_text()


@pytest.mark.parametrize("kind", ["wav", "flac"])
async def test_a_clip_is_uploaded_and_its_text_is_read(
    server: Server, tmp_path: Path, kind: str
) -> None:
    clip = AUDIO / SURE.file
    if kind == "wav":
        clip = write_wav(tmp_path / "clip.wav", read_audio(clip))
    async with browsing() as browser, opened(browser, url_of(server)) as page:
        await expect(page.locator("#phase")).to_have_text("Ready")
        await page.get_by_label("Choose a clip").set_input_files(clip)
        assert words(await said(page)) == words(SURE.text)
        answer = page.locator("#answer")
        await expect(answer).to_contain_text("English")
        await expect(answer).to_contain_text(re.compile(r"encode \d.*ms"))
        row = page.get_by_role("table").get_by_role("row").nth(1)
        await expect(row).to_contain_text(await said(page))
        await expect(page.get_by_role("img", name="of the last 1 commands")).to_be_visible()


async def test_what_is_spoken_into_the_microphone_is_read(server: Server, tmp_path: Path) -> None:
    samples = read_audio(AUDIO / SURE.file)
    silence = np.zeros(32_000, np.float32)
    spoken = np.concatenate([silence[:8_000], samples, silence])
    # Chromium plays it again and again; a recording of one round holds the command whole, or its
    # end and its start. Two rounds hold it whole at any rate.
    microphone = write_wav(tmp_path / "spoken.wav", spoken, channels=1)
    seconds = 2 * len(spoken) / 16_000
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    )
    async with browsing(*flags) as browser, opened(browser, url_of(server)) as page:
        button = page.get_by_role("button", name="Record")
        await button.press("Enter")
        stop = page.get_by_role("button", name="Stop")
        await expect(stop).to_have_attribute("aria-pressed", "true")
        await expect(stop).to_have_text(f"Stop ({seconds + 1:.0f} s)")
        await stop.press("Enter")
        heard = words(await said(page))
        assert set(words(SURE.text)) <= set(heard), heard
        await expect(button).to_have_attribute("aria-pressed", "false")


async def test_a_clip_without_speech_and_a_file_without_audio_say_so(
    server: Server, tmp_path: Path
) -> None:
    (silence,) = clips("silence")
    long = write_wav(tmp_path / "long.wav", np.zeros(61 * 16_000, np.float32), 16_000, 1)
    (tmp_path / "notes.txt").write_text("no audio")
    async with browsing() as browser, opened(browser, url_of(server)) as page:
        choose, answer = page.get_by_label("Choose a clip"), page.locator("#answer")
        await choose.set_input_files(AUDIO / silence.file)
        await expect(answer).to_contain_text("Nobody speaks in it.")
        await choose.set_input_files(tmp_path / "notes.txt")
        await expect(answer).to_have_text("This browser finds no audio in that file.")
        await choose.set_input_files(long)
        await expect(answer).to_have_text("A clip may last 60 seconds at most; this one lasts 61.")


async def test_a_clip_in_a_format_that_the_browser_does_not_know_is_heard(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "note.amr").write_bytes(made("amr"))  # a tone, which the server takes for silence
    async with browsing() as browser, opened(browser, url_of(server)) as page:
        await page.get_by_label("Choose a clip").set_input_files(tmp_path / "note.amr")
        await expect(page.locator("#answer")).to_contain_text("2.0 s of audio")


async def test_the_page_follows_the_server_without_being_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", LoudnessVad)
    port = free_port()
    async with run_server(tmp_path, lambda _: FakeTranscriber(), http_port=port) as server:
        await until_open(port)
        await asyncio.wrap_future(server.scheduler.opened)
        status = server.status
        async with browsing() as browser, opened(browser, url_of(server)) as page:
            pill, work = page.locator("#phase"), page.locator("#work")
            await expect(pill).to_have_text("Ready")
            await expect(work).to_be_hidden()
            status.downloading("Systran/faster-whisper-base", 0.42)
            await expect(pill).to_have_text("Downloading")
            await expect(page.get_by_role("progressbar")).to_have_attribute("value", "0.42")
            await expect(work).to_contain_text("Systran/faster-whisper-base (42 %)")
            status.update(phase="unavailable", detail="no way to the hub", fraction=None)
            await expect(pill).to_have_text("Not ready")
            await expect(work).to_contain_text("no way to the hub")
            await expect(page.get_by_role("progressbar")).to_be_hidden()
            status.update(phase="ready", detail="", building="base", building_fraction=0.5)
            await expect(pill).to_have_text("Ready")
            await expect(work).to_contain_text("Building in the background: base (50 %)")
            async with Client(tmp_path) as client:
                await client.speak()
                text = (await client.transcript()).text
            await expect(page.locator("#answers")).to_contain_text("understood")
            await expect(page.locator("#privacy")).to_contain_text("not shown, nor kept")
            assert text not in await page.content()


async def test_a_language_can_be_chosen_where_the_model_knows_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.utterance.service.SileroVad", LoudnessVad)
    fake, port = FakeTranscriber(), free_port()
    clip = write_wav(tmp_path / "loud.wav", loud(1.0))
    async with run_server(tmp_path, lambda _: fake, http_port=port, language="en") as server:
        await until_open(port)
        async with browsing() as browser, opened(browser, url_of(server)) as page:
            select, choose = page.get_by_label("Language"), page.get_by_label("Choose a clip")
            await expect(select.get_by_role("option")).to_have_text(
                ["as set (English)", "detect", "English", "German"]
            )
            chosen = {"as set (English)": "in en", "German": "in de", "detect": "in None"}
            for language, text in chosen.items():
                await select.select_option(language)
                await choose.set_input_files(clip)
                await expect(page.locator("#answer .said")).to_contain_text(text)
    assert [options.language for _, options in fake.requests] == ["en", "de", None]


async def test_the_page_says_when_the_server_has_gone(tmp_path: Path) -> None:
    port = free_port()
    async with browsing() as browser:
        context = await browser.new_context()
        page = await context.new_page()
        async with run_server(tmp_path, lambda _: FakeTranscriber(), http_port=port) as server:
            await until_open(port)
            await page.goto(url_of(server))
            await expect(page.locator("#phase")).to_have_text("Ready")
        await expect(page.locator("#phase")).to_have_text("Not reachable")
        await page.get_by_label("Choose a clip").set_input_files(AUDIO / SURE.file)
        await expect(page.locator("#answer")).to_have_text("The server can't be reached.")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_keeps_the_rules_of_accessibility_and_fits(
    server: Server, tmp_path: Path, viewport: dict[str, int], scheme: str
) -> None:
    async with Client(tmp_path) as client:
        await client.speak(language="en", samples=read_audio(AUDIO / SURE.file))
        await client.transcript()
    options = {"viewport": viewport, "color_scheme": scheme, "reduced_motion": "reduce"}
    async with browsing() as browser, opened(browser, url_of(server), **options) as page:
        await page.get_by_label("Choose a clip").set_input_files(AUDIO / SURE.file)
        await said(page)
        await expect(page.get_by_role("row").nth(2)).to_be_visible()
        found = await Axe().run(page)
        assert found.response["violations"] == []
        assert len(found.response["passes"]) > 20  # it did look
        too_wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert too_wide <= 0


async def test_everything_is_reached_by_keyboard(server: Server) -> None:
    async with browsing() as browser, opened(browser, url_of(server)) as page:
        await expect(page.locator("#phase")).to_have_text("Ready")
        reached = []
        for _ in range(6):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate("document.activeElement.id"))
            outline = "getComputedStyle(document.activeElement.closest('.button') ?? "
            outline += "document.activeElement).outlineStyle"
            assert await page.evaluate(outline) == "solid"
        # The link to "Try it", its controls, the table that may scroll, two links.
        assert reached == ["", "record", "clip", "", "", ""]


async def test_the_page_works_within_home_assistants(server: Server) -> None:
    """Ingress: under another path, in a frame, through a proxy that passes on what it gets."""
    async with proxy(url_of(server)) as (outer, inner), browsing() as browser:
        async with opened(browser, outer) as page:
            frame = page.frame_locator("iframe")
            await expect(frame.locator("#phase")).to_have_text("Ready")
            await frame.get_by_label("Choose a clip").set_input_files(AUDIO / SURE.file)
            said = frame.locator("#answer .said")
            await expect(said).to_be_visible()
            assert words(await said.inner_text()) == words(SURE.text)
        async with opened(browser, inner) as page:
            await expect(page.locator("#phase")).to_have_text("Ready")


class proxy:  # noqa: N801  (read as a verb)
    """Home Assistant's ingress, as far as a page can tell."""

    PATH = "/api/hassio_ingress/token/"

    def __init__(self, target: str) -> None:
        self._target = target

    async def __aenter__(self) -> tuple[str, str]:
        app = web.Application()
        app.router.add_get("/", self._frame)
        app.router.add_route("*", self.PATH + "{path:.*}", self._forward)
        self._session = ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        root = f"http://127.0.0.1:{port}"
        return root + "/", root + self.PATH

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _frame(self, _: web.Request) -> web.Response:
        html = f'<link rel=icon href="data:,"><iframe src="{self.PATH}"></iframe>'
        return web.Response(text=html, content_type="text/html")

    async def _forward(self, request: web.Request) -> web.Response:
        async with self._session.request(
            request.method,
            self._target + request.match_info["path"],
            params=request.query,
            headers={k: v for k, v in request.headers.items() if k != "Content-Length"},
            data=await request.read(),
        ) as answer:
            headers = {k: v for k, v in answer.headers.items() if k != "Content-Length"}
            return web.Response(status=answer.status, headers=headers, body=await answer.read())
