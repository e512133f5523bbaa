"""Commits encoded slides to a store, several at a time, and keeps its tree and its threshold up to date."""

from __future__ import annotations

import logging
import time

from sish.archives import AnyStore
from sish.encode import SlideCodes
from sish.header import IndexHeader
from sish.index.store import SlideRow, Snapshot, slide_snapshot
from sish.printing import counted
from sish.recipe import Recipe
from sish.searchers import TextureKeys
from sish.thresholds import keep_threshold, measure_threshold

_LOG = logging.getLogger(__name__)

_COMMIT_S = 2.0
"""Seconds of work between commits, about; a crash may cost them and the slide at hand."""

_COMMIT_PATCHES = 65_536
"""Most patches that wait to be committed: 10 MB of codes."""


class SlideWriter:
    """Takes slides one by one, and commits them when it is time.

    Parameters
    ----------
    store : Store or RemoteStore
        Where they go; it is open for writing.
    recipe : Recipe
        How their codes were made.
    replace : bool
        Whether a slide replaces the one of its id.
    """

    def __init__(self, store: AnyStore, recipe: Recipe, *, replace: bool = False) -> None:
        """See the class."""
        self.header: IndexHeader | None = None
        """Replaces the header of the store in the next commit, if it is given."""
        self._store, self._replace = store, replace
        self._texture = TextureKeys(store, seed=recipe.seed) if recipe.keys == "texture" else None
        self._waiting: list[tuple[SlideRow, SlideCodes, SlideRow | None]] = []
        self._patches = 0
        self._since = time.monotonic()

    def take(self, row: SlideRow, codes: SlideCodes, before: SlideRow | None = None) -> None:
        """Take a slide, which waits for the next commit; `before` is the row that it replaces, if any."""
        self._waiting.append((row, codes, before))
        self._patches += len(codes)

    @property
    def is_due(self) -> bool:
        """Whether what waits must be committed now."""
        long = self._patches >= _COMMIT_PATCHES or time.monotonic() - self._since >= _COMMIT_S
        return long or (self._texture is not None and self._texture.is_due(self._patches))

    def commit(self) -> list[tuple[SlideRow, SlideRow | None]]:
        """Commit the slides that wait; return their rows, each with the row that it replaced."""
        waiting, self._waiting = self._waiting, []
        patches, self._patches = self._patches, 0
        if not waiting:
            return []
        if self._texture is not None:
            self._texture.grow(0)
        self._store.append_many(
            [self._snapshot(row, codes) for row, codes, _ in waiting],
            replace=self._replace,
            header=None if self.header is None else self.header.to_json(),
        )
        self.header = None
        _LOG.info("committed %s of %s", counted(patches, "patch", "es"), counted(len(waiting), "slide"))
        rows = [(row, before) for row, _, before in waiting]
        if self._texture is not None:
            self._texture.grow(patches)
            keep_threshold(self._store, [row for both in rows for row in both if row is not None])
        self._since = time.monotonic()
        return rows

    def settle(self) -> None:
        """Do what a killed writer left undone, and measure the threshold on all slides."""
        if self._texture is not None:
            self._texture.grow(0)
            measure_threshold(self._store)

    def _snapshot(self, row: SlideRow, codes: SlideCodes) -> Snapshot:
        """Return a slide as the store takes it, with the keys of the archive's tree."""
        keys = codes.keys if self._texture is None else self._texture.of(codes.barcodes)
        return slide_snapshot(row, keys, codes.barcodes, codes.l0_xy, codes.vectors)
