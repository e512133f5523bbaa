"""Pixels of slides: geometry, edges, colours, threads, processes."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyramids import write_pyramid, write_strips
from scipy import ndimage

from sish.errors import ParameterError, SlideReadError
from sish.slides.formats.levels import ArrayLevels
from sish.slides.resample import BLOCK_PX
from sish.slides.scale import Scale
from sish.slides.slide import Slide, open_slide, slide_from_array

WIDTH, HEIGHT = 1203, 901
MARK = 16
PITCH = 100


def marks() -> np.ndarray:
    """Centres (N, 2), x first, of the fiducial squares in level-0 pixels."""
    x, y = np.meshgrid(np.arange(60, WIDTH - 60, PITCH), np.arange(60, HEIGHT - 60, PITCH))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(float)


@pytest.fixture(scope="module")
def fiducial() -> np.ndarray:
    """A black slide with a white square of 16 px around each mark."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for x, y in marks().astype(int):
        pixels[y - MARK // 2 : y + MARK // 2, x - MARK // 2 : x + MARK // 2] = 255
    return pixels


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


FILES = {
    "openslide one level": lambda path, pixels: write_pyramid(path, pixels, (1,)),
    "openslide 1 2 4": lambda path, pixels: write_pyramid(path, pixels, (1, 2, 4)),
    "openslide 1 4 16": lambda path, pixels: write_pyramid(path, pixels, (1, 4, 16)),
    "openslide 1 2.3": lambda path, pixels: write_pyramid(path, pixels, (1, 2.3)),
    "openslide 1 3.7": lambda path, pixels: write_pyramid(path, pixels, (1, 3.7)),
    "strips": write_strips,
}


@pytest.fixture(scope="module", params=[*FILES, "png", "array"])
def fiducial_slide(request, fiducial, tmp_path_factory):
    if request.param == "array":
        yield slide_from_array(fiducial, 0.5, "array")
        return
    path = tmp_path_factory.mktemp("fiducial") / ("f.png" if request.param == "png" else "f.tif")
    if request.param == "png":
        Image.fromarray(fiducial).save(path)
    else:
        FILES[request.param](path, fiducial)
    with open_slide(path, mpp=0.5) as slide:
        yield slide


@pytest.mark.parametrize("mpp", [0.3, 0.45, 0.5, 0.6, 0.77, 1.0, 1.003, 1.15, 1.5, 1.85, 2.0, 2.6, 3.1, 4.0])
@pytest.mark.parametrize("l0_xy", [(0, 0), (-33, 17), (7.25, -3.5)])
def test_marks_land_where_they_should_at_every_scale(fiducial_slide, mpp, l0_xy):
    step = mpp / 0.5
    size = (int(WIDTH / step) + 20, int(HEIGHT / step) + 20)
    got = fiducial_slide.read(l0_xy, size, mpp)[..., 0].astype(float)
    # The window holds one mark and the black around it, not its neighbours.
    half = PITCH / 2 / step
    for x, y in (marks() - l0_xy) / step:
        left, top = max(0, round(x - half)), max(0, round(y - half))
        window = got[top : round(y + half), left : round(x + half)]
        rows, columns = np.mgrid[: window.shape[0], : window.shape[1]] + 0.5
        weight = window.sum()
        found = left + (columns * window).sum() / weight, top + (rows * window).sum() / weight
        assert np.hypot(found[0] - x, found[1] - y) < 0.1
        # What is bright is neither lost nor doubled, to the rounding of 8 bits.
        assert weight / 255 == pytest.approx((MARK / step) ** 2, rel=0.08)


@pytest.mark.parametrize("factors", [(1, 2, 4), (1, 4, 16), (1, 3)])
def test_every_level_is_copied_exactly(noisy, tmp_path, factors):
    levels = write_pyramid(tmp_path / "a.tif", noisy, factors)
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.level_downsamples == pytest.approx(factors)
        for factor, level in zip(factors, levels, strict=True):
            # Places where OpenSlide's own downsample, a mean of two ratios, falls on whole pixels.
            assert np.array_equal(slide.read((0, 0), (31, 40), 0.5 * factor), level[:40, :31])
        assert np.array_equal(slide.read((123, 45), 200, 0.5), noisy[45:245, 123:323])


@pytest.mark.parametrize("write", [write_strips, lambda path, pixels: Image.fromarray(pixels).save(path)])
def test_plain_images_are_copied_exactly(noisy, tmp_path, write):
    write(tmp_path / "a.tif", noisy)
    with open_slide(tmp_path / "a.tif", mpp=0.5) as slide:
        assert slide.dimensions == (WIDTH, HEIGHT)
        assert np.array_equal(slide.read((0, 0), (WIDTH, HEIGHT), 0.5), noisy)
        assert np.array_equal(slide.read((1000, 700), (150, 33), 0.5), noisy[700:733, 1000:1150])


@pytest.mark.parametrize("mpp", [0.3, 0.5, 0.9, 1.3, 2.0, 3.3])
@pytest.mark.parametrize("name", FILES)
def test_a_flat_colour_stays_what_it_is(tmp_path, name, mpp):
    colour = np.array([201, 93, 151], np.uint8)
    FILES[name](tmp_path / "a.tif", np.broadcast_to(colour, (600, 700, 3)).copy())
    with open_slide(tmp_path / "a.tif") as slide:
        got = slide.read((100, 100), 60, mpp).astype(int)
        # OpenSlide draws the seams of tiles at fractional places with an error of a grey value or two.
        assert np.abs(got - colour).max() <= (2 if "." in name else 0)


@settings(max_examples=150, deadline=None)
@given(
    x=st.integers(-70, 140),
    y=st.integers(-70, 140),
    width=st.integers(1, 50),
    height=st.integers(1, 50),
    factor=st.integers(1, 5),
)
def test_whole_factors_are_means_and_outside_is_white(x, y, width, height, factor):
    pixels = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    padded = np.full((700, 700, 3), 255, np.uint8)
    padded[100:190, 100:220] = pixels
    cut = padded[100 + y : 100 + y + height * factor, 100 + x : 100 + x + width * factor]
    means = cut.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    got = slide_from_array(pixels, 0.5, "a").read((x, y), (width, height), 0.5 * factor)
    assert got.shape == (height, width, 3) and got.dtype == np.uint8
    assert np.abs(got - means).max() <= 0.6


@settings(max_examples=60, deadline=None)
@given(x=st.floats(-80, 200), y=st.floats(-80, 200), step=st.floats(0.2, 9), size=st.integers(1, 64))
def test_a_slope_is_read_at_the_centres_of_the_pixels(x, y, step, size):
    ramp = np.arange(120) * 2.0
    pixels = np.broadcast_to(ramp[None, :, None], (90, 120, 3)).astype(np.uint8)
    got = slide_from_array(pixels, 0.5, "a").read((x, y), size, 0.5 * step)
    centres = x + (np.arange(size) + 0.5) * step
    tall = y + (np.arange(size) + 0.5) * step
    # Far enough from the edges that no white glass is mixed in; three roundings (means, then two passes).
    columns = (centres > 2.5 * step + 2) & (centres < 118 - 2.5 * step)
    rows = (tall > 2.5 * step + 2) & (tall < 88 - 2.5 * step)
    inner = got[np.ix_(rows, columns)][..., 0]
    assert np.abs(inner - 2 * (centres[columns] - 0.5)).max(initial=0) <= 1.6
    far_out = (centres < -2.5 * step) | (centres > 120 + 2.5 * step)
    assert (got[:, far_out] == 255).all()


def test_a_single_level_is_read_in_blocks_however_low_the_power():
    class Endless(ArrayLevels):
        largest = 0

        def read_level(self, level, xy, size):
            Endless.largest = max(Endless.largest, size[0] * size[1])
            return np.broadcast_to(np.uint8(7), (size[1], size[0], 3)), (float(xy[0]), float(xy[1]))

    levels = Endless(np.zeros((1, 1, 3), np.uint8))
    levels.sizes = ((20_000, 15_000),)
    slide = Slide(levels, Scale(0.25, "given"), "endless", None)
    assert (slide.overview(16.0)[:-1, :-1] == 7).all()
    assert Endless.largest <= BLOCK_PX**2


def test_bounds_are_honoured():
    levels = ArrayLevels(np.full((200, 300, 3), 9, np.uint8))
    names = ("x", "y", "width", "height")
    levels.properties = {
        f"openslide.bounds-{name}": str(value) for name, value in zip(names, (100, 50, 80, 60), strict=True)
    }
    slide = Slide(levels, Scale(1.0, "given"), "a", None)
    assert slide.bounds == (100, 50, 80, 60)
    got = slide.read((0, 0), (300, 200), 1.0)
    assert (got[50:110, 100:180] == 9).all()
    got[50:110, 100:180] = 255
    assert (got == 255).all()
    assert slide.overview(2.0).shape == (30, 40, 3) and (slide.overview(2.0) == 9).all()


def test_transparent_pixels_are_white(tmp_path):
    pixels = np.zeros((40, 50, 4), np.uint8)
    pixels[:, 25:] = (10, 20, 30, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    got = open_slide(tmp_path / "a.png", mpp=1.0).read((0, 0), (50, 40), 1.0)
    assert (got[:, :25] == 255).all() and (got[:, 25:] == (10, 20, 30)).all()


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_other_colour_modes_are_read(tmp_path, mode):
    picture = Image.new("RGB", (60, 50), (255, 255, 255)).convert(mode)
    picture.save(tmp_path / "a.tif")
    assert (open_slide(tmp_path / "a.tif", mpp=1.0).read((0, 0), (60, 50), 1.0) == 255).all()


def test_overview_covers_the_slide(noisy):
    slide = slide_from_array(noisy, 0.5, "a")
    assert slide.overview(0.5).shape == noisy.shape
    assert slide.overview(5.0).shape == (91, 121, 3)


@pytest.mark.parametrize(("size", "mpp"), [(0, 1.0), ((5, -1), 1.0), (5, 0.0), (5, float("nan")), (5, -2.0)])
def test_impossible_reads_are_refused(size, mpp):
    with pytest.raises(ParameterError):
        slide_from_array(np.zeros((9, 9, 3), np.uint8), 0.5, "a").read((0, 0), size, mpp)


@pytest.mark.parametrize(
    "pixels", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)]
)
def test_arrays_that_are_no_pictures_are_refused(pixels):
    with pytest.raises(ParameterError):
        slide_from_array(pixels, 0.5, "a")


