"""Squares of pixels kept on disk, so that a slide is decoded once and not in every epoch.

The cache is one sparse file of slots. A slot is a checksum and its pixels. It counts as empty if its checksum
fails: it was never written, a crash cut it short, or another process is writing it. So workers, the processes
of several GPUs and later runs share the file without a lock, which an HDF5 file or a database would need.
"""

import hashlib
import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sish.slides.formats.levels import Pixels

_SUFFIX = ".squares"
_CHECK_BYTES = 4
_CHECK_SEED = zlib.crc32(b"sish squares 1")  # with it, an empty slot (all zeros) fails its checksum


def slots_within(limit_bytes: int, side_px: int) -> int:
    """Return how many squares of a side fit into a number of bytes.

    Parameters
    ----------
    limit_bytes : int
        Size of the file, at most.
    side_px : int
        Side of a square.

    Returns
    -------
    int
        Number of slots.

    Examples
    --------
    >>> slots_within(1000, 10)
    3
    """
    return limit_bytes // (_CHECK_BYTES + 3 * side_px**2)


class PatchCache:
    """Numbered slots of squares uint8 (side, side, 3) on disk."""

    def __init__(self, folder: Path, side_px: int, about: Any) -> None:
        """Open the cache of some squares, and delete the caches of other squares in its folder.

        Parameters
        ----------
        folder : Path
            Where the file lies.
        side_px : int
            Side of a square.
        about : Any
            Plain data (JSON) that identifies the squares. A run with the same data reuses the file.
        """
        self.side_px = side_px
        name = hashlib.sha256(json.dumps([side_px, about], sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"{name}{_SUFFIX}"
        self._broken = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"*{_SUFFIX}"):
                if old != self.path:
                    old.unlink(missing_ok=True)
            self.path.touch()
        except OSError as error:
            self._give_up(error)

    def get(self, slot: int) -> Pixels | None:
        """Return the square of a slot; None if the slot is empty."""
        if self._broken:
            return None
        size = 3 * self.side_px**2
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(slot * (_CHECK_BYTES + size))
                found = file.read(_CHECK_BYTES + size)
        except OSError as error:
            self._give_up(error)
            return None
        check, pixels = found[:_CHECK_BYTES], found[_CHECK_BYTES:]
        if len(pixels) < size or check != _check_of(pixels):
            return None
        return np.frombuffer(pixels, np.uint8).reshape(self.side_px, self.side_px, 3)

    def put(self, slot: int, square: Pixels) -> None:
        """Keep a square in a slot. A full disk gives one warning, and costs only time."""
        if self._broken:
            return
        pixels = square.tobytes()
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.seek(slot * (_CHECK_BYTES + len(pixels)))
                file.write(_check_of(pixels) + pixels)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._broken = True
        warnings.warn(
            f"patches cannot be kept in {self.path.parent} ({error.strerror}) and are read from the slides"
            " each time; give another --data.cut.cache_folder, or --data.cut.cache_gb 0",
            stacklevel=4,
        )


def _check_of(pixels: bytes) -> bytes:
    return zlib.crc32(pixels, _CHECK_SEED).to_bytes(_CHECK_BYTES, "little")
