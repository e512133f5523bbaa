"""The pages of a TIFF: the one that is the slide, the ones that are its levels, and what is refused.

The main picture is the largest page; thumbnails, labels and macro pictures are smaller. Its pyramid is made
of the pages that are marked as reduced copies, in the chain of pages or below the main one (sub-IFDs, as in
OME-TIFF). Pages of equal size are channels, planes of a stack or several pictures, and such a file is
refused.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from sish.errors import SlideError, SlideOpenError
from sish.slides.formats.checks import MAX_PAGES, check_decoded, check_side, one_line
from sish.slides.formats.jpeg import read_jpeg_header
from sish.slides.formats.levels import Size
from sish.slides.formats.upright import UPRIGHT

# tifffile logs what is wrong with a file; an error of ours tells it.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

PHOTOMETRIC, COMPRESSION = tifffile.PHOTOMETRIC, tifffile.COMPRESSION

JPEG = COMPRESSION.JPEG

JPEG_2000 = frozenset({COMPRESSION.APERIO_JP2000_YCBC, COMPRESSION.APERIO_JP2000_RGB, COMPRESSION.JPEG2000})

STREAMS = frozenset(
    {COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.PACKBITS,
     COMPRESSION.LZMA, COMPRESSION.ZSTD}
)  # fmt: skip
"""Compressions that give bytes, as many as a strip or tile needs."""

FULL_RANGE = (0, 255, 128, 255, 128, 255)
"""ReferenceBlackWhite of the YCbCr that JPEG uses, the only one that we read."""

BT_601 = (0.299, 0.587, 0.114)
"""YCbCrCoefficients of the same."""

TAGS = (
    "imagewidth", "imagelength", "imagedepth", "tilewidth", "tilelength", "rowsperstrip", "samplesperpixel",
    "photometric", "compression", "planarconfig", "subfiletype",
)  # fmt: skip

_MASK_PAGE, _REDUCED_PAGE = 4, 1  # bits of NewSubfileType

_DEFAULT_SUBSAMPLING = (2, 2)

WANTED = "want one bright-field picture, grey or RGB: export it as such"


class UnsuitedTiff(ValueError):
    """Our reader does not decode this kind of page; Pillow may."""


@contextlib.contextmanager
def odd_tags_refused() -> Iterator[None]:
    """Raise UnsuitedTiff for whatever odd tags raise: vendors and attackers bend TIFF in many ways."""
    try:
        yield
    except (SlideError, UnsuitedTiff):
        raise
    except Exception as error:
        raise UnsuitedTiff(one_line(error)) from error


def open_tiff(path: Path) -> Any:
    """Open a TIFF by tifffile, without its OME-XML, which may name other files; UnsuitedTiff if it cannot."""
    with odd_tags_refused():
        return tifffile.TiffFile(path, is_ome=False)


def is_shown_rightly(path: Path, size: Size) -> bool:
    """Return whether OpenSlide, which knows no vendor of this TIFF, shows what it holds.

    OpenSlide takes the first page for the slide, believes a wrong tag of colours, turns tile by tile what is
    stored turned, and does not look into sub-IFDs.

    Parameters
    ----------
    path : Path
        The file.
    size : tuple of int
        Width and height of the slide as OpenSlide tells it.

    Returns
    -------
    bool
        False where our own reader has to show it.

    Raises
    ------
    SlideOpenError
        If no reader should show it: its grey has more than 8 bits, or it holds several pictures.
    """
    try:
        with open_tiff(path) as tiff, odd_tags_refused():
            page = main_page(tiff, path)
            if is_deep_grey(page):
                raise SlideOpenError(f"{path}: has {describe(page)}, more than 8 bits of grey; {WANTED}")
            return bool(
                size_of(page) == size
                and orientation_of(page) == UPRIGHT
                and not page.subifds
                and not contradicts_its_tiles(page, path)
            )
    except UnsuitedTiff:
        return True


def main_page(tiff: Any, path: Path) -> Any:
    """Return the largest page of a TIFF that is no reduced copy.

    Parameters
    ----------
    tiff : tifffile.TiffFile
        The file.
    path : Path
        Its path, for errors.

    Returns
    -------
    tifffile.TiffPage
        The page.

    Raises
    ------
    SlideOpenError
        If there are several of its size (channels, planes, pictures), or none.
    UnsuitedTiff
        If pages cannot be read.
    """
    pages = [page for page in top_pages(tiff) if not page.subfiletype & _MASK_PAGE]
    if not pages:
        raise SlideOpenError(f"{path}: has no page with a picture; copy it again")
    # A level that is filled up to whole tiles may be larger than a small slide itself.
    full = [page for page in pages if not page.subfiletype & _REDUCED_PAGE] or pages
    main = max(full, key=lambda page: page.imagewidth * page.imagelength)
    check_side(size_of(main), path)
    if page_channels(main) > 1:
        raise SlideOpenError(f"{path}: has {page_channels(main)} channels that are no colours; {WANTED}")
    planes = max([size_of(page) for page in full].count(size_of(main)), stacked_planes(tiff, main))
    if planes > 1:
        raise SlideOpenError(
            f"{path}: has {planes} pictures of {main.imagewidth} x {main.imagelength} px, which are channels "
            f"(fluorescence), planes of a stack or several slides; {WANTED}"
        )
    return main


def top_pages(tiff: Any) -> list[Any]:
    """Return the pages in a TIFF's own chain, without those below them; UnsuitedTiff for odd tags."""
    with odd_tags_refused():
        pages = [page for page in tiff.pages if page.imagewidth and page.imagelength]
    if not all(map(has_sane_tags, pages)):
        raise UnsuitedTiff("tags that are no numbers")
    return pages


