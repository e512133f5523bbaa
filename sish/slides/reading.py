"""Patches of a slide, read by threads ahead of the encoder, in order and in bounded memory.

Threads serve better than processes: OpenSlide and Pillow release Python's lock while they decode and resize,
the slide's own cache of tiles is shared, and pixels need not be copied from one process to another.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.slides.mosaic import read_patch
from sish.slides.reader_threads import ReaderThreads, TimeLimit
from sish.slides.slide import Slide

AHEAD_BYTES = 64 << 20
"""Bytes of pixels that are read ahead of the encoder, at most (but always a batch)."""

_MOST_WORKERS = 8  # more threads wait for Python's lock and for the disk
_MOST_PATCHES = 32  # of a batch: a few are enough to keep the threads busy


def checked_workers(workers: int | None) -> int:
    """Return a number of threads; None is `default_workers`, and anything below 1 a ParameterError."""
    if workers is None:
        return default_workers()
    if isinstance(workers, bool) or not isinstance(workers, Integral) or workers < 1:
        raise ParameterError(f"got workers={workers!r}; want the number of threads, 1 or more")
    return int(workers)


def default_workers() -> int:
    """Return the number of threads that read: one for each core that this process may use, at most 8."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


def batch_patches(size_px: int) -> int:
    """Return the patches of a batch so that two stay in bounds: 32 of 256 px, 10 of the paper's 1,024 px."""
    return max(1, min(_MOST_PATCHES, AHEAD_BYTES // (2 * 3 * size_px * size_px)))


def read_patches(
    slide: Slide,
    l0_xy: NDArray[np.int64],
    size_px: int,
    mpp: float,
    *,
    workers: int = 1,
    batch: int | None = None,
    step_px: int | None = None,
    limit: TimeLimit | None = None,
) -> Generator[NDArray[np.uint8]]:
    """Read patches in batches and in order, each batch while the caller works on the one before.

    Close the generator when it is left early. It then returns once nothing reads the slide any more, but
    leaves behind a read that takes longer than 5 s. At most two batches are in memory.

    Parameters
    ----------
    slide : Slide
        An open slide; it is read by several threads.
    l0_xy : int64 (N, 2)
        Top left corners, level-0 pixels.
    size_px : int
        Side of a patch in pixels at `mpp`.
    mpp : float
        Scale, micrometres per pixel.
    workers : int
        Number of threads that read.
    batch : int, optional
        Patches of a batch. Default: as many as keep what is read ahead below 64 MB.
    step_px : int, optional
        Sides of a smaller image's patch are multiples of it (:func:`read_patch`).
    limit : TimeLimit, optional
        Time that reading may take. Default: for ever.

    Yields
    ------
    uint8 (n, size_px, size_px, 3)
        One batch.

    Raises
    ------
    SlideReadError
        If pixels fail, or `limit` has passed.
    ParameterError
        If `workers` or `batch` is below 1.

    Examples
    --------
    >>> from sish.slides.slide import slide_from_array
    >>> slide = slide_from_array(np.zeros((300, 300, 3), np.uint8), mpp=0.5)
    >>> corners = np.array([[0, 0], [100, 100], [200, 200]])
    >>> [batch.shape for batch in read_patches(slide, corners, size_px=50, mpp=1.0, batch=2)]
    [(2, 50, 50, 3), (1, 50, 50, 3)]
    """
    if workers < 1 or (batch is not None and batch < 1):
        raise ParameterError(f"got workers={workers}, batch={batch}; want at least 1 of each")
    step = batch or batch_patches(size_px)
    limit = limit or TimeLimit(0, "")

    def read(corner: NDArray[np.int64]) -> NDArray[np.uint8]:
        return read_patch(slide, (int(corner[0]), int(corner[1])), size_px, mpp, step_px=step_px)

    pool = ReaderThreads(min(workers, len(l0_xy)))
    waiting = deque[list[Future[NDArray[np.uint8]]]]()
    try:
        for start in range(0, len(l0_xy), step):
            waiting.append([pool.submit(read, corner) for corner in l0_xy[start : start + step]])
            if len(waiting) == 2:
                yield np.stack([limit.result(patch) for patch in waiting.popleft()])
        while waiting:
            yield np.stack([limit.result(patch) for patch in waiting.popleft()])
    finally:
        pool.close()
