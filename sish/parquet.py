"""Write the patches of an index as Parquet, for pandas, polars, DuckDB and every other reader of Arrow.

A row is a patch. Slides are in the order in which they were added, patches in the order of their slide. A
place or scale that is not known is null.

============ ===================== ===========================================================
column       type                  what
============ ===================== ===========================================================
``slide_id`` string                the slide's name in the index
``x``, ``y`` int64                 top left corner, level-0 pixels
``size``     double                side, level-0 pixels
``mpp``      double                micrometres per level-0 pixel
``key``      int64                 the key: with a texture tree, the number of a leaf
``barcode``  fixed_size_binary     packed bits, most significant first: 128 bytes for 1,024 bits
``vector``   fixed_size_list       float32, only in an index that keeps vectors
============ ===================== ===========================================================

The schema's metadata name the encoder of the codes (``sish.encoder``) and the version that wrote the file
(``sish.version``).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.index.store.segment import Segment
from sish.index.store.snapshot import Snapshot
from sish.index.store.state import State
from sish.outputs import check_output, open_output
from sish.rerank import Rerank
from sish.stored_patches import unknown, vectors_of
from sish.tables import needed, utf8_text
from sish.version import __version__

ENDINGS = (".parquet", ".pq")
"""Files of these endings may be replaced."""

_BATCH_BYTES = 1 << 25
"""Bytes of the arrays that are in memory at a time, and of a row group of the file."""


def write_parquet(
    state: State,
    path: str | os.PathLike[str],
    *,
    slide_ids: Collection[str] | None = None,
    encoder: str = "",
    rerank: Rerank | None = None,
) -> int:
    """Write patches of an index to a file, which appears when it is whole.

    Parameters
    ----------
    state : State
        A state of the index.
    path : path-like
        The file.
    slide_ids : collection of str, optional
        The slides. Default: all.
    encoder : str
        Fingerprint of the encoder of the codes.
    rerank : Rerank, optional
        How the index keeps vectors, if it does.

    Returns
    -------
    int
        The number of patches.

    Raises
    ------
    UnknownSlideError
        If a slide is not in the index.
    MissingPackageError
        If pyarrow is not installed.
    ParameterError
        If the file would replace a file of another kind, or lies inside an index.
    OutputError
        If it cannot be written.
    """  # noqa: DOC501  the functions that are called raise these
    arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    missing = next((slide_id for slide_id in slide_ids or () if not state.has(slide_id)), None)
    if missing is not None:
        raise unknown(state, missing)
    segments, written = state.segments, 0
    schema = _schema(arrow, segments, rerank, {"sish.encoder": encoder, "sish.version": __version__})
    most = max(1, _BATCH_BYTES // _row_bytes(schema))
    with open_output(path, replaces=ENDINGS) as file, parquet.ParquetWriter(file, schema) as writer:
        for segment in segments:
            number, names = segment.patches.slides.values("slide_id")
            ids = arrow.array(map(utf8_text, names), arrow.string()).take(arrow.array(number))
            for slides, rows in _batches(segment, slide_ids, most):
                writer.write_batch(
                    _record_batch(
                        schema, ids.take(arrow.array(slides)), segment.patches, slides, rows, rerank
                    )
                )
                written += len(rows)
    return written


def check_parquet(path: str | os.PathLike[str]) -> None:
    """Refuse a path that :func:`write_parquet` would refuse, or a machine without pyarrow."""
    needed("pyarrow")
    check_output(path, replaces=ENDINGS)


def _schema(arrow: Any, segments: Collection[Segment], rerank: Rerank | None, told: Mapping[str, str]) -> Any:
    """Return the columns; barcodes and vectors are as wide as those of the index."""
    tables = [segment.patches for segment in segments]
    barcode_bytes = next((table.barcodes.shape[1] for table in tables), 1)
    columns = {
        "slide_id": arrow.string(),
        **dict.fromkeys(("x", "y"), arrow.int64()),
        **dict.fromkeys(("size", "mpp"), arrow.float64()),
        "key": arrow.int64(),
        "barcode": arrow.binary(barcode_bytes),
    }
    if rerank is not None:
        columns["vector"] = arrow.list_(arrow.float32(), rerank.coder.features)
    return arrow.schema(list(columns.items()), metadata=dict(told))


def _row_bytes(schema: Any) -> int:
    """Return the bytes of a row without its id: five numbers, the barcode and the vector."""
    vector = 4 * schema.field("vector").type.list_size if "vector" in schema.names else 0
    return int(5 * 8 + schema.field("barcode").type.byte_width + vector)


def _batches(
    segment: Segment, slide_ids: Collection[str] | None, most: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.integer]]]:
    """Yield the slide and the row of at most so many patches, in the order of slides and their patches."""
    table, live = segment.patches, ~segment.removed_mask
    if slide_ids is not None:
        wanted = [number for name in slide_ids if (number := segment.number_of(name)) is not None]
        live &= np.isin(np.arange(len(live)), wanted)
    numbers = np.flatnonzero(live)
    counts = table.slides.n_patches[numbers]
    group = np.cumsum(counts) // max(1, most // 2)  # so most groups are one batch
    for some in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(group)) + 1):
        rows, slides = table.rows_of(numbers[some]), np.repeat(numbers[some], counts[some])
        for begin in range(0, len(rows), most):
            yield slides[begin : begin + most], rows[begin : begin + most]


def _record_batch(
    schema: Any,
    ids: Any,
    table: Snapshot,
    slides: NDArray[np.int64],
    rows: NDArray[np.integer],
    rerank: Rerank | None,
) -> Any:
    """Return some patches as Arrow; numbers that a slide lacks are null."""
    arrow = needed("pyarrow")
    sizes, mpp = table.slides.numbers("patch_l0_px")[slides], table.slides.numbers("mpp")[slides]
    no_place, places = sizes <= 0, table.l0_xy[rows].astype(np.int64)
    columns = {
        "slide_id": ids,
        "x": arrow.array(np.ascontiguousarray(places[:, 0]), mask=no_place),
        "y": arrow.array(np.ascontiguousarray(places[:, 1]), mask=no_place),
        "size": arrow.array(sizes, mask=no_place),
        "mpp": arrow.array(mpp, mask=mpp <= 0),
        "key": arrow.array(table.keys[rows, 0].astype(np.int64)),
        "barcode": _fixed_bytes(arrow, table.barcodes[rows]),
    }
    vectors = vectors_of(table, rows, rerank)
    if vectors is not None:
        flat = arrow.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
        columns["vector"] = arrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return arrow.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _fixed_bytes(arrow: Any, barcodes: NDArray[np.uint8]) -> Any:
    data = arrow.py_buffer(np.ascontiguousarray(barcodes))
    return arrow.FixedSizeBinaryArray.from_buffers(
        arrow.binary(barcodes.shape[1]), len(barcodes), [None, data]
    )
