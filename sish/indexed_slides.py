"""The pixels of indexed slides: from where they were when they were added, or from where they are now."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from sish.errors import SlideOpenError
from sish.feature_files import is_feature_file
from sish.identity import Standing, compare
from sish.index.store import SlideRow
from sish.slides.files import find_slides, slide_id_of
from sish.slides.slide import Slide, open_slide


class IndexedSlides:
    """Opens the files of indexed slides, and never another file that has taken a slide's place.

    Parameters
    ----------
    root : path-like, optional
        A folder in which slides are looked for by their ids, before the place from where they were added:
        for archives that moved, and for slides of which only features were added.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        """Remember the folder; it is read when the first slide is opened."""
        self._root = root

    def open(self, row: SlideRow) -> Slide:
        """Return an indexed slide, open, at the scale at which it was encoded.

        Parameters
        ----------
        row : SlideRow
            The slide.

        Returns
        -------
        Slide
            It holds the file open until it is closed.

        Raises
        ------
        SlideOpenError
            If it has no file, or the file is gone, cannot be read, or is another one now.
        """
        return open_slide(self.path_of(row), override_mpp=row.mpp or None)

    def path_of(self, row: SlideRow) -> Path:
        """Return the file of a slide's pixels; SlideOpenError if there is none, or it is another slide."""
        if not row.path and row.slide_id not in self._elsewhere:
            raise SlideOpenError(f"{row.slide_id}: was given as vectors, so it has no pixels")
        path = self._elsewhere.get(row.slide_id) or Path(row.path)
        if is_feature_file(path):
            raise SlideOpenError(
                f"{path}: holds features, no pixels; name the folder of the slides (--slides)", path=path
            )
        if row.path and not is_feature_file(row.path) and compare(path, row) is not Standing.SAME:
            raise SlideOpenError(f"{path}: is another file now than when it was added", path=path)
        return path

    @cached_property
    def _elsewhere(self) -> dict[str, Path]:
        """The slides below the root, by id; of two with one id the first."""
        return {} if self._root is None else _by_id(find_slides(self._root, lambda _error: None))


def _by_id(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(slide_id_of(path), path)
    return found
