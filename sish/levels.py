"""Where a slide's pixels come from: one small interface, three kinds of file.

A source has levels of falling size and hands out exact pixels of one level; it knows neither
micrometres nor resampling. It is safe in threads, and pickles as its path: the copy opens the file anew.
"""

import contextlib
import itertools
import logging
import math
import os
import stat
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sish.errors import SlideOpenError, SlideReadError

__all__ = ["ArrayLevels", "Levels", "OpenSlideLevels", "TiffLevels", "open_levels"]

Size = tuple[int, int]
Pixels = NDArray[np.uint8]

PLAIN_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""What Pillow may try: its other decoders serve no microscope and only widen the door."""

# tifffile logs what it finds wrong with a file; we say it ourselves, in an error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

SEGMENT_CACHE_BYTES = 64 << 20
"""Decoded strips or tiles that a plain TIFF keeps: neighbouring reads share them."""


class Levels(Protocol):
    """A pyramid of pixels, level 0 the finest."""

    sizes: tuple[Size, ...]
    """(width, height) of each level."""
    downsamples: tuple[tuple[float, float], ...]
    """Level-0 pixels that a pixel of each level spans, in x and y."""
    properties: Mapping[str, str]
    """OpenSlide's names and values."""

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[Pixels, tuple[float, float]]:
        """Pixels uint8 (h, w, 3) of a rectangle inside a level, and where in the level they begin.

        The place is ``xy`` itself, or beside it by a fraction of a pixel where the backend can only
        be asked in level-0 pixels. Raises SlideReadError.
        """
        ...

    def close(self) -> None:
        """Release the file; reading again fails."""
        ...


def open_levels(path: Path) -> Levels:
    """Open a file by OpenSlide, else as a plain TIFF, PNG or JPEG.

    Raises SlideOpenError on one line for a folder, a missing, empty, truncated or foreign file.
    """
    check_file(path)
    is_tiff = read_magic(path) in TIFF_MAGIC
    try:
        levels = OpenSlideLevels(path)
    except openslide.OpenSlideUnsupportedFormatError:
        reason = "neither OpenSlide nor Pillow knows this format"
    except openslide.OpenSlideError as error:
        reason = one_line(error)
    else:
        if is_tiff:
            check_pixels(path)
        return levels
    if is_tiff:
        check_directories(path)
        check_pixels(path)
        # Whatever a TIFF of unknown making raises, Pillow is asked next and the file is refused by it.
        with contextlib.suppress(
            ValueError, KeyError, IndexError, TypeError, tifffile.TiffFileError, SlideReadError
        ):
            return TiffLevels(path)
    try:
        return ArrayLevels(decode_image(path))
    except UnidentifiedImageError:
        raise SlideOpenError(f"{path}: not a readable slide or image: {reason}") from None


def check_file(path: Path) -> None:
    """Refuse what is not a file with something in it."""
    try:
        found = path.stat()
    except OSError as error:
        raise SlideOpenError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    if stat.S_ISDIR(found.st_mode):
        raise SlideOpenError(f"{path}: is a folder; give a slide file, or list its slides with find_slides")
    if not stat.S_ISREG(found.st_mode):
        raise SlideOpenError(f"{path}: is not a regular file; give a slide file")
    if found.st_size == 0:
        raise SlideOpenError(f"{path}: is empty; copy it again")


def read_magic(path: Path) -> bytes:
    """The first four bytes."""
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise SlideOpenError(f"{path}: cannot be read: {error.strerror}") from error


