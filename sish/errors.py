"""Every error that sish raises on purpose, by its cause.

One root, so that ``except SishError`` catches all of them. A message says on one line what was got, what was
wanted, and what to do next. Each error has the attributes ``path`` (the file or folder that it is about) and
``slide_id``, which are None where there is none. Some errors are also the built-in error, in brackets here,
that a caller would expect::

    SishError
    ├── SlideError                  a slide, an image or a file of features cannot be used
    │   ├── SlideOpenError              it is not readable (broken, empty, a folder, another format)
    │   │   └── SlideNotFoundError          nothing is there                       [FileNotFoundError]
    │   ├── SlideReadError              it opened, and its pixels fail
    │   ├── MissingMppError             nothing tells its scale: give an mpp
    │   └── MissingMaskError            it has no mask where one is needed
    ├── LabelsError                 labels do not fit what was asked               [ValueError]
    │   └── LabelsNotFoundError         there is no labels file                    [FileNotFoundError]
    ├── AnnotationsError            a file of annotations cannot be used           [ValueError]
    │   └── AnnotationsNotFoundError    there is none at this path                 [FileNotFoundError]
    ├── StoreError                  an index folder cannot be used
    │   ├── IndexNotFoundError          there is none at this path                 [FileNotFoundError]
    │   ├── IndexExistsError            there is one at this path already          [FileExistsError]
    │   ├── IndexFormatError            it is of another format version, or not one of ours
    │   ├── IndexCorruptError           its bytes are not the ones that were written
    │   ├── IndexLockedError            another process is writing to it
    │   ├── ArchiveRenewedError         an archive in PostgreSQL got new keys while it was read: ask again
    │   ├── SlideExistsError            a slide of that id is in it already
    │   └── UnknownSlideError           no slide of that id is in it               [KeyError]
    ├── EncoderMismatchError        codes of two encoders would be mixed
    │   └── FeatureMismatchError        one file's features are of another kind    [also a SlideError]
    ├── WeightsError                a weights file or checkpoint cannot be used
    │   └── WeightsNotFoundError        there is no such file                      [FileNotFoundError]
    ├── OutputError                 a result cannot be written                     [OSError]
    ├── MissingPackageError         an optional package is not installed           [ImportError]
    ├── QueryError                  a search cannot be run as asked
    └── ParameterError              an argument is out of its range                [ValueError]
        ├── ParameterTypeError          it is of the wrong type                    [TypeError]
        └── TableChoiceError            a SpatialData's table must be named        [also a SlideError]

>>> error = IndexNotFoundError("archive.sish does not exist: check the path", path="archive.sish")
>>> isinstance(error, FileNotFoundError), error.path.name, str(error)
(True, 'archive.sish', 'archive.sish does not exist: check the path')
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

PathLike = str | os.PathLike[str]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class SishError(Exception):
    """Root of every error that sish raises on purpose.

    Parameters
    ----------
    message : str
        One line.
    path : path-like, optional
        The file or folder that it is about.
    slide_id : str, optional
        The slide that it is about.
    """

    path: Path | None
    slide_id: str | None

    def __init__(
        self, message: str = "", *, path: PathLike | None = None, slide_id: str | None = None
    ) -> None:
        """Keep the message, and what it is about."""
        super().__init__(message)
        self.path = None if path is None else Path(path)
        self.slide_id = slide_id

    __str__ = Exception.__str__  # KeyError would quote the message


@contextmanager
def errors_about(path: PathLike | None = None, slide_id: str | None = None) -> Iterator[None]:
    """Set `path` and `slide_id` of the errors of sish that leave the context without their own.

    Parameters
    ----------
    path : path-like, optional
        The file or folder that is worked on.
    slide_id : str, optional
        The slide that is worked on.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    SishError
        As it came, with them.

    >>> with errors_about("a.svs"):
    ...     raise SlideOpenError("a.svs: is empty; copy it again")
    Traceback (most recent call last):
    sish.errors.SlideOpenError: a.svs: is empty; copy it again
    """
    try:
        yield
    except SishError as error:
        if error.path is None and path is not None:
            error.path = Path(path)
        error.slide_id = error.slide_id or slide_id
        raise


def about_its_path(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return the function with its first argument, `path`, as the path of its errors."""

    @wraps(function)
    def named(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        path: Any = args[0] if args else kwargs.get("path")
        with errors_about(path):
            return function(*args, **kwargs)

    return named


class SlideError(SishError):
    """A slide, an image or a file of features cannot be used."""


class SlideOpenError(SlideError):
    """The file is not a readable slide."""


class SlideNotFoundError(SlideOpenError, FileNotFoundError):
    """There is no slide, image or folder of them at this path."""


class SlideReadError(SlideError):
    """The slide opened, and reading its pixels failed."""


class MissingMppError(SlideError):
    """Nothing in the file tells its scale in micrometres per pixel."""


class MissingMaskError(SlideError):
    """An image has no mask, and what was asked looks at shapes."""


class LabelsError(SishError, ValueError):
    """Labels do not fit what was asked."""

    line: int | None = None
    """The line of the labels file; None where it is not about a line."""


class LabelsNotFoundError(LabelsError, FileNotFoundError):
    """There is no labels file at this path."""


class AnnotationsError(SishError, ValueError):
    """A file of annotations is not one that can be read, or does not fit its slide."""


class AnnotationsNotFoundError(AnnotationsError, FileNotFoundError):
    """There is no file of annotations at this path."""


class StoreError(SishError):
    """An index folder cannot be used."""


class IndexNotFoundError(StoreError, FileNotFoundError):
    """There is no index at this path."""


class IndexExistsError(StoreError, FileExistsError):
    """There is an index at this path already."""


class IndexFormatError(StoreError):
    """The folder is not an index, or one of a format version that this release cannot read."""


class IndexCorruptError(StoreError):
    """Bytes on disk are not the ones that were written."""


class IndexLockedError(StoreError):
    """Another process is writing to the index."""


class ArchiveRenewedError(StoreError):
    """An archive in PostgreSQL got new keys, and the table that was read is gone."""


class SlideExistsError(StoreError):
    """A slide of that id is in the index already."""


class UnknownSlideError(StoreError, KeyError):
    """No slide of that id is in the index."""


class EncoderMismatchError(SishError):
    """Codes of two different encoders would be compared or mixed."""


class FeatureMismatchError(SlideError, EncoderMismatchError):
    """One file of features is of another encoder, length or patch size than the others."""


class WeightsError(SishError):
    """A weights file or checkpoint cannot be used."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """There is no weights file at this path."""


class OutputError(SishError, OSError):
    """A report, a picture, weights or another result cannot be written."""


class MissingPackageError(SishError, ImportError):  # type: ignore[misc]  # ImportError has a path too, a str
    """An optional package is not installed, or does not load."""


class QueryError(SishError):
    """A search cannot be run as it was asked."""


class ParameterError(SishError, ValueError):
    """An argument is out of its range."""


class ParameterTypeError(ParameterError, TypeError):
    """An argument is of the wrong type."""


class TableChoiceError(SlideError, ParameterError):
    """A SpatialData holds no table of that name, or several tables of features of which one must be named."""
