from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models.fakes import (
    etag,
    huggingface_files,
    model_files,
    vocabulary,
    weights,
    write_cache,
    write_folder,
)
from tests.support import HOME_EN
from wyoming_whisper.errors import (
    ModelBrokenError,
    ModelError,
    ModelUnavailableError,
)
from wyoming_whisper.models.folder import (
    ModelFolder,
)
from wyoming_whisper.models.listing import ModelEntry
from wyoming_whisper.models.stock import STOCK_MODELS, StockModel
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.whisper.tokenizer import LANGUAGES

TINY = "Systran/faster-whisper-tiny"
SMALL_FILES = model_files(n_tokens=200)


@pytest.fixture
def data(settings: Settings) -> Path:
    """The first data folder."""
    settings.data_dir[0].mkdir()
    return settings.data_dir[0]


# The table


def test_faster_whisper_knows_the_same_models() -> None:
    utils = pytest.importorskip("faster_whisper.utils")
    ours = {name: model.repo for name, model in STOCK_MODELS.items() if "int8" not in name}
    assert ours == utils._MODELS


def test_table_is_consistent() -> None:
    for model in STOCK_MODELS.values():
        target = STOCK_MODELS[model.alias_of or model.name]
        assert (target.repo, target.n_mels) == (model.repo, model.n_mels)
        assert model.n_mels == (128 if "v3" in model.repo else 80)
        assert model.languages == "en" or ".en" not in model.name


# Finding


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("tiny", TINY),
        (TINY, TINY),
        ("turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
        ("base-int8", "rhasspy/faster-whisper-base-int8"),
        ("base.int8", "rhasspy/faster-whisper-base-int8"),
        ("someone/whisper-small-de-ct2", "someone/whisper-small-de-ct2"),
    ],
)
def test_models_of_the_official_server_are_found(
    settings: Settings, data: Path, name: str, repo: str
) -> None:
    snapshot = write_cache(data, repo, SMALL_FILES)
    assert ModelStore(settings).find(name) == snapshot


@pytest.mark.parametrize("folder", ["download", "second", "data/hub"])
def test_every_data_folder_is_looked_at(tmp_path: Path, folder: str) -> None:
    settings = Settings(
        data_dir=(tmp_path / "data", tmp_path / "second"), download_dir=tmp_path / "download"
    )
    snapshot = write_cache(tmp_path / folder, TINY, SMALL_FILES)
    assert ModelStore(settings).find("tiny") == snapshot
    assert [e.name for e in ModelEntry.all(settings) if e.state == "cached"] == ["tiny"]


@pytest.mark.parametrize("folder", ["tiny", "faster-whisper-tiny", TINY])
def test_copied_folder_is_found_by_name(settings: Settings, data: Path, folder: str) -> None:
    path = write_folder(data / folder, SMALL_FILES)
    assert ModelStore(settings).find("tiny") == path


def test_own_folder_in_the_data_folder(settings: Settings, data: Path) -> None:
    path = write_folder(data / "my-model", SMALL_FILES)
    assert ModelStore(settings).find("my-model") == path


def test_local_folder(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_folder(tmp_path / "elsewhere" / "model", SMALL_FILES)
    monkeypatch.chdir(tmp_path)
    assert ModelStore(settings).find(str(path)) == path
    assert ModelStore(settings).find("elsewhere/model") == Path("elsewhere/model")


def test_known_name_wins_over_a_folder_here(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnavailableError):
        ModelStore(settings).find("tiny")


def test_main_is_preferred_then_the_newest_then_what_is_whole(
    settings: Settings, data: Path
) -> None:
    old = write_cache(data, TINY, SMALL_FILES, commit="1" * 40, main=False)
    new = write_cache(data, TINY, SMALL_FILES, commit="2" * 40, main=False)
    os.utime(old, (1, 1))
    assert ModelStore(settings).find("tiny") == new
    main = data / "models--Systran--faster-whisper-tiny" / "refs" / "main"
    main.write_text("1" * 40)
    assert ModelStore(settings).find("tiny") == old
    (old / "model.bin").unlink()
    assert ModelStore(settings).find("tiny") == new


def test_folder_of_something_else_is_no_model(settings: Settings, data: Path) -> None:
    (data / "tiny").mkdir()
    with pytest.raises(ModelUnavailableError):
        ModelStore(settings).find("tiny")


def test_model_that_is_nowhere(settings: Settings) -> None:
    with pytest.raises(ModelUnavailableError, match=r"tiny \(Systran/.*models download"):
        ModelStore(settings).find("tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", r"unknown model 'tinny': did you mean tiny "),
        ("Base.ENG", r"did you mean base\.en "),
        ("", "unknown model ''"),
        ("a/b/c", "unknown model"),
        ("../data", r"no model folder \.\./data"),
        ("/no/such/folder", "no model folder /no/such/folder"),
        ("~nobody-of-this-name/x", "no model folder ~nobody"),
        ("..--..", "no model folder"),
        ("a--b/c", "unknown model"),
        ("x\0y", "unknown model"),
        ("x" * 5000, "unknown model"),
    ],
)
def test_unknown_name(settings: Settings, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelStore(settings).find(name)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("BASE", r"base \(Systran/faster-whisper-base\)"),
        ("Large-V3", r"large-v3 \(Systran/faster-whisper-large-v3\)"),
        ("Base.INT8", r"base-int8 \(rhasspy/faster-whisper-base-int8\)"),
        ("https://huggingface.co/owner/name", "model owner/name is not"),
    ],
)
def test_names_are_taken_in_any_case_and_addresses_too(
    settings: Settings, name: str, known: str
) -> None:
    with pytest.raises(ModelUnavailableError, match=known):
        ModelStore(settings).find(name)


