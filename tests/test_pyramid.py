"""Levels whose sizes do not tell how much they were shrunk: filled up to whole tiles, or scaled to them."""

import math
import pickle

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyramids import write_pyramid

from sish.slides.formats.opening import plain_tiff_levels
from sish.slides.formats.pyramid import candidates, settle
from sish.slides.scale import Scale
from sish.slides.slide import Slide, open_slide

READERS = {
    "OpenSlide": open_slide,
    "our own": lambda path: Slide(plain_tiff_levels(path), Scale(0.5, "given"), "a", path),
}


def cloudy(width: int, height: int, seed: int) -> np.ndarray:
    """Coloured blobs of about 12 px, so that no place looks like another."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def fill_up(pixels: np.ndarray, tile: tuple[int, int], fill: int) -> np.ndarray:
    height, width = (-(-n // side) * side for n, side in zip(pixels.shape[:2], tile[::-1], strict=True))
    out = np.full((height, width, 3), fill, np.uint8)
    out[: pixels.shape[0], : pixels.shape[1]] = pixels
    return out


def write_levels(path, levels, tile) -> None:
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(
                level, tile=tile[::-1], photometric="rgb", compression="deflate", metadata=None,
                subfiletype=int(number > 0), resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
            )  # fmt: skip


def write_filled(path, whole, factors, tile, fill) -> None:
    picture = Image.fromarray(whole)
    smaller = [fill_up(np.asarray(picture.reduce(factor)), tile, fill) for factor in factors[1:]]
    write_levels(path, [whole, *smaller], tile)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fill", [255, 0])
def test_every_level_of_a_filled_up_pyramid_is_found(tmp_path, reader, fill):
    whole = cloudy(3000, 2048, 0)
    write_filled(tmp_path / "a.tif", whole, (1, 2, 4, 8), (512, 512), fill)
    with READERS[reader](tmp_path / "a.tif") as slide:
        assert slide.level_downsamples == (1, 2, 4, 8)
        assert pickle.loads(pickle.dumps(slide)).level_downsamples == (1, 2, 4, 8)
        for factor in (2, 4, 8):
            want = np.asarray(Image.fromarray(whole).reduce(factor)).astype(int)
            got = slide.read((0, 0), (400, 300), 0.5 * factor).astype(int)
            want = want[:300, :400]
            assert np.abs(got[: want.shape[0], : want.shape[1]] - want).mean() < 2
            # Beyond the slide is white, also where the level goes on.
            beyond = slide.read((3000 + factor, 0), 100, 0.5 * factor)
            assert (beyond == 255).all()


@settings(max_examples=20, deadline=None)
@given(
    sides=st.tuples(st.integers(200, 800), st.integers(200, 800)),
    tile=st.tuples(st.sampled_from([64, 128, 256]), st.sampled_from([64, 128, 256])),
    factors=st.sampled_from([(1, 2, 4, 8), (1, 4, 16), (1, 2, 8), (1, 3, 9), (1, 2, 4, 8, 16), (1, 8)]),
    fill=st.sampled_from([255, 0, 230]),
    reader=st.sampled_from(sorted(READERS)),
    seed=st.integers(0, 99),
)
def test_filled_up_levels_are_read_where_they_belong(
    tmp_path_factory, sides, tile, factors, fill, reader, seed
):
    path = tmp_path_factory.mktemp("filled") / "a.tif"
    whole = cloudy(*sides, seed)
    write_filled(path, whole, factors, tile, fill)
    with READERS[reader](path) as slide:
        assert set(slide.level_downsamples) <= set(factors)
        for factor in factors[1:]:
            width, height = (side // factor for side in sides)
            want = np.asarray(Image.fromarray(whole).reduce(factor))[:height, :width].astype(int)
            got = slide.read((0, 0), (width + 3, height + 3), 0.5 * factor).astype(int)
            # OpenSlide is asked in level-0 pixels of its own downsample, and smooths by up to half a pixel.
            assert np.abs(got[:height, :width] - want).mean() < 8
            assert (got[height + 1 :] == 255).all() and (got[:, width + 1 :] == 255).all()


@settings(max_examples=20, deadline=None)
@given(
    tiles=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    step=st.floats(1.3, 9.5),
    reader=st.sampled_from(sorted(READERS)),
    seed=st.integers(0, 99),
)
def test_a_level_that_was_scaled_to_whole_tiles_keeps_its_odd_ratio(
    tmp_path_factory, tiles, step, reader, seed
):
    path = tmp_path_factory.mktemp("scaled") / "a.tif"
    small = tuple(n * 64 for n in tiles)
    whole = cloudy(round(small[0] * step), round(small[1] * step), seed)
    level = np.asarray(Image.fromarray(whole).resize(small, Image.Resampling.BOX))
    write_levels(path, [whole, level], (64, 64))
    with READERS[reader](path) as slide:
        for found in slide.level_downsamples[1:]:
            # A whole factor near by explains the sizes as well, if they differ by less than a pixel.
            assert abs(found - step) * max(small) <= step + 1


def test_a_level_of_another_shape_is_none(tmp_path):
    whole = cloudy(900, 700, 1)
    write_levels(tmp_path / "a.tif", [whole, cloudy(450, 350, 2), cloudy(300, 100, 3)], (64, 64))
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.level_downsamples == (1, 2)


def test_a_blank_slide_opens(tmp_path):
    """Where pixels tell nothing, a level that fits several factors is left out."""
    blank = np.full((1000, 1000, 3), 240, np.uint8)
    write_filled(tmp_path / "a.tif", blank, (1, 2), (512, 512), 240)
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.level_downsamples in ((1,), (1, 2))
        assert (slide.read((0, 0), 100, 1.0) == 240).all()


@given(
    width=st.integers(300, 100_000),
    height=st.integers(300, 100_000),
    power=st.integers(1, 5),
    side=st.sampled_from([240, 256, 512, 1024]),
)
def test_the_true_factor_is_among_the_candidates(width, height, power, side):
    factor = 2**power
    level = tuple(math.ceil(math.ceil(n / factor) / side) * side for n in (width, height))
    above = (factor / 2, factor / 2)
    found = candidates((width, height), level, (side, side), above)
    whole = all(n // factor <= part for n, part in zip((width, height), level, strict=True))
    assert (float(factor),) * 2 in found or (whole and len(found) == 1)


def test_plain_pyramids_are_left_as_they_are(tmp_path):
    write_pyramid(tmp_path / "a.tif", cloudy(1203, 901, 4), (1, 2, 4, 8))
    with open_slide(tmp_path / "a.tif") as slide:
        levels = slide._levels
        assert settle(levels, levels.tiles) is levels
