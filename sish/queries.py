"""Queries: from what a user asks for to its codes.

A :class:`Question` holds the arguments of :meth:`sish.Index.search`. If the query is the id of an indexed
slide, its stored codes are used. Codes of a file of features are made of its features, and codes of anything
else of its pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from sish.annotations import Annotation
from sish.encode import SlideCodes, SlideEncoder
from sish.encoders import FEATURES, NOT_GIVEN
from sish.errors import QueryError, SlideNotFoundError, about_its_path
from sish.feature_files import is_feature_file, read_features
from sish.feature_ingest import feature_codes
from sish.identity import Standing, compare, find_row
from sish.index.postgres.addresses import Place
from sish.index.store import SlideRow, Snapshot, State
from sish.index.store.segment import Segment
from sish.ingest import remembered
from sish.nearest import nearest_to
from sish.progress import OnProgress, silent
from sish.results import Query, Results
from sish.slides.files import absolute, slide_id_of
from sish.slides.reader_threads import end_soon, start
from sish.slides.region import Box, Region, plain
from sish.slides.scale import GIVEN, check_given, is_unused
from sish.slides.slide import Slide, open_slide, slide_from_array
from sish.spatial import SpatialReader
from sish.spatial_ingest import names_in
from sish.spatial_objects import Spatial, described, is_spatial, is_spatial_file, path_of
from sish.stored_patches import unknown
from sish.vector_ingest import check_takes_vectors, check_width, slide_codes
from sish.vectors import as_vectors

if TYPE_CHECKING:
    from PIL.Image import Image

    Queryable = (
        str | int | SlideRow | os.PathLike[str] | Slide | NDArray[np.uint8] | NDArray[np.floating] | Image
    )


@dataclass(frozen=True, slots=True)
class Question:
    """A query as it was given, and how to read it. The fields are arguments of :meth:`sish.Index.search`."""

    query: Queryable
    """Path, id, open slide, pixels uint8 (H, W, 3), PIL image, vectors float (Q, F), SpatialData, AnnData.
    Or the row of an indexed slide: no file is taken for it, and its path may be where its file is now."""
    mpp: float | None = None
    """Micrometres per level-0 pixel of a file that does not state it."""
    override_mpp: float | None = None
    """Micrometres per level-0 pixel, whatever the file states."""
    region: Region | Box | Annotation | None = None
    """x, y, width, height in level-0 pixels, a box that may be turned, or an annotation."""
    patient: str | None = None
    """The query's patient. Default: as the index has it."""

    def __post_init__(self) -> None:
        """Refuse a scale that is not positive (ParameterError)."""
        check_given(self.mpp, self.override_mpp)

    def encoded(
        self, state: State, encoder: SlideEncoder, on_progress: OnProgress = silent
    ) -> tuple[Query, SlideCodes]:
        """Return the query and its codes.

        Parameters
        ----------
        state : State
            The state of the index that is searched.
        encoder : SlideEncoder
            The encoder of the index.
        on_progress : callable, optional
            Told how many patches are encoded: see :meth:`sish.Index.search`.

        Returns
        -------
        Query, SlideCodes
            The query, as results name it, and its codes.

        Raises
        ------
        SlideNotFoundError
            If the query is neither a file nor the id of an indexed slide.
        QueryError
            If there is nothing to search for, or the question cannot be asked of this index.
        EncoderMismatchError
            If features or weights are of another encoder.
        SlideError
            If a file cannot be read.
        """
        row = _named(state, self.query)
        if row is not None and self.region is None:
            _check_told(self.override_mpp, "the id of an indexed slide", "its file")
            return _told(query_of_indexed(row, state.segments, self.patient), on_progress)
        if row is None and isinstance(self.query, str) and not os.path.lexists(self.query):
            near = nearest_to(self.query, (name for name, _ in state.ids_and_paths()))
            raise SlideNotFoundError(
                f"{self.query}: is neither a file nor the id of an indexed slide{near}", path=self.query
            )
        given = self.query if row is None else _file_of(row)  # a region is read from the file
        if is_vectors(given) or (_is_array(given) and encoder.recipe.weights.startswith(FEATURES)):
            vectors = as_vectors(cast("NDArray[np.floating]", given), "query vectors")
            return _told(self._of_vectors(vectors, encoder), on_progress)
        if is_spatial(given) or is_spatial_file(given):
            return _told(self._of_spatialdata(given, state, encoder), on_progress)
        if is_feature_file(given):
            return _told(self._of_features(absolute(str(given)), state, encoder), on_progress)
        check_takes_pixels(encoder, state.name)
        encoder.load()  # so wrong weights are refused before the slide is opened
        return self._of_pixels(given, _stored(state, given), encoder, on_progress)

    def noted(self, results: Results) -> Results:
        """Return the results, with a note if `mpp` was not used because the query has its own scale."""
        own = results.query.mpp
        if self.override_mpp is not None or own is None or not is_unused(self.mpp, own):
            return results
        said = (
            f"the query has its own scale, {own:.3g} um/px: the given mpp was not used; "
            "override_mpp replaces it"
        )
        return replace(results, note="; ".join(filter(None, (results.note, said))))

    def _of_features(self, path: Path, state: State, encoder: SlideEncoder) -> tuple[Query, SlideCodes]:
        """Return a file of features as a query."""
        if self.region is not None:
            raise QueryError("got a region of features; want the file, or part of a slide", path=path)
        stored = _stored(state, path)
        mpp, override_mpp = _as_indexed(stored, self.mpp, self.override_mpp)
        return query_of_features(
            path, encoder, stored, mpp=mpp, override_mpp=override_mpp, patient=self.patient
        )

    def _of_vectors(self, vectors: NDArray[np.float32], encoder: SlideEncoder) -> tuple[Query, SlideCodes]:
        """Return vectors as a query; they have no places."""
        if self.region is not None or self.override_mpp is not None or self.mpp is not None:
            raise QueryError(
                "got a region or a scale of vectors, which have no places; want the vectors alone"
            )
        if not len(vectors):
            raise QueryError("got no vectors to search for; want at least one row")
        check_takes_vectors(encoder)
        check_width(vectors, encoder)
        codes = encoder.codes(None, vectors, None)
        return Query("vectors", None, self.patient or "", None, None, len(codes), None), codes

    def _of_spatialdata(
        self, given: Spatial, state: State, encoder: SlideEncoder
    ) -> tuple[Query, SlideCodes]:
        """Return a SpatialData or AnnData, or the file of one, as a query: all rows of its table."""
        if self.region is not None or self.override_mpp is not None:
            raise QueryError("got a region or override_mpp with a table of features; want it alone")
        path = path_of(given)
        slide_id = "vectors" if path is None else slide_id_of(path)
        check_takes_vectors(encoder)
        name, width = names_in(encoder)
        reader = SpatialReader(mpp=self.mpp, encoder=name, width=width)
        (slide,) = reader.slides(given, slide_id, {})
        if not len(slide.vectors):
            raise QueryError(f"{described(given)}: got no row in its table; want at least one", path=path)
        row, codes = state.row(slide_id), slide_codes(slide, encoder)
        known = slide_id if path is not None else ""
        if row is not None and row.file_digest == slide.digest:
            known = row.patient
        query = Query(
            slide_id=slide_id,
            path=None,
            patient=self.patient or known,
            mpp=slide.mpp or None,
            region=None,
            n_patches=len(codes),
            patch_l0_px=slide.patch_l0_px or None,
            l0_xy=codes.l0_xy,
        )
        return query, codes

    def _of_pixels(
        self, given: Queryable, stored: SlideRow | None, encoder: SlideEncoder, on_progress: OnProgress
    ) -> tuple[Query, SlideCodes]:
        """Return pixels as a query. A thread reads them; Ctrl-C leaves it behind if a file hangs."""
        region, region_name = _box_and_name(self.region)
        slide = start(self._open, given, stored).result()
        try:
            prepared = start(encoder.prepare, slide, region).result()
            codes = encoder.encode(prepared, on_progress=on_progress)
        finally:
            if slide is not given:
                end_soon(slide.close)
        if not len(codes):
            wrong = f"got no tissue in {'this region' if region else 'it'}; want some to search for"
            raise QueryError(f"{slide.path or slide.name}: {wrong}", path=slide.path)
        name = slide_id_of(slide.path) if slide.path else slide.name
        query = Query(
            slide_id=stored.slide_id if stored else name,
            path=str(absolute(slide.path)) if slide.path else None,
            patient=self.patient or (stored.patient if stored else name),
            mpp=slide.mpp,
            region=region.around if isinstance(region, Box) else region,
            n_patches=len(codes),
            patch_l0_px=prepared.mosaic.l0_size,
            region_name=region_name,
            l0_xy=codes.l0_xy,
            box=region if isinstance(region, Box) else None,
            label=stored.label if stored else None,
        )
        return query, codes

    def _open(self, given: Queryable, stored: SlideRow | None) -> Slide:
        """Return what was given as a slide; `stored` is its row in the index."""
        if isinstance(given, Slide):
            _check_told(self.override_mpp, "an open slide", "open_slide(path, override_mpp=...)")
            return given
        if isinstance(given, str | os.PathLike):
            mpp, override_mpp = _as_indexed(stored, self.mpp, self.override_mpp)
            return open_slide(given, mpp=mpp, override_mpp=override_mpp)
        scale = self.mpp if self.override_mpp is None else self.override_mpp
        if scale is None:
            raise QueryError("got an image without its scale: give mpp=, in micrometres per pixel")
        return slide_from_array(np.asarray(given), scale, "image")


