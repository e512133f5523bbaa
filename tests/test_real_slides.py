"""Real slides and real fields through the whole pipeline, and everything in the folder of bad ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyramids import write_pyramid

import sish
from sish.cli import main

CMU = "cmu-1-small-region"
TCGA = "tcga-cr-7395-01a-01-ts1"


@pytest.fixture(scope="module")
def slides(data_dir) -> Path:
    return data_dir / "slides"


@pytest.fixture(scope="module")
def two_slides(slides, tmp_path_factory) -> sish.Index:
    """Both real slides, the second with the scale that its file does not tell."""
    index = sish.Index.create(tmp_path_factory.mktemp("real") / "archive.sish")
    index.add(slides / f"{CMU}.svs", show_progress=False)
    index.add(slides / f"{TCGA}.svs", mpp=0.5, show_progress=False)
    return index


def test_a_slide_without_mpp_is_refused(slides, tmp_path, capsys):
    words = ["index", "add", str(slides / f"{TCGA}.svs"), "--index", str(tmp_path / "a.sish"), "--quiet"]
    assert main(words) == 1
    refused = capsys.readouterr()
    assert "--mpp" in refused.err and "0 added, 1 failed" in refused.out


def test_each_real_slide_finds_itself_first(two_slides, slides):
    for name, mpp in ((CMU, None), (TCGA, 0.5)):
        first = two_slides.search(slides / f"{name}.svs", mpp=mpp)[0]
        assert first.slide_id == name
        assert first.score == pytest.approx(1.0)
    sources = {row.slide_id: row.mpp_source for row in two_slides.slides}
    assert sources == {CMU: "vendor", TCGA: "given"}


def test_a_region_of_a_real_slide_finds_its_slide(two_slides, slides):
    hit = two_slides.search(slides / f"{CMU}.svs", region=(600, 900, 1100, 1100), k=1)[0]
    assert hit.slide_id == CMU


def test_everything_bad_is_skipped_on_one_line_and_harms_nothing(two_slides, slides, capsys, tmp_path):
    before = two_slides.info()
    bad = slides / "bad"
    report = two_slides.add(
        [bad, slides / "small_dicom.dcm", slides / "kidney-48-5.tif"], show_progress=False
    )
    assert len(report.failed) == 5 and not report.added
    assert all("\n" not in skipped.reason for skipped in report.failed)
    assert two_slides.info() == before and sish.verify(two_slides.path) == []
    for path in sorted(bad.iterdir()):
        assert main(["search", str(path), "--index", str(two_slides.path), "--mpp", "0.5"]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and path.name in error
    cut = tmp_path / "cut.svs"
    whole = (slides / f"{CMU}.svs").read_bytes()
    for size in (0, 1000, len(whole) // 2, len(whole) - 1000):
        cut.write_bytes(whole[:size])
        assert main(["search", str(cut), "--index", str(two_slides.path)]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_a_slide_of_nearly_no_tissue_is_recorded(slides, tmp_path):
    index = sish.Index.create(tmp_path / "archive.sish")
    report = index.add(slides / "kidney-48-5.tif", mpp=0.5, show_progress=False)
    assert report.no_tissue == ["kidney-48-5"]
    assert index.slides[0].status == "no tissue"


def field_of_each_class(data_dir: Path) -> list[Path]:
    """The first field of each class."""
    rows = [line.split(",") for line in (data_dir / "bach" / "labels.csv").read_text().split()[1:]]
    first = {label: path for path, label in reversed(rows)}
    return [data_dir / "bach" / first[label] for label in sorted(first)]


def test_a_pyramidal_copy_of_a_field_is_found_as_the_field(data_dir, tmp_path):
    fields = field_of_each_class(data_dir)
    index = sish.Index.create(tmp_path / "archive.sish")
    index.add(fields, mpp=0.42, show_progress=False)
    for field in fields[:2]:
        pixels = np.asarray(Image.open(field).convert("RGB"))
        copy = tmp_path / f"{field.stem}-pyramid.tif"
        write_pyramid(copy, pixels, (1, 2, 4), 0.42)
        first = index.search(copy, k=1, ranking="similarity")[0]
        assert first.slide_id == field.stem
        assert first.score > 0.95


@pytest.mark.slow
def test_the_fields_are_told_apart_better_than_by_chance(data_dir, tmp_path, capsys):
    bach = data_dir / "bach"
    words = [
        "index",
        "add",
        str(bach / "fields"),
        "--labels",
        str(bach / "labels.csv"),
        "--mpp",
        "0.42",
        "--quiet",
    ]
    assert main([*words, "--index", str(tmp_path / "bach.sish")]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--index", str(tmp_path / "bach.sish"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["queries"] == 100
    assert found["ci"]["mmv5"][0] > 0.25, "chance over four classes"
