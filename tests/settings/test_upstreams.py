"""What is written of upstreams, and whom a key goes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import load_settings
from wyoming_whisper.errors import SettingsError
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.settings.upstreams import Upstream
from wyoming_whisper.status import Status
from wyoming_whisper.upstreams.pool import Pool

KEY = "sk-very-secret"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://pc:10300", Upstream("tcp://pc:10300", "wyoming")),
        ("tcp://[fd00::1]:10300", Upstream("tcp://[fd00::1]:10300", "wyoming")),
        ("unix:///run/w", Upstream("unix:///run/w", "wyoming")),
        ("http://pc:8000/v1/", Upstream("http://pc:8000/v1", "openai")),
        (
            "https://api.example.org/v1?model=a/b&key_file=/run/k",
            Upstream("https://api.example.org/v1", "openai", model="a/b", key_file=Path("/run/k")),
        ),
        (
            "tcp://pc:1?mac=AA-BB-CC-00-11-22&broadcast=192.168.1.255",
            Upstream("tcp://pc:1", "wyoming", mac="aa:bb:cc:00:11:22", broadcast="192.168.1.255"),
        ),
    ],
)
def test_an_upstream_is_read(text: str, expected: Upstream) -> None:
    assert Upstream.read(text) == expected
    assert expected.broadcast in (Upstream.broadcast, "192.168.1.255")


@pytest.mark.parametrize(
    "text",
    [
        "pc",
        "pc:10300",
        "tcp://pc",
        "tcp://pc:x",
        "tcp://pc:99999",
        "tcp://pc:10300/path",
        "tcp://[pc:1",
        "udp://pc:1",
        "https://",
        "https://host/v1#part",
        "https://user:pass@host/v1",
        "https://host/v1?api_key=" + KEY,
        "https://host/v1?key=" + KEY,
        "https://host/v1?colour=red",
        "https://host/v1?model=",
        "tcp://pc:1?key_file=/x",
        "tcp://pc:1?mac=12",
        "tcp://pc:1?mac=00:11:22:33:44:55&broadcast=pc",
    ],
)
def test_what_is_no_upstream_is_said_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        Upstream.read(text)
    assert KEY not in str(caught.value)


def test_upstreams_come_by_flag_variable_and_file(tmp_path: Path) -> None:
    home = {"HOME": "/nowhere"}
    expected = ("tcp://a:1", "https://b/v1?model=x")
    assert load_settings(["--upstreams", ",".join(expected)], home).upstreams == expected
    environ = {**home, "WYOMING_WHISPER_UPSTREAMS": " ".join(expected)}
    assert load_settings([], environ).upstreams == expected
    file = tmp_path / "options.yaml"
    file.write_text(f"upstreams:\n- {expected[0]}\n- {expected[1]}\nupstream_hedge: 0.5\n")
    loaded = load_settings(["--options", str(file)], home)
    assert (loaded.upstreams, loaded.upstream_hedge) == (expected, 0.5)
    with pytest.raises(SettingsError, match="it must be tcp"):
        load_settings(["--upstreams", "pc"], home)
    with pytest.raises(SettingsError, match="0 to 60"):
        load_settings(["--upstream-hedge", "61"], home)


# -- keys ----------------------------------------------------------------------------------


def test_a_key_comes_from_a_file_or_a_variable_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    upstreams = [
        Upstream.read(f"https://a/v1?key_file={tmp_path}/key"),
        Upstream.read("https://b/v1?key_variable=B_KEY"),
        Upstream.read("https://c/v1"),
        Upstream.read("tcp://d:1"),
    ]
    keyed = Upstream.with_keys(upstreams, {"B_KEY": "other"}, "third")
    assert [upstream.key for upstream in keyed] == [KEY, "other", "third", None]
    assert KEY not in repr(keyed)
    assert "other" not in repr(keyed)


def test_one_key_never_goes_to_two_houses() -> None:
    two = [Upstream.read("https://a/v1"), Upstream.read("https://b/v1")]
    with pytest.raises(SettingsError, match=r"https://a/v1, https://b/v1.*exactly one") as caught:
        Upstream.with_keys(two, {}, KEY)
    assert KEY not in str(caught.value)
    with pytest.raises(SettingsError, match="for none"):
        Upstream.with_keys([Upstream.read("tcp://a:1")], {}, KEY)


@pytest.mark.parametrize("key", ["two words", "", "a\nb", "schlüssel", "x" * 5000])
def test_what_is_no_key_is_not_repeated(key: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(key)
    with pytest.raises(SettingsError, match="must be one word") as caught:
        Upstream.with_keys([Upstream.read(f"https://a/v1?key_file={tmp_path}/key")], {}, None)
    assert not key or key not in str(caught.value)


def test_a_key_that_is_not_there_is_missed_at_the_start() -> None:
    with pytest.raises(SettingsError, match="can't be read"):
        Upstream.with_keys([Upstream.read("https://a/v1?key_file=/nowhere/key")], {}, None)
    with pytest.raises(SettingsError, match="A_KEY, which is not set"):
        Upstream.with_keys([Upstream.read("https://a/v1?key_variable=A_KEY")], {}, None)


def test_the_settings_do_not_show_the_key() -> None:
    environ = {"HOME": "/nowhere", "WYOMING_WHISPER_UPSTREAM_KEY": KEY}
    loaded = load_settings(["--upstreams", "https://a/v1"], environ)
    assert loaded.upstream_key == KEY
    assert KEY not in repr(loaded)
    with pytest.raises(SettingsError, match="not a flag"):
        load_settings(["--upstream-key", KEY], {"HOME": "/nowhere"})


# -- together ------------------------------------------------------------------------------


def pool_of(**values: object) -> object:
    return Pool.open(Settings(data_dir=(), **values), Status())  # type: ignore[arg-type]


def test_without_upstreams_there_is_no_pool() -> None:
    assert pool_of() is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backend": "none"}, "name --upstreams"),
        ({"upstream_key": KEY}, "names nobody"),
        ({"upstreams": ("tcp://a:1", "tcp://a:1?model=x")}, "twice"),
        ({"upstreams": tuple(f"tcp://a:{n}" for n in range(1, 11))}, "at most"),
    ],
)
def test_what_does_not_go_together_is_said(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        pool_of(**values)


def test_a_key_that_is_sent_in_the_open_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert pool_of(upstreams=("https://a/v1",), upstream_key=KEY)
    assert not caplog.text
    assert pool_of(upstreams=("http://a/v1",), upstream_key=KEY)
    assert "http://a/v1 can be read on its way" in caplog.text
    assert KEY not in caplog.text
