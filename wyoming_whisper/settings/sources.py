"""Where options come from: defaults < options file < environment < flags."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import SettingsError, did_you_mean
from ..machine.files import read_text_file
from ..peers import shown
from .option import Option, Raw, Switch
from .options import OPTIONS, Settings

_LOGGER = logging.getLogger(__name__)
PREFIXES = ("WYO_WHISPER_", "WYOMING_WHISPER_")
"""Of environment variables; the official server's names work, ours win over them."""
SUPERVISOR_TOKEN = "SUPERVISOR_TOKEN"  # noqa: S105  (a variable's name)
"""The variable that Home Assistant's Supervisor gives to an add-on, and to nobody else."""


# -- what is understood for others: the official server, its add-on, earlier versions of this ----


def _stt_library(raw: Raw) -> None:
    ours = ("auto", "faster-whisper")
    if raw not in ours:
        raise ValueError(
            "this server runs Whisper with faster-whisper, not with other libraries"
            + did_you_mean(str(raw), ours)
        )


def _sherpa(raw: Raw) -> None:
    if not Switch.is_off(raw):
        raise ValueError("this server runs Whisper with faster-whisper, not with sherpa")


def _number(raw: Raw) -> None:
    try:
        float(raw if isinstance(raw, str) else "")
    except ValueError:
        raise ValueError("it must be a number") from None


ALL_OPTIONS: Mapping[str, Option] = {
    **OPTIONS,
    "stt_library": Option(_stt_library),
    "sherpa_streaming": Option(_sherpa, shape="switch", secret=True),
    # Home Assistant tells of changes here, nothing waits for it, and names are not put into the
    # prompt: these need no choice.
    "hass_refresh_seconds": Option(_number),
    "hass_prompt_max_tokens": Option(_number),
    "hass_prompt_timeout": Option(_number),
    # Means that Home Assistant shall not end commands either (settings_from).
    "vad_endpointing": Option(OPTIONS["endpointing"].read),
}
"""The options, and those of the official server that have no use here, or another name."""


RETIRED_MODELS = {
    "home-en": "home-en is gone from this program: it understood synthetic voices alone",
}
"""What became of models that earlier versions brought."""


# -- reading -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _RawOption:
    """A value and where it came from, for messages."""

    raw: Raw
    origin: str


def settings_from(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    addon_file: Path = Path("/data/options.json"),
) -> Settings:
    """Return the settings for parsed flags (a CommandParser's), variables and the options file.

    What is no option among `flags` is passed over. An overridden value is not looked at.
    `addon_file` is where the Supervisor writes what the user has set. Raises SettingsError.
    """
    raw_options = _from_environment(environ) | _from_flags(flags)
    if "options" in raw_options:
        file = cast("Path", _read("options", raw_options["options"]))
        raw_options = _from_file(file) | raw_options
    elif SUPERVISOR_TOKEN in environ:
        raw_options = _from_addon(addon_file) | raw_options
    values: dict[str, Any] = {name: _read(name, raw) for name, raw in raw_options.items()}
    silence = values.pop("vad_endpointing", "off")
    if silence != "off":
        # The official server then tells Home Assistant not to end commands itself.
        values = {"endpointing": silence, "requires_external_vad": False} | values
    if about := RETIRED_MODELS.get(values.get("model", "")):
        _LOGGER.warning(
            "%s: %s; auto chooses a model instead; set it to auto, or to what `models list` shows",
            *(raw_options["model"].origin, about),
        )
        values["model"] = "auto"
    if "data_dir" not in values:
        values["data_dir"] = (Settings.default_data_dir(environ),)
    return Settings(**{name: value for name, value in values.items() if name in OPTIONS})


def _read(name: str, option: _RawOption) -> object:
    about = ALL_OPTIONS[name]
    try:
        return about.read(option.raw)
    except ValueError as error:
        raw = option.raw
        state = ("on" if raw else "off") if isinstance(raw, bool) else shown(raw)
        state = "set" if about.secret else state
        raise SettingsError(f"{option.origin} is {state}, but {error}") from None


def _from_flags(flags: Mapping[str, Any]) -> dict[str, _RawOption]:
    return {
        name: _RawOption(flags[name], Option.flag_of(name))
        for name in ALL_OPTIONS
        if flags.get(name) is not None
    }


def _from_environment(environ: Mapping[str, str]) -> dict[str, _RawOption]:
    options: dict[str, _RawOption] = {}
    for prefix in PREFIXES:  # the later one wins
        for name, option in ALL_OPTIONS.items():
            raw_option = _from_variable(prefix + name.upper(), option, environ)
            if raw_option is not None:
                options[name] = raw_option
    _warn_of_unknown_variables(environ)
    return options


