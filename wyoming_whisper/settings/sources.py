"""Where options come from: defaults < options file < environment < flags."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import SettingsError
from .messages import did_you_mean, shortened
from .option import Option, Shape, flag_name
from .options import OPTIONS, Settings
from .readers import Raw, absent, as_number, as_wait
from .server import default_data_dir
from .text_files import read_text_file

_LOGGER = logging.getLogger(__name__)
PREFIXES = ("WYO_WHISPER_", "WYOMING_WHISPER_")
"""Of environment variables; the official server's names work, ours win over them."""
FILE_SUFFIX = "_FILE"
"""A variable with this ending names a file with the value (docker secrets)."""
SUPERVISOR_TOKEN = "SUPERVISOR_TOKEN"  # noqa: S105  (a variable's name)
"""The variable that Home Assistant's Supervisor gives to an add-on, and to nobody else."""
ADDON_OPTIONS = Path("/data/options.json")
"""Where the Supervisor writes what the user has set."""
ADDON_DEFAULTS: Mapping[str, str] = {
    "data_dir": "/data/models",
    "http_port": "8099",  # ingress_port in the manifest
    "http_allow": "172.30.32.2",  # the Supervisor, through which the page is shown (ingress)
}
"""What an add-on has instead of the defaults."""


def _known_but_absent(reason: str, shape: Shape = "one", flag: bool = True) -> Option:
    return Option("", "", absent(reason), shape, flag=flag, hidden=True, secret=True)


_NO_SHERPA = "this server runs Whisper with faster-whisper, not with sherpa"
_ABSENT: Mapping[str, Option] = {
    "sherpa_streaming": _known_but_absent(_NO_SHERPA, "switch"),
    # Home Assistant tells of changes here, nothing waits for it, and names are not put into the
    # prompt: these need no choice.
    "hass_refresh_seconds": Option("", "", as_number, hidden=True),
    "hass_prompt_max_tokens": Option("", "", as_number, hidden=True),
    "hass_prompt_timeout": Option("", "", as_number, hidden=True),
}
"""The official server's options that this one hasn't: without effect, or an error when used."""
_ALIASES: Mapping[str, Option] = {"vad_endpointing": Option("", "", as_wait, hidden=True)}
"""The official server's options that are others here."""
ALL_OPTIONS = {**OPTIONS, **_ABSENT, **_ALIASES}
_ADDON_KEYS = ("debug_logging", "custom_model", "custom_model_type")
"""Keys of the official add-on that are no option of either server."""
RETIRED_MODEL = "home-en"
"""A model that came with earlier versions, and that options saved then may name."""
ABOUT_RETIRED = f"{RETIRED_MODEL} is gone from this program: it understood synthetic voices alone"


@dataclass(frozen=True)
class _Given:
    """A value and where it came from, for messages."""

    raw: Raw
    origin: str


