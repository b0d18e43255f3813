"""`wyoming-whisper ray ...` up to the cluster: flags, what replicas are told, Ray's messages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support import HOME_EN
from wyoming_whisper.__main__ import main
from wyoming_whisper.commands.ray import (
    _deployment_options,
    _reason,
    _replica_settings,
    _State,
    _wait_until_running,
)
from wyoming_whisper.errors import ModelError, SettingsError
from wyoming_whisper.settings.options import Settings


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ray", "deplo"], "'deplo' is nothing that ray does; did you mean deploy?"),
        (["ray", "deploy", "--replicas", "0"], "'0' is neither a number from 1 on nor MIN-MAX"),
        (["ray", "deploy", "--replicas", "4-2"], "'4-2' is neither"),
        (["ray", "deploy", "--replica-gpus", "all"], "'all' is not a number such as 0.5 or 2"),
        (["ray", "deploy", "--backend", "ray"], "--backend ray is for front ends"),
        (["ray", "deploy", "--uri", "tcp://x:1"], "--uri is not an option"),
        (["ray", "status", "--ray-address", "here"], "auto, or HOST:PORT such as"),
        (["ray", "status", "--ray-address", "http://a:1"], "auto, or HOST:PORT such as"),
        (["ray", "status", "--ray-address", "a:port"], "auto, or HOST:PORT such as"),
        (["ray", "deploy", "--model", str(HOME_EN)], "Ray is not installed: pip install"),
        (["ray", "status"], "Ray is not installed: pip install"),
        (["ray", "remove"], "Ray is not installed: pip install"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(
    argv: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("action", [[], ["deploy"], ["status"], ["remove"]])
def test_every_action_has_help(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ray", *action, "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: wyoming-whisper ray")


def test_a_fixed_number_of_replicas_is_not_scaled() -> None:
    options = _deployment_options((3, 3), 2, 0.5)
    assert (options["num_replicas"], "autoscaling_config" in options) == (3, False)
    assert options["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0.5}


def test_a_range_of_replicas_is_scaled() -> None:
    options = _deployment_options((1, 8), 1, 0)
    assert "num_replicas" not in options
    scaling = options["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 8)


def test_replicas_get_no_secrets_and_their_own_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    usual = Settings.default_data_dir({"HOME": "/home/ada"})
    given = Settings(data_dir=(usual,), hf_token="secret", hass_token="secret")
    told = _replica_settings(given, 2)
    assert (told.hf_token, told.hass_token, told.data_dir) == (None, None, ())
    assert told.cpu_threads == 2
    other = _replica_settings(Settings(data_dir=(Path("/models"),), cpu_threads=3), 2)
    assert (other.data_dir, other.cpu_threads) == ((Path("/models"),), 3)
    with pytest.raises(SettingsError, match="for front ends"):
        _replica_settings(Settings(data_dir=(), backend="ray"), 1)


RAY_SAYS = """\
The deployment failed to start 3 times in a row. Error:
ray::ServeReplica:wyoming-whisper:replica.initialize_and_get_metadata() (pid=1, ip=10.0.0.1)
  File "wyoming_whisper/cluster/replica.py", line 80, in __init__
    self._scheduler.opened.result()
wyoming_whisper.errors.ModelBrokenError: the model in /models/x can't be loaded: cut off
"""


def test_of_rays_long_message_the_line_that_says_why_is_told() -> None:
    assert _reason(RAY_SAYS) == "the model in /models/x can't be loaded: cut off"
    assert _reason("first\n  last \n") == "last"
    assert _reason("") == "Ray doesn't say why"


def test_replicas_that_come_are_waited_for_and_those_that_never_will_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    states = iter(
        [
            _State("", "", {}),
            _State("DEPLOYING", "", {"STARTING": 2}),
            _State("DEPLOYING", "more\nno machine is free", {"STARTING": 1, "RUNNING": 1}),
            _State("RUNNING", "", {"RUNNING": 2}),
        ]
    )
    _wait_until_running(lambda: next(states), 0)
    assert [record.getMessage() for record in caplog.records] == [
        "replicas: waiting for Ray Serve",
        "replicas: 2 starting",
        "replicas: 1 running, 1 starting (no machine is free)",
    ]
    with pytest.raises(ModelError, match="no replica could be started: the model in"):
        _wait_until_running(lambda: _State("DEPLOY_FAILED", RAY_SAYS, {}))
