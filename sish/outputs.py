"""Write the output files of commands: whole or not at all, and never over an input.

>>> import tempfile
>>> page = Path(tempfile.mkdtemp()) / "page.html"
>>> write_output(page, b"<p>", replaces=(".html",)).read_bytes()
b'<p>'
>>> write_output(page, b"<p>", inputs=[page], replaces=(".html",))
Traceback (most recent call last):
sish.errors.ParameterError: ...page.html is an input (...page.html): give another path to write to
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sish.errors import OutputError, ParameterError, SishError

_DATABASES = {"manifest.json": b'"sish index"', "smily.json": b'"smily-'}
"""The file that marks a folder as a database of sish, and a text near its beginning."""

_BEGINNING = 4096  # bytes


def write_output(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    replaces: tuple[str, ...],
) -> Path:
    """Write a file beside its place and rename it, so that a failure leaves what was there.

    Parameters
    ----------
    path : path-like
        The file to write. A link is followed; a device or pipe is written to as it is.
    data : bytes
        All of it.
    inputs : iterable of path-like
        Files that must not be replaced, under any name.
    replaces : tuple of str
        Endings of the files that it may replace, as in ``(".html", ".htm")``.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ParameterError
        If it would replace an input or a file of another kind, or lies inside an index or database.
    OutputError
        If it cannot be written.
    """
    with open_output(path, inputs=inputs, replaces=replaces) as file:
        file.write(data)
    return Path(path)


@contextmanager
def open_output(
    path: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    replaces: tuple[str, ...],
) -> Iterator[BinaryIO]:
    """Open a file to be written piece by piece, as :func:`write_output` writes it.

    Parameters
    ----------
    path : path-like
        The file to write.
    inputs : iterable of path-like
        Files that must not be replaced.
    replaces : tuple of str
        Endings of the files that it may replace.

    Yields
    ------
    BinaryIO
        A file beside its place, which is renamed at the end; after an error, it is removed.

    Raises
    ------
    ParameterError
        As :func:`write_output`.
    OutputError
        If it cannot be written.
    """  # noqa: DOC501  an error of the caller's passes through
    check_output(path, inputs=inputs, replaces=replaces)
    try:
        with _opened(Path(path)) as file:
            yield file
    except SishError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; give another path", path=path) from error


def check_output(
    path: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    replaces: tuple[str, ...],
) -> None:
    """Refuse a path that :func:`write_output` would refuse, before the work for it is done.

    Parameters
    ----------
    path : path-like
        The file to write.
    inputs : iterable of path-like
        Files that must not be replaced.
    replaces : tuple of str
        Endings of the files that it may replace.

    Raises
    ------
    ParameterError
        As :func:`write_output`.
    """
    check_outside_databases(path)
    target = Path(os.path.realpath(path))
    if not target.is_file():
        return
    if same := _same_file(target, inputs):
        raise ParameterError(f"{path} is an input ({same}): give another path to write to", path=path)
    if target.suffix.lower() not in replaces:
        raise ParameterError(
            f"{path} is there and is no {replaces[0]} file, so it stays: give another path to write to",
            path=path,
        )


def check_outside_databases(path: str | os.PathLike[str]) -> None:
    """Refuse a path inside an index or a database of regions (ParameterError)."""
    target = Path(os.path.realpath(path))
    inside = next((folder for folder in target.parents if _is_database(folder)), None)
    if inside is not None:
        raise ParameterError(f"{path} lies inside the index {inside}: give a path outside it", path=path)


def _is_database(folder: Path) -> bool:
    for name, mark in _DATABASES.items():
        with suppress(OSError), (folder / name).open("rb") as file:
            if mark in file.read(_BEGINNING):
                return True
    return False


def _same_file(target: Path, inputs: Iterable[str | os.PathLike[str]]) -> str | None:
    """Return the first input that is this same file, under any name; None if there is none."""
    here = target.stat()
    for given in inputs:
        with suppress(OSError, ValueError):  # an input may be an id, or a slide that is gone
            if os.path.samestat(here, os.stat(given)):  # noqa: PTH116  thousands of them: no objects
                return os.fspath(given)
    return None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.exists() and not path.is_file():  # a pipe, perhaps without a name (/dev/stdout); a folder fails
        with path.open("wb") as pipe:
            yield pipe
        return
    target = Path(os.path.realpath(path))
    mode = None
    if target.is_file():
        mode = target.stat().st_mode & 0o777
        os.close(os.open(target, os.O_WRONLY))  # PermissionError for a write-protected file, which stays
    new = target.with_name(f".{secrets.token_hex(8)}.new")
    try:
        with new.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            new.chmod(mode)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
