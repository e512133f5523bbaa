"""The nearest match of each patch of a query in each slide, and the score of a slide that follows.

What both rankings of :mod:`sish.ranking` share: their answers (`Ranking`), and the score of a hit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.bag_kernels import first_of_each
from sish.index.bags import Bags
from sish.index.compiled import frozen

N_MATCHES = 5
"""Patch pairs that a ranked slide carries, at most."""


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
        slides = slide_numbers(slide, bags)
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
        check_k(k)
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
        nearest = own[np.lexsort((self.hamming[own], self.query_patch[own] >= self.n_query))][:N_MATCHES]
        matches = tuple(
            PatchMatch(int(self.query_patch[i]), int(self.patch[i]), int(self.hamming[i])) for i in nearest
        )
        return RankedSlide(rank, slide, score, None, matches[0].hamming, matches[0].query_patch, matches)


def check_k(k: int) -> None:
    """Refuse a number of slides below 1 (ParameterError)."""
    if k < 1:
        raise ParameterError(f"k is {k}; ask for at least 1 slide")


def slide_numbers(slide: ArrayLike, bags: Bags) -> NDArray[np.int64]:
    """Return the slide number of each result, int64 (R,); ParameterError for anything else."""
    slides = np.asarray(slide, np.int64)
    if slides.shape != bags.patch.shape or slides.min(initial=0) < 0:
        raise ParameterError(
            f"slide has shape {slides.shape} and a least number of {slides.min(initial=0)}; "
            f"give a number from 0 for each result, {bags.patch.shape}"
        )
    return slides
