"""The file that keeps the texture tree of an index: its arrays, mapped into memory.

In format 1 it was an npz without pickle, which is read into memory when the arrays are asked for.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sish.errors import IndexCorruptError
from sish.index.store.disk import FileRecord, check_plain, write_file
from sish.index.store.packed import pack, unpack

_OLD = ".npz"
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
    checked: set[str] = field(default_factory=set, repr=False)
    """Its checksum, once it was compared."""

    @property
    def is_old(self) -> bool:
        """Whether it is a file of format 1."""
        return self.path.suffix == _OLD

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays; IndexCorruptError if the file is gone, or has another length or no arrays."""
        if self.data is None:
            raise self._corrupt("is missing")
        if len(self.data) != self.record.size:
            raise self._corrupt("has other bytes than were written")
        try:
            if self.is_old:
                self.check()
                return _arrays(self.data.tobytes())
            return unpack(self.data)
        except _NO_TREE as error:
            if isinstance(error, IndexCorruptError):
                raise
            raise self._corrupt(f"holds no tree ({str(error)[:80]!r})") from None

    def check(self) -> None:
        """Compare it with its checksum, once; IndexCorruptError if the bytes are not those written."""
        if self.data is None:
            raise self._corrupt("is missing")
        if self.record.sha256 not in self.checked:
            if FileRecord.of(self.data.data) != self.record:
                raise self._corrupt("has other bytes than were written")
            self.checked.add(self.record.sha256)

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
    folder: Path, generation: int, arrays: Mapping[str, npt.NDArray[Any]]
) -> dict[str, FileRecord]:
    """Write the arrays durably to a file named by the generation; return its name and record."""
    name = f"tree.{generation:08d}.safetensors"
    return {name: write_file(folder / name, pack(arrays))}


def _arrays(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an npz without compression: they fit in its length."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(item.file_size for item in archive.infolist()) > len(data):
            raise ValueError("its arrays are larger than the file")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
