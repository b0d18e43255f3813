from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import load_settings
from wyoming_whisper.commands.console import CommandParser
from wyoming_whisper.errors import SettingsError
from wyoming_whisper.settings.option import Option
from wyoming_whisper.settings.options import OPTIONS, Settings
from wyoming_whisper.settings.sources import PREFIXES

HOME = {"HOME": "/home/user"}


def load(argv: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Settings:
    return load_settings(argv, {**HOME, **(environ or {})})


def load_file(path: Path, text: str) -> Settings:
    path.write_text(text, encoding="utf-8")
    return load(["--options", str(path)])


def error(argv: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(argv, environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- defaults ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("model", "auto"),
        ("language", "auto"),
        ("download_dir", None),
        ("compute_type", "default"),
        ("beam_size", 0),
        ("initial_prompt", None),
        ("whisper_task", "transcribe"),
        ("vad_filter", False),
        ("vad_threshold", 0.5),
        ("vad_min_speech_ms", 250),
        ("vad_min_silence_ms", 2000),
        ("vad_clip", False),
        ("vad_clip_threshold", 0.5),
        ("vad_clip_pad_ms", 400),
        ("local_files_only", False),
        ("zeroconf", None),
        ("debug", False),
        ("log_format", logging.BASIC_FORMAT),
    ],
)
def test_defaults_are_the_official_servers(name: str, default: object) -> None:
    assert getattr(load(), name) == default


def test_defaults_where_ours_differ() -> None:
    settings = load()
    assert settings.uri == "tcp://0.0.0.0:10300"
    assert settings.data_dir == (Path("/home/user/.local/share/wyoming-whisper"),)
    assert (settings.device, settings.backend, settings.cpu_threads) == ("auto", "auto", 0)
    assert settings.audio_context == "auto"


@pytest.mark.parametrize(
    ("xdg", "folder"),
    [
        ("/data/share", "/data/share/wyoming-whisper"),
        ("relative", "/home/user/.local/share/wyoming-whisper"),
        ("", "/home/user/.local/share/wyoming-whisper"),
    ],
)
def test_data_folder_follows_xdg_when_absolute(xdg: str, folder: str) -> None:
    assert load(environ={"XDG_DATA_HOME": xdg}).data_dir == (Path(folder),)


def test_without_a_home_folder_a_data_folder_must_be_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert load_settings(["--data-dir", "/data"], {}).data_dir == (Path("/data"),)
    with pytest.raises(SettingsError, match="--data-dir"):
        load_settings([], {})


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().model = "tiny"  # type: ignore[misc]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_default_is_what_its_own_text_reads_as(name: str) -> None:
    default = getattr(load(), name)
    text = ":".join(map(str, default)) if isinstance(default, tuple) else str(default)
    if default is not None:
        assert getattr(load(environ={f"WYOMING_WHISPER_{name.upper()}": text}), name) == default


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.choices])
def test_every_listed_choice_is_accepted(name: str) -> None:
    for choice in OPTIONS[name].choices:
        assert getattr(load([Option.flag_of(name), choice]), name) == choice


# -- one spelling, four sources ------------------------------------------------------------

VALUES: list[tuple[str, str, object]] = [
    ("uri", "unix:///run/whisper.sock", "unix:///run/whisper.sock"),
    ("uri", "stdio://", "stdio://"),
    ("uri", "tcp://[::]:10300", "tcp://[::]:10300"),
    ("zeroconf", "Kitchen", "Kitchen"),
    ("model", "base-int8", "base-int8"),
    ("data_dir", "/data/a b,c", (Path("/data/a b,c"),)),
    ("download_dir", "/models", Path("/models")),
    ("backend", "tensorrt", "tensorrt"),
    ("device", "cuda:1", "cuda:1"),
    ("language", "de", "de"),
    ("language", "no", "no"),  # a language, although YAML reads `no` as false
    ("compute_type", "int8_float32", "int8_float32"),
    ("max_cache_size", "500MB", 500_000_000),
    ("max_cache_size", "1.5 gb", 1_500_000_000),
    ("beam_size", "3", 3),
    ("cpu_threads", "2", 2),
    ("initial_prompt", "Turn on the lights.", "Turn on the lights."),
    ("whisper_task", "translate", "translate"),
    ("vad_threshold", "0.25", 0.25),
    ("vad_min_speech_ms", "100", 100),
    ("vad_min_silence_ms", "500", 500),
    ("vad_clip", "faster-whisper", True),
    ("vad_clip_threshold", "1", 1.0),
    ("vad_clip_pad_ms", "0", 0),
    ("audio_context", "full", "full"),
    ("log_format", "at %(asctime)s", "at %(asctime)s"),
]


