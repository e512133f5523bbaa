"""Measure ranked answers by the labels of queries and results.

An *answer* is the label of a query and the labels of its results, best first. The definitions follow Chen et
al. 2022 (Methods, evaluation). If theirs is unusual, the usual definition is given too. For images with
several labels, :func:`average_shared` counts the labels shared with the results (AvG@K of Haq et al.). Every
figure has a 95 % bootstrap interval over queries.

Why not a library: scikit-learn has neither the majority vote nor an average precision at k; it would replace
`f1_of` alone. `scipy.stats.bootstrap` refuses a class of one query.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError, QueryError

Answer = tuple[str, Sequence[str]]
"""Label of a query, and the labels of its results, best first."""

SetAnswer = tuple[Set[str], Sequence[Set[str]]]
"""Labels of a query, and the labels of each of its results, best first."""

Interval = tuple[float, float]
"""Lower and upper end."""

_REPEATS = 1000
_SHORT_NAMES = {
    "mmv": "mmv{k}",
    "map": "map{k}",
    "map_paper": "map_paper",
    "precision": "precision{k}",
    "macro_f1": "macro_f1_{k}",
    "hit_1": "hit1",
    "hit_3": "hit3",
    "hit_5": "hit5",
}
_PAPER_DIVISOR = 5  # the authors divide by 5 whatever k is


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """The figures of the queries of one label."""

    label: str
    """The label."""
    queries: int
    """Number of queries with it."""
    mmv: float
    """Share of these queries with the right majority label."""
    map: float
    """Mean average precision, usual definition."""
    map_paper: float
    """Mean average precision, always divided by 5."""
    f1: float
    """F1 of the majority label as a classifier of this label against all others."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures of all labelled queries; a mean over classes weighs every class alike."""

    k: int
    """Number of results looked at."""
    queries: int
    """Number of queries."""
    short: int
    """Number of queries with fewer than k results."""
    mmv: float
    """mMV@k: mean over classes of the share of queries with the right majority label."""
    map: float
    """Mean over classes of the mean average precision at k, usual definition."""
    map_paper: float
    """The same, with the authors' divisor."""
    macro_f1: float
    """Mean over classes of the F1 of the majority label."""
    precision: float
    """Mean over classes of the share of right results among the first k."""
    hit_1: float
    """Share of all queries with a right result at rank 1."""
    hit_3: float
    """The same among the first 3."""
    hit_5: float
    """The same among the first 5."""
    by_label: tuple[LabelMetrics, ...]
    """One row for each class, in alphabetical order."""
    ci: Mapping[str, Interval]
    """95 % bootstrap interval over queries of each figure, by its field (``mmv``, ``hit_1``, ...)."""

    def figures(self) -> dict[str, tuple[float, Interval]]:
        """Return value and 95 % interval of every figure, by names with k in them, such as ``mmv5``."""
        return {
            _SHORT_NAMES[name].format(k=self.k): (float(getattr(self, name)), interval)
            for name, interval in self.ci.items()
        }

    def named(self) -> Iterator[tuple[str, float | int]]:
        """Yield name and value of every figure, for a table."""
        yield "queries", self.queries
        yield f"queries with fewer than {self.k} results", self.short
        yield f"mMV@{self.k}", self.mmv
        yield f"mMV@{self.k}, 95 % from", self.ci["mmv"][0]
        yield f"mMV@{self.k}, 95 % to", self.ci["mmv"][1]
        yield f"mAP@{self.k}", self.map
        yield f"mAP@{self.k} as in the paper", self.map_paper
        yield f"macro-F1 of the majority of {self.k}", self.macro_f1
        yield f"precision@{self.k}", self.precision
        yield "hit@1", self.hit_1
        yield "hit@3", self.hit_3
        yield "hit@5", self.hit_5

    def one_line(self, shown: Callable[[float], str] = "{:.3f}".format) -> str:
        """Return the figures that matter most, each as ``shown`` writes it."""
        k, (low, high) = self.k, map(shown, self.ci["mmv"])
        return (
            f"mMV@{k} {shown(self.mmv)} ({low} to {high}), mAP@{k} {shown(self.map)}, "
            f"macro-F1 {shown(self.macro_f1)}, hit@1 {shown(self.hit_1)}"
        )


def majority_label(results: Sequence[str], k: int = 5) -> str | None:
    """Return the most frequent of the first `k` labels; of equally frequent ones, the first seen.

    Parameters
    ----------
    results : sequence of str
        Labels of the results, best first.
    k : int
        How many of them vote.

    Returns
    -------
    str or None
        The label. With fewer than `k` results it needs at least ceil(k / 2) votes, else None is returned.

    Examples
    --------
    >>> majority_label(["b", "a", "a", "b", "c"]), majority_label(["a", "a", "b"]), majority_label(["a"] * 3)
    ('b', None, 'a')
    """
    label, votes = next(iter(Counter(results[:k]).most_common(1)), (None, 0))
    return label if len(results) >= k or votes >= math.ceil(k / 2) else None