def _from_variable(variable: str, option: Option, environ: Mapping[str, str]) -> _RawOption | None:
    """Return what a variable holds, or the file that VARIABLE_FILE names (docker secrets)."""
    text, origin = environ.get(variable), variable
    file = environ.get(f"{variable}_FILE")
    if file and option.shape == "lines":
        return _RawOption([f"@{file}"], f"{variable}_FILE")
    if file:
        origin = f"{variable}_FILE ({file})"
        text = _read_text(Path(file), origin)
    if text is None or (not text.strip() and option.shape in ("one", "repeat", "lines")):
        return None
    if option.shape == "repeat":  # paths, where blanks and commas are letters
        return _RawOption([item for item in text.split(os.pathsep) if item.strip()], origin)
    return _RawOption(text.strip(), origin)


def _warn_of_unknown_variables(environ: Mapping[str, str]) -> None:
    # A misspelled variable would go unnoticed: the default stays.
    for variable in sorted(environ):
        for prefix in PREFIXES:
            name = variable.removeprefix(prefix)
            if name == variable or name.removesuffix("_FILE").lower() in ALL_OPTIONS:
                continue
            hint = did_you_mean(variable, [prefix + option.upper() for option in OPTIONS])
            _LOGGER.warning("The variable %s is no option and does nothing%s", variable, hint)


def _from_addon(file: Path) -> dict[str, _RawOption]:
    """Return what an add-on has instead of the defaults, and what the user has set."""
    defaults = {
        "data_dir": "/data/models",
        "http_port": "8099",  # ingress_port in the manifest
        "http_allow": "172.30.32.2",  # the Supervisor, through which the page is shown (ingress)
    }
    options = {name: _RawOption(raw, "the app (add-on)") for name, raw in defaults.items()}
    return options | (_from_file(file, of_addon=True) if file.exists() else {})


def _from_file(path: Path, *, of_addon: bool = False) -> dict[str, _RawOption]:
    of_official_addon = ("debug_logging", "custom_model", "custom_model_type")
    names = {*ALL_OPTIONS, *of_official_addon} - {"options"}
    options: dict[str, _RawOption] = {}
    for key, raw in _parse_options(path).items():
        origin = f"{key} in {path}"
        if key not in names and of_addon:
            # Misspelt it can't be, the Supervisor knows the manifest: it is of another version.
            _LOGGER.warning("%s is not an option of this version and does nothing", origin)
            continue
        if key not in names:
            raise SettingsError(f"{origin} is not an option{did_you_mean(key, names)}")
        if raw is None or (raw == "" and key not in ("zeroconf", "vad_clip")):
            continue
        if not _is_raw(raw):
            raise SettingsError(f"{origin} must be one value or a list")
        options[key] = _RawOption(raw, origin)
    return _without_addon_keys(options)


def _parse_options(path: Path) -> Mapping[Any, Any]:
    """Return the file's keys and values, numbers as text; raises SettingsError."""
    text = _read_text(path, "The options file")
    try:
        if path.suffix == ".json":
            content = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
        else:
            content = _from_yaml(text)
    except ValueError as error:
        raise SettingsError(f"The options file {path} can't be understood: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise SettingsError(f"The options file {path} must hold lines of the form NAME: VALUE")
    return content


def _from_yaml(text: str) -> object:
    """Return the content with every scalar but null as text: `language: no` is Norwegian."""
    import yaml  # not needed by those who give flags only

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012  (yaml's own attribute)
            first: [(tag, regexp) for tag, regexp in resolvers if tag == "tag:yaml.org,2002:null"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return cast("object", yaml.load(text, Loader))  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        # Not str(error), which quotes the line: a token may stand there.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"line {line}: {error.problem}") from None
    except yaml.YAMLError:
        raise ValueError("it has characters that are not text") from None


def _is_raw(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str | bool)


def _without_addon_keys(options: dict[str, _RawOption]) -> dict[str, _RawOption]:
    """Return the options with the official add-on's spellings translated to ours."""
    debug, custom, library = (
        options.pop(key, None) for key in ("debug_logging", "custom_model", "custom_model_type")
    )
    if debug is not None:
        options.setdefault("debug", debug)
    model = options.get("model")
    if model is not None and model.raw == "custom":
        if custom is None or custom.raw == "null":
            raise SettingsError(f"{model.origin} is 'custom', but custom_model names no model")
        options["model"] = custom
        if library is not None:
            options["stt_library"] = library
    return options


def _read_text(path: Path, origin: str) -> str:
    try:
        return read_text_file(path)
    except ValueError as error:
        raise SettingsError(f"{origin}: {error}") from None