@pytest.mark.parametrize(("name", "text", "value"), VALUES)
def test_all_sources_read_alike(name: str, text: str, value: object, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{text}\n")
    options = tmp_path / "options.yaml"
    options.write_text(f"{name}: {text}\n")
    variable = name.upper()
    for settings in (
        load([Option.flag_of(name), text]),
        load([f"{Option.flag_of(name)}={text}"]),
        load(environ={f"WYOMING_WHISPER_{variable}": text}),
        load(environ={f"WYO_WHISPER_{variable}": text}),
        load(environ={f"WYOMING_WHISPER_{variable}_FILE": str(secret)}),
        load(environ={f"WYO_WHISPER_{variable}_FILE": str(secret)}),
        load(["--options", str(options)]),
    ):
        assert getattr(settings, name) == value


def test_later_sources_win(tmp_path: Path) -> None:
    options, secret = tmp_path / "options.yaml", tmp_path / "secret"
    options.write_text("model: from-options\n")
    secret.write_text("from-file")
    sources = [
        {"WYOMING_WHISPER_OPTIONS": str(options)},
        {"WYO_WHISPER_MODEL": "from-theirs"},
        {"WYO_WHISPER_MODEL_FILE": str(secret)},
        {"WYOMING_WHISPER_MODEL": "from-ours"},
        {"WYOMING_WHISPER_MODEL_FILE": str(secret)},
    ]
    expected = ["from-options", "from-theirs", "from-file", "from-ours", "from-file"]
    environ: dict[str, str] = {}
    for source, model in zip(sources, expected, strict=True):
        environ |= source
        assert load(environ=environ).model == model
        assert load(["--model", "from-flag"], environ).model == "from-flag"


@pytest.mark.parametrize("source", ["flag", "ours", "theirs", "file"])
def test_the_model_that_is_gone_is_auto_with_a_warning(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("model: home-en\n")
    argv, environ, origin = {
        "flag": (["--model", "home-en"], {}, "--model"),
        "ours": ([], {"WYOMING_WHISPER_MODEL": "home-en"}, "WYOMING_WHISPER_MODEL"),
        "theirs": ([], {"WYO_WHISPER_MODEL": "home-en"}, "WYO_WHISPER_MODEL"),
        "file": (["--options", str(options)], {}, f"model in {options}"),
    }[source]
    assert load(argv, environ).model == "auto"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"{origin}: home-en is gone from this program: it understood synthetic voices alone; "
        "auto chooses a model instead; set it to auto, or to what `models list` shows"
    )


def test_a_folder_may_have_the_name_of_the_model_that_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert load(["--model", "/share/home-en"]).model == "/share/home-en"
    assert load(["--model", "base"], {"WYO_WHISPER_MODEL": "home-en"}).model == "base"
    assert caplog.records == []


def test_what_is_overridden_is_not_looked_at() -> None:
    assert load(["--beam-size", "2"], {"WYO_WHISPER_BEAM_SIZE": "many"}).beam_size == 2


@pytest.mark.parametrize("word", ["1", "true", "YES", "y", "on", " on "])
def test_words_that_switch_on(word: str) -> None:
    assert load(environ={"WYO_WHISPER_VAD_FILTER": word}).vad_filter


@pytest.mark.parametrize("word", ["0", "false", "no", "N", "off", ""])
def test_words_that_switch_off(word: str, tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("vad_filter: true")
    environ = {"WYOMING_WHISPER_OPTIONS": str(options), "WYO_WHISPER_VAD_FILTER": word}
    assert not load(environ=environ).vad_filter


def test_a_flag_switches_off_what_the_environment_switched_on() -> None:
    environ = {"WYOMING_WHISPER_DEBUG": "1"}
    assert load(environ=environ).debug
    assert not load(["--no-debug"], environ).debug


@pytest.mark.parametrize("name", ["MODEL", "BEAM_SIZE", "DATA_DIR", "DOWNLOAD_DIR", "URI"])
def test_an_empty_variable_is_unset(name: str) -> None:
    assert load(environ={f"WYO_WHISPER_{name}": " "}) == load()
    assert load(environ={f"WYOMING_WHISPER_{name}_FILE": ""}) == load()


def test_data_folders_are_split_in_variables_and_replaced_by_flags(tmp_path: Path) -> None:
    environ = {"WYO_WHISPER_DATA_DIR": "/a::/b"}
    assert load(environ=environ).data_dir == (Path("/a"), Path("/b"))
    assert load(["--data-dir", "/c", "--data-dir", "/d"], environ).data_dir == (
        Path("/c"),
        Path("/d"),
    )
    settings = load_file(tmp_path / "options.yaml", "data_dir: [/e, /f]")
    assert settings.data_dir == (Path("/e"), Path("/f"))


def test_home_is_expanded_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    assert load(environ={"WYO_WHISPER_DATA_DIR": "~/m"}).data_dir == (Path("/home/user/m"),)
    assert "no such home folder" in error(["--download-dir", "~nobody-of-this-name/m"])


# -- zeroconf and clipping, where an empty value means something ----------------------------


@pytest.mark.parametrize(
    ("argv", "environ", "name"),
    [
        ([], {}, None),
        (["--zeroconf"], {}, ""),
        (["--zeroconf", "Kitchen"], {}, "Kitchen"),
        ([], {"WYO_WHISPER_ZEROCONF": ""}, ""),
        ([], {"WYO_WHISPER_ZEROCONF": "true"}, ""),
        (["--zeroconf", "off"], {"WYO_WHISPER_ZEROCONF": ""}, None),
    ],
)
def test_zeroconf_without_a_name_means_our_own(
    argv: list[str], environ: dict[str, str], name: str | None
) -> None:
    assert load(argv, environ).zeroconf == name


@pytest.mark.parametrize(
    ("argv", "environ", "clips"),
    [
        ([], {}, False),
        (["--vad-clip"], {}, True),
        (["--vad-clip", "faster-whisper"], {}, True),
        (["--vad-clip", "sherpa", "qwen3-asr"], {}, False),
        ([], {"WYO_WHISPER_VAD_CLIP": ""}, True),
        ([], {"WYO_WHISPER_VAD_CLIP": "sherpa, faster-whisper"}, True),
        (["--vad-clip", "off"], {"WYO_WHISPER_VAD_CLIP": ""}, False),
    ],
)
def test_clipping_is_on_for_all_libraries_or_for_ours(
    argv: list[str], environ: dict[str, str], clips: bool
) -> None:
    assert load(argv, environ).vad_clip == clips


# -- mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0.05", "5e-2", ".05", "0.050"])
def test_a_probability_may_be_written_in_any_usual_way(text: str) -> None:
    assert load(["--vad-threshold", text]).vad_threshold == 0.05


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--beam-size", "many"], "--beam-size is 'many', but it must be a whole number"),
        (["--beam-size", "-1"], "whole number"),
        (["--beam-size", "9" * 5000], "whole number"),
        (
            ["--beam-size", "999999"],
            "--beam-size is '999999', but it must be a whole number from 0 to 20",
        ),
        (["--beam-size", "21"], "from 0 to 20"),
        (
            ["--cpu-threads", "999"],
            "--cpu-threads is '999', but it must be a whole number from 0 to 256",
        ),
        (["--cpu-threads", "257"], "from 0 to 256"),
        (
            ["--upstream-hedge", "60.5"],
            "--upstream-hedge is '60.5', but it must be seconds from 0 to 60",
        ),
        (["--upstream-hedge", "inf"], "seconds from 0 to 60"),
        (["--vad-threshold", "1e99"], "a number from 0 to 1"),
        (["--vad-threshold", ""], "a number from 0 to 1"),
        (["--vad-threshold", "1.5"], "a number from 0 to 1"),
        (["--vad-threshold", "nan"], "a number from 0 to 1"),
        (["--vad-threshold", "half"], "a number from 0 to 1"),
        (["--whisper-task", "translte"], "transcribe or translate; did you mean translate?"),
        (["--device", "gpu"], "auto, cpu, cuda or cuda:N"),
        (["--uri", "tcp://localhost"], "tcp://HOST:PORT"),
        (["--uri", "tcp://[::1:10300"], "tcp://HOST:PORT"),
        (["--uri", "http://localhost:80"], "tcp://HOST:PORT"),
        (["--uri", "unix://run/whisper.sock"], "unix:///PATH"),
        (["--model", ""], "--model is '', but it must be auto, a model's name such as base"),
        (["--language", " "], "--language is ' ', but it must not be empty"),
        (["--vad-clip", "whisper"], "did you mean faster-whisper?"),
        (["--log-format", "%(level"], "format of Python's logging"),
        (["--log-format", "%(foo)s"], "field not found in record: 'foo'"),
        (["--log-format", "%(levelname)d"], "format of Python's logging"),
        (["--allow", "null"], "it must be addresses or networks such as 192.168.1.0/24"),
        (["--openai-origins", "null"], "null is what any sandboxed frame or local file is"),
        (["--beam-size"], "--beam-size: expected one argument"),
        (["--debug=yes"], "--debug"),
        (["--beem-size", "5"], "--beem-size is not an option; did you mean --beam-size?"),
        (["--beam", "5"], "--beam is not an option; did you mean --beam-size?"),
        (["--xyzzy"], "--xyzzy is not an option"),
        (["transcribe"], "'transcribe' doesn't belong here"),
        (["--options", "/nowhere/options.yaml"], "/nowhere/options.yaml can't be read"),
        (["--options", ""], "--options is ''"),
    ],
)
def test_a_mistaken_flag_is_one_sentence(argv: list[str], message: str) -> None:
    assert message in error(argv)


