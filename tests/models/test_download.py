from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from tests.models.conftest import MODEL_FILES, REPO
from tests.models.fakes import etag, huggingface_files, model_files, write_cache
from tests.models.hub_standin import COMMIT, Fault, HubStandin
from wyoming_whisper.errors import ModelBrokenError, ModelError, ModelUnavailableError
from wyoming_whisper.models.download import HubDownload
from wyoming_whisper.models.folder import ModelFolder
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings

WEIGHTS = MODEL_FILES["model.bin"]
BLOB = etag("model.bin", WEIGHTS)


def blobs(cache: Path) -> Path:
    return cache / "models--Systran--faster-whisper-tiny" / "blobs"


def assert_whole(snapshot: Path) -> None:
    ModelFolder(snapshot).verify()
    for name in ("config.json", "model.bin", "tokenizer.json", "vocabulary.json"):
        assert (snapshot / name).read_bytes() == MODEL_FILES[name]
    assert not list(snapshot.parents[1].glob("blobs/*.incomplete"))


def fetch(repo: str, root: Path, **options: Any) -> Path:
    return HubDownload(repo, root, **options).run()


def test_downloads_what_a_model_needs(hub: HubStandin, tmp_path: Path) -> None:
    snapshot = fetch(REPO, tmp_path)
    assert_whole(snapshot)
    assert not (snapshot / "README.md").exists()


