"""Files below a folder: the one walk that slides, feature files and images are found by."""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sish.errors import SlideNotFoundError, SlideOpenError

OnError = Callable[[SlideOpenError], None]


def files_below(folder: Path, suffixes: Collection[str], on_error: OnError | None = None) -> list[Path]:
    """Return the files with some endings below a folder, without hidden files and folders.

    Links to folders and files are followed. A file that is reached twice is listed once: by its own place, or
    else by the first link to it. A link to a folder that it lies in is a loop, and is passed over.

    Parameters
    ----------
    folder : Path
        Where to search.
    suffixes : collection of str
        Endings in lower case, such as ``.svs``.
    on_error : callable, optional
        It is told of each folder that cannot be read and of each link to nowhere (of these endings, or of
        none, as a folder's), and the search goes on.

    Returns
    -------
    list of Path
        The files, sorted.

    Raises
    ------
    SlideOpenError
        Without `on_error`, where it would be told: no file is passed over in silence.
    """
    found: dict[str, Path] = {}  # by the file's own place
    links: list[Path] = []

    def refused(error: OSError) -> None:
        kind = SlideNotFoundError if isinstance(error, FileNotFoundError) else SlideOpenError
        wrong = kind(
            f"{error.filename}: cannot be read: {error.strerror}; see to its permissions, or its target",
            path=error.filename,
        )
        if on_error is None:
            raise wrong from error
        on_error(wrong)

    for real, place, names in _folders(folder, refused):
        for name in names:
            path = Path(place, name)
            if path.suffix.lower() not in suffixes and path.suffix:
                continue
            if path.is_symlink():
                links.append(path)
            elif path.suffix and _is_regular(path, refused):
                found[os.path.join(real, name)] = path  # noqa: PTH118  a key, as realpath gives it
    for path in links:  # last, so that a file's own place comes before links to it
        if _is_regular(path, refused) and path.suffix:
            found.setdefault(os.path.realpath(path), path)
    return sorted(found.values())


def _folders(folder: Path, refused: Callable[[OSError], None]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each folder once: its own place, the place by which it was reached, and its files."""
    entered: set[str] = set()
    waiting = deque([str(folder)])
    while waiting:
        for place, folders, names in os.walk(waiting.popleft(), onerror=refused):
            real = os.path.realpath(place)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            linked = [os.path.join(place, name) for name in folders]  # noqa: PTH118  os.walk takes strings
            waiting += [link for link in linked if os.path.islink(link) and not _is_loop(link, real)]  # noqa: PTH114
            yield real, place, sorted(name for name in names if not name.startswith("."))


def _is_loop(link: str, real: str) -> bool:
    """Return whether a link in the folder `real` leads to a folder that holds `real`."""
    return Path(real).is_relative_to(os.path.realpath(link))


def _is_regular(path: Path, refused: Callable[[OSError], None]) -> bool:
    """Return whether it is a regular file; `refused` is told where nobody can say."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        if path.is_symlink():
            refused(FileNotFoundError(errno.ENOENT, "a link to nowhere", str(path)))
    except OSError as error:
        refused(error)
    return False
