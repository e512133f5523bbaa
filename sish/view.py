"""A searchable view of an index: one state of its patches, and the search over it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideCodes
from sish.errors import ParameterError, QueryError
from sish.examples import Examples
from sish.filters import Filter, Where, filters_of
from sish.index.bags import Bags
from sish.index.params import SearchParams
from sish.index.store import SlideRow
from sish.nearest import nearest_to
from sish.nearest_matches import NearestMatches, RankedSlide, Ranking
from sish.ranking import SlideLabels, rank_by_uncertainty
from sish.results import Asked, Commit, ExamplePair, Hit, PatchPair, Query, Results
from sish.searchers import Searcher, SlideMask

RankingName = Literal["auto", "uncertainty", "similarity"]
"""``auto`` is ``uncertainty`` where every slide has a label, else ``similarity``."""

_SCANNED = 64  # patches that a scan takes for each query patch


@dataclass(frozen=True, slots=True)
class View:
    """One state of an index, ready to be searched; later changes of the index do not show in it."""

    searcher: Searcher
    """Slides and patches."""
    found: SlideMask
    """Slides that can be found, bool (slides,)."""
    order: NDArray[np.int64]
    """Numbers of all slides in order of their ids, (slides,). A ranking's slide number is a place here."""
    unlabelled: NDArray[np.int64]
    """Numbers of the slides that can be found and have no label, in order of their ids."""
    labels: SlideLabels
    """The counted labels of slides that can be found; slides without a label share the empty label."""
    commit: Commit | None = None
    """What the searcher searches; None for patches in memory."""

    @classmethod
    def of(cls, searcher: Searcher, commit: Commit | None = None) -> View:
        """Return the view of a searcher's slides; nothing is copied."""
        slides, found = searcher.slides, searcher.found
        order = slides.id_order
        shown = order[found[order]]
        own, names = slides.values("label")
        own = own[shown]
        names = [*names, ""]  # of slides without a label
        labels = SlideLabels.counted(names, np.where(own < 0, names.index(""), own))
        number = np.full(len(found), -1, np.int64)  # slides that cannot be found do not count
        number[found[order]] = labels.number
        return cls(searcher, found, order, shown[own < 0], replace(labels, number=number), commit)

    def search(
        self,
        query: Query,
        codes: SlideCodes,
        *,
        k: int = 5,
        ranking: RankingName = "auto",
        exclude_patient: bool = False,
        where: Where | None = None,
        mask: SlideMask | None = None,
        search: SearchParams | Mapping[str, Any] | None = None,
        examples: Examples | None = None,
    ) -> Results:
        """Rank the slides of this view for an encoded query; see :meth:`sish.Index.search`.

        If the ranking places fewer than k slides, the list is filled in three steps. First come slides of the
        same bags, ranked by similarity. Then come the nearest slides of the same search without a threshold.
        If filters left too few of these, all patches that are allowed are scanned.

        Parameters
        ----------
        query : Query
            The query, as the results name it.
        codes : SlideCodes
            Its keys and barcodes.
        k : int
            How many hits are wanted.
        ranking : {"auto", "uncertainty", "similarity"}
            How slides are ranked.
        exclude_patient : bool
            Leave out slides of the query's patient.
        where : mapping, optional
            Only slides that pass these conditions, by column (:mod:`sish.filters`).
        mask : bool (slides,), optional
            True for slides that may be found, in the order of `searcher.slides`.
        search : SearchParams or mapping, optional
            Changes to the searcher's parameters for this query, such as budget and threshold.
        examples : Examples, optional
            Examples to ask with beside the query (:mod:`sish.examples`).

        Returns
        -------
        Results
            At most `k` hits, best first.

        Raises
        ------
        ParameterError
            If `k` is not a positive whole number, `where` makes no sense, the mask is not one value a slide,
            or a search parameter or the ranking is unknown.
        QueryError
            If no slide has a column of `where`, or the ranking needs labels that are not there.
        """
        if not isinstance(k, int) or k < 1:
            raise ParameterError(f"got k={k!r}; want a whole number of at least 1")
        filters = filters_of(where)
        name, note = self.choose_ranking(ranking)
        params = self.searcher.params.with_changes(search or {})
        patient = query.patient if exclude_patient else None
        asked = None if mask is not None else Asked(codes, k, patient, where, params, self.commit, examples)
        if not self.found.any():
            return Results(query, name, (), "the index holds no patches: add slides first", asked)
        exclude = self.excluded(patient, filters, mask, examples)
        if exclude is not None and exclude[self.found].all():
            return Results(query, name, (), _joined(note, self._why_none(filters)), asked)
        taken, reason = self.taken(name, codes, exclude, k, params, examples)
        places = self._places([ranked for ranked, _ in taken])
        hits = [
            self._hit(ranked, stage, codes, params.threshold, examples, own)
            for (ranked, stage), own in zip(taken, places, strict=True)
        ]
        return Results(query, name, _in_order(hits), _joined(note, reason), asked)

    def taken(
        self,
        name: str,
        codes: SlideCodes,
        exclude: SlideMask | None,
        k: int,
        params: SearchParams,
        examples: Examples | None = None,
    ) -> tuple[list[tuple[RankedSlide, Stage]], str]:
        """Take slides for an answer.

        Parameters
        ----------
        name : str
            The ranking.
        codes : SlideCodes
            The query.
        exclude : bool (slides,), optional
            True for slides that may not be found.
        k : int
            How many are wanted.
        params : SearchParams
            Budget and threshold.
        examples : Examples, optional
            Examples to ask with beside the query.

        Returns
        -------
        list of (RankedSlide, Stage)
            At most `k` slides, best first, each with the step of the search that placed it.
        str
            Why the ranking placed fewer, or nothing.
        """
        taken: list[tuple[RankedSlide, Stage]] = []
        found: set[int] = set()
        reason = ""
        for stage in self.stages(name, codes, exclude, k, params, examples):
            new = [ranked for ranked in stage.ranking.slides if ranked.slide not in found][: k - len(taken)]
            found |= {ranked.slide for ranked in new}
            taken += [(ranked, stage) for ranked in new]
            reason = reason or stage.ranking.reason
            if len(taken) == k:
                break
        return taken, reason

    def number_of(self, slide_id: str) -> int | None:
        """Return the number of a slide that can be found, by its id; None if there is none."""
        numbers = np.flatnonzero(self.searcher.slides.has("slide_id", slide_id) & self.found)
        return int(numbers[0]) if len(numbers) else None

    def choose_ranking(self, asked: RankingName) -> tuple[Literal["uncertainty", "similarity"], str]:
        """Choose the ranking.

        Parameters
        ----------
        asked : {"auto", "uncertainty", "similarity"}
            The ranking asked for.

        Returns
        -------
        str
            The ranking to use.
        str
            A note, if ``auto`` could not take the ranking that reads labels; else empty.

        Raises
        ------
        ParameterError
            If there is no such ranking.
        QueryError
            If it needs labels that are not there.
        """
        if asked not in ("auto", "uncertainty", "similarity"):
            near = nearest_to(str(asked), ("auto", "uncertainty", "similarity"))
            raise ParameterError(f"got ranking={asked!r}{near}; want 'auto', 'uncertainty' or 'similarity'")
        bare, n_slides = self.unlabelled, int(np.count_nonzero(self.found))
        if asked == "similarity" or not len(bare):
            return ("similarity" if asked == "similarity" else "uncertainty"), ""
        some = ", ".join(self.searcher.slides[number].slide_id for number in bare[:3].tolist())
        some += f" and {len(bare) - 3} more" if len(bare) > 3 else ""
        if asked == "uncertainty":
            raise QueryError(
                f"ranking by uncertainty needs a label for every slide, and these have none: {some}; "
                "add labels with sish index label, or rank by similarity"
            )
        have = "has" if len(bare) == 1 else "have"
        note = f"{len(bare)} of {n_slides} slides {have} no label ({some})"
        return "similarity", "" if len(bare) == n_slides else note

    def stages(
        self,
        name: str,
        codes: SlideCodes,
        exclude: SlideMask | None,
        k: int,
        params: SearchParams,
        examples: Examples | None = None,
    ) -> Iterator[Stage]:
        """Yield the ranking that was asked for, then those that fill its list; arguments as of `taken`."""
        counted = replace(params, threshold=max(params.threshold, params.reach))
        asking, everyone, n_query = codes, codes, len(codes)
        if examples is not None:
            asking, everyone = examples.asking(codes), examples.all_of(codes)
        near = self._neighbours(self.searcher.bags(everyone, exclude, counted), n_query, examples)
        if name == "uncertainty":
            bags, slide = near.within(params.threshold)
            yield Stage(near, rank_by_uncertainty(bags, slide, self.labels, k=k), placed=True)
        yield Stage(near, near.nearest.ranking(2 * k), placed=name == "similarity")
        # a scan for slides that are lacking still asks with the asking patches alone: what is nearer to an
        # unliked patch comes last
        for bags in chain([self.everything(everyone, exclude, params)], self._scans(asking, exclude)):
            far = self._neighbours(bags, n_query, examples)
            yield Stage(far, replace(far.nearest.ranking(2 * k), reason=""), placed=False)

    def everything(self, codes: SlideCodes, exclude: SlideMask | None, params: SearchParams) -> Bags:
        """Return the bags of a search without a threshold."""
        return self.searcher.bags(codes, exclude, replace(params, threshold=self.searcher.n_bits))

    def _neighbours(self, bags: Bags, n_query: int, examples: Examples | None) -> Neighbours:
        """Return bags with the slide of each result, and what both rankings take from them."""
        importance = None
        if examples is not None:
            bags, importance = examples.kept(bags, n_query), examples.importance(n_query)
        slide = self.searcher.rank[self.searcher.slide_of(bags.patch)]
        nearest = NearestMatches.of(
            bags, slide, n_bits=self.searcher.n_bits, importance=importance, n_query=n_query
        )
        return Neighbours(bags, slide, nearest)

    def _scans(self, codes: SlideCodes, exclude: SlideMask | None) -> Iterator[Bags]:
        """Yield bags of the nearest patches: of all allowed slides, then of the slides not found yet, ..."""
        done = ~self.found if exclude is None else exclude | ~self.found
        for _ in range(np.count_nonzero(~done)):  # each scan finds one slide at least
            found = self.searcher.scan(codes, done, _SCANNED)
            if not len(found.patch):
                return
            yield found
            done[self.searcher.slide_of(found.patch)] = True
            if done.all():
                return

    def excluded(
        self,
        patient: str | None,
        filters: Sequence[Filter],
        mask: SlideMask | None,
        examples: Examples | None = None,
    ) -> SlideMask | None:
        """Return which slides may not be found, bool (slides,); None if all may."""
        unlike = () if examples is None else examples.excluded
        if patient is None and not filters and mask is None and not unlike:
            return None
        excluded = np.zeros_like(self.found) if mask is None else ~_of_slides(mask, self.found)
        if patient is not None:
            excluded |= self.searcher.slides.has("patient", patient)
        for it in filters:
            excluded |= ~it.passed(self.searcher.slides)
        for slide_id in unlike:
            excluded |= self.searcher.slides.has("slide_id", slide_id)
        return excluded

    def _why_none(self, filters: Sequence[Filter]) -> str:
        """Return why no slide is left: a filter that none passes, else all filters together."""
        reasons = (it.why_none(self.searcher.slides, self.found) for it in filters)
        together = "no slide is left after the filters and the exclusion of a patient or of unlike slides"
        return next((f"no slide is left: {reason}" for reason in reasons if reason), together)

    def _places(self, found: Sequence[RankedSlide]) -> list[NDArray[np.integer]]:
        """Return place and row of the patches of each slide, (N, 3), x first; all are read at once."""
        patches = [np.array([match.patch for match in ranked.matches], np.int64) for ranked in found]
        together = np.concatenate([np.empty(0, np.int64), *patches])
        xy, row = self.searcher.l0_xy_of(together), self.searcher.row_of(together)
        ends = np.cumsum([len(own) for own in patches])[:-1]
        return np.split(np.column_stack([xy, row]), ends) if found else []

    def _hit(
        self,
        ranked: RankedSlide,
        stage: Stage,
        codes: SlideCodes,
        threshold: int,
        examples: Examples | None,
        places: NDArray[np.integer],
    ) -> Hit:
        row = self.searcher.slides[int(self.order[ranked.slide])]
        pairs, of_examples = self._pairs(ranked, row, codes, examples, places)
        found = stage.neighbours.nearest.of_slide(ranked.slide, threshold)
        return Hit(
            rank=0,
            slide_id=row.slide_id,
            path=row.path,
            mpp=row.mpp or None,
            patch_l0_px=row.patch_l0_px or None,
            label=row.label,
            patient=row.patient,
            score=found.score,
            n_matched=found.n_matched,
            median_distance=found.median_distance,
            uncertainty=None if ranked.uncertainty is None else float(ranked.uncertainty),
            placed=stage.placed,
            below_threshold=min(match.hamming for match in ranked.matches) > threshold,
            patches=pairs,
            metadata=row.metadata,
            examples=of_examples,
        )

    def _pairs(
        self,
        ranked: RankedSlide,
        row: SlideRow,
        codes: SlideCodes,
        examples: Examples | None,
        places: NDArray[np.integer],
    ) -> tuple[tuple[PatchPair, ...], tuple[ExamplePair, ...]]:
        """Return the pairs of patches that made a slide a hit: the query's, and those of liked examples."""
        own: list[PatchPair] = []
        others: list[ExamplePair] = []
        for match, place in zip(ranked.matches, places, strict=True):
            number = int(place[2])
            asked, bits = int(match.query_patch), int(match.hamming)
            xy = _point(place) if row.has_places else None
            if examples is None or asked < len(codes):
                own.append(PatchPair(_place_of(codes, asked), xy, bits, asked, number))
            else:
                example, at = examples.source(asked, len(codes))
                others.append(
                    ExamplePair(example.slide_id, _place_of(example.codes, at), xy, bits, at, number)
                )
        return tuple(own), tuple(others)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The bags of a query, and what both rankings take from them."""

    bags: Bags
    """The bags."""
    slide: NDArray[np.int64]
    """Place of each result's slide in `View.order`, (R,)."""
    nearest: NearestMatches
    """The nearest match of each query patch in each slide."""

    def within(self, threshold: int) -> tuple[Bags, NDArray[np.int64]]:
        """Return the bags of the results within a distance, and the slide of each."""
        kept = self.bags.hamming <= threshold
        if kept.all():
            return self.bags, self.slide
        offset = np.concatenate([[0], np.cumsum(kept)])[self.bags.offset]
        return Bags(offset, self.bags.patch[kept], self.bags.hamming[kept]), self.slide[kept]


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a search: the neighbours of a query, and their ranking."""

    neighbours: Neighbours
    """The bags that were ranked."""
    ranking: Ranking
    """Slides of these bags."""
    placed: bool
    """Whether this is the ranking that the caller asked for."""


def _of_slides(mask: SlideMask, found: SlideMask) -> SlideMask:
    """Return `mask`; ParameterError if it is not bool with one value for each slide."""
    given = np.asarray(mask)
    if given.dtype != np.bool_ or given.shape != found.shape:
        raise ParameterError(f"mask is {given.dtype} {given.shape}; give bool, one a slide, {found.shape}")
    return given


def _place_of(codes: SlideCodes, number: int) -> tuple[int, int] | None:
    return None if codes.l0_xy is None else _point(codes.l0_xy[number])


def _point(xy: NDArray[np.integer]) -> tuple[int, int]:
    return int(xy[0]), int(xy[1])


def _in_order(hits: Sequence[Hit]) -> tuple[Hit, ...]:
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits, 1))


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
