"""The table that both searches read: patches in the order of their keys."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.compiled import as_barcodes, frozen
from sish.index.hamming_kernels import aligned


@dataclass(frozen=True, slots=True)
class KeyTable:
    """P patches in key order.

    `build` sorts patches in memory. The constructor takes arrays that are in key order already and does not
    copy them, so memory maps stay on disk. A `KeyTable` holds any integer keys: the paper's, or a tree's.

    Examples
    --------
    >>> table = KeyTable.build([30, 10], np.array([[7], [1]], np.uint8), slide=[0, 1])
    >>> len(table), table.keys.tolist(), table.slide.tolist()
    (2, [10, 30], [1, 0])
    """

    keys: NDArray[np.integer]
    """Key of each patch, int64 or int32 (P,), ascending; patches of one key are in insertion order."""
    barcodes: NDArray[np.uint8]
    """Barcode of each patch, (P, B), most significant bit first."""
    slide: NDArray[np.int32]
    """Slide number of each patch within this table, (P,)."""
    row: NDArray[np.int32]
    """Number of each patch within its slide, (P,): a search of cells returns equally near patches of a slide
    in this order."""
    position: NDArray[np.integer] | None = None
    """The caller's number of each patch, (P,). None if that is its place in this table."""
    first_slide: int = 0
    """Number that is added to the slide numbers of this table."""
    key_begins: NDArray[np.int32] | None = None
    """Where each of the keys 0, 1, ... begins, and P, where it is known (`Snapshot.key_begins`)."""

    def __post_init__(self) -> None:
        """Refuse arrays of other types or lengths. The order of the keys is not checked."""
        as_barcodes(self.barcodes)
        for name, dtypes in (("keys", (np.int64, np.int32)), ("slide", (np.int32,)), ("row", (np.int32,))):
            array = getattr(self, name)
            if array.dtype not in dtypes or array.shape != (len(self.barcodes),):
                raise ParameterError(
                    f"{name} is {array.dtype} {array.shape} beside barcodes {self.barcodes.shape}; "
                    f"give {np.dtype(dtypes[0])} ({len(self.barcodes)},)"
                )

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.keys)

    @classmethod
    def build(cls, keys: ArrayLike, barcodes: ArrayLike, slide: ArrayLike, *, first_slide: int = 0) -> Self:
        """Return the table of P patches that are given in insertion order, O(P log P).

        Patches of one key stay in insertion order. Arrays that are in key order already are not copied.

        Parameters
        ----------
        keys : int (P,)
            Any order.
        barcodes : uint8 (P, B)
        slide : int (P,)
            Slide numbers.
        first_slide : int
            Added to the slide numbers.

        Returns
        -------
        KeyTable
            Its `position` and `row` are the patches' places in the arrays given here, 0 to P - 1.

        Examples
        --------
        >>> table = KeyTable.build([30, 10, 30], np.zeros((3, 1), np.uint8), [0, 1, 2])
        >>> table.keys.tolist(), table.callers(np.array([0, 1, 2])).tolist()
        ([10, 30, 30], [1, 0, 2])
        """
        own_keys, rows = whole_numbers(keys, "keys").astype(np.int64, copy=False), as_barcodes(barcodes)
        slides = whole_numbers(slide, "slide").astype(np.int32, copy=False)
        count = np.arange(len(rows), dtype=np.int32)
        table = cls(own_keys, rows, slides, count, first_slide=first_slide)
        if np.all(own_keys[1:] >= own_keys[:-1]):
            return table
        order = np.argsort(own_keys, kind="stable")
        place = order.astype(np.int32)
        return cls(own_keys[order], aligned(rows, order), slides[order], place, place, first_slide)

    def callers(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the caller's numbers int64 (N,) of the patches at some places of this table, int64 (N,)."""
        return places if self.position is None else np.asarray(self.position)[places].astype(np.int64)


def whole_numbers(values: ArrayLike, name: str) -> NDArray[np.integer]:
    """Return an array of whole numbers as it is; ParameterError for any other, which a cast would cut."""
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ParameterError(f"{name} are {array.dtype}; give integers")
    return array


def checked_mask(exclude: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return a mask of slides as the kernels read it.

    Returns
    -------
    bool (n_slides,)
        Read-only; empty for None.

    Raises
    ------
    ParameterError
        If it is anything else, such as slide numbers.
    """
    mask = np.zeros(0, np.bool_) if exclude is None else np.asarray(exclude)
    if mask.dtype != np.bool_ or mask.ndim != 1:
        raise ParameterError(
            f"exclude is {mask.dtype} {mask.shape}; give bool (n_slides,), not slide numbers"
        )
    return frozen(mask)
