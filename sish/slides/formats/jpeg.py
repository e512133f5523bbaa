"""The header of a JPEG stream: its size, and whether its colours are RGB or YCbCr.

A TIFF or DICOM file says in its own tags which colours its JPEG tiles hold, and some say it wrongly: they
declare RGB and hold YCbCr, so that tissue is shown green on red glass. The stream itself tells it where it
carries a JFIF or an Adobe marker, or subsamples two of its channels, which is done to chroma only.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_STARTS_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JFIF, _ADOBE, _START_OF_SCAN, _START_OF_IMAGE = 0xE0, 0xEE, 0xDA, 0xD8
_ALONE = frozenset({0x01, _START_OF_IMAGE, *range(0xD0, 0xD8)})
"""Markers without a body."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """Header of a stream: all before its first scan."""

    size: tuple[int, int]
    """Width and height in pixels."""
    colours: str | None
    """RGB or YCbCr of a stream with three channels; None where it does not say."""


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Return the header of a JPEG stream; None where ``data`` does not begin with one."""
    has_jfif, transform, frame = False, None, b""
    for marker, body in _segments(data):
        if marker == _JFIF and body.startswith(b"JFIF"):
            has_jfif = True
        elif marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
            transform = body[11]
        elif marker in _STARTS_OF_FRAME and len(body) >= 6:
            frame = body
            break
    if not frame:
        return None
    size = int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")
    return JpegHeader(size, _colours(frame, has_jfif, transform))


def _colours(frame: bytes, has_jfif: bool, transform: int | None) -> str | None:
    """Return the colours: Adobe's marker tells them, JFIF allows YCbCr only, only chroma is subsampled."""
    if frame[5] != 3 or len(frame) < 15:
        return None
    if transform is not None:
        return "YCbCr" if transform else "RGB"
    samplings = {frame[7], frame[10], frame[13]}
    return "YCbCr" if has_jfif or len(samplings) > 1 else None


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each marker before the first scan, with its body."""
    place = 0
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _ALONE or marker == 0xFF:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == _START_OF_SCAN:
            return
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + max(2, length)
