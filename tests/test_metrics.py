"""Worked examples, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish.errors import ParameterError, QueryError
from sish.metrics import (
    average_precision,
    average_shared,
    bootstrap_interval,
    majority_label,
    retrieval_metrics,
)
from sish.printing import figure


@pytest.mark.parametrize(
    ("results", "k", "want"),
    [
        ("aabbb", 5, "b"),
        ("abbac", 5, "a"),  # two each: the first seen
        ("abcde", 5, "a"),  # one vote is enough where there are k results
        ("abbbbb", 1, "a"),  # only the first k
        ("aaab", 5, "a"),  # short: 3 of 5 are needed
        ("aab", 5, None),
        ("aa", 5, None),
        ("aa", 4, "a"),  # short: 2 of 4
        ("aaaab", 10, None),  # short: 5 of 10
        ("aaaaab", 10, "a"),
        ("", 5, None),
        ("", 1, None),
    ],
)
def test_majority(results, k, want):
    assert majority_label(list(results), k) == want


@pytest.mark.parametrize(
    ("results", "k", "relevant", "usual", "paper"),
    [
        ("aaaaa", 5, None, 1.0, 1.0),
        ("bbbbb", 5, None, 0.0, 0.0),
        ("", 5, None, 0.0, 0.0),
        ("babab", 5, None, (1 / 2 + 2 / 4) / 2, (1 / 2 + 2 / 4) / 5),
        ("babab", 5, 3, (1 / 2 + 2 / 4) / 3, (1 / 2 + 2 / 4) / 5),
        ("babab", 5, 80, (1 / 2 + 2 / 4) / 5, (1 / 2 + 2 / 4) / 5),
        ("bbbbba", 5, 1, 0.0, 0.0),
        ("a", 5, 4, 1 / 4, 1 / 5),
        ("aaaaaaaaaa", 10, None, 1.0, 2.0),  # the authors' divisor stays 5
        ("baaa", 3, None, (1 / 2 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 5),
        ("aa", 5, 1, 1.0, 2 / 5),  # more right ones than claimed: never above 1
    ],
)
def test_average_precision(results, k, relevant, usual, paper):
    answer = ("a", list(results))
    assert average_precision(answer, k, relevant=relevant) == pytest.approx(usual)
    assert average_precision(answer, k, as_paper=True) == pytest.approx(paper)


def test_metrics_of_four_queries_by_hand():
    answers = [
        ("a", ["a", "a", "b", "b", "a"]),  # vote a; AP (1 + 1 + 3/5) / 3
        ("a", ["b", "b", "b", "a", "b"]),  # vote b; AP (1/4) / 1
        ("a", []),  # no vote; AP 0
        ("b", ["a", "b", "b"]),  # short: two votes of the three needed, no vote; AP (1/2 + 2/3) / 2
    ]
    found = retrieval_metrics(answers)
    a, b = found.by_label
    assert (a.label, a.queries, b.label, b.queries) == ("a", 3, "b", 1)
    assert (a.mmv, b.mmv, found.mmv) == pytest.approx((1 / 3, 0, 1 / 6))
    assert (a.map, b.map) == pytest.approx(((2.6 / 3 + 0.25) / 3, 3.5 / 6))
    assert (a.map_paper, b.map_paper) == pytest.approx(((2.6 + 0.25) / 5 / 3, 3.5 / 3 / 5))
    assert found.map == pytest.approx((a.map + b.map) / 2)
    assert found.map_paper == pytest.approx((a.map_paper + b.map_paper) / 2)
    # a: one right of three with the label and one voted; b: none right of one and one
    assert (a.f1, b.f1, found.macro_f1) == pytest.approx((2 / 4, 0, 1 / 4))
    assert (found.hit_1, found.hit_3, found.hit_5) == pytest.approx((1 / 4, 2 / 4, 3 / 4))
    assert found.precision == pytest.approx(((3 / 5 + 1 / 5 + 0) / 3 + 2 / 5) / 2)
    assert (found.k, found.queries, found.short) == (5, 4, 2)


def test_classes_weigh_alike_however_many_queries_they_have():
    found = retrieval_metrics([("a", ["a"] * 5)] * 99 + [("b", ["a"] * 5)])
    assert found.mmv == pytest.approx(0.5)
    assert found.hit_1 == pytest.approx(0.99)


def test_relevant_reaches_the_usual_precision_only():
    answers = [("a", ["a", "b", "b", "b", "b"])]
    assert retrieval_metrics(answers, relevant=[4]).map == pytest.approx(1 / 4)
    assert retrieval_metrics(answers, relevant=[4]).map_paper == pytest.approx(1 / 5)


def test_figures_have_names_and_a_line():
    found = retrieval_metrics([("a", ["a"] * 3)], k=3)
    assert dict(found.named())["mMV@3"] == 1.0
    assert "mMV@3 1.000" in found.one_line()
    assert "\n" not in found.one_line()
    assert found.one_line(figure) == "mMV@3 1 (1 to 1), mAP@3 1, macro-F1 1, hit@1 1"


def test_shared_labels_by_hand():
    # two of two, one, none, none of (Edema, Mass) among 4 results and one that is missing
    found = [{"Mass", "Edema"}, {"Edema", "Hernia"}, set(), {"Hernia"}]
    assert average_shared(({"Mass", "Edema"}, found), 5) == pytest.approx(3 / 5)
    assert average_shared(({"Mass", "Edema"}, found), 2) == pytest.approx(3 / 2)
    assert average_shared((set(), found), 2) == 0
    with pytest.raises(ParameterError, match="k is 0"):
        average_shared((set(), found), 0)


def test_intervals_are_those_of_draws_within_each_class():
    """Against drawing whole queries with replacement within their class, and measuring each draw."""
    rng = np.random.default_rng(3)
    drawn = [(label, list(rng.choice(list("abc"), 6))) for label in "aab" * 12]
    found = retrieval_metrics(drawn)
    members = [[answer for answer in drawn if answer[0] == label] for label in "ab"]
    again = [
        retrieval_metrics([own[i] for own in members for i in rng.integers(0, len(own), len(own))])
        for _ in range(60)
    ]
    for name, interval in found.ci.items():
        wanted = np.quantile([getattr(draw, name) for draw in again], [0.025, 0.975])
        spread = wanted[1] - wanted[0]
        assert interval == pytest.approx(tuple(wanted), abs=0.4 * spread + 1e-9), name


def test_figures_have_short_names():
    found = retrieval_metrics([("a", ["a", "b", "a"]), ("b", ["a"] * 3)], 3)
    assert set(found.figures()) == {
        "mmv3", "map3", "map_paper", "precision3", "macro_f1_3", "hit1", "hit3", "hit5"
    }  # fmt: skip
    assert found.figures()["mmv3"] == (found.mmv, found.ci["mmv"])


answers = st.lists(
    st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from("abcd"), max_size=12)), min_size=1
)


@given(answers=answers, k=st.integers(1, 5))
def test_every_figure_is_a_share(answers, k):
    found = retrieval_metrics(answers, k)
    shares = [value for name, value in found.named() if "queries" not in name]
    assert all(0 <= share <= 1 for share in shares)
    assert set(found.ci) <= set(dir(found))
    assert all(low <= high for low, high in found.ci.values())


def test_bootstrap_by_hand():
    # one class of 100 coin throws: the standard error is 0.05, the interval 0.5 +- 0.098
    low, high = bootstrap_interval([0.0, 1.0] * 50, ["a"] * 100, repeats=4000)
    assert (low, high) == pytest.approx((0.402, 0.598), abs=0.02)
    assert bootstrap_interval([0.0, 1.0] * 50, ["a"] * 100, repeats=4000) == (low, high)
    narrow = bootstrap_interval([0.0, 1.0] * 50, ["a"] * 100, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_keeps_every_class():
    values = [1.0] * 50 + [0.0]
    assert bootstrap_interval(values, ["a"] * 50 + ["rare"]) == pytest.approx((0.5, 0.5))
    assert np.isfinite(bootstrap_interval([0.3], ["a"])).all()


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(QueryError, match="no answers"):
        retrieval_metrics([])
    with pytest.raises(ParameterError, match="k is 0"):
        retrieval_metrics([("a", ["a"])], 0)
    with pytest.raises(ParameterError, match="relevant"):
        retrieval_metrics([("a", ["a"])], relevant=[1, 2])
    with pytest.raises(ParameterError, match="level"):
        bootstrap_interval([1.0], ["a"], level=1.0)
