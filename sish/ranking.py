"""Rankings: from the bags of a query's patches to slides.

`rank_by_uncertainty` is the published ranking (Chen et al. 2022, Methods: weighted uncertainty, cleaning,
filtering by prediction). It reads the labels of the archive's slides. `rank_by_similarity` needs no labels.

A *bag* holds the results of one query patch, best first. A *slide number* is a slide's place in the archive's
list of slides. Rankings take the slide number of each result of the bags.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import LabelsError, ParameterError
from sish.index.bag_kernels import first_unseen, label_votes
from sish.index.bags import Bags
from sish.index.compiled import frozen
from sish.nearest_matches import (
    N_MATCHES,
    NearestMatches,
    PatchMatch,
    RankedSlide,
    Ranking,
    check_k,
    slide_numbers,
)

_FIRST = 5  # the published cleaning reads so many results of a bag, and the prediction so many bags
_FEW_LENGTHS = 3  # bags are cleaned by length only if there are more distinct lengths
_SHORTEST, _LONGEST = 5, 95  # percentiles of the lengths; bags in between are kept

SUBTYPE_WEIGHT = 10.0
"""The paper's sum of class weights for disease subtypes."""
SITE_WEIGHT = 30.0
"""The paper's sum of class weights for anatomic sites."""


@dataclass(frozen=True, slots=True)
class SlideLabels:
    """The labels of an archive, counted once for all queries."""

    names: tuple[str, ...]
    """The distinct labels, in the order first seen."""
    number: NDArray[np.int64]
    """Place in `names` of the label of each slide, (n_slides,)."""
    weight: NDArray[np.float64]
    """Weight of each label, (n_labels,)."""

    @classmethod
    def of(cls, labels: Sequence[str], weight_scale: float = SUBTYPE_WEIGHT) -> "SlideLabels":
        """Count labels: w_L = (W / sum over labels of 1 / n) / n_L, so that rare labels weigh more.

        Parameters
        ----------
        labels : sequence of str
            The label of each slide of the archive.
        weight_scale : float
            W, the sum of all weights: 10 for subtypes and 30 for sites in the paper. It cancels out in the
            ranking.

        Returns
        -------
        SlideLabels
            Labels and their weights.

        Raises
        ------
        ParameterError
            If `weight_scale` is not positive.

        Examples
        --------
        >>> SlideLabels.of(["a", "b", "b", "b"]).weight.tolist()
        [7.5, 2.5]
        """
        if not weight_scale > 0:
            raise ParameterError(f"weight_scale is {weight_scale}; give a positive number")
        places: dict[str, int] = {}
        number = np.array([places.setdefault(label, len(places)) for label in labels], np.int64)
        return cls.counted(list(places), number, weight_scale)

    @classmethod
    def counted(
        cls, names: Sequence[str], number: NDArray[np.int64], weight_scale: float = SUBTYPE_WEIGHT
    ) -> "SlideLabels":
        """Return the labels of slides whose labels are given as places in `names`, int64 (n_slides,)."""
        counts = np.bincount(number, minlength=len(names))
        first = np.full(len(names), len(number))
        first[number[::-1]] = np.arange(len(number))[::-1]  # the last value that is set is the first place
        order = np.argsort(first)[: np.count_nonzero(counts)]  # of the labels, as they were first seen
        place = np.empty(len(names), np.int64)
        place[order] = np.arange(len(order))
        unit = weight_scale / sum(1 / n for n in counts[order].tolist()) if len(order) else 0.0
        return cls(tuple(names[it] for it in order.tolist()), place[number], unit / counts[order])


@dataclass(frozen=True, slots=True)
class _Bag:
    """A bag that is not empty, with what the published ranking needs of it."""

    query_patch: int
    patch: NDArray[np.int64]
    slide: NDArray[np.int64]
    hamming: NDArray[np.int32]
    votes: dict[int, float]  # label number: weight, normalised to sum 1, in the order first seen
    uncertainty: float
    closeness: np.floating  # mean distance of its first results

    @property
    def strongest(self) -> int:
        """The label of the largest weight, the first seen of equal ones."""
        return max(self.votes, key=lambda label: self.votes[label])


