"""Tiles and mosaics against rules worked out by hand, brute force, and a slide of 10 gigapixels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramids import write_huge
from scipy import ndimage

from sish.errors import ParameterError
from sish.slides.clusters import assign, kmeans
from sish.slides.glass import UNSEEN, Glass
from sish.slides.mosaic import Patches, background_grey, look, select_mosaic, tile
from sish.slides.slide import open_slide, slide_from_array
from sish.slides.tissue import TissueMask, find_tissue

PINK = np.array([205, 120, 175], np.uint8)


def plain(width: int, height: int, mpp: float = 1.0):
    """A slide that is tissue all over, with its mask."""
    slide = slide_from_array(np.broadcast_to(PINK, (height, width, 3)).copy(), mpp, "plain")
    mask = np.ones((-(-height // 8), -(-width // 8)), bool)
    return slide, TissueMask(mask, (0, 0), 8.0, 8.0 * mpp)


def test_tiles_are_a_grid_without_overlap():
    slide, tissue = plain(1030, 520)
    patches = tile(slide, tissue, 256, 1.0)
    assert patches.l0_xy.tolist() == [[x, y] for y in (0, 256) for x in (0, 256, 512, 768)]
    assert patches.l0_xy.dtype == np.int64
    assert (patches.size_px, patches.mpp, patches.l0_size) == (256, 1.0, 256)


def test_the_pitch_is_not_rounded_away():
    slide, tissue = plain(1536, 1536, 0.42)
    patches = tile(slide, tissue, 256, 1.0)
    # 256 um are 609.52 px: the third begins at 1219.05, and 0.52 of it lies on the slide.
    assert np.unique(patches.l0_xy[:, 0]).tolist() == [0, 610, 1219]
    assert patches.l0_size == pytest.approx(609.5238)


@pytest.mark.parametrize(("width", "columns"), [(100, 1), (256, 1), (383, 1), (384, 2), (500, 2), (640, 3)])
def test_a_last_tile_stays_if_its_centre_is_inside(width, columns):
    slide, tissue = plain(width, 256)
    assert tile(slide, tissue, 256, 1.0).l0_xy.tolist() == [[256 * i, 0] for i in range(columns)]


def test_an_image_smaller_than_a_tile_is_one_tile():
    slide, tissue = plain(96, 60)
    patches = tile(slide, tissue, 256, 1.0)
    assert patches.l0_xy.tolist() == [[0, 0]]
    assert len(select_mosaic(slide, patches)) == 1


def test_regions_restrict_the_grid():
    slide, tissue = plain(2000, 2000)
    inside = tile(slide, tissue, 256, 1.0, region=(101, 203, 520, 256))
    assert inside.l0_xy.tolist() == [[101, 203], [357, 203]]
    small = tile(slide, tissue, 256, 1.0, region=(1000, 500, 100, 56))
    assert small.l0_xy.tolist() == [[1050 - 128, 528 - 128]]
    corner = tile(slide, tissue, 256, 1.0, region=(1744, 1744, 900, 900))
    assert corner.l0_xy.tolist() == [[1744, 1744]]


@pytest.mark.parametrize(
    "region", [(), (0, 0, 10), (0, 0, 10, 10, 10), ("0", "0", "9", "9"), (0, 0, None, 9)]
)
def test_regions_that_are_not_four_numbers_are_refused(region):
    slide = slide_from_array(np.full((300, 300, 3), 200, np.uint8), 1.0, "small")
    with pytest.raises(ParameterError, match="want four numbers"):
        tile(slide, find_tissue(slide), 256, 1.0, region=region)


@pytest.mark.parametrize("region", [(2000, 0, 10, 10), (-50, 0, 50, 50), (0, 0, 0, 5), (0, 0, -5, 5)])
def test_regions_off_the_slide_are_refused(region):
    slide, tissue = plain(2000, 2000)
    with pytest.raises(ParameterError, match="does not meet"):
        tile(slide, tissue, 256, 1.0, region=region)


@pytest.mark.parametrize("options", [{"size_px": 0}, {"mpp": 0.0}, {"min_tissue": 1.5}])
def test_impossible_tiles_are_refused(options):
    slide, tissue = plain(500, 500)
    with pytest.raises(ParameterError):
        tile(slide, tissue, **options)


def test_a_tile_belongs_if_enough_of_it_is_tissue():
    slide, tissue = plain(1024, 256)
    mask = tissue.mask.copy()
    mask[:, 32 + 6 : 64] = False  # 6 of 32 columns of the second tile
    mask[:, 64 + 9 : 96] = False  # 9 of 32 columns of the third
    mask[:, 96:] = False
    some = TissueMask(mask, (0, 0), 8.0, 8.0)
    assert tile(slide, some, 256, 1.0).l0_xy[:, 0].tolist() == [0, 512]
    assert tile(slide, some, 256, 1.0, min_tissue=0.1).l0_xy[:, 0].tolist() == [0, 256, 512]
    assert tile(slide, some, 256, 1.0, min_tissue=0.0).l0_xy[:, 0].tolist() == [0, 256, 512]
    assert len(tile(slide, TissueMask(np.zeros_like(mask), (0, 0), 8.0, 8.0), 256, 1.0)) == 0


def fragments(*places: tuple[int, int], side: int = 112, width: int = 2048, height: int = 2048):
    """A slide of glass with square fragments at 1 um/px, centred at some places, and its mask."""
    pixels = np.full((height, width, 3), 245, np.uint8)
    mask = np.zeros((height // 8, width // 8), bool)
    for x, y in places:
        box = np.s_[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2]
        pixels[box] = PINK
        mask[np.s_[box[0].start // 8 : box[0].stop // 8, box[1].start // 8 : box[1].stop // 8]] = True
    return slide_from_array(pixels, 1.0, "fragments"), TissueMask(mask, (0, 0), 8.0, 8.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(7, 249), st.integers(7, 249)), min_size=1, max_size=4))
def test_every_fragment_has_a_tile_wherever_it_lies(places):
    places = [(8 * x, 8 * y) for x, y in places]
    slide, tissue = fragments(*places)
    patches = tile(slide, tissue, 256, 1.0)
    assert (patches.l0_xy >= 0).all() and (patches.l0_xy + 256 <= 2048).all()
    pieces, _ = ndimage.label(tissue.mask, np.ones((3, 3)))
    met = {int(n) for x, y in patches.l0_xy // 8 for n in np.unique(pieces[y : y + 32, x : x + 32])}
    assert met >= set(range(1, pieces.max() + 1))


def test_a_fragment_is_in_the_middle_of_its_own_tile():
    slide, tissue = fragments((512, 768), (1000, 1000), (1120, 1000), (64, 2000))
    # The second and third share one; the last stays on the slide.
    assert tile(slide, tissue, 256, 1.0).l0_xy.tolist() == [[384, 640], [872, 872], [0, 1792]]
    assert tile(slide, tissue, 256, 1.0, region=(256, 512, 512, 512)).l0_xy.tolist() == [[384, 640]]
    assert len(tile(slide, tissue, 256, 1.0, region=(1200, 1200, 512, 512))) == 0


def test_pieces_that_a_tile_meets_get_no_other():
    slide, tissue = plain(1024, 1024)
    assert len(tile(slide, tissue, 256, 1.0)) == 16
    pieces = tissue.pieces_apart(np.array([[1000, 1000]]), 256.0)
    assert pieces.shape == (0, 2) and tissue.pieces_apart(np.zeros((0, 2), int), 256.0).tolist() == [
        [512, 512]
    ]


@pytest.mark.parametrize(
    ("colour", "below"), [((255, 255, 255), 235), ((246, 245, 247), 235), ((200, 200, 200), 192)]
)
def test_background_is_as_bright_as_the_glass(colour, below):
    assert background_grey(Glass(colour)) == pytest.approx(below, abs=1)
    assert background_grey(UNSEEN) == 235
    _, tissue = plain(256, 256)
    for grey, kept in ((below - 3, 1), (below + 3, 0)):
        pixels = np.full((256, 256, 3), grey, np.uint8)
        pixels[:16] = PINK
        judged = TissueMask(tissue.mask, (0, 0), 8.0, 8.0, Glass(colour))
        assert len(tile(slide_from_array(pixels, 1.0, "glass"), judged, 256, 1.0)) == kept


@pytest.mark.parametrize(("glass", "kept"), [(0.86, True), (0.94, False)])
def test_a_tile_of_more_than_90_percent_background_goes(glass, kept):
    slide, tissue = plain(256, 256)
    pixels = slide.read((0, 0), 256, 1.0).copy()
    pixels[: int(256 * glass)] = 240
    patches = tile(slide_from_array(pixels, 1.0, "glass"), tissue, 256, 1.0)
    assert len(patches) == kept


def test_padding_is_no_background():
    slide, tissue = plain(60, 60)
    assert len(tile(slide, tissue, 256, 1.0)) == 1


def test_histograms_count_the_low_power_look():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 230, (1024, 2048, 3), dtype=np.uint8)
    slide = slide_from_array(pixels, 0.5, "noise")
    corners = np.array([[0, 0], [512, 0], [1024, 512], [1536, 512]])
    histograms, background = look(slide, corners, 256.0)
    for (x, y), histogram in zip(corners, histograms, strict=True):
        small = slide.read((x, y), 128, 2.0)
        counts = [np.bincount(small[..., channel].ravel(), minlength=256) for channel in range(3)]
        assert np.array_equal(histogram, np.concatenate(counts))
    assert (background == 0).all()


def scattered(kinds: int = 3, columns: int = 30, rows: int = 20):
    """A slide of single-coloured tiles of 32 um in bands of ``kinds`` colours, and its patches."""
    colours = np.array([[200, 100, 150], [120, 60, 160], [240, 200, 220], [90, 160, 200]], np.uint8)
    band = np.arange(columns) * kinds // columns
    pixels = colours[band][None].repeat(rows, axis=0).repeat(32, axis=0).repeat(32, axis=1)
    slide = slide_from_array(pixels, 1.0, "bands")
    tissue = TissueMask(np.ones((rows * 4, columns * 4), bool), (0, 0), 8.0, 8.0)
    return slide, tile(slide, tissue, 32, 1.0), np.tile(band, rows)


def test_colours_make_clusters_and_places_thin_them():
    slide, patches, band = scattered()
    mosaic = select_mosaic(slide, patches)
    assert mosaic.n_tiles == len(patches) == 600
    # Three colours can make three clusters only: 5 % of 200 tiles each.
    assert len(mosaic) == 30 and len(np.unique(mosaic.cluster)) == 3
    place = {tuple(xy): number for number, xy in enumerate(patches.l0_xy.tolist())}
    chosen = np.array([place[tuple(xy)] for xy in mosaic.l0_xy.tolist()])
    assert len(set(chosen)) == 30 and (np.diff(chosen) > 0).all()
    for cluster in np.unique(mosaic.cluster):
        assert len(np.unique(band[chosen[mosaic.cluster == cluster]])) == 1
    # Spread over the band, not heaped: every tile has a chosen one of its colour within 3 tiles.
    for number, xy in enumerate(patches.l0_xy):
        same = mosaic.l0_xy[band[chosen] == band[number]]
        assert np.linalg.norm(same - xy, axis=1).min() <= 4 * 32


def test_each_patch_is_the_real_tile_nearest_its_centre():
    rng = np.random.default_rng(2)
    l0_xy = np.unique(rng.integers(0, 100, (400, 2)), axis=0) * 64
    histograms = np.zeros((len(l0_xy), 768), np.uint16)
    histograms[:, 5] = 7
    patches = Patches(l0_xy, 64, 1.0, 64.0, histograms)
    slide, _ = plain(9, 9)
    mosaic = select_mosaic(slide, patches, fraction=0.1, seed=4)
    places = l0_xy.astype(np.float32)
    centres = kmeans(places, int(len(l0_xy) * 0.1), 4)
    nearest = assign(places, centres)
    expected = set()
    for number, centre in enumerate(centres):
        members = l0_xy[nearest == number]
        expected.add(tuple(members[np.linalg.norm(members - centre, axis=1).argmin()].tolist()))
    assert {tuple(xy) for xy in mosaic.l0_xy.tolist()} == expected
    assert len(mosaic) == len(centres)


@pytest.mark.parametrize("columns", [0, 1, 5, 8, 9, 19])
def test_small_slides_are_kept_whole(columns):
    slide, tissue = plain(max(32, columns * 32), 32)
    patches = tile(slide, tissue, 32, 1.0)
    patches = Patches(patches.l0_xy[:columns], 32, 1.0, 32.0, patches.histograms[:columns])
    mosaic = select_mosaic(slide, patches)
    assert np.array_equal(mosaic.l0_xy, patches.l0_xy)
    assert len(mosaic.cluster) == mosaic.n_tiles == columns and mosaic.cluster.dtype == np.int32


def test_the_same_seed_gives_the_same_mosaic():
    slide, patches, _ = scattered(4, 40, 40)
    first, again = select_mosaic(slide, patches, seed=7), select_mosaic(slide, patches, seed=7)
    assert np.array_equal(first.l0_xy, again.l0_xy) and np.array_equal(first.cluster, again.cluster)
    other = select_mosaic(slide, patches, seed=8)
    assert not np.array_equal(first.l0_xy, other.l0_xy)


def test_patches_made_by_hand_are_looked_at():
    slide, patches, _ = scattered()
    bare = Patches(patches.l0_xy, patches.size_px, patches.mpp, patches.l0_size)
    assert np.array_equal(select_mosaic(slide, bare).l0_xy, select_mosaic(slide, patches).l0_xy)


@pytest.mark.parametrize("options", [{"n_clusters": 0}, {"fraction": 0.0}, {"fraction": 1.5}])
def test_impossible_mosaics_are_refused(options):
    slide, patches, _ = scattered()
    with pytest.raises(ParameterError):
        select_mosaic(slide, patches, **options)


def test_a_fraction_of_one_keeps_everything():
    slide, patches, _ = scattered(3, 12, 8)
    assert len(select_mosaic(slide, patches, fraction=1.0)) == len(patches)


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(0, 60), k=st.integers(1, 12), dimensions=st.sampled_from([1, 2, 3, 8]),
    distinct=st.integers(1, 60), seed=st.integers(0, 9),
)  # fmt: skip
def test_kmeans_is_a_fixed_point_with_no_empty_cluster(n, k, dimensions, distinct, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(-50, 50, (distinct, dimensions))[rng.integers(0, distinct, n)].astype(np.float32)
    centres = kmeans(points, k, seed)
    assert len(centres) == min(k, len(np.unique(points, axis=0)))
    if n:
        distance = np.linalg.norm(points[:, None] - centres[None], axis=2)
        nearest = assign(points, centres)
        assert distance[np.arange(n), nearest] == pytest.approx(distance.min(axis=1), abs=1e-3)
        for number in np.unique(nearest):
            assert centres[number] == pytest.approx(points[nearest == number].mean(axis=0), abs=1e-3)


def test_kmeans_finds_clear_clusters():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 25_000)
    points = np.array([[0, 0], [100, 0], [0, 100], [100, 100]], np.float32)[truth]
    points += rng.normal(0, 3, points.shape).astype(np.float32)
    found = assign(points, kmeans(points, 4, 1))
    assert all(len(np.unique(found[truth == number])) == 1 for number in range(4))


def test_real_slides(data_dir):
    slide = open_slide(data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs", mpp=0.5)
    tissue = find_tissue(slide)
    patches = tile(slide, tissue, 64, 1.0)
    assert 500 < len(patches) < 800
    mosaic = select_mosaic(slide, patches)
    assert 0.04 * len(patches) < len(mosaic) < 0.15 * len(patches)
    empty = open_slide(data_dir / "slides" / "kidney-48-5.tif", mpp=0.5)
    assert len(select_mosaic(empty, tile(empty, find_tissue(empty)))) == 0


HUGE = """
import json, resource, sys
from sish.slides.mosaic import select_mosaic, tile
from sish.slides.slide import open_slide
from sish.slides.tissue import find_tissue
def peak_bytes():
    try:
        status = open("/proc/self/status").read()  # ru_maxrss also counts the program that started this one
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
slide = open_slide(sys.argv[1])
tissue = find_tissue(slide)
patches = tile(slide, tissue)
mosaic = select_mosaic(slide, patches)
peak = peak_bytes()
print(json.dumps([slide.dimensions, float(tissue.mask.mean()), len(patches), len(mosaic), peak]))
"""


@pytest.mark.slow
def test_a_slide_of_10_gigapixels_takes_little_memory(tmp_path):
    kinds = np.zeros((25, 25), np.uint8)
    kinds[3:21, 2:22] = np.random.default_rng(0).integers(1, 4, (18, 20))
    write_huge(tmp_path / "huge.tif", 102_400, kinds)
    run = subprocess.run(
        [sys.executable, "-c", HUGE, str(tmp_path / "huge.tif")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    dimensions, share, n_tiles, n_chosen, peak = json.loads(run.stdout)
    assert dimensions == [102_400, 102_400] and share == pytest.approx(360 / 625, rel=0.03)
    # 360 parts of 4 x 4 tiles each.
    assert n_tiles == pytest.approx(360 * 16, rel=0.01)
    assert 0.04 * n_tiles < n_chosen < 0.06 * n_tiles
    # Level 0 alone would be 30 GB.
    assert peak < 1.5e9
