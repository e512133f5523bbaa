"""The examples of docs/how-to/spatialdata.md as they stand there, on slides that wsidata wrote."""

import re

import pytest

pytest.importorskip("anndata", reason="needs the extra spatial (make test-spatial)")
spatialdata = pytest.importorskip("spatialdata", reason="needs the extra spatial (make test-spatial)")
pytest.importorskip("wsidata", reason="LazySlide's library is not installed (make test-spatial)")

from pages import Page  # noqa: E402
from spatial_files import write_slide  # noqa: E402

PAGE = Page("docs/how-to/spatialdata.md")


def test_the_examples(tmp_path, monkeypatch):
    for folder, name in (("slides", "a-1"), ("slides", "b-1"), ("slides", "a-2"), ("new", "case")):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_slide(tmp_path / folder, name, kind=int(name.startswith("b")))
    monkeypatch.chdir(tmp_path)
    names = PAGE.run()
    table = spatialdata.read_zarr("new/case.zarr").tables["sish_tiles"]
    assert len(table) == 64 and set(table.obs["matched_label"].dropna()) <= {"a", "b"}
    assert {row.slide_id for row in names["other"].slides} == {"a-1", "b-1"}
    assert names["other"].slides[0].label == "a" and names["other"].patches("a-1").patch_l0_px == 128
    told = re.search(r"^\| `obs` \|(.*)$", PAGE.text, re.MULTILINE)[1]
    wanted = set(re.findall(r"`(\w+)`", told)) - {"row"}
    assert wanted == set(table.obs.columns)
    assert "row" in names["answer"].to_anndata().obs
