"""Queries that need no pixels: slides whose codes are in the index, and files of features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sish.encode import SlideCodes, SlideEncoder
from sish.encoders import FEATURES
from sish.errors import QueryError
from sish.feature_files import read_features
from sish.feature_ingest import feature_codes
from sish.index.segment import Segment
from sish.index.store import SlideRow
from sish.labels import slide_id_of
from sish.results import Query

__all__ = ["query_of_features", "query_of_indexed"]


def query_of_indexed(
    row: SlideRow, segments: Sequence[Segment], patient: str | None
) -> tuple[Query, SlideCodes]:
    """An indexed slide as a query, from its stored codes; QueryError if it has no patches."""
    for segment in segments:
        patches = segment.patches
        for number, slide in enumerate(patches.slides):
            if slide.slide_id == row.slide_id and number not in segment.removed and slide.n_patches:
                rows = np.flatnonzero(patches.slide == number)
                codes = SlideCodes(patches.keys[rows], patches.barcodes[rows], patches.l0_xy[rows])
                return _query(row, str(row.path), patient, codes), codes
    raise QueryError(f"got {row.slide_id!r}, in which no tissue was found; want a slide with patches")


def query_of_features(
    path: Path,
    encoder: SlideEncoder,
    row: SlideRow | None,
    *,
    mpp: float | None,
    override_mpp: float | None,
    patient: str | None,
) -> tuple[Query, SlideCodes]:
    """A file of features as a query; `row` is what the index knows of it.

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
        return _query(row, str(path), patient, codes), codes
    name = slide_id_of(path)
    return Query(name, str(path), patient or name, file.mpp, None, len(codes), file.l0_size), codes


def _query(row: SlideRow, path: str, patient: str | None, codes: SlideCodes) -> Query:
    return Query(row.slide_id, path, patient or row.patient, row.mpp, None, len(codes), row.patch_l0_px)
