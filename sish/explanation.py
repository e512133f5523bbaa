"""Why a search ranked a slide where it is: each patch of the query, its match in the slide, what it counts.

The search is made again with the same codes, filters and parameters, in the state of the index that is
current. So the weights and the bags are those of the answer. The distances in `PatchShare` are exact: each
patch of the query is compared with all patches of the slide, while a search looks at a bounded number.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.distances import distances
from sish.encode import SlideCodes
from sish.explanation_words import Facts, ordinal, words_of
from sish.filters import filters_of
from sish.nearest_matches import NearestMatches, RankedSlide
from sish.ranking import labels_of_bag
from sish.rerank import Rerank
from sish.results import Asked, Results
from sish.searchers import SlideMask
from sish.view import Stage, View

_LONGER = 1000  # hits of a longer answer, in which the place of a slide is looked up
_EDGES = 64  # of a histogram over all bits: 16 bits a bin of 1,024


@dataclass(frozen=True, slots=True)
class PatchShare:
    """A patch of the query, its nearest match in the slide, and its share of the score."""

    query_row: int
    """Number of the query's patch, from 0."""
    query_xy: tuple[int, int] | None
    """Top left corner of the query's patch, level-0 pixels; None if its place is not known."""
    row: int
    """Number of the nearest patch of the slide, from 0, in the order in which they were added."""
    xy: tuple[int, int] | None
    """Its top left corner, level-0 pixels; None if its place is not known."""
    hamming: int
    """Distance of the two in bits; no other patch of the slide is nearer."""
    counted: int | None
    """Distance in bits of the match that the search counted; None if it counted none: within its budget it
    found none that is near enough. It may be larger than `hamming`, where the budget missed the nearest."""
    closeness: float
    """1 - 2 `counted` / `n_bits`, at least 0; 0 without a counted match."""
    weight: float
    """Weight of this patch, the larger the fewer slides have a match of it; the weights sum to 1."""
    share: float
    """`weight` times `closeness`; the shares sum to the score. In a refined search the rest of the score, and
    of the weights, is that of liked examples."""
    found_in: int
    """Number of slides in which the search counted a match of this patch."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {it.name: getattr(self, it.name) for it in fields(self)}
        return plain | {name: plain[name] and list(plain[name]) for name in ("query_xy", "xy")}


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of distances: of the query's patches to their nearest match in a slide."""

    edges: tuple[int, ...]
    """B + 1 edges of the bins in bits; a bin holds its lower edge, and the last one both."""
    slide: tuple[int, ...]
    """Counts of this slide, (B,): one for each patch of the query."""
    archive: tuple[int, ...]
    """Counts of all other slides, (B,), as far as the search looks without a threshold."""


