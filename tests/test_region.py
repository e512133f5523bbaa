"""Boxes of a slide that may be turned: their tiles, and a search for them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sish
from sish.errors import ParameterError
from sish.qupath import write_geojson
from sish.slides.mosaic import tile
from sish.slides.region import Box
from sish.slides.slide import slide_from_array
from sish.slides.tissue import all_tissue

sides = st.floats(1, 700)
boxes = st.builds(
    lambda x, y, width, height, angle: Box(x - width / 2, y - height / 2, width, height, angle),
    st.floats(800, 1200), st.floats(800, 1200), sides, sides,
    st.floats(-720, 720).filter(lambda it: it % 360),
)  # fmt: skip
PINK = slide_from_array(np.full((2000, 2000, 3), (200, 90, 160), np.uint8), 1.0, "pink")


def inside(box: Box, x: float, y: float) -> bool:
    """Whether a point is in a box, to a pixel: the sides' distances by the textbook's rotation."""
    dx, dy = x - box.x - box.width / 2, y - box.y - box.height / 2
    turn = -math.radians(box.angle)
    across = dx * math.cos(turn) - dy * math.sin(turn)
    down = dx * math.sin(turn) + dy * math.cos(turn)
    return abs(across) <= box.width / 2 + 1 and abs(down) <= box.height / 2 + 1


@settings(max_examples=15, deadline=None)
@given(boxes, st.sampled_from([64, 100, 256]))
def test_centres_of_tiles_lie_in_the_box(box, size):
    corners = tile(PINK, all_tissue(PINK), size, 1.0, region=box).l0_xy
    assert len(corners) == max(1, int(box.width / size + 0.5)) * max(1, int(box.height / size + 0.5))
    for x, y in corners + size / 2:
        assert inside(box, x, y)
        left, top, width, height = box.around
        assert left - 1 <= x <= left + width + 1 and top - 1 <= y <= top + height + 1


@settings(max_examples=50, deadline=None)
@given(boxes)
def test_a_box_contains_what_its_corners_enclose(box):
    centre = box.corners.mean(axis=0)
    assert box.contains(centre[None]).all()
    assert box.contains(centre + 0.99 * (box.corners - centre)).all()
    assert not box.contains(centre + 1.01 * (box.corners - centre)).any()
    assert np.hypot(*(box.corners[1] - box.corners[0])) == pytest.approx(box.width)
    assert np.hypot(*(box.corners[2] - box.corners[1])) == pytest.approx(box.height)


def test_a_quarter_turn_is_clockwise():
    box = Box(1000, 1000, 40, 20, angle=90)
    assert box.around == (1010, 990, 20, 40)
    assert box.corners.round(6).tolist() == [[1030, 990], [1030, 1030], [1010, 1030], [1010, 990]]


@pytest.mark.parametrize("angle", [0, 0.0, 360, -720])
def test_a_box_that_is_not_turned_has_the_tiles_of_its_numbers(angle):
    numbers = (101, 203, 520, 300)
    own = tile(PINK, all_tissue(PINK), 256, 1.0, region=Box(*numbers, angle=angle))
    assert own.l0_xy.tolist() == tile(PINK, all_tissue(PINK), 256, 1.0, region=numbers).l0_xy.tolist()


def test_a_narrow_box_is_covered_from_end_to_end():
    strip = Box(500, 950, 1000, 60, angle=37)
    assert len(tile(PINK, all_tissue(PINK), 100, 1.0, region=strip)) == 10


def test_a_small_box_is_one_patch_about_its_centre():
    assert tile(PINK, all_tissue(PINK), 256, 1.0, region=Box(700, 500, 100, 56, 30)).l0_xy.tolist() == [
        [622, 400]
    ]


def test_tiles_off_the_slide_are_left_out():
    corners = tile(PINK, all_tissue(PINK), 256, 1.0, region=Box(-500, 900, 1200, 256, 1)).l0_xy
    assert len(corners) == 3 and (corners + 128 >= 0).all()
    with pytest.raises(ParameterError, match="does not meet the slide"):
        tile(PINK, all_tissue(PINK), 256, 1.0, region=Box(5000, 0, 300, 300, 10))


@pytest.mark.parametrize("sides", [(520, 300), (100, 60), (90, 700)])
@pytest.mark.parametrize("angle", [-90, 90, 180, 270, 450])
def test_a_box_turned_by_quarters_is_the_upright_box_of_its_outline(sides, angle):
    width, height = sides
    box = Box(600, 700, width, height, angle)
    own = tile(PINK, all_tissue(PINK), 256, 1.0, region=box)
    upright = tile(PINK, all_tissue(PINK), 256, 1.0, region=box.around)
    assert own.l0_xy.tolist() == upright.l0_xy.tolist()
    assert box.around[2:] == (sides if angle % 180 == 0 else sides[::-1])


def test_a_turned_box_far_larger_than_the_slide_has_the_tiles_of_the_slide_alone():
    everywhere = tile(PINK, all_tissue(PINK), 256, 1.0, region=Box(-1e11, -1e11, 2e11, 2e11, 30)).l0_xy
    here = tile(PINK, all_tissue(PINK), 256, 1.0, region=Box(-5120, -5120, 10240, 10240, 30)).l0_xy
    assert 50 < len(everywhere) < 75 and 50 < len(here) < 75  # of 61 squares of this side
    assert ((everywhere + 128 >= 0) & (everywhere + 128 < 2000)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        (0, 0, 0, 5),
        (0, 0, 5, -1),
        (float("nan"), 0, 5, 5),
        (0, 0, 5, 5, float("inf")),
        (0, 0, 1e300, 5, 30),
        ("0", 0, 5, 5),
        (True, 0, 5, 5),
    ],
)
def test_what_is_no_box_is_refused(wrong):
    with pytest.raises(ParameterError, match="want numbers below"):
        Box(*wrong)


def test_a_search_for_a_turned_box(built_index, tmp_path):
    index = sish.Index.open(built_index)
    row = index.slides[0]
    x, y = (int(side) for side in index.patches(row.slide_id).l0_xy[0])
    side = row.patch_l0_px
    numbers = (x, y, round(3 * side), round(2 * side))
    upright = index.search(row.slide_id, region=numbers)
    assert index.search(row.slide_id, region=sish.Box(*numbers)) == upright
    assert index.search(row.slide_id, region=sish.Box(*numbers)).to_dict() == upright.to_dict()
    assert "box" not in upright.to_dict()["query"]

    box = sish.Box(*numbers, angle=20)
    turned = index.search(row.slide_id, region=box)
    assert turned == index.search(row.path, region=box), "by id and by file"
    told = turned.to_dict()["query"]
    assert told["region"] == list(box.around) and all(type(side) is int for side in told["region"])
    assert told["box"] == {**dict(zip(("x", "y", "width", "height"), numbers, strict=True)), "angle": 20}
    assert all(inside(box, *(xy + side / 2)) for xy in turned.query.l0_xy)
    sish.write_report(turned, tmp_path / "report.html", index=index)
    write_geojson([turned], tmp_path / "drawn", index=index)
    assert turned.to_pandas().attrs["query"]["box"] == told["box"]
