"""The list of slides that failed: written by add, search and status, and taken by add again."""

import csv
import json
import os
import shutil

import numpy as np
import pytest

import sish
from sish.cli import main


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def mixed(synthetic_slides, tmp_path):
    """A folder of a good slide and two broken ones, one of them with a comma and quotes in its name."""
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.copy(synthetic_slides / "adipose-01.tif", folder)
    for name in ("broken.tif", 'a, "b".tif'):
        (folder / name).write_bytes(b"no slide")
    return folder


def test_mended_slides_are_added_from_the_list(mixed, synthetic_slides, tmp_path, capsys):
    index, failures, missing = tmp_path / "a.sish", tmp_path / "failures.csv", tmp_path / "missing.tif"
    words = ["index", "add", str(mixed), str(missing), "--index", str(index), "--failures", str(failures)]
    assert main([*words, "--json", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert "sish: wrote 3 slides that failed to" in err
    rows = rows_of(failures)
    assert {row["path"] for row in rows} == {
        str(mixed / "broken.tif"), str(mixed / 'a, "b".tif'), str(missing),
    }  # fmt: skip
    reasons = {(row["path"], row["reason"], row["slide_id"]) for row in rows}
    told = json.loads(out)["failed"]
    assert reasons == {(it["path"], it["reason"], it["slide_id"]) for it in told}
    for row in rows:
        shutil.copy(synthetic_slides / "fibrous-01.tif", row["path"])
    assert main(["index", "add", str(failures), "--index", str(index), "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("3 added")
    assert len(sish.Index.open(index)) == 4


def test_any_name_is_found_again_or_told(synthetic_slides, tmp_path, capsys):
    folder, index = tmp_path / "slides", tmp_path / "a.sish"
    folder.mkdir()
    names = ["=1+1, x.tif", "組織 é.tif", '"q".tif', "a\rb.tif", "c\nd.tif", os.fsdecode(b"e\xff.tif")]
    for name in names:
        (folder / name).write_bytes(b"no slide")
    failures = tmp_path / "failures.csv"
    words = ["index", "add", str(folder), "--index", str(index), "--failures", str(failures), "--quiet"]
    assert main(words) == 1
    err = capsys.readouterr().err
    told = [line for line in err.splitlines() if "a table cannot hold the name" in line]
    assert len(told) == 3 and all(part in "".join(told) for part in ("a\\rb", "c\\nd", "e\\udcff"))
    rows = rows_of(failures)
    assert len(rows) == len(names) and not any(row["slide_id"].startswith("=") for row in rows)  # no formula
    for name in names:
        shutil.copy(synthetic_slides / "fibrous-01.tif", folder / name)
    assert main(["index", "add", str(failures), "--index", str(index), "--quiet"]) == 1
    assert capsys.readouterr().out.startswith("3 added, 3 failed")


def test_the_list_of_nothing_and_rows_of_labels(synthetic_slides, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\nadipose-01,a\nnobody,b\n")
    report = sish.Index.create(tmp_path / "a.sish").add(
        synthetic_slides / "adipose-01.tif", labels=labels, show_progress=False
    )
    assert [(it.path, it.slide_id) for it in report.failed] == [("nobody", None)]
    assert report.write_failures(tmp_path / "failures.csv") == 0  # it names no slide
    assert (tmp_path / "failures.csv").read_text() == "slide_id,path,reason\n"


def test_a_list_replaces_no_input_and_no_other_file(mixed, tmp_path, capsys):
    given = tmp_path / "list.csv"
    given.write_text(f"path\n{mixed / 'broken.tif'}\n")
    for target in (given, mixed / "adipose-01.tif"):
        before = target.read_bytes()
        words = ["index", "add", str(given), "--index", str(tmp_path / "a.sish"), "--failures", str(target)]
        assert main(words) == 1
        assert capsys.readouterr().err.startswith(f"sish: error: {target} is ")
        assert target.read_bytes() == before and not (tmp_path / "a.sish").exists()


def test_queries_that_failed(mixed, built_index, tmp_path, capsys):
    failures = tmp_path / "failures.csv"
    queries = [str(mixed / "broken.tif"), str(mixed / "adipose-01.tif")]
    assert main(["search", *queries, "--index", str(built_index), "--failures", str(failures)]) == 1
    assert [(row["slide_id"], row["path"]) for row in rows_of(failures)] == [("broken", queries[0])]
    assert "sish: wrote 1 slide that failed to" in capsys.readouterr().err
    failures.write_text("slide_id,path,reason\n")  # of an earlier search
    assert main(["search", queries[0], "--index", str(built_index), "--failures", str(failures)]) == 1
    assert [row["path"] for row in rows_of(failures)] == queries[:1]


def test_vectors_that_failed_have_an_id(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    ids = np.repeat(["a", "b"], 20)
    index = sish.Index.from_vectors(tmp_path / "a.sish", vectors, ids, show_progress=False)
    report = index.add_vectors(vectors + 1, np.repeat(["a", "c"], 20), show_progress=False)
    assert [it.slide_id for it in report.failed] == ["a"] and report.added == ["c"]
    report.write_failures(tmp_path / "failures.csv")
    assert [(row["slide_id"], row["path"]) for row in rows_of(tmp_path / "failures.csv")] == [("a", "")]