def average_precision(
    answer: Answer, k: int = 5, *, relevant: int | None = None, as_paper: bool = False
) -> float:
    """Return AP@k: the sum of the precisions at the ranks of right results, divided by how many there are.

    Parameters
    ----------
    answer : Answer
        Label of the query, labels of its results.
    k : int
        Number of results looked at.
    relevant : int, optional
        Number of right slides in the archive: the divisor is then min(`k`, `relevant`). By default it is the
        number of right results among the first `k`.
    as_paper : bool
        Divide by 5, whatever `k` is.

    Returns
    -------
    float
        In [0, 1]; 0 if no result is right.

    Examples
    --------
    Right at ranks 1 and 3 of 5: (1/1 + 2/3) / 2, and / 5 in the paper.

    >>> answer = ("a", ["a", "b", "a", "b", "b"])
    >>> [round(average_precision(answer, as_paper=p), 4) for p in (False, True)]
    [0.8333, 0.3333]
    >>> round(average_precision(answer, relevant=4), 4)
    0.4167
    """
    label, results = answer
    right = [rank for rank, result in enumerate(results[:k], start=1) if result == label]
    total = sum(n / rank for n, rank in enumerate(right, start=1))
    if as_paper:
        return total / _PAPER_DIVISOR
    if not right:
        return 0.0
    return total / (len(right) if relevant is None else max(len(right), min(k, relevant)))


def average_shared(answer: SetAnswer, k: int = 5) -> float:
    """Return AvG@k, the mean number of labels that the first `k` results share with the query.

    Parameters
    ----------
    answer : SetAnswer
        Labels of the query, and of each result. A missing result shares none.
    k : int
        Number of results looked at.

    Returns
    -------
    float
        As defined by Haq, Moradi & Wang (X-ray retrieval by codes and subspaces).

    Raises
    ------
    ParameterError
        If `k` is below 1.

    Examples
    --------
    >>> average_shared(({"Mass", "Edema"}, [{"Mass", "Edema"}, {"Edema"}, set(), {"Mass", "Hernia"}]), k=4)
    1.0
    """
    if k < 1:
        raise ParameterError(f"k is {k}; look at 1 result at least")
    labels, results = answer
    return sum(len(labels & result) for result in results[:k]) / k


def retrieval_metrics(
    answers: Sequence[Answer], k: int = 5, *, relevant: Sequence[int] | None = None
) -> Metrics:
    """Return all figures of some answers.

    Parameters
    ----------
    answers : sequence of Answer
        One for each query. A query without results counts as wrong in every figure.
    k : int
        Number of results looked at; the paper takes 5 for subtypes and 10 for sites.
    relevant : sequence of int, optional
        Number of right slides in the archive for each query: see :func:`average_precision`.

    Returns
    -------
    Metrics
        The figures with their intervals.

    Raises
    ------
    ParameterError
        If `k` is below 1, or `relevant` has another length than `answers`.
    QueryError
        If there are no answers.

    Examples
    --------
    >>> found = retrieval_metrics([("a", ["a", "a", "b"]), ("b", ["b", "b", "b", "a"])], k=3)
    >>> found.mmv, round(found.map, 3), found.hit_1
    (1.0, 1.0, 1.0)
    """
    if k < 1:
        raise ParameterError(f"k is {k}; look at 1 result at least")
    if not answers:
        raise QueryError("got no answers to measure; want a labelled query at least")
    wanted = [None] * len(answers) if relevant is None else list(relevant)
    if len(wanted) != len(answers):
        raise ParameterError(f"relevant has {len(wanted)} values for {len(answers)} answers; give one each")
    labels = [label for label, _ in answers]
    votes = [majority_label(results, k) for _, results in answers]
    values = {
        "mmv": [float(vote == label) for vote, label in zip(votes, labels, strict=True)],
        "map": [average_precision(a, k, relevant=n) for a, n in zip(answers, wanted, strict=True)],
        "map_paper": [average_precision(answer, k, as_paper=True) for answer in answers],
        "precision": [list(results[:k]).count(label) / k for label, results in answers],
    }
    hits = {f"hit_{at}": [float(own in found[:at]) for own, found in answers] for at in (1, 3, 5)}
    rows = tuple(
        LabelMetrics(
            label,
            queries=labels.count(label),
            mmv=_mean_of(label, labels, values["mmv"]),
            map=_mean_of(label, labels, values["map"]),
            map_paper=_mean_of(label, labels, values["map_paper"]),
            f1=f1_of(label, labels, votes),
        )
        for label in sorted(set(labels))
    )
    return Metrics(
        k=k,
        queries=len(answers),
        short=sum(len(results) < k for _, results in answers),
        **{name: _over_classes(own, labels) for name, own in values.items()},
        macro_f1=float(np.mean([row.f1 for row in rows])),
        **{name: float(np.mean(own)) for name, own in hits.items()},
        by_label=rows,
        ci={
            **{name: bootstrap_interval(own, labels) for name, own in values.items()},
            "macro_f1": _f1_interval(labels, votes),
            **{name: bootstrap_interval(own, labels, over_classes=False) for name, own in hits.items()},
        },
    )


