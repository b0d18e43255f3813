"""The bad network: every byte arrives in order, as late as was said, or the line is cut."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from benchmarks.lib.network import Line, Weather, bad_network

BYTES = random.Random(1).randbytes(50_000)


@contextlib.asynccontextmanager
async def echo(
    weather: Weather,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Give a connection through the weather to who sends everything back."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(10_000):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, bad_network(server.sockets[0].getsockname()[1], weather) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield reader, writer
        writer.close()


@pytest.mark.parametrize(
    "weather",
    [
        Weather(),
        Weather(delay_seconds=0.01, jitter_seconds=0.01, loss=0.1, resend_seconds=0.02),
        Weather(bytes_per_second=1e6, stall_after_bytes=20_000, stall_seconds=0.05),
    ],
)
async def test_every_byte_arrives_in_its_order(weather: Weather) -> None:
    async with echo(weather) as (reader, writer):
        writer.write(BYTES)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == BYTES


async def test_a_line_that_is_cut_resets_both_ends() -> None:
    async with echo(Weather(cut_after_bytes=10_000)) as (reader, writer):
        writer.write(BYTES)
        with pytest.raises(OSError):
            await asyncio.wait_for(reader.readexactly(len(BYTES)), 20)


def arrivals(weather: Weather, count: int = 100) -> list[float]:
    line = Line(weather, random.Random(0))
    return [line.arrival(1000.0, 1000) - 1000.0 for _ in range(count)]


def test_nothing_overtakes() -> None:
    found = arrivals(Weather(delay_seconds=0.1, jitter_seconds=0.2, loss=0.3))
    assert found == sorted(found)
    assert min(found) >= 0.1


def test_a_slow_line_takes_its_time() -> None:
    assert arrivals(Weather(bytes_per_second=10_000))[-1] == pytest.approx(10.0)


def test_a_loss_is_a_delay_for_all_after_it() -> None:
    assert max(arrivals(Weather())) == 0
    assert max(arrivals(Weather(loss=1.0, resend_seconds=0.2))) == pytest.approx(0.2)


def test_a_stall_comes_once() -> None:
    line = Line(Weather(stall_after_bytes=2500, stall_seconds=3), random.Random(0))
    found = [line.arrival(float(n), 1000) - n for n in range(10)]
    assert found == pytest.approx([0, 0, 3, 2, 1, 0, 0, 0, 0, 0])