def rank_by_uncertainty(
    bags: Bags, slide: ArrayLike, labels: SlideLabels | Sequence[str], *, k: int = 5
) -> Ranking:
    """Return the published ranking of the slides in one query's bags.

    The label weights and the entropy of each bag are computed. Bags of unusual length or large distance are
    dropped. The first five bags vote for a label, and those that disagree with the vote are dropped. Slides
    are taken from the remaining bags, the most certain bag first. They are in order of the uncertainty of
    their bag, then of distance, then of place in the bag. The score is 2 ** -uncertainty: 1 for a bag of one
    label, 1/2 for a bag that is as mixed as two equal labels.

    Parameters
    ----------
    bags : Bags
        The results of all patches of the query.
    slide : int (R,)
        Slide number of each result.
    labels : SlideLabels or sequence of str
        The labels of all slides of the archive, excluded ones too. Count them once for many queries.
    k : int
        Slides wanted, at least 1.

    Returns
    -------
    Ranking
        At most `k` slides. If no bag is left, where the authors' script stops, `reason` says why.

    Raises
    ------
    LabelsError
        If a slide number has no label.
    ParameterError
        If `k` is below 1, or `slide` is not one number a result.

    Examples
    --------
    >>> bags = Bags(np.array([0, 2]), np.array([0, 1]), np.array([3, 4], np.int32))
    >>> answer = rank_by_uncertainty(bags, [7, 2], ["ductal"] * 8)
    >>> [(hit.slide, hit.score) for hit in answer.slides]
    [(7, 1.0), (2, 1.0)]
    """
    check_k(k)
    counted = labels if isinstance(labels, SlideLabels) else SlideLabels.of(labels)
    full = _labelled_bags(bags, slide_numbers(slide, bags), counted)
    if not full:
        return Ranking((), "no patch of the query has a neighbour within the threshold")
    kept, tau = _clean(full)
    if not kept:
        return Ranking((), f"cleaning by length and distance left none of {len(full)} bags")
    removed = _removed_by_prediction(kept[:_FIRST])
    of_bag, places = _collect(kept, tau, len(counted.number))
    agrees = np.array([bag.query_patch not in removed for bag in kept])
    best = np.flatnonzero(agrees[of_bag])[:k]
    if not len(best):
        return Ranking((), "every slide was taken from a bag that disagrees with the prediction")
    witnesses = [bag for bag in kept if bag.query_patch not in removed]
    taken = zip(of_bag[best].tolist(), places[best].tolist(), strict=True)
    return Ranking(tuple(_ranked(n, kept[bag], i, witnesses) for n, (bag, i) in enumerate(taken, start=1)))


def _labelled_bags(bags: Bags, slides: NDArray[np.int64], labels: SlideLabels) -> list[_Bag]:
    """Return the bags that are not empty, with weights and uncertainty."""
    if len(slides) and slides.max() >= len(labels.number):
        raise LabelsError(
            f"slide number {slides.max()} is in a bag and labels has {len(labels.number)}; give one a slide"
        )
    all_votes = _votes(bags, labels.number[slides], labels.weight)
    out = []
    for query_patch, votes in enumerate(all_votes):
        span = slice(bags.offset[query_patch], bags.offset[query_patch + 1])
        if votes:
            hamming = bags.hamming[span]
            closeness = np.mean(hamming[:_FIRST])
            bag = (query_patch, bags.patch[span], slides[span], hamming, votes, _entropy(votes), closeness)
            out.append(_Bag(*bag))
    return out


def _votes(bags: Bags, label: NDArray[np.int64], weight: NDArray[np.float64]) -> list[dict[int, float]]:
    """Return for each bag the weight of each label: the sum of w_L / i over its places i, normalised."""
    begins, labels, sums = label_votes(frozen(bags.offset), frozen(label), frozen(weight))
    out = []
    for start, stop in pairwise(begins.tolist()):
        votes = sums[start:stop].tolist()
        total = sum(votes)
        out.append(
            {number: vote / total for number, vote in zip(labels[start:stop].tolist(), votes, strict=True)}
        )
    return out


def labels_of_bag(
    bags: Bags, slide: ArrayLike, labels: SlideLabels, query_patch: int
) -> tuple[tuple[str, float], ...]:
    """Return the labels in a bag with their weights, whose entropy is the bag's uncertainty.

    Parameters
    ----------
    bags : Bags
        The results of all patches of the query.
    slide : int (R,)
        Slide number of each result.
    labels : SlideLabels
        The labels of all slides of the archive.
    query_patch : int
        The number of the bag.

    Returns
    -------
    tuple of (str, float)
        Labels and weights, which sum to 1; the largest weight first.

    Examples
    --------
    >>> bags = Bags(np.array([0, 2]), np.array([0, 1]), np.array([3, 4], np.int32))
    >>> labels_of_bag(bags, [0, 1], SlideLabels.of(["a", "b"]), 0)
    (('a', 0.666...), ('b', 0.333...))
    """
    votes = _votes(bags, labels.number[slide_numbers(slide, bags)], labels.weight)[query_patch]
    return tuple(
        sorted(((labels.names[label], vote) for label, vote in votes.items()), key=lambda it: -it[1])
    )