def test_a_mistaken_variable_is_named(tmp_path: Path) -> None:
    secret = tmp_path / "threads"
    secret.write_text("four\n")
    assert error(environ={"WYO_WHISPER_DEBUG": "maybe"}).startswith("WYO_WHISPER_DEBUG is 'maybe'")
    message = error(environ={"WYOMING_WHISPER_CPU_THREADS_FILE": str(secret)})
    assert message.startswith(f"WYOMING_WHISPER_CPU_THREADS_FILE ({secret}) is 'four'")
    message = error(environ={"WYO_WHISPER_MODEL_FILE": str(tmp_path / "none")})
    assert "WYO_WHISPER_MODEL_FILE" in message
    assert "No such file" in message


def test_an_unknown_variable_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    environ = {
        "WYO_WHISPER_BEEM_SIZE": "5",
        "WYOMING_WHISPER_MODLE_FILE": "/x",
        "WYOMING_WHISPER_SERVICE_HOST": "10.0.0.1",  # as Kubernetes makes them
        "WYO_WHISPER_LANGUAGE": "de",
        "BEEM_SIZE": "5",
    }
    assert load(environ=environ).language == "de"
    assert len(caplog.messages) == 3
    text = caplog.text
    assert (
        "WYO_WHISPER_BEEM_SIZE is no option and does nothing; did you mean WYO_WHISPER_BEAM" in text
    )
    assert "did you mean WYOMING_WHISPER_MODEL" in text


