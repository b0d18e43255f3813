"""`wyoming-whisper ray ...`: put a model on a Ray cluster, see how it does, take it away."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..cluster.front_end import APP, joined
from ..cluster.replica import Replica
from ..errors import ModelError, SettingsError, WyomingWhisperError
from ..settings.options import Settings
from .console import CommandParser

_LOGGER = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Run an action; return the exit status. Raises WyomingWhisperError."""
    about = """\
The model on many machines, by way of Ray Serve. `ray start --head --disable-usage-stats` makes a
machine the first of a cluster, `ray start --address=FIRST:6379` joins others to it.

  deploy     run replicas of a model, or change what runs
  status     how many replicas run, and what they are
  remove     end the replicas

Then, on as many machines as answer Home Assistant: wyoming-whisper --backend ray
wyoming-whisper ray ACTION --help tells more about each."""
    actions = {
        "deploy": (_deploy_parser, _deploy),
        "status": (_status_parser, _status),
        "remove": (_remove_parser, _remove),
    }
    return CommandParser.run_action("ray", about, actions, argv)


# -- deploy --------------------------------------------------------------------------------


def _deploy_parser(command: str) -> CommandParser:
    of_replicas = (
        "model",
        "languages",
        "data_dir",
        "download_dir",
        "local_files_only",
        "backend",
        "strict_backend",
        "device",
        "compute_type",
        "max_cache_size",
        "beam_size",
        "cpu_threads",
        "audio_context",
        "initial_prompt",
        "whisper_task",
        "deadline",
    )
    parser = CommandParser(
        command,
        "Run replicas of a model, or change what runs. Each finds its model and its engine on its "
        "own machine, or fetches them there. A front end answers Home Assistant: "
        "wyoming-whisper --backend ray.",
        ("ray_address", *of_replicas),
    )
    parser.add_argument(
        "--replicas",
        type=_replicas,
        default=(1, 1),
        metavar="N|MIN-MAX",
        help="how many; with MIN-MAX as many as there is work for (default: 1)",
    )
    parser.add_argument(
        "--replica-cpus",
        type=_amount,
        default=1.0,
        metavar="N",
        help="cores that Ray sets aside for each, and its threads (default: 1)",
    )
    parser.add_argument(
        "--replica-gpus",
        type=_amount,
        default=0.0,
        metavar="N",
        help="GPUs that Ray sets aside for each; 0.5 has two of them share one (default: 0)",
    )
    return parser


