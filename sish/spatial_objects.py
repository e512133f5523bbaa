"""Objects of SpatialData and AnnData, given as they are or by their paths (extra ``spatial``)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sish.errors import ParameterError, SlideNotFoundError, SlideOpenError
from sish.slides.files import slide_id_of
from sish.tables import needed

Spatial: TypeAlias = "str | os.PathLike[str] | Any"
"""A SpatialData, a WSIData or an AnnData, or the path of one: a zarr folder or an h5ad file."""

SUFFIXES = frozenset({".zarr", ".h5ad"})
"""Endings of files and folders that hold such objects, in lower case."""

_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError)
"""What the libraries raise for files that are broken, or are no files of theirs."""


def open_spatial(given: Spatial) -> Any:
    """Return the SpatialData or AnnData of a path; an object is returned as it is.

    Parameters
    ----------
    given : SpatialData, AnnData or path-like
        The object, a zarr folder, or an h5ad file.

    Returns
    -------
    SpatialData or AnnData
        The object. Of a folder, images and points are not read.

    Raises
    ------
    SlideNotFoundError
        If there is nothing at this path.
    SlideOpenError
        If it is neither, or cannot be read.
    MissingPackageError
        If spatialdata or anndata is not installed.
    """
    if not isinstance(given, str | os.PathLike):
        if not is_spatial(given):
            raise SlideOpenError(
                f"got {type(given).__name__}; want a SpatialData, an AnnData, or the path of one"
            )
        return given
    path = Path(given)
    if not path.exists():
        raise SlideNotFoundError(f"{path}: there is no such file or folder; want a zarr of SpatialData")
    alone = path.is_file() or _is_anndata_zarr(path)
    library = needed("anndata" if alone else "spatialdata", "spatial")
    try:
        if path.is_file():
            return library.read_h5ad(path)
        return library.read_zarr(path, **({} if alone else {"selection": ("shapes", "tables")}))
    except _BROKEN as error:
        raise SlideOpenError(_told_of(path, error)) from error


def _told_of(path: Path, error: Exception) -> str:
    """Return what to say of a file that a library cannot read."""
    what = " ".join(str(error).split()) or type(error).__name__
    return f"{path}: cannot be read as SpatialData or AnnData: {what}"


def _is_anndata_zarr(path: Path) -> bool:
    """Return whether a zarr folder holds one AnnData."""
    import zarr

    try:
        return bool(zarr.open_group(path, mode="r").attrs.get("encoding-type") == "anndata")
    except _BROKEN as error:
        raise SlideOpenError(_told_of(path, error)) from error


def is_spatial(given: object) -> bool:
    """Return whether an object is a SpatialData or an AnnData."""
    return is_table(given) or (hasattr(given, "tables") and hasattr(given, "shapes"))


def is_table(given: object) -> bool:
    """Return whether an object is an AnnData."""
    return hasattr(given, "obs") and hasattr(given, "obsm")


def is_spatial_file(given: object) -> bool:
    """Return whether a path ends as those of such objects do."""
    return isinstance(given, str | os.PathLike) and Path(given).suffix.lower() in SUFFIXES


def path_of(given: Spatial) -> Path | None:
    """Return where an object is on disk: a WSIData's slide, a SpatialData's folder; None in memory."""
    if isinstance(given, str | os.PathLike):
        return Path(given)
    reader = getattr(given, "reader", None)
    place = getattr(reader, "file", None) or getattr(given, "path", None) or getattr(given, "filename", None)
    return Path(place) if isinstance(place, str | os.PathLike) else None


def described(given: Spatial) -> str:
    """Return how errors name an object: by its path, else by its type."""
    return str(path_of(given) or type(given).__name__)


def as_list(objects: Spatial | Iterable[Spatial]) -> list[Spatial]:
    """Return one object or several as a list."""
    if isinstance(objects, str | os.PathLike) or is_spatial(objects):
        return [objects]
    return list(objects)


def ids_of(
    given: Sequence[Spatial], slide_ids: str | Sequence[str] | None, slide_column: str | None
) -> list[str | None]:
    """Return the slide id of each object: as given, else the name of its file; None if a column names slides.

    Parameters
    ----------
    given : sequence of SpatialData, AnnData or path-like
        The objects.
    slide_ids : str or sequence of str, optional
        The ids.
    slide_column : str, optional
        The column.

    Returns
    -------
    list of str or None
        One for each object.

    Raises
    ------
    ParameterError
        If there are not as many as objects, two are equal, or an object in memory has none.
    """
    if slide_column is not None:
        if slide_ids is not None:
            raise ParameterError("got slide_ids and slide_column; give one of the two")
        return [None] * len(given)
    if slide_ids is None:
        ids = [_own_id(one) for one in given]
    else:
        ids = [slide_ids] if isinstance(slide_ids, str) else [str(one) for one in slide_ids]
    if len(ids) != len(given):
        raise ParameterError(f"got {len(ids)} slide_ids for {len(given)} objects; want one for each")
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise ParameterError(f"two objects have the slide id {twice!r}; name them with slide_ids=")
    return list(ids)


def _own_id(given: Spatial) -> str:
    """Return the name of an object's file as a slide id; ParameterError if it has none."""
    path = path_of(given)
    if path is None:
        raise ParameterError(
            f"got a {type(given).__name__} in memory, which has no name; name its slide with slide_ids=, or "
            "the column of obs that names the slide of each row with slide_column="
        )
    return slide_id_of(path)
