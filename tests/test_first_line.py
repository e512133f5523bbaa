"""One slide without a label changes the ranking of all: the first line of every answer says so."""

import shutil

import pytest

import sish
from sish.cli import main

WHY = "ranked by similarity: 1 of 9 slides has no label (bare)"


@pytest.fixture
def half_labelled(own_index, tmp_path):
    """An index of eight slides with labels and one without."""
    shutil.copy(own_index.slides[0].path, tmp_path / "bare.tif")
    own_index.add(tmp_path / "bare.tif", show_progress=False)
    return own_index


def test_text_report_and_evaluation_begin_with_it(half_labelled, tmp_path, capsys):
    index, name = half_labelled, half_labelled.slides[0].slide_id
    results = index.search(name, k=2)
    assert results.headline == WHY
    assert (results.ranking, results.note) == ("similarity", "1 of 9 slides has no label (bare)")
    assert results.to_dict()["note"] == results.note
    assert main(["search", name, "--index", str(index.path), "-k", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{name}: {results.query.n_patches} patches, {WHY}"
    page = sish.write_report(results, tmp_path / "a.html", index=index).read_text()
    assert WHY in page[: page.index("<h2>")]
    assert main(["evaluate", "--index", str(index.path)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.split(maxsplit=1) == ["ranking", WHY.removeprefix("ranked by ")]
    found = sish.evaluate(index)
    assert (found.ranking, found.to_dict()["note"]) == ("similarity", results.note)


def test_a_filter_that_leaves_nothing_does_not_hide_it(half_labelled):
    label = half_labelled.slides[0].label
    results = half_labelled.search(
        half_labelled.slides[0].slide_id, where={"label": label, "patient": "nobody"}
    )
    assert results.headline.startswith(WHY + "; no slide is left")


def test_where_all_have_labels_or_none_has_there_is_nothing_to_say(own_index, tmp_path, capsys):
    name = own_index.slides[0].slide_id
    results = own_index.search(name, k=2)
    assert (results.headline, results.note) == ("ranked by uncertainty", "")
    assert main(["evaluate", "--index", str(own_index.path)]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["ranking", "uncertainty"]
    bare = sish.Index.create(tmp_path / "bare.sish")
    bare.add(own_index.slides[0].path, show_progress=False)
    assert bare.search(name, k=2).headline == "ranked by similarity"


def test_more_than_one_is_counted_and_a_few_are_named(half_labelled, tmp_path):
    for number in range(4):
        shutil.copy(half_labelled.slides[0].path, tmp_path / f"c{number}.tif")
    half_labelled.add(tmp_path.glob("c*.tif"), show_progress=False)
    note = half_labelled.search(half_labelled.slides[0].slide_id).note
    assert note == "5 of 13 slides have no label (bare, c0, c1 and 2 more)"
