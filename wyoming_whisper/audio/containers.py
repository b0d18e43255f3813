"""What kind of audio file some bytes are, told by the bytes alone.

Only formats that hold the audio themselves are known here. FFmpeg also knows playlists, which would
have it open other files and addresses; as nothing is left to it to find out, it never sees one.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum


class Container(Enum):
    """A format of audio files: its name for people, and who reads it."""

    WAV = ("wav", ("WAV", "WAVEX", "RF64"))
    MP3 = ("mp3", ("MP3", "MPEG"))
    AAC = ("aac",)
    M4A = ("mov",)
    AIFF = ("aiff", ("AIFF",))
    FLAC = ("flac", ("FLAC",), b"fLaC")
    OGG = ("ogg", ("OGG",), b"OggS")
    WEBM = ("matroska", (), b"\x1a\x45\xdf\xa3")
    AMR = ("amr", (), b"#!AMR")
    CAF = ("caf", ("CAF",), b"caff")
    AU = ("au", ("AU",), b".snd")
    WMA = ("asf", (), bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"))

    def __init__(self, ffmpeg: str, sndfile: tuple[str, ...] = (), magic: bytes = b"") -> None:
        self.ffmpeg = ffmpeg
        """FFmpeg's name of what reads it."""
        self.sndfile = sndfile
        """libsndfile's names for it; none where it can't read it."""
        self.magic = magic
        """What a file begins with; empty where more than that tells."""

    @property
    def is_mostly_ffmpegs(self) -> bool:
        """Whether libsndfile reads only what of it is not compressed as usual."""
        return self is Container.CAF

    @classmethod
    def sniff(cls, data: bytes) -> tuple[Container | None, int]:
        """Return the format, None for what is none of them, and where the file begins.

        Zeros and tags come before some MP3 and AAC; other junk too, where frames follow it soon.
        """
        # Of what precedes the first frame of raw MP3 or AAC, besides zeros and tags.
        max_skipped_bytes = 64 * 1024
        start = 0
        for start in _beginnings(data):
            kind = _by_magic(data, start) or _raw(data, start)
            if kind is not None:
                return kind, start
        if start < len(data):
            for at in range(start, min(start + max_skipped_bytes, len(data))):
                kind = _raw(data, at, whole=True) if data[at] == 0xFF else None
                if kind is not None:
                    return kind, at
        return (cls.MP3, 0) if data.startswith(b"ID3") else (None, 0)


def _by_magic(data: bytes, start: int) -> Container | None:
    head = data[start : start + 16]
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return Container.WAV
    if head[4:8] == b"ftyp":
        return Container.M4A
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Container.AIFF
    return next((kind for kind in Container if kind.magic and head.startswith(kind.magic)), None)


def _beginnings(data: bytes) -> Iterator[int]:
    """Yield where the file may begin: where it does, and after zeros and tags (ID3v2)."""
    at, last = 0, -1
    while at != last:
        yield at
        last = at
        at += _tag_bytes(data, at)
        if data[at : at + 1] == b"\0":
            at = len(data) - len(data[at:].lstrip(b"\0"))


def _tag_bytes(data: bytes, at: int) -> int:
    """Return the length of the ID3v2 tag there; 0 where there is none."""
    head = data[at : at + 10]
    if len(head) < 10 or head[:3] != b"ID3" or head[3] > 4 or max(head[6:]) > 0x7F:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    n_bytes = 10 + size + (10 if head[5] & 0x10 else 0)  # there may be a footer
    return n_bytes if at + n_bytes <= len(data) else 0


# -- raw frames ----------------------------------------------------------------------------


def _raw(data: bytes, at: int, *, whole: bool = False) -> Container | None:
    """Return what frames begin there, as many as are enough to tell; fewer end with the file.

    `whole` asks for all of them.
    """
    # By which raw MP3 or AAC is told from any two bytes that look like a frame's.
    frames_in_a_row = 3
    kind = None
    for _ in range(frames_in_a_row):
        head = data[at : at + 6]
        if kind is not None and len(head) < 6:
            return None if whole else kind
        frame_kind, n_bytes = _frame(head)
        if frame_kind is None or kind not in (None, frame_kind):
            return None
        kind, at = frame_kind, at + n_bytes
    return kind


def _frame(head: bytes) -> tuple[Container | None, int]:
    """Return the kind of a frame and its length in bytes, by its first six."""
    hertz_of_mpeg_1 = (44_100, 48_000, 32_000)
    kbps_of_mpeg_2 = (
        (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
        (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
        (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    )
    kbps_of_mpeg_1 = (
        (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
        (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
        (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    )
    if len(head) < 6 or head[0] != 0xFF:
        return None, 0
    if head[1] & 0xF6 == 0xF0:  # ADTS has no layer
        n_bytes = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        is_aac = (head[2] >> 2) & 15 < 13 and n_bytes > 7
        return (Container.AAC, n_bytes) if is_aac else (None, 0)
    version, layer = (head[1] >> 3) & 3, 3 - ((head[1] >> 1) & 3)  # 3 is MPEG 1; 0 is layer I
    kbps, hertz, padding = head[2] >> 4, (head[2] >> 2) & 3, (head[2] >> 1) & 1
    if head[1] & 0xE0 != 0xE0 or version == 1 or layer == 3 or kbps in (0, 15) or hertz == 3:
        return None, 0
    rate = hertz_of_mpeg_1[hertz] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * (kbps_of_mpeg_1 if version == 3 else kbps_of_mpeg_2)[layer][kbps - 1]
    if layer == 0:
        return Container.MP3, (12 * bits // rate + padding) * 4
    n_samples = 576 if layer == 2 and version != 3 else 1152
    return Container.MP3, n_samples // 8 * bits // rate + padding