@dataclass(frozen=True, slots=True)
class BagLabels:
    """The bag that placed a slide in a ranking by uncertainty: the labels of what one query patch found."""

    query_row: int
    """Number of the query's patch; in a refined search those of liked examples come after the query's."""
    labels: tuple[tuple[str, float], ...]
    """Labels and their weights, which sum to 1; the largest first."""
    uncertainty: float
    """Their entropy in bits: 0 for one label."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a slide was ranked where it is."""

    slide_id: str
    """The slide."""
    rank: int | None
    """Its place in the answer, from 1; None if it is not among the hits."""
    score: float
    """Its score, as of :class:`sish.Hit`; 0 for a slide in which the search found no match."""
    threshold: int
    """Largest distance in bits at which two patches count as similar."""
    n_bits: int
    """Bits of a barcode."""
    patches: tuple[PatchShare, ...]
    """One for each patch of the query; none if the slide has no patches."""
    histogram: Histogram
    """Distances in this slide, and in all others."""
    bag: BagLabels | None
    """What placed it, where a ranking by uncertainty did."""
    words: tuple[str, ...]
    """The same in plain sentences."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {it.name: getattr(self, it.name) for it in fields(self)}
        histogram, bag = self.histogram, self.bag
        return plain | {
            "patches": [patch.to_dict() for patch in self.patches],
            "histogram": {it.name: list(getattr(histogram, it.name)) for it in fields(histogram)},
            "bag": None
            if bag is None
            else {
                "query_row": bag.query_row,
                "labels": [list(pair) for pair in bag.labels],
                "uncertainty": bag.uncertainty,
            },
            "words": list(self.words),
        }


@dataclass(frozen=True, slots=True)
class _Search:
    """A search, made again, and the slide of which it is asked."""

    view: View
    asked: Asked
    ranking: str
    exclude: SlideMask | None
    """The slides that may not be found."""
    slide: int | None
    """Place of the slide in `View.order`; None if it has no patches."""
    taken: tuple[tuple[RankedSlide, Stage], ...]
    """The answer."""
    nearest: NearestMatches
    """The matches that the slide's score counts."""
    place: int | None
    """Number of the slide in the answer, from 0."""

    @classmethod
    def again(cls, view: View, asked: Asked, ranking: str, number: int | None) -> _Search:
        """Search again; `number` is the slide's in the searcher."""
        exclude = view.excluded(asked.patient, filters_of(asked.where), None, asked.examples)
        taken, _ = view.taken(ranking, asked.codes, exclude, asked.k, asked.params, asked.examples)
        slide = None if number is None else int(view.searcher.rank[number])
        place = next((n for n, (ranked, _) in enumerate(taken) if ranked.slide == slide), None)
        if place is not None:
            stage = taken[place][1]
        else:
            stage = next(view.stages(ranking, asked.codes, exclude, asked.k, asked.params, asked.examples))
        return cls(view, asked, ranking, exclude, slide, tuple(taken), stage.neighbours.nearest, place)

    @property
    def score(self) -> float:
        """The slide's score."""
        own = self.nearest.slides == self.slide
        return float(self.nearest.score[own].sum())

    def counted(self) -> dict[int, int]:
        """Return the distance of the match of each query patch in the slide that the score counts."""
        own = self.nearest.slide == self.slide
        pairs = zip(self.nearest.query_patch[own].tolist(), self.nearest.hamming[own].tolist(), strict=True)
        return dict(pairs)

    def bag(self) -> BagLabels | None:
        """Return the bag that placed the slide in a ranking by uncertainty."""
        if self.place is None or self.ranking != "uncertainty":
            return None
        ranked, stage = self.taken[self.place]
        if not stage.placed or ranked.uncertainty is None:
            return None
        within, slides = stage.neighbours.within(self.asked.params.threshold)
        labels = labels_of_bag(within, slides, self.view.labels, ranked.query_patch)
        return BagLabels(ranked.query_patch, labels, float(ranked.uncertainty))

    def later(self) -> str:
        """Return the place in a longer answer of a slide that is not in this one; empty if it has none."""
        if self.ranking == "similarity":
            own = np.flatnonzero(self.nearest.slides == self.slide)
            return f"would be the {ordinal(self._place_by_score(int(own[0])))}" if len(own) else ""
        asked = self.asked
        stage = next(
            self.view.stages(self.ranking, asked.codes, self.exclude, _LONGER, asked.params, asked.examples)
        )
        slides = [ranked.slide for ranked in stage.ranking.slides]
        if self.slide in slides:
            return f"would be the {ordinal(slides.index(self.slide) + 1)}"
        return f"would come after the {ordinal(_LONGER)}" if len(slides) == _LONGER else ""

    def _place_by_score(self, own: int) -> int:
        """Return the place of a match's slide in a ranking by similarity, from 1."""
        score = self.nearest.score
        return 1 + int(np.count_nonzero(score > score[own]) + np.count_nonzero(score[:own] == score[own]))

    def elsewhere(self) -> NDArray[np.int32]:
        """Return the distances of the query's patches to their nearest match in every other slide."""
        searcher = self.view.searcher
        bags = self.view.everything(self.asked.codes, self.exclude, self.asked.params)
        nearest = NearestMatches.of(
            bags, searcher.rank[searcher.slide_of(bags.patch)], n_bits=searcher.n_bits
        )
        others: NDArray[np.int32] = nearest.hamming[nearest.slide != self.slide]
        return others

    def left_out(self) -> str:
        """Return why the slide may not be found, in words; empty if it may."""
        if self.slide is None:
            return "no tissue was found in it"
        number = int(self.view.order[self.slide])
        slides = self.view.searcher.slides
        if self.asked.patient is not None and slides[number].patient == self.asked.patient:
            return f"it is of the query's own patient, {self.asked.patient}"
        examples = self.asked.examples
        if examples is not None and slides[number].slide_id in examples.excluded:
            return "it was marked as unlike what is wanted"
        columns = [it.column for it in filters_of(self.asked.where) if not it.passed(slides)[number]]
        return f"it does not meet the condition on {columns[0]}" if columns else ""


