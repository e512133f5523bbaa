"""Slides that failed, as a table that ``sish index add`` takes as a list of slides once they are mended.

>>> import tempfile
>>> file = Path(tempfile.mkdtemp(), "failures.csv")
>>> write_failures(file, [("a", "/slides/a.svs", "is empty")])
1
>>> print(file.read_text(), end="")
slide_id,path,reason
a,/slides/a.svs,is empty
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable

from sish.outputs import check_output, write_output
from sish.slides.files import absolute

_TABLES = (".csv",)

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
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("slide_id", "path", "reason"))
    table.writerows(rows)
    write_output(path, text.getvalue().encode("utf-8", "surrogateescape"), replaces=_TABLES)
    return len(rows)
