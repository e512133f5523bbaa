"""One writer at a time: an advisory lock that the operating system drops when its process ends."""

import fcntl
import os
from pathlib import Path

from sish.errors import IndexLockedError

__all__ = ["WriterLock"]


class WriterLock:
    """The right to write to one index folder, held from `acquire` to `release`.

    The lock is ``flock`` on a file that holds the writer's process number. It belongs to the open file,
    so that a second writer in the same process is refused too, and a killed writer leaves none behind.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over ``descriptor``, an open and locked file at ``path``."""
        self.path = path
        self._descriptor = descriptor
        self._owner = os.getpid()

    @classmethod
    def acquire(cls, path: Path) -> "WriterLock":
        """Lock the file at ``path``, made if it is missing, without waiting.

        Raises:
            IndexLockedError: another writer holds it.
            OSError: the file cannot be written.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "another process"
            os.close(descriptor)
            raise IndexLockedError(
                f"{path.parent} is being written to by process {holder}: wait until that ends, "
                "or open the index for reading only"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    @property
    def held(self) -> bool:
        """Whether this process holds the lock (a forked child does not)."""
        return self._descriptor >= 0 and os.getpid() == self._owner

    def release(self) -> None:
        """Give the lock back; doing it twice is allowed.

        The file stays: to unlink it would let two writers lock two files of one name.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if os.getpid() == self._owner:  # a forked child must not drop its parent's lock
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
