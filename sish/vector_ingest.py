"""Adding slides that are given as vectors to the store, as `sish.ingest` adds slides of pixels."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sish.archives import AnyStore
from sish.encode import SlideCodes, SlideEncoder
from sish.encoders import FEATURES
from sish.errors import EncoderMismatchError, ParameterError, QueryError, SlideError
from sish.feature_files import choose
from sish.index.store import SlideRow
from sish.ingest import OnError, check_on_error
from sish.printing import printable
from sish.progress import progress
from sish.recipe import Recipe
from sish.results import AddReport, Skipped
from sish.slide_writer import SlideWriter
from sish.slides.scale import GIVEN
from sish.vectors import VectorSlide

_LOG = logging.getLogger(__name__)

UNNAMED = "vectors"
"""The encoder's name of an index that was made without one."""

_MEASURED = 4_096
"""Vectors that are measured, evenly spread over those given: their mean is known to 2 % of their spread."""


def recipe_of(feature_encoder: str, n_features: int) -> Recipe:
    """Return the recipe of an index of vectors; ParameterError if the encoder's name is none."""
    if not isinstance(feature_encoder, str) or not feature_encoder:
        raise ParameterError(f"got feature_encoder={feature_encoder!r}; want its name, such as 'uni'")
    return Recipe(weights=f"{FEATURES}{feature_encoder}/{n_features}", mpp=0.0).check()


def measured_rows(slides: Sequence[VectorSlide]) -> NDArray[np.float32]:
    """Return the vectors of some slides that the encoder is measured on, float32 (M, F)."""
    ends = np.cumsum([len(slide.vectors) for slide in slides])
    drawn = np.unique(np.linspace(0, ends[-1] - 1, _MEASURED).astype(np.int64))
    parts = np.split(drawn, np.searchsorted(drawn, ends[:-1]))
    begins = ends - [len(slide.vectors) for slide in slides]
    return np.concatenate(
        [slide.vectors[own - begin] for slide, own, begin in zip(slides, parts, begins, strict=True)]
    )


def check_width(vectors: NDArray[np.float32], encoder: SlideEncoder) -> None:
    """Refuse vectors (EncoderMismatchError) that are not as long as those of the index."""
    wanted = encoder.model.n_features if encoder.calibration is None else len(encoder.calibration.centre)
    if vectors.shape[1] != wanted:
        raise EncoderMismatchError(
            f"got vectors of {vectors.shape[1]} numbers, and the index is of {encoder.recipe.weights}: give "
            f"vectors of {wanted}, of the same encoder"
        )


def check_takes_vectors(encoder: SlideEncoder) -> None:
    """Refuse vectors (QueryError) where keys are made of pixels, as the paper's are."""
    if encoder.recipe.keys == "paper":
        raise QueryError(
            "got vectors for an index with the paper's keys, which are made of pixels: give slides, or make "
            "an index of vectors (Index.from_vectors)"
        )


def _check_measured(encoder: SlideEncoder) -> None:
    """Refuse vectors as the first of an index of pixels (QueryError): it would stay without measurements."""
    if encoder.needs_calibration:
        raise QueryError(
            "got vectors for an index whose encoder was not measured: add slides first, or make an index of "
            "vectors (Index.from_vectors)"
        )


def check_mosaic(slides: Sequence[VectorSlide], *, mosaic: bool) -> None:
    """Refuse to choose patches (ParameterError) where slides have no places."""
    if mosaic and any(slide.l0_xy is None for slide in slides):
        raise ParameterError("got mosaic=True without l0_xy: patches are chosen by their places too")