def _mean_of(label: str, labels: Sequence[str], values: Sequence[float]) -> float:
    """Return the mean value of the queries of one label."""
    return float(np.mean([value for own, value in zip(labels, values, strict=True) if own == label]))


def _over_classes(values: Sequence[float], labels: Sequence[str]) -> float:
    """Return the mean over classes of the mean value of their queries."""
    return float(np.mean([_mean_of(label, labels, values) for label in sorted(set(labels))]))


def f1_of(label: str, labels: Sequence[str], votes: Sequence[str | None]) -> float:
    """Return the F1 of a label: twice the right votes, over the queries with it plus the votes for it.

    Parameters
    ----------
    label : str
        The label, that of some query.
    labels : sequence of str
        Label of each query.
    votes : sequence of str or None
        What each query was taken for; None if nothing.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    Two queries of a, and two votes for a, one of them right.

    >>> f1_of("a", ["a", "a", "b"], ["a", None, "a"])
    0.5
    """
    right = sum(own == vote == label for own, vote in zip(labels, votes, strict=True))
    return 2 * right / (labels.count(label) + votes.count(label))


def bootstrap_interval(
    values: Sequence[float],
    labels: Sequence[str],
    *,
    level: float = 0.95,
    repeats: int = _REPEATS,
    seed: int = 0,
    over_classes: bool = True,
) -> Interval:
    """Return the percentile bootstrap interval of a mean over queries.

    Queries are drawn with replacement within their class, so that no class vanishes. Queries of one patient
    count as independent, which makes the interval a little too narrow.

    Parameters
    ----------
    values : sequence of float
        One for each query.
    labels : sequence of str
        Class of each query.
    level : float
        Share of the resampled means inside the interval, in (0, 1).
    repeats : int
        Number of resampled means.
    seed : int
        Seed of the draws.
    over_classes : bool
        Take the mean over classes of the mean of their queries, or else the mean over all queries.

    Returns
    -------
    Interval
        Lower and upper end.

    Raises
    ------
    ParameterError
        If `level` or `repeats` is out of range, or there are no values.

    Examples
    --------
    >>> bootstrap_interval([1.0, 1.0, 0.0], ["a", "a", "b"])
    (0.5, 0.5)
    """
    if not 0 < level < 1 or repeats < 1 or not values:
        raise ParameterError(
            f"level {level}, {repeats} repeats, {len(values)} values; give 0 < level < 1 and 1 of both"
        )
    random = np.random.default_rng(seed)
    classes = sorted(set(labels))
    means = np.zeros(repeats)
    for label in classes:
        own = np.array([value for name, value in zip(labels, values, strict=True) if name == label])
        weight = 1 / len(classes) if over_classes else len(own) / len(values)
        means += own[random.integers(0, len(own), (repeats, len(own)))].mean(axis=1) * weight
    return _percentiles(means, level)


def _f1_interval(labels: Sequence[str], votes: Sequence[str | None], *, seed: int = 0) -> Interval:
    """Return the interval of the macro-F1, which is no mean over queries: draw the votes of each class."""
    random = np.random.default_rng(seed)
    classes = sorted(set(labels))
    column = {label: number for number, label in enumerate(classes)}
    right = np.zeros((_REPEATS, len(classes)))
    voted = np.zeros((_REPEATS, len(classes)))
    count = np.array([labels.count(label) for label in classes])
    for number, label in enumerate(classes):
        own = [vote for name, vote in zip(labels, votes, strict=True) if name == label]
        shares = np.zeros(len(classes) + 1)  # last: no vote, or one for a label that no query has
        for vote in own:
            shares[column.get(vote or "", len(classes))] += 1 / len(own)
        drawn = random.multinomial(len(own), shares / shares.sum(), _REPEATS)[:, :-1]
        voted += drawn
        right[:, number] = drawn[:, number]
    return _percentiles((2 * right / (count + voted)).mean(axis=1), 0.95)


def _percentiles(means: NDArray[np.float64], level: float) -> Interval:
    """Return the interval that holds the share `level` of the resampled means."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
