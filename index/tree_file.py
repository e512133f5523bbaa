"""The file that keeps the texture tree of an index: its arrays in one npz, without pickle."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sish.errors import IndexCorruptError
from sish.index.disk import FileRecord, check_plain, storage_errors, write_file

__all__ = ["read_tree", "write_tree"]


def write_tree(
    folder: Path, generation: int, arrays: Mapping[str, npt.NDArray[np.uint8]]
) -> dict[str, FileRecord]:
    """Write the arrays durably, named by ``generation``; the name and what was written."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    name = f"tree.{generation:08d}.npz"
    return {name: write_file(folder / name, buffer.getvalue())}


def read_tree(path: Path, record: FileRecord) -> dict[str, npt.NDArray[np.uint8]]:
    """The arrays in ``path``; IndexCorruptError where its bytes are not as ``record`` says."""
    with storage_errors(path, "read"):
        check_plain(path)
        data = path.read_bytes()
    if FileRecord(len(data), hashlib.sha256(data).hexdigest()) != record:
        raise IndexCorruptError(
            f"{path}: its bytes changed; restore the index from a backup, or index the slides again"
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
