"""Scale bars: a round length that fits, drawn as long as it says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sish.errors import ParameterError
from sish.scale_bar import draw_scale_bar, scale_bar

SIZES = st.floats(1e-3, 1e5)


@given(SIZES, SIZES)
def test_the_length_is_round_and_the_longest_that_fits(mpp, room_px):
    bar = scale_bar(mpp, room_px)
    digits, exponent = f"{bar.um:.6e}".split("e")
    assert float(digits) in (1, 2, 5) and math.isclose(bar.um, float(digits) * 10 ** int(exponent))
    assert bar.px == pytest.approx(bar.um / mpp) and bar.px <= room_px * (1 + 1e-6)
    assert bar.px > room_px * 0.399, "the next one, at most 2.5 times as long, does not fit"


@pytest.mark.parametrize(
    ("mpp", "room_px", "text"),
    [(1.0, 100, "100 um"), (1.0, 99.9, "50 um"), (0.25, 300, "50 um"), (10.0, 100, "1 mm"),
     (39.0, 150, "5 mm"), (0.002, 100, "0.2 um")],
)  # fmt: skip
def test_lengths_in_words(mpp, room_px, text):
    assert scale_bar(mpp, room_px).text == text


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf])
def test_what_is_no_scale_is_refused(bad):
    with pytest.raises(ParameterError, match=r"got mpp=.*; want a number above 0"):
        scale_bar(bad, 100)
    with pytest.raises(ParameterError, match="got room_px="):
        scale_bar(1.0, bad)


@pytest.mark.parametrize("size", [(512, 300), (300, 512), (768, 768), (120, 120)])
def test_the_bar_is_drawn_at_its_length_and_the_picture_stays(size):
    picture = Image.new("RGB", size, (180, 60, 120))
    drawn = np.asarray(draw_scale_bar(picture, 4.0))
    assert drawn.shape == (size[1], size[0], 3) and np.asarray(picture).reshape(-1, 3).std(axis=0).max() == 0
    runs = (drawn == 0).all(axis=2).sum(axis=1)
    assert runs.max() == pytest.approx(scale_bar(4.0, 0.3 * size[0]).px, abs=1)
    rows, columns = np.nonzero((drawn != (180, 60, 120)).any(axis=2))
    assert rows.min() > size[1] // 2 and columns.min() > size[0] // 2, "in the lower right corner"
    text = (drawn[: int(np.argmax(runs))] < 100).all(axis=2)
    assert text.any(), "its length stands above it"


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (14, 9)])
def test_on_a_picture_too_small_for_text_the_bar_stands_alone(size):
    assert draw_scale_bar(Image.new("L", size, 200), 1.0).size == size
