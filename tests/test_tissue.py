"""Tissue against drawn shapes, brute force and real fields."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish.slides.formats.levels import ArrayLevels
from sish.slides.scale import Scale
from sish.slides.slide import Slide, open_slide, slide_from_array
from sish.slides.tissue import MAX_MASK_AREA_PX, TissueMask, find_tissue, mask_mpp

PINK = (205, 120, 175)
MPP = 4.0


def field(height: int = 500, width: int = 600, colour=(244, 243, 245), noise: float = 2.0) -> np.ndarray:
    """Noisy glass at 4 um/px."""
    rng = np.random.default_rng(0)
    pixels = np.array(colour) + rng.normal(0, noise, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def disc(pixels: np.ndarray, x: int, y: int, radius: int, colour=PINK) -> np.ndarray:
    """Draw a disc; returns where it is."""
    rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    pixels[inside] = colour
    return inside


def found(pixels: np.ndarray, **options) -> np.ndarray:
    """The mask of a picture, at the picture's own size."""
    tissue = find_tissue(slide_from_array(pixels, MPP, "drawn"), **options)
    factor = round(tissue.l0_per_px)
    return tissue.mask.repeat(factor, axis=0).repeat(factor, axis=1)[: pixels.shape[0], : pixels.shape[1]]


def test_a_piece_of_tissue_is_outlined():
    pixels = field()
    truth = disc(pixels, 300, 250, 150)
    mask = found(pixels)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.93


def test_specks_go_and_holes_are_filled_by_their_area():
    pixels = field()
    truth = disc(pixels, 300, 250, 180)
    disc(pixels, 40, 40, 7)
    disc(pixels, 250, 250, 15, (244, 243, 245))
    disc(pixels, 380, 250, 60, (244, 243, 245))
    mask = found(pixels)
    assert not mask[:80, :80].any(), "a speck of 0.002 mm2"
    assert mask[250, 250], "a hole of 0.01 mm2"
    assert not mask[250, 380], "a lumen of 0.18 mm2"
    assert found(pixels, min_speck_um2=500.0)[40, 40]
    assert (mask & ~truth).sum() < 0.1 * truth.sum()


def test_fragments_are_kept_where_there_is_nothing_larger():
    fragments, beside = field(), field()
    places = [(70, 60), (310, 200), (450, 340)]
    for x, y in places:
        assert disc(fragments, x, y, 15).sum() * MPP**2 < 12_000, "120 um"
        disc(beside, x, y, 15)
    disc(beside, 180, 400, 90)
    assert all(found(fragments)[y, x] for x, y in places)
    assert not any(found(beside)[y, x] for x, y in places) and found(beside)[400, 180]
    assert all(found(beside, min_speck_um2=5_000)[y, x] for x, y in places)


def test_fat_is_tissue():
    # Walls of one pixel, 4 um, around cells of 80 um: threads, but they enclose.
    pixels = field()
    walls = (np.add.outer(np.zeros(200, int), np.arange(300)) % 20 == 0) | (
        np.add.outer(np.arange(200), np.zeros(300, int)) % 20 == 0
    )
    pixels[100:300, 100:400][walls] = PINK
    mask = found(pixels)
    assert mask[105:275, 105:375].mean() > 0.95 and not mask[:80].any()
    pixels[100:300, 100:400][walls] = (235, 230, 236)
    assert not found(pixels).any(), "the same without stain"


def test_the_hint_says_what_was_seen_and_what_to_try():
    hint = find_tissue(slide_from_array(field(colour=(240, 235, 215)), MPP, "glass")).hint
    assert "no tissue found" in hint and "(240, 235, 215)" in hint
    assert "--recipe.min_speck_um2 1000" in hint and "--recipe.leave_out_ink" in hint and "\n" not in hint


def test_the_hint_names_no_option_that_is_set_already():
    def hint(**options):
        return find_tissue(slide_from_array(field(colour=(240, 235, 215)), MPP, "glass"), **options).hint

    small, inked = hint(min_speck_um2=1000), hint(leave_out_ink=False)
    assert "min_speck_um2" not in small and "leave_out_ink" in small
    assert "min_speck_um2" in inked and "leave_out_ink" not in inked
    assert "try" not in hint(min_speck_um2=500, leave_out_ink=False)


@pytest.mark.parametrize("colour", [(244, 243, 245), (255, 255, 255), (236, 240, 243), (225, 222, 226)])
def test_all_glass_is_no_tissue(colour):
    tissue = find_tissue(slide_from_array(field(colour=colour, noise=4), MPP, "glass"))
    assert tissue.is_empty


