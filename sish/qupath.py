"""What QuPath shows of an answer and of a preview: objects to lay over the slides (:mod:`sish.geojson`).

`write_geojson` writes one file a slide. That of the query has the patches of its mosaic, that of a hit the
patches that matched; a slide that is both has both.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sish.errors import OutputError, ParameterError, QueryError, SlideError, SlideOpenError
from sish.feature_files import is_feature_file
from sish.geojson import (
    Feature,
    Origin,
    Outline,
    box_ring,
    check_geojson,
    check_origin,
    collection,
    origin_of,
    write_collection,
)
from sish.identity import Standing, compare, file_digest
from sish.index.store import SlideRow
from sish.outputs import check_outside_databases
from sish.preview import CLUSTER_COLOURS, OUTLINE_COLOUR
from sish.results import Hit, PatchPair, Query, Results, Skipped
from sish.slide_index import Index
from sish.slides.mosaic import Mosaic
from sish.slides.outlines import on_slide, outlines
from sish.slides.region import Box, Region
from sish.slides.slide import Slide
from sish.slides.tissue import TissueMask

_MATCHED, _UNMATCHED = (0, 114, 178), (150, 150, 150)
_LONGEST = 100
"""Characters of a file's name before its ending: file systems take 255 bytes."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""


@dataclass(frozen=True, slots=True)
class GeoJSONFiles:
    """The files that `write_geojson` wrote."""

    paths: tuple[Path, ...]
    """One a slide: queries and hits in the order of the answers."""
    left_out: tuple[Skipped, ...] = ()
    """Slides without a file, because their bounds are not known: their own file cannot be opened any more."""


