"""Search parameters: at open, by query, by assignment and on the command line; bad ones are one line."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from code_archives import KINDS, random_slides, store_of, view_of
from hypothesis import given, settings
from hypothesis import strategies as st

import sish
from sish.cli import main
from sish.header import IndexHeader
from sish.index.params import SearchParams
from sish.index.store import Store, slide_snapshot
from sish.searchers import GuidedSearcher


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


@pytest.fixture(scope="module")
def paper_index(tmp_path_factory):
    """An index with the paper's keys: 40 slides of random codes."""
    path = tmp_path_factory.mktemp("paper") / "a.sish"
    sish.Index.create(path, recipe=sish.Recipe(keys="paper"))
    with Store.open(path, write=True) as store:
        for it in random_slides(7, count=40, patches=20):
            store.append_many([slide_snapshot(it.row, it.codes.keys, it.codes.barcodes, it.codes.l0_xy)])
    return sish.Index.open(path)


WALKS = st.fixed_dictionaries({
    "interval": st.integers(0, 2),
    "n_seeds": st.integers(1, 3),
    "pre_step": st.integers(0, 3),
    "succ_step": st.integers(0, 3),
    "threshold": st.integers(0, 40),
    "skip_step": st.sampled_from([0, 1, 50_000]),
    "visit_query_key": st.booleans(),
})  # fmt: skip


@given(
    search=WALKS,
    number=st.integers(0, 39),
    exclude_patient=st.booleans(),
    where=st.sampled_from([None, {"label": "a"}, {"patient": "p3"}]),
)
@settings(max_examples=60, deadline=None)
def test_answers_do_not_depend_on_the_ordered_set(paper_index, search, number, exclude_patient, where):
    options = {"k": 15, "exclude_patient": exclude_patient, "where": where}
    answers = [
        paper_index.search(f"s{number}", **options, search={**search, "ordered_set": name}).to_dict()
        for name in ("sorted_array", "veb", "sorted_list")
    ]
    assert answers[0] == answers[1] == answers[2]


def test_an_ordered_set_is_made_at_its_first_use_and_kept(paper_index, monkeypatch):
    index = sish.Index.open(paper_index.path, search={"ordered_set": "sorted_list"})
    searcher = index.view().searcher
    assert isinstance(searcher, GuidedSearcher) and searcher.tree("sorted_array") is None
    index.search("s1")
    kept = searcher.tree("sorted_list")
    assert list(kept) == np.unique(searcher.table.keys).tolist()
    walked = []
    monkeypatch.setattr(type(kept), "walk", lambda _, *given: walked.append(given))
    index.search("s2")
    assert walked and searcher.tree("sorted_list") is kept
    assert {type(searcher.tree(name)).__name__ for name in ("veb", "sorted_list")} == {
        "VanEmdeBoas", "SortedListSet",
    }  # fmt: skip


def test_headers_older_than_a_parameter_have_its_default(paper_index):
    header = IndexHeader(paper_index.recipe, paper_index.fingerprint, paper_index.params).to_json()
    del header["search"]["ordered_set"]
    assert IndexHeader.from_json(header).search.ordered_set == "sorted_array"
    header["search"]["ordered_set"] = "bplus"
    with pytest.raises(sish.IndexFormatError, match="ordered_set is 'bplus'"):
        IndexHeader.from_json(header)


BAD = [
    (
        {"ordered_set": "sorted_lists"},
        "'sorted_lists'; give one of sorted_array, veb, .*nearest: 'sorted_list'",
    ),
    ({"ordered_set": ["veb"]}, "ordered_set is "),
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
    with pytest.raises(SystemExit):
        run(*words, "--search.ordered_set", "sorted_lst")
    assert "nearest: 'sorted_list'" in capsys.readouterr().err
    made = tmp_path / "own.sish"
    assert (
        run("index", "create", "--index", made, "--search.budget", 900, "--search.ordered_set", "veb")[0] == 0
    )
    default = asdict(sish.Index.create(tmp_path / "plain.sish").params)
    assert asdict(sish.Index.open(made).params) == {**default, "budget": 900, "ordered_set": "veb"}