def settings_from(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings for parsed flags (an OptionParser's), variables and the options file.

    What is no option among `flags` is passed over. An overridden value is not looked at.
    Raises SettingsError.
    """
    given = _from_environment(environ) | _from_flags(flags)
    if "options" in given:
        given = _from_file(cast("Path", _read("options", given["options"]))) | given
    elif SUPERVISOR_TOKEN in environ:
        given = _from_addon() | given
    values: dict[str, Any] = {name: _read(name, found) for name, found in given.items()}
    if seconds := values.pop("vad_endpointing", None):
        # The official server then tells Home Assistant not to end commands itself.
        values = {"endpointing": f"{seconds:g}", "requires_external_vad": False} | values
    if values.get("model") == RETIRED_MODEL:
        _LOGGER.warning(
            "%s: %s; auto chooses a model instead; set it to auto, or to what `models list` shows",
            *(given["model"].origin, ABOUT_RETIRED),
        )
        values["model"] = "auto"
    if "data_dir" not in values:
        values["data_dir"] = (default_data_dir(environ),)
    return Settings(**{name: value for name, value in values.items() if name in OPTIONS})


def _read(name: str, given: _Given) -> object:
    option = ALL_OPTIONS[name]
    try:
        return option.read(given.raw)
    except ValueError as error:
        state = "set" if option.secret else shortened(given.raw)
        raise SettingsError(f"{given.origin} is {state}, but {error}") from None


def _from_flags(flags: Mapping[str, Any]) -> dict[str, _Given]:
    return {
        name: _Given(flags[name], flag_name(name))
        for name in ALL_OPTIONS
        if flags.get(name) is not None
    }


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for prefix in PREFIXES:  # the later one wins
        for name, option in ALL_OPTIONS.items():
            found = _from_variable(prefix + name.upper(), option, environ)
            if found is not None:
                given[name] = found
    _warn_of_unknown_variables(environ)
    return given


def _from_variable(variable: str, option: Option, environ: Mapping[str, str]) -> _Given | None:
    text, origin = environ.get(variable), variable
    file = environ.get(variable + FILE_SUFFIX)
    if file and option.shape == "lines":
        return _Given([f"@{file}"], f"{variable}{FILE_SUFFIX}")
    if file:
        origin = f"{variable}{FILE_SUFFIX} ({file})"
        text = _read_text(Path(file), origin)
    if text is None or (not text.strip() and option.shape in ("one", "repeat", "lines")):
        return None
    if option.shape == "repeat":  # paths, where blanks and commas are letters
        return _Given([item for item in text.split(os.pathsep) if item.strip()], origin)
    return _Given(text.strip(), origin)


def _warn_of_unknown_variables(environ: Mapping[str, str]) -> None:
    # A misspelled variable would go unnoticed: the default stays.
    for variable in sorted(environ):
        for prefix in PREFIXES:
            name = variable.removeprefix(prefix)
            if name == variable or name.removesuffix(FILE_SUFFIX).lower() in ALL_OPTIONS:
                continue
            known = [prefix + option.upper() for option in OPTIONS]
            hint = did_you_mean(variable, known)
            _LOGGER.warning("The variable %s is no option and does nothing%s", variable, hint)


def _from_addon() -> dict[str, _Given]:
    given = {name: _Given(raw, "the app (add-on)") for name, raw in ADDON_DEFAULTS.items()}
    if ADDON_OPTIONS.exists():
        given |= _from_file(ADDON_OPTIONS, of_addon=True)
    return given


def _from_file(path: Path, *, of_addon: bool = False) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    known = {*ALL_OPTIONS, *_ADDON_KEYS} - {"options"}
    for key, raw in _parse_options(path).items():
        origin = f"{key} in {path}"
        if key not in known and of_addon:
            # Misspelt it can't be, the Supervisor knows the manifest: it is of another version.
            _LOGGER.warning("%s is not an option of this version and does nothing", origin)
            continue
        if key not in known:
            raise SettingsError(f"{origin} is not an option{did_you_mean(key, known)}")
        if raw is None or (raw == "" and key not in ("zeroconf", "vad_clip")):
            continue
        if not _is_raw(raw):
            raise SettingsError(f"{origin} must be one value or a list")
        given[key] = _Given(raw, origin)
    return _without_addon_keys(given)


def _parse_options(path: Path) -> Mapping[Any, Any]:
    """Return the file's keys and values, numbers as text; raises SettingsError."""
    text = _read_text(path, "The options file")
    try:
        content = _from_json(text) if path.suffix == ".json" else _from_yaml(text)
    except ValueError as error:
        raise SettingsError(f"The options file {path} can't be understood: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise SettingsError(f"The options file {path} must hold lines of the form NAME: VALUE")
    return content


def _from_json(text: str) -> object:
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)


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


def _without_addon_keys(given: dict[str, _Given]) -> dict[str, _Given]:
    """Return the options with the official add-on's spellings translated to ours."""
    debug, custom, library = (given.pop(key, None) for key in _ADDON_KEYS)
    if debug is not None:
        given.setdefault("debug", debug)
    model = given.get("model")
    if model is not None and model.raw == "custom":
        if custom is None or custom.raw == "null":
            raise SettingsError(f"{model.origin} is 'custom', but custom_model names no model")
        given["model"] = custom
        if library is not None:
            given["stt_library"] = library
    return given


def _read_text(path: Path, origin: str) -> str:
    try:
        return read_text_file(path)
    except ValueError as error:
        raise SettingsError(f"{origin}: {error}") from None
