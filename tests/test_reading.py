"""Reading ahead: the same patches in the same order, however many read, and nothing reads when it is over."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sish
from sish.demo.synthetic import write_slides
from sish.encode import SlideEncoder
from sish.errors import ParameterError, SlideReadError
from sish.recipe import Recipe
from sish.slides.reading import AHEAD_BYTES, batch_patches, default_workers, read_patches

CORNERS = np.stack([np.arange(50), np.arange(50) * 2], axis=1)


class NumberedSlide:
    """A patch's pixels are its place; counts the reads that are running, and fails at some places."""

    mpp, bounds = 1.0, (0, 0, 1000, 1000)

    def __init__(self, fails=()) -> None:
        self.running, self.begun, self.fails = 0, 0, fails
        self.lock = threading.Lock()

    def read(self, l0_xy, size_px, mpp):
        with self.lock:
            self.running, self.begun = self.running + 1, self.begun + 1
        try:
            if l0_xy[0] in self.fails:
                raise SlideReadError(f"no pixels at {l0_xy}")
            return np.full((size_px, size_px, 3), l0_xy[0], np.uint8)
        finally:
            with self.lock:
                self.running -= 1


@given(count=st.integers(0, 50), workers=st.integers(1, 5), batch=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_batches_come_in_order_whoever_reads(count, workers, batch):
    slide = NumberedSlide()
    found = list(read_patches(slide, CORNERS[:count], 2, 1.0, workers=workers, batch=batch))
    assert [len(part) for part in found] == [
        len(part) for part in np.split(CORNERS[:count], range(batch, count, batch)) if len(part)
    ]
    assert [int(patch[0, 0, 0]) for part in found for patch in part] == list(range(count))
    assert slide.running == 0 and slide.begun == count


@pytest.mark.parametrize("workers", [1, 3])
def test_whoever_leaves_early_leaves_nothing_running(workers):
    slide = NumberedSlide()
    reading = read_patches(slide, CORNERS, 2, 1.0, workers=workers, batch=5)
    next(reading)
    reading.close()
    assert slide.running == 0 and slide.begun < 50


def test_a_patch_that_fails_ends_it():
    slide = NumberedSlide(fails={12})
    reading = read_patches(slide, CORNERS, 2, 1.0, workers=2, batch=5)
    assert len(next(reading)) == len(next(reading)) == 5
    with pytest.raises(SlideReadError, match="no pixels at"):
        next(reading)
    assert slide.running == 0 and slide.begun < 50


@pytest.mark.parametrize("size_px", [64, 224, 256, 1024, 4096, 10_000])
def test_what_is_read_ahead_is_bounded(size_px):
    count = batch_patches(size_px)
    assert count == 1 or 2 * count * 3 * size_px**2 <= AHEAD_BYTES
    assert 1 <= count <= 32


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"batch": 0}])
def test_at_least_one_of_each(wrong):
    with pytest.raises(ParameterError, match="at least 1"):
        next(read_patches(NumberedSlide(), CORNERS, 2, 1.0, **wrong))
    assert 1 <= default_workers() <= 8


def test_codes_and_barcodes_do_not_depend_on_workers_or_batches(tmp_path, monkeypatch):
    write_slides(tmp_path, n_slides=1, side_um=500)
    (path,) = tmp_path.glob("*.tif")
    recipe = replace(Recipe(), patch_px=64, keys="paper")
    found = []
    for workers, batch in ((1, 1), (1, 7), (4, 3), (3, 1000)):
        monkeypatch.setattr("sish.slides.reading.batch_patches", lambda size_px, batch=batch: batch)
        encoder = SlideEncoder(recipe, workers=workers)
        with sish.open_slide(path) as slide:
            found.append(encoder.encode(encoder.prepare(slide)))
    assert len(found[0]) > 20
    for other in found[1:]:
        assert found[0].keys.tobytes() == other.keys.tobytes()
        assert found[0].barcodes.tobytes() == other.barcodes.tobytes()