def write_geojson(
    results: Results | Sequence[Results],
    folder: str | os.PathLike[str],
    *,
    index: Index,
    origin: Origin = "bounds",
) -> GeoJSONFiles:
    """Write searches of an index as GeoJSON for QuPath, one file a slide.

    Patches are detections. Those of a hit are the pairs of ``hit.patches``, with rank, score, distance and
    the number of the query's patch (from 1) as measurements, and the hit's label as their class.

    Parameters
    ----------
    results : Results, or several of them
        Answers of :meth:`sish.Index.search`.
    folder : path-like
        Where to write; it is made if it is not there. Files that sish wrote there before are replaced, others
        never.
    index : Index
        The index that was searched.
    origin : {"bounds", "slide"}
        The place that is (0, 0): the corner of OpenSlide's bounds, as QuPath shows a slide, or of level 0.
        The bounds are read from each slide's file. A slide that cannot be opened any more, or is another
        file now, is left out; ``"slide"`` needs no file.

    Returns
    -------
    GeoJSONFiles
        The files, and the slides that were left out.

    Raises
    ------
    QueryError
        If the places of patches are not known: the index holds vectors that were added without them.
    SlideOpenError
        If all slides were left out.
    ParameterError
        If the folder is a file or lies inside an index, or a file of another origin would be replaced.
    OutputError
        If it cannot be written.
    """
    asked = [results] if isinstance(results, Results) else list(results)
    check_folder(folder)
    check_origin(origin)
    pages = _pages(asked, index)
    data, left_out = {}, []
    for page, name in zip(pages, file_names([page.slide_id for page in pages]), strict=True):
        try:
            data[Path(folder, name)] = page.content(origin)
        except SlideError as error:
            left_out.append(
                Skipped(str(page.file), f"{error}; --origin slide (origin='slide') needs no file")
            )
    if left_out and not data:
        raise SlideOpenError(f"no file written: {left_out[0].reason}", path=left_out[0].path)
    for path in data:
        check_geojson(path)
    _make(Path(folder))
    return GeoJSONFiles(tuple(write_collection(path, page) for path, page in data.items()), tuple(left_out))


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that `write_geojson` would refuse (ParameterError), before anything is searched."""
    check_outside_databases(Path(folder, "any.geojson"))
    if os.path.lexists(folder) and not os.path.isdir(folder):  # noqa: PTH112  as Path.is_file elsewhere
        raise ParameterError(f"{folder} is no folder; give one to write a file a slide into", path=folder)


def file_names(slide_ids: Sequence[str]) -> list[str]:
    """Return a name for the file of each slide: its id, or what is left of it and a few digits.

    Parameters
    ----------
    slide_ids : sequence of str
        Ids of slides; the same id may stand for two files.

    Returns
    -------
    list of str
        Names that differ, whatever the file system makes of upper case, and lie in the folder.

    Examples
    --------
    >>> file_names(["TCGA-01.A", "a/b", "A", "a"])
    ['TCGA-01.A.geojson', 'a_b-c14cddc0.geojson', 'A.geojson', 'a-ca978112.geojson']
    """
    names: dict[str, str] = {}
    for slide_id in slide_ids:
        name = next(it for it in _candidates(slide_id) if _folded(it) not in names)
        names[_folded(name)] = name
    return [f"{name}.geojson" for name in names.values()]


def preview_features(slide: Slide, tissue: TissueMask, mosaic: Mosaic) -> Iterator[Feature]:
    """Yield the tissue of a slide as annotations, one a piece, and its mosaic as tiles.

    Parameters
    ----------
    slide : Slide
        The slide.
    tissue : TissueMask
        Its tissue.
    mosaic : Mosaic
        Its mosaic.

    Yields
    ------
    Feature
        In level-0 pixels of the slide.
    """
    for number, piece in enumerate(outlines(tissue.mask), 1):
        outer, *holes = (_corners(on_slide(ring, tissue, slide)) for ring in piece)
        yield Feature(
            "annotation", f"tissue {number}", outer, (slide.name, "tissue", *outer[0], len(outer)),
            holes=tuple(holes), class_name="Tissue", colour=OUTLINE_COLOUR, is_locked=True,
        )  # fmt: skip
    size = (mosaic.l0_size, mosaic.l0_size)
    for number, (xy, cluster) in enumerate(
        zip(mosaic.l0_xy.tolist(), mosaic.cluster.tolist(), strict=True), 1
    ):
        yield Feature(
            "tile", f"patch {number}", box_ring(xy, size), (slide.name, "mosaic", *xy, mosaic.l0_size),
            class_name=f"Mosaic cluster {cluster + 1}",
            colour=CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)],
            measurements={"Patch": number, "Cluster": cluster + 1},
        )  # fmt: skip


def write_preview(
    slide: Slide,
    tissue: TissueMask,
    mosaic: Mosaic,
    path: str | os.PathLike[str],
    *,
    origin: Origin = "bounds",
) -> Path:
    """Write the tissue and the mosaic of a slide as GeoJSON for QuPath.

    Parameters
    ----------
    slide : Slide
        The slide.
    tissue : TissueMask
        Its tissue.
    mosaic : Mosaic
        Its mosaic.
    path : path-like
        The file to write, ``.geojson``; it may replace one that sish wrote.
    origin : {"bounds", "slide"}
        As of `write_geojson`.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ParameterError
        If `origin` is none of these, or the path must not be written to (`sish.geojson.check_geojson`).
    OutputError
        If it cannot be written.
    """
    inputs = [] if slide.path is None else [slide.path]
    name = slide.name if slide.path is None else slide.path.name
    features = preview_features(slide, tissue, mosaic)
    data = collection(features, slide=name, origin=origin, origin_xy=origin_of(slide, origin))
    return write_collection(path, data, inputs=inputs)


@dataclass(slots=True)
class _Page:
    """What is shown on one slide."""

    slide_id: str
    file: str | None
    """None for an image in memory; empty for a slide of vectors."""
    row: SlideRow | None
    """Its row in the index."""
    features: dict[tuple[str | int | float, ...], Feature] = field(default_factory=dict)
    """By identity: a query that was asked twice is shown once."""

    def add(self, features: Iterable[Feature]) -> None:
        self.features |= {it.identity: it for it in features}

    def content(self, origin: Origin) -> bytes:
        """Return the file; SlideError if the slide's bounds are wanted and not known."""
        name = Path(self.file).name if self.file else self.slide_id
        return collection(
            self.features.values(), slide=name, origin=origin, origin_xy=self._origin_xy(origin)
        )

    def _origin_xy(self, origin: Origin) -> tuple[int, int]:
        file = self.file
        if origin == "slide" or file is None:
            return 0, 0
        if not file:
            raise SlideOpenError(f"{self.slide_id}: was given as vectors: no file tells its bounds")
        if is_feature_file(file):
            raise SlideOpenError(f"{file}: holds features, and not the bounds of its slide", path=file)
        digest = None if self.row is None else self.row.file_digest
        if digest is not None and file_digest(file) != digest:
            raise SlideOpenError(f"{file}: is another file now than when it was added", path=file)
        return origin_of(file, origin)


def _pages(asked: Sequence[Results], index: Index) -> list[_Page]:
    """Return what is shown on each slide of some answers, in their order."""
    wanted = {hit.slide_id for answer in asked for hit in answer} | {it.query.slide_id for it in asked}
    rows = {row.slide_id: row for row in index.slides if row.slide_id in wanted}
    pages: dict[tuple[str, str], _Page] = {}
    for number, answer in enumerate(asked):
        asker = _Asker(answer.query, (answer.query.path or f"{answer.query.slide_id} {number}",))
        if answer.query.l0_xy is not None:
            page = _page_of_query(answer.query, number, rows, pages)
            page.add(asker.features(answer, page.slide_id))
        for hit in answer:
            row = rows.get(hit.slide_id)
            page = pages.setdefault((hit.slide_id, hit.path), _Page(hit.slide_id, hit.path, row))
            page.add(asker.match(hit, pair) for pair in hit.patches)
    return list(pages.values())


