"""The images' recipes, read but not built: script/image-check runs what they make."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import load_settings
from wyoming_whisper import __version__
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.settings.options import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILES = ("Dockerfile", "Dockerfile.nvidia", "Dockerfile.jetson")
LOCKS = ("cpu.txt", "tensorrt-3.10.txt", "tensorrt-3.12.txt", "tensorrt-3.13.txt")

every_dockerfile = pytest.mark.parametrize("name", DOCKERFILES)
every_lock = pytest.mark.parametrize("name", LOCKS)


@dataclass(frozen=True)
class Instruction:
    word: str
    value: str


def stages(name: str) -> list[list[Instruction]]:
    """Return a Dockerfile's instructions by stage, without what stands before the first FROM."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    found: list[list[Instruction]] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, _, value = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append(Instruction(word, " ".join(value.split())))
    return found


def instructions(name: str, word: str) -> list[str]:
    return [one.value for stage in stages(name) for one in stage if one.word == word]


def final(name: str, word: str) -> list[str]:
    return [one.value for one in stages(name)[-1] if one.word == word]


def environment(name: str) -> dict[str, str]:
    words = [word for value in final(name, "ENV") for word in shlex.split(value)]
    return dict(word.split("=", 1) for word in words)


# -- Dockerfiles ---------------------------------------------------------------------------


@every_dockerfile
def test_there_are_two_stages_and_both_start_from_a_version(name: str) -> None:
    assert len(stages(name)) == 2
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)", (ROOT / name).read_text(), re.MULTILINE))
    for base in instructions(name, "FROM"):
        image = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base.split()[0])
        assert re.fullmatch(r"(debian:trixie-slim|ubuntu:22\.04)", image), image
    # The Supervisor forces an Alpine image upon this name.
    assert "BUILD_FROM" not in (ROOT / name).read_text()


@every_dockerfile
def test_what_is_copied_exists_and_reaches_the_builder(name: str) -> None:
    ignored: list[str] = []
    kept: list[str] = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            (kept if line.startswith("!") else ignored).append(line.lstrip("!"))
    assert ignored[0] == "*"
    for value in instructions(name, "COPY"):
        *sources, _ = [word for word in value.split() if not word.startswith("--")]
        for source in sources if "--from=" not in value else ():
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, f"{pattern}*") for pattern in kept), source


def test_the_package_which_the_wheel_and_the_images_hold_has_no_model() -> None:
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"] == {
        "packages": ["wyoming_whisper"]
    }
    package = ROOT / "wyoming_whisper"
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(files) > 50
    assert not [path for path in files if path.suffix in (".bin", ".safetensors", ".onnx")]
    assert not [path for path in files if "home-en" in str(path.relative_to(package))]
    assert sum(path.stat().st_size for path in files) < 2_000_000


@every_dockerfile
def test_the_program_is_started_and_asked_without_a_shell(name: str) -> None:
    assert [json.loads(value) for value in final(name, "ENTRYPOINT")] == [["wyoming-whisper"]]
    assert final(name, "CMD") == []
    (health,) = final(name, "HEALTHCHECK")
    options, _, command = health.partition(" CMD ")
    assert json.loads(command) == ["wyoming-whisper", "health"]
    assert {"--interval", "--timeout", "--start-period"} <= set(re.findall(r"--[a-z-]+", options))


@every_dockerfile
def test_data_is_the_only_volume_and_all_that_is_written_lies_there(name: str) -> None:
    assert final(name, "VOLUME") == ["/data"]
    environ = environment(name)
    assert environ["HOME"] == "/data"
    assert environ["PYTHONDONTWRITEBYTECODE"] == "1"
    settings = load_settings([], environ)
    assert settings.data_dir == (Path("/data/models"),)
    assert Path(environ["HF_HOME"]) == settings.data_dir[0]


@every_dockerfile
def test_the_port_is_the_servers_own(name: str) -> None:
    (port,) = final(name, "EXPOSE")
    assert load_settings([], {}).uri.endswith(f":{port}")


@every_dockerfile
def test_the_version_is_the_packages(name: str) -> None:
    assert f"BUILD_VERSION={__version__}" in final(name, "ARG")
    (labels,) = final(name, "LABEL")
    told = dict(word.split("=", 1) for word in shlex.split(labels))
    assert told["org.opencontainers.image.version"] == "${BUILD_VERSION}"
    assert told["org.opencontainers.image.licenses"] == PROJECT["project"]["license"]
    assert told["org.opencontainers.image.title"] == PROJECT["project"]["name"]


