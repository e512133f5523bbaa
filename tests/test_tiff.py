"""TIFF files that OpenSlide does not read, or reads wrongly: which page, and which colours."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL import __version__ as PILLOW
from pyramids import write_strips

from sish.errors import SlideOpenError
from sish.slides.formats.checks import MAX_SIDE_PX
from sish.slides.formats.jpeg import read_jpeg_header
from sish.slides.formats.pictures import decode_mask, decode_picture
from sish.slides.slide import open_slide

PHOTOMETRIC_TAG = 262
RGB, YCBCR = 2, 6


@pytest.fixture(scope="module")
def flat() -> np.ndarray:
    """512 x 512 px of three strong colours, kind to JPEG."""
    pixels = np.full((512, 512, 3), (200, 50, 50), np.uint8)
    pixels[256:] = (50, 60, 200)
    pixels[:, 320:] = (60, 180, 90)
    return pixels


def jfif(pixels) -> bytes:
    """YCbCr with chroma of half the size and a JFIF marker, as most programs write JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def without_markers(stream: bytes) -> bytes:
    """A JPEG stream without its JFIF (APP0) and Adobe (APP14) markers, as in Aperio's files."""
    out, place = stream[:2], 2
    while stream[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        out += b"" if stream[place + 1] in (0xE0, 0xEE) else stream[place:end]
        place = end
    return out + stream[place:]


def adobe_ycbcr(pixels) -> bytes:
    """YCbCr that only an Adobe marker tells."""
    bare = without_markers(jfif(pixels))
    return bare[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x01" + bare[2:]


def true_rgb(pixels) -> bytes:
    return imagecodecs.jpeg_encode(
        np.ascontiguousarray(pixels), level=95, colorspace="RGB", outcolorspace="RGB"
    )


STREAMS = {
    "JFIF": jfif,
    "subsampled, no marker": lambda pixels: without_markers(jfif(pixels)),
    "Adobe, YCbCr": adobe_ycbcr,
    "Adobe, RGB": true_rgb,
    "RGB, no marker": lambda pixels: without_markers(true_rgb(pixels)),
}


def write_jpeg(path, pixels, encode, photometric: int, tile: int | None) -> None:
    """A TIFF of ready-made JPEG streams, and a tag that may say something else of their colours."""
    side = tile or 512
    streams = [
        encode(pixels[y : y + (tile or 128), x : x + side])
        for y in range(0, 512, tile or 128)
        for x in range(0, 512, side)
    ]
    shape = {"tile": (tile, tile)} if tile else {"rowsperstrip": 128}
    with tifffile.TiffWriter(path) as file:
        file.write(
            iter(streams), shape=pixels.shape, dtype=np.uint8, photometric="rgb", compression="jpeg",
            metadata=None, **shape,
        )  # fmt: skip
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[PHOTOMETRIC_TAG].overwrite(photometric)
        assert file.pages[0].tags[PHOTOMETRIC_TAG].value


@pytest.mark.parametrize("tile", [256, None])
@pytest.mark.parametrize("photometric", [RGB, YCBCR])
@pytest.mark.parametrize("name", STREAMS)
def test_colours_in_jpeg_are_those_of_the_stream(tmp_path, flat, name, photometric, tile):
    if name == "RGB, no marker" and photometric == YCBCR:
        pytest.skip("nothing in the file says that its tag is wrong")
    write_jpeg(tmp_path / "a.tif", flat, STREAMS[name], photometric, tile)
    with open_slide(tmp_path / "a.tif", mpp=0.5) as slide:
        got = slide.read((0, 0), 512, 0.5).astype(int)
    assert np.abs(got - flat).mean() < 3
    picture = np.asarray(decode_picture(tmp_path / "a.tif")).astype(int)
    assert np.abs(picture - flat).mean() < 3


@pytest.mark.parametrize("tile", [256, None])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_ycbcr_without_jpeg(tmp_path, flat, compression, tile):
    if compression is None and tile is None and int(PILLOW.partition(".")[0]) < 13:
        pytest.skip("Pillow before 13 refuses these files")
    ycbcr = np.asarray(Image.fromarray(flat).convert("YCbCr"))
    tifffile.imwrite(
        tmp_path / "a.tif", ycbcr, photometric="ycbcr", compression=compression, metadata=None,
        **({"tile": (tile, tile)} if tile else {"rowsperstrip": 100}),
    )  # fmt: skip
    with open_slide(tmp_path / "a.tif", mpp=0.5) as slide:
        assert np.abs(slide.read((0, 0), 512, 0.5).astype(int) - flat).mean() < 3


@pytest.mark.parametrize("tile", [(256, 256), None])
@pytest.mark.parametrize("read", [open_slide, decode_picture, decode_mask])
def test_a_tiff_in_webp_is_refused_for_its_compression(tmp_path, flat, read, tile):
    tifffile.imwrite(tmp_path / "a.tif", flat, photometric="rgb", compression="webp", tile=tile)
    with pytest.raises(SlideOpenError, match=r"WebP, which is not read; convert"):
        read(tmp_path / "a.tif")


def write_tags(path, tags: dict[int, tuple[int, int, int]], data: bytes) -> None:
    """A TIFF of one page from its tags (type, count, value); a value of -1 is where the data lie."""
    begin = 8 + 2 + 12 * len(tags) + 4
    out = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for code, (kind, count, value) in sorted(tags.items()):
        out += struct.pack("<HHII", code, kind, count, begin if value == -1 else value)
    path.write_bytes(out + b"\0\0\0\0" + data)


def page_tags(width: int, height: int, nbytes: int, tile: int = 0, rows: int = 0) -> dict:
    """Tags of a grey page of one tile or strip."""
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    tags |= {277: (3, 1, 1), 284: (3, 1, 1)}
    if tile:
        return tags | {322: (4, 1, tile), 323: (4, 1, tile), 324: (4, 1, -1), 325: (4, 1, nbytes)}
    return tags | {273: (4, 1, -1), 278: (4, 1, rows or height), 279: (4, 1, nbytes)}


def test_subsampled_ycbcr_without_jpeg_is_refused_with_the_reason(tmp_path):
    tags = page_tags(64, 64, 64 * 64 * 3 // 2) | {258: (3, 1, 8), 262: (3, 1, YCBCR), 277: (3, 1, 3)}
    write_tags(tmp_path / "a.tif", tags | {530: (3, 2, 2 | 2 << 16)}, bytes(64 * 64 * 3 // 2))
    for read in (decode_picture, lambda path: open_slide(path, mpp=0.5)):
        with pytest.raises(SlideOpenError, match="subsampled"):
            read(tmp_path / "a.tif")


def write_pages(path, pages, **common) -> None:
    """Pages of pixels and what tifffile is told of each."""
    with tifffile.TiffWriter(path) as file:
        for pixels, own in pages:
            file.write(pixels, metadata=None, **{"photometric": "rgb", **common, **own})


@pytest.mark.parametrize("tile", [{}, {"tile": (64, 64)}])
@pytest.mark.parametrize("marked", [0, 1])
def test_the_full_picture_is_read_wherever_its_thumbnail_stands(tmp_path, flat, tile, marked):
    rng = np.random.default_rng(0)
    full = rng.integers(0, 256, (500, 600, 3), dtype=np.uint8)
    thumbnail = np.asarray(Image.fromarray(full).resize((150, 125)))
    label = flat[:130, :90]
    pages = [
        (thumbnail, {"subfiletype": marked}),
        (full, {}),
        (label, {}),
        (flat[:60, :200], {"subfiletype": 1}),
    ]
    for order in ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1)):
        write_pages(tmp_path / "a.tif", [pages[number] for number in order], **tile)
        with open_slide(tmp_path / "a.tif", mpp=0.5) as slide:
            assert slide.dimensions == (600, 500)
            assert np.array_equal(slide.read((0, 0), (600, 500), 0.5), full)
        assert np.array_equal(np.asarray(decode_picture(tmp_path / "a.tif")), full)


def test_a_pyramid_below_its_main_page_is_read(tmp_path):
    """As OME-TIFF keeps it, in sub-IFDs."""
    full = np.random.default_rng(1).integers(0, 256, (512, 768, 3), dtype=np.uint8)
    levels = [np.asarray(Image.fromarray(full).reduce(factor)) for factor in (1, 2, 4)]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        how = {"photometric": "rgb", "tile": (128, 128), "compression": "zstd"}
        file.write(levels[0], subifds=2, metadata={"axes": "YXS"}, **how)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **how)
    with open_slide(tmp_path / "a.ome.tif", mpp=0.5) as slide:
        assert slide.level_downsamples == (1, 2, 4)
        for factor, level in zip((1, 2, 4), levels, strict=True):
            assert np.array_equal(slide.read((0, 0), level.shape[1::-1], 0.5 * factor), level)


@pytest.mark.parametrize("tile", [{}, {"tile": (64, 64)}])
def test_channels_and_stacks_are_refused_with_the_reason(tmp_path, tile):
    grey = np.random.default_rng(2).integers(0, 256, (3, 128, 192), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", grey, photometric="minisblack", metadata=None, **tile)
    tifffile.imwrite(tmp_path / "planes.ome.tif", grey, photometric="minisblack", **tile)
    write_pages(tmp_path / "rgb.tif", [(np.stack([plane] * 3, -1), {}) for plane in grey], **tile)
    for name in ("pages.tif", "planes.ome.tif", "rgb.tif"):
        with pytest.raises(SlideOpenError, match=r"3 pictures of 192 x 128 px.*fluorescence"):
            open_slide(tmp_path / name, mpp=0.5)
    tifffile.imwrite(
        tmp_path / "samples.tif", np.moveaxis(grey, 0, -1), photometric="minisblack", planarconfig="contig",
        metadata=None, **tile,
    )  # fmt: skip
    with pytest.raises(SlideOpenError, match="3 channels"):
        open_slide(tmp_path / "samples.tif", mpp=0.5)


def test_a_stack_of_imagej_is_refused(tmp_path):
    grey = np.random.default_rng(2).integers(0, 256, (5, 64, 64), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", grey, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(SlideOpenError, match="5 pictures"):
        open_slide(tmp_path / "a.tif", mpp=0.5)


@pytest.mark.parametrize("tile", [0, 1])
def test_a_file_that_asks_for_too_much_memory_is_refused(tmp_path, tile):
    for side in (30_000, 2**31 - 16):
        shape = {"tile": side} if tile else {"rows": side}
        write_tags(tmp_path / "a.tif", page_tags(side, side, 64, **shape), bytes(64))
        with pytest.raises(SlideOpenError, match=f"{side} x {side} px"):
            open_slide(tmp_path / "a.tif", mpp=0.5)
        with pytest.raises(SlideOpenError):
            decode_picture(tmp_path / "a.tif")
    write_tags(
        tmp_path / "a.tif", page_tags(MAX_SIDE_PX + 1, 64, 64, **({"tile": 16} if tile else {})), bytes(64)
    )
    with pytest.raises(SlideOpenError):
        open_slide(tmp_path / "a.tif", mpp=0.5)


def test_a_jpeg_that_is_larger_than_its_tile_is_refused_before_it_is_decoded(tmp_path, flat):
    write_jpeg(tmp_path / "a.tif", flat, jfif, RGB, None)
    broken = bytearray((tmp_path / "a.tif").read_bytes())
    place = broken.find(b"\xff\xc0\0\x11\x08")
    broken[place + 5 : place + 9] = struct.pack(">HH", 60_000, 60_000)
    (tmp_path / "a.tif").write_bytes(broken)
    with pytest.raises(SlideOpenError, match="60000 x 60000 px at once"):
        open_slide(tmp_path / "a.tif", mpp=0.5)


def test_headers_of_jpeg(flat):
    assert read_jpeg_header(jfif(flat)).colours == "YCbCr"
    assert read_jpeg_header(true_rgb(flat[:100])).colours == "RGB"
    assert read_jpeg_header(without_markers(true_rgb(flat[:100]))).colours is None
    assert read_jpeg_header(true_rgb(flat[:100])).size == (512, 100)
    assert read_jpeg_header(b"") is read_jpeg_header(b"\xff" * 50) is read_jpeg_header(b"\x89PNG" * 9) is None


def test_a_slide_in_strips_is_read_as_before(tmp_path, flat):
    write_strips(tmp_path / "a.tif", flat)
    with open_slide(tmp_path / "a.tif") as slide:
        assert np.array_equal(slide.read((0, 0), 512, 0.5), flat)
