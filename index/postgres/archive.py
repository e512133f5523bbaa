"""The texture search in PostgreSQL: the client chooses cells, the server compares patches.

It answers as `sish.index.texture.archive` does, patch by patch. A query patch is compared with half a budget
of patches in its nearest cells, then with a budget, and with twice as many while that pays
(`sish.index.texture.cells`). All query patches ask for these in one statement; those that go on ask again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.bags import Bags
from sish.index.compiled import frozen
from sish.index.params import BUDGET, CEILING
from sish.index.postgres.patches import Reader
from sish.index.postgres.schema import BITS_SHIFT, ROW_BITS
from sish.index.postgres.walk import Stretch, Walk
from sish.index.store.slide_list import SlideList
from sish.index.store.slide_table import SlideTable
from sish.index.texture.archive import FEW
from sish.index.texture.cells import Cells
from sish.index.texture.kernel import (
    CEILING_OF_FAR,
    FAR_DENOMINATOR,
    FAR_NUMERATOR,
    NEAREST,
    PATIENCE,
    nearest_cells,
)
from sish.index.texture.tree import TextureTree

_FEWER = 8
"""The server sorts results where less than one in so many is wanted."""
_PATCH = (1 << BITS_SHIFT) - 1

_Packed = NDArray[np.int64]
"""Results of a query patch: distance << BITS_SHIFT | patch."""


@dataclass(frozen=True, slots=True)
class RemoteArchive:
    """The patches of one state of an archive in PostgreSQL; it is searched as `Archive` is."""

    cells: Cells
    """The tree and how many patches each key has; it has no patches."""
    slides: SlideList
    """All slides, including removed ones. A slide's number is its place here."""
    removed: NDArray[np.bool_]
    """Which of them were removed, bool (slides,)."""
    reader: Reader
    """The patches."""
    distance: str
    """SQL for the distance of the barcodes of ``p`` and ``q``."""
    is_spread: bool
    """Whether other servers hold some of the patches."""
    hidden: dict[bytes, NDArray[np.int64]]
    """Places in key order of the patches of slides that were left out lately, by their mask."""

    def __len__(self) -> int:
        """Return the number of patches, including those of removed slides."""
        return len(self.cells)

    def search(
        self,
        query_barcodes: ArrayLike,
        *,
        k: int = 10,
        budget: int = BUDGET,
        exclude: NDArray[np.bool_] | None = None,
        threshold: int | None = None,
    ) -> Bags:
        """Return what `Archive.search` returns of the same patches; a patch is slide << ROW_BITS | row."""
        rows = self.cells.tree.check(query_barcodes, "query_barcodes")
        if k < 1 or budget < 1:
            raise ParameterError(f"k is {k} and budget {budget}; give at least 1 of each")
        hidden = self.removed if exclude is None else self.removed | exclude
        mask = hidden if hidden.any() else None
        asking = _Asking(self, rows, mask, 8 * rows.shape[1] if threshold is None else threshold, k)
        if mask is not None and int(self.slides.n_patches[~mask].sum()) <= min(budget, FEW):
            return asking.slides(np.flatnonzero(~mask))
        if budget >= len(self):
            return asking.everything()
        return asking.walk(budget)

    def patches_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of patches that have each key, (N,)."""
        return self.cells.totals[keys + 1] - self.cells.totals[keys]

    def vectors_of(self, patches: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[NDArray[np.uint8]]]:
        """Return numbers (N,) of patches in a list of stored vectors, and the list, (P, V) in all."""
        if self.reader.records.vector_bytes is None:
            return patches, []
        own, numbers = np.unique(patches, return_inverse=True)
        found = self.reader.patches(self.slide_of(own), self.row_of(own), ("vector",))
        return numbers, [np.ascontiguousarray(found["vector"])]

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slide number of each patch, (N,)."""
        return patches >> ROW_BITS

    def row_of(self, patches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each patch in its slide, (N,)."""
        return patches & ((1 << ROW_BITS) - 1)

    def l0_xy_of(self, patches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the top left corner of each patch in level-0 pixels, x first, (N, 2)."""
        found = self.reader.patches(self.slide_of(patches), self.row_of(patches), ("x", "y"))
        return np.stack([found["x"], found["y"]], axis=1).astype(np.int64)

    def hidden_places(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the places in key order of all patches of some slides, ascending."""
        name = np.packbits(mask).tobytes()
        places = self.hidden.get(name)
        if places is None:  # another thread may forget them meanwhile
            found = self.reader.of_slides(np.flatnonzero(mask), ("key", "nth"))
            places = np.sort(self.cells.totals[found["key"].astype(np.int64)] + found["nth"])
            if len(self.hidden) >= _MASKS:
                self.hidden.clear()
            self.hidden[name] = places
        return places


_MASKS = 16
"""Masks whose patches are remembered."""


def remote_archive(
    tree: TextureTree,
    counts: NDArray[np.integer],
    slides: SlideTable,
    removed: NDArray[np.bool_],
    reader: Reader,
    distance: str,
    is_spread: bool,
) -> RemoteArchive:
    """Return the archive of a state: its tree, how many patches each key has, its slides and patches."""
    totals = np.zeros(tree.n_keys + 1, np.int64)
    totals[1 : len(counts) + 1] = counts
    np.cumsum(totals, out=totals)
    return RemoteArchive(
        Cells.counted(tree, totals), SlideList((slides,)), removed, reader, distance, is_spread, {}
    )


@dataclass(frozen=True, slots=True)
class _Asking:
    """A search: the query patches, and what may be found."""

    archive: RemoteArchive
    barcodes: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    within: int
    k: int

    def slides(self, numbers: NDArray[np.int64]) -> Bags:
        """Return the nearest of all patches of some slides."""
        patches = int(self.archive.slides.n_patches[numbers].sum())
        return self._nearest_of("p.slide = ANY(%(slides)s::int[])", numbers, patches)

    def everything(self) -> Bags:
        """Return the nearest of all patches that are not excluded."""
        none = np.empty(0, np.int64) if self.mask is None else np.flatnonzero(self.mask)
        return self._nearest_of("p.slide <> ALL(%(slides)s::int[])", none, len(self.archive))

    def walk(self, budget: int) -> Bags:
        """Return the nearest of a budget of patches, or of more while that pays."""
        cells, tree = self.archive.cells, self.archive.cells.tree
        offset, found = nearest_cells(cells.place, frozen(self.barcodes), budget)
        hidden = np.empty(0, np.int64) if self.mask is None else self.archive.hidden_places(self.mask)
        walkers = [
            _Walker(Walk.of(part, cells.totals, tree.shape[2], hidden), self, budget)
            for part in np.split(found, offset[1:-1])
        ]
        going = [(number, walker) for number, walker in enumerate(walkers)]
        while going:
            asked = [(number, stretch) for number, walker in going for stretch in walker.next()]
            results = iter(self._ask(asked))
            for _, walker in going:
                walker.take(results)
            going = [(number, walker) for number, walker in going if not walker.is_done]
        return self._bags([walker.results() for walker in walkers])

    def _ask(self, asked: Sequence[tuple[int, Stretch]]) -> list[_Packed]:
        """Return the results in each stretch of a query patch's walk, in one statement."""
        if not asked:
            return []
        stretches = [stretch for _, stretch in asked]
        ends = np.cumsum([len(stretch.keys) for stretch in stretches])
        values = {
            "barcodes": _list(_text(self.barcodes[number]) for number, _ in asked),
            "begins": _list(ends - [len(it.keys) for it in stretches] + 1),
            "ends": _list(ends),
            "first": _list(it.keys[0] for it in stretches),
            "first_nth": _list(it.first_nth for it in stretches),
            "last": _list(it.keys[-1] for it in stretches),
            "last_nth": _list(it.last_nth for it in stretches),
            "low": _list(it.keys.min() for it in stretches),
            "high": _list(it.keys.max() for it in stretches),
            "keys": _list(np.concatenate([it.keys for it in stretches]).tolist()),
        }
        condition, slides = self._allowed()
        where = f"""
            p.key = ANY(q.keys) AND p.key >= q.low AND p.key <= q.high
            AND (p.key <> q.first OR p.nth >= q.first_nth) AND (p.key <> q.last OR p.nth < q.last_nth)
            AND p.slide < %(n_slides)s {condition}"""
        return self._packed(
            f"""
            SELECT q.number, s.found
            FROM (
                SELECT u.*, (%(keys)s::bigint[])[u.begins:u.ends] AS keys
                FROM unnest(%(barcodes)s::bit({self._bits})[], %(begins)s::int[], %(ends)s::int[],
                            %(first)s::bigint[], %(first_nth)s::int[],
                            %(last)s::bigint[], %(last_nth)s::int[],
                            %(low)s::bigint[], %(high)s::bigint[]) WITH ORDINALITY
                     AS u(barcode, begins, ends, first, first_nth, last, last_nth, low, high, number)
                OFFSET 0
            ) q,
            LATERAL ({self._selected(where, max(it.patches for it in stretches))}) s""",
            {**values, "slides": _list(slides)},
            len(asked),
        )

    def _nearest_of(self, condition: str, slides: NDArray[np.int64], patches: int) -> Bags:
        """Return the k nearest of all patches that meet a condition, of which there are so many."""
        where = f"p.slide < %(n_slides)s AND {condition}"
        found = self._packed(
            f"""
            SELECT q.number, s.found
            FROM unnest(%(barcodes)s::bit({self._bits})[]) WITH ORDINALITY AS q(barcode, number),
                 LATERAL ({self._selected(where, patches)}) s""",
            {"barcodes": _list(map(_text, self.barcodes)), "slides": _list(slides)},
            len(self.barcodes),
        )
        return self._bags(found)

    def _selected(self, where: str, patches: int) -> str:
        """Return SQL for the results among the patches that meet a condition, of which there are `patches`.

        Where only a few of them are wanted, the server keeps the nearest. On other servers results are made
        where the patches are if they are grouped by keys; else each barcode would be sent from there.

        Returns
        -------
        str
            A statement that gives arrays of results.
        """
        bits = self.archive.distance
        if self.within < self._bits:
            where += f" AND {bits} <= %(within)s"
        packed = f"((({bits})::bigint << {BITS_SHIFT}) | p.patch)"
        results, grouped = f"array_agg({packed})", ""
        if self.archive.is_spread:
            grouped = "GROUP BY p.key"
            if patches > FEW:
                results = f"(array_agg({packed} ORDER BY {packed}))[:%(k)s]"
        elif _FEWER * self.k < patches:
            return f"""
                SELECT array_agg(packed) AS found
                FROM (
                    SELECT {packed} AS packed FROM {{patch}} p WHERE {where} ORDER BY packed LIMIT %(k)s
                ) nearest"""
        return f"SELECT {results} AS found FROM {{patch}} p WHERE {where} {grouped}"

    def _allowed(self) -> tuple[str, NDArray[np.int64]]:
        """Return a condition on the slides that may be found, and the slides that it names."""
        if self.mask is None:
            return "", np.empty(0, np.int64)
        named, other = np.flatnonzero(self.mask), np.flatnonzero(~self.mask)
        if len(named) <= len(other):
            return "AND p.slide <> ALL(%(slides)s::int[])", named
        return "AND p.slide = ANY(%(slides)s::int[])", other

    def _packed(self, statement: str, values: dict[str, Any], count: int) -> list[_Packed]:
        """Return the results that a statement gives for each of `count` numbers, 1, 2, ..."""
        reader = self.archive.reader
        values |= {"n_slides": reader.slides, "within": self.within, "k": self.k}
        found: list[list[_Packed]] = [[np.empty(0, np.int64)] for _ in range(count)]
        for number, data in reader.arrays(statement, values):
            found[number - 1].append(data)
        return [np.concatenate(parts) for parts in found]

    def _bags(self, results: Sequence[_Packed]) -> Bags:
        """Return the k best results of each query patch, in order."""
        kept = [np.sort(own)[: self.k] for own in results]
        offset = np.concatenate([[0], np.cumsum([len(own) for own in kept])])
        together = np.concatenate([np.empty(0, np.int64), *kept])
        return Bags(offset, together & _PATCH, (together >> BITS_SHIFT).astype(np.int32))

    @property
    def _bits(self) -> int:
        return 8 * int(self.barcodes.shape[1])


class _Walker:
    """The walk of one query patch: how far it went, what it found, and whether it goes on.

    It takes the same decisions as `_walk` of `sish.index.texture.kernel`, from the same numbers.
    """

    def __init__(self, walk: Walk, asking: _Asking, budget: int) -> None:
        self._walk, self._budget = walk, budget
        self._count = min(NEAREST, asking.k, len(asking.archive))
        self._farthest = 8 * asking.barcodes.shape[1]
        self._place, self._goal = 0, max(1, budget // 2)
        self._goals: list[tuple[int, bool]] = []  # of this step, with whether there is a stretch for it
        self._found: list[_Packed] = []
        self.is_done = False

    def next(self) -> Iterator[Stretch]:
        """Yield the stretches to ask for: of the next goal, at first of two goals."""
        goals = [self._goal] if self._goal >= self._budget else [self._goal, self._budget]
        self._goals = []
        for goal in goals:
            end = max(self._place, self._walk.end(goal, PATIENCE * max(goal, self._budget)))
            self._goals.append((goal, end > self._place))
            if end > self._place:
                yield self._walk.stretch(self._place, end)
            self._place = end

    def take(self, results: Iterator[_Packed]) -> None:
        """Take the results of these stretches, and decide whether to go on."""
        for goal, asked in self._goals:
            last, before = self._last_of_nearest()
            if asked:
                self._found.append(next(results))
            if goal >= self._budget and int((self._distances() < last).sum()) == before:
                self.is_done = True
                return
            near = FAR_DENOMINATOR * self._last_of_nearest()[0] < FAR_NUMERATOR * self._farthest
            if goal >= (CEILING if near else CEILING_OF_FAR) * self._budget:
                self.is_done = True
                return
            self._goal = self._budget if goal < self._budget else 2 * goal

    def results(self) -> _Packed:
        """Return all results, in no order."""
        return np.concatenate([np.empty(0, np.int64), *self._found])

    def _distances(self) -> NDArray[np.int64]:
        return self.results() >> BITS_SHIFT

    def _last_of_nearest(self) -> tuple[int, int]:
        """Return the distance of the last of the nearest results, and how many are nearer than that."""
        bits = self._distances()
        if len(bits) < self._count:
            return self._farthest + 1, len(bits)
        last = int(np.partition(bits, self._count - 1)[self._count - 1])
        return last, int((bits < last).sum())


def _text(barcode: NDArray[np.uint8]) -> str:
    """Return a barcode as PostgreSQL reads it: a digit for each bit."""
    return (np.unpackbits(barcode) + ord("0")).tobytes().decode("ascii")


def _list(values: Iterable[object]) -> str:
    """Return an array as PostgreSQL reads it, of numbers or bits."""
    return f"{{{','.join(map(str, values))}}}"
