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
from sish.index.bag_kernels import first_of_each, first_unseen, label_votes
from sish.index.bags import Bags
from sish.index.compiled import frozen

_FIRST = 5  # the published cleaning reads so many results of a bag, and the prediction so many bags
_FEW_LENGTHS = 3  # bags are cleaned by length only if there are more distinct lengths
_SHORTEST, _LONGEST = 5, 95  # percentiles of the lengths; bags in between are kept
_N_MATCHES = 5  # patch pairs that a ranked slide carries

SUBTYPE_WEIGHT = 10.0
"""The paper's sum of class weights for disease subtypes."""
SITE_WEIGHT = 30.0
"""The paper's sum of class weights for anatomic sites."""


@dataclass(frozen=True, slots=True)
class PatchMatch:
    """A patch of the query, and a patch of the archive that it found."""

    query_patch: int
    """Number of the patch within the query."""
    patch: int
    """Number of the patch in the archive, as in `Bags`."""
    hamming: int
    """Distance of their barcodes in bits."""


@dataclass(frozen=True, slots=True)
class RankedSlide:
    """A slide of an answer."""

    rank: int
    """1 for the first."""
    slide: int
    """Slide number."""
    score: float
    """In [0, 1]; the list is in falling order of it. It is 2 ** -uncertainty in a ranking by uncertainty, and
    the score of `NearestMatches` in one by similarity. (A `sish.Hit` has the latter score in both.)"""
    uncertainty: float | None
    """Entropy in bits of the labels in the bag that placed it; None where labels are not read."""
    hamming: int
    """Distance in bits of the match that placed it; in a ranking by similarity, its best match."""
    query_patch: int
    """Number of the query's patch in that match."""
    matches: tuple[PatchMatch, ...]
    """That match first, then matches of other query patches, nearest first; at most five."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranked slides of one query."""

    slides: tuple[RankedSlide, ...]
    """Best first."""
    reason: str = ""
    """Why there are no slides; empty if there are."""


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
    _check_k(k)
    counted = labels if isinstance(labels, SlideLabels) else SlideLabels.of(labels)
    full = _labelled_bags(bags, _slide_numbers(slide, bags), counted)
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


def _check_k(k: int) -> None:
    if k < 1:
        raise ParameterError(f"k is {k}; ask for at least 1 slide")


def _slide_numbers(slide: ArrayLike, bags: Bags) -> NDArray[np.int64]:
    """Return the slide number of each result, int64 (R,); ParameterError for anything else."""
    slides = np.asarray(slide, np.int64)
    if slides.shape != bags.patch.shape or slides.min(initial=0) < 0:
        raise ParameterError(
            f"slide has shape {slides.shape} and a least number of {slides.min(initial=0)}; "
            f"give a number from 0 for each result, {bags.patch.shape}"
        )
    return slides


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
    votes = _votes(bags, labels.number[_slide_numbers(slide, bags)], labels.weight)[query_patch]
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
        (made, *others[: _N_MATCHES - 1]),
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


@dataclass(frozen=True, slots=True)
class SlideScore:
    """How well a slide matches a query; see `NearestMatches`."""

    score: float
    """Weighted mean closeness of the query's patches to their nearest match in the slide, in [0, 1]."""
    n_matched: int
    """Number of query patches that have a match in the slide, as near as was asked for."""
    median_distance: float
    """Median distance in bits of these patches to their nearest match; without any, of those of examples."""


