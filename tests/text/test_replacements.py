"""--replace: what the user wants written otherwise."""

# ruff: noqa: RUF001  (letters and marks of all scripts)

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import load_settings
from wyoming_whisper.errors import SettingsError
from wyoming_whisper.settings.options import Settings
from wyoming_whisper.text.evidence import Voicing
from wyoming_whisper.text.replacements import Replacements
from wyoming_whisper.text.style import TextStyle
from wyoming_whisper.transcriber import Segment, Transcription

HOME = {"HOME": "/home/user"}


def replaced(text: str, *items: str) -> str:
    return Replacements.read(items)(text)


# -- what is replaced ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "items", "result"),
    [
        ("turn on the tee vee", ["tee vee=TV"], "turn on the TV"),
        ("Tee  Vee on", ["tee vee=TV"], "TV on"),
        ("the TVs", ["tv=television"], "the TVs"),  # whole words
        ("a smart-tv, please", ["tv=TV"], "a smart-TV, please"),
        ("mach die HEIZUNG an", ["heizung=Thermostat"], "mach die Thermostat an"),
        ("öffne die tür", ["TÜR=Haustür"], "öffne die Haustür"),
        ("allume le cafe\u0301", ["café=bar"], "allume le bar"),  # in two characters or one
        ("what's up", ["what’s=what is"], "what is up"),
        ("5 o’clock", ["o'clock=Uhr"], "5 Uhr"),
        ("打开电视机", ["电视=TV"], "打开TV机"),  # no blanks between words
        ("テレビをつけて", ["テレビ=TV"], "TVをつけて"),
        ("เปิดทีวี", ["ทีวี=TV"], "เปิดTV"),
        ("Включи телек", ["телек=телевизор"], "Включи телевизор"),
        ("turn on c sharp", [r"c sharp=C\=#"], "turn on C=#"),
        (r"a\b", [r"a\\b=c"], "c"),
        ("room one light", ["room=hall", "room one=office"], "office light"),  # the longest
        ("one two", ["one=two", "two=three"], "two three"),  # none in what another wrote
        ("x", ["x=1", "X=2"], "2"),  # the last
        ("5.5 is 5, not 5.", ["5=five"], "5.5 is five, not five."),  # a number is one word
        ("1,5 at 5:05 on 1/5", ["5=five", "1=one"], "1,5 at 5:05 on 1/5"),
        ("5,5.5 5", [".=", ",="], "5,5.5 5"),
        ("1.5 a.", [".="], "1.5 a"),
        ("21.5 on", ["21.5=21½"], "21½ on"),
        ("nothing", [], "nothing"),
        ("as  it is", ["x=y"], "as  it is"),
    ],
)
def test_whole_words_are_replaced(text: str, items: list[str], result: str) -> None:
    assert replaced(text, *items) == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Hey Jarvis, turn on the light.", "turn on the light."),
        ("Hey Jarvis turn on, please", "turn on"),
        ("Turn it on, please.", "Turn it on."),
        ("please, please turn on", "turn on"),
        ("turn, please, on", "turn, on"),
        ("电灯，please，打开", "电灯，打开"),
        ("Hey Jarvis.", ""),
        ("please", ""),
    ],
)
def test_nothing_behind_the_sign_drops_the_words_and_their_commas(text: str, result: str) -> None:
    assert replaced(text, "hey jarvis=", "please=") == result


