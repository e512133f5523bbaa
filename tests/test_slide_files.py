"""Which files are slides, what their scale is, and how the others are refused."""

import errno
import os
import pickle

import numpy as np
import openslide
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyramids import write_pyramid, write_strips

from sish.errors import MissingMppError, ParameterError, SishError, SlideOpenError, SlideReadError
from sish.slides.files import find_slides
from sish.slides.formats.pyramid import level_downsample
from sish.slides.scale import find_scale
from sish.slides.slide import open_slide

PIXELS = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
DPI_96 = {"tiff.XResolution": "96", "tiff.YResolution": "96", "tiff.ResolutionUnit": "inch"}
HALF = {"tiff.XResolution": "20000", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "centimeter"}
VENDOR = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}
POWER = {"openslide.objective-power": "40"}


@pytest.mark.parametrize(
    ("properties", "given_mpp", "mpp", "source"),
    [
        (VENDOR | HALF | POWER, 0.7, 0.25, "vendor"),
        (DPI_96, 0.7, 0.7, "given"),
        (VENDOR | HALF | POWER, None, 0.25, "vendor"),
        (VENDOR | {"openslide.vendor": "generic-tiff"}, None, 0.25, "tiff-resolution"),
        (HALF | POWER, None, 0.5, "tiff-resolution"),
        (DPI_96 | POWER, None, 0.25, "objective-power"),
        ({"openslide.mpp-x": "0", "openslide.mpp-y": "0"} | HALF, None, 0.5, "tiff-resolution"),
        ({"openslide.mpp-x": "264.6", "openslide.mpp-y": "264.6"} | POWER, None, 0.25, "objective-power"),
        ({"openslide.mpp-x": "0.24", "openslide.mpp-y": "0.26"}, None, 0.25, "vendor"),
        ({"openslide.mpp-x": "junk", "openslide.mpp-y": "nan"} | POWER, None, 0.25, "objective-power"),
    ],
)
def test_the_most_trusted_sane_scale_wins(properties, given_mpp, mpp, source):
    scale = find_scale(properties, "a.svs", mpp=given_mpp)
    assert scale.mpp == pytest.approx(mpp) and scale.source == source


@pytest.mark.parametrize("properties", [{}, DPI_96, {**HALF, "tiff.ResolutionUnit": "none"}])
def test_no_scale_is_an_error_that_names_the_option(properties):
    with pytest.raises(MissingMppError, match=r"^a\.svs: .*mpp=\.\.\. or --mpp$"):
        find_scale(properties, "a.svs")


def test_pixels_far_from_square_are_refused():
    with pytest.raises(MissingMppError, match=r"0\.2 x 0\.3 um, not square"):
        find_scale({"openslide.mpp-x": "0.2", "openslide.mpp-y": "0.3"} | POWER, "a.svs")


@pytest.mark.parametrize("mpp", [0.0, -1.0, 0.01, 4.1, 96.0, float("nan")])
def test_a_given_scale_must_be_sane(mpp):
    with pytest.raises(ParameterError, match="out of range"):
        find_scale(VENDOR, "a.svs", mpp=mpp)


@pytest.mark.parametrize("write", [write_pyramid, write_strips])
def test_scale_in_tiff_resolution_tags(tmp_path, write):
    write(tmp_path / "a.tif", PIXELS, mpp=0.25)
    slide = open_slide(tmp_path / "a.tif")
    assert slide.mpp == pytest.approx(0.25) and slide.mpp_source == "tiff-resolution"
    write(tmp_path / "b.tif", PIXELS, mpp=None)
    with pytest.raises(MissingMppError):
        open_slide(tmp_path / "b.tif")
    assert open_slide(tmp_path / "b.tif", mpp=0.3).mpp_source == "given"