def explain(
    results: Results,
    asked: Asked,
    slide_id: str,
    codes: SlideCodes | None,
    view: View,
    *,
    rerank: Rerank | None,
    is_changed: bool,
) -> Explanation:
    """Explain the place of a slide in an answer: see :meth:`sish.Index.explain`.

    Parameters
    ----------
    results : Results
        The answer.
    asked : Asked
        How it was asked.
    slide_id : str
        The slide.
    codes : SlideCodes or None
        Its patches; None if it has none.
    view : View
        The state of the index that is current.
    rerank : Rerank, optional
        How the index keeps vectors.
    is_changed : bool
        Whether the index was changed after the answer.

    Returns
    -------
    Explanation
        The reasons.
    """
    number = None if codes is None else view.number_of(slide_id)
    search = _Search.again(view, asked, results.ranking, number)
    rank = next((hit.rank for hit in results if hit.slide_id == slide_id), None)
    bits = (
        np.empty((len(asked.codes), 0), np.int32) if codes is None else distances(asked.codes, codes, rerank)
    )
    patches = _shares(bits, search, codes)
    bag = search.bag()
    hit = None if search.place is None else search.taken[search.place]
    facts = Facts(
        ranking=results.ranking,
        rank=rank,
        k=asked.k,
        is_placed=hit is not None and hit[1].placed,
        now=None if search.place is None else search.place + 1,
        later="" if hit is not None or search.left_out() else search.later(),
        left_out=search.left_out(),
        is_changed=is_changed,
        score=search.score,
        threshold=asked.params.threshold,
        reach=max(asked.params.threshold, asked.params.reach),
        n_bits=view.searcher.n_bits,
        hamming=tuple(patch.hamming for patch in patches),
        counted=tuple(patch.counted for patch in patches),
        shares=tuple(patch.share for patch in patches),
        n_slides=len(search.nearest.slides),
        bag=None if bag is None else (bag.query_row, bag.labels[0], bag.uncertainty),
        is_refined=asked.examples is not None and bool(asked.examples.like),
    )
    return Explanation(
        slide_id=slide_id,
        rank=rank,
        score=search.score,
        threshold=asked.params.threshold,
        n_bits=view.searcher.n_bits,
        patches=patches,
        histogram=_histogram(bits, search.elsewhere(), view.searcher.n_bits),
        bag=bag,
        words=words_of(facts),
    )


def _shares(bits: NDArray[np.int32], search: _Search, codes: SlideCodes | None) -> tuple[PatchShare, ...]:
    """Return the share of each patch of the query; `bits` are its distances to the slide's patches."""
    if codes is None:
        return ()
    asked, counted, weight = search.asked.codes, search.counted(), search.nearest.weight
    found_in = np.bincount(search.nearest.query_patch, minlength=len(asked))
    out = []
    for number, row in enumerate(bits.argmin(axis=1).tolist()):
        match = counted.get(number)
        closeness = 0.0 if match is None else max(0.0, 1.0 - 2.0 * match / search.view.searcher.n_bits)
        part = float(weight[number] / weight.sum())
        out.append(
            PatchShare(
                query_row=number,
                query_xy=_place(asked, number),
                row=row,
                xy=_place(codes, row),
                hamming=int(bits[number, row]),
                counted=match,
                closeness=closeness,
                weight=part,
                share=part * closeness,
                found_in=int(found_in[number]),
            )
        )
    return tuple(out)


def _place(codes: SlideCodes, row: int) -> tuple[int, int] | None:
    return None if codes.l0_xy is None else (int(codes.l0_xy[row, 0]), int(codes.l0_xy[row, 1]))


def _histogram(bits: NDArray[np.int32], elsewhere: NDArray[np.int32], n_bits: int) -> Histogram:
    """Return the counts of both distances, over bins that end where the largest distance is."""
    own = bits.min(axis=1) if bits.size else np.empty(0, np.int32)
    step = max(1, n_bits // _EDGES)
    most = max(own.max(initial=0), elsewhere.max(initial=0), n_bits // 2)
    edges = np.arange(0, most + step, step)
    counts = (np.histogram(values, edges)[0].tolist() for values in (own, elsewhere))
    slide, archive = (tuple(it) for it in counts)
    return Histogram(tuple(edges.tolist()), slide, archive)