def test_languages_go_by_the_name_in_any_case() -> None:
    assert StockModel.languages_of("Distil-Large-V3") == ("en",)


def test_a_folder_of_that_very_name_comes_before_another_case(
    settings: Settings, data: Path
) -> None:
    (data / "BASE").mkdir()
    with pytest.raises(ModelError, match="BASE"):
        ModelStore(settings).find("BASE")


def test_a_model_that_is_gone_is_unknown(settings: Settings) -> None:
    with pytest.raises(ModelError, match="unknown model 'home-en'"):
        ModelStore(settings).ensure("home-en")
    assert "home-en" not in {entry.name for entry in ModelEntry.all(settings)}


# Whole or not


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.bin", None, r"model\.bin is missing"),
        ("model.bin", b"", r"model\.bin is empty"),
        ("model.bin", weights()[:3], r"model\.bin is cut short"),
        ("model.bin", weights()[:40], r"model\.bin is cut short"),
        ("model.bin", weights()[:-5], r"model\.bin is cut short"),
        ("model.bin", weights(spec="TransformerSpec"), "not a CTranslate2 Whisper"),
        ("model.bin", weights(version=9000), "has binary version 9000"),
        ("model.bin", b"version https://git-lfs.github.com/spec/v1", "not a CTranslate2 Whisper"),
        ("config.json", None, r"config\.json is missing"),
        ("config.json", b"{", r"config\.json is damaged"),
        ("config.json", b"[]", r"config\.json is damaged: it is not a JSON object"),
        ("config.json", b"\xff", r"config\.json is damaged"),
        ("tokenizer.json", b"<html>", r"tokenizer\.json is damaged"),
        ("vocabulary.json", None, r"vocabulary\.json is missing or empty"),
        ("vocabulary.json", b"", r"vocabulary\.json is missing or empty"),
        ("vocabulary.json", b'["a", "b', r"vocabulary\.json is damaged"),
        ("vocabulary.json", b'{"a": 1}', r"vocabulary\.json is damaged"),
        ("vocabulary.json", b"[]", r"vocabulary\.json is empty"),
    ],
)
def test_broken_file_is_named(
    settings: Settings, data: Path, name: str, content: bytes | None, message: str
) -> None:
    files = {key: value for key, value in SMALL_FILES.items() if key != name}
    snapshot = write_cache(data, TINY, files if content is None else {**files, name: content})
    with pytest.raises(ModelBrokenError, match=message):
        ModelFolder(snapshot).check()
    with pytest.raises(ModelBrokenError, match=message):
        ModelStore(settings).find("tiny")
    entry = next(entry for entry in ModelEntry.all(settings) if entry.name == "tiny")
    assert (entry.state, entry.path) == ("broken", snapshot)


def test_text_vocabulary_will_do_and_no_tokenizer(tmp_path: Path) -> None:
    files = {key: SMALL_FILES[key] for key in ("model.bin", "config.json")}
    tokens = "\n".join(vocabulary(200)).encode() + b"\n"
    ModelFolder(write_folder(tmp_path / "model", {**files, "vocabulary.txt": tokens})).check()


def test_shapes_are_read_without_weights(tmp_path: Path) -> None:
    shapes = {"encoder/conv1/weight": (384, 80, 3), "scale": ()}
    (tmp_path / "model.bin").write_bytes(weights(shapes))
    assert ModelFolder(tmp_path).shapes == shapes