# -- the options file ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["options.json", "options.yaml", "options"])
def test_json_and_yaml_are_read_alike(name: str, tmp_path: Path) -> None:
    content = {
        "model": "tiny",
        "beam_size": 2,
        "vad_threshold": 0.25,
        "debug": True,
        "initial_prompt": "ja, nein",
        "language": None,
        "data_dir": ["/a", "/b"],
    }
    settings = load_file(tmp_path / name, json.dumps(content))
    assert (settings.model, settings.beam_size, settings.vad_threshold) == ("tiny", 2, 0.25)
    assert (settings.debug, settings.initial_prompt) == (True, "ja, nein")
    assert (settings.language, settings.data_dir) == ("auto", (Path("/a"), Path("/b")))


def test_an_empty_options_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    assert load_file(path, "# nothing\n") == dataclasses.replace(load(), options=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beem_size: 5", "beem_size in {path} is not an option; did you mean beam_size?"),
        ("beam-size: 5", "did you mean beam_size?"),
        ("options: other.yaml", "options in {path} is not an option"),
        ("beam_size: [1]", "beam_size in {path} is ['1'], but it must be a whole number"),
        ("beam_size: true", "whole number"),
        ("model: {a: b}", "model in {path} must be one value or a list"),
        ("model: [[a]]", "one value or a list"),
        ("debug: perhaps", "on or off"),
        ("debug: [true]", "on or off"),
        ("data_dir: []", "at least one folder"),
        ("- model", "NAME: VALUE"),
        ("tiny", "NAME: VALUE"),
        ("debug: true\nmodel: *tiny", "{path} can't be understood: line 2: "),
        ("model: 'tiny", "{path} can't be understood: line 1: "),
        ("model: !secret name", "{path} can't be understood"),
        ("? [a]\n: b", "{path} can't be understood"),
        ("model: \x07", "{path} can't be understood"),
    ],
)
def test_a_mistaken_options_file_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(text)
    assert message.replace("{path}", str(path)) in error(["--options", str(path)])


