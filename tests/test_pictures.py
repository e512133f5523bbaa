"""One reader of pictures: what a viewer shows, in 8 bits, or a refusal with the reason."""

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sish.errors import ParameterError, SishError, SlideOpenError
from sish.slides.formats.pictures import decode_mask, decode_picture
from sish.slides.slide import open_slide, slide_from_array
from sish.systems.item import Item
from sish.systems.small_pictures import read_given_mask, read_picture
from sish.vqvae.images import ImagePatches

WIDE, TALL = 48, 32


@pytest.fixture
def colours() -> np.ndarray:
    """Four flat quarters and a marked corner, so that no turn looks like another; kind to JPEG."""
    pixels = np.full((TALL, WIDE, 3), (200, 60, 60), np.uint8)
    pixels[16:, :32] = (60, 160, 60)
    pixels[16:, 32:] = (240, 240, 240)
    pixels[:8, :8] = (20, 20, 160)
    return pixels


def read_in_all_ways(path) -> list[np.ndarray]:
    """A picture as a slide, as a picture of a system, and as a patch for training: uint8 (TALL, WIDE, 3)."""
    with open_slide(path, mpp=0.5) as slide:
        size = slide.dimensions
        as_slide = slide.read((0, 0), size, 0.5)
        halves = slide.read((size[0] // 2, size[1] // 4), (size[0] // 2, size[1] // 2), 0.5)
    assert np.array_equal(
        halves, as_slide[size[1] // 4 : size[1] // 4 + size[1] // 2, size[0] // 2 : size[0] // 2 * 2]
    )
    picture = np.asarray(decode_picture(path).convert("RGB"))
    side = min(picture.shape[:2])
    patch = ImagePatches([path], side, augment=False)[0]
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    assert np.array_equal(patch, torch.from_numpy(picture[top : top + side, left : left + side].copy()))
    return [as_slide, picture, read_picture(path, size)]


def save_turned(path, pixels, orientation) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(
            path, pixels, photometric="rgb", metadata=None, compression="zlib" if "z" in path.stem else None,
            tile=(16, 16) if "tiled" in path.stem else None,
            extratags=[(274, 3, 1, orientation, True)],
        )  # fmt: skip
        return
    exif = Image.Exif()
    exif[0x112] = orientation
    lossless = {"lossless": True} if path.suffix == ".webp" else {"quality": 95, "subsampling": 0}
    Image.fromarray(pixels).save(path, exif=exif, **({} if path.suffix == ".png" else lossless))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "strips.tif", "z-strips.tif", "z-tiled.tif"])
def test_pictures_are_read_as_they_are_shown(tmp_path, colours, name, orientation):
    save_turned(tmp_path / name, colours, orientation)
    exif = Image.Exif()
    exif[0x112] = orientation
    plain = Image.fromarray(colours)
    plain.getexif().update(exif)
    shown = np.asarray(ImageOps.exif_transpose(plain)).astype(int)
    for got in read_in_all_ways(tmp_path / name):
        assert got.shape == shown.shape
        assert np.abs(got - shown).mean() < (3 if name == "a.jpg" else 0.01)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.integers(0, 255), min_size=9, max_size=9), suffix=st.sampled_from(["png", "tif"]))
def test_grey_of_16_bits_that_was_widened_is_what_it_was(tmp_path_factory, values, suffix):
    folder = tmp_path_factory.mktemp("grey")
    grey = np.array(values, np.uint8).reshape(3, 3)
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / f"x16.{suffix}")
    Image.fromarray(grey).save(folder / f"x8.{suffix}")
    got = [read_picture(folder / f"{name}.{suffix}", (3, 3), "L") for name in ("x16", "x8")]
    assert np.array_equal(got[0], got[1]) and np.array_equal(got[1], grey)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_a_detector_is_scaled_from_its_depth(tmp_path, bits, suffix):
    ramp = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / f"x.{suffix}")
    got = read_picture(tmp_path / f"x.{suffix}", (8, 8), "L").astype(int)
    assert np.abs(got - np.linspace(0, 255, 64).reshape(8, 8)).max() <= 1