def test_dots_per_inch_are_no_scale(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(PIXELS).save(tmp_path / name, dpi=(96, 96))
        with pytest.raises(MissingMppError):
            open_slide(tmp_path / name)


@given(
    width=st.integers(1000, 200_000),
    height=st.integers(1000, 200_000),
    factor=st.sampled_from([2, 4, 8, 16, 32, 64]),
    rounding=st.sampled_from([np.floor, np.ceil]),
)
def test_whole_factors_are_recognised(width, height, factor, rounding):
    level = (int(rounding(width / factor)), int(rounding(height / factor)))
    stated = (width / level[0] + height / level[1]) / 2
    assert level_downsample((width, height), level, stated) == (factor, factor)


def bad_files(folder, good: bytes):
    """Files that are no slides, by name."""
    (folder / "folder.svs").mkdir()
    (folder / "empty.svs").touch()
    (folder / "text.svs").write_text("this is not a slide\n" * 50)
    (folder / "text.tif").write_bytes(b"II*\0" + b"nonsense" * 50)
    (folder / "text.jpg").write_bytes(b"\xff\xd8\xff\xe0nonsense")
    for percent in (1, 30, 60, 90, 99):
        (folder / f"cut{percent}.svs").write_bytes(good[: len(good) * percent // 100])
    return [*sorted(folder.iterdir()), folder / "missing.svs"]


@pytest.mark.parametrize("write", [write_pyramid, write_strips])
def test_what_is_no_slide_is_refused_on_one_line(tmp_path, write):
    write(tmp_path / "good.tif", PIXELS)
    good = (tmp_path / "good.tif").read_bytes()
    (tmp_path / "bad").mkdir()
    for path in bad_files(tmp_path / "bad", good):
        with pytest.raises(SlideOpenError) as caught:
            open_slide(path, mpp=0.5)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("percent", [10, 50, 95])
def test_truncated_images_fail_when_opened(tmp_path, name, percent):
    Image.fromarray(PIXELS).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * percent // 100])
    with pytest.raises(SlideOpenError):
        open_slide(tmp_path / name, mpp=0.5)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    write_strips(tmp_path / "a.tif", PIXELS, rows=300)
    # Below the limit, from one to two times the limit (where Pillow only warns), and above.
    for limit, is_refused in ((120_000, False), (80_000, True), (50_000, True)):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for name in ("a.png", "a.tif"):
            if is_refused:
                with pytest.raises(SlideOpenError, match="pyramid"):
                    open_slide(tmp_path / name, mpp=0.5)
            else:
                open_slide(tmp_path / name, mpp=0.5).close()


def test_16_bit_images_are_refused(tmp_path):
    Image.fromarray(PIXELS[..., 0].astype(np.uint16)).save(tmp_path / "a.tif")
    with pytest.raises(SlideOpenError, match="8 bits"):
        open_slide(tmp_path / "a.tif", mpp=0.5)


def test_real_bad_files(data_dir):
    for name in ("bad/broken.svs", "bad/unopenable.tiff", "small_dicom.dcm", "bad"):
        with pytest.raises(SlideOpenError) as caught:
            open_slide(data_dir / "slides" / name, mpp=0.5)
        assert "\n" not in str(caught.value)
    unreadable = open_slide(data_dir / "slides" / "bad" / "unreadable.svs")
    for _ in range(2):
        with pytest.raises(SlideReadError, match=r"unreadable\.svs: cannot read .* at 0, 0"):
            unreadable.overview(0.499)


@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs", "kidney-48-5.tif"])
@pytest.mark.parametrize("percent", [2, 50, 75, 99.9])
def test_truncated_real_slides_are_refused(data_dir, tmp_path, name, percent):
    good = (data_dir / "slides" / name).read_bytes()
    (tmp_path / name).write_bytes(good[: int(len(good) * percent / 100)])
    with pytest.raises(SlideOpenError):
        open_slide(tmp_path / name, mpp=0.5)


def test_a_slide_without_scale_needs_one_given(data_dir):
    path = data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    with pytest.raises(MissingMppError, match="--mpp"):
        open_slide(path)
    slide = open_slide(path, mpp=0.5)
    assert slide.mpp_source == "given" and slide.level_downsamples == (1.0, 2.0)


def test_find_slides(tmp_path):
    names = ["b.svs", "A.TIF", "sub/c.png", "sub/deep/d.jpeg", "m.mrxs", "m/Data0001.dat", "m/Slidedat.ini"]
    for name in [*names, "labels.csv", ".hidden.svs", "._b.svs", ".cache/e.svs", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.svs").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_slides(tmp_path)]
    assert found == ["A.TIF", "b.svs", "m.mrxs", "sub/c.png", "sub/deep/d.jpeg"]
    assert find_slides(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    with pytest.raises(SlideOpenError, match="No such file"):
        find_slides(tmp_path / "nowhere")


def refuse_folder(monkeypatch, name: str) -> None:
    """Make folders of this name unreadable, also to a superuser."""
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(path) == name:  # noqa: PTH119  what os.walk passes is a string
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def test_a_folder_that_cannot_be_read_is_never_passed_over_in_silence(tmp_path, monkeypatch):
    for name in ["a.svs", "closed/b.svs", "open/c.svs", ".closed/d.svs"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "nowhere.svs").symlink_to(tmp_path / "gone.svs")
    refuse_folder(monkeypatch, "closed")
    with pytest.raises(SlideOpenError, match=f"{tmp_path / 'closed'}: cannot be read: Permission denied"):
        find_slides(tmp_path)
    told: list[SlideOpenError] = []
    assert find_slides(tmp_path, told.append) == [tmp_path / "a.svs", tmp_path / "open" / "c.svs"]
    assert sorted(str(error).partition(":")[0] for error in told) == [
        str(tmp_path / "closed"),
        str(tmp_path / "nowhere.svs"),
    ]
    refuse_folder(monkeypatch, ".closed")  # hidden: nothing is wanted of it
    assert len(find_slides(tmp_path / "open")) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="a superuser may read everything")
def test_files_without_permission_are_refused(tmp_path):
    path = tmp_path / "closed" / "a.svs"
    path.parent.mkdir()
    path.write_bytes(b"x")
    path.chmod(0o000)
    with pytest.raises(SlideOpenError, match="Permission denied"):
        open_slide(path)
    path.parent.chmod(0o000)
    try:
        for use in (open_slide, find_slides):
            with pytest.raises(SlideOpenError, match="Permission denied"):
                use(path)
    finally:
        path.parent.chmod(0o700)


@pytest.mark.parametrize("use", [open_slide, find_slides])
def test_what_is_no_regular_file_is_refused(tmp_path, use):
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(SlideOpenError, match="not a regular file"):
        use(tmp_path / "pipe.svs")
    with pytest.raises(SlideOpenError, match="cannot be read"):
        use(tmp_path / ("x" * 300))
    assert find_slides(tmp_path) == []


def dicom(series: str) -> bytes:
    """The head of a DICOM file, as far as its series number."""
    value = series.encode() + b"\0" * (len(series) % 2)
    return b"\0" * 128 + b"DICM" + b"\x20\x00\x0e\x00UI" + len(value).to_bytes(2, "little") + value


def test_a_dicom_series_is_listed_once_a_folder(tmp_path):
    for name, series in {"a/1": "1.2.3", "a/2": "1.2.3", "a/3": "1.2.4", "b/1": "1.2.3"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.dcm").write_bytes(dicom(series))
    (tmp_path / "b" / "x.dcm").write_bytes(b"no series")
    (tmp_path / "b" / "y.dcm").write_bytes(b"no series")
    found = [path.relative_to(tmp_path).as_posix() for path in find_slides(tmp_path)]
    assert found == ["a/1.dcm", "a/3.dcm", "b/1.dcm", "b/x.dcm", "b/y.dcm"]


def test_a_relative_path_survives_a_change_of_folder(tmp_path, monkeypatch):
    write_pyramid(tmp_path / "a.tif", PIXELS)
    monkeypatch.chdir(tmp_path)
    slide = open_slide("a.tif")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    reopened = pickle.loads(pickle.dumps(slide))
    assert np.array_equal(reopened.read((1, 2), 5, 0.5), PIXELS[2:7, 1:6])


def test_every_error_is_one_of_ours(tmp_path):
    rng = np.random.default_rng(5)
    write_pyramid(tmp_path / "good.tif", PIXELS)
    good = bytearray((tmp_path / "good.tif").read_bytes())
    outcomes = set()
    for number in range(40):
        broken = bytearray(good)
        places = rng.integers(0, len(good) if number % 2 else 600, 12)
        for place in places:
            broken[place] = int(rng.integers(256))
        path = tmp_path / f"{number}.tif"
        path.write_bytes(broken)
        try:
            with open_slide(path, mpp=0.5) as slide:
                slide.read((0, 0), 200, 1.0)
            outcomes.add("read")
        except SishError as error:
            assert "\n" not in str(error)
            outcomes.add(type(error).__name__)
    assert {"SlideReadError", "SlideOpenError"} <= outcomes


def test_open_slides_share_one_cache_of_decoded_tiles(tmp_path, monkeypatch):
    """Each handle would keep 32 MB of its own, and a viewer holds many."""
    caches = []
    monkeypatch.setattr(openslide.OpenSlide, "set_cache", lambda _slide, cache: caches.append(cache))
    for name in ("a.tif", "b.tif"):
        write_pyramid(tmp_path / name, np.full((300, 300, 3), 120, np.uint8))
        open_slide(tmp_path / name)
    assert len(caches) == 2 and caches[0] is caches[1]