def check_directories(path: Path) -> None:
    """Refuse a TIFF whose chain of directories leads beyond its end: the tail of the file is missing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
        # Widths in bytes of a count, an entry and an offset: classic TIFF, and BigTIFF (magic 43).
        is_big = 43 in head[2:4]
        count_width, entry_width, offset_width = (8, 20, 8) if is_big else (2, 12, 4)
        offset = int.from_bytes(head[8:16] if is_big else head[4:8], order)
        seen: set[int] = set()
        while offset and offset not in seen:
            seen.add(offset)
            file.seek(offset)
            entries = int.from_bytes(file.read(count_width), order)
            end = offset + count_width + entries * entry_width + offset_width
            if end > size:
                raise SlideOpenError(f"{path}: is truncated: {size} of at least {end} bytes; copy it again")
            file.seek(end - offset_width)
            offset = int.from_bytes(file.read(offset_width), order)


def check_pixels(path: Path) -> None:
    """Refuse a TIFF whose pixels lie beyond its end: a copy that was cut short opens well and fails later."""
    try:
        with tifffile.TiffFile(path) as tiff:
            ends = [
                max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
                for page in tiff.pages
            ]
    # Vendors bend TIFF in many ways; only the reader itself may refuse them for it.
    except Exception:
        return
    size = path.stat().st_size
    if max(ends, default=0) > size:
        raise SlideOpenError(f"{path}: is truncated: {size} of at least {max(ends)} bytes; copy it again")


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


def level_downsample(level0: Size, level: Size, stated: float) -> tuple[float, float]:
    """Level-0 pixels that a pixel of a level spans, in x and y.

    OpenSlide states the mean of the two ratios of sizes, but pyramids are made by whole factors and
    their odd last pixels dropped or completed, so the whole factor is the true one where it explains
    both sizes. At the far end of a 100,000 px slide the difference is tens of pixels.

    >>> level_downsample((4443, 3567), (2221, 1783), 2.0005)
    (2.0, 2.0)
    >>> level_downsample((1500, 1000), (450, 300), 3.3333)
    (3.3333333333333335, 3.3333333333333335)
    """
    pairs = tuple(zip(level0, level, strict=True))
    # The sizes of a small level fit several factors; the power of two is the likely one.
    for factor in (2 ** max(0, round(math.log2(stated))), max(1, round(stated))):
        if all(whole // factor <= part <= -(-whole // factor) for whole, part in pairs):
            return float(factor), float(factor)
    if stated.is_integer():
        return stated, stated
    x, y = (whole / part for whole, part in pairs)
    # Ratios that disagree come from levels padded to whole tiles; there the vendor's number is better.
    return (x, y) if abs(x - y) < 0.02 * stated else (stated, stated)


class OpenSlideLevels:
    """Levels of a file that OpenSlide reads."""

    def __init__(self, path: Path) -> None:
        """Open ``path``; raises openslide.OpenSlideError."""
        self._path = path.absolute()
        slide = openslide.OpenSlide(self._path)
        # Closed when nobody holds it any more: to close it while a thread reads from it aborts the process.
        self._slide: openslide.OpenSlide | None = slide
        self._pid = os.getpid()
        self._stated = slide.level_downsamples
        self.sizes: tuple[Size, ...] = slide.level_dimensions
        self.downsamples = tuple(
            level_downsample(self.sizes[0], size, stated)
            for size, stated in zip(self.sizes, self._stated, strict=True)
        )
        self.properties: Mapping[str, str] = dict(slide.properties)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a path."""
        return OpenSlideLevels, (self._path,)

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[Pixels, tuple[float, float]]:
        """See Levels. OpenSlide takes level-0 places and shifts by the remaining fraction itself."""
        stated = self._stated[level]
        l0_xy = (round(xy[0] * stated), round(xy[1] * stated))
        begin = (l0_xy[0] / stated, l0_xy[1] / stated)
        try:
            image = self._handle().read_region(l0_xy, level, size)
        except openslide.OpenSlideError:
            image = self._read_afresh(l0_xy, level, size)
        return on_white(image), begin

    def _handle(self) -> openslide.OpenSlide:
        """The handle of this process: a forked child must not share its parent's file position."""
        slide = self._slide
        if slide is None:
            raise SlideReadError(f"{self._path}: is closed; open it again")
        if self._pid != os.getpid():
            self._slide = slide = openslide.OpenSlide(self._path)
            self._pid = os.getpid()
        return slide

    def _read_afresh(self, l0_xy: Size, level: int, size: Size) -> Image.Image:
        """Read by a new handle: one failure makes a handle dead for all later reads and for all threads."""
        try:
            slide = openslide.OpenSlide(self._path)
            image = slide.read_region(l0_xy, level, size)
        except openslide.OpenSlideError as error:
            where = f"{size[0]} x {size[1]} px of level {level} at {l0_xy[0]}, {l0_xy[1]}"
            raise SlideReadError(f"{self._path}: cannot read {where}: {one_line(error)}") from error
        if self._slide is not None:
            self._slide = slide
        return image

    def close(self) -> None:
        """See Levels. Reads that are running in other threads end well; the last of them closes the file."""
        self._slide = None


class ArrayLevels:
    """One level in memory: decoded images, and pixels made by a program."""

    def __init__(self, pixels: Pixels) -> None:
        """Wrap uint8 (H, W, 3)."""
        self._pixels: Pixels | None = pixels
        self.sizes: tuple[Size, ...] = ((pixels.shape[1], pixels.shape[0]),)
        self.downsamples: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
        self.properties: Mapping[str, str] = {}

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[Pixels, tuple[float, float]]:
        """See Levels."""
        pixels = self._pixels
        if pixels is None:
            raise SlideReadError("the slide is closed; open it again")
        (x, y), (width, height) = xy, size
        return pixels[y : y + height, x : x + width], (float(x), float(y))

    def close(self) -> None:
        """See Levels."""
        self._pixels = None


