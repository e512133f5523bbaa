"""Answers: the ranked hits of a search, and the reports of adding slides and labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sish.failures import Failure, write_failures
from sish.printing import counted

if TYPE_CHECKING:
    import pandas as pd

    from sish.encode import SlideCodes
    from sish.examples import Examples
    from sish.filters import Where
    from sish.index.params import SearchParams
    from sish.index.store import SlideRow
    from sish.slides.region import Box

SCORE = (
    "score: how close the query's patches come to their nearest match in the slide, on average: "
    "1 equal, 0 unrelated or no match; patches that few slides match weigh more"
)
"""The meaning of `Hit.score`, on one line; the formula is in `sish.nearest_matches.NearestMatches`."""

_NAMED = 5
"""Number of slides that a hint names."""


@dataclass(frozen=True, slots=True)
class PatchPair:
    """A patch of the query and the patch of a hit that it was matched with."""

    query_xy: tuple[int, int] | None
    """Top left corner of the query's patch, level-0 pixels of the query; None if its place is not known."""
    xy: tuple[int, int] | None
    """Top left corner of the hit's patch, level-0 pixels of the hit; None if its place is not known."""
    hamming: int
    """Number of bits in which their barcodes differ."""
    query_row: int
    """Number of the query's patch among the query's patches, from 0."""
    row: int
    """Number of the hit's patch among the hit's patches, from 0, in the order in which they were added."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "query_xy": None if self.query_xy is None else list(self.query_xy),
            "xy": None if self.xy is None else list(self.xy),
            "hamming": self.hamming,
            "query_row": self.query_row,
            "row": self.row,
        }


@dataclass(frozen=True, slots=True)
class ExamplePair:
    """A patch of a liked example (:mod:`sish.refinement`) and the patch of a hit that it found."""

    slide_id: str
    """The slide of the example."""
    example_xy: tuple[int, int] | None
    """Top left corner of the example's patch, level-0 pixels of its slide; None if its place is not known."""
    xy: tuple[int, int] | None
    """Top left corner of the hit's patch, level-0 pixels of the hit; None if its place is not known."""
    hamming: int
    """Number of bits in which their barcodes differ."""
    example_row: int
    """Number of the example's patch among those of its slide, or of its region, from 0."""
    row: int
    """Number of the hit's patch among the hit's patches, from 0, in the order in which they were added."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {it.name: getattr(self, it.name) for it in fields(self)}
        return plain | {name: plain[name] and list(plain[name]) for name in ("example_xy", "xy")}


@dataclass(frozen=True, slots=True)
class Hit:
    """A slide that a search found."""

    rank: int
    """Place in the ranking, from 1."""
    slide_id: str
    """The slide's name in the index."""
    path: str
    """Its file at the time it was added; empty if it was given as vectors."""
    mpp: float | None
    """Scale of its level 0, um per pixel; None if it is not known."""
    patch_l0_px: float | None
    """Side of its patches in level-0 pixels; None if their places are not known."""
    label: str | None
    """Its diagnosis; None if not known."""
    patient: str
    """Its patient; the slide's own id if none was given."""
    score: float
    """How close the query's patches come to their nearest match in this slide, on average: 1 equal, 0
    unrelated or no match. Patches that few slides match weigh more. In a refined search the patches of liked
    examples count, too, each example as much as the query.

    Both rankings compute it in the same way. A ranking by similarity is in falling order of it. In a ranking
    by uncertainty it may rise from one hit to the next. It may also rise at the first hit that only fills the
    list."""
    n_matched: int
    """Number of patches of the query that have a match in this slide within the threshold, of
    `Query.n_patches`; of a slide below the threshold, a match at any distance."""
    median_distance: float
    """Median distance in bits of these patches to their nearest match."""
    uncertainty: float | None
    """Entropy in bits of the labels in the bag that found it; None if the ranking reads no labels."""
    placed: bool
    """False if the ranking left the slide out, and it fills the list by similarity alone."""
    below_threshold: bool
    """True if none of its patches is within the distance threshold: it is only among the nearest."""
    patches: tuple[PatchPair, ...]
    """The patch pairs that made it a hit, best first; none if only liked examples found it."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The other columns of the labels file."""
    examples: tuple[ExamplePair, ...] = ()
    """The patches of liked examples that found it, best first, where the query's patches made fewer than five
    pairs. They are part of ``to_dict`` only if there are any."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {name: getattr(self, name) for name in HIT_FIELDS}
        plain |= {"patches": [pair.to_dict() for pair in self.patches], "metadata": dict(self.metadata)}
        return plain | ({"examples": [pair.to_dict() for pair in self.examples]} if self.examples else {})


HIT_FIELDS = tuple(it.name for it in fields(Hit) if it.name != "examples")
"""The fields of a hit that every answer has."""


@dataclass(frozen=True, slots=True)
class Query:
    """A slide, a region of it or an image that was searched for."""

    slide_id: str
    """Name of the query slide."""
    path: str | None
    """Its file; None for an image in memory."""
    patient: str
    """Its patient as given, else as in the index, else the slide's id."""
    mpp: float | None
    """Scale of its level 0, um per pixel; None if it is not known."""
    region: tuple[int, int, int, int] | None
    """The part that was searched for: x, y, width, height in level-0 pixels; None for all of it."""
    n_patches: int
    """Number of patches of its mosaic."""
    patch_l0_px: float | None
    """Side of a patch in level-0 pixels; None if their places are not known."""
    region_name: str | None = None
    """The region's name, if it is an annotation (:func:`sish.read_annotations`)."""
    l0_xy: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    """Shape (n_patches, 2): top left corners of the patches of its mosaic, level-0 pixels; None if not known.
    It is not part of ``to_dict``."""
    box: Box | None = None
    """The part that was searched for if it is a turned box, and `region` is the upright box around it. It is
    part of ``to_dict`` only then, as ``x``, ``y``, ``width``, ``height`` and ``angle``."""
    label: str | None = None
    """Its diagnosis as in the index; None if it is not known, or the query is no indexed slide."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {it.name: getattr(self, it.name) for it in fields(self) if it.name not in ("l0_xy", "box")}
        turned = {} if self.box is None else {"box": self.box.to_dict()}
        return plain | {"region": None if self.region is None else list(self.region)} | turned


class _Plain(Protocol):
    """Anything with plain values for JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""


