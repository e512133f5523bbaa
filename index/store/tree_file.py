"""The file that keeps the texture tree of an index: its arrays in one npz, without pickle."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sish.errors import IndexCorruptError
from sish.index.store.disk import FileRecord, check_plain, write_file

__all__ = ["TreeFile", "open_tree", "write_tree"]


_NO_TREE = (
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
)
"""What reading raises for bytes that someone vouched for and that are no arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class TreeFile:
    """A tree's file, mapped when its state was opened: it can be read after a writer has unlinked it."""

    path: Path
    """Where it was."""
    record: FileRecord
    """What was written."""
    data: npt.NDArray[np.uint8] | None
    """Its bytes; None if there was no such file."""

    def arrays(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Return the arrays; IndexCorruptError where the bytes are not those that were written."""
        if self.data is None:
            raise self._corrupt("is missing")
        data = self.data.tobytes()
        if FileRecord.of(data) != self.record:
            raise self._corrupt("has other bytes than were written")
        try:
            return _arrays(data)
        except _NO_TREE as error:
            raise self._corrupt(f"holds no tree ({str(error)[:80]!r})") from None

    def _corrupt(self, wrong: str) -> IndexCorruptError:
        return IndexCorruptError(
            f"{self.path} {wrong}: restore it from a backup, or run sish index repair, which makes it anew",
            path=self.path,
        )


def open_tree(path: Path, record: FileRecord) -> TreeFile:
    """Map a tree's file; damage is told when it is read, a link at once (IndexCorruptError)."""
    check_plain(path)
    try:
        return TreeFile(path, record, np.memmap(path, np.uint8, mode="r").view(np.ndarray))
    except (FileNotFoundError, IsADirectoryError, ValueError):  # an empty file cannot be mapped
        return TreeFile(path, record, None)


def write_tree(
    folder: Path, generation: int, arrays: Mapping[str, npt.NDArray[np.uint8]]
) -> dict[str, FileRecord]:
    """Write the arrays durably, named by ``generation``; the name and what was written."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    name = f"tree.{generation:08d}.npz"
    return {name: write_file(folder / name, buffer.getvalue())}


def _arrays(data: bytes) -> dict[str, npt.NDArray[np.uint8]]:
    """The arrays of an npz as `write_tree` makes it, which is not compressed: it cannot swell."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(item.file_size for item in archive.infolist()) > len(data):
            raise ValueError("its arrays are larger than the file")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
