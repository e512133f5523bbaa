"""Where the files of indexed slides are now."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from sish.errors import SlideOpenError
from sish.feature_files import is_feature_file
from sish.index.store import SlideRow
from sish.indexed_files import open_indexed
from sish.slides.files import find_slides, slide_id_of
from sish.slides.slide import Slide, open_slide


class SlideFiles:
    """Finds and opens the files of indexed slides, and never another file that has taken a slide's place.

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
        path = self.path_of(row)
        if row.path and not is_feature_file(row.path):
            return open_indexed(replace(row, path=str(path)))
        return open_slide(path, override_mpp=row.mpp or None)  # features do not tell what file they are of

    def moved(self, row: SlideRow) -> Path | None:
        """Return where a slide's own file was found below the root; None if it was not."""
        is_own = bool(row.path) and not is_feature_file(row.path)
        return self._elsewhere.get(row.slide_id) if is_own else None

    def path_of(self, row: SlideRow) -> Path:
        """Return where a slide's pixels should be; SlideOpenError if it never had any."""
        found = self._elsewhere.get(row.slide_id)
        if found is not None:
            return found
        if not row.path:
            raise SlideOpenError(f"{row.slide_id}: was given as vectors, so there are no pixels to show")
        if is_feature_file(row.path):
            raise SlideOpenError(
                f"{row.slide_id}: was added as features; name the folder of the slides (--slides ROOT)",
                path=row.path,
            )
        return Path(row.path)

    @cached_property
    def _elsewhere(self) -> dict[str, Path]:
        """The slides below the root, by id; of two with one id the first."""
        return {} if self._root is None else _by_id(find_slides(self._root, lambda _error: None))


def _by_id(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(slide_id_of(path), path)
    return found
