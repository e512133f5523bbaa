"""The preview: its size, and that its boxes and outline are where the mosaic and the tissue are."""

import numpy as np
import pytest

from sish.errors import ParameterError
from sish.preview import CLUSTER_COLOURS, OUTLINE_COLOUR, draw_mosaic
from sish.slides.mosaic import Mosaic, select_mosaic, tile
from sish.slides.slide import open_slide, slide_from_array
from sish.slides.tissue import TissueMask, find_tissue


def drawn(max_px: int, width: int = 800, height: int = 400):
    """A grey slide whose left half is tissue, with two boxes, and its picture."""
    slide = slide_from_array(np.full((height, width, 3), 180, np.uint8), 0.5, "grey")
    mask = np.zeros((height // 8, width // 8), bool)
    mask[:, : width // 16] = True
    tissue = TissueMask(mask, (0, 0), 8.0, 4.0)
    mosaic = Mosaic(np.array([[100, 100], [500, 200]]), np.array([0, 10], np.int32), 50, 1.0, 100.0, 9)
    return np.asarray(draw_mosaic(slide, tissue, mosaic, max_px))


@pytest.mark.parametrize(
    ("max_px", "size"), [(1024, (400, 800)), (400, (200, 400)), (100, (50, 100)), (1, (1, 1))]
)
def test_the_longer_side_is_limited_and_never_enlarged(max_px, size):
    assert drawn(max_px).shape == (*size, 3)


@pytest.mark.parametrize("max_px", [800, 400])
def test_boxes_have_the_colours_of_their_clusters(max_px):
    picture, step = drawn(max_px), 800 // max_px
    for (x, y), cluster in (((100, 100), 0), ((500, 200), 10)):
        colour = CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)]
        is_colour = (picture == colour).all(axis=2)
        rows, columns = np.nonzero(is_colour)
        assert (columns.min(), columns.max() + 1) == (x // step, (x + 100) // step)
        assert (rows.min(), rows.max() + 1) == (y // step, (y + 100) // step)
        assert not is_colour[(y + 50) // step, (x + 50) // step]
        assert not (picture[(y + 50) // step, (x + 50) // step] == 180).all(), "tinted"


def test_the_outline_is_the_rim_of_the_tissue():
    rim = (drawn(800) == OUTLINE_COLOUR).all(axis=2)
    assert rim[20:, :3].any() and rim[50, 396:402].any()
    assert not rim[:, 410:].any() and not rim[50, 20:90].any()


def test_no_tissue_is_a_plain_thumbnail():
    slide = slide_from_array(np.full((90, 70, 3), 250, np.uint8), 1.0, "glass")
    tissue = find_tissue(slide)
    picture = draw_mosaic(slide, tissue, select_mosaic(slide, tile(slide, tissue)))
    assert (np.asarray(picture) == 250).all() and picture.mode == "RGB"


def test_impossible_sizes_are_refused():
    with pytest.raises(ParameterError):
        drawn(0)


def test_a_real_slide(data_dir):
    slide = open_slide(data_dir / "slides" / "cmu-1-small-region.svs")
    tissue = find_tissue(slide)
    mosaic = select_mosaic(slide, tile(slide, tissue))
    picture = np.asarray(draw_mosaic(slide, tissue, mosaic, 512))
    assert max(picture.shape) == 512
    for cluster in np.unique(mosaic.cluster):
        assert (picture == CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)]).all(axis=2).any()
