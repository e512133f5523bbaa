"""A searchable view of an index: one snapshot of its patches, and the search over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideCodes
from sish.errors import ParameterError, QueryError
from sish.index.search import Bags, PatchTable, SearchParams, guided_search
from sish.index.store import SlideRow, Snapshot
from sish.ranking import RankedSlide, SlideLabels, rank_by_similarity, rank_by_uncertainty
from sish.results import Hit, PatchPair, Query, Results

__all__ = ["RankingName", "View"]

RankingName = Literal["auto", "uncertainty", "similarity"]
"""``auto`` is ``uncertainty`` where every slide has a label, else ``similarity``."""

_PAIRS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class View:
    """A snapshot of an index, ready to be searched; later changes of the index do not show in it."""

    snapshot: Snapshot
    """Patches and slides."""
    table: PatchTable
    """The patches as the guided search wants them; a patch's number is its row in the snapshot."""
    labels: SlideLabels
    """The slides' labels, counted once; slides without one share the empty label."""
    params: SearchParams
    """Budget and threshold."""

    @classmethod
    def of(cls, snapshot: Snapshot, params: SearchParams) -> View:
        """The view of a snapshot: nothing is copied."""
        table = PatchTable.build(snapshot.keys[:, 0], snapshot.barcodes, snapshot.slide)
        return cls(snapshot, table, SlideLabels.of([slide.label or "" for slide in snapshot.slides]), params)

    def search(
        self,
        query: Query,
        codes: SlideCodes,
        *,
        k: int = 5,
        ranking: RankingName = "auto",
        exclude_patient: bool = False,
        where: Mapping[str, str] | None = None,
    ) -> Results:
        """Rank the slides of this view for an encoded query; see :meth:`sish.Index.search`."""
        if k < 1:
            raise ParameterError(f"got k={k}; want at least 1 hit")
        slides = self.snapshot.slides
        name = _choose_ranking(ranking, slides)
        if not len(self.table):
            return Results(query, name, (), "the index holds no patches: add slides first")
        exclude = _excluded(slides, query.patient if exclude_patient else None, where or {})
        bags = self._bags(codes, exclude, self.params)
        ranked, note = self._rank(name, bags, k)
        hits = [self._hit(place, slide, codes, below=False) for place, slide in enumerate(ranked, 1)]
        if len(hits) < k:
            hits += self._nearest(codes, exclude, {slide.slide for slide in ranked}, k - len(hits))
        return Results(query, name, tuple(hits), note)

    def _bags(self, codes: SlideCodes, exclude: NDArray[np.bool_], params: SearchParams) -> Bags:
        return guided_search(self.table, codes.keys[:, 0], codes.barcodes, exclude=exclude, params=params)

    def _rank(self, name: str, bags: Bags, k: int) -> tuple[Sequence[RankedSlide], str]:
        if name == "uncertainty":
            ranking = rank_by_uncertainty(bags, self.snapshot.slide, self.labels, k=k)
        else:
            ranking = rank_by_similarity(bags, self.snapshot.slide, k=k, n_bits=self._n_bits)
        return ranking.slides, ranking.reason

    @property
    def _n_bits(self) -> int:
        return 8 * int(self.snapshot.barcodes.shape[1])

    def _nearest(self, codes: SlideCodes, exclude: NDArray[np.bool_], found: set[int], k: int) -> list[Hit]:
        """Up to k more slides, whatever their distance: the same walks with every entry accepted.

        The walks keep their fixed budget, so that an answer costs the same in an archive of any size.
        """
        exclude = exclude.copy()
        exclude[list(found)] = True
        bags = self._bags(codes, exclude, replace(self.params, threshold=self._n_bits))
        ranked, _ = self._rank("similarity", bags, k)
        return [
            self._hit(place, slide, codes, below=True) for place, slide in enumerate(ranked, len(found) + 1)
        ]

    def _hit(self, rank: int, ranked: RankedSlide, codes: SlideCodes, *, below: bool) -> Hit:
        row = self.snapshot.slides[ranked.slide]
        pairs = tuple(
            PatchPair(
                query_xy=_point(codes.l0_xy[match.query_patch]),
                xy=_point(self.snapshot.l0_xy[match.patch]),
                hamming=int(match.hamming),
            )
            for match in ranked.matches[:_PAIRS_SHOWN]
        )
        return Hit(
            rank=rank,
            slide_id=row.slide_id,
            path=row.path,
            mpp=row.mpp,
            label=row.label,
            patient=row.patient,
            score=float(ranked.score),
            uncertainty=None if ranked.uncertainty is None else float(ranked.uncertainty),
            below_threshold=below,
            patches=pairs,
            metadata=row.metadata,
        )


def _point(xy: NDArray[np.integer]) -> tuple[int, int]:
    return int(xy[0]), int(xy[1])


def _choose_ranking(asked: RankingName, slides: Sequence[SlideRow]) -> Literal["uncertainty", "similarity"]:
    if asked not in ("auto", "uncertainty", "similarity"):
        raise ParameterError(f"got ranking={asked!r}; want 'auto', 'uncertainty' or 'similarity'")
    unlabelled = [slide.slide_id for slide in slides if slide.label is None and slide.n_patches]
    if asked == "uncertainty" and unlabelled:
        raise QueryError(
            f"ranking by uncertainty needs a label for every slide, and {len(unlabelled)} have none "
            f"({', '.join(unlabelled[:3])}, ...): add labels with sish index label, or rank by similarity"
        )
    if asked == "auto":
        return "similarity" if unlabelled else "uncertainty"
    return asked


def _excluded(slides: Sequence[SlideRow], patient: str | None, where: Mapping[str, str]) -> NDArray[np.bool_]:
    """Which slides may not be found, bool (slides,)."""
    for column in where:
        if column not in ("label", "patient", "site") and not any(
            column in slide.metadata for slide in slides
        ):
            raise QueryError(
                f"got a filter on {column!r}, which no slide has; "
                "want label, patient, site or a column of the labels file"
            )
    return np.array(
        [
            slide.patient == patient or any(_value(slide, column) != value for column, value in where.items())
            for slide in slides
        ],
        dtype=bool,
    )


def _value(slide: SlideRow, column: str) -> str | None:
    if column in ("label", "patient", "site"):
        value: str | None = getattr(slide, column)
        return value
    return slide.metadata.get(column)
