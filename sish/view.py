"""A searchable view of an index: one snapshot of its patches, and the search over it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideCodes
from sish.errors import ParameterError, QueryError
from sish.index.barcode import nearest
from sish.index.search import Bags, PatchTable, SearchParams, guided_search
from sish.index.store import SlideRow, Snapshot
from sish.ranking import RankedSlide, Ranking, SlideLabels, rank_by_similarity, rank_by_uncertainty
from sish.results import Hit, PatchPair, Query, Results

__all__ = ["RankingName", "View"]

RankingName = Literal["auto", "uncertainty", "similarity"]
"""``auto`` is ``uncertainty`` where every slide has a label, else ``similarity``."""

_SCANNED = 64  # patches that a scan takes for each query patch


@dataclass(frozen=True, slots=True)
class View:
    """A snapshot of an index, ready to be searched; later changes of the index do not show in it."""

    snapshot: Snapshot
    """Patches and slides."""
    table: PatchTable
    """The patches as the guided search wants them; a patch's number is its row in the snapshot."""
    labels: SlideLabels
    """The labels of slides with patches, counted once; slides without a label share the empty one."""
    params: SearchParams
    """Budget and threshold."""
    _columns: dict[str, NDArray[np.object_]]  # values of every slide, by column, as they are first asked for

    @classmethod
    def of(cls, snapshot: Snapshot, params: SearchParams) -> View:
        """The view of a snapshot: nothing is copied."""
        table = PatchTable.build(snapshot.keys[:, 0], snapshot.barcodes, snapshot.slide)
        return cls(snapshot, table, _counted(snapshot.slides), params, {})

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
        """Rank the slides of this view for an encoded query; see :meth:`sish.Index.search`.

        Where the ranking places fewer than k slides, the list is filled: first by similarity from the same
        bags, then with the nearest there are, from the same walks with every entry accepted, and last, if
        filters have emptied these, from a scan of what is allowed.
        """
        if not isinstance(k, int) or k < 1:
            raise ParameterError(f"got k={k!r}; want a whole number of at least 1")
        name, note = _choose_ranking(ranking, self.snapshot.slides)
        if not len(self.table):
            return Results(query, name, (), "the index holds no patches: add slides first")
        exclude = self._excluded(query.patient if exclude_patient else None, where or {})
        if exclude is not None and exclude[self.labels.number >= 0].all():
            return Results(query, name, (), "no slide is left after the filters and the patient's exclusion")
        hits: list[Hit] = []
        for ranked, placed in self._rankings(name, codes, exclude, k):
            found = {hit.slide_id for hit in hits}
            new = [it for it in ranked.slides if self.snapshot.slides[it.slide].slide_id not in found]
            hits += [self._hit(slide, codes, hits, placed=placed) for slide in new[: k - len(hits)]]
            note = note or ranked.reason
            if len(hits) == k:
                break
        return Results(query, name, _numbered(hits), note)

    def _rankings(
        self, name: str, codes: SlideCodes, exclude: NDArray[np.bool_] | None, k: int
    ) -> Iterator[tuple[Ranking, bool]]:
        """The ranking that was asked for, then those that fill its list; and whether it is the first."""
        slide = self.snapshot.slide
        bags = self._bags(codes, exclude, self.params.threshold)
        if name == "uncertainty":
            yield rank_by_uncertainty(bags, slide, self.labels, k=k), True
        yield rank_by_similarity(bags, slide, k=2 * k, n_bits=self._n_bits), name == "similarity"
        for further in chain([self._bags(codes, exclude, self._n_bits)], self._scans(codes, exclude)):
            yield replace(rank_by_similarity(further, slide, k=2 * k, n_bits=self._n_bits), reason=""), False

    def _bags(self, codes: SlideCodes, exclude: NDArray[np.bool_] | None, threshold: int) -> Bags:
        params = replace(self.params, threshold=threshold)
        return guided_search(self.table, codes.keys[:, 0], codes.barcodes, exclude=exclude, params=params)

    def _scans(self, codes: SlideCodes, exclude: NDArray[np.bool_] | None) -> Iterator[Bags]:
        """Bags of the nearest allowed patches, compared with all; then the same of all other slides; ..."""
        slide = self.snapshot.slide
        done = np.zeros(len(self.snapshot.slides), bool) if exclude is None else exclude.copy()
        while not done[self.labels.number >= 0].all():
            found = nearest(self.table.barcodes, codes.barcodes, _SCANNED, skip=done[slide])
            width = found.row.shape[1]
            yield Bags(np.arange(len(codes) + 1) * width, found.row.ravel(), found.hamming.ravel())
            done[slide[found.row.ravel()]] = True

    @property
    def _n_bits(self) -> int:
        return 8 * int(self.snapshot.barcodes.shape[1])

    def _excluded(self, patient: str | None, where: Mapping[str, str]) -> NDArray[np.bool_] | None:
        """Which slides may not be found, bool (slides,); None if all may."""
        if patient is None and not where:
            return None
        excluded = np.zeros(len(self.snapshot.slides), bool)
        if patient is not None:
            excluded |= self._column("patient") == patient
        for column, value in where.items():
            excluded |= self._column(column) != value
        return excluded

    def _column(self, name: str) -> NDArray[np.object_]:
        """What every slide has in a column; QueryError if none has it."""
        if name not in self._columns:
            slides = self.snapshot.slides
            if name in ("label", "patient", "site"):
                values = [getattr(slide, name) for slide in slides]
            else:
                values = [slide.metadata.get(name) for slide in slides]
                if not any(values):
                    raise QueryError(
                        f"got a filter on {name!r}, which no slide has; "
                        "want label, patient, site or a column of the labels file"
                    )
            self._columns[name] = np.array(values, dtype=object)
        return self._columns[name]

    def _hit(self, ranked: RankedSlide, codes: SlideCodes, before: Sequence[Hit], *, placed: bool) -> Hit:
        row = self.snapshot.slides[ranked.slide]
        pairs = tuple(
            PatchPair(
                query_xy=_point(codes.l0_xy[match.query_patch]),
                xy=_point(self.snapshot.l0_xy[match.patch]),
                hamming=int(match.hamming),
            )
            for match in ranked.matches
        )
        return Hit(
            rank=0,
            slide_id=row.slide_id,
            path=row.path,
            mpp=row.mpp,
            label=row.label,
            patient=row.patient,
            score=min(float(ranked.score), before[-1].score if before else 1.0),
            uncertainty=None if ranked.uncertainty is None else float(ranked.uncertainty),
            placed=placed,
            below_threshold=min(pair.hamming for pair in pairs) > self.params.threshold,
            patches=pairs,
            metadata=row.metadata,
        )