# -- how they are given --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tv", "'tv' must be FROM=TO"),
        ("=TV", "'=TV' must be FROM=TO"),
        (" = TV", "must be FROM=TO"),
        ("a=b=c", r"'a=b=c' has more than one =; one that is meant is written \\="),
        (r"a\b=c", "has a backslash before none of"),
        ("a=b\\", "has a backslash before none of"),
        (f"{'x' * (201)}=y", "longer than 200 characters"),
        (f"x={'y' * (201)}", "longer than 200 characters"),
    ],
)
def test_a_line_that_is_none_is_one_sentence(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Replacements.read([line])
    assert "\n" not in str(caught.value)


def test_there_are_not_too_many() -> None:
    enough = [f"word{number}=x" for number in range(1000)]
    assert len(Replacements.read(enough)) == 1000
    with pytest.raises(ValueError, match="there may be 1000 of them at most"):
        Replacements.read([*enough, "one=more"])


def test_a_file_has_a_line_for_each(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeff# mine\n\ntee vee = TV\n\\#1=number one\n", encoding="utf-8")
    assert Replacements.read(["a=b", f"@{file}"]) == (
        ("a", "b"),
        ("tee vee", "TV"),
        ("#1", "number one"),
    )


def test_a_mistaken_line_of_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("tee vee=TV\n\ntelly\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=rf"--replace .* in line 3 of {file} 'telly' must be"):
        load_settings(["--replace", f"@{file}"], HOME)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "can't be read"),
        ("binary", b"\xff\xfe=x", "is not UTF-8 text"),
        ("large", b"#" * 1_000_001, "is larger than 1000 kB"),
    ],
)
def test_a_file_that_can_not_be_used_is_one_sentence(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        load_settings(["--replace", f"@{tmp_path / name}"], HOME)


@pytest.mark.parametrize("device", [False, True])
def test_what_is_no_plain_file_is_refused_unread(device: bool, tmp_path: Path) -> None:
    path = Path("/dev/zero") if device else tmp_path / "pipe"
    if not device:
        os.mkfifo(path)  # opening it would wait for a writer
    for argv, environ in (
        (["--replace", f"@{path}"], {}),
        ([], {"WYOMING_WHISPER_REPLACE_FILE": str(path)}),
    ):
        with pytest.raises(SettingsError, match=f"{path} is a device or a pipe, not a plain file"):
            load_settings(argv, HOME | environ)


def test_a_file_is_read_to_its_bound_alone_whatever_its_size_says(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="/dev/zero is larger than 1000 kB"):
        load_settings(["--options", "/dev/zero"], HOME)
    with pytest.raises(SettingsError, match="/dev/zero is larger than 1000 kB"):
        load_settings([], HOME | {"WYOMING_WHISPER_MODEL_FILE": "/dev/zero"})


def test_a_file_without_a_name_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="@ must be followed by a file's name"):
        load_settings(["--replace", "@"], HOME)
    with pytest.raises(SettingsError, match=rf"{tmp_path} can't be read \(Is a directory\)"):
        load_settings(["--replace", f"@{tmp_path}"], HOME)


def test_flags_variables_and_files_give_the_same(tmp_path: Path) -> None:
    lines = "tee vee=TV\nplease=\n"
    listed, text, words = tmp_path / "list.yaml", tmp_path / "text.yaml", tmp_path / "words.txt"
    listed.write_text("replace:\n  - tee vee=TV\n  - please=\n")
    text.write_text("replace: |\n  tee vee=TV\n  please=\n")
    words.write_text(lines)
    sources: tuple[tuple[list[str], dict[str, str]], ...] = (
        (["--replace", "tee vee=TV", "--replace", "please="], {}),
        ([], {"WYOMING_WHISPER_REPLACE": lines}),
        ([], {"WYOMING_WHISPER_REPLACE_FILE": str(words)}),
        (["--replace", f"@{words}"], {}),
        (["--options", str(listed)], {}),
        (["--options", str(text)], {}),
    )
    for argv, environ in sources:
        settings = load_settings(argv, HOME | environ)
        assert settings.replace == (("tee vee", "TV"), ("please", "")), (argv, environ)


# -- where they are made -------------------------------------------------------------------


def style(*items: str, **options: bool) -> TextStyle:
    settings = Settings(data_dir=(), replace=Replacements.read(items), **options)  # type: ignore[arg-type]
    return TextStyle.from_settings(settings)


def test_they_come_last_and_what_they_write_stays() -> None:
    shaped = style("30 minutes=Half An Hour.", "light=LIGHT", lowercase=True)
    assert shaped.tidy("Uh, ½ hour timer. ", "en") == "Half An Hour. timer"
    assert shaped.tidy("The Light.", "en") == "the LIGHT"


def test_who_wants_what_was_said_gets_them_too() -> None:
    segments = (Segment(0.0, 1.0, " Uh, tee vee.", (), -0.1, 1.0, 0.0, 0.0),)
    heard = Transcription("Uh, tee vee.", "en", segments=segments)
    answer = style("tee vee=TV").verbatim.finished(heard, Voicing(1.0, 20))
    assert answer.text == "Uh, TV."
    assert [segment.text for segment in answer.segments] == [" Uh, TV."]