def test_an_options_file_that_is_not_text_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "options.json"
    broken.write_text('{"model": ')
    assert "can't be understood" in error(["--options", str(broken)])
    broken.write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in error(["--options", str(broken)])
    assert "can't be read" in error(["--options", str(tmp_path)])


def test_a_long_value_is_cut_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(f"beam_size: {'x' * 5000}")
    assert len(error(["--options", str(path)])) < 500


# -- the official server and its add-on ----------------------------------------------------

ADDON_OPTIONS: dict[str, Any] = {  # a fresh /data/options.json of the official add-on 3.8.1
    "model": "auto",
    "language": "en",
    "beam_size": 0,
    "custom_model_type": "faster-whisper",
    "stt_library": "auto",
    "whisper_task": "transcribe",
    "sherpa_streaming": False,
    "vad_clip": False,
    "local_files_only": False,
    "debug_logging": False,
    "bias_names": False,
}


def load_addon(tmp_path: Path, **changes: object) -> Settings:
    return load_file(tmp_path / "options.json", json.dumps({**ADDON_OPTIONS, **changes}))


def test_a_fresh_options_file_of_the_official_addon_works(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    official = dataclasses.replace(load(), options=path, language="en", bias_names=False)
    assert load_addon(tmp_path) == official


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"debug_logging": True}, "debug", True),
        ({"vad_clip": True}, "vad_clip", True),
        ({"custom_model": "org/repo"}, "model", "auto"),
        ({"model": "custom", "custom_model": "org/repo"}, "model", "org/repo"),
        ({"model": "tiny", "custom_model": "null"}, "model", "tiny"),
        ({"custom_model_type": "sherpa"}, "model", "auto"),  # of no custom model
        (
            {"model": "custom", "custom_model": "a/b", "stt_library": "sherpa"},
            "model",
            "a/b",
        ),
        ({"initial_prompt": None}, "initial_prompt", None),
        ({"initial_prompt": "null"}, "initial_prompt", None),
        ({"initial_prompt": ""}, "initial_prompt", None),
        ({"initial_prompt": "Hi."}, "initial_prompt", "Hi."),
        ({"hf_token": "secret"}, "hf_token", "secret"),
        ({"vad_endpointing": None}, "endpointing", "off"),
        ({"vad_endpointing": 0}, "requires_external_vad", True),
        ({"vad_endpointing": 0.5}, "endpointing", "0.5"),
        ({"vad_endpointing": 0.5}, "requires_external_vad", False),
    ],
)
def test_options_of_the_official_addon_are_translated(
    changes: dict[str, object], name: str, value: object, tmp_path: Path
) -> None:
    assert getattr(load_addon(tmp_path, **changes), name, None) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "custom"}, "custom_model names no model"),
        ({"model": "custom", "custom_model": "null"}, "custom_model names no model"),
        (
            {"model": "custom", "custom_model": "a/b", "custom_model_type": "sherpa"},
            "custom_model_type in {path} is 'sherpa', but this server runs Whisper",
        ),
        ({"stt_library": "onnx-asr"}, "stt_library in {path} is 'onnx-asr', but this server"),
        ({"sherpa_streaming": True}, "sherpa_streaming in {path} is set, but this server"),
        ({"vad_endpointing": 60}, "vad_endpointing in {path} is '60', but it must be off, auto"),
    ],
)
def test_options_that_need_what_is_not_here_are_one_sentence(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_addon(tmp_path, **changes)
    assert message.replace("{path}", str(tmp_path / "options.json")) in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "endpointing", "external_vad"),
    [
        ([], "off", True),
        (["--endpointing", "auto"], "auto", True),
        (["--endpointing", "off"], "off", True),
        (["--endpointing", "0"], "off", True),
        (["--endpointing", "0.70"], "0.7", True),
        (["--endpointing", "1.25", "--no-requires-external-vad"], "1.25", False),
        (["--vad-endpointing", "0.7"], "0.7", False),
        (["--vad-endpointing", "0.7", "--endpointing", "auto"], "auto", False),
        (["--vad-endpointing", "0.7", "--requires-external-vad"], "0.7", True),
    ],
)
def test_the_end_of_speech(argv: list[str], endpointing: str, external_vad: bool) -> None:
    settings = load(argv)
    assert (settings.endpointing, settings.requires_external_vad) == (endpointing, external_vad)


