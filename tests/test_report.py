"""The page: self-contained, complete, and honest where a slide is gone."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sish
from sish.demo.synthetic import write_slides


def test_the_page_holds_the_query_every_hit_and_the_patch_pairs(built_index, tmp_path):
    index = sish.Index.open(built_index)
    results = index.search(index.slides[0].slide_id, k=3)
    page = sish.write_report(results, tmp_path / "out.html", index=index).read_text()
    for hit in results:
        assert hit.slide_id in page and hit.label in page and f"{hit.score:.3f}" in page
    n_pairs = sum(len(hit.patches) for hit in results)
    assert page.count("<img") == 1 + len(results) + 2 * n_pairs
    assert page.count("bits apart") == n_pairs
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)


def test_slides_that_are_gone_leave_a_grey_box(own_index, tmp_path):
    results = own_index.search(own_index.slides[0].slide_id, k=2)
    gone = tmp_path / "gone.sish"
    moved = replace(results, hits=tuple(replace(hit, path=str(gone)) for hit in results))
    page = sish.write_report(moved, tmp_path / "out.html", index=own_index).read_text()
    assert page.count("no picture") >= 2


def test_a_query_in_memory_and_names_that_look_like_html(own_index, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    table = tmp_path / "labels.csv"
    first = own_index.slides[0].slide_id
    table.write_text(f"slide_id,label\n{first},<script>alert(1)</script>\n")
    own_index.relabel(table)
    results = own_index.search(noise, mpp=1.0, k=8)
    page = sish.write_report(results, tmp_path / "out.html", index=own_index).read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "below the threshold" in page


def test_slides_are_closed_as_soon_as_too_many_are_open(built_index, tmp_path, monkeypatch):
    index = sish.Index.open(built_index)
    opened, most = [], []

    def opening(path, **scale):
        opened.append(sish.open_slide(path, **scale))
        most.append(sum(not is_closed(slide) for slide in opened))
        return opened[-1]

    monkeypatch.setattr("sish.report.open_slide", opening)
    monkeypatch.setattr("sish.report._OPEN_SLIDES", 3)
    results = index.search(index.slides[0].slide_id, k=8)
    page = sish.write_report(results, tmp_path / "out.html", index=index).read_text()
    assert "no picture" not in page
    assert len(opened) >= 8 and max(most) == 4  # the fourth closes another as it comes
    assert all(map(is_closed, opened))


def test_another_file_in_the_place_of_a_hit_is_not_shown(tmp_path):
    write_slides(tmp_path / "slides", n_slides=3, side_um=512)
    index = sish.Index.create(tmp_path / "a.sish")
    index.add(tmp_path / "slides", show_progress=False)
    _, hit, other = (Path(row.path) for row in index.slides)
    results = index.search(index.slides[0].slide_id, k=3)
    results = replace(results, hits=tuple(it for it in results if it.path == str(hit)))
    page = sish.write_report(results, tmp_path / "out.html", index=index).read_text()
    assert "no picture" not in page
    shutil.copy(other, hit)
    page = sish.write_report(results, tmp_path / "out.html", index=index).read_text()
    assert page.count("is another file now") == 1 + len(results[0].patches)


def is_closed(slide: sish.Slide) -> bool:
    try:
        slide.read((0, 0), 1, slide.mpp)
    except sish.SlideReadError:
        return True
    return False


def test_names_that_are_not_utf8_are_spelt_out(built_index, tmp_path):
    index = sish.Index.open(built_index)
    results = index.search(index.slides[0].slide_id, k=1)
    name = os.fsdecode(b"caf\xe9")
    odd = replace(results, hits=tuple(replace(hit, slide_id=name, path=f"/{name}") for hit in results))
    page = sish.write_report(odd, tmp_path / "out.html", index=index).read_text(encoding="utf-8")
    assert r"caf\udce9" in page


def test_a_page_that_cannot_be_written_is_an_error(built_index, tmp_path):
    index = sish.Index.open(built_index)
    results = index.search(index.slides[0].slide_id, k=1)
    with pytest.raises(sish.OutputError, match="give another path"):
        sish.write_report(results, tmp_path / "no" / "page.html", index=index)
    assert not list(Path(tmp_path).iterdir())