@pytest.fixture(params=["pyramid", "strips", "png"])
def any_slide(request, noisy, tmp_path):
    path = tmp_path / ("a.png" if request.param == "png" else "a.tif")
    if request.param == "pyramid":
        write_pyramid(path, noisy)
    elif request.param == "strips":
        write_strips(path, noisy)
    else:
        Image.fromarray(noisy).save(path)
    with open_slide(path, override_mpp=0.25) as slide:
        yield slide


def places(count: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(3)
    return [(int(x), int(y)) for x, y in rng.integers(-50, 1000, (count, 2))]


def test_threads_share_one_slide(any_slide):
    alone = [any_slide.read(place, 90, 0.61) for place in places(60)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda place: any_slide.read(place, 90, 0.61), places(60)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def read_elsewhere(slide: Slide, place: tuple[int, int]) -> tuple[np.ndarray, float, str, int]:
    return slide.read(place, 64, 0.9), slide.mpp, slide.mpp_source, os.getpid()


@pytest.mark.parametrize("start", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_slide_may_be_sent_to_another_process(any_slide, start):
    here = [any_slide.read(place, 64, 0.9) for place in places(4)]
    with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as pool:
        there = list(pool.map(read_elsewhere, [any_slide] * 4, places(4)))
    for mine, (theirs, mpp, source, pid) in zip(here, there, strict=True):
        assert np.array_equal(mine, theirs)
        assert (mpp, source) == (0.25, "override") and pid != os.getpid()


_inherited: list[Slide] = []


def read_inherited(place: tuple[int, int]) -> np.ndarray:
    return _inherited[0].read(place, 64, 0.9)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_children_do_not_share_their_parents_file(any_slide):
    _inherited[:] = [any_slide]
    here = [any_slide.read(place, 64, 0.9) for place in places(40)]
    with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
        there = list(pool.map(read_inherited, places(40)))
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))


def test_arrays_pickle_too(noisy):
    slide = pickle.loads(pickle.dumps(slide_from_array(noisy, 0.5, "a")))
    assert np.array_equal(slide.read((3, 4), 50, 0.5), noisy[4:54, 3:53])
    assert slide.name == "a" and slide.path is None


def test_a_closed_slide_says_so(any_slide):
    any_slide.close()
    with pytest.raises(SlideReadError, match="closed"):
        any_slide.read((0, 0), 10, 0.25)


CLOSE_WHILE_READING = """
import sys, threading
from sish.errors import SlideReadError
from sish.slides.slide import open_slide

def read(slide, begun):
    try:
        while True:
            begun.set()
            assert slide.read((0, 0), 600, 0.5).shape == (600, 600, 3)
    except SlideReadError:
        ended.append(slide)

ended = []
for _ in range(40):
    slide, begun = open_slide(sys.argv[1]), threading.Event()
    threads = [threading.Thread(target=read, args=(slide, begun)) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    slide.close()
    for thread in threads:
        thread.join()
print(len(ended))
"""


@pytest.mark.parametrize("write", [write_pyramid, write_strips])
def test_a_slide_may_be_closed_while_others_read(noisy, tmp_path, write):
    write(tmp_path / "a.tif", noisy)
    # In a process of its own: OpenSlide aborts it where a handle is closed under a reader.
    run = subprocess.run(
        [sys.executable, "-c", CLOSE_WHILE_READING, str(tmp_path / "a.tif")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert (run.returncode, run.stdout.strip()) == (0, "80"), run.stderr


def test_a_broken_tile_fails_alone_and_names_its_place(noisy, tmp_path):
    path = tmp_path / "a.tif"
    write_pyramid(path, noisy)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    with open_slide(path) as slide:
        for _ in range(2):
            with pytest.raises(SlideReadError, match=r"a\.tif: cannot read 50 x 50 px .* at 5, 6") as caught:
                slide.read((5, 6), 50, 0.5)
            assert "\n" not in str(caught.value)
            assert np.array_equal(slide.read((300, 300), 50, 0.5), noisy[300:350, 300:350])


def displacement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By how many pixels (y, x) the content of b lies further than that of a (Lucas and Kanade's step)."""
    a, b = (ndimage.gaussian_filter(picture, 2)[8:-8, 8:-8] for picture in (a, b))
    slopes = np.stack([slope.ravel() for slope in np.gradient(a)], axis=1)
    return -np.linalg.lstsq(slopes, (b - a).ravel(), rcond=None)[0]


def test_real_slides_are_read(data_dir):
    slide = open_slide(data_dir / "slides" / "cmu-1-small-region.svs")
    assert (slide.dimensions, slide.mpp, slide.mpp_source) == ((2220, 2967), 0.499, "vendor")
    assert slide.name == "cmu-1-small-region" and slide.properties["openslide.vendor"] == "aperio"
    whole = slide.read((0, 0), slide.dimensions, slide.mpp)
    assert np.array_equal(slide.read((700, 900), 300, 0.499), whole[900:1200, 700:1000])
    tcga = open_slide(data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs", mpp=0.5)
    # Its second level is half as fine; both must show the same tissue at the same place. OpenSlide calls its
    # downsample 2.0005, which here, far from the corner, would be 0.5 px off.
    fine = tcga.read((4000, 2400), 256, 0.5).astype(float)
    coarse = tcga.read((4000, 2400), 128, 1.0).astype(float)
    means = fine.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(displacement(means.mean(axis=2), coarse.mean(axis=2))).max() < 0.15