@pytest.mark.parametrize("name", ["model.bin", "config.json"])
def test_corruption_is_found_offline(tmp_path: Path, name: str) -> None:
    snapshot = write_cache(tmp_path, TINY, SMALL_FILES)
    (snapshot / "tokenizer.local").write_text("no link: no hash to compare with")
    ModelFolder(snapshot).verify()
    blob = snapshot / name
    blob.write_bytes(SMALL_FILES[name][:-1] + b"?")
    with pytest.raises(ModelBrokenError, match=rf"{name} is corrupt"):
        ModelFolder(snapshot).verify()


# Listing and removing


def test_list_has_stock_and_other_models(settings: Settings, data: Path) -> None:
    snapshot = write_cache(data, "someone/other", SMALL_FILES)
    write_cache(data, "openai/whisper-tiny", {"tokenizer.json": b"{}"})  # of another program
    write_folder(data / "copied", SMALL_FILES)
    write_folder(data / "base", SMALL_FILES)
    entries = {e.name: e for e in ModelEntry.all(settings)}
    assert {name for name, e in entries.items() if e.state == "cached"} == {
        "someone/other",
        "copied",
        "base",
    }
    other = entries["someone/other"]
    size = sum(len(content) for content in SMALL_FILES.values())
    assert (other.path, other.size_bytes, other.languages) == (snapshot, size, "en")
    assert entries["turbo"].size_bytes == STOCK_MODELS["turbo"].download_bytes
    assert len(entries) == 3 - 1 + len([m for m in STOCK_MODELS.values() if not m.alias_of])


def test_list_without_any_folder() -> None:
    assert all(entry.path is None for entry in ModelEntry.all(Settings(data_dir=())) if entry.repo)


def test_remove_frees_what_it_says(settings: Settings, data: Path) -> None:
    folder = write_cache(data, TINY, SMALL_FILES).parents[1]
    (folder / "blobs" / "abc.incomplete").write_bytes(bytes(1000))
    locks = data / ".locks" / folder.name
    locks.mkdir(parents=True)
    (locks / "abc.lock").touch()
    kept = write_cache(data, "Systran/faster-whisper-base", SMALL_FILES)
    expected = sum(len(content) for content in SMALL_FILES.values()) + 1000 + 40
    assert ModelStore(settings).remove("tiny") == expected
    assert not folder.exists()
    assert not locks.exists()
    ModelFolder(kept).check()
    with pytest.raises(ModelUnavailableError):
        ModelStore(settings).remove("tiny")


def test_remove_a_download_that_never_finished(settings: Settings, data: Path) -> None:
    blobs = data / "models--Systran--faster-whisper-tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.incomplete").write_bytes(bytes(1000))
    assert ModelStore(settings).remove("tiny") == 1000


def test_remove_copied_folder_by_name_or_path(settings: Settings, data: Path) -> None:
    for name in ("tiny", str(data / "tiny")):
        path = write_folder(data / "tiny", SMALL_FILES)
        ModelStore(settings).remove(name)
        assert not path.exists()


def test_remove_snapshot_by_path_removes_its_blobs(settings: Settings, data: Path) -> None:
    snapshot = write_cache(data, TINY, SMALL_FILES)
    ModelStore(settings).remove(str(snapshot))
    assert not snapshot.parents[1].exists()
    assert data.exists()


def test_auto_can_not_be_removed(settings: Settings) -> None:
    with pytest.raises(ModelError, match="auto is a choice"):
        ModelStore(settings).remove("auto")


def test_nothing_outside_the_data_folders_is_removed(
    settings: Settings, data: Path, tmp_path: Path
) -> None:
    outside = write_folder(tmp_path / "outside", SMALL_FILES)
    (data / "linked").symlink_to(outside)
    (data / "tiny").symlink_to(outside)
    sibling = write_folder(tmp_path / "data2", SMALL_FILES)  # shares a prefix, not a folder
    for name in (str(outside), f"{data}/../outside", "linked", "tiny", str(sibling), str(data)):
        with pytest.raises(ModelError, match=r"is not in .*delete it yourself"):
            ModelStore(settings).remove(name)
    cache = tmp_path / "models--Systran--faster-whisper-base"
    cache.mkdir()
    (data / cache.name).symlink_to(cache)
    with pytest.raises(ModelUnavailableError):
        ModelStore(settings).remove("base")
    ModelFolder(outside).check()
    ModelFolder(sibling).check()
    assert cache.exists()


