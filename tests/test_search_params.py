"""Search parameters: at open, by query, by assignment and on the command line; bad ones are one line."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from code_archives import KINDS, random_slides, store_of, view_of

import sish
from sish.cli import main
from sish.index.params import SearchParams


def below(results):
    return [hit.below_threshold for hit in results]


def test_parameters_at_open_by_query_and_by_assignment_are_the_same(built_index):
    index = sish.Index.open(built_index)
    name = index.slides[0].slide_id
    usual = index.search(name, k=8, ranking="similarity")
    assert not all(below(usual)[1:])
    strict = {"threshold": 0}
    by_query = index.search(name, k=8, ranking="similarity", search=strict)
    assert below(by_query) == [False] + 7 * [True]
    assert index.search(name, k=8, ranking="similarity") == usual, "a query's own parameters stay its own"
    opened = sish.Index.open(built_index, search=strict)
    assert opened.params == index.params.with_changes(strict) != index.params
    assert opened.search(name, k=8, ranking="similarity") == by_query
    index.view()
    index.params = opened.params  # it takes effect at once, and not in what was made ready before
    assert index.search(name, k=8, ranking="similarity") == by_query
    assert index.view().searcher.params.threshold == 0
    assert sish.Index.open(built_index).params != index.params, "the index on the disk keeps its own"


def test_parameters_given_as_a_whole_replace_all(built_index):
    given = SearchParams(budget=77)
    index = sish.Index.open(built_index, search=given)
    assert index.params == given
    index.params = {"threshold": 5}
    assert index.params == SearchParams(budget=77, threshold=5)


def test_evaluation_uses_them(built_index):
    index = sish.Index.open(built_index)
    usual = sish.evaluate(index, ranking="similarity")
    index.params = {"threshold": 0}
    assert sish.evaluate(index, ranking="similarity").placed.short == 8 > usual.placed.short


def test_a_budget_is_what_a_query_patch_is_compared_with(tmp_path):
    slides = random_slides(2)
    view = view_of(store_of(tmp_path / "a", slides, "texture with a tree"), "texture with a tree")
    slide = max(slides, key=lambda it: it.row.n_patches)
    matched = {}
    for budget in (1, 4, 4000):
        search = SearchParams(budget=budget, threshold=64)
        answer = view.search(slide.query, slide.codes, k=9, ranking="similarity", search=search)
        matched[budget] = sum(hit.n_matched for hit in answer if hit.placed)
    assert matched[1] <= slide.row.n_patches < matched[4] < matched[4000] == 9 * slide.row.n_patches


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_takes_a_mask_of_slides_beside_the_filters(tmp_path, kind):
    slides = random_slides(3)
    view = view_of(store_of(tmp_path / "a", slides, kind), kind)
    query = slides[0]
    mask = np.arange(len(view.searcher.slides)) % 2 == 0
    allowed = {row.slide_id for row, may in zip(view.searcher.slides, mask, strict=True) if may}
    answer = view.search(query.query, query.codes, k=20, mask=mask, search={"threshold": 64})
    assert {hit.slide_id for hit in answer} == allowed
    own = {row.slide_id for row in view.searcher.slides if row.patient == query.row.patient}
    without = view.search(query.query, query.codes, k=20, mask=mask, exclude_patient=True)
    assert {hit.slide_id for hit in without} == allowed - own
    assert not view.search(query.query, query.codes, mask=~np.ones_like(mask)).hits


@pytest.mark.parametrize("mask", [np.ones(3, bool), np.array([0, 1])])
def test_a_mask_that_is_none_is_refused(tmp_path, mask):
    slides = random_slides(3)
    view = view_of(store_of(tmp_path / "a", slides, "paper"), "paper")
    with pytest.raises(sish.ParameterError, match="give bool, one a slide"):
        view.search(slides[0].query, slides[0].codes, mask=mask)


BAD = [
    ({"threshold": -1}, "threshold is -1"),
    ({"budget": 0}, "budget is 0; give an integer of at least 1"),
    ({"budget": 2.5}, "budget is 2.5"),
    ({"budgt": 3}, "want SearchParams, or a mapping of any of interval"),
    (1000, "got search=1000"),
]


@pytest.mark.parametrize(("given", "told"), BAD)
def test_bad_parameters_are_refused_everywhere_and_change_nothing(built_index, tmp_path, given, told):
    index = sish.Index.open(built_index)
    before = index.params
    with pytest.raises(sish.ParameterError, match=told):
        sish.Index.open(built_index, search=given)
    with pytest.raises(sish.ParameterError, match=told):
        index.search(index.slides[0].slide_id, search=given)
    with pytest.raises(sish.ParameterError, match=told):
        index.params = given
    with pytest.raises(sish.ParameterError, match=told):
        sish.Index.create(tmp_path / "a.sish", search=given)
    assert index.params == before and not (tmp_path / "a.sish").exists()


def test_the_command_line_knows_them(built_index, tmp_path, capsys):
    def run(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    index = sish.Index.open(built_index)
    name = index.slides[0].slide_id
    words = ["search", name, "--index", built_index, "-k", 8, "--ranking", "similarity", "--json"]
    told = json.loads(run(*words, "--search.threshold", 0)[1])
    want = index.search(name, k=8, ranking="similarity", search={"threshold": 0})
    assert told == json.loads(json.dumps(want.to_dict()))
    usual = json.loads(run(*words)[1])
    assert usual == json.loads(json.dumps(index.search(name, k=8, ranking="similarity").to_dict())) != told
    evaluated = ["evaluate", "--index", built_index, "--ranking", "similarity", "--json"]
    assert json.loads(run(*evaluated, "--search.threshold", 0)[1])["short"] == 8
    code, _, error = run(*words, "--search.budget", 0)
    assert code == 1 and error == "sish: error: budget is 0; give an integer of at least 1\n"
    made = tmp_path / "own.sish"
    assert run("index", "create", "--index", made, "--search.budget", 900, "--search.n_seeds", 4)[0] == 0
    default = asdict(index.params)
    assert asdict(sish.Index.open(made).params) == {**default, "budget": 900, "n_seeds": 4}
