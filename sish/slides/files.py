"""Files of slides: found below a folder, and named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sish.errors import SlideOpenError
from sish.slides.folders import files_below
from sish.slides.formats.checks import check_file
from sish.slides.formats.dicom import dicom_series, dicom_slide_id, is_dicom, series_files
from sish.slides.tables import is_list, listed_files

OPENSLIDE_SUFFIXES = {".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm"}
SLIDE_SUFFIXES = frozenset(OPENSLIDE_SUFFIXES | {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""Endings, in lower case, of files that ``find_slides`` takes for slides."""
COMPOUND_ENDINGS = (".ome",)
"""What may stand before the last extension and belongs to it, as in ``a.ome.tiff``."""


def find_slides(
    folder: str | os.PathLike[str], on_error: Callable[[SlideOpenError], None] | None = None
) -> list[Path]:
    """Find all slide files under a folder.

    Files are taken by their endings (`SLIDE_SUFFIXES`), without hidden files. Links are followed, and a slide
    that is reached twice is listed once (:func:`sish.slides.folders.files_below`). A MIRAX slide is its .mrxs
    file. Of the .dcm files in one folder that share a DICOM series, which OpenSlide opens together, only the
    first by name is listed.

    Parameters
    ----------
    folder : path-like
        A folder, a file, or a table (``.csv``) that lists files in its column ``path``.
    on_error : callable, optional
        It is told of each folder below that cannot be read and of each link to nowhere, and the search goes
        on.

    Returns
    -------
    list of Path
        The slides, sorted; for a file the file itself, or the first of its DICOM series; for a table the
        files that it lists, in its order.

    Raises
    ------
    SlideNotFoundError
        If there is nothing at this path.
    SlideOpenError
        Without `on_error`, where it would be told: no slide is passed over in silence.
    LabelsError
        If a table cannot be read, or a row has no path.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.svs", "a.TIFF", "notes.txt"):
    ...         _ = Path(folder, name).write_text("pixels")
    ...     [path.name for path in find_slides(folder)]
    ['a.TIFF', 'b.svs']
    """
    folder = Path(folder)
    if not os.path.isdir(folder):  # noqa: PTH112  Path.is_dir raises where the folder above cannot be read
        check_file(folder)
        if is_list(folder):
            return listed_files(folder)
        return series_files(folder)[:1]
    return list(first_of_series(files_below(folder, SLIDE_SUFFIXES, on_error)))


def first_of_series(paths: list[Path]) -> Iterator[Path]:
    """Yield the paths without DICOM files of a series already seen in the same folder."""
    seen = set()
    for path in paths:
        series = dicom_series(path) if is_dicom(path) else None
        if series is not None:
            if (path.parent, series) in seen:
                continue
            seen.add((path.parent, series))
        yield path


def slide_id_of(path: str | os.PathLike[str]) -> str:
    """Return a slide's id: its file name without the extension; of a DICOM series its container or folder.

    Parameters
    ----------
    path : path-like
        The slide's file; it need not exist.

    Returns
    -------
    str
        The id, the same for all files of a DICOM series.

    Examples
    --------
    >>> slide_id_of("slides/TCGA-3L-AA1B-01Z-00-DX1.8923.svs"), slide_id_of("a.ome.tiff")
    ('TCGA-3L-AA1B-01Z-00-DX1.8923', 'a')
    """
    series = dicom_slide_id(Path(path))
    if series is not None:
        return series
    stem = Path(path).stem
    for ending in COMPOUND_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            stem = stem[: -len(ending)]
    return stem


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return the path from the root, without `..`; a symbolic link keeps its own name."""
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links