def test_remove_takes_shared_contents_nobody_else_uses(settings: Settings, data: Path) -> None:
    """The hub's library 2.x keeps some blobs once for all models of a cache."""
    store = data / "blobs"
    (store / "ab").mkdir(parents=True)
    (store / ".huggingface-shared-blobs").write_text("1\n")
    for repo, names in {"a/a": ("only-a", "both"), "b/b": ("both",)}.items():
        snapshot = write_cache(data, repo, SMALL_FILES)
        for name in names:
            (store / "ab" / name).write_bytes(bytes(100))
            (store / "ab" / f"{name}.refs").write_text("a hint")
            (snapshot.parents[1] / "blobs" / name).symlink_to(Path("..", "..", "blobs", "ab", name))
    ModelStore(settings).remove("a/a")
    assert {path.name for path in (store / "ab").iterdir()} == {"both", "both.refs"}


# Languages

ALL = tuple(LANGUAGES)
WITHOUT_YUE = tuple(code for code in LANGUAGES if code != "yue")


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("tiny.en", ("en",)),
        ("distil-small.en", ("en",)),
        ("distil-large-v3.5", ("en",)),
        ("someone/faster-whisper-small.en", ("en",)),
        ("someone/whisper.en-ct2", ("en",)),
        ("/models/base.en/", ("en",)),
        ("someone/whisper.english", WITHOUT_YUE),
        ("tiny", WITHOUT_YUE),
        ("base.int8", WITHOUT_YUE),
        ("large-v2", WITHOUT_YUE),
        ("large", ALL),
        ("large-v3-turbo", ALL),
        ("someone/whisper-large-v3-ct2", ALL),
        ("auto", WITHOUT_YUE),
    ],
)
def test_languages_by_name(name: str, languages: tuple[str, ...]) -> None:
    assert StockModel.languages_of(name) == languages


def folder_with(tmp_path: Path, **files: object) -> Path:
    """Write a model folder; `lang_ids` and `extras` stand for what they are kept in."""
    path = write_folder(tmp_path / "model", model_files())
    if "tokens" in files:
        (path / "vocabulary.json").write_text(json.dumps(files["tokens"]))
    if "lang_ids" in files:
        (path / "config.json").write_text(json.dumps({"lang_ids": files["lang_ids"]}))
    if "extras" in files:
        (path / "wyoming_whisper.json").write_text(json.dumps(files["extras"]))
    return path


def test_languages_by_files(tmp_path: Path) -> None:
    assert ModelFolder(write_folder(tmp_path / "v2", model_files())).languages("x/y") == WITHOUT_YUE
    v3 = write_folder(tmp_path / "v3", model_files(n_tokens=51_866, yue=True))
    assert ModelFolder(v3).languages("x/y") == ALL
    english = write_folder(tmp_path / "en", model_files(n_tokens=51_864))
    assert ModelFolder(english).languages("x/y") == ("en",)


def test_languages_without_ids_are_all_tokens(tmp_path: Path) -> None:
    assert ModelFolder(folder_with(tmp_path, lang_ids=None)).languages("x/y") == WITHOUT_YUE


def test_languages_of_a_small_vocabulary(tmp_path: Path) -> None:
    tokens = ["a", "", "<|de|>", "<|en|>", "<|translate|>", "<|xx|>"]
    path = folder_with(tmp_path, tokens=tokens, lang_ids=[2, 3, 5, 99])
    assert ModelFolder(path).languages("x/y") == ("en", "de")


def test_languages_the_model_says_itself(tmp_path: Path) -> None:
    path = folder_with(tmp_path, extras={"languages": ["en"], "tight_window": True})
    assert ModelFolder(path).languages("tiny") == ("en",)


def test_damaged_extras(tmp_path: Path) -> None:
    path = folder_with(tmp_path, extras=[])
    with pytest.raises(ModelBrokenError, match=r"wyoming_whisper\.json is damaged"):
        ModelFolder(path).languages("tiny")


# Without a network


def test_local_files_only_says_so(settings: Settings) -> None:
    with pytest.raises(ModelUnavailableError, match="only local files are allowed"):
        ModelStore(replace(settings, local_files_only=True)).ensure("tiny")


def test_broken_local_folder_is_not_replaced(settings: Settings, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "mine", {**SMALL_FILES, "model.bin": b""})
    with pytest.raises(ModelBrokenError, match=r"mine/model\.bin is empty"):
        ModelStore(settings).ensure(str(path))


