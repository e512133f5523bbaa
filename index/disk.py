"""Files that are really on the disk: durable writes, atomic replacement, checksums.

A file is durable once its bytes and the folder entry that names it are both flushed (``fsync``); a
rename within a folder is atomic on POSIX file systems, so a reader sees the old file or the new one.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sish.errors import StoreError

__all__ = ["FileRecord", "record_file", "replace_file", "storage_errors", "sync", "write_file"]

NEW = ".new"
"""Ending of a file that is written and not yet renamed to its own name."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file was when it was written."""

    size: int
    """Its length in bytes."""
    sha256: str
    """The SHA-256 of its bytes, 64 hexadecimal digits."""


def record_file(path: Path) -> FileRecord:
    """Read ``path`` from end to end and say its length and checksum."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileRecord(file.tell(), digest.hexdigest())


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> FileRecord:
    """Write ``data`` and flush it; the folder's entry is not flushed yet (see `sync`)."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(len(data), hashlib.sha256(data).hexdigest())


def replace_file(path: Path, data: bytes) -> None:
    """Put ``data`` in the place of ``path``, so that a crash leaves the old file or the new one."""
    new = path.with_name(path.name + NEW)
    write_file(new, data)
    os.replace(new, path)  # noqa: PTH105  the fault injection of the tests patches os.replace
    sync(path.parent)


@contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn the operating system's errors into a `StoreError` of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"cannot {doing} {path}: {reason}; nothing stored is lost: "
            "see to the space and the rights of that folder, and run it again"
        ) from error
