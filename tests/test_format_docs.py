"""The page on the files of an index: its code reads an index without sish, and it names all that is there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import sish

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "format.md").read_text(encoding="utf-8")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index that keeps vectors, with a slide that was removed."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    own, more = (np.repeat(names, 7) for names in (["a", "b", "c"], ["d", "e"]))
    index = sish.Index.from_vectors("archive.sish", rng.normal(size=(21, 64)), own, rerank="int8")
    index.add_vectors(rng.normal(size=(14, 64)), more, show_progress=False)
    index.remove(["b"])
    return index


def test_the_code_of_the_page_reads_an_index(index):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(compile(code, "docs/reference/format.md", "exec"), names)
    read = names["barcodes"]
    assert set(read) == {row.slide_id for row in index.slides} == {"a", "c", "d", "e"}
    for slide_id, barcodes in read.items():
        assert np.array_equal(barcodes, index.patches(slide_id).barcodes)


def test_the_page_names_all_files_and_fields(index):
    manifest = json.loads(Path("archive.sish/manifest.json").read_text())
    named = set(re.findall(r"`([\w.]+)`", PAGE))
    assert set(manifest) <= named and set(manifest["segments"][0]) <= named
    drawn = {
        re.sub(r"\.\d{8}", "", name) for name in re.findall(r"^ +([\w.]+)/?(?: |\n)", PAGE, re.MULTILINE)
    }
    for path in Path("archive.sish").rglob("*"):
        name = re.sub(r"\.\d{8}", "", path.name)
        assert name in drawn or re.fullmatch(r"\d{8}|c(\.0)+|zarr\.json", name), name
