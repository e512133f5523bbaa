"""Yottixel and the slide similarity: the contract, and every formula against examples by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from plain_encoder import OnceDescriber
from system_contract import SystemContract

import sish
from sish.errors import MissingMppError, ParameterError, QueryError
from sish.slides.slide import slide_from_array
from sish.systems.item import Item
from sish.systems.mean_vector import MeanVector
from sish.systems.patch_features import PatchFeatures, Tiles, WholePicture, unit
from sish.systems.slide_similarity import (
    GridTiles,
    SlideSimilarity,
    is_background,
    most_varying,
    similarity,
    variation,
)
from sish.systems.yottixel import Yottixel, falling_barcodes, median_of_minima

MOSAIC, AT_1, AT_2, WHOLE = map(
    OnceDescriber, (Tiles(64, (1.0,)), GridTiles(1.0, 64), GridTiles(2.0, 64), WholePicture())
)


class TestYottixel(SystemContract):
    needs_mpp = True

    def make(self):
        return Yottixel(MOSAIC)


class TestMeanVector(SystemContract):
    needs_mpp = True

    def make(self):
        return MeanVector(MOSAIC)


class TestSlideSimilarity(SystemContract):
    needs_mpp = True

    def make(self):
        return SlideSimilarity(describer=AT_1)


class TestReducedSlideSimilarity(SystemContract):
    needs_mpp = True

    def make(self):
        return SlideSimilarity(keep=16, describer=AT_2)


class TestWholePictures(SystemContract):
    def make(self):
        return Yottixel(WHOLE)


# ---- Yottixel


def test_the_median_of_minima_by_hand():
    query = np.uint8([[0b0000], [0b0011], [0b1111]])
    slides = np.uint8([[0b0001], [0b1111], [0b0000]])  # slide 0 has the first two, slide 1 the last
    # to slide 0: min(1, 4), min(1, 2), min(3, 0) = 1, 1, 0; to slide 1: 0, 2, 4
    assert median_of_minima(query, slides, np.array([0, 2])).tolist() == [1.0, 2.0]


def test_a_barcode_falls_where_the_feature_falls():
    features = np.array([[1.0, 2.0, 2.0, 1.0, 3.0, 2.0, 1.0, 0.0, 5.0, 4.0]])
    bits = np.unpackbits(falling_barcodes(features), axis=1)[0]
    assert bits.tolist() == [0, 0, 1, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]  # nine bits, then padding
    assert falling_barcodes(np.zeros((3, 1024))).shape == (3, 128)  # 1,023 bits, as published
    for wrong in (np.zeros(4), np.zeros((2, 1)), np.array([[0.0, np.nan]])):
        with pytest.raises(ParameterError, match="features"):
            falling_barcodes(wrong)


def patches(rows):
    rows = np.asarray(rows, np.float32)
    zeros = np.zeros(len(rows), np.float32)
    return PatchFeatures(rows, np.zeros((len(rows), 2), np.int64), zeros, zeros)


def made_items(count, **more):
    return [Item(f"i{number}", __file__, **more) for number in range(count)]


def test_a_yottixel_score_is_one_less_the_share_of_bits():
    # features of five numbers: four bits. 0000; 1000; 1111
    up, dip, down = [1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [5, 4, 3, 2, 1]
    system = Yottixel(MOSAIC).fit(made_items(3), [patches([up]), patches([dip, down]), patches([down])])
    found = system.rank(Item("q", __file__), patches([up]), k=3)
    assert [(hit.item_id, hit.score) for hit in found] == [("i0", 1.0), ("i1", 0.75), ("i2", 0.0)]
    assert system.nbytes() == 4  # one byte a patch


# ---- slide similarity


def random_slides(rng, counts, width=6):
    return [unit(rng.random((count, width))) for count in counts]


def test_the_measure_by_hand():
    query = np.float32([[1, 0], [0, 1]])
    slide = np.float32([[1, 0], [0.6, 0.8], [0, -1]])
    # S = [[1, 0.6, 0], [0, 0.8, -1]]; columns 1, 0.8, 0: mean 0.6; rows 1, 0.8: mean 0.9
    assert similarity(query, slide, np.array([0])) == pytest.approx([0.75])


@given(st.integers(0, 10**6), st.lists(st.integers(1, 9), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_the_measure_is_symmetric_within_its_range_and_one_with_itself(seed, counts):
    slides = random_slides(np.random.default_rng(seed), counts)
    starts = np.cumsum([0, *counts])[:-1]
    table = np.array([similarity(slide, np.concatenate(slides), starts) for slide in slides])
    assert table == pytest.approx(table.T, abs=1e-6)
    assert np.diag(table) == pytest.approx(np.ones(len(slides)), abs=1e-6)
    assert ((table >= 0) & (table <= 1 + 1e-6)).all()
    for row, query in zip(table, slides, strict=True):  # against the definition, slide by slide
        for value, other in zip(row, slides, strict=True):
            cosines = query @ other.T
            want = (np.mean(cosines.max(axis=0)) + np.mean(cosines.max(axis=1))) / 2
            assert value == pytest.approx(want, abs=1e-6)


def test_blocks_change_no_value(monkeypatch):
    slides = random_slides(np.random.default_rng(3), [4, 1, 7, 2, 5])
    rows, starts = np.concatenate(slides), np.array([0, 4, 5, 12, 14])
    want = similarity(slides[0], rows, starts)
    monkeypatch.setattr("sish.systems.slide_similarity._BLOCK", 6)
    assert similarity(slides[0], rows, starts) == pytest.approx(want)


def test_the_coefficient_of_variation_by_hand():
    features = [[1.0, 10.0, -2.0, 0.0, 3.0], [3.0, 14.0, -2.0, 0.0, -3.0]]
    # means 2, 12, -2, 0, 0; population sigmas 1, 2, 0, 0, 3
    assert variation(features).tolist() == [0.5, pytest.approx(1 / 6), 0.0, 0.0, np.inf]
    assert most_varying(features, 2).tolist() == [0, 4]
    assert most_varying(features, 99).tolist() == [0, 1, 2, 3, 4]


@given(arrays(np.float64, (7, 5), elements=st.floats(0.5, 9)))
def test_the_variation_does_not_know_units(features):
    assert variation(3.7 * features) == pytest.approx(variation(features), abs=1e-9)


def test_a_reduced_system_keeps_the_features_that_vary_most():
    # feature 0 varies most, feature 1 not at all, feature 2 a little
    database = [patches([[1, 5, 4]]), patches([[9, 5, 5]])]
    system = SlideSimilarity(keep=2, describer=MOSAIC).fit(made_items(2), database)
    found = system.rank(Item("q", __file__), patches([[1, 700, 4]]), k=2)  # feature 1 is not looked at
    assert found[0].item_id == "i0" and found[0].score == pytest.approx(1.0)
    assert found[1].score == pytest.approx((1 * 9 + 4 * 5) / np.sqrt(17 * 106))
    assert system.bytes_per_item == 2 * 4
    with pytest.raises(ParameterError, match="keep"):
        SlideSimilarity(keep=0)


def grey_patch(dark, between, bright):
    greys = [180] * dark + [220] * between + [240] * bright
    return np.repeat(np.array(greys, np.uint8).reshape(1, 10, -1), 3).reshape(1, 10, -1, 3)


@pytest.mark.parametrize(
    ("bins", "background"),
    [((100, 0, 0), False), ((0, 100, 0), False), ((0, 0, 100), True), ((10, 0, 90), False),
     ((9, 0, 91), True), ((5, 45, 50), True), ((10, 50, 40), False)],
)  # fmt: skip
def test_background_goes_by_its_three_bins(bins, background):
    assert is_background(grey_patch(*bins)).tolist() == [background]


def test_the_grid_has_as_many_patches_as_fit():
    slide = slide_from_array(np.zeros((450, 700, 3), np.uint8), 0.5, "slide")
    grid = GridTiles(1.0, 100)  # a patch is 200 level-0 px: 3 across, 2 down
    assert grid.corners(slide).tolist() == [[0, 0], [200, 0], [400, 0], [0, 200], [200, 200], [400, 200]]
    assert GridTiles(10.0, 224).corners(slide).tolist() == [[0, 0]]  # smaller than a patch: one patch
    assert GridTiles(1.0, 100).corners(slide, (100, 50, 250, 210)).tolist() == [[100, 50]]
    for wrong in (GridTiles, Tiles):
        with pytest.raises(ParameterError, match="um/px"):
            wrong(mpp=0.0) if wrong is GridTiles else wrong(mpps=(0.0,))


def test_a_slide_smaller_than_a_patch_is_mirrored(pictures):
    (look,) = GridTiles(16.0, 64).read(pictures[0])  # 16 of 64 px are slide
    assert look.pixels.shape == (1, 64, 64, 3) and not is_background(look.pixels).any()
    np.testing.assert_array_equal(look.pixels[0, :, :16], look.pixels[0, :, 31:15:-1])


def test_an_image_no_larger_than_a_tile_is_one_patch_of_its_own_size(pictures):
    (look,) = Tiles(512, (1.0,)).read(pictures[0], step_px=8)
    assert look.pixels.shape == (1, 256, 256, 3) and look.l0_xy.tolist() == [[0, 0]]
    (whole,) = Tiles(512, (1.0,)).read(pictures[0])  # an encoder that takes whole patches only
    assert whole.pixels.shape == (1, 512, 512, 3)


def test_a_slide_that_is_all_background_cannot_be_described(tmp_path):
    Image.new("RGB", (300, 300), "white").save(tmp_path / "glass.png")
    glass = Item("glass", tmp_path / "glass.png", mpp=1.0)
    for system in (
        SlideSimilarity(describer=AT_1),
        Yottixel(MOSAIC),
    ):
        with pytest.raises(QueryError, match=r"glass\.png: got no tissue"):
            system.fit([glass])
        assert len(system.fit([glass], on_error="skip")) == 0 and len(system.skipped) == 1


# ---- what is looked at


def test_scales_finer_than_the_slide_are_left_out():
    tiles = Tiles(mpps=(0.25, 0.5, 1.0))
    assert tiles.scales(0.25) == (0.25, 0.5, 1.0)
    assert tiles.scales(0.42) == (0.5, 1.0)
    assert tiles.scales(2.0) == (1.0,)


def test_a_picture_is_cut_alike_on_all_sides(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (45, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (look,) = WholePicture().read(Item("a", tmp_path / "a.png"), step_px=8)
    assert look.pixels.shape == (1, 40, 56, 3) and look.l0_xy.tolist() == [[2, 2]]
    np.testing.assert_array_equal(look.pixels[0], pixels[2:42, 2:58])
    with pytest.raises(sish.SlideError, match="one patch"):
        list(WholePicture().read(Item("a", tmp_path / "a.png"), step_px=64))


def test_an_encoder_that_does_not_divide_the_tile_is_refused(pictures):
    with pytest.raises(ParameterError, match="multiple of 8"):
        MOSAIC.looks.__class__(100).read(pictures[0], step_px=8).__next__()


def test_a_slide_without_its_scale_is_refused(data_dir):
    bare = Item("tcga", data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs")
    with pytest.raises(MissingMppError, match="mpp"):
        Yottixel(MOSAIC).describe(bare)
