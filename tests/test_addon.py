"""The add-on: its manifest is the settings', its texts are complete, and its life is rehearsed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info

from tests.serving.test_supervisor import StandIn, supervisor  # noqa: F401  (a fixture)
from tests.support import TIMEOUT_SECONDS, FakeTranscriber, load_settings
from wyoming_whisper import __version__
from wyoming_whisper.errors import SettingsError
from wyoming_whisper.models.stock import STOCK_MODELS
from wyoming_whisper.serving import supervisor as supervisor_module
from wyoming_whisper.serving.server import Server
from wyoming_whisper.settings.option import Decimal, Whole
from wyoming_whisper.settings.options import OPTIONS, Settings
from wyoming_whisper.whisper.tokenizer import LANGUAGES

ROOT = Path(__file__).parent.parent
MANIFEST = yaml.safe_load((ROOT / "config.yaml").read_text())
SCHEMA: dict[str, Any] = MANIFEST["schema"]
TRANSLATIONS = ("en", "de", "fr", "es", "it", "nl", "pl", "pt")

FIELDS = {"debug_logging": "debug", "custom_model": "model"}
"""The official add-on's names for fields that are named otherwise."""

NOT_ASKED = {
    "uri": "the port in the container is fixed, the user maps it",
    "zeroconf": "the Supervisor announces",
    "allow": "all of Home Assistant comes from the Supervisor's network",
    "socket_mode": "there is no unix socket",
    "max_connections": "no household has as many",
    "max_utterance_seconds": "Home Assistant ends a command after 15 s",
    "max_queue": "no household says so much at once",
    "deadline": "nobody waits longer for a lamp",
    "drain_seconds": "the Supervisor kills after 10",
    "options": "it is this very file",
    "data_dir": "/data is what an add-on keeps",
    "download_dir": "the same",
    "http_port": "ingress",
    "http_allow": "ingress",
    "http_names": "ingress",
    "device": "there is no GPU in an add-on",
    "strict_backend": "the same",
    "ray_address": "a cluster is not one house's",
    "max_cache_size": "the same: it is of engines",
    "prefer_recent_languages": "what is certain counts anyway",
    "audio_context": "auto is the best for every stock model",
    "compute_type": "default is the best for the processor",
    "vad_min_speech_ms": "a household has no figure for it",
    "vad_min_silence_ms": "the same",
    "vad_clip_threshold": "the same",
    "vad_clip_pad_ms": "the same",
    "no_speech_timeout": "the same",
    "max_command_seconds": "Home Assistant ends a command after 15 s",
    "log_format": "the Supervisor's log has its own",
    "home": "Home Assistant itself is followed",
    "hass_api": "the Supervisor leads there",
    "hass_token": "the Supervisor has given one",
}
"""Settings that an add-on's user has no use for, and why."""


def field_of(option: str) -> str:
    return FIELDS.get(option, option)


# -- options and settings, both ways -------------------------------------------------------


def test_every_option_is_a_setting() -> None:
    assert {field_of(option) for option in SCHEMA} <= set(OPTIONS)


def test_every_setting_is_an_option_or_there_is_a_reason() -> None:
    asked = {field_of(option) for option in SCHEMA}
    assert asked | set(NOT_ASKED) == set(OPTIONS)
    assert not asked & set(NOT_ASKED)


