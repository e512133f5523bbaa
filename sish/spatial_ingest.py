"""Adding slides of SpatialData and AnnData to the store, one object at a time, as `sish.vector_ingest`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideEncoder
from sish.encoders import FEATURES
from sish.errors import (
    FeatureMismatchError,
    ParameterError,
    SlideError,
    SlideOpenError,
    TableChoiceError,
    errors_about,
)
from sish.labels import LabelRow
from sish.results import AddReport
from sish.sampling import evenly
from sish.spatial import SpatialReader
from sish.spatial_objects import Spatial, path_of
from sish.vector_ingest import UNNAMED
from sish.vectors import VectorSlide

_OBJECTS = 32
_MEASURED = 4_096
"""Rows that are measured, of up to so many objects."""


def names_in(encoder: SlideEncoder) -> tuple[str, int]:
    """Return the encoder's name, empty if none is known, and the length of its features."""
    weights = encoder.recipe.weights
    width = encoder.model.n_features if encoder.calibration is None else len(encoder.calibration.centre)
    name = weights.removeprefix(FEATURES).rpartition("/")[0] if weights.startswith(FEATURES) else ""
    return ("" if name == UNNAMED else name), width


def spatial_slides(
    given: Sequence[Spatial],
    ids: Sequence[str | None],
    reader: SpatialReader,
    told: Mapping[str, LabelRow],
    *,
    mosaic: bool,
    errors: list[SlideError],
) -> Iterator[VectorSlide | SlideError]:
    """Yield the slides of several objects, each read when it is its turn, and the errors of those that fail.

    Parameters
    ----------
    given : sequence of SpatialData, AnnData or path-like
        The objects.
    ids : sequence of str or None
        The slide id of each; None if `reader` finds it in a column.
    reader : SpatialReader
        How they are read.
    told : mapping
        Labels by slide id.
    mosaic : bool
        Whether patches will be chosen by their places.
    errors : list of SlideError
        The errors are also appended to this list.

    Yields
    ------
    VectorSlide or SlideError
        A slide, or why an object cannot be used.
    """
    seen: set[str] = set()
    for one, slide_id in zip(given, ids, strict=True):
        try:
            with errors_about(path_of(one), slide_id):
                slides = reader.slides(one, slide_id, told)
                for slide in slides:
                    _check(slide, seen, mosaic=mosaic)
        except SlideError as error:
            errors.append(error)
            yield error
        else:
            seen.update(slide.slide_id for slide in slides)
            yield from slides


def _check(slide: VectorSlide, seen: Collection[str], *, mosaic: bool) -> None:
    """Refuse a slide that was there already, or has no places where they are needed."""
    if slide.slide_id in seen:
        raise SlideError(
            f"slide {slide.slide_id!r} is in two of the objects; give each slide an id of its own",
            slide_id=slide.slide_id,
        )
    if mosaic and slide.l0_xy is None:
        raise SlideError(f"slide {slide.slide_id!r} has no places, by which mosaic=True chooses patches")


def raise_if_all(report: AddReport, errors: Iterable[SlideError]) -> None:
    """Raise the first error (TableChoiceError, FeatureMismatchError) if no object had the wanted table."""
    odd = [error for error in errors if isinstance(error, TableChoiceError | FeatureMismatchError)]
    if odd and not (report.added or report.replaced or report.already or report.no_tissue):
        raise odd[0]


def measured_objects(
    given: Sequence[Spatial], reader: SpatialReader
) -> tuple[str, NDArray[np.float32], bool]:
    """Return the encoder's name and a sample of the features of some objects: 4,096 rows, of 32 objects.

    Parameters
    ----------
    given : sequence of SpatialData, AnnData or path-like
        The objects.
    reader : SpatialReader
        How they are read.

    Returns
    -------
    encoder : str
        Its name, of the commonest kind; empty if the tables do not tell it.
    sample : float32 (M, F)
        Features of that kind.
    is_slide_level : bool
        Whether each slide has one vector.

    Raises
    ------
    SlideError
        If no object can be read: the error of the first.
    ParameterError
        If there are no objects, or fewer than two rows.
    """
    samples: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
    failed: SlideError | None = None
    is_slide_level = True
    drawn = evenly(list[Any](given), _OBJECTS)
    for one in drawn:
        try:
            table = reader.read(one)
            is_slide_level &= reader.is_slide_level(table)
        except SlideError as error:
            failed = failed or error
        else:
            rows = _spread(len(table.vectors), _MEASURED // len(drawn))
            samples.setdefault((table.encoder, table.vectors.shape[1]), []).append(table.vectors[rows])
    if not samples:
        raise failed or SlideOpenError("got no SpatialData; want at least one")
    (encoder, _), own = max(samples.items(), key=lambda kind: len(kind[1]))
    sample = np.concatenate(own)
    if len(sample) < 2:
        raise ParameterError("got fewer than two rows of features, which cannot be measured; give more")
    return encoder, sample, is_slide_level


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Return up to `most` of the numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
