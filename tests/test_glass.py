"""The slide's own glass and pens on it, against slides drawn with a known colour, and real fields."""

import doctest

import numpy as np
import pytest
from drawn_slides import GLASS, INKS, MPP, draw_ink, glass, picture, stain
from hypothesis import given, settings
from hypothesis import strategies as st

import sish.slides.glass
from sish.slides.glass import UNSEEN, Glass, beside, blocks_of, glass_of, shrink
from sish.slides.ink import ink_of
from sish.slides.slide import open_slide, slide_from_array
from sish.slides.tissue import find_tissue, mask_mpp

TINTS = [
    (255, 255, 255),
    GLASS,
    (240, 235, 215),
    (220, 228, 240),
    (200, 200, 200),
    (150, 150, 150),
    (244, 225, 240),
]
PIECE = (100, 100, 250, 300)


def found(pixels: np.ndarray, **options) -> np.ndarray:
    """The mask of a drawn slide, at the slide's own size."""
    tissue = find_tissue(slide_from_array(picture(pixels), MPP, "drawn"), **options)
    mask = tissue.mask.repeat(2, axis=0).repeat(2, axis=1)
    return mask[: pixels.shape[0], : pixels.shape[1]]


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    return float((mask & truth).sum() / (mask | truth).sum())


def seen(pixels: np.ndarray) -> Glass:
    """The glass of a drawn slide."""
    return glass_of(blocks_of(picture(pixels), MPP))


def test_doctests():
    assert doctest.testmod(sish.slides.glass).failed == 0


@pytest.mark.parametrize("colour", TINTS)
def test_glass_is_seen_in_its_own_colour(colour):
    pixels = glass(colour=colour)
    truth = stain(pixels, PIECE)
    assert seen(pixels).colour == pytest.approx(colour, abs=1.5)
    assert overlap(found(pixels), truth) > 0.95


@pytest.mark.parametrize("colour", TINTS)
def test_bare_glass_of_any_colour_is_no_tissue(colour):
    pixels = glass(colour=colour)
    for place in ((60, 470), (333, 444), (400, 90)):
        stain(pixels, (*place, 12, 12))  # dust, 50 um
    assert not found(pixels).any()


@pytest.mark.parametrize("light", [1.0, 0.75])
def test_a_field_full_of_tissue_shows_no_glass_and_is_all_tissue(light):
    pixels = glass() * light
    stain(pixels, (0, 0, 500, 600))
    assert seen(pixels) == UNSEEN and found(pixels).all()


def test_padding_is_not_taken_for_the_glass():
    pixels = glass(colour=(220, 215, 190))
    truth = stain(pixels, PIECE)
    pixels[:, :60] = np.random.default_rng(2).integers(0, 12, (500, 60, 3))
    pixels[400:] = 255
    assert seen(pixels).colour == pytest.approx((220, 215, 190), abs=1.5)
    assert overlap(found(pixels), truth) > 0.95


def test_shade_is_glass():
    pixels = glass() * np.linspace(0.82, 1, 600)[:, None]
    truth = stain(pixels, PIECE)
    assert overlap(found(pixels), truth) > 0.95


@pytest.mark.parametrize("noise", [6.0, 12.0])
def test_noise_of_the_camera_is_glass(noise):
    pixels = glass(noise=noise)
    truth = stain(pixels, PIECE)
    assert overlap(found(pixels), truth) > 0.9


@pytest.mark.parametrize("pale", [(243, 230, 240), (246, 240, 245)])
def test_a_pale_piece_is_kept_beside_a_dark_one(pale):
    pixels = glass()
    stain(pixels, (60, 60, 220, 280), (170, 60, 120), (60, 30, 90))
    alone = glass()
    where = stain(alone, (60, 400, 220, 180), pale, (225, 215, 232))
    stain(pixels, (60, 400, 220, 180), pale, (225, 215, 232))
    assert found(pixels)[where].mean() > 0.95
    # What lies beside it changes nothing.
    assert np.array_equal(found(pixels)[:, 380:], found(alone)[:, 380:])


