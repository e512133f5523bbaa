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
"""The errors of numpy and zipfile for a file that has the right checksum and holds no arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class TreeFile:
    """The file of a tree, mapped when its state was opened, so it stays readable once a writer unlinks it."""

    path: Path
    """Where it was."""
    record: FileRecord
    """What was written."""
    data: npt.NDArray[np.uint8] | None
    """Its bytes; None if there was no such file."""

    def arrays(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Return the arrays; IndexCorruptError if the bytes are not the ones that were written."""
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
    """Map the file of a tree; a link is refused now (IndexCorruptError), damage when the arrays are read."""
    check_plain(path)
    try:
        return TreeFile(path, record, np.memmap(path, np.uint8, mode="r").view(np.ndarray))
    except (FileNotFoundError, IsADirectoryError, ValueError):  # an empty file cannot be mapped
        return TreeFile(path, record, None)


def write_tree(
    folder: Path, generation: int, arrays: Mapping[str, npt.NDArray[np.uint8]]
) -> dict[str, FileRecord]:
    """Write the arrays durably to a file named by the generation; return its name and record."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    name = f"tree.{generation:08d}.npz"
    return {name: write_file(folder / name, buffer.getvalue())}


def _arrays(data: bytes) -> dict[str, npt.NDArray[np.uint8]]:
    """Read the arrays of an npz without compression, as `write_tree` makes it: they fit in its length."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(item.file_size for item in archive.infolist()) > len(data):
            raise ValueError("its arrays are larger than the file")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
