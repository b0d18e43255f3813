"""Ray for real: three nodes in network namespaces, the commands of docs/scaling.md, lost nodes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from benchmarks.lib.client import say
from benchmarks.lib.errors import BenchmarkError
from tests.ray import cluster
from tests.ray.cluster import Node
from tests.ray.speaking import under_load, wait_for_front_end
from tests.support import AUDIO, HOME_EN, clips
from wyoming_whisper.commands.client import read_audio

pytestmark = pytest.mark.ray

WYOMING_WHISPER = str(Path(sys.executable).parent / "wyoming-whisper")
SPEAKERS = 4


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with cluster.cluster(tmp_path_factory.mktemp("ray"), [1, 1, 1]) as started:
        said = cluster.deploy(started[0], "--replicas", "3")
        assert said.startswith("home-en on CPU")
        assert said.strip().endswith("3 replicas on Ray")
        yield started


@pytest.fixture(scope="module")
def front_end(nodes: list[Node]) -> Iterator[str]:
    server = cluster.front_end(nodes[0])
    where = cluster.uri(nodes[0])
    asyncio.run(wait_for_front_end(where))
    yield where
    assert cluster.stop(server) == 0


def status(node: Node) -> dict[str, object]:
    told: dict[str, object] = json.loads(node.run(WYOMING_WHISPER, "ray", "status", "--json"))
    return told


def test_every_node_has_a_replica(nodes: list[Node]) -> None:
    assert status(nodes[0])["replicas"] == {"RUNNING": 3}
    assert [len(node.pids("ServeReplica")) for node in nodes] == [1, 1, 1]


def test_texts_are_those_of_one_machine(front_end: str) -> None:
    files = [str(AUDIO / clip.file) for clip in clips("clean", "noisy")[:8]]
    command = [WYOMING_WHISPER, "transcribe", "--model", str(HOME_EN), "--json", *files]
    local = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = [json.loads(line)["text"] for line in local.splitlines()]
    heard = [asyncio.run(say(front_end, read_audio(file))) for file in files]
    assert [one.text for one in heard] == expected
    assert any(expected)


def test_names_reach_the_replicas(nodes: list[Node]) -> None:
    """Without an error or a warning of theirs; what they are good for is tested without Ray."""
    clip = AUDIO / clips("clean")[1].file
    command = (WYOMING_WHISPER, "transcribe", "--backend", "ray", "--names", "kitchen lamp,Ada")
    assert nodes[1].run(*command, str(clip)).strip()
    assert complaints(nodes) == []


def complaints(nodes: list[Node]) -> list[str]:
    """Return what replicas write where a home does not come."""
    logs = nodes[0].folder.parent.glob("*/ray/session_*/logs/worker-*.err")
    lines = (line for log in logs for line in log.read_text(errors="replace").splitlines())
    return [line for line in lines if "did not come" in line]


def test_the_sentences_of_a_home_reach_the_replicas(nodes: list[Node]) -> None:
    """What is one of them is counted as such, as soon as a replica has made its grammar."""
    clip = next(clip for clip in clips("clean") if clip.text == "turn off the pump")
    home = nodes[1].folder / "home.yaml"
    home.write_text("entities: [{name: Pump, domain: switch}]\n")
    flags = ("--home", str(home), "--language", "en", "--http-port", "10380")
    server = cluster.front_end(nodes[1], *flags, log="home.log")
    asyncio.run(wait_for_front_end(cluster.uri(nodes[1])))
    end = time.monotonic() + cluster.START_SECONDS
    while 'result="heard"' not in metrics(nodes[1]) and time.monotonic() < end:
        assert asyncio.run(say(cluster.uri(nodes[1]), read_audio(str(AUDIO / clip.file)))).text
    assert cluster.stop(server) == 0
    assert time.monotonic() < end
    assert complaints(nodes) == []


def metrics(node: Node) -> str:
    page = "http://127.0.0.1:10380/metrics"
    asked = f"import urllib.request as web; print(web.urlopen('{page}').read().decode())"
    return node.run(sys.executable, "-c", asked)


def test_a_wrong_model_ends_nobody(nodes: list[Node], front_end: str) -> None:
    with pytest.raises(BenchmarkError, match="there is no model folder /no/such"):
        nodes[1].run(WYOMING_WHISPER, "ray", "deploy", "--model", "/no/such")
    assert status(nodes[0])["replicas"] == {"RUNNING": 3}


def test_nothing_listens_but_ray_itself(nodes: list[Node]) -> None:
    sockets = nodes[1].run("ss", "-Hltn").split()
    assert not any(socket.endswith(":8000") for socket in sockets)  # Ray Serve's HTTP


def test_replicas_grow_with_the_work(nodes: list[Node], front_end: str) -> None:
    clip = read_audio(str(AUDIO / clips("long")[0].file))
    nodes[0].run(WYOMING_WHISPER, "ray", "remove")  # three would stay for five minutes
    cluster.deploy(nodes[0], "--replicas", "1-3")
    assert status(nodes[0])["replicas"] == {"RUNNING": 1}

    async def keep_asking(until: asyncio.Event) -> None:
        while not until.is_set():
            assert (await say(front_end, clip, chunk_ms=100)).error is None

    async def grow() -> int:
        enough = asyncio.Event()
        asking = [asyncio.create_task(keep_asking(enough)) for _ in range(8)]
        running = 1
        for _ in range(60):
            told = await asyncio.to_thread(status, nodes[0])
            running = cast("dict[str, int]", told["replicas"]).get("RUNNING", 0)
            if running > 1:
                break
            await asyncio.sleep(1)
        enough.set()
        await asyncio.gather(*asking)
        return running

    assert asyncio.run(grow()) > 1
    cluster.deploy(nodes[0], "--replicas", "3")
    assert status(nodes[0])["replicas"] == {"RUNNING": 3}


@pytest.mark.parametrize("fault", ["replica", "node", "cable"])
def test_every_command_is_answered_whatever_is_lost(
    fault: str, nodes: list[Node], front_end: str
) -> None:
    lost = nodes[1] if fault == "node" else nodes[2]

    def end_replica() -> None:
        (pid,) = lost.pids("ServeReplica")
        os.kill(pid, signal.SIGKILL)

    faults = {"replica": end_replica, "node": lost.kill, "cable": lost.cut_off}
    before, after = asyncio.run(under_load(front_end, SPEAKERS, 45.0, faults[fault]))
    assert before.wrong == []
    assert len(before.answers) >= SPEAKERS
    assert after.wrong == []
    assert len(after.answers) >= SPEAKERS


def test_the_replicas_can_be_taken_away(nodes: list[Node], front_end: str) -> None:
    assert "ended" in nodes[0].run(WYOMING_WHISPER, "ray", "remove")
    with pytest.raises(BenchmarkError, match="nothing is deployed"):
        nodes[0].run(WYOMING_WHISPER, "ray", "remove")
