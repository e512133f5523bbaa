"""Queries that need no pixels: slides whose codes are in the index, and files of features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sish.encode import SlideCodes, SlideEncoder
from sish.encoders import FEATURES
from sish.errors import QueryError
from sish.feature_files import read_features
from sish.feature_ingest import feature_codes
from sish.index.segment import Segment
from sish.index.store import SlideRow, Snapshot
from sish.labels import slide_id_of
from sish.results import Query

__all__ = ["indexed_query", "query_of_features", "query_of_indexed", "stored_codes"]


def query_of_indexed(
    row: SlideRow, segments: Sequence[Segment], patient: str | None
) -> tuple[Query, SlideCodes]:
    """An indexed slide as a query, from its stored codes; QueryError if it has no patches."""
    for segment in segments:
        for number, slide in enumerate(segment.patches.slides):
            if slide.slide_id == row.slide_id and number not in segment.removed and slide.n_patches:
                (codes,) = stored_codes(segment.patches, [number])
                return indexed_query(row, codes, patient), codes
    raise QueryError(f"got {row.slide_id!r}, in which no tissue was found; want a slide with patches")


def stored_codes(patches: Snapshot, numbers: Sequence[int]) -> Iterator[SlideCodes]:
    """Yield the codes of some slides of a table, as the slides themselves give them when they are encoded.

    A table is in key order. Patches of a query are in the order in which the slide was read: rankings break
    ties by it, so that a slide asked by its id must have the order that its file gives.
    """
    rows = np.flatnonzero(np.isin(patches.slide, numbers))
    rows = rows[np.lexsort((patches.row[rows], patches.slide[rows]))]
    slide = patches.slide[rows]
    for number in numbers:
        own = rows[slice(*np.searchsorted(slide, [number, number + 1]))]
        yield SlideCodes(patches.keys[own], patches.barcodes[own], patches.l0_xy[own])


def indexed_query(row: SlideRow, codes: SlideCodes, patient: str | None = None) -> Query:
    """An indexed slide as it stands in an answer."""
    return Query(row.slide_id, row.path, patient or row.patient, row.mpp, None, len(codes), row.patch_l0_px)


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
        return replace(indexed_query(row, codes, patient), path=str(path)), codes
    name = slide_id_of(path)
    return Query(name, str(path), patient or name, file.mpp, None, len(codes), file.l0_size), codes