def has_sane_tags(page: Any) -> bool:
    """Return whether the tags that are used are single numbers: a broken file has lists there."""
    return all(isinstance(getattr(page, name), int | np.integer) for name in TAGS)


def page_channels(page: Any) -> int:
    """Return the samples of a page that are not of one colour: 1 of grey or RGB, 3 of three stains."""
    if page.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE):
        return 1
    alphas = [sample for sample in page.extrasamples if sample in (1, 2)]
    return max(1, int(page.samplesperpixel) - len(alphas))


def stacked_planes(tiff: Any, main: Any) -> int:
    """Return the pictures that one page stands for: ImageJ writes stacks so, and describes how many."""
    try:
        found = [series for series in tiff.series if series.keyframe.index == main.index]
        kinds = ("generic", "uniform", "svs", "ndpi", "scn", "philips", "bif")
        return max((s.size // main.size for s in found if s.kind not in kinds), default=1)
    # A description that tifffile does not understand says nothing of planes.
    except Exception:
        return 1


def smaller_pages(tiff: Any, main: Any, path: Path) -> list[Any]:
    """Return the pages that are marked as reduced copies and can be decoded, the largest first."""
    marked = [page for page in top_pages(tiff) if page.subfiletype & _REDUCED_PAGE]
    with contextlib.suppress(Exception):  # levels of a bent file are left out
        marked += [page for page in main.pages or () if has_sane_tags(page)]
    found = []
    for page in marked:
        is_smaller = page.imagewidth * page.imagelength < main.imagewidth * main.imagelength
        if is_smaller and page.samplesperpixel == main.samplesperpixel:
            with contextlib.suppress(UnsuitedTiff, SlideOpenError):
                check_page(page, path)
                found.append(page)
    return sorted(found, key=lambda page: -page.imagewidth)


def check_page(page: Any, path: Path) -> None:
    """Refuse a page that is not plain 8-bit grey or RGB in contiguous samples, or bursts memory."""
    if min(page.chunks[:2]) < 1:
        raise UnsuitedTiff("its strips or tiles are empty")
    check_decoded((page.chunks[1], page.chunks[0]), path)
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression != JPEG:
        check_bare_ycbcr(page, path)
    plain = page.dtype == np.uint8 and page.imagedepth == page.planarconfig == 1 and not page.extrasamples
    samples = {PHOTOMETRIC.MINISBLACK: 1, PHOTOMETRIC.RGB: 3, PHOTOMETRIC.YCBCR: 3}.get(page.photometric)
    if plain and page.samplesperpixel == samples and page.compression in (JPEG, *JPEG_2000, *STREAMS):
        return
    if page.compression in (JPEG, COMPRESSION.OJPEG, *JPEG_2000):
        # Pillow takes the tags' word for the colours of JPEG tiles.
        raise SlideOpenError(f"{path}: has {describe(page)}; convert it to RGB of 8 bits")
    raise UnsuitedTiff(describe(page))


def check_bare_ycbcr(page: Any, path: Path) -> None:
    """Leave YCbCr without JPEG to Pillow if it is what JPEG uses; refuse any other (SlideOpenError)."""
    said = {code: page.tags.get(code) for code in (529, 530, 532)}
    coefficients, subsampling, limits = (tag.value if tag is not None else None for tag in said.values())
    is_full = limits is None or np.array_equal(ratios(limits), FULL_RANGE)
    is_usual = coefficients is None or np.allclose(ratios(coefficients), BT_601, atol=1e-3)
    if not is_full or not is_usual or tuple(subsampling or _DEFAULT_SUBSAMPLING) != (1, 1):
        raise SlideOpenError(
            f"{path}: has YCbCr pixels in a form that only JPEG tiles may have (subsampled, or of another "
            "range); convert it to RGB"
        )
    raise UnsuitedTiff(describe(page))


def ratios(values: tuple[int, ...]) -> list[float]:
    """Return the numbers of a tag of rationals, which come as numerators and denominators in turn."""
    return [top / max(1, bottom) for top, bottom in zip(values[::2], values[1::2], strict=False)]


def contradicts_its_tiles(page: Any, path: Path) -> bool:
    """Return whether a page's tag and first JPEG tile tell other colours: OpenSlide believes the tag."""
    if page.compression != JPEG or not (page.dataoffsets and page.databytecounts):
        return False
    with path.open("rb") as file:
        file.seek(page.dataoffsets[0])
        header = read_jpeg_header(file.read(page.databytecounts[0]))
    stated = {PHOTOMETRIC.RGB: "RGB", PHOTOMETRIC.YCBCR: "YCbCr"}.get(page.photometric)
    return header is not None and header.colours is not None and header.colours != stated


def describe(page: Any) -> str:
    """Return a page's kind of pixels in words, as ``1 sample of 16 bits (MINISBLACK, LZW)``."""
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    samples = f"{page.samplesperpixel} sample{'s' * (page.samplesperpixel > 1)} of {bits} bits"
    names = [
        kind(value).name if value in set(kind) else f"{kind.__name__.lower()} {value}"
        for kind, value in ((PHOTOMETRIC, page.photometric), (COMPRESSION, page.compression))
    ]
    return f"{samples} ({', '.join(names)})"


def size_of(page: Any) -> Size:
    """Return the width and height of a page."""
    return int(page.imagewidth), int(page.imagelength)


def tile_of(page: Any) -> Size | None:
    """Return the width and height of a page's tiles, None where it is in strips."""
    return (int(page.tilewidth), int(page.tilelength)) if page.is_tiled else None


def orientation_of(page: Any) -> int:
    """Return a page's orientation tag."""
    tag = page.tags.get("Orientation")
    return int(tag.value) if tag is not None and isinstance(tag.value, int) else UPRIGHT


def is_deep_grey(page: Any) -> bool:
    """Return whether a page is grey of more than 8 bits."""
    is_grey = page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
    return is_grey and (page.dtype is None or page.dtype.itemsize > 1)


def main_page_number(path: Path) -> int:
    """Return the place of the main picture in a TIFF's chain of pages; 0 where tifffile does not read it."""
    try:
        with open_tiff(path) as tiff, odd_tags_refused():
            return int(main_page(tiff, path).index)
    except UnsuitedTiff:
        return 0


def tiff_properties(page: Any) -> dict[str, str]:
    """Return size and resolution tags under OpenSlide's names."""
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
            if len(seen) > MAX_PAGES:
                raise SlideOpenError(f"{path}: has more than {MAX_PAGES} pages; want a slide or a picture")
            file.seek(min(offset, size))
            entries = int.from_bytes(file.read(count_width), order)
            end = offset + count_width + entries * entry_width + offset_width
            if end > size:
                raise SlideOpenError(f"{path}: is truncated: {size} of at least {end} bytes; copy it again")
            file.seek(end - offset_width)
            offset = int.from_bytes(file.read(offset_width), order)


def check_pixels(path: Path) -> None:
    """Refuse a TIFF whose tiles burst memory, or whose pixels lie beyond its end.

    A copy that was cut short opens well and fails later.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    SlideOpenError
        If it is such a file.
    """
    try:
        with open_tiff(path) as tiff:
            pages = list(tiff.pages)
            tiles = [(page.tilewidth, page.tilelength) for page in pages if page.is_tiled]
            ends = [
                max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
                for page in pages
            ]
    # Vendors bend TIFF in many ways; only the reader itself may refuse them for it.
    except Exception:
        return
    for width, height in tiles:
        if isinstance(width, int) and isinstance(height, int):
            check_decoded((width, height), path)
    size = path.stat().st_size
    if max(ends, default=0) > size:
        raise SlideOpenError(f"{path}: is truncated: {size} of at least {max(ends)} bytes; copy it again")
