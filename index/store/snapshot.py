"""The patches of the store: a table in key order, with its slides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sish.errors import IndexCorruptError, ParameterError
from sish.index.store.scratch import blocks_of, is_large, scratch
from sish.index.store.slide_row import SlideRow
from sish.index.store.slide_table import SlideTable, joined, places_of


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Patches of some slides in key order: P patches, T keys and B barcode bytes each.

    Rows are sorted by ``keys[:, 0]``; ties are in insertion order, that is by ``slide``, then by ``row``.
    The arrays may be read-only views of files; they stay valid whatever a writer does.
    """

    slides: SlideTable
    """The slides in the order in which they were added."""
    keys: npt.NDArray[np.integer]
    """int64 or int32 (P, T): the keys of each patch, one for each tree."""
    barcodes: npt.NDArray[np.uint8]
    """uint8 (P, B): the barcode of each patch, most significant bit first."""
    l0_xy: npt.NDArray[np.integer]
    """int64 or int32 (P, 2): top left corner in level-0 pixels, x first."""
    slide: npt.NDArray[np.int32]
    """int32 (P,): number of the patch's slide in ``slides``."""
    row: npt.NDArray[np.int32]
    """int32 (P,): number of the patch in its slide, as it was appended."""
    by_slide: npt.NDArray[np.int32] | None = None
    """int32 (P,): what `insertion_order` returns, where it is stored."""
    key_begins: npt.NDArray[np.int32] | None = None
    """int32 (K,): where each key begins, for keys 0 to K - 2, and P, where it is stored."""
    vectors: npt.NDArray[np.uint8] | None = None
    """uint8 (P, V): the bytes of each patch's vector (`sish.index.vector_coder`), where vectors are kept."""

    def __len__(self) -> int:
        """Return P, the number of patches."""
        return len(self.keys)

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that are not made from the others, by name, in the order in which they are stored."""
        own = {name: getattr(self, name) for name in ARRAYS}
        return own if self.vectors is None else {**own, "vectors": self.vectors}

    @property
    def widths(self) -> tuple[int, int, int | None]:
        """T, B and V: keys of a patch, bytes of a barcode, and of a stored vector where there are any."""
        kept = None if self.vectors is None else self.vectors.shape[1]
        return self.keys.shape[1], self.barcodes.shape[1], kept

    def insertion_order(self) -> npt.NDArray[np.integer]:
        """Return int (P,): row numbers of this table, in the order in which patches were appended."""
        return np.lexsort((self.row, self.slide)) if self.by_slide is None else self.by_slide

    def rows_of(self, slides: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Return the row numbers of all patches of some slides, slide after slide, each in its own order."""
        if self.by_slide is not None:
            try:
                rows = self.by_slide[places_of(self.slides.patch_ends, slides)[0]]
            except (IndexError, ValueError):
                raise _astray() from None
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
                raise _astray()
            return rows
        found = np.flatnonzero(self.slide == slides[0] if len(slides) == 1 else np.isin(self.slide, slides))
        place = np.empty(len(self.slides), np.int64)
        place[slides] = np.arange(len(slides))
        return found[np.lexsort((self.row[found], place[self.slide[found]]))]


def _astray() -> IndexCorruptError:
    """Return the error for numbers of a large index, which was not compared, that lead out of it."""
    return IndexCorruptError("patches lie outside of the index: see sish index verify and sish index repair")


ARRAYS = ("keys", "barcodes", "l0_xy", "slide", "row")
"""The arrays of every snapshot that are not made from the others (`Snapshot.arrays`)."""


def empty_snapshot() -> Snapshot:
    """Return the snapshot of an empty index, with T = B = 1."""
    none = np.empty(0, np.int32)
    places = np.empty((0, 2), np.int64)
    return Snapshot(
        SlideTable.of([]), np.empty((0, 1), np.int64), np.empty((0, 1), np.uint8), places, none, none
    )


def _checked(
    name: str, array: npt.ArrayLike, dtype: npt.DTypeLike, shape: tuple[int | None, ...]
) -> npt.NDArray[Any]:
    """Return an array as ``dtype`` if no value changes and its shape fits (None: any size from 1 on)."""
    got = np.asarray(array)
    fits = got.ndim == len(shape) and all(
        n >= 1 if want is None else n == want for n, want in zip(got.shape, shape, strict=True)
    )
    if not fits or not np.can_cast(got.dtype, dtype):
        wanted = ", ".join("at least 1" if n is None else str(n) for n in shape)
        raise ParameterError(
            f"{name} is {got.dtype} {got.shape}, wanted {np.dtype(dtype)} ({wanted}): "
            "one row for each of the slide's n_patches patches"
        )
    return got.astype(dtype, copy=False)