def _told(found: tuple[Query, SlideCodes], on_progress: OnProgress) -> tuple[Query, SlideCodes]:
    """Return codes that were at hand; all patches are done at once."""
    on_progress(len(found[1]), len(found[1]))
    return found


def is_vectors(query: object) -> bool:
    """Return whether a query is an array of float vectors; arrays of pixels are uint8 (H, W, 3)."""
    return getattr(query, "ndim", 0) == 2 and "float" in str(getattr(query, "dtype", ""))  # torch's, too


def _is_array(query: object) -> bool:
    """Return whether a query is an array or a list; an array with three axes is pixels."""
    return isinstance(query, list | tuple) or getattr(query, "ndim", 3) != 3


def _box_and_name(region: Region | Box | Annotation | None) -> tuple[Region | Box | None, str | None]:
    """Return a region as a box, and its name if it has one."""
    return (region.region, region.name) if isinstance(region, Annotation) else (plain(region), None)


def check_takes_pixels(encoder: SlideEncoder, index: Place | str) -> None:
    """Refuse pixels (QueryError) where an index holds features, or lacks the encoder that a program gave."""
    if encoder.lacks_encoder:  # the name of another one is refused by its fingerprint
        raise QueryError(f"{index}: {NOT_GIVEN.format(encoder.model.fingerprint)}", path=str(index))
    weights = encoder.recipe.weights
    if weights.startswith(FEATURES):
        raise QueryError(
            f"{index} holds {weights}, computed elsewhere, and cannot encode pixels: "
            "give files of features (.h5), or the id of an indexed slide",
            path=str(index),
        )


