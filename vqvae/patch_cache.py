"""Squares of pixels kept on disk, so that a slide is decoded once and not in every epoch.

One sparse file of slots, each a checksum and its pixels. A slot that was never written, was cut short by a
crash, or is being written by another process fails its checksum and counts as empty: so workers, the
processes of several GPUs and later runs share the file without a lock.
"""

import hashlib
import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sish.slides.pyramid import Pixels

__all__ = ["PatchCache", "slots_within"]

_SUFFIX = ".squares"
_CHECK_BYTES = 4
_CHECK_SEED = zlib.crc32(b"sish squares 1")  # an empty slot is zeros, which this makes no checksum of zeros


def slots_within(limit_bytes: int, side_px: int) -> int:
    """How many squares of a side fit into so many bytes.

    >>> slots_within(1000, 10)
    3
    """
    return limit_bytes // (_CHECK_BYTES + 3 * side_px**2)


class PatchCache:
    """Numbered slots of squares uint8 (side, side, 3) on disk."""

    def __init__(self, folder: Path, side_px: int, about: Any) -> None:
        """Squares of ``about`` in ``folder``; those of anything else there are deleted.

        ``about`` is plain data (JSON) that says what the squares are of: a run that gives the same goes on
        with what is there.
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
        """The square of a slot, None where there is none (yet)."""
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
        """Keep a square. A full disk is warned of once and costs only time."""
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
