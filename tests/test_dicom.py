"""DICOM series: one slide with one name, and the other formats of real files beside them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import sish
from sish.errors import SlideOpenError
from sish.labels import read_labels
from sish.slides.files import find_slides, slide_id_of
from sish.slides.formats.dicom import dicom_slide_id, holds_ycbcr
from sish.slides.formats.jpeg import read_jpeg_header
from sish.slides.slide import open_slide
from sish.systems.items import read_items

CMU = "cmu-1-small-region.svs"


def element(tag: bytes, value: str) -> bytes:
    data = value.encode() + b" " * (len(value) % 2)
    return tag + len(data).to_bytes(2, "little") + data


def dicom(series: str, container: str = "") -> bytes:
    """The head of a DICOM file, as far as its series and container."""
    head = b"\0" * 128 + b"DICM" + element(b"\x20\x00\x0e\x00UI", series)
    return head + (element(b"\x40\x00\x12\x05LO", container) if container else b"")


def write_heads(folder: Path, heads: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, head in heads.items():
        (folder / f"{name}.dcm").write_bytes(head)


def test_each_file_of_a_series_has_the_id_of_its_slide(tmp_path):
    write_heads(tmp_path / "TCGA-1", {"l0": dicom("1.2"), "l1": dicom("1.2")})
    write_heads(
        tmp_path / "two", {"a0": dicom("1.3"), "a1": dicom("1.3"), "b0": dicom("1.4"), "b1": dicom("1.4")}
    )
    write_heads(tmp_path / "glass", {"x": dicom("1.5", "S21-77 A1 "), "y": dicom("1.5", "S21-77 A1")})
    write_heads(tmp_path / "single", {"p": dicom("1.6"), "q": dicom("1.7"), "z": b"no series"})
    ids = {path.relative_to(tmp_path).as_posix(): slide_id_of(path) for path in tmp_path.rglob("*.dcm")}
    assert ids == {
        "TCGA-1/l0.dcm": "TCGA-1", "TCGA-1/l1.dcm": "TCGA-1",
        "two/a0.dcm": "1.3", "two/a1.dcm": "1.3", "two/b0.dcm": "1.4", "two/b1.dcm": "1.4",
        "glass/x.dcm": "S21-77 A1", "glass/y.dcm": "S21-77 A1",
        "single/p.dcm": "p", "single/q.dcm": "q", "single/z.dcm": "z",
    }  # fmt: skip
    assert dicom_slide_id(tmp_path / "none.dcm") is None and dicom_slide_id(tmp_path / "a.svs") is None
    assert slide_id_of(tmp_path / "none.dcm") == "none"
    assert find_slides(tmp_path / "TCGA-1" / "l1.dcm") == [tmp_path / "TCGA-1" / "l0.dcm"]


@pytest.mark.parametrize(
    "named", ["dicom/l1.dcm", "dicom", "l0.dcm", "{folder}/dicom/l0.dcm", "{folder}/dicom"]
)
def test_a_labels_file_names_a_series_by_any_file_or_its_folder(tmp_path, named):
    write_heads(tmp_path / "dicom", {"l0": dicom("1.2"), "l1": dicom("1.2"), "l2": dicom("1.2")})
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\n{named.format(folder=tmp_path)},lung\n")
    labels = read_labels(table)
    for name in ("l0", "l1", "l2"):
        path = tmp_path / "dicom" / f"{name}.dcm"
        assert labels.find(path, slide_id_of(path)).label == "lung"
    assert labels.unmatched([(tmp_path / "dicom" / "l0.dcm", "dicom")]) == []


@pytest.fixture
def series(data_dir, tmp_path) -> Path:
    """The ten small levels of a real series (2 um/px), in a folder of their own."""
    large = shutil.ignore_patterns("level-0-*", "level-1-*")
    source = data_dir / "slides" / "formats" / "dicom_cmu1_fixed"
    return Path(shutil.copytree(source, tmp_path / "case 7", ignore=large))


@pytest.mark.slow
def test_a_series_is_one_slide_however_it_is_added(series, tmp_path):
    files = sorted(series.iterdir())
    for number, given in enumerate(([series], [files[3]], files)):
        index = sish.Index.create(tmp_path / f"{number}.sish")
        report = index.add(given, show_progress=False)
        assert report.added == ["case 7"] and not report.failed
        again = index.add([files[5]], show_progress=False)
        assert again.already == ["case 7"] and not again.failed and len(index.slides) == 1
        assert index.search(files[7], k=1).query.slide_id == "case 7"
    assert [item.item_id for item in read_items(files)] == ["case 7"]
    with open_slide(files[2]) as slide:
        assert slide.name == "case 7"


def test_a_series_that_was_indexed_by_a_file_name_keeps_it(series, tmp_path):
    files = sorted(series.iterdir())
    old = files[0].stem
    (tmp_path / "old.csv").write_text(f"path,slide_id\n{files[0]},{old}\n")
    index = sish.Index.create(tmp_path / "old.sish")
    assert index.add([series], labels=tmp_path / "old.csv", show_progress=False).added == [old]
    for given in (series, files[4]):
        report = index.add([given], show_progress=False)
        assert report.already == [old] and not report.added and not report.failed
    for query in (files[0], files[6]):
        assert index.search(query, k=1).query.slide_id == old


def test_colours_of_dicom_are_right_whatever_its_tag_says(data_dir):
    slides = data_dir / "slides"
    with open_slide(slides / CMU) as slide:
        truth = slide.read((0, 0), slide.dimensions, slide.mpp).astype(int)
    for name in ("dicom_cmu1_fixed", "dicom_cmu1"):
        path = slides / "formats" / name / "level-0-frames-0-30.dcm"
        assert holds_ycbcr(path, {"dicom.PhotometricInterpretation": "RGB"})
        with open_slide(path) as slide:
            got = slide.read((0, 0), slide.dimensions, slide.mpp).astype(int)
            assert np.abs(got - truth).mean() < 4
            assert (slide.read((-50, 0), 40, slide.mpp) == 255).all()


def test_a_series_that_contradicts_itself_is_refused(series):
    with pytest.raises(SlideOpenError, match="0028,0004"):
        for path in series.iterdir():
            data = path.read_bytes()
            # The same frames, called RGB by an Adobe marker in place of JFIF's.
            path.write_bytes(
                data.replace(
                    b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0", b"\xff\xee\0\x10Adobe\0\x64\0\0\0\0\0\0\0"
                )
            )
        open_slide(next(series.iterdir()))


@pytest.mark.parametrize("name", ["OS-1-detail", "OS-2-ndpi", "OS-2-vsi"])
def test_ome_tiff_with_jpeg_tiles_is_read_in_its_colours(data_dir, name):
    with open_slide(data_dir / "slides" / "formats" / f"{name}.ome.tif", mpp=0.5) as slide:
        pixels = slide.overview(8.0).astype(int)
    # Stained tissue on pale glass: blue is nowhere the weakest channel on average, green never the strongest.
    red, green, blue = pixels.reshape(-1, 3).mean(0)
    assert blue > 170 and green < blue and red > 120


@pytest.mark.parametrize(
    ("name", "reason"),
    [("small_vectra.qptiff", "3 pictures of 1920 x 1440 px"), ("smalltif.tif", "more than 8 bits")],
)
def test_fluorescence_and_16_bits_are_refused_with_the_reason(data_dir, name, reason):
    with pytest.raises(SlideOpenError, match=reason):
        open_slide(data_dir / "slides" / "formats" / name, mpp=0.5)


def test_frames_tell_their_colours(data_dir):
    data = (data_dir / "slides" / "formats" / "dicom_cmu1" / "level-11-frames-0-1.dcm").read_bytes()
    assert read_jpeg_header(data[data.find(b"\xff\xd8\xff") :]).colours == "YCbCr"
