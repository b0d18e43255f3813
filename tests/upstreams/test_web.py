"""What the page and /metrics show of upstreams."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from aiohttp import ClientSession

from tests.support import Client, FakeTranscriber, run_server, until
from tests.upstreams.fakes import FakeWyoming, fails, says
from tests.web.test_web import free_port, until_open

pytestmark = pytest.mark.usefixtures("_hear_loudness")


async def test_metrics_and_state_have_each_upstream(tmp_path: Path) -> None:
    port = free_port()
    away = "tcp://127.0.0.1:1"
    async with (
        FakeWyoming(says("yes")).running() as fake,
        run_server(
            tmp_path,
            lambda _: FakeTranscriber(),
            http_port=port,
            upstreams=(fake.uri, away),
            upstream_hedge=60.0,
        ) as server,
        ClientSession(f"http://127.0.0.1:{port}") as http,
        Client(tmp_path) as client,
    ):
        await until_open(port)
        await until(lambda: [s.circuit for s in server.status.state.upstreams][:1] == ["closed"])
        await client.speak(0.5)
        await client.transcript()
        fake.answer = fails()
        await client.speak(0.5)
        await client.transcript()
        state = await (await http.get("/state")).json()
        metrics = await (await http.get("/metrics")).text()
    first, second = state["upstreams"]
    assert (first["name"], first["circuit"], second["circuit"]) == (fake.uri, "open", "open")
    assert (first["answers"], first["failures"]) == (1, 1)
    assert [answer["upstream"] for answer in state["answers"]] == [None, fake.uri]
    lines = metrics.splitlines()
    assert f'wyoming_whisper_upstream_up{{upstream="{fake.uri}"}} 0.0' in lines
    assert f'wyoming_whisper_upstream_failures_total{{upstream="{fake.uri}"}} 1.0' in lines
    assert f'wyoming_whisper_upstream_seconds_count{{upstream="{fake.uri}"}} 1.0' in lines
    assert f'wyoming_whisper_upstream_failures_total{{upstream="{away}"}} 0.0' in lines


@pytest.mark.browser
async def test_the_page_shows_who_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from axe_playwright_python.async_playwright import Axe
    from playwright.async_api import expect

    from tests.browser import browsing, opened

    caplog.set_level(logging.INFO)
    port = free_port()
    async with (
        FakeWyoming(says("yes")).running() as fake,
        run_server(
            tmp_path,
            lambda _: FakeTranscriber(),
            http_port=port,
            upstreams=(fake.uri, "tcp://127.0.0.1:1"),
        ) as server,
        Client(tmp_path) as client,
    ):
        await until_open(port)
        await asyncio.wrap_future(server.scheduler.opened)
        await until(lambda: [s.circuit for s in server.status.state.upstreams][:1] == ["closed"])
        await client.speak(0.5)
        await client.transcript()
        async with browsing() as browser, opened(browser, f"http://127.0.0.1:{port}/") as page:
            first, second = (
                page.locator("#upstream-list li").nth(0),
                page.locator("#upstream-list li").nth(1),
            )
            await expect(first).to_contain_text(f"asked{fake.uri}a fake model")
            await expect(first).to_contain_text("1 answered")
            await expect(second).to_contain_text("not asked now")
            await expect(second).to_contain_text("Connection refused")
            await expect(page.locator("#answers")).to_contain_text(f"by {fake.uri}")
            found = await Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
