"""Slides that failed, as a table that ``sish index add`` takes as a list of slides once they are mended.

>>> import tempfile
>>> from pathlib import Path
>>> file = Path(tempfile.mkdtemp(), "failures.csv")
>>> write_failures(file, [("a", "/slides/a.svs", "is empty")])
1
>>> print(file.read_text(), end="")
slide_id,path,reason
a,/slides/a.svs,is empty

A table is UTF-8 text, and its reader joins the lines of a cell. So a file whose name is no text, or has a
line break, is not found again (:func:`fits_a_table`). All other slides are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from sish.answers import csv_of
from sish.outputs import check_output, write_output
from sish.slides.files import absolute

_TABLES = (".csv",)
_COLUMNS = ("slide_id", "path", "reason")

Failure = tuple[str, str, str]
"""Slide id, file and reason."""


def check_failures(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Refuse a path that `write_failures` would refuse (ParameterError), before the work is done.

    Parameters
    ----------
    path : path-like
        The file to write.
    inputs : iterable of path-like
        Files that it must not replace.
    """
    check_output(path, inputs=inputs, replaces=_TABLES)


def write_failures(path: str | os.PathLike[str], failed: Iterable[Failure]) -> int:
    """Write slides that failed as a CSV with the columns ``slide_id``, ``path`` and ``reason``.

    Parameters
    ----------
    path : path-like
        The file; it may replace a ``.csv``.
    failed : iterable of (str, str, str)
        Slide id, file and reason.

    Returns
    -------
    int
        The number of slides.

    Raises
    ------
    ParameterError
        If it would replace a file of another kind, or lies inside an index.
    OutputError
        If it cannot be written.
    """
    rows = [
        (slide_id, "" if file == slide_id else str(absolute(file)), reason)  # vectors have no file
        for slide_id, file, reason in failed
    ]
    text = csv_of([dict(zip(_COLUMNS, row, strict=True)) for row in rows], _COLUMNS)
    write_output(path, text.encode(errors="backslashreplace"), replaces=_TABLES)
    return len(rows)


def fits_a_table(path: str) -> bool:
    r"""Return whether a table can hold the path of a file, so that the file is found again.

    Parameters
    ----------
    path : str
        The path.

    Returns
    -------
    bool
        False if it has a line break, ends with a space, or has bytes that are no text.

    Examples
    --------
    >>> [fits_a_table(path) for path in ('/slides/a, "b".svs', "/slides/a\n.svs", "/slides/\udcff.svs")]
    [True, False, False]
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return path.splitlines() == [path.rstrip()]