def test_grey_in_which_0_is_white(tmp_path):
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    for name, pixels in (("deep", ramp), ("plain", (ramp // 257).astype(np.uint8))):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="miniswhite", metadata=None)
        got = read_picture(tmp_path / f"{name}.tif", (8, 8), "L").astype(int)
        assert np.abs(got - (255 - ramp / 257)).max() <= 1


def kinds(colours):
    """The same picture in other modes: what is saved, and the largest mean difference that this costs."""
    picture = Image.fromarray(colours)
    clear = picture.copy().convert("RGBA")
    hole = Image.new("L", picture.size, 255)
    hole.paste(0, (32, 16, 48, 32))
    clear.putalpha(hole)
    return {
        "RGB": picture,
        "P": picture.convert("P", palette=Image.Palette.ADAPTIVE),
        "CMYK": picture.convert("CMYK"),
        "RGBA": clear,
    }


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_modes_of_colour(tmp_path, colours, mode, suffix):
    if mode == "CMYK" and suffix != "tif":
        pytest.skip("only TIFF and JPEG have it")
    lossless = {"lossless": True} if suffix == "webp" else {}
    kinds(colours)[mode].save(tmp_path / f"a.{suffix}", **lossless)
    want = colours.astype(int)
    if mode == "RGBA":
        want[16:, 32:] = 255
    for got in read_in_all_ways(tmp_path / f"a.{suffix}"):
        assert np.abs(got - want).mean() < 2


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_modes_of_grey(tmp_path, colours, mode, suffix):
    picture = Image.fromarray(np.where(colours[..., :1].repeat(3, 2) > 100, 255, 0).astype(np.uint8))
    want = np.asarray(picture)
    picture.convert(mode).save(tmp_path / f"a.{suffix}")
    assert decode_picture(tmp_path / f"a.{suffix}").mode in ("L", "RGB")
    for got in read_in_all_ways(tmp_path / f"a.{suffix}"):
        assert np.array_equal(got, want)


def test_what_needs_a_guess_is_refused_with_the_reason(tmp_path, colours):
    grey = colours[..., 0]
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "float.tif")
    Image.fromarray(grey.astype(np.int32) - 100).save(tmp_path / "negative.tif")
    Image.fromarray(grey.astype(np.int32) * 1000).save(tmp_path / "huge.tif")
    Image.merge("LAB", Image.fromarray(colours).split()).save(tmp_path / "lab.tif")
    tifffile.imwrite(
        tmp_path / "three.tif", colours, photometric="minisblack", planarconfig="contig", metadata=None
    )
    reasons = {"float": "float32", "negative": "-80", "huge": "int32", "lab": "LAB", "three": "3 channels"}
    for name, reason in reasons.items():
        for read in (decode_picture, lambda path: open_slide(path, mpp=0.5)):
            with pytest.raises(SlideOpenError) as caught:
                read(tmp_path / f"{name}.tif")
            assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
        with pytest.raises(SlideOpenError, match=reason):
            decode_picture(tmp_path / f"{name}.tif")


def test_masks_are_upright_and_keep_what_is_not_0(tmp_path, colours):
    inside = np.zeros((TALL, WIDE), bool)
    inside[4:20, 10:30] = True
    Image.fromarray(colours).save(tmp_path / "a.png")
    writers = {
        "l.png": Image.fromarray(inside.astype(np.uint8)),
        "one.png": Image.fromarray(inside),
        "deep.png": Image.fromarray(inside.astype(np.uint16) * 300),
        "clear.png": Image.merge("RGBA", [Image.fromarray(inside.astype(np.uint8) * 255)] * 4),
    }
    for name, mask in writers.items():
        mask.save(tmp_path / name)
        assert np.array_equal(decode_mask(tmp_path / name), inside), name
        item = Item("a", tmp_path / "a.png", mask=tmp_path / name)
        assert np.array_equal(read_given_mask(item, (WIDE, TALL)), inside)
    exif = Image.Exif()
    exif[0x112] = 6
    for name, picture in (("a.png", Image.fromarray(colours)), ("l.png", writers["l.png"])):
        picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / name, exif=exif)
    item = Item("a", tmp_path / "a.png", mask=tmp_path / "l.png")
    assert np.array_equal(read_given_mask(item, (WIDE, TALL)), inside)


@pytest.mark.parametrize(
    "content", [b"", b"not a picture at all", b"II*\0" + b"\1" * 60, b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_refused_on_one_line(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    for read in (decode_picture, decode_mask):
        with pytest.raises(SlideOpenError) as caught:
            read(tmp_path / "a.png")
        assert "\n" not in str(caught.value)
    with pytest.raises(SlideOpenError):
        decode_picture(tmp_path / "none.png")


def test_a_slide_of_16_bits_of_grey_is_refused(tmp_path):
    deep = np.full((64, 64), 40_000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", deep, metadata=None)
    tifffile.imwrite(tmp_path / "tiled.tif", deep, tile=(32, 32), metadata=None)
    for name in ("a.png", "a.tif", "tiled.tif"):
        with pytest.raises(SlideOpenError, match="more than 8 bits"):
            open_slide(tmp_path / name, mpp=0.5)


def test_too_much_at_once_is_refused():
    slide = slide_from_array(np.zeros((10, 10, 3), np.uint8), 0.5, "small")
    with pytest.raises(ParameterError, match="at most 268435456 pixels"):
        slide.read((0, 0), 1 << 20, 0.5)
    with pytest.raises(SishError):
        slide.overview(1e-6)