@pytest.mark.parametrize("value", ["soon", "-1", "0.05", "11", ".", "1e1", "on", "nan", "0,7"])
def test_an_end_of_speech_that_is_none_is_one_sentence(value: str) -> None:
    with pytest.raises(SettingsError, match="must be off, auto, or seconds of silence"):
        load([f"--endpointing={value}"])


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("https://huggingface.co/Systran/faster-whisper-base", "Systran/faster-whisper-base"),
        ("https://huggingface.co/owner/name/tree/main", "owner/name"),
        ("huggingface.co/owner/name/", "owner/name"),
        ("https://hf.co/owner/name?library=x", "owner/name"),
        ("https://huggingface.co/owner", "https://huggingface.co/owner"),
        ("https://evil.example/owner/name", "https://evil.example/owner/name"),
        ("Auto", "auto"),
    ],
)
def test_a_models_address_on_the_hub_names_its_repository(name: str, model: str) -> None:
    assert load(["--model", name]).model == model


OFFICIAL_OPTIONS = {  # of wyoming-faster-whisper 3.8.1, with a value that another server may have
    "uri": "tcp://0.0.0.0:10300",
    "zeroconf": "faster-whisper",
    "model": "small-int8",
    "data_dir": "/data",
    "download_dir": "/data",
    "device": "cpu",
    "language": "de",
    "compute_type": "int8",
    "beam_size": "5",
    "cpu_threads": "4",
    "initial_prompt": "Licht",
    "whisper_task": "transcribe",
    "vad_filter": None,
    "vad_threshold": "0.5",
    "vad_min_speech_ms": "250",
    "vad_min_silence_ms": "2000",
    "vad_endpointing": "0.8",
    "vad_clip": "faster-whisper",
    "vad_clip_threshold": "0.5",
    "vad_clip_pad_ms": "400",
    "stt_library": "faster-whisper",
    "local_files_only": None,
    "hass_token": "secret",
    "hass_api": "http://homeassistant.local:8123/api",
    "hass_refresh_seconds": "0.0",
    "hass_prompt_max_tokens": "200",
    "hass_prompt_timeout": "1.0",
    "debug": None,
    "log_format": "%(message)s",
}
FIRST_OPTIONS = {  # of our 0.1.0, that the official server has not
    "allow": "192.168.1.0/24",
    "audio_context": "full",
    "backend": "faster-whisper",
    "bias_names": None,
    "deadline": "60",
    "drain_seconds": "5",
    "eager": None,
    "endpointing": "auto",
    "hass_wording": None,
    "http_allow": "192.168.1.2",
    "http_names": "whisper.example.org",
    "http_port": "8099",
    "http_text": None,
    "idle_unload": "600",
    "ignore_client_language": None,
    "languages": "en,de",
    "live_text": None,
    "lowercase": None,
    "max_cache_size": "4GB",
    "max_command_seconds": "10",
    "max_connections": "16",
    "max_queue": "8",
    "max_utterance_seconds": "60",
    "names": "Zorbo",
    "no_speech_timeout": "5",
    "openai_api": None,
    "openai_origins": "https://notes.example",
    "prefer_recent_languages": None,
    "prefers_auto_gain": None,
    "prefers_noise_reduction": None,
    "ray_address": "auto",
    "replace": "tee vee=TV",
    "requires_external_vad": None,
    "socket_mode": "660",
    "strict_backend": None,
    "strip_punctuation": None,
    "upstream_hedge": "2",
    "upstreams": "tcp://pc:10300",
}
SECRETS = {"hf_token": "a", "openai_key": "b", "upstream_key": "c"}  # of 0.1.0, without flags


