"""Write files durably, replace them atomically, and take their checksums.

A file is durable once its bytes and the folder entry that names it are both flushed (``fsync``). A rename
within a folder is atomic on POSIX file systems, so a reader sees the old file or the new one.

An index may come from a stranger, and a symbolic link in it may lead to any file. So files are only
written as new ones, and `check_plain` refuses links before anything is read through them.

The package atomicwrites, which nobody maintains, flushes the folder only after the rename; a commit needs it
before too (`replace_file`). So these few lines are our own.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sish.errors import IndexCorruptError, SishError, StoreError, errors_about

NEW = ".new"
"""Ending of a file that is written and not yet renamed to its own name."""
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}
"""Errors of the system that mean damage; others (no rights, too many open files) are no damage."""
WAY_OUT = "restore it from a backup, or see sish index repair"
"""What to do about a damaged file of a segment."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The length and checksum of a file when it was written."""

    size: int
    """Its length in bytes."""
    sha256: str
    """The SHA-256 of its bytes, 64 hexadecimal digits."""

    @classmethod
    def of(cls, data: bytes | memoryview) -> "FileRecord":
        """Return the record of a file that holds ``data``."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


def record_file(path: Path) -> FileRecord:
    """Read a file from end to end; return its length and checksum."""
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


def check_plain(path: Path) -> None:
    """Refuse a symbolic link, a pipe or a device; accept a file, a folder and a missing path.

    Parameters
    ----------
    path : Path
        What is about to be read or written.

    Raises
    ------
    IndexCorruptError
        If it is something that no writer of an index makes.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no plain file"
        raise IndexCorruptError(
            f"{path} is {kind}, wanted only files and folders in an index: "
            "do not use it, or copy it with 'cp -RL' if you made the links",
            path=path,
        )


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, and flush the entries of all of them."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for folder in (*reversed(missing), path):
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def write_file(path: Path, data: bytes | Iterable[bytes | memoryview]) -> FileRecord:
    """Write a new file and flush it; its entry in the folder is not flushed yet (see `sync`).

    A file that an interrupted writer left at the path is unlinked first. So is a link, and its target stays
    as it is.

    Parameters
    ----------
    path : Path
        The file.
    data : bytes, or iterable of them
        All of it, or its pieces.

    Returns
    -------
    FileRecord
        Its length and checksum.
    """
    path.unlink(missing_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:  # O_EXCL: never through a link, even one that is made at this moment
        for piece in [data] if isinstance(data, bytes) else data:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(size, digest.hexdigest())


def replace_file(path: Path, data: bytes) -> None:
    """Replace the file at ``path``; a crash leaves the old file or the new one.

    The folder is flushed before the rename too, because the new file may name other new files beside it.
    """
    replace_with(path, [data])


def replace_with(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Replace the file at ``path`` as `replace_file` does, with pieces one after another."""
    new = path.with_name(path.name + NEW)
    new.unlink(missing_ok=True)
    with new.open("xb") as file:  # as in `write_file`
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)
    os.replace(new, path)  # noqa: PTH105  the fault injection of the tests patches os.replace
    sync(path.parent)


@contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn the operating system's errors into a StoreError of one line, and set the `path` of our own."""
    with errors_about(path):
        try:
            yield
        except SishError:  # some are an OSError too, and say already what is wrong
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"cannot {doing} {path}: {reason}; nothing stored is lost: "
                "see to the space and the rights of that folder, and run it again"
            ) from error


def corrupt(path: Path, wrong: str) -> IndexCorruptError:
    """Return the error for a damaged file of a segment."""
    return IndexCorruptError(f"{path} {wrong}: {WAY_OUT}", path=path)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Raise IndexCorruptError if a file is gone or the disk cannot read it; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        wrong = "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
        raise corrupt(path, wrong) from None