def _entropy(votes: dict[int, float]) -> float:
    """Return the entropy in bits, exactly 0 for a single label."""
    return sum((-share * math.log2(share) for share in votes.values()), 0.0)


def _clean(bags: list[_Bag]) -> tuple[list[_Bag], float]:
    """Return the bags of usual length and at most the mean distance tau, most certain first, and tau."""
    lengths = [len(bag.hamming) for bag in bags]
    if len(set(lengths)) > _FEW_LENGTHS:
        low, high = np.percentile(lengths, [_SHORTEST, _LONGEST])
        bags = [bag for bag, length in zip(bags, lengths, strict=True) if low < length < high]
    if not bags:
        return [], math.nan
    tau = float(np.mean([bag.closeness for bag in bags]))
    bags = sorted(bags, key=lambda bag: bag.uncertainty)
    return [bag for bag in bags if bag.closeness <= tau], tau


def _removed_by_prediction(first: list[_Bag]) -> set[int]:
    """Return the query patches of those of the first bags whose strongest label is not the prediction."""
    # the prediction is the label of most weight in these bags that is the strongest label of at least one bag
    total: dict[int, float] = {}
    for bag in first:
        for label, vote in bag.votes.items():
            total[label] = total.get(label, 0.0) + vote
    strongest = [bag.strongest for bag in first]
    prediction = next(label for label in sorted(total, key=lambda it: -total[it]) if label in strongest)
    return {bag.query_patch for bag in first if bag.strongest != prediction}


def _collect(bags: list[_Bag], tau: float, n_slides: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each slide's first entry, by uncertainty, then by distance: numbers of bags, places in them."""
    seen = np.zeros(n_slides, bool)
    taken = []
    for bag in bags:
        enough = len(bag.slide) if bag.uncertainty == 0 else int(np.count_nonzero(bag.hamming <= tau))
        taken.append(first_unseen(frozen(bag.slide[:enough]), seen))
    number = np.repeat(np.arange(len(bags)), [len(places) for places in taken])
    hamming = np.concatenate([bag.hamming[places] for bag, places in zip(bags, taken, strict=True)])
    order = np.lexsort((hamming, np.array([bag.uncertainty for bag in bags])[number]))
    return number[order], np.concatenate(taken)[order]


def _ranked(rank: int, bag: _Bag, place: int, witnesses: list[_Bag]) -> RankedSlide:
    """Return a slide of the answer, with further matches from the bags that made the ranking."""
    slide = int(bag.slide[place])
    made = PatchMatch(bag.query_patch, int(bag.patch[place]), int(bag.hamming[place]))
    others = []
    for other in witnesses:
        places = np.flatnonzero(other.slide == slide)
        if len(places) and other is not bag:
            best = places[0]
            others.append(PatchMatch(other.query_patch, int(other.patch[best]), int(other.hamming[best])))
    others.sort(key=lambda match: match.hamming)
    return RankedSlide(
        rank, slide, 2.0**-bag.uncertainty, bag.uncertainty, made.hamming, made.query_patch,
        (made, *others[: N_MATCHES - 1]),
    )  # fmt: skip


def rank_by_similarity(bags: Bags, slide: ArrayLike, *, k: int = 5, n_bits: int = 1024) -> Ranking:
    """Return the slides that match most of the query; labels are not read.

    Slides are in order of the score of `NearestMatches`, ties by slide number. The score is the share of the
    query's tissue that a slide also holds, where tissue that few slides hold counts more: fat and stroma,
    found everywhere, say little. The order maximises the expected closeness of a query patch drawn with
    probability w_p / sum w. A patch has one match in a slide, so that large slides do not win by repetition.
    Patches that found nothing lower every score alike. A slide that is searched for itself scores 1 where
    each patch finds itself.

    Parameters
    ----------
    bags : Bags
        The results of all patches of the query.
    slide : int (R,)
        Slide number of each result.
    k : int
        Slides wanted, at least 1.
    n_bits : int
        Bits of a barcode.

    Returns
    -------
    Ranking
        At most `k` slides.

    Raises
    ------
    ParameterError
        If `k` is below 1, or `slide` is not one number a result.

    Examples
    --------
    >>> bags = Bags(np.array([0, 2, 3]), np.array([0, 1, 2]), np.array([0, 4, 0], np.int32))
    >>> answer = rank_by_similarity(bags, [7, 8, 7], n_bits=16)
    >>> [(hit.slide, hit.score) for hit in answer.slides]       # w = log 2, log 3; 8 has c = 1/2 once
    [(7, 1.0), (8, 0.193...)]
    """
    return NearestMatches.of(bags, slide, n_bits=n_bits).ranking(k)