class RankedHit(_Plain, Protocol):
    """The fields of every hit: of a slide, an image or a region."""

    @property
    def rank(self) -> int:
        """Place in the ranking, from 1."""

    @property
    def score(self) -> float:
        """Similarity to the query; larger is more similar."""

    @property
    def placed(self) -> bool:
        """False if the ranking left it out, and it only fills the list."""


Q = TypeVar("Q", bound=_Plain)
"""What was searched for."""
H = TypeVar("H", bound=RankedHit)
"""What was found."""


@dataclass(frozen=True, slots=True)
class HitList(Generic[Q, H]):
    """The answer to any search: iterate over it for its hits, best first.

    >>> from sish.results import HitList
    >>> nothing = HitList(query=None, ranking="similarity", hits=(), note="the index is empty")
    >>> nothing
    <HitList: 0 hits, ranked by similarity: the index is empty>
    >>> len(nothing), list(nothing), nothing.headline
    (0, [], 'ranked by similarity: the index is empty')
    """

    HIT_FIELDS: ClassVar[tuple[str, ...]] = ("rank", "score", "placed")
    """The fields of a hit: the columns of `to_pandas` even if there are no hits."""

    query: Q
    """What was searched for."""
    ranking: str
    """How hits were ranked: ``uncertainty`` or ``similarity`` in an index, else the name of the system."""
    hits: tuple[H, ...]
    """The hits, best first."""
    note: str = ""
    """Why the answer differs from what was asked for, for example is short; else empty."""

    @property
    def headline(self) -> str:
        """The ranking and the note, on one line."""
        return f"ranked by {self.ranking}" + (f": {self.note}" if self.note else "")

    def __repr__(self) -> str:
        """Return the number of hits and the headline: an answer that is shown as it is takes one line."""
        return f"<{type(self).__name__}: {counted(len(self.hits), 'hit')}, {self.headline}>"

    def __iter__(self) -> Iterator[H]:
        """Iterate over the hits, best first."""
        return iter(self.hits)

    def __len__(self) -> int:
        """Return the number of hits."""
        return len(self.hits)

    def __getitem__(self, place: int) -> H:
        """Return the hit at a place, from 0."""
        return self.hits[place]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: ``query``, ``ranking``, ``note`` and ``results``."""
        return {
            "query": self.query.to_dict(),
            "ranking": self.ranking,
            "note": self.note,
            "results": [hit.to_dict() for hit in self.hits],
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each hit, best first; needs the extra ``tables``.

        Returns
        -------
        DataFrame
            The fields of the hits, without their patches. Each field of metadata is a column; one whose name
            is taken is called ``metadata_NAME``. ``attrs`` holds ``query``, ``ranking`` and ``note``.

        Raises
        ------
        MissingPackageError
            If pandas is not installed.
        """
        from sish.tables import hits_frame

        return hits_frame(self.to_dict(), self.HIT_FIELDS)