def _page_of_query(
    query: Query, number: int, rows: Mapping[str, SlideRow], pages: dict[tuple[str, str], _Page]
) -> _Page:
    """Return the page of a query: that of the indexed slide that it is, moved files and copies included."""
    row = rows.get(query.slide_id)
    if query.path is None and (row is None or row.path):  # it is not the id of a slide of vectors
        return pages.setdefault((query.slide_id, f"{number}"), _Page(query.slide_id, None, None))
    path = query.path or ""
    if row is not None and not _is_the_same(path, row):
        row = None
    page = pages.setdefault(
        (query.slide_id, path if row is None else row.path), _Page(query.slide_id, path, row)
    )
    page.file = path  # where it is now
    return page


def _is_the_same(path: str, row: SlideRow) -> bool:
    if path == row.path:
        return True
    with suppress(SlideError):
        return compare(Path(path), row) is Standing.SAME
    return False


@dataclass(frozen=True, slots=True)
class _Asker:
    """A query, as its objects name it."""

    query: Query
    source: tuple[str, ...]
    """What makes it unlike other queries, its region aside."""

    @property
    def identity(self) -> tuple[str | int | float, ...]:
        """What makes its objects unlike those of other queries."""
        box = self.query.box
        return (*self.source, *(self.query.region or ()), *(() if box is None else astuple(box)))

    def features(self, answer: Results, slide_id: str) -> Iterator[Feature]:
        """Yield the query's region and the patches of its mosaic."""
        query = self.query
        metadata = {"slide": slide_id, "region": query.region_name}
        if query.region is not None:
            name, identity = query.region_name or "query region", ("region", *self.identity)
            yield Feature(
                "annotation", name, _outline(query.region, query.box), identity,
                metadata={"slide": slide_id}, is_locked=True,
            )  # fmt: skip
        found = [pair for hit in answer for pair in hit.patches]
        hits = Counter(row for hit in answer for row in {pair.query_row for pair in hit.patches})
        for row, xy in enumerate([] if query.l0_xy is None else query.l0_xy.tolist()):
            nearest = min((pair.hamming for pair in found if pair.query_row == row), default=None)
            yield Feature(
                "detection", f"query patch {row + 1}", _box(xy, query.patch_l0_px, query.slide_id),
                ("query", *self.identity, *xy), metadata=metadata,
                class_name="Query patch in hits" if hits[row] else "Query patch",
                colour=_MATCHED if hits[row] else _UNMATCHED,
                measurements={"Query patch": row + 1, "Hits": hits[row], "Hamming distance": nearest},
            )  # fmt: skip

    def match(self, hit: Hit, pair: PatchPair) -> Feature:
        """Return the patch of a hit that a patch of the query was matched with."""
        number = pair.query_row + 1
        return Feature(
            "detection", f"hit {hit.rank}, query patch {number}",
            _box(pair.xy, hit.patch_l0_px, hit.slide_id),
            ("match", *self.identity, number, hit.slide_id, hit.path, pair.row),
            class_name=hit.label,
            measurements={
                "Rank": hit.rank, "Score": hit.score, "Hamming distance": pair.hamming,
                "Query patch": number, "Matched query patches": hit.n_matched,
                "Median distance": hit.median_distance, "Uncertainty": hit.uncertainty,
            },
            metadata={
                "slide": hit.slide_id, "label": hit.label, "patient": hit.patient,
                "query": self.query.slide_id, "region": self.query.region_name,
                "similar": "no: beyond the threshold" if hit.below_threshold else "yes",
            },
        )  # fmt: skip


def _outline(region: Region, box: Box | None) -> Outline:
    """Return the outline of a part of a slide, turned if its box is."""
    if box is None:
        return box_ring(region[:2], region[2:])
    return tuple((float(x), float(y)) for x, y in box.corners)


def _box(xy: Sequence[int] | None, l0_size: float | None, slide_id: str) -> Outline:
    """Return the outline of a patch; QueryError if its place is not known."""
    if xy is None or l0_size is None:
        raise QueryError(
            f"{slide_id}: the places of its patches are not known, so they cannot be shown on the slide: "
            "give l0_xy= when vectors are added",
            slide_id=slide_id,
        )
    return box_ring((xy[0], xy[1]), (l0_size, l0_size))


def _corners(places: NDArray[np.floating]) -> Outline:
    x, y = places.T.tolist()
    return tuple(zip(x, y, strict=True))


def _candidates(slide_id: str) -> Iterator[str]:
    """Yield names for a slide's file, the plainest first."""
    plain = re.sub(r"[^\w .+=@,-]", "_", slide_id).encode("utf-8", "replace")
    name = plain[:_LONGEST].decode(errors="ignore").rstrip(". ")
    digest = hashlib.sha256(slide_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    if name == slide_id and name[:1] not in ("", ".", " ") and not _RESERVED.fullmatch(name):
        yield name
    marked = f"{name.lstrip('. ')}-{digest}".lstrip("-")
    yield marked
    yield from (f"{marked}-{number}" for number in count(2))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make {folder}: {error.strerror}; give another path", path=folder
        ) from error
