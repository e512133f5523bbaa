"""A searchable view of an index: one state of its patches, and the search over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideCodes
from sish.errors import ParameterError, QueryError
from sish.index.search import Bags
from sish.index.store import SlideRow
from sish.patches import Mask, Patches
from sish.ranking import RankedSlide, Ranking, SlideLabels, rank_by_similarity, rank_by_uncertainty
from sish.results import Hit, PatchPair, Query, Results

__all__ = ["RankingName", "View"]

RankingName = Literal["auto", "uncertainty", "similarity"]
"""``auto`` is ``uncertainty`` where every slide has a label, else ``similarity``."""

_SCANNED = 64  # patches that a scan takes for each query patch


@dataclass(frozen=True, slots=True)
class View:
    """One state of an index, ready to be searched; later changes of the index do not show in it."""

    patches: Patches
    """Slides and patches."""
    found: Mask
    """Slides that can be found, bool (slides,)."""
    unlabelled: tuple[str, ...]
    """Ids of those among them that have no label."""
    labels: SlideLabels
    """The labels of slides that can be found, counted once; slides without a label share the empty one."""
    threshold: int
    """Bits within which two patches count as similar."""
    _columns: dict[str, NDArray[np.object_]]  # values of every slide, by column, as they are first asked for

    @classmethod
    def of(cls, patches: Patches, threshold: int) -> View:
        """The view of some patches: nothing is copied."""
        found = patches.found
        slides = [patches.slides[int(number)] for number in np.flatnonzero(found)]
        unlabelled = tuple(slide.slide_id for slide in slides if slide.label is None)
        return cls(patches, found, unlabelled, _counted(slides, found), threshold, {})

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
        name, note = self._choose_ranking(ranking)
        if not self.found.any():
            return Results(query, name, (), "the index holds no patches: add slides first")
        exclude = self._excluded(query.patient if exclude_patient else None, where or {})
        if exclude is not None and exclude[self.found].all():
            return Results(query, name, (), "no slide is left after the filters and the patient's exclusion")
        hits: list[Hit] = []
        for ranked, placed in self._rankings(name, codes, exclude, k):
            found = {hit.slide_id for hit in hits}
            new = [it for it in ranked.slides if self.patches.slides[it.slide].slide_id not in found]
            hits += [self._hit(slide, codes, hits, placed=placed) for slide in new[: k - len(hits)]]
            note = note or ranked.reason
            if len(hits) == k:
                break
        return Results(query, name, _in_order(hits), note)

    def _choose_ranking(self, asked: RankingName) -> tuple[Literal["uncertainty", "similarity"], str]:
        """The ranking to use, and a note where ``auto`` could not take the one that reads labels."""
        if asked not in ("auto", "uncertainty", "similarity"):
            raise ParameterError(f"got ranking={asked!r}; want 'auto', 'uncertainty' or 'similarity'")
        bare = self.unlabelled
        if asked == "similarity" or not bare:
            return ("similarity" if asked == "similarity" else "uncertainty"), ""
        some = ", ".join(bare[:3]) + (f" and {len(bare) - 3} more" if len(bare) > 3 else "")
        if asked == "uncertainty":
            raise QueryError(
                f"ranking by uncertainty needs a label for every slide, and these have none: {some}; "
                "add labels with sish index label, or rank by similarity"
            )
        none_has_one = len(bare) == np.count_nonzero(self.found)
        return (
            "similarity",
            "" if none_has_one else f"ranked by similarity, as these slides have no label: {some}",
        )

    def _rankings(
        self, name: str, codes: SlideCodes, exclude: Mask | None, k: int
    ) -> Iterator[tuple[Ranking, bool]]:
        """The ranking that was asked for, then those that fill its list; and whether it is the first."""
        n_bits = self.patches.n_bits
        bags = self.patches.bags(codes, exclude, self.threshold)
        if name == "uncertainty":
            by_uncertainty = partial(rank_by_uncertainty, labels=self.labels, k=k)
            yield self._numbered(bags, by_uncertainty), True
        by_similarity = partial(rank_by_similarity, k=2 * k, n_bits=n_bits)
        yield self._numbered(bags, by_similarity), name == "similarity"
        wider = [self.patches.bags(codes, exclude, n_bits)]
        for further in chain(wider, self._scans(codes, exclude)):
            yield replace(self._numbered(further, by_similarity), reason=""), False

    def _numbered(self, bags: Bags, rank: Callable[[Bags, NDArray[np.integer]], Ranking]) -> Ranking:
        """What `rank` makes of bags whose patches are numbered anew, and of these patches' slides."""
        patches, place = np.unique(bags.patch, return_inverse=True)
        ranked = rank(replace(bags, patch=place.astype(np.int64)), self.patches.slide_of(patches))
        slides = tuple(
            replace(it, matches=tuple(replace(pair, patch=int(patches[pair.patch])) for pair in it.matches))
            for it in ranked.slides
        )
        return replace(ranked, slides=slides)

    def _scans(self, codes: SlideCodes, exclude: Mask | None) -> Iterator[Bags]:
        """Bags of the nearest allowed patches, compared with all; then the same of all other slides; ..."""
        done = ~self.found if exclude is None else exclude | ~self.found
        while not done.all():
            found = self.patches.scan(codes, done, _SCANNED)
            yield found
            done[self.patches.slide_of(found.patch)] = True

    def _excluded(self, patient: str | None, where: Mapping[str, str]) -> Mask | None:
        """Which slides may not be found, bool (slides,); None if all may."""
        if patient is None and not where:
            return None
        excluded = np.zeros(len(self.patches.slides), bool)
        if patient is not None:
            excluded |= self._column("patient") == patient
        for column, value in where.items():
            excluded |= self._column(column) != value
        return excluded

    def _column(self, name: str) -> NDArray[np.object_]:
        """What every slide has in a column; QueryError if none has it."""
        if name not in self._columns:
            slides = self.patches.slides
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
        row = self.patches.slides[ranked.slide]
        l0_xy = self.patches.l0_xy_of(np.array([match.patch for match in ranked.matches], np.int64))
        pairs = tuple(
            PatchPair(
                query_xy=_point(codes.l0_xy[match.query_patch]),
                xy=_point(xy),
                hamming=int(match.hamming),
            )
            for match, xy in zip(ranked.matches, l0_xy, strict=True)
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
            below_threshold=min(pair.hamming for pair in pairs) > self.threshold,
            patches=pairs,
            metadata=row.metadata,
        )


def _point(xy: NDArray[np.integer]) -> tuple[int, int]:
    return int(xy[0]), int(xy[1])


def _in_order(hits: Sequence[Hit]) -> tuple[Hit, ...]:
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits, 1))


def _counted(slides: Sequence[SlideRow], found: Mask) -> SlideLabels:
    """The labels of the slides that can be found: the others do not count. Their number is -1."""
    labels = SlideLabels.of([slide.label or "" for slide in slides])
    number = np.full(len(found), -1, np.int64)
    number[found] = labels.number
    return replace(labels, number=number)
