"""Runs an image the way docs/install.md says, and the way the Supervisor does, and measures it.

--model says which model it was built to take along (--build-arg MODEL=...), which then has to hear
a person with no network and no options.

Exit code 0 when all of it holds; one line each says what does not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wyoming.info import Describe, Info

from wyoming_whisper.commands.client import read_audio, transcribe_remote
from wyoming_whisper.commands.connection import ask_server
from wyoming_whisper.errors import UpstreamError
from wyoming_whisper.models.stock import STOCK_MODELS
from wyoming_whisper.transcriber import Samples

AUDIO = Path(__file__).parent.parent / "tests" / "audio"
PERSON = AUDIO / "jfk.flac"
CLIP = AUDIO / "07-clean.flac"
LONG_CLIP = AUDIO / "21-long.flac"

MODEL = AUDIO.parent / "models" / ".weights" / "home-en"
"""The tests' own; an image has none, and what is checked here is not what it hears."""

MAX_BYTES = 650_000_000
WELL = ("ok: ", "starting: ")
"""How the health check's line begins: its model may still be loading."""

MAX_DESCRIBE_S = 2.0
MAX_STOP_S = 10.0  # then the Supervisor and Docker kill
START_S = 60.0  # before it is given up
WHISPER_UID = 10300
CLIENTS = 3  # so that there is work left when it is told to stop


class CheckError(Exception):
    """The image does not do what it should."""


def engine() -> list[str]:
    """Return the command of docker, podman or $CONTAINER_ENGINE."""
    named = os.environ.get("CONTAINER_ENGINE")
    if named:
        return shlex.split(named)
    for name in ("docker", "podman"):
        if shutil.which(name):
            return [name]
    raise SystemExit("image-check: there is neither docker nor podman; name one: CONTAINER_ENGINE")


ENGINE = engine()