@dataclass(frozen=True, slots=True)
class Commit:
    """The state of an index that gave an answer."""

    archive: str
    """The index: its folder, or its address in PostgreSQL."""
    generation: int
    """The number of commits since the index was created."""
    encoder: str
    """Fingerprint of the encoder of its codes."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """How an index was searched, for those who come back to an answer: a heatmap, an explanation."""

    codes: SlideCodes
    """The query's codes."""
    k: int
    """How many hits were wanted."""
    patient: str | None
    """The patient that was left out."""
    where: Where | None
    """The conditions on slides."""
    params: SearchParams
    """Budget and threshold."""
    commit: Commit | None
    """What was searched; None for patches in memory."""
    examples: Examples | None = None
    """The examples that it was asked with beside the query."""


@dataclass(frozen=True, slots=True, repr=False)
class Results(HitList[Query, Hit]):
    """The answer of an index: a :class:`~sish.results.HitList` of slides.

    In ``to_dict``, a matched patch is the square of ``patch_l0_px`` level-0 pixels at ``xy`` (top left
    corner) of the file at ``path``, and at ``query_xy`` of the query's file. ``mpp`` is the scale of these
    pixels. ``note`` says how the search was refined, why the ranking is not by uncertainty, or why it placed
    nothing.
    """

    HIT_FIELDS: ClassVar[tuple[str, ...]] = HIT_FIELDS

    asked: Asked | None = field(default=None, repr=False, compare=False)
    """How the index was searched, the query's codes included. It is not part of ``to_dict``."""

    def pairs_to_pandas(self) -> pd.DataFrame:
        """Return a row for each matched pair of patches, hit after hit; needs the extra ``tables``.

        Returns
        -------
        DataFrame
            ``rank``, ``slide_id`` and ``path`` of the hit; ``query_x``, ``query_y``, ``x`` and ``y``: top
            left corners in level-0 pixels of the query and the hit; the other fields of :class:`PatchPair`;
            and ``size``, the side of the hit's patches in level-0 pixels.

        Raises
        ------
        MissingPackageError
            If pandas is not installed.
        """
        from sish.tables import pairs_frame

        return pairs_frame(self.to_dict(), tuple(it.name for it in fields(PatchPair)))

    def to_anndata(self, slide_id: str | None = None, *, sdata: Any = None, shapes: str = "tiles") -> Any:
        """Return the matched patches of one slide as AnnData; needs the extra ``spatial``.

        Parameters
        ----------
        slide_id : str, optional
            A hit, whose patches are the rows. Default: the patches of the query.
        sdata : SpatialData, optional
            The object of that slide. Then each of its tiles is a row, and the table may become one of
            ``sdata.tables``.
        shapes : str
            The name of the tiles in ``sdata.shapes``.

        Returns
        -------
        AnnData
            ``X``: distance in bits of the nearest matched pair of a patch (row) and a hit (column), NaN
            without one; a hit has at most five pairs. For a hit the only column is the query. ``obs``:
            ``n_hits``, and of the nearest match ``matched_slide``, ``matched_label``, ``rank``, ``hamming``,
            ``matched_row``, ``matched_x`` and ``matched_y`` (top left corner); also ``row``, the number of
            the patch, or the keys of its tile (``tile_id``, ``library_id``). ``var``: the fields of the hits.
            ``obsm["spatial"]``: centres in level-0 pixels, if the places are known. ``uns["sish"]``:
            ``query``, ``ranking`` and ``note``.

        Raises
        ------
        ParameterError
            If there is no such hit, or the tiles are not those of the slide.
        MissingPackageError
            If anndata, or spatialdata for `sdata`, is not installed.
        """
        from sish.spatial_answers import answer_table

        return answer_table(self.to_dict(), self.HIT_FIELDS, slide_id, sdata=sdata, shapes=shapes)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A slide that could not be added, or a row of the labels file that names no slide."""

    path: str
    """Its file, or its name in the labels file."""
    reason: str
    """What was wrong and what to do, on one line."""
    slide_id: str | None = None
    """Its id; None of a row of the labels file."""


def failures_of(skipped: Iterable[Skipped]) -> list[Failure]:
    """Return the slides among what was skipped: id, file and reason."""
    return [(it.slide_id, it.path, it.reason) for it in skipped if it.slide_id is not None]


@dataclass(slots=True)
class AddReport:
    """The report of adding slides: every slide that was asked for is in one of the lists."""

    added: list[str] = field(default_factory=list)
    """Ids of slides that are new in the index."""
    replaced: list[str] = field(default_factory=list)
    """Ids of slides whose codes were made again."""
    already: list[str] = field(default_factory=list)
    """Ids of slides that were in the index, and stay as they were."""
    no_tissue: list[str] = field(default_factory=list)
    """Ids of slides without tissue. The index keeps their ids, so that they are not read again."""
    failed: list[Skipped] = field(default_factory=list)
    """Slides that could not be read, and rows of the labels file without a slide."""
    own_scale: list[str] = field(default_factory=list)
    """Ids of slides, also listed above, that tell their own scale: the given ``mpp`` was not used."""
    notes: list[str] = field(default_factory=list)
    """Notes, a line each: on fields of the labels file that were taken as missing, and on the encoder."""
    seconds: float = 0.0
    """Seconds that reading, encoding and storing took."""

    @property
    def hint(self) -> str:
        """What to try for slides without tissue, on one line; empty if there are none."""
        if not self.no_tissue:
            return ""
        named = ", ".join(self.no_tissue[:_NAMED]) + ("" if len(self.no_tissue) <= _NAMED else ", ...")
        return (
            f"no tissue was found in {named}: sish preview SLIDE -o PICTURE.png shows why, and names options "
            "to try; give those that help there to sish index create"
        )

    def write_failures(self, path: str | os.PathLike[str]) -> int:
        """Write the slides that failed as a CSV with the columns ``slide_id``, ``path`` and ``reason``.

        The add of this file as a list of slides tries them again. Rows of the labels file are left out.

        Parameters
        ----------
        path : path-like
            The file; it may replace a ``.csv``.

        Returns
        -------
        int
            The number of slides.

        Raises
        ------
        ParameterError
            If it would replace a file of another kind, or lies inside an index.
        OutputError
            If it cannot be written.
        """
        return write_failures(path, failures_of(self.failed))

    def enter(self, row: SlideRow, before: SlideRow | None) -> None:
        """Enter a slide that was committed; `before` is its earlier row, if it was there already."""
        if not row.n_patches:
            self.no_tissue.append(row.slide_id)
        else:
            (self.added if before is None else self.replaced).append(row.slide_id)

    def summary(self) -> str:
        """Return one line, such as ``12 added, 3 already there, 1 failed``."""
        counts = {
            "added": len(self.added),
            "replaced": len(self.replaced),
            "already there": len(self.already),
            "without tissue": len(self.no_tissue),
            "failed": len(self.failed),
        }
        return ", ".join(f"{n} {what}" for what, n in counts.items() if n or what == "added")


@dataclass(frozen=True, slots=True)
class RelabelReport:
    """The report of new labels."""

    changed: tuple[str, ...]
    """Ids of slides whose label, patient, site or metadata changed."""
    unknown: tuple[str, ...]
    """Rows of the labels file that name no slide of the index."""
    notes: tuple[str, ...] = ()
    """Notes on the labels file, a line each: fields that were taken as missing."""
