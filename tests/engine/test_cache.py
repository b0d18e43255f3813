"""The cache of engines: what is found, what is not, and what a kill or a full disk leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from wyoming_whisper.engine import cache as cache_module
from wyoming_whisper.engine.cache import EngineCache, Key, weights_hash
from wyoming_whisper.errors import ModelError

KEY = Key(
    ("Orin", "sm87", "TensorRT", "10.3.0", "float16"),
    {
        "weights": "a" * 64,
        "precision": "float16",
        "profiles": ["200-1000", "1000-3000"],
        "graph_schema": 1,
        "runtime": "TensorRT",
        "version": "10.3.0",
        "device": "Orin",
    },
)
CPU_KEY = Key(
    ("cpu", "onnxruntime", "int8"),
    {
        "weights": "a" * 64,
        "precision": "int8",
        "graph_schema": 1,
        "runtime": "onnxruntime",
        "device": "CPU",
    },
)
PLAN = b"plan" * 1000
TIMEOUT_SECONDS = 30.0


def changed(key: Key, **facts: object) -> Key:
    return dataclasses.replace(key, facts={**key.facts, **facts})


def fill(folder: Path) -> None:
    (folder / "encoder.plan").write_bytes(PLAN)
    (folder / "decoder.plan").write_bytes(PLAN[::-1])
    (folder / "engine.json").write_text("{}")


def never(_: Path) -> None:
    raise AssertionError("it was built again")


def cache_at(tmp_path: Path, max_bytes: int = 10**9) -> EngineCache:
    return EngineCache(tmp_path / "engines", max_bytes)


def left_over(cache: EngineCache) -> list[str]:
    """Return what lies beside the entries."""
    return [path.name for path in cache.root.iterdir() if path.name.startswith((".b", ".t"))]


def test_what_was_built_is_found_and_not_built_again(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    assert cache.find(KEY) is None
    folder = cache.ensure(KEY, fill, "base")
    assert (folder / "encoder.plan").read_bytes() == PLAN
    assert cache.find(KEY) == folder
    assert cache_at(tmp_path).ensure(KEY, never) == folder
    assert left_over(cache) == []


@pytest.mark.parametrize("key", [KEY, CPU_KEY])
def test_an_engine_for_anything_else_is_another(tmp_path: Path, key: Key) -> None:
    cache = cache_at(tmp_path)
    cache.ensure(key, fill)
    for fact in key.facts:
        other = changed(key, **{fact: "another"})
        assert other.name != key.name
        assert cache.find(other) is None
    assert cache.find(key)


def test_names_say_what_an_engine_is_for() -> None:
    device = "NVIDIA GeForce RTX 3060 / Ti"
    key = dataclasses.replace(KEY, label=(device, *KEY.label[1:]))
    assert key.name.startswith("nvidia-geforce-rtx-3060-ti-sm87-tensorrt-10.3.0-float16-")
    assert dataclasses.replace(KEY, label=("..",)).name.startswith("unknown-")
    assert CPU_KEY.name.startswith("cpu-onnxruntime-int8-")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to which the bytes of each read for a hash are added."""
    n_bytes: list[int] = []

    class Counted:
        def __init__(self, key: bytes = b"") -> None:
            self._digest = hashlib.sha256(key)
            self.hexdigest = self._digest.hexdigest

        def update(self, data: bytes) -> None:
            n_bytes.append(len(data))
            self._digest.update(data)

    monkeypatch.setattr(cache_module, "hashlib", SimpleNamespace(sha256=Counted))
    return n_bytes


def make_old(folder: Path) -> None:
    for file in folder.iterdir():
        os.utime(file, (1, 1))


def test_an_engine_that_is_opened_again_is_not_hashed_again(
    tmp_path: Path, hashed: list[int]
) -> None:
    """After --idle-unload somebody waits for it: 1.6 GB for turbo."""
    cache = cache_at(tmp_path)
    folder = cache.ensure(KEY, fill)
    make_old(folder)
    hashed.clear()
    assert cache.find(KEY) == folder
    assert sum(hashed) == 2 * len(PLAN) + 2
    hashed.clear()
    assert cache.find(KEY) == cache_at(tmp_path).find(KEY) == folder
    assert hashed == []