def test_a_download_reports_how_far_it_is(
    hub: HubStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wyoming_whisper.models.disk.Progress.REPORT_S", 0)
    reports: list[tuple[str, float]] = []
    fetch(REPO, tmp_path, report=lambda what, done: reports.append((what, done)))
    assert {what for what, _ in reports} == {REPO}
    done = [fraction for _, fraction in reports]
    assert done == sorted(done)
    assert 0 < done[0] < done[-1] == 1
    reports.clear()
    fetch(REPO, tmp_path, report=lambda what, done: reports.append((what, done)))
    assert reports[-1] == (REPO, 1)  # what was here counts, too


def test_hub_library_finds_what_was_downloaded(hub: HubStandin, tmp_path: Path) -> None:
    snapshot = fetch(REPO, tmp_path)
    patterns = list(HubDownload.PATTERNS["ctranslate2"])
    found = huggingface_hub.snapshot_download(
        REPO, cache_dir=tmp_path, local_files_only=True, allow_patterns=patterns
    )
    assert Path(found) == snapshot


def test_ensure_downloads_once(hub: HubStandin, settings: Settings) -> None:
    path = ModelStore(settings).ensure("tiny")
    n_requests = len(hub.requests)
    assert ModelStore(settings).ensure("tiny") == path == ModelStore(settings).find("tiny")
    assert len(hub.requests) == n_requests


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_after=250_000),
        Fault(stall_after=250_000),
    ],
    ids=["cut", "stalled"],
)
def test_broken_line_is_resumed(
    hub: HubStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr("wyoming_whisper.models.download.HubDownload.TIMEOUT_S", 0.2)
    hub.faults["model.bin"] = [fault, Fault(cut_after=100_000)]
    assert_whole(fetch(REPO, tmp_path))
    assert [r.range for r in hub.gets("model.bin")] == [None, "bytes=250000-", "bytes=350000-"]


def test_download_goes_on_where_the_last_process_stopped(hub: HubStandin, tmp_path: Path) -> None:
    blobs(tmp_path).mkdir(parents=True)
    (blobs(tmp_path) / f"{BLOB}.incomplete").write_bytes(WEIGHTS[:300_000])
    assert_whole(fetch(REPO, tmp_path))
    assert [r.range for r in hub.gets("model.bin")] == ["bytes=300000-"]


@pytest.mark.parametrize(
    "partial", [WEIGHTS[:-1] + b"?", b"?" * 300_000, WEIGHTS + b"more", WEIGHTS]
)
def test_any_partial_file_ends_well(hub: HubStandin, tmp_path: Path, partial: bytes) -> None:
    blobs(tmp_path).mkdir(parents=True)
    (blobs(tmp_path) / f"{BLOB}.incomplete").write_bytes(partial)
    assert_whole(fetch(REPO, tmp_path))


def test_server_without_ranges(hub: HubStandin, tmp_path: Path) -> None:
    hub.faults["model.bin"] = [Fault(cut_after=250_000), Fault(ignore_range=True)]
    assert_whole(fetch(REPO, tmp_path))


def test_server_that_always_cuts_is_given_up(hub: HubStandin, tmp_path: Path) -> None:
    hub.faults["model.bin"] = [Fault(cut_after=1000, ignore_range=True) for _ in range(20)]
    with pytest.raises(ModelUnavailableError, match=r"can't be downloaded .*--local-files-only$"):
        fetch(REPO, tmp_path)
    assert len(hub.gets("model.bin")) == 1 + len(HubDownload.RETRY_DELAYS_S)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_hub_is_tried_again(hub: HubStandin, tmp_path: Path, status: int) -> None:
    hub.faults = {"info": [Fault(status=status)] * 2, "config.json": [Fault(status=status)]}
    assert_whole(fetch(REPO, tmp_path))


def test_wrong_hash_is_fetched_again(
    hub: HubStandin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults["model.bin"] = [Fault(content=b"?" * len(WEIGHTS))]
    assert_whole(fetch(REPO, tmp_path))
    assert "model.bin of Systran/faster-whisper-tiny arrived with a wrong hash" in caplog.text


def test_wrong_hash_twice_is_an_error(hub: HubStandin, tmp_path: Path) -> None:
    hub.faults["model.bin"] = [Fault(content=b"?" * len(WEIGHTS))] * 2
    with pytest.raises(ModelBrokenError, match=r"model\.bin .* arrived 2 times with a wrong hash"):
        fetch(REPO, tmp_path)
    assert not list(blobs(tmp_path).glob(f"{BLOB}*"))


def test_unknown_repository(hub: HubStandin, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model nobody/nothing on http://127"):
        fetch("nobody/nothing", tmp_path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>log in</html>", "login page or proxy between"),
        (b'{"id": "x"}', "doesn't say which revision"),
        (b'{"id": "x", "sha": "../../x"}', "doesn't say which revision"),
        (b"[]", "login page or proxy between"),
    ],
)
def test_something_else_answers(hub: HubStandin, tmp_path: Path, body: bytes, message: str) -> None:
    hub.faults["info"] = [Fault(status=200, content=body)]
    with pytest.raises(ModelUnavailableError, match=message):
        fetch(REPO, tmp_path)


def test_name_that_no_repository_can_have(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"x/y\.git is no name of a hub repository"):
        fetch("x/y.git", tmp_path)


def test_endless_answer_is_cut(hub: HubStandin, tmp_path: Path) -> None:
    hub.faults["model.bin"] = [Fault(content=WEIGHTS + bytes(10_000_000))] * 2
    with pytest.raises(ModelBrokenError, match="wrong hash"):
        fetch(REPO, tmp_path)


def test_repository_of_something_else(hub: HubStandin, tmp_path: Path) -> None:
    hub.repos["openai/whisper-tiny"] = {"config.json": b"{}", "model.safetensors": b""}
    with pytest.raises(ModelBrokenError, match=r"no model\.bin: it is not a CTranslate2 model"):
        fetch("openai/whisper-tiny", tmp_path)


@pytest.mark.parametrize(
    ("repo", "advice"),
    [
        ("openai/whisper-base.en", r"; --model base\.en is the same model in that layout$"),
        ("distil-whisper/distil-small.en", r"; --model distil-small\.en is the same model"),
        (
            "someone/whisper-small-de",
            (
                "`ct2-transformers-converter --model someone/whisper-small-de --output_dir "
                "whisper-small-de-ct2 --copy_files tokenizer.json preprocessor_config.json "
                "--quantization float16` makes one of it .* --model ./whisper-small-de-ct2"
            ),
        ),
    ],
)
def test_a_repository_of_transformers_says_what_to_do(
    hub: HubStandin, tmp_path: Path, repo: str, advice: str
) -> None:
    hub.repos[repo] = huggingface_files()
    with pytest.raises(ModelBrokenError, match=advice):
        fetch(repo, tmp_path)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("token", "advice"),
    [(None, "set hf_token to one that is"), ("bad", "the hf_token given isn't")],
)
def test_forbidden_repository(
    hub: HubStandin, tmp_path: Path, status: int, token: str | None, advice: str
) -> None:
    hub.gated[REPO] = status
    with pytest.raises(ModelUnavailableError, match=rf"HTTP {status}.*{advice}"):
        fetch(REPO, tmp_path, token=token)
    assert len(hub.requests) == 1


def test_token_is_for_the_hub_alone(hub: HubStandin, settings: Settings) -> None:
    hub.gated[REPO] = 401
    hub.storage = True
    ModelStore(replace(settings, hf_token="good")).ensure("tiny")
    sent = {request.path.split("/")[1]: request.authorization for request in hub.requests}
    assert sent == {"api": "Bearer good", "Systran": "Bearer good", "storage": None}


def test_mirror_that_lists_no_hashes(hub: HubStandin, tmp_path: Path) -> None:
    hub.without_hashes = True
    assert_whole(fetch(REPO, tmp_path))


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(
            ModelUnavailableError, match=r"can't be downloaded from http://127.*\(.*; 4 tries\)"
        ):
            fetch(REPO, tmp_path)
    huggingface_hub.close_session()


def test_hub_switched_off(hub: HubStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailableError, match="HF_HUB_OFFLINE forbids"):
        fetch(REPO, tmp_path)
    assert hub.requests == []


def test_local_files_only_never_asks(hub: HubStandin, settings: Settings) -> None:
    with pytest.raises(ModelUnavailableError, match="only local files are allowed"):
        ModelStore(replace(settings, local_files_only=True)).ensure("tiny")
    assert hub.requests == []


def test_no_room(hub: HubStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=33_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelUnavailableError, match=r"1\.1 MB needed, 34 MB to spare, 33 MB free"):
        fetch(REPO, tmp_path)
    assert hub.gets("model.bin") == []


def test_disk_fills_up(hub: HubStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        blobs(tmp_path).joinpath("x.incomplete").write_bytes(b"?")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("wyoming_whisper.models.download.HubDownload._stream", full)
    with pytest.raises(ModelUnavailableError, match=r"the disk is full: .* MB free"):
        fetch(REPO, tmp_path)
    assert not list(blobs(tmp_path).glob("*.incomplete"))


def test_folder_of_somebody_else(
    hub: HubStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/models--x")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(ModelUnavailableError, match=r"/data/models--x can't be written to"):
        fetch(REPO, tmp_path)


def test_corrupt_model_is_fetched_again(
    hub: HubStandin, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = write_cache(settings.data_dir[0], REPO, MODEL_FILES)
    (blobs(settings.data_dir[0]) / BLOB).write_bytes(WEIGHTS[:-5] + b"?" + WEIGHTS[-4:])
    assert ModelStore(settings).ensure("tiny") == snapshot  # looks right
    path = ModelStore(settings).ensure("tiny", verify=True)
    assert_whole(path)
    assert "model.bin is corrupt" in caplog.text
    assert len(hub.gets("model.bin")) == 1
    assert len(hub.gets("config.json")) == 0


def test_cut_off_model_is_fetched_again(
    hub: HubStandin, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    write_cache(settings.data_dir[0], REPO, {**MODEL_FILES, "model.bin": WEIGHTS[:5000]})
    assert_whole(ModelStore(settings).ensure("tiny"))
    assert "model.bin is cut short" in caplog.text
    assert "fetching tiny again" in caplog.text


def test_cut_off_model_without_network(settings: Settings) -> None:
    write_cache(settings.data_dir[0], REPO, {**MODEL_FILES, "model.bin": WEIGHTS[:5000]})
    with pytest.raises(ModelBrokenError, match=r"model\.bin is cut short"):
        ModelStore(replace(settings, local_files_only=True)).ensure("tiny")


def test_missing_tokenizer_is_made(hub: HubStandin, settings: Settings) -> None:
    small = dict(model_files(n_tokens=400))
    del small["tokenizer.json"]
    hub.repos["rhasspy/faster-whisper-tiny-int8"] = small
    path = ModelStore(settings).ensure("tiny-int8")
    assert '"<|startoftranscript|>"' in (path / "tokenizer.json").read_text()


def test_two_processes_fetch_each_byte_once(hub: HubStandin, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=fetch, args=(REPO, tmp_path)) for _ in range(2)]
    for process in others:
        process.start()
    for process in others:
        process.join(30)
        assert process.exitcode == 0
    assert_whole(tmp_path / blobs(tmp_path).parent / "snapshots" / COMMIT)
    assert len(hub.gets("model.bin")) == 1


def test_old_leftovers_are_swept(hub: HubStandin, tmp_path: Path) -> None:
    blobs(tmp_path).mkdir(parents=True)
    old, new = (blobs(tmp_path) / f"{age}.0badcafe.incomplete" for age in ("old", "new"))
    for leftover in (old, new):
        leftover.write_bytes(b"?")
    os.utime(old, (0, 0))
    fetch(REPO, tmp_path)
    assert not old.exists()
    assert new.exists()


def test_progress_is_logged_now_and_then(
    hub: HubStandin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("wyoming_whisper.models.disk.Progress.PROGRESS_S", 0.0)
    fetch(REPO, tmp_path)
    assert "Systran/faster-whisper-tiny: 1.1 MB of 1.1 MB (100 %)" in caplog.text
    names = {record.name for record in caplog.records}
    assert names == {"wyoming_whisper.models.download", "wyoming_whisper.machine.display"}


def test_progress_is_a_bar_on_a_terminal(
    hub: HubStandin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fetch(REPO, tmp_path)
    assert "Systran/faster-whisper-tiny: 100%" in capsys.readouterr().err


# Hugging Face's layout


def test_only_what_transformers_needs_is_fetched(
    hub: HubStandin, settings: Settings, tmp_path: Path
) -> None:
    hub.repos["openai/whisper-tiny"] = huggingface_files(weight_bytes=600_000)
    path = ModelStore(settings).ensure("tiny", layout="huggingface")
    found = {file.name for file in path.iterdir()}
    assert {"model.safetensors", "generation_config.json", "merges.txt"} <= found
    assert not {"README.md", "pytorch_model.bin", "flax_model.msgpack"} & found
    assert not any("fp32" in name for name in found)
    n_requests = len(hub.requests)
    assert ModelStore(settings).ensure("tiny", layout="huggingface") == path
    assert len(hub.requests) == n_requests


def test_hashes_are_compared_in_the_other_layout_too(hub: HubStandin, settings: Settings) -> None:
    hub.repos["openai/whisper-tiny"] = huggingface_files(weight_bytes=600_000)
    path = ModelStore(settings).ensure("tiny", layout="huggingface")
    weights = path / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.resolve().write_bytes(raw)
    assert ModelStore(settings).ensure("tiny", layout="huggingface") == path  # it looks whole
    ModelStore(settings).ensure("tiny", layout="huggingface", verify=True)
    assert weights.read_bytes()[-1] == 0


def test_weights_in_several_files_are_not_ours(hub: HubStandin, settings: Settings) -> None:
    files = dict(huggingface_files())
    files["model-00001-of-00002.safetensors"] = files.pop("model.safetensors")
    hub.repos["someone/large"] = files
    with pytest.raises(ModelBrokenError, match=r"no model\.safetensors.*in one file"):
        ModelStore(settings).ensure("someone/large", layout="huggingface")