def test_cached_int8_model_gets_its_tokenizer(settings: Settings, data: Path) -> None:
    files = {name: content for name, content in SMALL_FILES.items() if name != "tokenizer.json"}
    snapshot = write_cache(data, "rhasspy/faster-whisper-tiny-int8", files)
    assert ModelStore(replace(settings, local_files_only=True)).ensure("tiny-int8") == snapshot
    assert (snapshot / "tokenizer.json").is_file()


def test_hashes_are_the_hubs() -> None:
    assert etag("x", b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git's


# Hugging Face's layout


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("tiny", "openai/whisper-tiny"),
        ("base.en", "openai/whisper-base.en"),
        ("small-int8", "openai/whisper-small"),
        ("large-v1", "openai/whisper-large"),
        ("large", "openai/whisper-large-v3"),
        ("turbo", "openai/whisper-large-v3-turbo"),
        ("large-v3-turbo", "openai/whisper-large-v3-turbo"),
        ("distil-small.en", "distil-whisper/distil-small.en"),
        ("distil-large-v3.5", "distil-whisper/distil-large-v3.5"),
        ("someone/whisper-small-de", "someone/whisper-small-de"),
    ],
)
def test_a_name_stands_for_another_repository(
    settings: Settings, data: Path, name: str, repo: str
) -> None:
    snapshot = write_cache(data, repo, huggingface_files())
    assert ModelStore(settings).find(name, "huggingface") == snapshot
    other = write_folder(data / "plain" / "ct2", SMALL_FILES)
    assert ModelStore(settings).find(str(other)) == other


def test_both_layouts_of_a_model_live_side_by_side(settings: Settings, data: Path) -> None:
    one = write_cache(data, TINY, SMALL_FILES)
    other = write_cache(data, "openai/whisper-tiny", huggingface_files())
    assert ModelStore(settings).find("tiny") == one
    assert ModelStore(settings).find("tiny", "huggingface") == other
    names = {entry.name: entry for entry in ModelEntry.all(settings) if entry.state == "cached"}
    assert set(names) == {"tiny", "openai/whisper-tiny"}
    assert ModelStore(settings).remove("tiny", "huggingface") > 0
    assert ModelStore(settings).find("tiny") == one
    with pytest.raises(ModelUnavailableError, match="openai/whisper-tiny"):
        ModelStore(settings).find("tiny", "huggingface")


def test_what_others_cache_is_no_model_of_ours(settings: Settings, data: Path) -> None:
    files = {**huggingface_files(), "config.json": b'{"model_type": "bert"}'}
    write_cache(data, "google/bert", files)
    assert "google/bert" not in {entry.name for entry in ModelEntry.all(settings)}


def test_a_folder_is_written_in_the_other_layout_once(settings: Settings) -> None:
    with pytest.raises(ModelUnavailableError):
        ModelStore(settings).find(str(HOME_EN), "huggingface")
    path = ModelStore(settings).ensure(str(HOME_EN), layout="huggingface")
    assert path.is_relative_to(settings.data_dir[0] / "huggingface")
    assert ModelFolder(path).languages(str(HOME_EN)) == ("en",)
    before = (path / "model.safetensors").stat().st_mtime_ns
    assert ModelStore(settings).ensure(str(HOME_EN), layout="huggingface") == path
    assert ModelStore(settings).find(str(HOME_EN), "huggingface") == path
    assert (path / "model.safetensors").stat().st_mtime_ns == before


def test_a_cut_off_conversion_is_made_again(settings: Settings) -> None:
    path = ModelStore(settings).ensure(str(HOME_EN), layout="huggingface")
    (path / "tokenizer_config.json").unlink()
    (path / "model.safetensors").write_bytes(b"cut")
    assert ModelStore(settings).ensure(str(HOME_EN), layout="huggingface") == path
    ModelFolder(path).check("huggingface")


def test_a_full_disk_is_one_sentence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wyoming_whisper.models.huggingface._write_safetensors", full)
    with pytest.raises(ModelUnavailableError, match="can't be written: No space left on device"):
        ModelStore(settings).ensure(str(HOME_EN), layout="huggingface")


def test_languages_are_those_of_the_files(data: Path) -> None:
    multilingual = write_folder(data / "multi", huggingface_files())
    english = write_folder(data / "english", huggingface_files(languages=()))
    assert set(ModelFolder(multilingual).languages("x")) == {"en", "de"}
    assert ModelFolder(multilingual).is_multilingual
    assert ModelFolder(english).languages("x") == ("en",)
    assert not ModelFolder(english).is_multilingual