def test_all_tissue_is_tissue():
    # Stroma and nuclei: Otsu alone would split them.
    pixels = field(colour=(225, 190, 215), noise=6)
    rng = np.random.default_rng(1)
    for x, y in rng.integers(0, 500, (150, 2)):
        disc(pixels, x, y, 6, (110, 70, 150))
    assert found(pixels).mean() > 0.99


def test_black_borders_and_ink_are_no_tissue():
    pixels = field()
    disc(pixels, 300, 250, 120)
    pixels[:, :60] = np.random.default_rng(2).integers(0, 12, (500, 60, 3))
    pixels[450:] = (3, 0, 8)
    mask = found(pixels)
    assert mask[250, 300] and not mask[:, :50].any() and not mask[460:].any()


def test_greyscale_images_are_split_by_brightness():
    pixels = np.full((400, 400, 3), 250, np.uint8)
    disc(pixels, 200, 200, 100, (128, 128, 128))
    mask = found(pixels)
    assert mask[200, 200] and not mask[20, 20]


@pytest.mark.parametrize("side", [1, 20, 96, 224])
def test_small_images_are_looked_at_closely(side):
    tissue = find_tissue(slide_from_array(np.full((side, side, 3), PINK, np.uint8), 0.97, "patch"))
    assert tissue.mask.all() and min(tissue.mask.shape) >= min(side, 60)


def test_masks_of_huge_slides_are_bounded():
    levels = ArrayLevels(np.zeros((1, 1, 3), np.uint8))
    levels.sizes = ((400_000, 300_000),)
    slide = Slide(levels, Scale(0.5, "given"), "huge", None)
    side = 0.5 / mask_mpp(slide, 8.0)
    assert 400_000 * 300_000 * side**2 == pytest.approx(MAX_MASK_AREA_PX)
    levels.sizes = ((100_000, 100_000),)
    assert mask_mpp(slide, 8.0) == pytest.approx(12.5)
    levels.sizes = ((20_000, 20_000),)
    assert mask_mpp(slide, 8.0) == 8.0


def test_the_mask_begins_at_the_bounds():
    pixels = field()
    disc(pixels, 300, 250, 60)
    levels = ArrayLevels(pixels)
    names = zip(("x", "y", "width", "height"), (200, 150, 300, 200), strict=True)
    levels.properties = {f"openslide.bounds-{name}": str(value) for name, value in names}
    tissue = find_tissue(Slide(levels, Scale(MPP, "given"), "a", None))
    assert tissue.l0_xy == (200, 150) and tissue.l0_per_px == 2.0 and tissue.mask.shape == (100, 150)
    assert tissue.mask[50, 50] and not tissue.mask[5, 5]


@settings(max_examples=60, deadline=None)
@given(
    x=st.integers(-30, 60), y=st.integers(-30, 60), width=st.integers(1, 50), height=st.integers(1, 50),
    per_px=st.sampled_from([1, 2, 5]),
)  # fmt: skip
def test_coverage_counts_every_part_of_a_pixel(x, y, width, height, per_px):
    mask = np.random.default_rng(3).random((9, 11)) < 0.5
    large = np.zeros((200, 200), bool)
    l0 = mask.repeat(per_px, axis=0).repeat(per_px, axis=1)
    large[67 : 67 + l0.shape[0], 57 : 57 + l0.shape[1]] = l0
    tissue = TissueMask(mask, (7, 17), float(per_px), 1.0)
    share = tissue.coverage(np.array([[x, y]]), np.array([width, height]))
    assert share.shape == (1,)
    inside = large[50 + y : 50 + y + height, 50 + x : 50 + x + width]
    assert share[0] == pytest.approx(inside.mean(), abs=1e-9)


def test_real_slides(data_dir):
    slides = data_dir / "slides"
    tcga = find_tissue(open_slide(slides / "tcga-cr-7395-01a-01-ts1.svs", mpp=0.5))
    assert 0.6 < tcga.mask.mean() < 0.7
    cmu = find_tissue(open_slide(slides / "cmu-1-small-region.svs"))
    assert 0.35 < cmu.mask.mean() < 0.45
    assert cmu.mask[112:124, 62:74].all() and not cmu.mask[:, :1].any()
    assert find_tissue(open_slide(slides / "kidney-48-5.tif", mpp=0.5)).mask.mean() < 0.01


def test_real_fields_are_nearly_all_tissue(data_dir):
    shares = [
        find_tissue(open_slide(path, mpp=0.42)).mask.mean()
        for path in sorted((data_dir / "bach" / "fields").glob("*.jpg"))[::3]
    ]
    assert min(shares) > 0.7 and np.mean(shares) > 0.97
