"""TIFF files that OpenSlide does not read, or reads wrongly: the pixels of their pages."""

import contextlib
import io
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from sish.errors import SlideOpenError, SlideReadError
from sish.slides.formats.checks import check_decoded, one_line
from sish.slides.formats.jpeg import read_jpeg_header
from sish.slides.formats.levels import Pixels, Size
from sish.slides.formats.pyramid import level_downsample
from sish.slides.formats.tiff_pages import (
    COMPRESSION,
    JPEG,
    JPEG_2000,
    PHOTOMETRIC,
    STREAMS,
    UnsuitedTiff,
    check_page,
    main_page,
    odd_tags_refused,
    open_tiff,
    orientation_of,
    size_of,
    smaller_pages,
    tiff_properties,
    tile_of,
)

SEGMENT_CACHE_BYTES = 64 << 20
"""Bytes of decoded strips or tiles that a plain TIFF keeps: neighbouring reads share them."""


class TiffLevels:
    """Levels of a TIFF, decoded tile by tile or strip by strip: 8-bit grey or RGB, or YCbCr in JPEG tiles.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    UnsuitedTiff
        If tifffile alone cannot decode it.
    SlideOpenError
        If no reader should show it.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``, and decode one pixel to see that it can be read."""
        self._path = path.absolute()
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._tiff: tifffile.TiffFile | None = open_tiff(self._path)
        self._pid = os.getpid()
        with contextlib.ExitStack() as on_refusal:
            on_refusal.callback(self.close)
            on_refusal.enter_context(odd_tags_refused())
            main = main_page(self._tiff, path)
            check_page(main, path)
            self._pages = [main, *smaller_pages(self._tiff, main, path)]
            self.sizes: tuple[Size, ...] = tuple(map(size_of, self._pages))
            self.downsamples = tuple(
                level_downsample(self.sizes[0], size, self.sizes[0][0] / size[0]) for size in self.sizes
            )
            self.tiles = tuple(tile_of(page) for page in self._pages)
            self.orientation = orientation_of(main)
            self.properties: Mapping[str, str] = tiff_properties(main) | {
                "tiff.ImageDescription": self._tiff.pages.first.description  # OME-XML is on the first page
            }
            self._show_that_it_decodes()
            on_refusal.pop_all()

    def _show_that_it_decodes(self) -> None:
        """Read one pixel; raise as the class says where that fails."""
        try:
            self.read_level(0, (0, 0), (1, 1))
        except SlideReadError as error:
            if self._pages[0].compression in STREAMS:
                raise UnsuitedTiff(one_line(error)) from error
            raise SlideOpenError(one_line(error)) from error  # Pillow might get its colours wrong

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a path."""
        return TiffLevels, (self._path,)

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[Pixels, tuple[float, float]]:
        """See Levels."""
        (x, y), (width, height) = xy, size
        page = self._pages[level]
        tall, wide = page.chunks[:2]
        across = -(-page.imagewidth // wide)
        out = np.full((height, width, 3), 255, np.uint8)
        rows, columns = range(y // tall, -(-(y + height) // tall)), range(x // wide, -(-(x + width) // wide))
        for row, column in itertools.product(rows, columns):
            segment = self._segment(level, row * across + column)
            top, left = row * tall - y, column * wide - x
            below, right = min(top + segment.shape[0], height), min(left + segment.shape[1], width)
            part = segment[max(0, -top) : below - top, max(0, -left) : right - left]
            out[max(0, top) : below, max(0, left) : right] = part
        return out, (float(x), float(y))

    def _segment(self, level: int, index: int) -> Pixels:
        """Return one decoded strip or tile, uint8 (h, w, 3), kept for the next read."""
        with self._lock:
            if (level, index) in self._cache:
                self._cache.move_to_end((level, index))
                return self._cache[level, index]
            segment = self._decode(level, index)
            self._cache[level, index] = segment
            while len(self._cache) > 1 and self._cached_bytes() > SEGMENT_CACHE_BYTES:
                self._cache.popitem(last=False)
        return segment

    def _cached_bytes(self) -> int:
        """Return the size of all kept segments."""
        return sum(segment.nbytes for segment in self._cache.values())

    def _decode(self, level: int, index: int) -> Pixels:
        """Read and decode one strip or tile."""
        if self._tiff is None:
            raise SlideReadError(f"{self._path}: is closed; open it again")
        if self._pid != os.getpid():
            self._tiff, self._pid = open_tiff(self._path), os.getpid()
        page = self._pages[level]
        try:
            file = self._tiff.filehandle
            file.seek(page.dataoffsets[index])
            data = file.read(page.databytecounts[index])
            check_stream(page, data, self._path)
            segment, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        # Codecs raise errors of their own making; all of them mean the same to us.
        except Exception as error:
            where = f"segment {index} of level {level}"
            raise SlideReadError(f"{self._path}: cannot read {where}: {one_line(error)}") from error
        if segment is None:
            return np.full((*shape[1:3], 3), 255, np.uint8)
        pixels: Pixels = segment[0, : shape[1], : shape[2]]
        if pixels.shape[-1] == 1:
            return np.repeat(pixels, 3, axis=-1)
        return rgb_of_ycbcr(pixels) if is_taken_for_rgb(page, data) else pixels

    def close(self) -> None:
        """See Levels."""
        with self._lock:
            if self._tiff is not None:
                self._tiff.close()
            self._tiff = None
            self._cache.clear()


def check_stream(page: Any, data: bytes, path: Path) -> None:
    """Refuse a compressed picture that is larger in itself than its tile may be (SlideOpenError)."""
    if page.compression == JPEG:
        header = read_jpeg_header(data)
        if header is not None:
            check_decoded(header.size, path)
    elif page.compression in JPEG_2000:
        with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as picture:
            check_decoded(picture.size, path)
        if page.compression == COMPRESSION.APERIO_JP2000_YCBC and not has_colour_transform(data):
            raise SlideOpenError(f"{path}: has YCbCr in JPEG 2000; convert it to RGB")


def has_colour_transform(data: bytes) -> bool:
    """Return whether a JPEG 2000 stream says in its COD segment that its decoder gives RGB."""
    place = data.find(b"\xff\x52")
    return place > 0 and data[place + 8 : place + 9] == b"\1"


def is_taken_for_rgb(page: Any, data: bytes) -> bool:
    """Return whether tifffile leaves YCbCr as it is: the tag says RGB, the stream says otherwise, no JFIF."""
    if page.compression != JPEG or page.photometric != PHOTOMETRIC.RGB or page.is_jfif:
        return False
    header = read_jpeg_header(data)
    return header is not None and header.colours == "YCbCr"


def rgb_of_ycbcr(pixels: Pixels) -> Pixels:
    """Return YCbCr of JPEG as RGB, uint8 (h, w, 3)."""
    height, width = pixels.shape[:2]
    picture = Image.frombytes("YCbCr", (width, height), np.ascontiguousarray(pixels).tobytes())
    return np.asarray(picture.convert("RGB"))
