"""The patches that an index keeps of a slide: places, keys, barcodes and vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sish.errors import UnknownSlideError
from sish.index.store.segment import Segment
from sish.index.store.snapshot import Snapshot
from sish.index.store.state import State
from sish.nearest import nearest_to
from sish.rerank import Rerank
from sish.tables import needed, utf8_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class SlidePatches:
    """N patches of a slide, in the order in which the slide was read."""

    slide_id: str
    """The slide's name in the index."""
    l0_xy: NDArray[np.int64] | None
    """Shape (N, 2), x first: top left corners in level-0 pixels; None if the places are not known."""
    keys: NDArray[np.int64]
    """Shape (N,): the key of each patch. In an index with a texture tree it is the number of a leaf."""
    barcodes: NDArray[np.uint8]
    """Shape (N, B): packed bits, most significant first."""
    vectors: NDArray[np.float32] | None
    """Shape (N, F): the features of each patch, about, centred and scaled to length 1 as the barcodes see
    them (:mod:`sish.rerank`); None if the index keeps none."""
    patch_l0_px: float | None
    """Side of a patch in level-0 pixels; None if the places are not known."""
    mpp: float | None
    """Micrometres per level-0 pixel; None if not known."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.barcodes)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each patch; needs the extra ``tables``.

        Returns
        -------
        DataFrame
            ``slide_id``, ``x``, ``y``, ``size``, ``mpp``, ``key``, ``barcode`` (bytes) and, if vectors are
            kept, ``vector`` (float32 arrays). These are the columns of :meth:`sish.Index.to_parquet`. A place
            or scale that is not known is NaN.
        """
        places = np.full((len(self), 2), np.nan) if self.l0_xy is None else self.l0_xy
        columns = {
            "slide_id": [utf8_text(self.slide_id)] * len(self),
            "x": places[:, 0],
            "y": places[:, 1],
            "size": np.full(len(self), np.nan if self.patch_l0_px is None else self.patch_l0_px),
            "mpp": np.full(len(self), np.nan if self.mpp is None else self.mpp),
            "key": self.keys,
            "barcode": [barcode.tobytes() for barcode in self.barcodes],
        }
        return needed("pandas").DataFrame(
            columns if self.vectors is None else columns | {"vector": list(self.vectors)}
        )


def patches_of(state: State, slide_id: str, rerank: Rerank | None) -> SlidePatches:
    """Return the patches of a slide.

    Parameters
    ----------
    state : State
        A state of the index.
    slide_id : str
        The slide.
    rerank : Rerank, optional
        How the index keeps vectors.

    Returns
    -------
    SlidePatches
        Its patches; none for a slide without tissue.

    Raises
    ------
    UnknownSlideError
        If there is no such slide.
    """
    segment, number = _found(state, slide_id)
    table = segment.patches
    row, rows = table.slides[number], table.rows_of(np.array([number]))
    return SlidePatches(
        slide_id=row.slide_id,
        l0_xy=table.l0_xy[rows].astype(np.int64) if row.has_places else None,
        keys=table.keys[rows, 0].astype(np.int64),
        barcodes=table.barcodes[rows],
        vectors=vectors_of(table, rows, rerank),
        patch_l0_px=row.patch_l0_px or None,
        mpp=row.mpp or None,
    )


def vectors_of(
    table: Snapshot, rows: NDArray[np.integer], rerank: Rerank | None
) -> NDArray[np.float32] | None:
    """Return the vectors of some patches of a table, (N, F); None if the index keeps none."""
    return None if rerank is None or table.vectors is None else rerank.decode(table.vectors[rows])


def _found(state: State, slide_id: str) -> tuple[Segment, int]:
    """Return the segment that holds a slide, and the slide's number in its table."""
    for segment in state.segments:
        number = segment.number_of(slide_id)
        if number is not None:
            return segment, number
    raise unknown(state, slide_id)


def unknown(state: State, slide_id: str) -> UnknownSlideError:
    """Return the error for a slide that an index does not hold; it names similar ids."""
    near = nearest_to(slide_id, (name for name, _ in state.ids_and_paths()))
    return UnknownSlideError(
        f"{state.name} holds no slide {slide_id!r}{near}: sish index list shows its slide ids",
        path=state.name,
        slide_id=slide_id,
    )