@dataclass(frozen=True, slots=True)
class NearestMatches:
    """The nearest match of each query patch in each slide of some bags, and the score of each slide.

    For query patch p and slide s let d be the distance of the nearest entry of s in the bag of p. The
    closeness c(p, s) = max(0, 1 - 2 d / `n_bits`) is the correlation of the two barcodes as +-1 vectors: 1
    for equal ones, 0 for unrelated ones and where the bag has no entry of s. The score is

        score(s) = sum_p w_p c(p, s) / sum_p w_p,     w_p = log(1 + n_slides / n_p)

    with n_p the number of slides in the bag of p (at least 1) and n_slides that of all bags together.

    Examples
    --------
    >>> bags = Bags(np.array([0, 2, 3]), np.array([0, 1, 2]), np.array([0, 4, 6], np.int32))
    >>> NearestMatches.of(bags, [7, 8, 7], n_bits=16).of_slide(7)
    SlideScore(score=0.540..., n_matched=2, median_distance=3.0)
    """

    query_patch: NDArray[np.int64]
    """Number of the query patch of each match, (M,), ascending."""
    slide: NDArray[np.int64]
    """Slide number of each match, (M,), in the order of the bag within a query patch."""
    patch: NDArray[np.int64]
    """Patch number of each match, (M,)."""
    hamming: NDArray[np.int32]
    """Distance in bits of each match, (M,)."""
    slides: NDArray[np.int64]
    """The slides that have a match, (S,), ascending."""
    score: NDArray[np.float64]
    """Their scores, (S,)."""
    weight: NDArray[np.float64]
    """w_p of each query patch, (Q,)."""
    n_query: int
    """Number of query patches; patches of liked examples come after them."""

    @classmethod
    def of(
        cls,
        bags: Bags,
        slide: ArrayLike,
        *,
        n_bits: int = 1024,
        importance: NDArray[np.float64] | None = None,
        n_query: int | None = None,
    ) -> "NearestMatches":
        """Find the nearest match of each query patch in each slide, O(R + largest slide number).

        Parameters
        ----------
        bags : Bags
            The R results of all patches of the query.
        slide : int (R,)
            Slide number of each result.
        n_bits : int
            Bits of a barcode.
        importance : float64 (Q,), optional
            Factors of the weights w_p. Default: 1.
        n_query : int, optional
            Number of query patches; the others are of liked examples (:mod:`sish.examples`). Default: all.

        Returns
        -------
        NearestMatches
            Of all slides that have a result.

        Raises
        ------
        ParameterError
            If `slide` is not one number a result.
        """
        slides = _slide_numbers(slide, bags)
        entry, found_in, seen = first_of_each(frozen(bags.offset), frozen(slides))
        names, own = np.flatnonzero(seen), slides[entry]
        query_patch, hamming = np.repeat(np.arange(len(bags)), found_in), bags.hamming[entry]
        weight = np.log1p(len(names) / np.maximum(found_in, 1))
        if importance is not None:
            weight = weight * importance
        closeness = np.maximum(0.0, 1.0 - 2.0 * hamming / n_bits)
        # both sums run in the order of the query's patches: a slide equal to the query scores exactly 1
        whole = np.bincount(np.zeros(len(bags), dtype=np.int64), weights=weight)
        place = (np.cumsum(seen) - 1)[own]
        score = np.bincount(place, weights=weight[query_patch] * closeness) / whole
        return cls(
            query_patch,
            own,
            bags.patch[entry],
            hamming,
            names,
            score,
            weight,
            len(bags) if n_query is None else n_query,
        )

    def ranking(self, k: int) -> Ranking:
        """Return the `k` slides of the highest scores, ties by slide number."""
        _check_k(k)
        if not len(self.slides):
            return Ranking((), "no patch of the query has a neighbour within the threshold")
        best = np.lexsort((self.slides, -self.score))[:k]
        return Ranking(
            tuple(
                self._ranked(rank, int(self.slides[i]), float(self.score[i]))
                for rank, i in enumerate(best, 1)
            )
        )

    def of_slide(self, slide: int, threshold: int | None = None) -> SlideScore:
        """Return the score of a slide that has a match, and two figures of its matches.

        Parameters
        ----------
        slide : int
            Its number.
        threshold : int, optional
            The figures are of the matches within so many bits, unless none is. Default: of all.

        Returns
        -------
        SlideScore
            The score and the figures.
        """
        matched = self.slide == slide
        of_query = self.hamming[matched & (self.query_patch < self.n_query)]
        distances = of_query if len(of_query) else self.hamming[matched]
        similar = distances if threshold is None else distances[distances <= threshold]
        score = self.score[np.searchsorted(self.slides, slide)]
        told = similar if len(similar) else distances
        return SlideScore(float(score), len(told) if len(of_query) else 0, float(np.median(told)))

    def _ranked(self, rank: int, slide: int, score: float) -> RankedSlide:
        """Return a slide of the answer with its nearest matches."""
        own = np.flatnonzero(self.slide == slide)
        nearest = own[np.lexsort((self.hamming[own], self.query_patch[own] >= self.n_query))][:_N_MATCHES]
        matches = tuple(
            PatchMatch(int(self.query_patch[i]), int(self.patch[i]), int(self.hamming[i])) for i in nearest
        )
        return RankedSlide(rank, slide, score, None, matches[0].hamming, matches[0].query_patch, matches)