def query_of_indexed(
    row: SlideRow, segments: Sequence[Segment], patient: str | None
) -> tuple[Query, SlideCodes]:
    """Return an indexed slide as a query, with its stored codes.

    Returns
    -------
    Query, SlideCodes
        The query, as results name it, and its codes.

    Raises
    ------
    QueryError
        If the slide has no patches.
    """
    for segment in segments:
        number = segment.number_of(row.slide_id)
        if number is not None and row.n_patches:
            (codes,) = stored_codes(segment.patches, [number])
            return indexed_query(row, codes, patient), codes
    raise QueryError(
        f"got {row.slide_id!r}, in which no tissue was found; want a slide with patches",
        slide_id=row.slide_id,
    )


def stored_codes(patches: Snapshot, numbers: Sequence[int]) -> Iterator[SlideCodes]:
    """Yield the stored codes of some slides of a table, each in the order in which its slide was read.

    A table is in key order. Rankings break ties by the order of a query's patches, so a query by id needs the
    order that a query by file has.

    Yields
    ------
    SlideCodes
        The codes of each slide of `numbers`.
    """
    rows = patches.rows_of(np.asarray(numbers, np.int64))
    ends = np.cumsum(patches.slides.n_patches[list(numbers)])
    for number, own in zip(numbers, np.split(rows, ends[:-1]), strict=True) if len(numbers) else ():
        has_places = patches.slides[number].has_places
        l0_xy = patches.l0_xy[own].astype(np.int64) if has_places else None
        vectors = None if patches.vectors is None else patches.vectors[own]
        yield SlideCodes(patches.keys[own].astype(np.int64), patches.barcodes[own], l0_xy, vectors)