def add_vector_slides(
    store: AnyStore,
    encoder: SlideEncoder,
    slides: Iterable[VectorSlide | SlideError],
    *,
    n_slides: int,
    mosaic: bool,
    replace: bool,
    on_error: OnError,
    show_progress: bool,
) -> AddReport:
    """Add slides to a store that is open for writing; the other arguments are those of `Index.add_vectors`.

    Parameters
    ----------
    store : Store or RemoteStore
        Where they go.
    encoder : SlideEncoder
        The encoder of the index.
    slides : iterable of VectorSlide or SlideError
        The slides, of vectors as long as those of the index, and the errors of those that cannot be read.
    n_slides : int
        Number of them, about, to show the progress.
    mosaic, replace, on_error, show_progress
        As of :meth:`sish.Index.add_vectors`.

    Returns
    -------
    AddReport
        What was done with each slide.

    Raises
    ------
    SlideError
        With ``on_error="raise"``, the first.
    QueryError
        If the index takes no vectors, or not yet.
    """
    check_on_error(on_error)
    check_takes_vectors(encoder)
    _check_measured(encoder)
    writer, report = SlideWriter(store, encoder.recipe, replace=replace), AddReport()

    def commit() -> None:
        for row, before in writer.commit():
            report.enter(row, before)

    start = time.perf_counter()
    with progress("adding", n_slides, show=show_progress) as bar:
        try:
            for slide in slides:
                if isinstance(slide, SlideError):
                    _fail(slide, report, on_error)
                    bar.step(slide.slide_id or str(slide.path or ""))
                    continue
                before = store.state.row(slide.slide_id)
                if before is None or replace:
                    codes = slide_codes(slide, encoder, mosaic=mosaic)
                    writer.take(_row_of(slide, before, codes), codes, before)
                    if writer.is_due:
                        commit()
                elif before.file_digest == slide.digest:
                    report.already.append(slide.slide_id)
                else:
                    _fail(_taken(slide), report, on_error)
                bar.step(slide.slide_id)
        finally:
            commit()  # encoded slides are kept, whatever stops the others
    report.seconds = time.perf_counter() - start
    return report


def slide_codes(slide: VectorSlide, encoder: SlideEncoder, *, mosaic: bool = False) -> SlideCodes:
    """Return the codes of a slide: of all rows, or of those that stand for it (`sish.feature_files`)."""
    vectors, l0_xy = slide.vectors, slide.l0_xy
    if mosaic and l0_xy is not None:
        rows = choose(vectors, l0_xy, encoder.recipe)
        vectors, l0_xy = vectors[rows], l0_xy[rows]
    return encoder.codes(None, vectors, l0_xy)


def _taken(slide: VectorSlide) -> SlideError:
    """Return the error of a slide whose id is taken."""
    return SlideError(
        f"slide {slide.slide_id!r} is in the index with other vectors: replace=True makes its codes anew; if "
        "it is another slide, give it an id of its own",
        slide_id=slide.slide_id,
    )


def _fail(error: SlideError, report: AddReport, on_error: OnError) -> None:
    """Report the error of a slide, or raise it."""
    _LOG.warning("skipped: %s", printable(str(error)))
    if on_error == "raise":
        raise error
    report.failed.append(Skipped(error.slide_id or str(error.path or ""), str(error), error.slide_id))


def _row_of(slide: VectorSlide, before: SlideRow | None, codes: SlideCodes) -> SlideRow:
    """Return the row of a slide for the store, with its earlier labels and those given now."""
    right, bottom = (0, 0)
    if slide.l0_xy is not None and len(slide.l0_xy):
        right, bottom = slide.l0_xy.max(axis=0) + math.ceil(slide.patch_l0_px)
    row = SlideRow(
        slide_id=slide.slide_id,
        path="",
        n_patches=len(codes),
        patch_l0_px=slide.patch_l0_px,
        mpp=slide.mpp,
        mpp_source=GIVEN if slide.mpp else "",
        width=int(right),
        height=int(bottom),
        label=before.label if before else None,
        patient=before.patient if before else slide.slide_id,
        site=before.site if before else None,
        metadata=before.metadata if before else {},
        file_digest=slide.digest,
    )
    return slide.labels.applied_to(row) if slide.labels else row
