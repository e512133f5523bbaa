"""Generated slides: the same bytes for a seed, readable by OpenSlide, six tissues that differ."""

import csv

import numpy as np
import openslide
import pytest
from PIL import Image

from sish.demo.painting import TISSUES, Look, paint
from sish.demo.synthetic import plan, write_slides
from sish.errors import OutputError, ParameterError
from sish.slides.files import find_slides
from sish.slides.slide import open_slide
from sish.slides.tissue import find_tissue

AVERAGE = Look(hematoxylin=1.0, eosin=1.0, tint=(0.0, 0.0, 0.0), scale=1.0, density=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven small slides: each tissue once, the first twice."""
    folder = tmp_path_factory.mktemp("synthetic")
    assert write_slides(folder, 7, seed=3, side_um=420) == folder / "labels.csv"
    return folder


def test_labels_name_every_slide(folder):
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "patient", "site"]
    assert sorted(row["path"] for row in rows) == sorted(path.name for path in find_slides(folder))
    assert {row["label"] for row in rows} == set(TISSUES) and all(row["site"] for row in rows)
    assert len({row["patient"] for row in rows}) == 7


def test_openslide_reads_them_with_levels_and_scale(folder):
    for path in find_slides(folder):
        assert openslide.OpenSlide.detect_format(path) == "generic-tiff"
        slide = open_slide(path)
        assert (slide.mpp, slide.mpp_source) == (pytest.approx(0.5), "tiff-resolution")
        assert slide.level_downsamples == (1.0, 2.0, 4.0)
        fine, coarse = slide.read((100, 100), 100, 0.5), slide.read((100, 100), 25, 2.0)
        means = fine.reshape(25, 4, 25, 4, 3).mean(axis=(1, 3))
        assert np.abs(means - coarse).mean() < 6


def test_tissue_stands_on_white_glass(folder):
    for path in find_slides(folder):
        slide = open_slide(path)
        tissue = find_tissue(slide)
        assert 0.25 < tissue.mask.mean() < 0.85
        glass = slide.overview(tissue.mpp)[~tissue.mask]
        assert np.median(glass) > 240


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    write_slides(tmp_path / "again", 7, seed=3, side_um=420)
    for path in sorted(folder.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    write_slides(tmp_path / "other", 1, seed=4, side_um=420)
    name = "glandular-01.tif"
    assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()


def test_patients_have_one_tissue_and_some_have_two_slides():
    plans = [plan(number, 0, 1000) for number in range(36)]
    slides_of: dict[str, list] = {}
    for each in plans:
        slides_of.setdefault(each.patient, []).append(each)
    assert sorted({len(slides) for slides in slides_of.values()}) == [1, 2]
    for slides in slides_of.values():
        assert len({each.label for each in slides}) == 1 and len({each.look for each in slides}) == 1
    assert len({each.seed for each in plans}) == 36 and {each.pieces for each in plans} == {1, 2}
    # Leaving a patient out never leaves a tissue without slides.
    assert all(len({each.patient for each in plans if each.label == label}) >= 5 for label in TISSUES)


def texture(pixels: np.ndarray) -> np.ndarray:
    """A few plain numbers of a picture: mean colour and contrast at three sizes."""
    numbers = list(pixels.mean(axis=(0, 1)))
    for size in (1, 4, 16):
        height, width = (side // size for side in pixels.shape[:2])
        whole = pixels[: height * size, : width * size]
        small = whole.reshape(height, size, width, size, 3).mean(axis=(1, 3))
        numbers += [small[..., 0].std(), small[..., 1].std()]
    return np.array(numbers)


def test_tissues_differ_more_than_slides_of_a_tissue():
    middle = np.s_[250:550, 250:550]
    features = np.array([
        [texture(paint(tissue, (400, 400), AVERAGE, seed)[middle]) for seed in range(3)] for tissue in TISSUES
    ])  # fmt: skip
    scaled = features / features.std(axis=(0, 1))
    centres = scaled.mean(axis=1)
    distance = np.linalg.norm(scaled[:, :, None] - centres[None, None], axis=-1)
    assert (distance.argmin(axis=-1) == np.arange(len(TISSUES))[:, None]).mean() > 0.9


@pytest.mark.parametrize("tissue", TISSUES)
def test_stain_strength_shows(tissue):
    strong = Look(hematoxylin=1.3, eosin=1.3, tint=(0.0, 0.0, 0.0), scale=1.0, density=1.0)
    pale, dark = (paint(tissue, (300, 350), look, 1) for look in (AVERAGE, strong))
    assert pale.shape == (600, 700, 3) and dark.mean() < pale.mean() - 1


def test_pillow_decodes_every_level_to_the_pixels_that_openslide_reads(folder):
    for path in find_slides(folder)[:2]:
        with Image.open(path) as picture, openslide.OpenSlide(path) as slide:
            assert picture.n_frames == slide.level_count
            for level, size in enumerate(slide.level_dimensions):
                picture.seek(level)
                want = np.asarray(slide.read_region((0, 0), level, size).convert("RGB"))
                np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), want)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match=r"^cannot write slides to .*; give another folder$"):
        write_slides(tmp_path / "file" / "slides", 1, side_um=420)


@pytest.mark.parametrize("options", [{"n_slides": 0}, {"side_um": 10}])
def test_impossible_numbers_are_refused(tmp_path, options):
    with pytest.raises(ParameterError):
        write_slides(tmp_path, **options)


def test_labels_of_other_slides_are_not_replaced(tmp_path):
    write_slides(tmp_path, n_slides=2, side_um=256)
    write_slides(tmp_path, n_slides=1, side_um=256)  # again is allowed
    for text in ("path,label\na.svs,lung\n", "path,label,patient,site\na.svs,lung,,\n", ""):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(ParameterError, match="somebody else"):
            write_slides(tmp_path, n_slides=1, side_um=256)
        assert (tmp_path / "labels.csv").read_text() == text