def slide_snapshot(
    row: SlideRow,
    keys: npt.ArrayLike,
    barcodes: npt.ArrayLike,
    l0_xy: npt.ArrayLike | None,
    vectors: npt.ArrayLike | None = None,
) -> Snapshot:
    """Return a table of one slide's N patches in key order.

    Parameters
    ----------
    row : SlideRow
        The slide; its `n_patches` is N.
    keys : array-like of int, shape (N, T)
        The keys of each patch.
    barcodes : array-like of uint8, shape (N, B)
        The barcode of each patch.
    l0_xy : array-like of int, shape (N, 2), optional
        The top left corner of each patch in level-0 pixels. Default: zeros, of patches without places.
    vectors : array-like of uint8, shape (N, V), optional
        The bytes of each patch's vector. Default: none are kept.

    Returns
    -------
    Snapshot
        The patches, sorted by their first key; patches of one key keep their order.

    Raises
    ------
    ParameterError
        If a shape or dtype does not fit.
    """
    n = row.n_patches
    places = np.zeros((n, 2), np.int64) if l0_xy is None else l0_xy
    all_keys = _checked("keys", keys, np.int64, (n, None))
    order = np.argsort(all_keys[:, 0], kind="stable")
    return Snapshot(
        slides=SlideTable.of([row]),
        keys=all_keys[order],
        barcodes=_checked("barcodes", barcodes, np.uint8, (n, None))[order],
        l0_xy=_checked("l0_xy", places, np.int64, (n, 2))[order],
        slide=np.zeros(n, np.int32),
        row=order.astype(np.int32),
        vectors=None if vectors is None else _checked("vectors", vectors, np.uint8, (n, None))[order],
    )


def merge(parts: Sequence[Snapshot]) -> Snapshot:
    """Merge tables, whose slides follow each other in insertion order, into one.

    The sort is stable and the parts are sorted runs. So patches of one key stay in insertion order, and the
    time is O(P log(parts)).

    Parameters
    ----------
    parts : sequence of Snapshot
        The tables, at least one.

    Returns
    -------
    Snapshot
        All of their patches in key order.
    """
    if len(parts) == 1:
        return parts[0]
    firsts = np.cumsum([0, *(len(part.slides) for part in parts)])
    slide = np.concatenate([part.slide + np.int32(first) for part, first in zip(parts, firsts, strict=False)])
    first_keys = np.concatenate([part.keys[:, 0] for part in parts])
    order = np.argsort(first_keys, kind="stable")
    return Snapshot(
        slides=joined([part.slides for part in parts]),
        keys=np.concatenate([part.keys for part in parts])[order],
        barcodes=np.concatenate([part.barcodes for part in parts])[order],
        l0_xy=np.concatenate([part.l0_xy for part in parts])[order],
        slide=slide[order],
        row=np.concatenate([part.row for part in parts])[order],
        vectors=_joined_vectors(parts, order),
    )


def _joined_vectors(
    parts: Sequence[Snapshot], order: npt.NDArray[np.integer]
) -> npt.NDArray[np.uint8] | None:
    """Return the vectors of all parts in key order, or None; they may be large, so each is copied once."""
    vectors = [part.vectors for part in parts if part.vectors is not None]
    if len(vectors) < len(parts):
        return None
    out = np.empty((len(order), vectors[0].shape[1]), np.uint8)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    for mine, part in zip(np.split(place, np.cumsum([len(it) for it in vectors])[:-1]), vectors, strict=True):
        out[mine] = part
    return out


def merge_into(folder: Path, parts: Sequence[Snapshot]) -> Snapshot:
    """Merge tables as `merge` does; large arrays of the result lie in files in a folder, not in memory.

    Parameters
    ----------
    folder : Path
        The folder of the index.
    parts : sequence of Snapshot
        The tables, at least one; few large ones, because each is compared with all others.

    Returns
    -------
    Snapshot
        All of their patches in key order, as `merge` returns them.
    """
    if len(parts) == 1 or not is_large(sum(array.nbytes for part in parts for array in part.arrays.values())):
        return merge(parts)
    total = sum(map(len, parts))
    out = {
        name: scratch(
            folder, (total, *array.shape[1:]), np.result_type(*(part.arrays[name] for part in parts))
        )
        for name, array in parts[0].arrays.items()
    }
    first = 0
    for part, places in zip(parts, _places(parts), strict=True):
        for block, place in places:
            for name, array in part.arrays.items():
                out[name][place] = array[block]
            out["slide"][place] += np.int32(first)
        first += len(part.slides)
    return Snapshot(joined([part.slides for part in parts]), **out)


def _places(parts: Sequence[Snapshot]) -> Iterator[Iterator[tuple[slice, npt.NDArray[np.int64]]]]:
    """Yield for each table its blocks, each with the places of its patches among those of all tables."""
    keys = [part.keys[:, 0] for part in parts]

    def of(own: int) -> Iterator[tuple[slice, npt.NDArray[np.int64]]]:
        for block in blocks_of(len(keys[own])):
            place = block.start + np.arange(len(keys[own][block]))
            for other, theirs in enumerate(keys):
                if other != own:  # of equal keys, those of earlier tables come first
                    place += np.searchsorted(theirs, keys[own][block], "right" if other < own else "left")
            yield block, place

    return map(of, range(len(parts)))
