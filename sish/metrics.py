"""How good ranked answers are, by the labels of the query and of the slides that it got.

An *answer* is the query's label and the labels of its results, best first. Definitions follow Chen et al.
2022 (Methods, evaluation); where theirs is unusual the usual one stands beside it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sish.errors import ParameterError, QueryError

__all__ = [
    "Answer",
    "LabelMetrics",
    "Metrics",
    "average_precision",
    "bootstrap_interval",
    "majority_label",
    "retrieval_metrics",
]

Answer = tuple[str, Sequence[str]]
"""Label of a query, labels of its results."""

_PAPER_DIVISOR = 5  # the authors divide by 5 whatever k is


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """The queries of one label."""

    label: str
    """The label."""
    queries: int
    """Number of queries with it."""
    mmv: float
    """Share of them whose majority label is right."""
    map: float
    """Mean average precision, usual definition."""
    map_paper: float
    """Mean average precision, divided by 5 always."""
    f1: float
    """F1 of the majority label as a classifier, this label against the others."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Retrieval measured on labelled queries; the means over classes weigh every class alike."""

    k: int
    """Results looked at."""
    queries: int
    """Number of queries."""
    short: int
    """Queries with fewer than k results."""
    mmv: float
    """mMV@k: mean over classes of the share of queries with the right majority label."""
    mmv_low: float
    """Lower end of its 95 % bootstrap interval over queries."""
    mmv_high: float
    """Upper end."""
    map: float
    """Mean over classes of mean average precision at k, usual definition."""
    map_paper: float
    """The same with the authors' divisor."""
    macro_f1: float
    """Mean over classes of the F1 of the majority label."""
    hit_1: float
    """Share of all queries with a right result at rank 1."""
    hit_3: float
    """The same among the first 3."""
    hit_5: float
    """The same among the first 5."""
    by_label: tuple[LabelMetrics, ...]
    """One row a class, in the order of the labels."""

    def named(self) -> Iterator[tuple[str, float | int]]:
        """Name and value of every figure, for a table."""
        yield "queries", self.queries
        yield f"queries with fewer than {self.k} results", self.short
        yield f"mMV@{self.k}", self.mmv
        yield f"mMV@{self.k}, 95 % from", self.mmv_low
        yield f"mMV@{self.k}, 95 % to", self.mmv_high
        yield f"mAP@{self.k}", self.map
        yield f"mAP@{self.k} as in the paper", self.map_paper
        yield f"macro-F1 of the majority of {self.k}", self.macro_f1
        yield "hit@1", self.hit_1
        yield "hit@3", self.hit_3
        yield "hit@5", self.hit_5

    def one_line(self) -> str:
        """The figures that matter most."""
        k = self.k
        return (
            f"mMV@{k} {self.mmv:.3f} ({self.mmv_low:.3f} to {self.mmv_high:.3f}), mAP@{k} {self.map:.3f}, "
            f"macro-F1 {self.macro_f1:.3f}, hit@1 {self.hit_1:.3f}"
        )


def majority_label(results: Sequence[str], k: int = 5) -> str | None:
    """The most frequent of the first `k` labels, the first seen of equals.

    With fewer than `k` results it needs at least ceil(k / 2) votes; None where it has not.

    >>> majority_label(["b", "a", "a", "b", "c"]), majority_label(["a", "a", "b"]), majority_label(["a"] * 3)
    ('b', None, 'a')
    """
    label, votes = next(iter(Counter(results[:k]).most_common(1)), (None, 0))
    return label if len(results) >= k or votes >= math.ceil(k / 2) else None


def average_precision(
    answer: Answer, k: int = 5, *, relevant: int | None = None, as_paper: bool = False
) -> float:
    """AP@k: the sum of the precision at the ranks of right results among the first `k`, over a divisor.

    The divisor is min(`k`, `relevant`), `relevant` being the number of right slides that there were to
    find; where it is not given, the number of right results among the first `k`. `as_paper` divides by 5
    whatever `k` is. 0 where nothing is right.

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


def retrieval_metrics(
    answers: Sequence[Answer], k: int = 5, *, relevant: Sequence[int] | None = None
) -> Metrics:
    """All figures of `answers` at `k`; 5 is the paper's choice for subtypes and 10 for sites.

    `relevant`, one number a query, is passed on to the usual average precision. A query without results
    counts as wrong everywhere. Raises QueryError where there are no answers.

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
    right = [float(vote == label) for vote, label in zip(votes, labels, strict=True)]
    usual = [average_precision(a, k, relevant=n) for a, n in zip(answers, wanted, strict=True)]
    paper = [average_precision(answer, k, as_paper=True) for answer in answers]
    rows = tuple(
        LabelMetrics(
            label, labels.count(label), _mean_of(label, labels, right), _mean_of(label, labels, usual),
            _mean_of(label, labels, paper), _f1(label, labels, votes),
        )
        for label in sorted(set(labels))
    )  # fmt: skip
    low, high = bootstrap_interval(right, labels)
    return Metrics(
        k=k,
        queries=len(answers),
        short=sum(len(results) < k for _, results in answers),
        mmv=_over(rows, lambda row: row.mmv),
        mmv_low=low,
        mmv_high=high,
        map=_over(rows, lambda row: row.map),
        map_paper=_over(rows, lambda row: row.map_paper),
        macro_f1=_over(rows, lambda row: row.f1),
        hit_1=_hit_rate(answers, 1),
        hit_3=_hit_rate(answers, 3),
        hit_5=_hit_rate(answers, 5),
        by_label=rows,
    )


def _hit_rate(answers: Sequence[Answer], k: int) -> float:
    """Share of the queries with a right result among the first `k`."""
    return sum(label in results[:k] for label, results in answers) / len(answers)


def _mean_of(label: str, labels: Sequence[str], values: Sequence[float]) -> float:
    """Mean value of the queries of one label."""
    return float(np.mean([value for own, value in zip(labels, values, strict=True) if own == label]))


def _over(rows: Sequence[LabelMetrics], value: Callable[[LabelMetrics], float]) -> float:
    """Mean over classes."""
    return float(np.mean([value(row) for row in rows]))


def _f1(label: str, labels: Sequence[str], votes: Sequence[str | None]) -> float:
    """F1 of one label: twice the right votes over the queries with the label and the votes for it."""
    right = sum(own == vote == label for own, vote in zip(labels, votes, strict=True))
    return 2 * right / (labels.count(label) + votes.count(label))


def bootstrap_interval(
    values: Sequence[float], labels: Sequence[str], *, level: float = 0.95, repeats: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over classes of the mean of `values`, one a query.

    Queries are drawn with replacement within their class, so that no class vanishes. Queries of one
    patient are taken as independent, which makes the interval a little too narrow.

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
        means += own[random.integers(0, len(own), (repeats, len(own)))].mean(axis=1) / len(classes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
