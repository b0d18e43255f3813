"""Texts that are put together, in scripts with and without blanks between words."""

from __future__ import annotations

import pytest

from wyoming_whisper.text.scripts import joined


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["turn on", "the light"], "turn on the light"),
        (["Licht an.", "Und die Heizung aus."], "Licht an. Und die Heizung aus."),
        (["電気をつけて。", "ドアを閉めて。"], "電気をつけて。ドアを閉めて。"),
        (["電気をつけて.", "「ドア」を閉めて"], "電気をつけて.「ドア」を閉めて"),
        (["打开灯", "关上门"], "打开灯关上门"),
        (["เปิดไฟ", "ปิดประตู"], "เปิดไฟปิดประตู"),
        (["ໄຟ", "ປະຕູ"], "ໄຟປະຕູ"),
        (["မီး", "တံခါး"], "မီးတံခါး"),
        (["ភ្លើង", "ទ្វារ"], "ភ្លើងទ្វារ"),
        (["불을 켜", "문을 닫아"], "불을 켜 문을 닫아"),
        (["電気を", "Netflix", "を"], "電気を Netflix を"),
        (["", "a", "", "b", ""], "a b"),
        ([], ""),
    ],
)
def test_texts_are_parted_as_their_script_parts_words(texts: list[str], whole: str) -> None:
    assert joined(texts) == whole
