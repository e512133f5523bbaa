"""One writer at a time: an advisory lock that the operating system drops when its process ends.

The package filelock refuses a second writer as well. But it keeps no process number to name in the error,
and without ``flock`` it falls back to a file that a killed writer leaves behind. So this lock is our own.
"""

import os
from pathlib import Path

from sish.errors import IndexLockedError, MissingPackageError
from sish.index.store.disk import check_plain

try:
    import fcntl
except ImportError:
    raise MissingPackageError(
        "an index needs the file locks of a POSIX system (fcntl), and this one has none: "
        "use Linux or macOS, or WSL on Windows"
    ) from None


class WriterLock:
    """The right to write to one index folder, held from `acquire` to `release`.

    The lock is ``flock`` on a file that holds the writer's process number. It belongs to the open file. So
    a second writer in the same process is refused too, and a killed writer leaves no lock behind. A forked
    child shares the open file and would keep the lock alive after its parent, so the child closes its copy.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over ``descriptor``, an open and locked file at ``path``."""
        self.path = path
        self._descriptor = descriptor
        self._owner = os.getpid()

    @classmethod
    def acquire(cls, path: Path) -> "WriterLock":
        """Lock a file without waiting; it is made if it is missing.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        WriterLock
            The lock, held.

        Raises
        ------
        IndexLockedError
            If another writer holds it.
        IndexCorruptError
            If it is a symbolic link, or no plain file.
        OSError
            If the file cannot be written.
        """
        check_plain(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        _OPEN.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "another process"
            _close(descriptor)
            raise IndexLockedError(
                f"{path.parent} is being written to by process {holder}: wait until that ends, "
                "or open the index for reading only"
            ) from None
        except BaseException:
            _close(descriptor)
            raise
        return cls(path, descriptor)

    @property
    def held(self) -> bool:
        """Whether this process holds the lock; a forked child does not."""
        return self._descriptor >= 0 and os.getpid() == self._owner

    def release(self) -> None:
        """Give the lock back; a second call does nothing, nor does one in a forked child.

        The file stays. If it were unlinked, two writers could lock two files of one name.
        """
        if self.held:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            _close(self._descriptor)
        self._descriptor = -1


_OPEN: set[int] = set()
"""The lock files that this process has open."""


def _close(descriptor: int) -> None:
    _OPEN.discard(descriptor)
    os.close(descriptor)


def _close_in_child() -> None:
    while _OPEN:
        os.close(_OPEN.pop())


os.register_at_fork(after_in_child=_close_in_child)
