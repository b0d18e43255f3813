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

from ..errors import ModelError, SettingsError, WyomingWhisperError
from ..settings.flags import OptionParser
from ..settings.options import Settings
from ..settings.server import default_data_dir
from .actions import Action, Arguments, run_action

_LOGGER = logging.getLogger(__name__)

_ABOUT = """\
The model on many machines, by way of Ray Serve. `ray start --head --disable-usage-stats` makes a
machine the first of a cluster, `ray start --address=FIRST:6379` joins others to it.

  deploy     run replicas of a model, or change what runs
  status     how many replicas run, and what they are
  remove     end the replicas

Then, on as many machines as answer Home Assistant: wyoming-whisper --backend ray
wyoming-whisper ray ACTION --help tells more about each."""

_COMMON = ("ray_address", "options", "debug", "log_format")

DEPLOYMENT = "replica"
"""The deployment's name in Ray Serve."""


BUSY = 1.0
"""Requests per replica that autoscaling aims at: one in work, none waiting."""


POLL_SECONDS = 0.5


def run(argv: Sequence[str], start_logging: Callable[[Settings], None]) -> int:
    """Run an action; return the exit status. Raises WyomingWhisperError."""
    return run_action("ray", _ABOUT, _ACTIONS, argv, start_logging)


# -- deploy --------------------------------------------------------------------------------


def _deploy_parser(prog: str) -> OptionParser:
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
    parser = OptionParser(
        prog,
        "Run replicas of a model, or change what runs. Each finds its model and its engine on its "
        "own machine, or fetches them there. A front end answers Home Assistant: "
        "wyoming-whisper --backend ray.",
        (*of_replicas, *_COMMON),
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
    found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 on nor MIN-MAX")
    return least, most


def _amount(text: str) -> float:
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 0.5 or 2")
    return float(text)


def deployment_options(
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
                "target_ongoing_requests": BUSY,
                "upscale_delay_s": upscale_seconds,
                "downscale_delay_s": downscale_seconds,
            }
        }
    return {
        "name": DEPLOYMENT,
        "max_ongoing_requests": max_ongoing,
        "health_check_period_s": health_seconds,
        "health_check_timeout_s": health_seconds,
        "ray_actor_options": {"num_cpus": replica_cpus, "num_gpus": replica_gpus},
        **number,
    }


def replica_settings(settings: Settings, replica_cpus: float) -> Settings:
    """Return what replicas are to do; raises SettingsError where they can't.

    An empty `data_dir` is each machine's own.
    """
    if settings.backend == "ray":
        raise SettingsError(
            "--backend ray is for front ends; replicas have auto, faster-whisper or tensorrt"
        )
    own = settings.data_dir == (default_data_dir(os.environ),)
    return dataclasses.replace(
        settings,
        data_dir=() if own else settings.data_dir,
        cpu_threads=settings.cpu_threads or max(1, round(replica_cpus)),
        # Tokens stay where they are: each machine's own count (cluster/replica.py).
        hf_token=None,
        hass_token=None,
    )


def _deploy(arguments: Arguments, settings: Settings) -> int:
    from ..cluster.front_end import APP, joined

    wanted = replica_settings(settings, arguments.replica_cpus)
    options = deployment_options(arguments.replicas, arguments.replica_cpus, arguments.replica_gpus)
    with joined(settings.ray_address) as ray:
        from ray import serve

        from ..cluster.replica import Replica, fetch_model

        # What fails later has ended the replicas that were there: Ray Serve replaces as it starts.
        found = ray.get(ray.remote(num_cpus=0)(fetch_model).remote(wanted))
        if isinstance(found, WyomingWhisperError):
            raise found
        # Nobody needs Ray Serve's own port: front ends reach replicas by Ray itself.
        serve.start(proxy_location="Disabled")
        target = serve.RunTarget(
            serve.deployment(**options)(Replica).bind(wanted),
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
class State:
    """What Ray Serve says of our application."""

    status: str
    """RUNNING, DEPLOYING, DEPLOY_FAILED, ..., or "" where there is none."""
    message: str
    replicas: dict[str, int]
    """How many there are in each state, such as RUNNING."""


def _state(serve: Any) -> State:
    from ..cluster.front_end import APP

    app = serve.status().applications.get(APP)
    if app is None:
        return State("", "", {})
    deployment = app.deployments.get(DEPLOYMENT)
    messages = [app.message, deployment.message if deployment else ""]
    counts = dict(deployment.replica_states) if deployment else {}
    return State(
        str(app.status.value),
        "\n".join(filter(None, messages)),
        {str(getattr(state, "value", state)): n for state, n in counts.items()},
    )


def _wait_until_running(state: Callable[[], State]) -> None:
    """Return when the replicas run, saying what happens meanwhile; raises ModelError."""
    said = ""
    while (now := state()).status != "RUNNING":
        if now.status == "DEPLOY_FAILED":
            raise ModelError(f"no replica could be started: {reason(now.message)}")
        counts = _counts(now.replicas) or "waiting for Ray Serve"
        # Such as: no machine has as many free cores.
        line = f"{counts} ({reason(now.message)})" if now.message else counts
        if line != said:
            said = line
            _LOGGER.info("replicas: %s", line)
        time.sleep(POLL_SECONDS)


def _counts(replicas: dict[str, int]) -> str:
    return ", ".join(f"{n} {name.lower()}" for name, n in sorted(replicas.items()))


def reason(message: str) -> str:
    """Return the line of Ray's long message that says why: our own error, or the last one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("wyoming_whisper.errors.")]
    return ours[-1].partition(": ")[2] if ours else (lines or ["Ray doesn't say why"])[-1]


# -- status, remove ------------------------------------------------------------------------


def _status_parser(prog: str) -> OptionParser:
    parser = OptionParser(prog, "Tell how many replicas run, and what they are.", _COMMON)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _status(arguments: Arguments, settings: Settings) -> int:
    from ..cluster.front_end import APP, joined

    with joined(settings.ray_address) as ray:
        from ray import serve

        now = _state(serve)
        told: dict[str, Any] = {
            "status": now.status or "NOT_DEPLOYED",
            "replicas": now.replicas,
            "runs": "",
        }
        if now.replicas.get("RUNNING"):
            about = serve.get_app_handle(APP).about.remote().result(timeout_s=20)
            told["runs"] = about.description
        ray.shutdown()
    if arguments.json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(
            ": ".join(filter(None, (told["status"].lower(), _counts(now.replicas), told["runs"])))
        )
    return 0 if now.replicas.get("RUNNING") else 1


def _remove_parser(prog: str) -> OptionParser:
    return OptionParser(prog, "End the replicas. The cluster stays: ray stop ends that.", _COMMON)


def _remove(_: Arguments, settings: Settings) -> int:
    from ..cluster.front_end import APP, joined

    with joined(settings.ray_address) as ray:
        from ray import serve

        if not _state(serve).status:
            raise SettingsError("nothing is deployed on this cluster")
        serve.delete(APP)
        ray.shutdown()
    print("the replicas are ended")
    return 0


_ACTIONS: dict[str, Action] = {
    "deploy": (_deploy_parser, _deploy),
    "status": (_status_parser, _status),
    "remove": (_remove_parser, _remove),
}
