"""Compiled kernels: how they are made, and the Hamming distance that all of them share."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError

__all__ = ["Words", "as_barcodes", "as_words", "compiled", "distance", "frozen", "paired_words", "popcount"]

Words = NDArray[np.uint64] | NDArray[np.uint8]


_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """`function` compiled by numba: without the GIL, and cached on disk between runs.

    Where neither the package's folder nor the user's cache can be written, compiled once a process. The
    cache knows changes of a function's own file only: after a change of `distance` clear ``__pycache__``.
    """
    try:
        return cast(_Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # numba: "no locator available"
        return cast(_Function, njit(nogil=True)(function))


def _popcount(typing_context: Any, word: Any) -> Any:
    """One machine instruction for the number of set bits; numba has no name for it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return (word(word), generate) if isinstance(word, types.Integer) else None


popcount: Any = intrinsic(_popcount)


@compiled
def distance(left: Words, i: int, right: Words, j: int) -> int:
    """Bits in which row `i` of `left` differs from row `j` of `right` (for use in other kernels)."""
    bits: Any = np.int64(0)
    for word in range(left.shape[1]):
        bits += np.int64(popcount(left[i, word] ^ right[j, word]))  # a uint64 would make it a float
    return int(bits)


def as_words(barcodes: NDArray[np.uint8]) -> Words:
    """A read-only view of barcodes uint8 (N, B) as uint64 (N, B / 8) where possible, else as they are.

    Read-only always, so that numba compiles each kernel for one kind of array, memory maps included.
    """
    wide = barcodes.shape[1] % 8 == 0 and barcodes.flags.c_contiguous and barcodes.ctypes.data % 8 == 0
    view: Words = barcodes.view(np.uint64) if wide else barcodes.view()
    view.flags.writeable = False
    return view


def as_barcodes(barcodes: ArrayLike, name: str = "barcodes") -> NDArray[np.uint8]:
    """`barcodes` as a uint8 array (N, B) with B >= 1, not copied if it is one; ParameterError otherwise."""
    array = np.asarray(barcodes)
    if array.ndim != 2 or array.dtype != np.uint8 or array.shape[1] == 0:
        raise ParameterError(f"{name} are {array.dtype} {array.shape}; give uint8 (N, B) with B >= 1")
    return array


def paired_words(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> tuple[Words, Words]:
    """Both sets of barcodes as words of one width; ParameterError where their widths differ."""
    if left.shape[1] != right.shape[1]:
        raise ParameterError(
            f"barcodes of {left.shape[1]} bytes against {right.shape[1]}; both must come from one encoder"
        )
    wide = as_words(left), as_words(right)
    if wide[0].dtype == wide[1].dtype:
        return wide
    narrow = left.view(), right.view()
    for view in narrow:
        view.flags.writeable = False
    return narrow


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous read-only view: the kernels are compiled for these only."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