def load(
    tmp_path: Path,
    options: object,
    argv: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings of an add-on whose options file holds `options`."""
    file = tmp_path / "options.json"
    file.write_text(json.dumps(options))
    environ = {"SUPERVISOR_TOKEN": "a-token", "HOME": "/nowhere", **(environ or {})}
    return load_settings(argv, environ, addon_file=file)


def test_the_manifests_defaults_are_the_settings(tmp_path: Path) -> None:
    loaded = load(tmp_path, MANIFEST["options"])
    for field in dataclasses.fields(Settings):
        if field.name not in ("data_dir", "http_port", "http_allow"):
            assert getattr(loaded, field.name) == field.default, field.name
    assert loaded.data_dir == (Path("/data/models"),)
    assert (loaded.http_port, loaded.http_allow) == (MANIFEST["ingress_port"], ("172.30.32.2/32",))


def test_what_the_user_must_set_has_a_default() -> None:
    """Otherwise the Supervisor doesn't start the add-on until it is set."""
    flat = {name: kind[0] if isinstance(kind, list) else kind for name, kind in SCHEMA.items()}
    required = {name for name, kind in flat.items() if not kind.endswith("?")}
    assert required == set(MANIFEST["options"])


EXAMPLES = {"str?": "text", "password?": "secret", "bool": True, "bool?": True}


def examples(kind: str | list[str]) -> list[object]:
    """Return values of a schema's type, as the Supervisor writes them into the options file."""
    if isinstance(kind, list):
        return [[value] for value in examples(kind[0])]
    if found := re.fullmatch(r"list\((.+)\)\??", kind):
        return list(found[1].split("|"))
    if found := re.fullmatch(r"(int|float)\((\d+),(\d+)\)\??", kind):
        return [int(found[2]), int(found[3])] if found[1] == "int" else [0.0, 0.5, 1.0]
    if kind.startswith("match(^(tcp"):
        return ["tcp://pc:10300?mac=00:11:22:33:44:55", "https://example.org/v1?model=whisper-1"]
    if kind.startswith("match(^(@"):
        return ["tee vee=TV", "please=", r"c sharp=C\=#"]
    if kind.startswith("match(^([*]"):
        return ["*", "https://notes.example:8443", "app://obsidian.md"]
    return [EXAMPLES[kind]]


@pytest.mark.parametrize("option", SCHEMA)
def test_every_value_that_can_be_chosen_is_understood(option: str, tmp_path: Path) -> None:
    for value in examples(SCHEMA[option]):
        beside = {"model": "custom"} if option == "custom_model" else {}
        if option == "model" and value == "custom":
            beside = {"custom_model": "owner/name"}
        load(tmp_path, {**MANIFEST["options"], **beside, option: value})


RANGES = {name: kind for name, kind in SCHEMA.items() if re.match(r"(int|float)\(", str(kind))}


@pytest.mark.parametrize("option", RANGES)
def test_a_number_has_the_same_bounds_in_the_manifest_and_on_the_command_line(option: str) -> None:
    found = re.fullmatch(r"(int|float)\((\d+),(\d+)\)\??", RANGES[option])
    assert found
    reader = OPTIONS[field_of(option)].read
    assert reader == (
        Whole(int(found[2]), int(found[3]))
        if found[1] == "int"
        else Decimal(int(found[2]), int(found[3]), getattr(reader, "unit", ""))
    )


def test_every_number_of_the_manifest_has_bounds() -> None:
    """Only what has no bounds on the command line may have none there."""
    for option, kind in SCHEMA.items():
        if isinstance(OPTIONS[field_of(option)].read, Whole | Decimal):
            assert option in RANGES, (option, kind)


def choices(kind: str) -> set[str]:
    found = re.fullmatch(r"list\((.+)\)\??", kind)
    assert found
    return set(found[1].split("|"))


def test_every_model_is_one_that_is_known() -> None:
    assert choices(SCHEMA["model"]) - {"auto", "custom", "home-en"} <= set(STOCK_MODELS)


def test_the_model_that_is_gone_is_still_read_and_nothing_speaks_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without it in the schema the Supervisor would not start who saved it."""
    saved = {**MANIFEST["options"], "model": "home-en"}
    assert SCHEMA["model"].endswith("|home-en)")
    for options in (saved, {**saved, "model": "custom", "custom_model": "home-en"}):
        caplog.clear()
        assert load(tmp_path, options).model == "auto"
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "set it to auto, or to what `models list` shows" in record.getMessage()
    for language in TRANSLATIONS:
        text = (ROOT / "translations" / f"{language}.yaml").read_text("utf-8")
        assert "home-en" not in text, language


def test_the_languages_are_whispers() -> None:
    assert choices(SCHEMA["language"]) == {"auto", *LANGUAGES}
    assert choices(SCHEMA["languages"][0]) == set(LANGUAGES)


def test_a_model_of_ones_own_is_named_beside(tmp_path: Path) -> None:
    options = {"model": "custom", "custom_model": "/share/mine"}
    assert load(tmp_path, options).model == "/share/mine"
    with pytest.raises(SettingsError, match="custom_model names no model"):
        load(tmp_path, {"model": "custom"})


def test_options_of_another_version_still_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**MANIFEST["options"], "language": "de", "of_next_year": True}
    assert load(tmp_path, options).language == "de"
    assert "of_next_year" in caplog.text
    assert load(tmp_path, {}).language == "auto"


def test_the_options_file_is_nobodys_but_the_add_ons(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text('{"language": "de"}')
    assert load_settings([], {"HOME": "/nowhere"}, addon_file=file).language == "auto"


def test_flags_and_variables_win_over_the_add_ons_options(tmp_path: Path) -> None:
    environ = {"WYOMING_WHISPER_DATA_DIR": "/elsewhere"}
    loaded = load(tmp_path, {"language": "de"}, ["--language", "fr"], environ)
    assert (loaded.language, loaded.data_dir) == ("fr", (Path("/elsewhere"),))


# -- what lies where the Supervisor looks --------------------------------------------------


def test_the_version_is_the_packages() -> None:
    assert MANIFEST["version"] == __version__


def test_the_ports_agree() -> None:
    port = urlsplit(Settings(data_dir=()).uri).port
    assert list(MANIFEST["ports"]) == [f"{port}/tcp", f"{MANIFEST['ingress_port']}/tcp"]
    assert MANIFEST["watchdog"] == f"tcp://[HOST]:[PORT:{port}]"


@pytest.mark.parametrize(
    "name", ["DOCS.md", "icon.png", "logo.png", "apparmor.txt", "translations"]
)
def test_the_add_ons_files_are_linked_beside_the_manifest(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert link.resolve() == ROOT / "addon" / name
    assert link.exists()


@pytest.mark.parametrize(("name", "size"), [("icon.png", (128, 128)), ("logo.png", (250, 100))])
def test_the_pictures_have_the_size_that_is_shown(name: str, size: tuple[int, int]) -> None:
    head = (ROOT / name).read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", head[16:]) == size


def test_the_profile_is_one_and_has_the_add_ons_name() -> None:
    """The Supervisor renames it, by the one line that begins so."""
    text = (ROOT / "apparmor.txt").read_text()
    assert re.findall(r"^profile (\S+)", text, re.MULTILINE) == [MANIFEST["slug"]]


# -- texts ---------------------------------------------------------------------------------


def texts(language: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "translations" / f"{language}.yaml").read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def test_there_is_a_translation_for_each_language_and_no_other() -> None:
    assert {path.stem for path in (ROOT / "translations").iterdir()} == set(TRANSLATIONS)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_option_has_a_name_and_a_text(language: str) -> None:
    found = texts(language)
    assert set(found) == {"configuration", "network"}
    assert set(found["network"]) == set(MANIFEST["ports"])
    assert list(found["configuration"]) == list(texts("en")["configuration"])
    assert set(found["configuration"]) == set(SCHEMA)
    for option, text in found["configuration"].items():
        assert set(text) == {"name", "description"}, option
        assert text["name"].strip(), option
        assert text["description"].rstrip(' "“”’»').endswith("."), option  # noqa: RUF001


@pytest.mark.parametrize("language", TRANSLATIONS[1:])
def test_no_text_is_left_in_english(language: str) -> None:
    english, found = texts("en"), texts(language)
    for option, text in found["configuration"].items():
        assert text["description"] != english["configuration"][option]["description"], option
    assert found["network"] != english["network"]


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_texts_name_other_options_as_they_are_called(language: str) -> None:
    """Where English quotes another option's name, the translation quotes that option's name."""
    english, found = texts("en")["configuration"], texts(language)["configuration"]
    for option, text in english.items():
        for other, named in english.items():
            if f'"{named["name"]}"' in text["description"]:
                assert found[other]["name"] in found[option]["description"], (option, other)


# -- the life of an add-on -----------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(loaded: Settings) -> AsyncIterator[int]:
    """Serve as the add-on does, on any free port; give the port."""
    listening = asyncio.get_running_loop().create_future()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.msg.startswith("listening at") and not listening.done():
                listening.set_result(record.args[1])  # type: ignore[index]

    handler = Listening()
    logger = logging.getLogger("wyoming_whisper.serving.server")
    logger.addHandler(handler)
    changed = dataclasses.replace(loaded, uri="tcp://127.0.0.1:0", http_port=0, model="tiny")
    server = Server(changed, lambda _: FakeTranscriber())
    task = asyncio.create_task(server.run())
    try:
        yield await asyncio.wait_for(listening, TIMEOUT_SECONDS)
    finally:
        logger.removeHandler(handler)
        server.stop()
        await asyncio.wait_for(task, TIMEOUT_SECONDS)


@pytest.fixture
def as_add_on(
    supervisor: StandIn,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> StandIn:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("SUPERVISOR_TOKEN", "a-token")
    monkeypatch.setattr(supervisor_module.SupervisorDiscovery, "API", supervisor.url)
    return supervisor


async def test_each_start_is_told_to_the_supervisor_and_to_nobody_else(
    as_add_on: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("zeroconf, beside the Supervisor")

    monkeypatch.setattr("wyoming_whisper.serving.discovery.Announcement.start", never)
    loaded = load(tmp_path, MANIFEST["options"])
    for _ in range(2):  # an update, for example
        async with running(dataclasses.replace(loaded, zeroconf="")) as port:
            path, token, body = await asyncio.to_thread(as_add_on.next_asked)
            assert (path, token) == ("/discovery", "Bearer a-token")
            uri = f"tcp://{socket.gethostname()}:{port}"
            assert body == {"service": "wyoming", "config": {"uri": uri}}
    assert as_add_on.asked.empty()


async def test_home_assistant_and_the_watchdog_find_what_was_announced(
    as_add_on: StandIn,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(load(tmp_path, MANIFEST["options"])) as port:
        for _ in range(3):  # the watchdog connects and says nothing
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
        async with AsyncClient.from_uri(f"tcp://127.0.0.1:{port}") as client:
            await client.write_event(Describe().event())
            event = await asyncio.wait_for(client.read_event(), TIMEOUT_SECONDS)
        assert event is not None
        assert Info.from_event(event).asr[0].installed
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


async def test_a_supervisor_that_fails_stops_nothing(
    as_add_on: StandIn,
    tmp_path: Path,
) -> None:
    as_add_on.answers = [(500, b"")] * 1000
    loaded = load(tmp_path, MANIFEST["options"])
    async with running(loaded) as port:
        await asyncio.to_thread(as_add_on.next_asked)
        async with AsyncClient.from_uri(f"tcp://127.0.0.1:{port}") as client:
            await client.write_event(Describe().event())
            assert await asyncio.wait_for(client.read_event(), TIMEOUT_SECONDS)
