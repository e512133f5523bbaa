"""The benchmark of archives, on a small one: every row is there, and the filters leave what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import archive

WHAT = {
    "search_id", "search_path_codes", "search_exclude_patient", "search_where_common", "search_where_rare",
    "search_similarity", "contains", "search_id_two_threads", "open_first_answer", "add_one", "add_hundred",
    "remove_one", "relabel_one", "reader_after_commit",
}  # fmt: skip


@pytest.fixture
def maker():
    rng = np.random.default_rng(0)
    return archive.Maker(rng.integers(0, 256, (9, 128), np.uint8), rng.integers(0, 10**12, 9), "texture")


def test_an_archive_is_written_as_the_library_writes_it(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_COMMIT", 60)
    index = archive.built(maker, tmp_path / "a.sish", 150)
    assert len(index) == 150 and 130 * 50 < index.info().patches < 170 * 50
    assert index.state_and_view()[0].tree is not None  # there are more patches than are compared with at once
    hits = index.search("slide-0000003", k=3)
    assert hits[0].slide_id == "slide-0000003" and hits[0].score == 1
    rare = index.search("slide-0000003", k=9, where={"rare": "yes"})
    assert {hit.slide_id for hit in rare} == {"slide-0000007", "slide-0000101"}
    assert len(index.search("slide-0000003", k=150, where={"half": "a"})) == 75


def test_a_slide_is_made_by_its_number_alone(maker):
    keys, barcodes = maker.codes(5)
    again = maker.codes(5)
    assert np.array_equal(keys, again[0]) and np.array_equal(barcodes, again[1])
    assert not np.array_equal(barcodes[:5], maker.codes(6)[1][:5])


@pytest.mark.slow
def test_every_row_is_measured(tmp_path, capsys):
    files = [str(tmp_path / "rows.json"), str(tmp_path / "plot.png")]
    words = ["--quick", "--slides", "120", "--data", str(tmp_path), "--json", files[0], "--plot", files[1]]
    assert archive.main(words) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["what"] for row in rows} == WHAT | {"memory", "disk"}
    assert all(row["bytes"] > 0 or row["wall_ms_median"] > 0 for row in rows)
    assert {(row["slides"], row["keys"], row["ordered_set"]) for row in rows} == {(120, "texture", "cells")}
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert "generated slides are used" in capsys.readouterr().out


@pytest.mark.slow
def test_published_keys_are_searched_along_each_ordered_set(maker, tmp_path):
    (tmp_path / "sets").mkdir()
    rows = list(archive.measure(replace(maker, keys="paper"), 110, 3, tmp_path / "sets"))
    sets = {row.ordered_set for row in rows if row.what == "search_id" and row.cpu_ms_median > 0}
    assert sets == {"sorted_array", "veb", "sorted_list"}
    assert {row.ordered_set for row in rows if row.what != "search_id"} == {"sorted_array"}
    assert archive.table(rows).count("search_id ") == 3