def run(*arguments: str, check: bool = True) -> str:
    done = subprocess.run([*ENGINE, *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise CheckError(f"{shlex.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def container(image: str, data: Path, *options: str) -> Iterator[tuple[str, str, float]]:
    """Start one with `data` and a model as volumes; give its name, its server's URI and when."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    name = f"image-check-{os.getpid()}"
    started = time.monotonic()
    run(
        *("run", "--detach", "--name", name, "--network", "host", "--read-only"),
        *("--volume", f"{data}:/data", "--env", f"WYOMING_WHISPER_URI={uri}"),
        *("--volume", f"{MODEL}:/model:ro"),
        *("--env", "WYOMING_WHISPER_OPTIONS=/data/options.json"),
        *options,
        image,
    )
    try:
        yield name, uri, started
    except CheckError as error:
        logs = subprocess.run([*ENGINE, "logs", name], capture_output=True, text=True, check=False)
        raise CheckError(f"{error}\n{logs.stdout}{logs.stderr}") from None
    finally:
        run("rm", "--force", name, check=False)


def first_describe(uri: str, started: float) -> float:
    """Return the seconds from the command to the first answer."""
    while True:
        try:
            asyncio.run(ask_server(uri, [Describe()], Info, 1.0))
        except UpstreamError as error:
            if time.monotonic() - started > START_S:
                raise CheckError(f"no answer in {START_S:.0f} s: {error}") from None
            time.sleep(0.02)
        else:
            return time.monotonic() - started


def effective_user(name: str) -> tuple[int, str]:
    """Return the user of process 1 in the container, and its capabilities in hexadecimal."""
    lines = run("exec", name, "cat", "/proc/1/status").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(status["Uid"].split()[1]), status["CapEff"].strip()


def healthy(image: str, name: str) -> str:
    """Run the image's own HEALTHCHECK in the container; return what it says."""
    inspected = json.loads(run("inspect", "--type", "image", image))[0]
    health = inspected.get("Healthcheck") or inspected["Config"]["Healthcheck"]
    return run("exec", name, *health["Test"][1:])


def expected_text(clip: Path) -> str:
    labels = json.loads((AUDIO / "labels.json").read_text())
    return next(str(label["text"]) for label in labels if label["file"] == clip.name)


def stop_while_transcribing(name: str, uri: str, samples: Samples) -> tuple[float, int, int]:
    """Return the seconds of stopping, the exit code, and how many clients were answered."""

    async def ask_and_stop() -> tuple[float, list[Any]]:
        asking = [
            asyncio.create_task(transcribe_remote(uri, samples, language="en", timeout=30))
            for _ in range(CLIENTS)
        ]
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        started = time.monotonic()
        await asyncio.to_thread(run, "stop", "--time", str(round(MAX_STOP_S)), name)
        seconds = time.monotonic() - started
        return seconds, await asyncio.gather(*asking, return_exceptions=True)

    seconds, answers = asyncio.run(ask_and_stop())
    answered = sum(not isinstance(answer, BaseException) for answer in answers)
    return seconds, int(run("inspect", "--format", "{{.State.ExitCode}}", name)), answered


def must(condition: bool, sentence: str) -> None:
    if not condition:
        raise CheckError(sentence)


def look_at_size(image: str, model_bytes: int = 0) -> dict[str, Any]:
    size = int(json.loads(run("inspect", "--type", "image", image))[0]["Size"]) - model_bytes
    must(size < MAX_BYTES, f"the image has {size / 1e6:.0f} MB, {MAX_BYTES / 1e6:.0f} at most")
    return {"megabytes": round(size / 1e6)}


def as_a_user(image: str) -> dict[str, Any]:
    """As a careful user starts it: no root from the start, no rights, a read-only root."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        (data / "options.json").write_text('{"model": "/model"}')
        os.chown(data, WHISPER_UID, WHISPER_UID)
        user = ("--user", f"{WHISPER_UID}:{WHISPER_UID}", "--cap-drop", "ALL")
        with container(image, data, *user) as (name, uri, started):
            return look_at_server(image, name, uri, started)


def look_at_server(image: str, name: str, uri: str, started: float) -> dict[str, Any]:
    described = first_describe(uri, started)
    must(described < MAX_DESCRIBE_S, f"describe was answered after {described:.1f} s")
    uid, capabilities = effective_user(name)
    must((uid, int(capabilities, 16)) == (WHISPER_UID, 0), f"user {uid} has {capabilities}")
    must(healthy(image, name).startswith(WELL), "the health check says it is not healthy")
    heard = asyncio.run(transcribe_remote(uri, read_audio(CLIP), language="en", timeout=30))
    expected = expected_text(CLIP)
    must(heard.text.lower().strip(" .") == expected, f"heard {heard.text!r} for {expected!r}")
    seconds, code, answered = stop_while_transcribing(name, uri, read_audio(LONG_CLIP))
    must(code == 0, f"it stopped with exit code {code}")
    must(seconds < MAX_STOP_S, f"it stopped after {seconds:.1f} s")
    must(answered == CLIENTS, f"{answered} of {CLIENTS} were answered when it was stopped")
    return {"first_describe_s": round(described, 2), "stop_s": round(seconds, 2)}


def as_the_supervisor(image: str) -> dict[str, Any]:
    """As an add-on is started: as root, with a /data and an options file that are root's alone."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        options = data / "options.json"
        options.write_text('{"model": "/model"}')
        options.chmod(0o600)
        with container(image, data) as (name, uri, started):
            described = first_describe(uri, started)
            uid, capabilities = effective_user(name)
            must((uid, int(capabilities, 16)) == (WHISPER_UID, 0), f"user {uid}: {capabilities}")
            must(healthy(image, name).startswith(WELL), "the health check says it is not healthy")
            must(data.stat().st_uid == WHISPER_UID, "/data is still root's")
            stray = [str(path) for path in data.iterdir() if path.name != "options.json"]
            must(not stray, f"the server left in /data: {', '.join(stray)}")
    return {"first_describe_as_root_s": round(described, 2)}


def without_a_network(image: str) -> dict[str, Any]:
    """As with the model that it took along: nothing is set, and nobody can be reached."""
    name = f"image-check-{os.getpid()}-offline"
    run(
        *("run", "--detach", "--name", name, "--network", "none", "--read-only"),
        *("--tmpfs", "/data", "--volume", f"{AUDIO}:/audio:ro", image),
    )
    ask = (
        "wyoming-whisper",
        "transcribe",
        "--uri",
        "tcp://127.0.0.1:10300",
        f"/audio/{PERSON.name}",
    )
    started = time.monotonic()
    try:
        while not (heard := run("exec", name, *ask, check=False)):
            must(time.monotonic() - started < START_S, f"no answer in {START_S:.0f} s")
            time.sleep(0.2)
    finally:
        run("rm", "--force", name, check=False)
    said = re.sub("[^a-z ]", "", heard.lower())
    must(said == expected_text(PERSON), f"heard {heard!r} for {expected_text(PERSON)!r}")
    return {"first_answer_offline_s": round(time.monotonic() - started, 1)}


def _name(check: Callable[[str], dict[str, Any]]) -> str:
    return str(getattr(check, "func", check).__name__)


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/image-check", description=__doc__)
    parser.add_argument("image", help="its name, such as wyoming-whisper")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument(
        "--model", choices=STOCK_MODELS, help="the MODEL that it was built with, if any"
    )
    arguments = parser.parse_args()
    model_bytes = STOCK_MODELS[arguments.model].download_bytes if arguments.model else 0
    checks: list[Callable[[str], dict[str, Any]]] = [
        functools.partial(look_at_size, model_bytes=model_bytes),
        as_a_user,
        as_the_supervisor,
    ]
    if arguments.model:
        checks.append(without_a_network)
    measured: dict[str, Any] = {}
    failed = False
    for check in checks:
        try:
            found = check(arguments.image)
        except CheckError as error:
            failed = True
            print(f"FAILED {_name(check)}: {error}", file=sys.stderr)
        else:
            measured |= found
            print(f"ok {_name(check)}: {found}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
