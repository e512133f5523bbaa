"""Compile and cache kernels, and compute the Hamming distance that all of them share."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.extending import intrinsic
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError

Words = NDArray[np.uint64] | NDArray[np.uint8]


_Function = TypeVar("_Function", bound=Callable[..., Any])


@cache
def _source_digest() -> bytes:
    """Return a digest of all Python files of this package but the store's, which has no kernels."""
    folder = Path(__file__).parent
    rooms = (folder, *(folder / name for name in ("trees", "guided", "texture")))
    files = sorted(file for room in rooms for file in room.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).digest()


class _PackageImpl(CompileResultCacheImpl):
    """Keeps a compiled function until any file of this package changes, as kernels call each other."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]  # numba's are
        own = self._locator.get_source_stamp()  # of the function's own file
        self._locator.get_source_stamp = lambda: (own, _source_digest())


class _PackageCache(FunctionCache):
    """The cache of one function."""

    _impl_class = _PackageImpl

    def load_overload(self, *signature: Any) -> Any:
        """Return the compiled function for some types, or None.

        A cache file of an earlier release may name modules and types that no longer exist. It is emptied.

        Returns
        -------
        numba.core.compiler.CompileResult or None
            The cached function.
        """
        try:
            return super().load_overload(*signature)  # type: ignore[no-untyped-call]
        except (ImportError, AttributeError):
            self.flush()  # type: ignore[no-untyped-call]
            return None


def compiled(function: _Function) -> _Function:
    """Return `function` compiled by numba: without the GIL, and cached on disk between runs.

    The cache is beside the function's file or in the user's cache folder. Where neither can be written,
    functions are compiled anew in each process.

    Returns
    -------
    numba.core.registry.CPUDispatcher
        Called like `function`.
    """
    kernel: Any = njit(nogil=True)(function)
    with suppress(RuntimeError):  # numba: "no locator available"
        kernel._cache = _PackageCache(function)  # type: ignore[no-untyped-call]
    return cast(_Function, kernel)


def _popcount(typing_context: Any, word: Any) -> Any:
    """Count set bits with one machine instruction, for which numba has no name."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return (word(word), generate) if isinstance(word, types.Integer) else None


popcount: Any = intrinsic(_popcount)


@compiled
def distance(left: Words, i: int, right: Words, j: int) -> int:
    """Return in how many bits row `i` of `left` differs from row `j` of `right`; for use in kernels."""
    bits: Any = np.int64(0)
    for word in range(left.shape[1]):
        bits += np.int64(popcount(left[i, word] ^ right[j, word]))  # a uint64 would make it a float
    return int(bits)


def cache_folder() -> Path | None:
    """Return the folder where compiled functions of this package are kept; None where none can be written."""
    path = distance._cache.cache_path  # type: ignore[attr-defined]  # numba has no public name for it
    return None if path is None else Path(path)


def as_words(barcodes: NDArray[np.uint8]) -> Words:
    """Return barcodes uint8 (N, B) as words: a read-only view, uint64 (N, B / 8) where possible.

    The view is always read-only, so that numba compiles each kernel once, for memory maps too.

    Returns
    -------
    uint64 (N, B / 8) or uint8 (N, B)
        The same memory.
    """
    wide = barcodes.shape[1] % 8 == 0 and barcodes.flags.c_contiguous and barcodes.ctypes.data % 8 == 0
    view: Words = barcodes.view(np.uint64) if wide else barcodes.view()
    view.flags.writeable = False
    return view


def as_barcodes(barcodes: ArrayLike, name: str = "barcodes") -> NDArray[np.uint8]:
    """Return `barcodes` as uint8 (N, B) with B >= 1, or raise ParameterError; an array is not copied."""
    array = np.asarray(barcodes)
    if array.ndim != 2 or array.dtype != np.uint8 or array.shape[1] == 0:
        raise ParameterError(f"{name} are {array.dtype} {array.shape}; give uint8 (N, B) with B >= 1")
    return array


def paired_words(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> tuple[Words, Words]:
    """Return two sets of barcodes as words of one kind; ParameterError where their widths differ."""
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