@every_dockerfile
def test_what_pip_fetches_is_locked(name: str) -> None:
    """All but our own wheel, and TensorRT, which is NVIDIA's to give out and pinned by version."""
    commands = [
        command
        for value in instructions(name, "RUN")
        for command in re.split(r" && ", value)
        if " install " in command and "pip " in command
    ]
    assert len(commands) >= 3
    for command in commands:
        words = command.split()
        if "${TENSORRT}" in words:
            assert re.search(r"^ARG TENSORRT=\S+==[\d.]+$", (ROOT / name).read_text(), re.MULTILINE)
        elif not any(word.endswith(".whl") for word in words):
            assert {"--require-hashes", "--no-deps", "-r"} <= set(words), command


@every_dockerfile
def test_packages_leave_nothing_behind(name: str) -> None:
    for value in instructions(name, "RUN"):
        for command in re.findall(r"apt-get install[^&]*", value):
            assert {"--yes", "--no-install-recommends"} <= set(command.split())
    (installing,) = final(name, "RUN")
    assert "rm -rf /var/lib/apt/lists/*" in installing


@every_dockerfile
def test_no_image_carries_torch(name: str) -> None:
    text = (ROOT / name).read_text().replace("No torch", "")
    assert not re.search(r"\b(torch|transformers)\b", text.replace("onnxruntime/transformers", ""))


@every_dockerfile
def test_a_model_is_taken_along_only_where_one_is_named(name: str) -> None:
    build, _ = stages(name)
    assert Instruction("ARG", "MODEL=") in build
    (command,) = [one.value for one in build if "models download" in one.value]
    where = "/opt/models/share/wyoming-whisper/models"
    assert command.startswith(f"models={where} && mkdir -p /opt/models && if [ -n")
    assert 'echo "$MODEL" > "$models/name"' in command
    assert not re.search(r"huggingface-cli|hf download", command)


@every_dockerfile
def test_a_model_taken_along_is_found_beside_the_volume(name: str) -> None:
    """/data is mounted over; where the program looks besides is in its own environment."""
    places = [value.split() for value in final(name, "COPY")]
    assert ["--from=build", "/opt/models", "/opt/wyoming-whisper"] in places
    inside = ModelStore.SHIPPED.relative_to(sys.prefix)
    assert f"/opt/models/{inside}" in "".join(instructions(name, "RUN"))
    (volume,) = final(name, "VOLUME")
    assert not f"/opt/wyoming-whisper/{inside}".startswith(volume)


def fetch_command(name: str, models: Path, python: Path) -> str:
    """Return the build's command, for other folders than an image's."""
    (command,) = [value for value in instructions(name, "RUN") if "models download" in value]
    command = command.replace("/opt/models", str(models))
    return command.replace("/opt/wyoming-whisper/bin/python", shlex.quote(str(python)))