def indexed_query(row: SlideRow, codes: SlideCodes, patient: str | None = None) -> Query:
    """Return an indexed slide as results name it."""
    return Query(
        slide_id=row.slide_id,
        path=row.path or None,
        patient=patient or row.patient,
        mpp=row.mpp or None,
        region=None,
        n_patches=len(codes),
        patch_l0_px=row.patch_l0_px or None,
        l0_xy=codes.l0_xy,
        label=row.label,
    )


@about_its_path
def query_of_features(
    path: Path,
    encoder: SlideEncoder,
    row: SlideRow | None,
    *,
    mpp: float | None,
    override_mpp: float | None,
    patient: str | None,
) -> tuple[Query, SlideCodes]:
    """Return a file of features as a query; `row` is its row in the index, if it has one.

    Returns
    -------
    Query, SlideCodes
        The query, as results name it, and its codes.

    Raises
    ------
    QueryError
        If the index is of pixels, or the file holds no patch.
    EncoderMismatchError
        If the features are of another encoder, length or patch size.
    SlideError
        If the file cannot be read.
    """
    weights = encoder.recipe.weights
    if not weights.startswith(FEATURES):
        raise QueryError(f"{path} holds features, and the index is of pixels: give a slide or an image")
    encoder.load()
    made_by = weights.removeprefix(FEATURES).rpartition("/")[0]
    file = read_features(path, encoder=made_by, mpp=mpp, override_mpp=override_mpp)
    codes = feature_codes(file, encoder)
    if not len(codes):
        raise QueryError(f"{path}: got no patch in it; want some to search for")
    if row is not None:
        return replace(indexed_query(row, codes, patient), path=str(path)), codes
    name = slide_id_of(path)
    query = Query(
        name,
        str(path),
        patient or name,
        file.mpp or None,
        None,
        len(codes),
        file.l0_size or None,
        l0_xy=codes.l0_xy,
    )
    return query, codes


def _file_of(row: SlideRow) -> Path:
    """Return the file of an indexed slide; QueryError if it has none, or another has taken its place."""
    if not row.path:
        raise QueryError(
            f"got a region of {row.slide_id!r}, which was given as vectors: search for the slide, or for "
            "the vectors of that region",
            slide_id=row.slide_id,
        )
    path = Path(row.path)
    if compare(path, row) is not Standing.SAME:
        raise QueryError(
            f"{path} is another file now than when it was added as {row.slide_id!r}: give ./NAME or the "
            "path to search for a part of it as it is",
            path=path,
            slide_id=row.slide_id,
        )
    return path


def _stored(state: State, query: Queryable) -> SlideRow | None:
    """Return the row of a query whose file is in the index, moved and copied ones included, or None."""
    path = query.path if isinstance(query, Slide) else query
    if not isinstance(path, str | os.PathLike):
        return None
    return find_row(absolute(path), slide_id_of(path), state)


def _named(state: State, query: Queryable) -> SlideRow | None:
    """Return the row of a query that is the id of an indexed slide; None for anything else."""
    # a file of that name is read if it is the slide's own; another file is refused: the user may mean either.
    # A slide of vectors has no path that could be given in place of its id
    if isinstance(query, SlideRow):
        if not state.has(query.slide_id):
            raise unknown(state, query.slide_id)
        return query
    if not isinstance(query, str):
        return None
    row = state.row(query)
    if row is None or not row.path or not os.path.isfile(query):  # noqa: PTH113  Path.is_file raises for a name too long
        return row
    if _stored(state, query) == row:
        return None
    raise QueryError(
        f"got {query!r}, which is a file here and the id of another, {row.path}: "
        f"give ./{query} or the other's path"
    )


def _as_indexed(
    stored: SlideRow | None, mpp: float | None, override_mpp: float | None
) -> tuple[float | None, float | None]:
    """Return the `mpp` and `override_mpp` given now, else those with which the file was indexed."""
    # in indexes older than `override_mpp`, "given" may mean that the given scale replaced the file's own
    if stored is not None and stored.mpp_source == GIVEN and mpp is None and override_mpp is None:
        return None, stored.mpp
    return remembered(stored, mpp, override_mpp)


def _check_told(override_mpp: float | None, query: str, wanted: str) -> None:
    """Refuse an `override_mpp` (QueryError) for a query that is not read from a file."""
    if override_mpp is not None:
        raise QueryError(f"got override_mpp with {query}, which has its scale; want {wanted}")
