"""What the server shows: an index, the catalogue of its state, its slides' pictures and its searches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sish.encoders import FEATURES
from sish.errors import SlideError
from sish.index.store import SlideRow
from sish.refinement import Concept, Mark, Marks, marks_of
from sish.serve.bounded_cache import BoundedCache
from sish.serve.catalogue import Catalogue
from sish.serve.questions import MOST_HITS
from sish.serve.searches import Progress, Searches
from sish.serve.shown_slide import ShownSlide
from sish.serve.slide_files import SlideFiles
from sish.serve.slide_pool import SlidePool
from sish.slide_index import Index
from sish.slide_map import SlideMap
from sish.slides.reader_threads import start
from sish.tile_codes import TileCodes
from sish.version import __version__

T = TypeVar("T")

CACHE_BYTES = 256 << 20
"""Bytes of encoded tiles that are kept."""
CODES_BYTES = 128 << 20
"""Bytes of codes of tissue tiles that are kept for heatmaps."""
UPLOAD_BYTES = 32 << 20
"""Bytes of the largest body: a picture of 24 MB as base64."""
_MOST_REASON = 1000  # characters
_FRESH_S = 1.0  # that a catalogue is used before the index is looked at again
SLOW_S = 30.0
"""Seconds that a picture may take."""


class SlowSlide(SlideError):
    """A slide that did not answer in time."""


class Archive:
    """An index as the page shows it.

    Parameters
    ----------
    index : Index
        The index.
    slides : Path, optional
        Where its slides are now (:class:`sish.serve.slide_files.SlideFiles`).
    """

    def __init__(self, index: Index, slides: Path | None = None) -> None:
        """Open nothing yet."""
        self.index = index
        self._files = SlideFiles(slides)
        self.pool = SlidePool(self._files)
        self.cache: BoundedCache[bytes] = BoundedCache(CACHE_BYTES)
        self._tiles: BoundedCache[TileCodes] = BoundedCache(CODES_BYTES)
        self.searches = Searches()
        self._catalogue: Catalogue | None = None
        self._fresh_until = 0.0
        self._making = threading.Lock()
        self._map: SlideMap | None = None
        self._laying_out = threading.Lock()

    async def catalogue(self) -> Catalogue:
        """Return the catalogue of the newest state; it is made again after a change."""
        known = self._catalogue
        if known is not None and time.monotonic() < self._fresh_until:
            return known
        return await asyncio.wrap_future(start(self._read))

    def _read(self) -> Catalogue:
        with self._making:
            known = self._catalogue
            if known is None or known.generation != self.index.generation:
                self._catalogue = known = Catalogue.of(self.index.state_and_view()[0])
            self._fresh_until = time.monotonic() + _FRESH_S
            return known

    async def picture(
        self, row: SlideRow, name: tuple[Any, ...], draw: Callable[[ShownSlide], bytes | None]
    ) -> bytes | None:
        """Return a picture of a slide as JPEG, from the cache if it is there.

        Parameters
        ----------
        row : SlideRow
            The slide.
        name : tuple
            What the picture is, beside its slide.
        draw : callable
            Makes it, or None if there is no such picture.

        Returns
        -------
        bytes or None
            The picture.

        Raises
        ------
        SlideError
            If the slide cannot be opened or read, or takes too long.
        """
        key = (row.slide_id, row.path, row.file_digest, *name)
        known = self.cache.get(key)
        if known is not None:
            return known
        made = await self.of_slide(row, draw)
        if made is not None:
            self.cache.put(key, made, len(made))
        return made

    async def of_slide(self, row: SlideRow, work: Callable[[ShownSlide], T]) -> T:
        """Return the result of some work on an open slide; SlowSlide if it takes too long."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self.pool.submit(row, work)), SLOW_S)
        except TimeoutError:
            raise SlowSlide(f"{row.slide_id}: gave no picture within {SLOW_S:g} s; try again") from None

    def placed(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return a question about a slide with its row for its id, which might be the name of a file, too."""
        query = asked["query"]
        row = self._known(query) if isinstance(query, str) else None
        moved = self._files.moved(row) if row and "region" in asked else None  # which is read from the file
        placed: dict[str, Any] = {
            name: self._marks(asked[name]) for name in ("like", "unlike") if name in asked
        }
        concept: Concept | None = asked.get("concept")
        if concept is not None:
            sides = self._marks(concept.positive), self._marks(concept.negative)
            placed["concept"] = replace(concept, positive=sides[0], negative=sides[1])
        if row is not None:
            placed["query"] = row if moved is None else replace(row, path=str(moved))
        return asked | placed

    def _marks(self, given: Marks) -> tuple[Mark, ...]:
        """Return marked slides with the places of their files, where these were moved."""
        rows = ((mark, self._known(mark.slide_id)) for mark in marks_of(given))
        return tuple(
            mark if row is None else replace(mark, file=self._files.moved(row)) for mark, row in rows
        )

    def _known(self, slide_id: str) -> SlideRow | None:
        """Return the row of a slide in the catalogue that was read last."""
        return None if self._catalogue is None else self._catalogue.row(slide_id)

    def tiles_of(self, row: SlideRow, progress: Progress) -> TileCodes:
        """Return the codes of every tissue tile of a slide, from the cache if they are there."""
        key = (row.slide_id, row.path, row.file_digest, self.index.fingerprint)
        tiles = self._tiles.get(key)
        if tiles is None:
            path = self._files.moved(row)
            tiles = self.index.encode_tiles(row.slide_id, path=path, on_progress=progress)
            self._tiles.put(key, tiles, tiles.nbytes)
        return tiles

    async def slide_map(self) -> SlideMap:
        """Return the map of the newest state; it is laid out again after a change."""
        return await asyncio.wrap_future(start(self._lay_out))

    def _lay_out(self) -> SlideMap:
        with self._laying_out:  # one at a time: the others wait for its result
            known = self._map
            if known is None or known.generation != self.index.generation:
                self._map = known = self.index.slide_map()
            return known

    async def info(self) -> dict[str, Any]:
        """Return the facts on the archive: ``GET /api/info``."""
        catalogue = await self.catalogue()
        return await asyncio.wrap_future(start(self._info, catalogue))

    def _info(self, catalogue: Catalogue) -> dict[str, Any]:
        index = self.index
        view = index.view()
        return {
            "version": __version__,
            "name": index.path.name,
            "n_slides": len(catalogue),
            "n_patches": catalogue.state.n_patches,
            "encoder": index.fingerprint,
            "patch_px": index.recipe.patch_px,
            "mpp": index.recipe.mpp or None,
            "n_bits": view.searcher.n_bits,
            "threshold": index.params.threshold,
            "ranking": view.choose_ranking("auto")[0],
            "takes_images": not index.recipe.weights.startswith(FEATURES) and not index.encoder.lacks_encoder,
            "rerank": index.rerank,
            "generation": catalogue.generation,
            "columns": catalogue.columns,
            "limits": {"upload_bytes": UPLOAD_BYTES, "k": MOST_HITS},
        }


def reason_of(error: Exception) -> str:
    """Return what went wrong, on one line: the beginning and the end if it repeats much of what was sent."""
    line, half = " ".join(str(error).split()), _MOST_REASON // 2
    return line if len(line) <= _MOST_REASON else f"{line[:half]} ... {line[-half:]}"