@every_dockerfile
def test_the_builds_command_writes_what_is_looked_for(name: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" > "$CALLED"\nmkdir -p "$7/.locks"\n')
    python.chmod(0o755)
    environ = {"PATH": os.environ["PATH"], "CALLED": str(tmp_path / "called")}
    command = fetch_command(name, tmp_path / "models", python)
    subprocess.run(["sh", "-ec", command], env={**environ, "MODEL": ""}, check=True)
    assert list((tmp_path / "models").iterdir()) == []
    subprocess.run(["sh", "-ec", command], env={**environ, "MODEL": "tiny.en"}, check=True)
    shipped = tmp_path / "models" / ModelStore.SHIPPED.relative_to(sys.prefix)
    called = (tmp_path / "called").read_text().split()
    assert called == [
        "-m",
        "wyoming_whisper",
        *f"models download tiny.en --data-dir {shipped}".split(),
    ]
    assert [path.name for path in shipped.iterdir()] == [ModelStore.SHIPPED_NAME]
    assert (shipped / ModelStore.SHIPPED_NAME).read_text().strip() == "tiny.en"


def test_the_three_images_differ_in_what_they_say_they_do() -> None:
    """The users, the entry point and the health check are the same in all."""
    for word in ("ENTRYPOINT", "HEALTHCHECK", "VOLUME", "EXPOSE"):
        assert len({tuple(final(name, word)) for name in DOCKERFILES}) == 1, word
    users = {re.findall(r"groupadd .*/data", final(name, "RUN")[0])[0] for name in DOCKERFILES}
    assert len(users) == 1
    for name in DOCKERFILES[1:]:
        assert environment(name).items() >= environment(DOCKERFILES[0]).items()
        assert environment(name)["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_the_entry_point_is_a_shell_script_that_a_container_can_start() -> None:
    script = ROOT / "script" / "image-entrypoint"
    assert script.stat().st_mode & 0o111 == 0o111
    subprocess.run(["sh", "-n", script], check=True)


# -- lock files ----------------------------------------------------------------------------


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Return each distribution's version, and how many hashes it has."""
    found: dict[str, tuple[str, int]] = {}
    for entry in (ROOT / "requirements" / name).read_text().replace("\\\n", " ").splitlines():
        if entry and not entry.startswith("#"):
            match = re.match(r"([\w.-]+)==([\w.]+)", entry)
            assert match, entry
            found[canonicalize_name(match[1])] = (match[2], entry.count("--hash=sha256:"))
    return found


def wanted(*extras: str) -> list[Requirement]:
    project = PROJECT["project"]
    texts = [*project["dependencies"]]
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


@every_lock
def test_a_lock_file_holds_what_pyproject_asks_for(name: str) -> None:
    """It fails when pyproject.toml has changed: script/lock writes the files anew."""
    versions = locked(name)
    for requirement in wanted(*(["tensorrt"] if name != "cpu.txt" else [])):
        version, _ = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but {version}: script/lock"


def test_the_builder_of_our_wheel_is_locked() -> None:
    versions = locked("build.txt")
    for text in PROJECT["build-system"]["requires"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)][0])


@pytest.mark.parametrize("name", [*LOCKS, "build.txt"])
def test_everything_locked_has_hashes(name: str) -> None:
    assert all(hashes for _, hashes in locked(name).values())


@every_lock
def test_what_no_server_needs_is_not_locked(name: str) -> None:
    assert not {"av", "torch", "transformers", "pytest"} & set(locked(name))


# -- compose.yaml --------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    text = (ROOT / "compose.yaml").read_text()
    plain = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return cast("dict[str, Any]", yaml.safe_load(plain))


SERVICES: dict[str, Any] = compose()["services"]

every_service = pytest.mark.parametrize("name", SERVICES)


def test_there_is_a_profile_for_each_image() -> None:
    assert [service["profiles"] for service in SERVICES.values()] == [[name] for name in SERVICES]
    built = [service["build"].get("dockerfile", "Dockerfile") for service in SERVICES.values()]
    assert built == list(DOCKERFILES)


@every_service
def test_a_service_is_found_in_the_network_and_keeps_its_data(name: str) -> None:
    service = SERVICES[name]
    assert service["network_mode"] == "host"
    assert "ports" not in service  # which Docker refuses with the host's network
    assert service["volumes"] == ["data:/data"]
    assert "data" in compose()["volumes"]
    settings = load_settings(shlex.split(service["command"]), service["environment"])
    assert settings.zeroconf is not None


@every_service
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if "cap_add" in service:  # for the entry point, which gives up root
        assert "user" not in service
    else:
        uid, gid = re.findall(r"--[ug]id (\d+)", final(service_dockerfile(name), "RUN")[0])
        assert service["user"] == f"{uid}:{gid}"


def service_dockerfile(name: str) -> str:
    return str(SERVICES[name]["build"].get("dockerfile", "Dockerfile"))


@every_service
def test_a_service_has_time_to_answer_what_is_being_spoken(name: str) -> None:
    assert SERVICES[name]["init"] is True
    assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > Settings.drain_seconds


@every_service
def test_a_service_names_only_arguments_that_its_image_has(name: str) -> None:
    text = (ROOT / service_dockerfile(name)).read_text()
    for argument in SERVICES[name]["build"].get("args", {}):
        assert re.search(rf"^ARG {argument}=", text, re.MULTILINE), argument


def test_only_nvidias_services_ask_for_a_gpu() -> None:
    assert SERVICES["jetson"]["runtime"] == "nvidia"
    (device,) = SERVICES["nvidia"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert not {"runtime", "deploy"} & set(SERVICES["cpu"])