class TiffLevels:
    """A TIFF in strips or tiles that OpenSlide does not read, decoded strip by strip (8-bit grey or RGB)."""

    def __init__(self, path: Path) -> None:
        """Open ``path``; raises ValueError or KeyError where tifffile alone cannot decode it."""
        self._path = path.absolute()
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._tiff: tifffile.TiffFile | None = tifffile.TiffFile(self._path)
        self._pid = os.getpid()
        with contextlib.ExitStack() as on_refusal:
            on_refusal.callback(self.close)
            self._pages = [level.keyframe for level in self._tiff.series[0].levels]
            for page in self._pages:
                check_page(page, path)
            self.sizes: tuple[Size, ...] = tuple((page.imagewidth, page.imagelength) for page in self._pages)
            self.downsamples = tuple(
                level_downsample(self.sizes[0], size, self.sizes[0][0] / size[0]) for size in self.sizes
            )
            self.properties: Mapping[str, str] = tiff_properties(self._pages[0]) | {
                "tiff.ImageDescription": self._tiff.pages.first.description  # OME-XML is on the first page
            }
            # Shows whether this compression can be decoded here.
            self.read_level(0, (0, 0), (1, 1))
            on_refusal.pop_all()

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
        """One decoded strip or tile, uint8 (h, w, 3), kept for the next read."""
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
        """Size of all kept segments."""
        return sum(segment.nbytes for segment in self._cache.values())

    def _decode(self, level: int, index: int) -> Pixels:
        """Read and decode one strip or tile."""
        if self._tiff is None:
            raise SlideReadError(f"{self._path}: is closed; open it again")
        if self._pid != os.getpid():
            self._tiff, self._pid = tifffile.TiffFile(self._path), os.getpid()
        page = self._pages[level]
        try:
            file = self._tiff.filehandle
            file.seek(page.dataoffsets[index])
            data = file.read(page.databytecounts[index])
            segment, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        # Codecs raise errors of their own making; all of them mean the same to us.
        except Exception as error:
            where = f"segment {index} of level {level}"
            raise SlideReadError(f"{self._path}: cannot read {where}: {one_line(error)}") from error
        if segment is None:
            return np.full((*shape[1:3], 3), 255, np.uint8)
        pixels: Pixels = segment[0, : shape[1], : shape[2]]
        return pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)

    def close(self) -> None:
        """See Levels."""
        with self._lock:
            if self._tiff is not None:
                self._tiff.close()
            self._tiff = None
            self._cache.clear()


def check_page(page: Any, path: Path) -> None:
    """Refuse a TIFF page that is not plain 8-bit grey or RGB in contiguous samples, or bursts memory."""
    plain = page.dtype == np.uint8 and page.imagedepth == page.planarconfig == 1 and not page.extrasamples
    colours = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    if not plain or page.photometric not in colours or min(page.chunks[:2]) < 1:
        raise ValueError("not an 8-bit grey or RGB TIFF")
    # Raises KeyError where the codec is an optional package; Pillow may know it.
    tifffile.TIFF.DECOMPRESSORS[page.compression]
    check_size(page.chunks[1] * page.chunks[0], path)


def tiff_properties(page: Any) -> dict[str, str]:
    """Size and resolution tags under OpenSlide's names."""
    properties = {
        "openslide.level[0].width": str(page.imagewidth),
        "openslide.level[0].height": str(page.imagelength),
    }
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        if tag is not None and tag.value[1]:
            properties[f"tiff.{name}"] = str(tag.value[0] / tag.value[1])
    unit = page.tags.get("ResolutionUnit")
    # The TIFF standard's default is the inch.
    number = int(unit.value) if unit else 2
    properties["tiff.ResolutionUnit"] = {2: "inch", 3: "centimeter"}.get(number, "none")
    return properties


def check_size(pixels: int, path: Path) -> None:
    """Refuse to decode at once more pixels than Pillow holds for safe (a decompression bomb)."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        raise SlideOpenError(
            f"{path}: would decode {pixels} pixels at once, more than {limit}; "
            "convert it to a tiled pyramidal TIFF"
        )


@contextlib.contextmanager
def pillow_refusals(path: Path) -> Iterator[None]:
    """Turn Pillow's warnings and errors about a file into SlideOpenError; unknown formats pass."""
    with warnings.catch_warnings():
        # Pillow only warns up to twice its limit, and of odd tags; check_size refuses the former.
        warnings.simplefilter("ignore")
        try:
            yield
        except UnidentifiedImageError:
            raise
        except Image.DecompressionBombError as error:
            advice = "convert it to a tiled pyramidal TIFF"
            raise SlideOpenError(f"{path}: {one_line(error)}; {advice}") from error
        except (OSError, SyntaxError, ValueError, MemoryError) as error:
            raise SlideOpenError(f"{path}: not a readable image: {one_line(error)}; copy it again") from error


def decode_image(path: Path) -> Pixels:
    """Decode a plain image to uint8 (H, W, 3), transparency on white.

    It is decoded now, not when first read, so that a truncated file fails at once.
    Raises SlideOpenError, and PIL.UnidentifiedImageError where Pillow does not know the format.
    """
    with pillow_refusals(path), Image.open(path, formats=PLAIN_FORMATS) as image:
        check_size(image.width * image.height, path)
        if image.mode.startswith(("I", "F")):
            raise SlideOpenError(f"{path}: has pixels of more than 8 bits ({image.mode}); convert it to RGB")
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        return on_white(image.convert("RGBA")) if has_alpha else np.asarray(image.convert("RGB"))


def on_white(image: Image.Image) -> Pixels:
    """An RGBA picture laid on white glass, uint8 (H, W, 3)."""
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return np.asarray(image.convert("RGB"))
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=alpha)
    return np.asarray(white)
