"""Read numbers from HDF5 files of others: they are checked before memory is allocated.

HDF5 can name other files: external links, external storage and virtual datasets would read whatever the
caller may read. A dataset of a few bytes may claim to hold terabytes. All these are refused (SlideOpenError).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import MissingPackageError, SlideOpenError
from sish.extras import install
from sish.slides.tables import MISSING

_SMALL = 64 << 20  # bytes that any file may ask for
_RATIO = 100  # of bytes asked for and bytes of the file: features compress to half or so
_MOST = 16 << 30  # bytes: half a million patches of 4,096 numbers in double precision
_ATTRIBUTE = 4096  # bytes


@dataclass(frozen=True, slots=True)
class StoredDataset:
    """A dataset, and those of its attributes that were asked for."""

    rows: NDArray[Any]
    """Numbers as stored, (N, F) or (F,): a batch of one, (1, N, F), is taken out of it."""
    told: Mapping[str, object]
    """Attributes that are not empty: a str, a number, or another value of the file."""


def read_datasets(
    path: Path, names: Iterable[str], attributes: Iterable[str], *, optional: Iterable[str] = ()
) -> dict[str, StoredDataset]:
    """Read datasets (N, F) or (F,) of numbers and their attributes.

    Parameters
    ----------
    path : Path
        An HDF5 file.
    names : iterable of str
        The datasets to read.
    attributes : iterable of str
        Attributes to read where a dataset has them.
    optional : iterable of str
        Datasets that are read if the file has them.

    Returns
    -------
    dict of str to StoredDataset
        The datasets by name.

    Raises
    ------
    SlideOpenError
        If it is no HDF5 file, or a dataset is missing, stored elsewhere, or not of plain numbers.
    MissingPackageError
        If h5py is not installed.
    """
    h5py = _h5py()
    names, attributes = list(names), list(attributes)
    try:
        size = path.stat().st_size
        with h5py.File(path, "r") as file:
            names += [name for name in optional if name in file]
            found = {name: _dataset(h5py, file, name) for name in names}
            for name, dataset in found.items():
                _check(name, dataset, size)
            return {
                name: StoredDataset(_rows(dataset[()]), _told(h5py, dataset, attributes))
                for name, dataset in found.items()
            }
    # h5py and the library below it raise errors of many kinds on damaged files; they all mean the same.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise SlideOpenError(
            f"{path}: not a file of features ({reason}); want the datasets {' and '.join(names)} of numbers"
        ) from error


def _h5py() -> ModuleType:
    """Return h5py; MissingPackageError where it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(f"feature files need h5py ({error}); {install('interop')}") from error
    return h5py  # type: ignore[no-any-return]  # it has no types


def _dataset(h5py: ModuleType, file: Any, name: str) -> Any:
    """Return a dataset in this file itself; ValueError if it is elsewhere, KeyError if there is none."""
    if file.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:  # before anything follows it
        raise ValueError(f"{name} is a link to another place")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is a group")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} is stored in another file")
    return dataset


def _check(name: str, dataset: Any, file_size: int) -> None:
    """Raise ValueError unless it is a table of plain numbers that may be in a file of this size."""
    if dataset.dtype.kind not in "fiu":
        raise ValueError(f"{name} are {dataset.dtype}, no numbers")
    shape = dataset.shape
    if shape is None or not (len(shape) in (1, 2) or (len(shape) == 3 and shape[0] == 1)):
        raise ValueError(f"{name} are of shape {shape}, want (N, F), (1, N, F) or (F,)")
    for claimed in (shape, dataset.chunks or ()):
        n_bytes = math.prod(claimed) * dataset.dtype.itemsize
        if n_bytes > min(_MOST, max(_SMALL, _RATIO * file_size)):
            raise ValueError(f"{name} claim {n_bytes} bytes, in a file of {file_size}")


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers (N, F) of an array (N, F) or (1, N, F); an array (F,) as it is."""
    return array[0] if array.ndim == 3 else array


def _told(h5py: ModuleType, dataset: Any, names: Iterable[str]) -> dict[str, object]:
    """Return the dataset's attributes of these names that are not empty."""
    # HDF5 crashes where damage made a text a list of any length
    plain = h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM
    told = {}
    for name in names:
        if name in dataset.attrs:
            attribute = dataset.attrs.get_id(name)
            if attribute.get_type().get_class() not in plain:
                raise ValueError(f"the attribute {name} is no number and no text")
            count = attribute.get_space().get_simple_extent_npoints()
            if count * attribute.dtype.itemsize > _ATTRIBUTE:
                raise ValueError(f"the attribute {name} is larger than {_ATTRIBUTE} bytes")
            value = _plain(dataset.attrs[name]) if count else None
            if value is not None:
                told[name] = value
    return told


def _plain(value: object) -> object:
    """Return an attribute as Python has it; None where it is empty, or a data frame's word for a gap."""
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        value = value.strip()
        return None if not value or value in MISSING else value
    return value


def number_of(told: Mapping[str, object], name: str, path: Path) -> float | None:
    """Return an attribute of a file that is a positive number.

    Parameters
    ----------
    told : mapping of str to object
        Attributes.
    name : str
        The attribute.
    path : Path
        The file, for errors.

    Returns
    -------
    float or None
        None if there is no such attribute, or it is NaN, 0 or negative.

    Raises
    ------
    SlideOpenError
        If the attribute is something else: ``"40x"``, two numbers, infinity.
    """
    value = told.get(name)
    try:
        number = 0.0 if value is None else float(value)  # type: ignore[arg-type]  # what fails is caught
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        raise SlideOpenError(f"{path}: its {name} is {_quoted(value)}; want one number")
    return number if number > 0 else None


def text_of(told: Mapping[str, object], name: str, path: Path) -> str:
    """Return an attribute of a file that is a name, or an empty text; SlideOpenError for anything else."""
    value = told.get(name, "")
    if not (isinstance(value, str) and len(value) <= 200 and value.isprintable()):
        raise SlideOpenError(f"{path}: its {name} is {_quoted(value)}; want a name")
    return value


def line_of(told: Mapping[str, object], name: str) -> str | None:
    """Return an attribute of a file as one line of text; None if there is none."""
    return _one_line(str(told[name])) if name in told else None


def _one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def _quoted(value: object) -> str:
    """Return a value on one short line."""
    text = _one_line(repr(value))
    return text if len(text) <= 60 else f"{text[:60]}..."