def test_what_changed_since_is_hashed_again(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    folder = cache.ensure(KEY, fill)
    make_old(folder)
    assert cache.find(KEY) == folder
    plan = folder / "encoder.plan"
    plan.write_bytes(b"?" + PLAN[1:])
    os.utime(plan, (1, 1))  # size and time as before
    assert cache.find(KEY) is None


def test_a_file_that_was_just_written_may_change_in_the_same_tick(
    tmp_path: Path, hashed: list[int]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    assert weights_hash(file) == weights_hash(file) == hashlib.sha256(b"abc").hexdigest()
    assert hashed == [3, 3]


def test_weights_in_a_plain_folder_are_hashed_once(tmp_path: Path, hashed: list[int]) -> None:
    weights = tmp_path / "model.bin"
    weights.write_bytes(b"abc")
    os.utime(weights, (1, 1))
    assert weights_hash(weights) == weights_hash(weights) == hashlib.sha256(b"abc").hexdigest()
    assert hashed == [3]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def foreign(file: Path) -> None:
    """The right files, of another key: a folder that was copied or renamed by hand."""
    sidecar = file.parent / EngineCache.SIDECAR
    content = json.loads(sidecar.read_text())
    content["key"]["version"] = "8.6.1"
    sidecar.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (cut, "encoder.plan"),
        (flip, "decoder.plan"),
        (flip, "engine.json"),
        (Path.unlink, "decoder.plan"),
        (Path.unlink, EngineCache.SIDECAR),
        (cut, EngineCache.SIDECAR),
        (lambda file: file.write_text("[]"), EngineCache.SIDECAR),
        (lambda file: file.write_text('{"key": 3, "files": 4}'), EngineCache.SIDECAR),
        (lambda file: file.write_bytes(b"\xff" * 3_000_000), EngineCache.SIDECAR),
        (foreign, "encoder.plan"),
    ],
)
def test_a_damaged_or_foreign_entry_is_moved_away_and_built_once_more(
    tmp_path: Path,
    damage: Callable[[Path], None],
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = cache_at(tmp_path)
    folder = cache.ensure(KEY, fill)
    damage(folder / name)
    builds: list[Path] = []

    def rebuild(aside: Path) -> None:
        builds.append(aside)
        fill(aside)

    assert cache.ensure(KEY, rebuild) == folder
    assert len(builds) == 1
    assert (folder / "encoder.plan").read_bytes() == PLAN
    assert "of no use" in caplog.text
    assert cache.ensure(KEY, never) == folder
    assert left_over(cache) == []


@pytest.mark.parametrize("key", [KEY, CPU_KEY])
def test_what_an_older_version_made_of_the_same_is_removed(key: Key, tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    others = [
        changed(key, graph_schema=0),
        changed(key, graph_schema=2),
        changed(key, graph_schema=0, precision="float32"),
        changed(key, graph_schema=0, weights="b" * 64),
    ]
    for other in reversed(others):
        cache.ensure(other, fill)
    (cache.root / "foreign").mkdir()
    cache.ensure(key, fill)
    expected = {other.name for other in (key, *others[1:])} | {"foreign"}
    assert {entry.name for entry in cache.entries()} == expected
    assert left_over(cache) == []


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)

    def fail(folder: Path) -> None:
        fill(folder)
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"):
        cache.ensure(KEY, fail)
    assert cache.find(KEY) is None
    assert left_over(cache) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file")
    with pytest.raises(ModelError, match=f"{tmp_path}/engines"):
        cache_at(tmp_path).ensure(KEY, fill)


def test_what_is_there_is_found_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache_at(tmp_path).ensure(KEY, fill)

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache_module, "locked", read_only)
    assert cache_at(tmp_path).ensure(KEY, never) == folder
    with pytest.raises(ModelError, match="Read-only file system"):
        cache_at(tmp_path).ensure(changed(KEY, beam_size=5), fill)