def drawn_slide(seed: int) -> np.ndarray:
    """A slide with two pieces and a pen's mark, at random places."""
    rng = np.random.default_rng(seed)
    pixels = glass()
    stain(pixels, (*rng.integers(20, 200, 2), 150, 180), seed=seed)
    stain(pixels, (*rng.integers(240, 330, 2), 120, 160), (240, 226, 236), (215, 205, 225), seed=seed + 1)
    draw_ink(pixels, (440, 40, 50, 500), INKS["blue"])
    return pixels


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), tint=st.tuples(*[st.floats(0.75, 1.0)] * 3))
def test_a_tint_does_not_change_the_mask(seed, tint):
    pixels = drawn_slide(seed)
    assert overlap(found(pixels * tint), found(pixels)) > 0.98


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 99), turns=st.integers(1, 3))
def test_a_turned_slide_has_the_turned_mask(seed, turns):
    pixels = drawn_slide(seed)[:480, :480]  # whole blocks, whichever side is up
    assert overlap(found(np.rot90(pixels, turns)), np.rot90(found(pixels), turns)) > 0.98


@pytest.mark.parametrize("tint", TINTS)
@pytest.mark.parametrize("name", INKS)
def test_ink_on_bare_glass_is_left_out(name, tint):
    pixels = glass(colour=tint)
    truth = stain(pixels, (60, 60, 220, 280))
    mark = draw_ink(pixels, (360, 40, 90, 520), INKS[name])
    mask = found(pixels)
    assert not mask[mark].any() and overlap(mask, truth) > 0.95
    if name != "black":  # taken for a scanner's border, if nothing else
        assert found(pixels, leave_out_ink=False)[mark].mean() > 0.9


DYES = {
    "eosin": ((230, 110, 140), (200, 80, 130)),
    "haematoxylin": ((200, 205, 235), (90, 100, 170)),
    "dense haematoxylin": ((110, 110, 180), (60, 60, 140)),
    "brown (DAB)": ((200, 190, 180), (110, 70, 40)),
    "melanin": ((225, 190, 200), (60, 40, 35)),
    "blood": ((205, 70, 75), (180, 40, 55)),
}


@pytest.mark.parametrize("dye", DYES)
def test_stained_tissue_is_not_taken_for_ink(dye):
    pixels = glass()
    truth = stain(pixels, PIECE, *DYES[dye])
    assert overlap(found(pixels), truth) > 0.95


@pytest.mark.parametrize(("pattern", "step", "mpp"), [("bach/fields/*.jpg", 5, 0.42), ("crc5/*/*", 20, 1.1)])
def test_real_tissue_holds_no_ink(data_dir, pattern, step, mpp):
    for path in sorted(data_dir.glob(pattern))[1::step]:
        with open_slide(path, mpp=mpp) as slide:
            scale = mask_mpp(slide, 8.0)
            blocks = blocks_of(slide.overview(scale), scale)
        assert not ink_of(blocks, glass_of(blocks)).any(), path


def test_real_glass(data_dir):
    def of(name, mpp=None):
        return find_tissue(open_slide(data_dir / "slides" / name, mpp=mpp)).glass

    # The medians of bare places; the first is pinkish, beside white padding.
    assert of("tcga-cr-7395-01a-01-ts1.svs", 0.5).colour == pytest.approx((241, 236, 239), abs=1.5)
    assert of("cmu-1-small-region.svs").colour == pytest.approx((245, 243, 243), abs=1.5)


def test_what_lies_beside_the_glass_is_a_ratio():
    pixels = np.array([[[96, 80, 40], [240, 200, 100], [250, 201, 101]]], np.uint8)
    assert beside(pixels, Glass((240, 200, 100)))[0].tolist() == [[102] * 3, [255] * 3, [255] * 3]
    assert beside(pixels, UNSEEN) is pixels


def test_shrinking_averages_whole_squares():
    values = np.random.default_rng(0).random((11, 7)).astype(np.float32)
    expected = values[:9, :6].reshape(3, 3, 2, 3).mean(axis=(1, 3))
    assert shrink(values, 3) == pytest.approx(expected)


def test_images_without_a_whole_block_show_no_glass():
    assert glass_of(blocks_of(np.full((30, 4, 3), 240, np.uint8), 8.0)) == UNSEEN
