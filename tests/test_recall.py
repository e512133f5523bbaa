"""The recall that an archive tells of itself, the note of a low one, and the budget that is set by it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from slide_rows import slide_row
from test_dense_archives import around, random_bits

from sish.cli.entry import main
from sish.errors import ParameterError
from sish.index.barcode import nearest
from sish.index.params import SearchParams
from sish.index.store import Store, slide_snapshot
from sish.recall import LOW, Recall, noted, told_of
from sish.recipe import Recipe
from sish.results import Query, Results
from sish.searchers import TextureKeys, searcher_of, stored_tree
from sish.slide_index import Index
from sish.thresholds import sample_of


def added(store, barcodes, first=0, a_slide=50, seed=0):
    """Add barcodes as slides, in commits at the moments at which `Index.add` commits."""
    keys, waiting, patches = TextureKeys(store, seed=seed), [], 0
    for begin in range(0, len(barcodes), a_slide):
        own = barcodes[begin : begin + a_slide]
        row = replace(slide_row(f"s{first + begin // a_slide:06d}"), n_patches=len(own))
        waiting.append((row, own))
        patches += len(own)
        if keys.is_due(patches) or begin + a_slide >= len(barcodes):
            store.append_many(
                [slide_snapshot(row, keys.of(own), own, np.zeros((len(own), 2), int)) for row, own in waiting]
            )
            keys.grow(patches)
            waiting, patches = [], 0
    return keys


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """An index of one cluster of 12,000 patches, whose neighbours a budget of 100 does not find."""
    index = Index.create(tmp_path_factory.mktemp("dense") / "a.sish", search={"budget": 100})
    with Store.open(index.path, write=True) as store:
        added(store, around(random_bits(1, 0, 128), 12_000, 1))
    return Index.open(index.path)


def test_the_estimate_is_the_recall_of_the_sample(dense):
    state = Store.open(dense.path).state
    told = Recall.on(state, stored_tree(state), 100)
    queries = sample_of(state)[1][:64]
    barcodes = state.snapshot().barcodes
    tenth = nearest(barcodes, queries, 11).hamming[:, -1]
    bags = searcher_of(state, "texture", SearchParams()).archive.search(queries, k=100, budget=100)
    found = np.split(bags.hamming, bags.offset[1:-1])
    hits = [max(0, min(11, (own <= bits).sum()) - 1) for own, bits in zip(found, tenth, strict=True)]
    assert told.at_10 == pytest.approx(np.mean(hits) / 10, abs=1e-4) and told.at_10 < LOW
    assert (told.budget, told.queries, told.patches) == (100, 64, 12_000)


def test_an_estimate_is_near_the_recall_of_all_patches(dense):
    state = Store.open(dense.path).state
    barcodes, told = state.snapshot().barcodes, Recall.on(state, stored_tree(state), 400)
    queries = barcodes[::20]
    tenth = nearest(barcodes, queries, 11).hamming[:, -1]
    bags = searcher_of(state, "texture", SearchParams()).archive.search(queries, k=400, budget=400)
    found = np.split(bags.hamming, bags.offset[1:-1])
    hits = [max(0, min(11, (own <= bits).sum()) - 1) for own, bits in zip(found, tenth, strict=True)]
    assert told.at_10 == pytest.approx(np.mean(hits) / 10, abs=0.06)


def test_the_writer_keeps_it_and_it_is_told(dense, capsys):
    kept = Recall.kept_with(dense.info().measured)
    assert kept is not None and kept.budget == 100 and kept.at_10 < LOW and kept.patches > 12_000 / 1.3
    assert main(["index", "info", "--index", str(dense.path)]) == 0
    assert f"{kept.at_10:.3f} of the ten nearest patches are found" in capsys.readouterr().out


def test_answers_of_a_low_recall_have_a_note(dense):
    answer = dense.search("s000003", k=2)
    assert "of the nearest patches are found" in answer.note and "sish index tune" in answer.note
    assert "nearest patches" not in dense.search("s000003", k=2, search={"budget": 12_000}).note


@pytest.mark.slow
def test_tuning_sets_the_budget_that_the_recall_needs(tmp_path, capsys):
    barcodes = around(random_bits(1, 0, 128), 70_000, 1)  # more than sixteen budgets
    index = Index.create(tmp_path / "a.sish")
    with Store.open(index.path, write=True) as store:
        added(store, barcodes, a_slide=500)
    before, generation = index.info().measured["recall"], index.info().generation
    path = ["--index", str(index.path)]
    assert main(["index", "tune", *path, "--recall", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["at_10"] == 1 and told["budget"] > 4000 == before["budget"]
    opened = Index.open(index.path)
    assert opened.params.budget == told["budget"] and opened.info().generation == generation + 1
    assert opened.params.threshold == index.params.threshold and opened.recipe == index.recipe
    assert opened.info().measured["recall"] == told
    assert index.tune(0.1).budget == index.params.budget == 4000


@pytest.mark.parametrize("wanted", [0, -1, 1.5, float("nan")])
def test_a_recall_that_is_none_is_refused(dense, wanted):
    with pytest.raises(ParameterError, match="at most 1"):
        dense.tune(wanted)


@pytest.mark.parametrize("keys", ["texture", "paper"])
def test_an_index_without_a_tree_has_nothing_to_tune(tmp_path, keys):
    index = Index.create(tmp_path / "a.sish", recipe=Recipe(keys=keys))
    with pytest.raises(ParameterError, match="no texture tree"):
        index.tune()
    assert Recall.kept_with(index.info().measured) is None and "all patches" in index.recall_source


@pytest.mark.parametrize("fact", [None, 3, {}, {"at_10": "x", "budget": 1, "queries": 1, "patches": 1}])
def test_a_fact_of_another_kind_is_none(fact):
    assert Recall.kept_with({"recall": fact}) is None


def test_a_low_recall_is_noted_beside_other_notes(dense):
    state = Store.open(dense.path).state
    results = Results(Query("q", None, "", 1.0, None, 1, 0.0), "similarity", (), "another note")
    note = noted(results, state, SearchParams(budget=100)).note
    assert note.startswith("another note; about ")
    assert noted(results, state, SearchParams(budget=101)).note == "another note"
    assert told_of(state).endswith("patches")
