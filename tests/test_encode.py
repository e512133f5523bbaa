"""Recipes and headers that an index may hold, and an encoder that lets go of what it reads."""

import threading
import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from sish.encode import PreparedSlide, SlideEncoder
from sish.errors import EncoderMismatchError, IndexFormatError, ParameterError
from sish.header import IndexHeader
from sish.index.params import SearchParams
from sish.recipe import Recipe
from sish.slides.mosaic import Mosaic
from sish.slides.slide import slide_from_array
from sish.slides.tissue import find_tissue

HEADER = IndexHeader(Recipe(), "made by hand", SearchParams(threshold=40))


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch_px": "256"}, {"patch_px": 256.0}, {"patch_px": True}, {"mpp": "1"}, {"mpp": None},
        {"mpp": True}, {"weights": None}, {"n_clusters": 2.5}, {"fraction": float("nan")}, {"seed": -1},
        {"seed": 0.5}, {"pooling": 3}, {"min_speck_um2": -1.0}, {"min_speck_um2": float("nan")},
        {"min_speck_um2": True}, {"leave_out_ink": 1}, {"leave_out_ink": None},
    ],
)  # fmt: skip
def test_recipes_of_wrong_types_or_ranges_are_refused(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Recipe(**wrong).check()


def test_whole_numbers_are_numbers():
    assert Recipe(mpp=1, fraction=1).check().mpp == 1
    whole, decimal = (SlideEncoder(Recipe(mpp=number, fraction=number)) for number in (1, 1.0))
    assert whole.fingerprint == decimal.fingerprint


def test_taste_enters_the_fingerprint_only_where_it_differs():
    def fingerprint(**taste):
        return SlideEncoder(Recipe(**taste)).fingerprint

    # As in releases before there were these fields.
    assert fingerprint().endswith("+897c4f") and fingerprint(min_speck_um2=20_000).endswith("+897c4f")
    assert len({fingerprint(), fingerprint(min_speck_um2=9.0), fingerprint(leave_out_ink=False)}) == 3


def test_recipes_from_before_there_was_taste_come_back():
    stored = Recipe().to_json()
    assert not {"min_speck_um2", "leave_out_ink"} & set(stored), "older releases open it"
    assert Recipe.from_json(stored) == Recipe()
    other = Recipe(min_speck_um2=500.0, leave_out_ink=False)
    assert Recipe.from_json(other.to_json()) == other


def test_what_is_taste_reaches_the_search_for_tissue():
    pixels = np.full((600, 600, 3), 245, np.uint8)
    pixels[100:120, 100:500] = (40, 60, 170)
    pixels[300:330, 300:330] = (205, 120, 175)
    slide = slide_from_array(pixels, 4.0, "drawn")

    def tissue(**taste):
        return SlideEncoder(Recipe(**taste)).prepare(slide).tissue.mask

    assert tissue()[157, 157] and not tissue()[55, 150]
    assert tissue(leave_out_ink=False)[55, 150]
    assert not tissue(min_speck_um2=5_000.0)[55, 150] and tissue(min_speck_um2=5_000.0)[157, 157]


def test_paths_of_weights_are_kept_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = SlideEncoder(Recipe(weights="a.ckpt", network_weights="../b.pth")).recipe
    assert (recipe.weights, recipe.network_weights) == (
        str(tmp_path / "a.ckpt"),
        str(tmp_path.parent / "b.pth"),
    )
    assert SlideEncoder(Recipe()).recipe == Recipe()


def test_a_header_comes_back():
    assert IndexHeader.from_json(HEADER.to_json()) == HEADER
    del (stored := HEADER.to_json())["search"]["skip_step"]  # from before there was one
    assert IndexHeader.from_json(stored) == HEADER


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"recipe": None}, "recipe is None"),
        ({"search": [1]}, r"search is \[1\]"),
        ({"search": asdict(HEADER.search) | {"luck": 3}}, r"search .*\('luck'\)"),
        ({"recipe": asdict(HEADER.recipe) | {"magic": 3}}, r"recipe .*\('magic'\)"),
        ({"recipe": {}}, r"recipe .*\('fraction', 'mpp', "),
        ({"colour": "red"}, r"header .*\('colour'\)"),
    ],
)
def test_headers_of_other_releases_are_refused_by_name(change, match):
    with pytest.raises(IndexFormatError, match=match):
        IndexHeader.from_json(HEADER.to_json() | change)


@pytest.mark.parametrize("missing", ["recipe", "fingerprint", "search"])
def test_headers_that_lack_a_part_are_refused(missing):
    stored = HEADER.to_json()
    del stored[missing]
    with pytest.raises(IndexFormatError, match=rf"header .*\('{missing}'\)"):
        IndexHeader.from_json(stored)


def test_the_wrong_encoder_is_known_before_a_slide_is_opened():
    with pytest.raises(EncoderMismatchError, match="made with encoder made by hand"):
        SlideEncoder(Recipe(), expected_fingerprint="made by hand").load()


class SlowSlide:
    """Counts the reads that are running."""

    mpp, bounds = 1.0, (0, 0, 100_000, 100_000)

    def __init__(self) -> None:
        self.begun = self.ended = 0

    def read(self, l0_xy, size_px, mpp):
        self.begun += 1
        time.sleep(0.005)
        self.ended += 1
        return np.zeros((size_px, size_px, 3), np.uint8)


@pytest.mark.parametrize("error", [KeyboardInterrupt, EncoderMismatchError, MemoryError])
def test_nothing_reads_a_slide_any_more_when_encoding_fails(error, monkeypatch):
    real, slow = slide_from_array(np.full((64, 64, 3), 200, np.uint8), 1.0, "grey"), SlowSlide()
    mosaic = Mosaic(np.zeros((80, 2), np.int64), np.zeros(80, np.int32), 64, 1.0, 64.0, 80)
    prepared = PreparedSlide(real, find_tissue(real), mosaic)
    encoder = SlideEncoder(replace(Recipe(), patch_px=64))

    def failing(pixels):
        while slow.begun == slow.ended:  # the reader of the next batch is at work
            threading.Event().wait(0.0001)
        raise error

    monkeypatch.setattr(encoder, "encode_patches", failing)
    with pytest.raises(error) as caught:
        encoder.encode(replace(prepared, slide=slow))
    assert slow.begun == slow.ended < 80
    assert caught.tb is not None  # held until here, as it is while a caller closes the slide