def test_other_users_may_read_an_engine_as_they_may_its_data_folder(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    folder = cache.ensure(KEY, fill)
    assert folder.stat().st_mode == cache.root.stat().st_mode


def test_a_data_folder_that_may_not_be_read_has_no_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    cache = EngineCache(tmp_path / "engines", 10**9, [private])

    def refuse(path: object, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert cache.find(KEY) is None
    assert cache.entries(with_others=True) == []


def test_a_disk_that_is_full_is_one_sentence(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="No space left on device"):
        cache_at(tmp_path).ensure(KEY, full)


# -- several processes ---------------------------------------------------------------------

BUILDER = """
    import sys, time
    from pathlib import Path
    from tests.engine.test_cache import KEY, cache_at, fill

    root, marks = Path(sys.argv[1]), Path(sys.argv[2])

    def build(folder):
        (marks / str(time.monotonic_ns())).touch()
        (folder / "encoder.plan").write_bytes(b"half")
        print("building", flush=True)
        while not (marks / "go").exists():
            time.sleep(0.01)
        fill(folder)

    print("found", cache_at(root).ensure(KEY, build), flush=True)
"""


def builder(root: Path, marks: Path) -> subprocess.Popen[str]:
    marks.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(BUILDER), str(root), str(marks)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def ended(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0
    return out


def test_of_two_builders_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    first = builder(tmp_path, marks)
    assert line_of(first) == "building"
    second = builder(tmp_path, marks)
    (marks / "go").touch()
    assert ended(first).split()[-1] == ended(second).split()[-1]
    assert len(list(marks.iterdir())) == 2  # "go", and one build
    assert left_over(cache_at(tmp_path)) == []


def test_a_builder_killed_in_the_middle_leaves_a_cache_that_works(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    killed = builder(tmp_path, marks)
    assert line_of(killed) == "building"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=TIMEOUT_SECONDS)
    cache = cache_at(tmp_path)
    assert left_over(cache) != []
    assert cache.find(KEY) is None
    assert cache.entries() == []
    folder = cache.ensure(KEY, fill)
    assert (folder / "encoder.plan").read_bytes() == PLAN
    assert left_over(cache) == []


def test_what_a_killed_builder_of_another_engine_left_is_swept(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    killed = builder(tmp_path, marks)
    assert line_of(killed) == "building"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=TIMEOUT_SECONDS)
    cache = cache_at(tmp_path)
    cache.ensure(changed(KEY, precision="float32"), fill)
    assert left_over(cache) == []


def test_kernels_are_swept_when_no_data_folder_has_their_engine_any_more(tmp_path: Path) -> None:
    elsewhere = EngineCache(tmp_path / "image" / "engines", 10**9)
    shipped = changed(KEY, version="10.3.1")
    elsewhere.ensure(shipped, fill)
    cache = EngineCache(tmp_path / "engines", 10**9, [elsewhere.root])
    files = [cache.kernels(name, "RTX", "13.0") for name in (KEY.name, shipped.name, "updated")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"kernels")
    cache.ensure(KEY, fill)
    assert [file.exists() for file in files] == [True, True, False]


def test_who_does_without_another_data_folders_engine_does_without_its_kernels(
    tmp_path: Path,
) -> None:
    elsewhere = EngineCache(tmp_path / "image" / "engines", 10**9)
    folder = elsewhere.ensure(KEY, fill)
    cache = EngineCache(tmp_path / "engines", 10**9, [elsewhere.root])
    file = cache.kernels(KEY.name, "RTX", "13.0")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"kernels that compute nonsense")
    assert cache.find(KEY) == folder
    with pytest.raises(FileNotFoundError):
        cache.discard(KEY.name)
    assert cache.find(KEY) is None
    assert not file.exists()
    assert elsewhere.find(KEY) == folder


def test_a_living_builders_folder_is_not_swept(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    living = builder(tmp_path, marks)
    assert line_of(living) == "building"
    cache = cache_at(tmp_path)
    cache.ensure(changed(KEY, precision="float32"), fill)
    (marks / "go").touch()
    ended(living)
    assert cache.find(KEY) is not None


def test_the_wait_for_another_builder_can_be_ended(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    other = builder(tmp_path, marks)
    assert line_of(other) == "building"
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(ModelError, match="stopped"):
        cache_at(tmp_path).ensure(KEY, never, stop=stop)
    (marks / "go").touch()
    ended(other)


# -- room ----------------------------------------------------------------------------------


def built(cache: EngineCache, used: float, **changes: object) -> Key:
    """Put an entry into the cache that was last used so many seconds after the epoch."""
    key = changed(KEY, **changes)
    folder = EngineCache(cache.root, 10**9).ensure(key, fill)
    os.utime(folder / EngineCache.SIDECAR, (used, used))
    return key


def size_of_one(tmp_path: Path) -> int:
    cache = EngineCache(tmp_path / "one", 10**9)
    cache.ensure(KEY, fill)
    return cache.entries()[0].size_bytes


def test_the_longest_unused_go_first_but_never_the_one_in_use(tmp_path: Path) -> None:
    one = size_of_one(tmp_path)
    cache = cache_at(tmp_path, max_bytes=2 * one + 100)
    old = built(cache, 1000, weights="1" * 64)
    new = built(cache, 3000, weights="3" * 64)
    middle = built(cache, 2000, weights="2" * 64)
    cache.tidy(keep=old.name)
    assert [cache.find(key) is not None for key in (old, middle, new)] == [True, False, True]
    tight = cache_at(tmp_path, max_bytes=0)
    tight.tidy(keep=old.name)
    assert [entry.name for entry in tight.entries()] == [old.name]


def test_engines_of_another_tensorrt_or_gpu_go_before_all_others(tmp_path: Path) -> None:
    one = size_of_one(tmp_path)
    cache = cache_at(tmp_path, max_bytes=2 * one + 100)
    in_use = built(cache, 100)
    ours = built(cache, 200, weights="1" * 64)
    before_the_update = built(cache, 9000, version="8.6.1")
    cache.tidy(keep=in_use.name)
    assert cache.find(ours) is not None
    assert cache.find(before_the_update) is None


def test_graphs_for_a_cpu_go_before_the_engines_of_the_gpu_in_use(tmp_path: Path) -> None:
    one = size_of_one(tmp_path)
    cache = cache_at(tmp_path, max_bytes=2 * one + 100)
    in_use = built(cache, 100)
    ours = built(cache, 200, weights="1" * 64)
    EngineCache(cache.root, 10**9).ensure(CPU_KEY, fill)
    cache.tidy(keep=in_use.name)
    assert cache.find(ours) is not None
    assert cache.find(CPU_KEY) is None


def test_what_fits_is_kept_whatever_it_is(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    keys = [built(cache, 100 * i, weights=str(i) * 64) for i in range(3)]
    cache.tidy(keep=keys[0].name)
    assert all(cache.find(key) for key in keys)


def test_use_makes_an_engine_young(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    key = built(cache, 1000)
    before = time.time() - 5
    assert cache.find(key)
    assert cache.entries()[0].used > before


def test_entries_tell_what_they_are(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    cache.ensure(KEY, fill, "base")
    (entry,) = cache.entries()
    assert (entry.model, entry.precision, entry.runtime, entry.device) == (
        *("base", "float16", "TensorRT 10.3.0"),
        "Orin",
    )
    assert entry.size_bytes >= 2 * len(PLAN)
    cache.ensure(CPU_KEY, fill, "base")
    graphs = next(entry for entry in cache.entries() if entry.name == CPU_KEY.name)
    assert (graphs.precision, graphs.runtime, graphs.device) == ("int8", "onnxruntime", "CPU")
    assert cache.discard(CPU_KEY.name) == graphs.size_bytes
    (cache.root / "junk").mkdir()
    junk = next(entry for entry in cache.entries() if entry.name == "junk")
    assert (junk.model, junk.runtime, junk.device) == ("?", "?", "?")
    assert cache.discard("junk") == 0
    assert [entry.name for entry in cache.entries()] == [KEY.name]


def test_timings_are_of_one_tensorrt_and_one_gpu(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    files = {cache.timing_cache(*what) for what in [("10.3", "a"), ("10.4", "a"), ("10.3", "b")]}
    assert len(files) == 3
    assert cache.entries() == []


# -- hashes --------------------------------------------------------------------------------


def test_the_hash_of_weights_is_their_sha256(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert weights_hash(tmp_path / "model.bin") == expected


def test_in_the_hubs_cache_the_hash_is_the_blobs_name(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / ("c" * 64)).write_bytes(b"three gigabytes")
    (tmp_path / "model.bin").symlink_to(tmp_path / "blobs" / ("c" * 64))
    assert weights_hash(tmp_path / "model.bin") == "c" * 64
