from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info

from tests.models.fakes import model_files, write_folder
from tests.support import LOUD, LoudnessVad
from wyoming_whisper import __version__
from wyoming_whisper.__main__ import main
from wyoming_whisper.errors import ModelUnavailableError, TranscribeError, UpstreamError
from wyoming_whisper.models.listing import ModelEntry
from wyoming_whisper.models.store import ModelStore
from wyoming_whisper.serving.info import ServingInfo
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.settings.sources import PREFIXES
from wyoming_whisper.transcriber import Samples, TranscribeOptions, Transcription

HEAVY = ("numpy", "wyoming", "ctranslate2", "faster_whisper", "huggingface_hub", "av", "yaml")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two recordings, of 0.1 s and 0.2 s."""
    paths = [tmp_path / "one.wav", tmp_path / "two.wav"]
    for tenths, path in enumerate(paths, 1):
        with wave.open(str(path), "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(16_000)
            writer.writeframes(10 * tenths * LOUD)
    return [str(path) for path in paths]


class FakeTranscriber:
    """Hears how long the audio is."""

    languages = ("en", "de")
    description = "fake"

    def __init__(self) -> None:
        self.asked: list[TranscribeOptions] = []
        self.closed = False

    def transcribe(self, samples: Samples, options: TranscribeOptions) -> Transcription:
        self.asked.append(options)
        if len(samples) > 3200:
            raise TranscribeError("the audio is too long")
        return Transcription(f"{len(samples)} sämples", "en", seconds=len(samples) / 16_000)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def transcriber(monkeypatch: pytest.MonkeyPatch) -> FakeTranscriber:
    fake = FakeTranscriber()
    monkeypatch.setattr(
        "wyoming_whisper.commands.transcribe.open_transcriber", lambda *_, **__: fake
    )
    monkeypatch.setattr("wyoming_whisper.commands.transcribe.SileroVad", LoudnessVad)
    return fake


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wyoming_whisper", *argv]
    inherited = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    folder = Path(__file__).parents[2]
    return subprocess.run(
        command, env=inherited | environ, cwd=folder, capture_output=True, text=True, check=False
    )


# -- the program ---------------------------------------------------------------------------


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, wyoming_whisper.settings.options; from wyoming_whisper.__main__ import main; "
        f"main(['--help']); sys.exit(' '.join(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert "--beam-size" in done.stdout


@pytest.mark.parametrize("argv", [["--help"], ["serve", "--help"], ["-h"]])
def test_help_lists_the_commands(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    text = capsys.readouterr().out
    for command in ("serve", "transcribe FILE...", "models list", "health", "--uri"):
        assert command in text


@pytest.mark.parametrize("command", ["transcribe", "models", "health"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: wyoming-whisper {command} ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"wyoming-whisper {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--beem-size", "5"], "--beem-size is not an option; did you mean --beam-size?"),
        (["transcrib", "a.wav"], "'transcrib' is not a command; did you mean transcribe?"),
        (
            ["xyzzy"],
            "'xyzzy' is not a command; there are serve, transcribe, models, engine, ray, health",
        ),
        (["transcribe"], "the following arguments are required: FILE"),
        (["transcribe", "a.wav", "--timeout", "0"], "--timeout: '0' is not a number of seconds"),
        (["transcribe", "a.wav", "--timeout", "soon"], "not a number of seconds"),
        (["transcribe", "a.wav", "--zeroconf"], "--zeroconf is not an option"),
        (["transcribe", "a.wav", "--language", "klingon"], "klingon is not a language"),
        (["transcribe", "a.wav", "--uri", "tcp://host"], "tcp://HOST:PORT"),
        (["models"], "the following arguments are required"),
        (["models", "lst"], "invalid choice"),
        (["models", "download"], "models download needs a model's name"),
        (["models", "list", "tiny"], "models list takes no model's name"),
        (["models", "list", "--beam-size", "1"], "--beam-size is not an option"),
        (["models", "path", "tiny", "--layout", "onnx"], "invalid choice: 'onnx'"),
        (["health", "--timeout", "-1"], "not a number of seconds"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], files: list[str]
) -> None:
    argv = [files[0] if word == "a.wav" else word for word in argv]
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("wyoming-whisper: ")
    assert err.count("\n") == 1
    assert message in err


def test_the_process_tells_a_mistake_without_a_traceback() -> None:
    done = run("--model", "tiny", WYO_WHISPER_DEVICE="gpu")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "wyoming-whisper: WYO_WHISPER_DEVICE is 'gpu', but it must be auto, cpu, cuda or cuda:N\n"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_left_is_no_error_message(unbuffered: str) -> None:
    code = (
        "import sys; from wyoming_whisper import __main__ as program; "
        "from wyoming_whisper.commands import health; "
        "health.run = lambda argv: print('ok') or 0; "
        "sys.exit(program.main(['health']))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 1


# -- serve ---------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["serve"]])
def test_serve_is_what_is_done_without_a_command(
    argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Settings] = []

    def serve(given: Settings) -> int:
        served.append(given)
        return 7

    monkeypatch.setattr("wyoming_whisper.serving.server.Server.serve", serve)
    assert main([*argv, "--model", "tiny"]) == 7
    assert [given.model for given in served] == ["tiny"]


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (KeyboardInterrupt(), 130, ""),
        (
            ModelUnavailableError("tiny is not here\nand there is no network"),
            1,
            "wyoming-whisper: tiny is not here and there is no network\n",
        ),
    ],
)
def test_how_serving_ends(
    raised: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def serve(given: Settings) -> int:
        raise raised

    monkeypatch.setattr("wyoming_whisper.serving.server.Server.serve", serve)
    assert main([]) == status
    assert capsys.readouterr().err == message


# -- transcribe ----------------------------------------------------------------------------


def test_one_file_is_its_text(
    transcriber: FakeTranscriber, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", files[0], "--language", "pt-BR"]) == 0
    assert capsys.readouterr().out == "1600 sämples\n"
    assert transcriber.asked == [TranscribeOptions(language="pt")]
    assert transcriber.closed


def test_several_files_are_named_whatever_stands_between_them(
    transcriber: FakeTranscriber, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = files
    assert main(["transcribe", one, "--beam-size", "1", two]) == 0
    assert capsys.readouterr().out == f"{one}: 1600 sämples\n{two}: 3200 sämples\n"
    assert transcriber.asked == 2 * [TranscribeOptions(language=None)]


@pytest.mark.parametrize(("flags", "names"), [([], ("Zorbo Lamp",)), (["--no-bias-names"], None)])
def test_files_are_compared_with_names(
    transcriber: FakeTranscriber, files: list[str], flags: list[str], names: tuple[str, ...] | None
) -> None:
    assert main(["transcribe", files[0], "--names", "Zorbo Lamp", *flags]) == 0
    (options,) = transcriber.asked
    assert (options.home.names.names if options.home else None) == names


def test_a_file_that_fails_leaves_the_others(
    transcriber: FakeTranscriber,
    files: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    missing, long = str(tmp_path / "missing.wav"), tmp_path / "long.wav"
    with wave.open(str(long), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(25 * LOUD)
    assert main(["transcribe", missing, str(long), files[1]]) == 1
    out, err = capsys.readouterr()
    assert out == f"{files[1]}: 3200 sämples\n"
    first, second = err.splitlines()
    assert first.startswith(f"wyoming-whisper: {missing} can't be read as audio")
    assert second == f"wyoming-whisper: {long}: the audio is too long"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_name_that_is_no_text_is_printed_escaped(
    more: list[str],
    transcriber: FakeTranscriber,
    files: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = files[0].replace("one", "\udcff")
    Path(files[0]).rename(name)
    assert main(["transcribe", name, files[1], *more]) == 0
    assert "\\udcff.wav" in capsys.readouterr().out


def test_json_is_one_object_per_file(
    transcriber: FakeTranscriber, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", "--json", *files]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == files
    assert [line["text"] for line in lines] == ["1600 sämples", "3200 sämples"]
    assert {"language", "seconds", "stages", "avg_logprob"} <= lines[0].keys()


def test_a_running_server_may_transcribe(
    files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def transcribe_remote(uri: str, samples: Samples, **more: Any) -> Transcription:
        asked.append((uri, len(samples), more))
        return Transcription("on", None, seconds=0.1, stages={"total": 0.25})

    monkeypatch.setattr("wyoming_whisper.commands.transcribe.transcribe_remote", transcribe_remote)
    # Where this machine's own server listens is no reason to ask it.
    monkeypatch.setenv("WYOMING_WHISPER_URI", "tcp://0.0.0.0:1")
    argv = ["transcribe", files[0], "--uri", "tcp://host:10300", "--json", "--timeout", "2.5"]
    assert main([*argv, "--language", "de"]) == 0
    assert asked == [("tcp://host:10300", 1600, {"language": "de", "timeout": 2.5})]
    assert json.loads(capsys.readouterr().out) == {
        "file": files[0],
        "text": "on",
        "language": None,
        "seconds": 0.1,
        "stages": {"total": 0.25},
    }


# -- models --------------------------------------------------------------------------------

ENTRIES = [
    ModelEntry("command", None, "cached", 41_400_000, "en", Path("/data/command")),
    ModelEntry("tiny", "Systran/faster-whisper-tiny", "known", 78_000_000, "multilingual", None),
]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replace the work on models; gives the calls."""
    calls: list[tuple[Any, ...]] = []

    def fake(function: str, result: object) -> None:
        def call(*arguments: Any, **flags: Any) -> object:
            places = [tuple(a.own_roots) for a in arguments if isinstance(a, ModelStore)]
            places += [a.data_dir for a in arguments if isinstance(a, Settings)]
            names = [a for a in arguments if isinstance(a, str)]
            calls.append((function, *names[:1], *places, *names[1:], *flags.values()))
            return result

        monkeypatch.setattr(f"wyoming_whisper.commands.models.{function}", call)

    fake("ModelEntry.all", ENTRIES)
    fake("ModelStore.ensure", Path("/data/tiny"))
    fake("ModelStore.find", Path("/data/tiny"))
    fake("ModelStore.remove", 78_000_000)
    return calls