@pytest.mark.parametrize(
    ("name", "value"), [*OFFICIAL_OPTIONS.items(), *FIRST_OPTIONS.items()], ids=lambda item: item
)
def test_flags_and_variables_of_earlier_servers_work(
    name: str, value: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    by_flag = load([Option.flag_of(name), *([value] if value else [])])
    assert by_flag == load(environ={f"WYO_WHISPER_{name.upper()}": value or "on"})
    assert by_flag == load(environ={f"WYOMING_WHISPER_{name.upper()}": value or "on"})
    if value is None:
        assert load([f"--no-{name.replace('_', '-')}"]) == load(
            environ={f"WYO_WHISPER_{name.upper()}": "off"}
        )
    assert caplog.records == []


@pytest.mark.parametrize(("name", "value"), SECRETS.items())
def test_secrets_of_earlier_servers_are_variables(name: str, value: str, tmp_path: Path) -> None:
    assert getattr(load(environ={f"WYOMING_WHISPER_{name.upper()}": value}), name) == value
    assert getattr(load_file(tmp_path / "options.yaml", f"{name}: {value}"), name) == value


OFFICIAL_COMMAND_LINE = """
--uri stdio:// --stt-library faster-whisper --model tiny-int8 --data-dir /local
--download-dir /models --language en --vad-filter --vad-clip --device cpu --compute-type int8
--beam-size 1 --cpu-threads 4 --initial-prompt null --whisper-task transcribe --vad-threshold 0.5
--vad-min-speech-ms 250 --vad-min-silence-ms 2000 --vad-clip-threshold 0.5 --vad-clip-pad-ms 400
--local-files-only --zeroconf --debug --log-format %(message)s
"""


def test_a_command_line_of_the_official_server_works() -> None:
    settings = load(OFFICIAL_COMMAND_LINE.split())
    assert (settings.uri, settings.model, settings.device) == ("stdio://", "tiny-int8", "cpu")
    assert settings.initial_prompt is None
    assert settings.vad_filter
    assert settings.vad_clip


@pytest.mark.parametrize(
    "argv",
    [
        ["--sherpa-streaming"],
        ["--stt-library", "sherpa"],
        ["--stt-library", "transformers"],
        ["--stt-library", "onnx-asr"],
        ["--stt-library", "funasr"],
        ["--stt-library", "qwen3-asr"],
    ],
)
def test_official_flags_not_had_here_say_so_from_any_source(argv: list[str]) -> None:
    wanted = r"this server runs Whisper with faster-whisper"
    with pytest.raises(SettingsError, match=f"^{argv[0]} is .*({wanted})"):
        load(argv)
    variable = argv[0].removeprefix("--").replace("-", "_").upper()
    with pytest.raises(SettingsError, match=f"^WYO_WHISPER_{variable} is .*({wanted})"):
        load(environ={f"WYO_WHISPER_{variable}": argv[1] if argv[1:] else "1"})


def test_official_flags_not_had_here_may_be_off() -> None:
    environ = {"WYO_WHISPER_HASS_TOKEN": "", "WYO_WHISPER_SHERPA_STREAMING": "false"}
    assert load(["--no-sherpa-streaming"], environ) == load()


def test_names_are_lists_however_they_are_given(tmp_path: Path) -> None:
    assert load(["--names", "Zorbo, Big Bertha,,Zorbo"]).names == ("Zorbo", "Big Bertha")
    file = tmp_path / "options.json"
    assert load_file(file, '{"names": ["Lamp, the second", "Fritz"]}').names == (
        "Lamp, the second",
        "Fritz",
    )
    assert load(environ={"WYOMING_WHISPER_NAMES": "Rosie\nFritz"}).names == ("Rosie", "Fritz")


def test_a_home_assistant_is_an_address() -> None:
    url = "https://home.example.org:8123/api"
    assert load(["--hass-api", url]).hass_api == url
    for wrong in ("homeassistant.local", "ftp://home", "http://", "http://home:port"):
        assert "an address such as http://" in error(["--hass-api", wrong])


def test_the_official_servers_ways_of_asking_home_assistant_change_nothing() -> None:
    flags = ["--hass-refresh-seconds", "5", "--hass-prompt-max-tokens", "200"]
    assert load([*flags, "--hass-prompt-timeout", "0.5"]) == load()
    assert "it must be a number" in error(["--hass-prompt-timeout", "soon"])


def test_a_token_for_home_assistant_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hunter2\n")
    for prefix in PREFIXES:
        assert load(environ={f"{prefix}HASS_TOKEN_FILE": str(file)}).hass_token == "hunter2"


# -- secrets and help ----------------------------------------------------------------------


def test_tokens_are_never_shown() -> None:
    settings = load(environ={"WYOMING_WHISPER_HF_TOKEN": "hf_abc"})
    assert settings.hf_token == "hf_abc"
    assert "hf_abc" not in repr(settings)
    settings = load(["--hass-token", "hunter2"])
    assert settings.hass_token == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in error(["--hass-tokn=hunter2"])


@pytest.mark.parametrize(
    "text", ["hf_token: 'hf_abc", "hf_token: [hf_abc]", "hf_token: {hf_abc: }"]
)
def test_a_broken_options_file_does_not_show_a_token(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_file(tmp_path / "options.yaml", text)
    assert "hf_abc" not in str(caught.value)


def test_the_hub_token_has_no_flag() -> None:
    assert "set WYOMING_WHISPER_HF_TOKEN" in error(["--hf-token", "hf_abc"])


@pytest.mark.parametrize(("flag", "all_of_them"), [("--help", False), ("--help-all", True)])
def test_help_shows_what_homes_need_and_all_of_it_the_rest(
    flag: str, all_of_them: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        load([flag])
    assert done.value.code in (None, 0)
    text = capsys.readouterr().out
    for name, option in OPTIONS.items():
        expected = option.flag and (all_of_them or not option.rare)
        assert (f"  {Option.flag_of(name)}" in text) == expected, name
    assert "--sherpa-streaming" not in text
    assert "--hass-refresh-seconds" not in text
    assert "(default: tcp://0.0.0.0:10300)" in text
    assert all(compute_type in text for compute_type in OPTIONS["compute_type"].choices)


def test_about_forty_options_are_shown() -> None:
    assert sum(not option.rare for option in OPTIONS.values()) <= 45


def test_a_parser_may_offer_some_options_only() -> None:
    parser = CommandParser("prog", "", ("data_dir",))
    assert parser.parse(["--data-dir", "/a"]).data_dir == ["/a"]
    with pytest.raises(SettingsError, match="--beam-size is not an option of wyoming-whisper prog"):
        parser.parse(["--beam-size", "5"])