def _point(xy: NDArray[np.integer]) -> tuple[int, int]:
    return int(xy[0]), int(xy[1])


def _numbered(hits: Sequence[Hit]) -> tuple[Hit, ...]:
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits, 1))


def _counted(slides: Sequence[SlideRow]) -> SlideLabels:
    """The labels of slides with patches: the others cannot be found and do not count. Their number is -1."""
    counted = np.array([slide.n_patches > 0 for slide in slides], bool)
    labels = SlideLabels.of([slide.label or "" for slide in slides if slide.n_patches])
    number = np.full(len(slides), -1, np.int64)
    number[counted] = labels.number
    return replace(labels, number=number)


def _choose_ranking(
    asked: RankingName, slides: Sequence[SlideRow]
) -> tuple[Literal["uncertainty", "similarity"], str]:
    """The ranking to use, and a note where ``auto`` could not take the one that reads labels."""
    if asked not in ("auto", "uncertainty", "similarity"):
        raise ParameterError(f"got ranking={asked!r}; want 'auto', 'uncertainty' or 'similarity'")
    bare = [slide.slide_id for slide in slides if slide.label is None and slide.n_patches]
    if asked == "similarity" or not bare:
        return ("similarity" if asked == "similarity" else "uncertainty"), ""
    some = ", ".join(bare[:3]) + (f" and {len(bare) - 3} more" if len(bare) > 3 else "")
    if asked == "uncertainty":
        raise QueryError(
            f"ranking by uncertainty needs a label for every slide, and these have none: {some}; "
            "add labels with sish index label, or rank by similarity"
        )
    labelled = any(slide.label is not None for slide in slides)
    return "similarity", f"ranked by similarity, as these slides have no label: {some}" if labelled else ""
