"""Arrays that a writer fills and that may be larger than the memory.

A large one lies in a file without a name, in the folder of the index: the system writes its pages to the disk
when memory is scarce, and the file is gone when nothing uses it, even if the process is killed. A small one
lies in memory.
"""

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE_BYTES = 1 << 25
"""Arrays of more bytes lie in a file."""
BLOCK = 1 << 16
"""Patches that are worked on at a time: 8 MB of barcodes."""
_LINE = 64  # bytes of a cache line, at which arrays begin


def blocks_of(patches: int) -> Iterator[slice]:
    """Yield the slices of so many patches that are worked on, one after another."""
    return (slice(begin, begin + BLOCK) for begin in range(0, patches, BLOCK))


def is_large(nbytes: int) -> bool:
    """Return whether so many bytes are better not held in memory."""
    return nbytes > LARGE_BYTES


def scratch(folder: Path | None, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array to be filled; its first values have no meaning.

    Parameters
    ----------
    folder : Path or None
        The folder of the file of a large array; None for an array in memory, whatever its size.
    shape : tuple of int
        Its shape.
    dtype : dtype-like
        Its dtype.

    Returns
    -------
    array
        The array.
    """
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if folder is None or not is_large(nbytes):
        raw = np.empty(nbytes + _LINE, np.uint8)
        skip = -raw.ctypes.data % _LINE
        return raw[skip : skip + nbytes].view(dtype).reshape(shape)
    with tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file.fileno(), nbytes)
        return np.memmap(file, dtype, mode="r+", shape=shape).view(np.ndarray)


def _reserve(descriptor: int, nbytes: int) -> None:
    """Give a file its size; a full disk is an OSError now, and not the end of the process later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
    else:
        os.truncate(descriptor, nbytes)
