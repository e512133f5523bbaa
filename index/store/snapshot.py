"""The rows of the store: the facts on a slide, and the table of patches in key order."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from reprlib import repr as short
from typing import Any

import numpy as np
import numpy.typing as npt

from sish.errors import ParameterError

INDEXED = "indexed"
"""Status of a slide whose patches are stored."""
NO_TISSUE = "no tissue"
"""Status of a slide in which no tissue was found: a recorded outcome, with no patches."""


@dataclass(frozen=True, slots=True)
class SlideRow:
    """The facts on one slide that the index keeps beside its patches."""

    slide_id: str
    """Its name within the index."""
    path: str
    """Where it was when it was added."""
    n_patches: int
    """How many patches stand for it; 0 for a slide without tissue."""
    patch_l0_px: float
    """Side of its patches in level-0 pixels."""
    mpp: float
    """Micrometres per level-0 pixel."""
    mpp_source: str
    """Where the mpp comes from (the user, a vendor's field, ...)."""
    width: int
    """Width of level 0 in pixels."""
    height: int
    """Height of level 0 in pixels."""
    label: str | None
    """Its diagnosis, or its site to be found again, where known."""
    patient: str
    """Its patient; the slide's own id where no patient is known."""
    site: str | None
    """Anatomic site or hospital, where known."""
    status: str = INDEXED
    """`INDEXED` or `NO_TISSUE`."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Everything else that the labels file said of it."""
    file_digest: str | None = None
    """Which file it was made from (`sish.identity`); None in rows that are older than the field."""


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(it, str) for pair in value.items() for it in pair)


_FIELDS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("slide_id", "path", "mpp_source", "patient", "status"), ("text", _is_text)),
    **dict.fromkeys(("label", "site", "file_digest"), ("text or nothing", _is_text_or_none)),
    **dict.fromkeys(("n_patches", "width", "height"), ("a whole number of at least 0", _is_count)),
    **dict.fromkeys(("patch_l0_px", "mpp"), ("a positive number", _is_length)),
    "metadata": ("texts by name", _is_texts),
}


def wrong_field(row: SlideRow) -> str | None:
    """Find the first field of a row that has a wrong type or value.

    Parameters
    ----------
    row : SlideRow
        The row.

    Returns
    -------
    str or None
        The field and what was wanted; None if all fields are right.

    Examples
    --------
    >>> row = SlideRow("a", "/a.svs", True, 256.0, 0.5, "given", 9, 9, None, "a", None)
    >>> wrong_field(row)
    'n_patches True, wanted a whole number of at least 0'
    """
    for name, (wanted, fits) in _FIELDS.items():
        if not fits(value := getattr(row, name)):
            return f"{name} {short(value)}, wanted {wanted}"
    return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Patches of some slides in key order: P patches, T keys and B barcode bytes each.

    Rows are sorted by ``keys[:, 0]``; ties are in insertion order, that is by ``slide``, then by ``row``.
    The arrays may be read-only views of files; they stay valid whatever a writer does.
    """

    slides: tuple[SlideRow, ...]
    """The slides in the order in which they were added."""
    keys: npt.NDArray[np.int64]
    """int64 (P, T): the keys of each patch, one for each tree."""
    barcodes: npt.NDArray[np.uint8]
    """uint8 (P, B): the barcode of each patch, most significant bit first."""
    l0_xy: npt.NDArray[np.int64]
    """int64 (P, 2): top left corner in level-0 pixels, x first."""
    slide: npt.NDArray[np.int32]
    """int32 (P,): number of the patch's slide in ``slides``."""
    row: npt.NDArray[np.int32]
    """int32 (P,): number of the patch in its slide, as it was appended."""

    def __len__(self) -> int:
        """Return P, the number of patches."""
        return len(self.keys)

    def insertion_order(self) -> npt.NDArray[np.int64]:
        """Return int64 (P,): row numbers of this table, in the order in which patches were appended."""
        return np.lexsort((self.row, self.slide))


ARRAYS = tuple(f.name for f in fields(Snapshot) if f.name != "slides")
"""The arrays of a snapshot, in the order in which they are stored."""


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
    row: SlideRow, keys: npt.ArrayLike, barcodes: npt.ArrayLike, l0_xy: npt.ArrayLike
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
    l0_xy : array-like of int, shape (N, 2)
        The top left corner of each patch in level-0 pixels.

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
    all_keys = _checked("keys", keys, np.int64, (n, None))
    order = np.argsort(all_keys[:, 0], kind="stable")
    return Snapshot(
        slides=(row,),
        keys=all_keys[order],
        barcodes=_checked("barcodes", barcodes, np.uint8, (n, None))[order],
        l0_xy=_checked("l0_xy", l0_xy, np.int64, (n, 2))[order],
        slide=np.zeros(n, np.int32),
        row=order.astype(np.int32),
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
        slides=tuple(slide_row for part in parts for slide_row in part.slides),
        keys=np.concatenate([part.keys for part in parts])[order],
        barcodes=np.concatenate([part.barcodes for part in parts])[order],
        l0_xy=np.concatenate([part.l0_xy for part in parts])[order],
        slide=slide[order],
        row=np.concatenate([part.row for part in parts])[order],
    )
