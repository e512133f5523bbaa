"""The codes of every tissue tile of an indexed slide.

An index holds the codes of a slide's mosaic alone. The other tiles are read and encoded here, once for any
number of heatmaps (:mod:`sish.heatmap`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideCodes, SlideEncoder
from sish.encoders import FEATURES
from sish.errors import QueryError
from sish.index.store import SlideRow
from sish.indexed_files import open_indexed
from sish.progress import OnProgress, silent
from sish.queries import check_takes_pixels
from sish.results import Commit
from sish.slides.reader_threads import end_soon, start
from sish.slides.slide import Slide


@dataclass(frozen=True, slots=True, eq=False)
class TileCodes:
    """The codes of all tissue tiles of an indexed slide, for any number of heatmaps."""

    row: SlideRow
    """The slide, as the index names it."""
    codes: SlideCodes
    """N tiles and their places."""
    encoder: str
    """Fingerprint of the encoder that made them."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        codes = self.codes
        arrays = (codes.keys, codes.barcodes, codes.l0_xy, codes.vectors)
        return sum(array.nbytes for array in arrays if array is not None)

    @classmethod
    def of_slide(
        cls,
        row: SlideRow,
        stored: SlideCodes,
        encoder: SlideEncoder,
        commit: Commit,
        on_progress: OnProgress = silent,
    ) -> TileCodes:
        """Return the tiles of an indexed slide.

        Parameters
        ----------
        row : SlideRow
            The slide. Of one that was given as vectors, or as a file of features, the patches that the index
            keeps are the tiles.
        stored : SlideCodes
            These patches; tiles at their places are not encoded again.
        encoder : SlideEncoder
            The encoder of the index.
        commit : Commit
            The state of the index.
        on_progress : callable
            Told how many of the other tiles are encoded.

        Returns
        -------
        TileCodes
            All tiles.

        Raises
        ------
        QueryError
            If the slide was given as vectors without places, or the index lacks its encoder.
        SlideError
            If the file is gone, is another one now, or cannot be read.
        """
        if not row.path or encoder.recipe.weights.startswith(FEATURES):
            if stored.l0_xy is None:
                raise QueryError(
                    f"got {row.slide_id!r}, which was given as vectors without places: want a slide with a "
                    "file, or vectors with l0_xy=",
                    slide_id=row.slide_id,
                )
            on_progress(len(stored), len(stored))
            return cls(row, stored, commit.encoder)
        check_takes_pixels(encoder, commit.archive)
        encoder.load()
        slide = start(open_indexed, row).result()
        try:
            codes = _encoded(slide, stored, encoder, on_progress)
        finally:
            end_soon(slide.close)
        return cls(row, codes, commit.encoder)


def _encoded(slide: Slide, stored: SlideCodes, encoder: SlideEncoder, on_progress: OnProgress) -> SlideCodes:
    """Return the codes of all tiles: the stored ones, and those of the others, which are read."""
    tiles = start(encoder.tiles, slide).result().l0_xy
    known = {} if stored.l0_xy is None else {tuple(xy): row for row, xy in enumerate(stored.l0_xy.tolist())}
    own = np.array([known.get(tuple(xy), -1) for xy in tiles.tolist()], np.int64)
    rest = encoder.encode_at(slide, tiles[own < 0], None, on_progress)
    vectors = None
    if stored.vectors is not None and rest.vectors is not None:
        vectors = _filled(own, stored.vectors, rest.vectors)
    no_keys = np.zeros((len(tiles), 1), np.int64)  # tiles are never searched for by key
    return SlideCodes(no_keys, _filled(own, stored.barcodes, rest.barcodes), tiles, vectors)


def _filled(own: NDArray[np.int64], stored: NDArray[np.uint8], rest: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the rows `own` of `stored`, and where these are -1 the next row of `rest`."""
    out = np.empty((len(own), stored.shape[1]), np.uint8)
    out[own >= 0], out[own < 0] = stored[own[own >= 0]], rest
    return out