@pytest.mark.parametrize(
    ("argv", "call", "out"),
    [
        (["download", "tiny"], "ModelStore.ensure", "/data/tiny\n"),
        (["path", "tiny"], "ModelStore.find", "/data/tiny\n"),
        (["remove", "tiny"], "ModelStore.remove", "tiny is removed, 78 MB are free\n"),
    ],
)
def test_models_are_managed(
    argv: Sequence[str],
    call: str,
    out: str,
    models: list[tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", *argv, "--data-dir", "/data"]) == 0
    assert models == [(call, "tiny", (Path("/data"),), "ctranslate2")]
    assert capsys.readouterr().out == out
    models.clear()
    assert main(["models", *argv, "--data-dir", "/data", "--layout", "huggingface"]) == 0
    assert models == [(call, "tiny", (Path("/data"),), "huggingface")]


def test_auto_is_resolved_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wyoming_whisper.backends.gpu_of", lambda _: None)
    monkeypatch.setattr("wyoming_whisper.models.autopick.AutoModel.pick", lambda _: "tiny")
    folder = write_folder(tmp_path / "tiny", model_files(n_tokens=200))
    for action in ("path", "download"):
        assert main(["models", action, "auto", "--data-dir", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"{folder}\n"
    assert main(["models", "remove", "auto", "--data-dir", str(tmp_path)]) == 1
    assert "auto is a choice, not a model" in capsys.readouterr().err


def test_the_list_says_what_is_wrong_with_a_broken_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "mine", {**model_files(n_tokens=200), "config.json": b"{"})
    assert main(["models", "list", "--data-dir", str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"mine is broken: {folder}/config.json is damaged: ")
    assert main(["models", "list", "--json", "--data-dir", str(tmp_path)]) == 0
    problems = {e["name"]: e["problem"] for e in json.loads(capsys.readouterr().out)}
    assert problems["mine"] == last.removeprefix("mine is broken: ")
    assert problems["tiny"] is None


@pytest.mark.parametrize("action", ["download", "remove", "path"])
def test_the_model_that_is_gone_is_one_sentence(
    action: str, models: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", action, "home-en", "--data-dir", "/data"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "wyoming-whisper: home-en is gone from this program: it understood synthetic voices alone; "
        "`models list` shows those that there are, such as base\n"
    )
    assert models == []


def test_models_are_listed_in_columns(
    models: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME     STATE   SIZE   LANGUAGES",
        "command  cached  41 MB  en",
        "tiny     known   78 MB  multilingual",
    ]


def test_models_are_listed_as_json(
    models: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list", "--json"]) == 0
    own, tiny = json.loads(capsys.readouterr().out)
    assert (own["name"], own["state"], own["path"]) == ("command", "cached", "/data/command")
    assert (tiny["repo"], tiny["size_bytes"], tiny["path"]) == (ENTRIES[1].repo, 78_000_000, None)


# -- health --------------------------------------------------------------------------------

ATTRIBUTION = Attribution(name="", url="")
MODEL = AsrModel("tiny", ATTRIBUTION, True, None, None, languages=["en"])


def info(models: list[AsrModel], version: str | None = "1.2") -> Info:
    return Info(asr=[AsrProgram("whisper", ATTRIBUTION, True, None, version, models=models)])


def answer_with(monkeypatch: pytest.MonkeyPatch, info: Info, **serving: object) -> None:
    """Have the server answer, as one of ours does where it says how it is `serving`."""
    event = info.event()
    if serving:
        event.data[ServingInfo.KEY] = serving

    async def describe_event(uri: str, _messages: object, _kind: object, timeout: float) -> Event:
        assert (uri, timeout) == ("tcp://0.0.0.0:10300", 15.0)
        return event

    monkeypatch.setattr("wyoming_whisper.commands.health.ask_server", describe_event)


@pytest.mark.parametrize(
    ("answer", "out"),
    [
        (info([MODEL]), "ok: whisper 1.2, model tiny\n"),
        (info([MODEL], None), "ok: whisper, model tiny\n"),
        (info([]), "ok: whisper 1.2, model not loaded yet\n"),
    ],
)
def test_a_server_that_is_not_ours_is_well_when_it_answers(
    answer: Info, out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_with(monkeypatch, answer)
    assert main(["health"]) == 0
    assert capsys.readouterr() == (out, "")


@pytest.mark.parametrize(
    ("serving", "status", "out", "err"),
    [
        ({"health": "healthy", "reason": ""}, 0, "ok: whisper 1.2, model tiny\n", ""),
        (
            {"health": "starting", "reason": "loading the model"},
            0,
            "starting: whisper 1.2, model tiny (loading the model)\n",
            "",
        ),
        (
            {"health": "stopping", "reason": "the server is shutting down"},
            0,
            "stopping: whisper 1.2, model tiny (the server is shutting down)\n",
            "",
        ),
        (
            {"health": "unhealthy", "reason": "CUDA out of memory"},
            1,
            "",
            "wyoming-whisper: tcp://0.0.0.0:10300 is unhealthy: CUDA out of memory\n",
        ),
    ],
    ids=lambda value: value["health"] if isinstance(value, dict) else "",
)
def test_health_says_what_the_server_says_of_itself(
    serving: dict[str, object],
    status: int,
    out: str,
    err: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer_with(monkeypatch, info([MODEL]), **serving)
    assert main(["health"]) == status
    assert capsys.readouterr() == (out, err)
    assert main(["health", "--json"]) == status
    told = json.loads(capsys.readouterr().out)
    assert (told["health"], told["reason"]) == (serving["health"], serving["reason"])


@pytest.mark.parametrize("failure", [None, UpstreamError("no answer")])
def test_a_server_that_offers_nothing_is_not_well(
    failure: Exception | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_: object) -> Event:
        if failure:
            raise failure
        return Info().event()

    monkeypatch.setattr("wyoming_whisper.commands.health.ask_server", fail)
    assert main(["health"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("description", "serving"),
    [
        (
            "tiny on CPU; faster-whisper, because a; b, because c",
            {"description": "tiny on CPU", "backend": "faster-whisper", "why": "a; b, because c"},
        ),
        ("tiny", {}),
        (None, {}),
    ],
)
def test_health_tells_the_backend_and_why(
    description: str | None,
    serving: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = dataclasses.replace(MODEL, description=description)
    answer_with(monkeypatch, info([model]), **serving)
    assert main(["health", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["backend"], told["why"]) == (serving.get("backend"), serving.get("why"))
    assert (told["model"], told["languages"]) == ("tiny", ["en"])
    assert told["description"] == serving.get("description", description or "")


def test_health_asks_where_the_server_was_told_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    async def describe_event(uri: str, _messages: object, _kind: object, timeout: float) -> Event:
        asked.append((uri, timeout))
        return info([MODEL]).event()

    monkeypatch.setattr("wyoming_whisper.commands.health.ask_server", describe_event)
    monkeypatch.setenv("WYO_WHISPER_URI", "unix:///run/whisper.sock")
    assert main(["health"]) == 0
    assert main(["health", "--uri", "tcp://host:1", "--timeout", "2"]) == 0
    assert asked == [("unix:///run/whisper.sock", 15.0), ("tcp://host:1", 2.0)]