def _replicas(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 on nor MIN-MAX")
    return least, most


def _amount(text: str) -> float:
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 0.5 or 2")
    return float(text)


def _deployment_options(
    replicas: tuple[int, int], replica_cpus: float, replica_gpus: float
) -> dict[str, Any]:
    """Return how Ray Serve is to run the replicas, in its own terms."""
    # How often Ray asks a replica whether it works, and how long that may take.
    health_seconds = 5.0
    # How long replicas are too few, or too many, before that is changed.
    downscale_seconds = 300.0
    upscale_seconds = 5.0
    # Requests that Ray hands to a replica, where they have a queue. Ray's own keeps no order of
    # urgency, and looks again only after 25 to 500 ms when all replicas are at work
    # (docs/scaling.md).
    max_ongoing = 128
    least, most = replicas
    number: dict[str, Any] = {"num_replicas": least}
    if least != most:
        number = {
            "autoscaling_config": {
                "min_replicas": least,
                "max_replicas": most,
                "target_ongoing_requests": 1.0,  # one in work, none waiting
                "upscale_delay_s": upscale_seconds,
                "downscale_delay_s": downscale_seconds,
            }
        }
    return {
        "name": "replica",
        "max_ongoing_requests": max_ongoing,
        "health_check_period_s": health_seconds,
        "health_check_timeout_s": health_seconds,
        "ray_actor_options": {"num_cpus": replica_cpus, "num_gpus": replica_gpus},
        **number,
    }


def _replica_settings(settings: Settings, replica_cpus: float) -> Settings:
    """Return what replicas are to do; raises SettingsError where they can't.

    An empty `data_dir` is each machine's own.
    """
    if settings.backend == "ray":
        raise SettingsError(
            "--backend ray is for front ends; replicas have auto, faster-whisper or tensorrt"
        )
    own = settings.data_dir == (Settings.default_data_dir(os.environ),)
    return dataclasses.replace(
        settings,
        data_dir=() if own else settings.data_dir,
        cpu_threads=settings.cpu_threads or max(1, round(replica_cpus)),
        # Tokens stay where they are: each machine's own count (cluster/replica.py).
        hf_token=None,
        hass_token=None,
        home=None,
    )


def _deploy(arguments: argparse.Namespace, settings: Settings) -> int:
    of_replica = _replica_settings(settings, arguments.replica_cpus)
    options = _deployment_options(
        arguments.replicas, arguments.replica_cpus, arguments.replica_gpus
    )
    with joined(settings.ray_address) as ray:
        from ray import serve

        # What fails later has ended the replicas that were there: Ray Serve replaces as it starts.
        error = ray.get(ray.remote(num_cpus=0)(Replica.fetch_model).remote(of_replica))
        if isinstance(error, WyomingWhisperError):
            raise error
        # Nobody needs Ray Serve's own port: front ends reach replicas by Ray itself.
        serve.start(proxy_location="Disabled")
        target = serve.RunTarget(
            serve.deployment(**options)(Replica).bind(of_replica),
            name=APP,
            route_prefix=None,
            logging_config={"enable_access_log": False},
        )
        serve.run_many([target], wait_for_applications_running=False)
        _wait_until_running(lambda: _state(serve))
        about = serve.get_app_handle(APP).about.remote().result(timeout_s=20)
        ray.shutdown()
    print(f"{about.description}: {_count(arguments.replicas)} on Ray")
    return 0


def _count(replicas: tuple[int, int]) -> str:
    least, most = replicas
    if most == 1:
        return "1 replica"
    return f"{least} replicas" if least == most else f"{least} to {most} replicas"


@dataclasses.dataclass(frozen=True)
class _State:
    """What Ray Serve says of our application."""

    status: str
    """RUNNING, DEPLOYING, DEPLOY_FAILED, ..., or "" where there is none."""
    message: str
    replicas: dict[str, int]
    """How many there are in each state, such as RUNNING."""


def _state(serve: Any) -> _State:
    app = serve.status().applications.get(APP)
    if app is None:
        return _State("", "", {})
    deployment = app.deployments.get("replica")
    messages = [app.message, deployment.message if deployment else ""]
    counts = dict(deployment.replica_states) if deployment else {}
    return _State(
        str(app.status.value),
        "\n".join(filter(None, messages)),
        {str(getattr(state, "value", state)): n for state, n in counts.items()},
    )


def _wait_until_running(state: Callable[[], _State], poll_seconds: float = 0.5) -> None:
    """Return when the replicas run, saying what happens meanwhile; raises ModelError."""
    last_line = ""
    while (now := state()).status != "RUNNING":
        if now.status == "DEPLOY_FAILED":
            raise ModelError(f"no replica could be started: {_reason(now.message)}")
        counts = _counts(now.replicas) or "waiting for Ray Serve"
        # Such as: no machine has as many free cores.
        line = f"{counts} ({_reason(now.message)})" if now.message else counts
        if line != last_line:
            last_line = line
            _LOGGER.info("replicas: %s", line)
        time.sleep(poll_seconds)


def _counts(replicas: dict[str, int]) -> str:
    return ", ".join(f"{n} {name.lower()}" for name, n in sorted(replicas.items()))


def _reason(message: str) -> str:
    """Return the line of Ray's long message that says why: our own error, or the last one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("wyoming_whisper.errors.")]
    return ours[-1].partition(": ")[2] if ours else (lines or ["Ray doesn't say why"])[-1]


# -- status, remove ------------------------------------------------------------------------


def _status_parser(command: str) -> CommandParser:
    parser = CommandParser(
        command, "Tell how many replicas run, and what they are.", ("ray_address",)
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    with joined(settings.ray_address) as ray:
        from ray import serve

        now = _state(serve)
        answer: dict[str, Any] = {
            "status": now.status or "NOT_DEPLOYED",
            "replicas": now.replicas,
            "runs": "",
        }
        if now.replicas.get("RUNNING"):
            about = serve.get_app_handle(APP).about.remote().result(timeout_s=20)
            answer["runs"] = about.description
        ray.shutdown()
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        print(
            ": ".join(
                filter(None, (answer["status"].lower(), _counts(now.replicas), answer["runs"]))
            )
        )
    return 0 if now.replicas.get("RUNNING") else 1


def _remove_parser(command: str) -> CommandParser:
    return CommandParser(
        command, "End the replicas. The cluster stays: ray stop ends that.", ("ray_address",)
    )


def _remove(_: argparse.Namespace, settings: Settings) -> int:
    with joined(settings.ray_address) as ray:
        from ray import serve

        if not _state(serve).status:
            raise SettingsError("nothing is deployed on this cluster")
        serve.delete(APP)
        ray.shutdown()
    print("the replicas are ended")
    return 0
