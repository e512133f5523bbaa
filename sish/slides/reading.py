"""Patches of a slide, read by threads ahead of the encoder, in order and in bounded memory.

Threads, not processes: OpenSlide and Pillow release Python's lock while they decode and resize, the slide's
own cache of tiles is shared, and what is read need not be copied from one process to another.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.slides.mosaic import read_patch
from sish.slides.reader_threads import ReaderThreads, TimeLimit
from sish.slides.slide import Slide

__all__ = ["AHEAD_BYTES", "batch_patches", "default_workers", "read_patches"]

AHEAD_BYTES = 64 << 20
"""Pixels that are read ahead of the encoder, at most (but always a batch)."""

_MOST_WORKERS = 8  # more threads wait for Python's lock and for the disk
_MOST_PATCHES = 32  # of a batch: a few are enough to keep the threads busy


def default_workers() -> int:
    """Threads that read: one a core that this process may use, at most 8."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


def batch_patches(size_px: int) -> int:
    """Patches of a batch, so that two batches stay in bounds: 32 of 256 px, 10 of the paper's 1,024 px."""
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
    """Batches uint8 (n, size_px, size_px, 3) of the patches at `l0_xy`, in order; the next is read meanwhile.

    Close the generator when it is left early: it then returns once nothing reads the slide any more, but
    leaves behind a read that takes longer than 5 s. SlideReadError where pixels fail; ParameterError for
    fewer than one worker.

    Parameters
    ----------
    slide : Slide
        An open slide; it is read by several threads.
    l0_xy : int64 (N, 2)
        Top left corners, level-0 pixels.
    size_px, mpp : int, float
        Side of a patch in pixels, and micrometres a pixel.
    workers : int
        Threads that read.
    batch : int, optional
        Patches of a batch. Default: as many as keep what is read ahead below 64 MB.
    step_px : int, optional
        What the sides of patches of an image smaller than a patch are multiples of (:func:`read_patch`).
    limit : TimeLimit, optional
        How long reading may take: SlideReadError afterwards. Default: for ever.
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
