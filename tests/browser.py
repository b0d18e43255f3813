"""A real browser before the page of a server that really runs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Return the path of the system's Chromium; without one the test fails, it is not skipped."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail(
            "there is no Chromium (apt-get install chromium, or set CHROMIUM to its path); "
            "-m 'not browser and not api' runs the other tests"
        )
    return found


@contextlib.asynccontextmanager
async def browsing(*arguments: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=arguments, chromium_sandbox=os.getuid() != 0
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def opened(browser: Browser, url: str, **options: object) -> AsyncIterator[Page]:
    """Open a page that must not complain: no script's error, nothing that its policy forbids."""
    context = await browser.new_context(**options)  # type: ignore[arg-type]
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    try:
        await page.goto(url)
        yield page
        assert complaints == []
    finally:
        await context.close()
