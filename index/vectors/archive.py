"""The vectors of a `VectorIndex` that are too many to compare with all: parts in the order of a tree's keys.

An archive is never changed: adding and removing return another one that shares its arrays, so that searches
may run meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.index.compiled import frozen
from sish.index.hamming_kernels import aligned
from sish.index.table import KeyTable
from sish.index.texture.cells import Cells, Directory
from sish.index.texture.shortlist import SPOT
from sish.index.texture.tree import TextureTree
from sish.index.vector_kernels import SKETCH
from sish.index.vectors.means import MeanCells
from sish.index.vectors.rule import VectorRule
from sish.index.vectors.walk import search_vectors

_MERGED = 2  # a part is merged with the one before it that is less than so many times as large
_FULLER, _FARTHER, _LOOKED = 3.5, 1.25, 1.25  # as in sish.tree_fit
_SPARSE = 4  # the archive is rewritten if one of so many was removed
_CODES, _RULE, _TREE = "codes", "rule.", "tree."  # names in a file
_BLOCK = 65_536  # vectors that are turned into rows at a time

Tree = TextureTree | MeanCells
"""What keys are of: of barcodes, if these alone rank, or of sketches."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some vectors, in the order of their keys."""

    keys: NDArray[np.int32]
    """Key of each vector, (P,), ascending."""
    codes: NDArray[np.uint8]
    """Sketch of each, (P, 128), or its barcode if barcodes alone rank."""
    stored: NDArray[Any]
    """Row of each by which the shortlist is ranked, (P, W); W is 0 if barcodes alone rank."""
    ids: NDArray[np.int64]
    """The caller's id of each, (P,)."""
    number: NDArray[np.int32]
    """How many vectors came before each, (P,)."""
    id_order: NDArray[np.int32]
    """Rows in the order of their ids, (P,)."""
    directory: Directory
    """Where keys begin."""

    @classmethod
    def of(
        cls,
        tree: Tree,
        keys: NDArray[np.integer],
        codes: NDArray[np.uint8],
        stored: NDArray[Any],
        ids: NDArray[np.int64],
        number: NDArray[np.int32],
    ) -> "Part":
        """Return the part of vectors in any order."""
        order = np.lexsort((number, keys))
        own, own_keys = ids[order], keys[order].astype(np.int32)
        return cls(
            own_keys,
            aligned(codes, order),
            aligned(stored, order),
            own,
            number[order],
            np.argsort(own, kind="stable").astype(np.int32),
            Directory.of(tree, own_keys),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], rule: VectorRule, tree: Tree) -> "Part":
        """Return the part of arrays that a file holds; ParameterError if they do not fit."""
        names = _CODES, "stored", "ids", "keys", "number", "id_order"
        codes, stored, ids, keys, number, id_order = (arrays[name] for name in names)
        n_bytes = tree.barcode_bytes if isinstance(tree, TextureTree) else SKETCH
        row = (np.dtype(np.int8), 0) if rule.coder is None else (rule.coder.dtype, rule.coder.width)
        count = len(ids)
        wanted = [
            (codes, np.dtype(np.uint64), (count, n_bytes // 8)), (stored, row[0], (count, row[1])),
            (ids, np.dtype(np.int64), (count,)), (keys, np.dtype(np.int32), (count,)),
            (number, np.dtype(np.int32), (count,)), (id_order, np.dtype(np.int32), (count,)),
        ]  # fmt: skip
        for array, dtype, shape in wanted:
            if array.dtype != dtype or array.shape != shape:
                raise ParameterError(f"an array is {array.dtype} {array.shape}, wanted {dtype} {shape}")
        if rule.coder is None and n_bytes * 8 != rule.n_bits:
            raise ParameterError(f"the tree has {n_bytes} bytes and the rule {rule.n_bits} bits")
        if np.any(keys[1:] < keys[:-1]) or any(
            count and not 0 <= places.min() <= places.max() < count for places in (number, id_order)
        ):
            raise ParameterError("keys or numbers are out of order")
        return cls(keys, codes.view(np.uint8), stored, ids, number, id_order, Directory.of(tree, keys))

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self.ids)

    def numbers_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each id, (N,); -1 where it is not here."""
        if not len(self):
            return np.full(len(ids), -1)
        place = np.searchsorted(self.ids, ids, sorter=self.id_order)
        rows = self.id_order[np.minimum(place, len(self) - 1)]
        return np.where(self.ids[rows] == ids, self.number[rows], -1)

    def arrays(self, kept: NDArray[np.bool_]) -> tuple[NDArray[Any], ...]:
        """Return keys, codes, stored rows, ids and numbers of some vectors."""
        every = self.keys, self.codes, self.stored, self.ids, self.number
        return every if kept.all() else tuple(array[kept] for array in every)


def joined(tree: Tree, parts: Sequence[Part], removed: NDArray[np.bool_]) -> Part:
    """Return one part of several, without removed vectors."""
    left = [~removed[part.number] for part in parts]
    if len(parts) == 1 and left[0].all():
        return parts[0]
    arrays = [part.arrays(kept) for part, kept in zip(parts, left, strict=True)]
    return Part.of(tree, *map(np.concatenate, zip(*arrays, strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class VectorArchive:
    """Vectors, and the tree through which they are searched."""

    rule: VectorRule
    """What vectors are turned into."""
    tree: Tree
    """The tree of their barcodes, or the cells of their sketches."""
    parts: tuple[Part, ...]
    """The vectors, later ones in later parts."""
    removed: NDArray[np.bool_]
    """Whether the vector of each number was removed."""
    fit: "Fit"
    """How well the tree fitted when it was learnt, and what came since."""
    mask: NDArray[np.bool_]
    """`removed`, or (0,) if nothing was: a search does not look through it."""
    _searched: Any  # Cells of barcodes, or Spots of sketches

    @classmethod
    def learn(
        cls, rule: VectorRule, vectors: NDArray[np.float32], ids: NDArray[np.int64], seed: int
    ) -> "VectorArchive":
        """Return the archive of unit vectors, which are turned into rows block by block."""
        blocks = [_rows(rule, vectors[i : i + _BLOCK]) for i in range(0, len(vectors), _BLOCK)]
        codes, stored = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
        tree, keys = _learnt(rule, codes, seed)
        part = Part.of(tree, keys, codes, stored, ids, np.arange(len(ids), dtype=np.int32))
        fit = Fit(len(ids), _apart(tree, keys, codes), 0, 0.0, len(ids))
        return cls.of(rule, tree, (part,), np.zeros(len(ids), bool), fit)

    @classmethod
    def of(
        cls,
        rule: VectorRule,
        tree: Tree,
        parts: Sequence[Part],
        removed: NDArray[np.bool_],
        fit: "Fit",
    ) -> "VectorArchive":
        """Return the archive of parts in key order."""
        searched = _cells(tree, parts) if isinstance(tree, TextureTree) else Spots.of(tree, parts)
        mask = removed if removed.any() else np.zeros(0, np.bool_)
        return cls(rule, tree, tuple(parts), frozen(removed), fit, frozen(mask), searched)

    def __len__(self) -> int:
        """Return the number of vectors that were not removed."""
        return sum(map(len, self.parts)) - self._hidden

    @property
    def n_features(self) -> int:
        """F."""
        return len(self.rule.centre)

    @property
    def _hidden(self) -> int:
        """Number of removed vectors that parts still hold."""
        return sum(int(self.removed[part.number].sum()) for part in self.parts) if self.mask.size else 0

    def numbers_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each id, (N,); -1 where it is not in the archive."""
        found = np.full(len(ids), -1)
        for part in self.parts:
            own = part.numbers_of(ids)
            here = np.flatnonzero(own >= 0)
            here = here[~self.removed[own[here]]]
            found[here] = own[here]
        return found

    def adding(self, vectors: NDArray[np.float32], ids: NDArray[np.int64], seed: int) -> "VectorArchive":
        """Return the archive with more unit vectors."""
        codes, stored = _rows(self.rule, vectors)
        keys = self.tree.keys(codes)
        first = len(self.removed)
        number = np.arange(first, first + len(ids), dtype=np.int32)
        parts, removed = [*self.parts, Part.of(self.tree, keys, codes, stored, ids, number)], self.removed
        removed = np.append(removed, np.zeros(len(ids), bool))
        while len(parts) > 1 and len(parts[-2]) < _MERGED * len(parts[-1]):
            parts[-2:] = [joined(self.tree, parts[-2:], removed)]
        fit = self.fit.with_more(len(ids), _apart(self.tree, keys, codes))
        if not fit.is_due:
            return VectorArchive.of(self.rule, self.tree, parts, removed, fit)
        return VectorArchive.of(self.rule, self.tree, parts, removed, fit).relearnt(seed)

    def removing(self, numbers: NDArray[np.int64]) -> "VectorArchive":
        """Return the archive without the vectors of some numbers."""
        removed = self.removed.copy()
        removed[numbers] = True
        less = replace(self, removed=frozen(removed), mask=frozen(removed))
        held = sum(map(len, self.parts))
        if less._hidden * _SPARSE <= held:
            return less
        return VectorArchive.of(self.rule, self.tree, [less._together()], less._none_removed(), self.fit)

    def relearnt(self, seed: int) -> "VectorArchive":
        """Return the archive with a new tree."""
        part = self._together()
        order = np.argsort(part.number)
        tree, keys = _learnt(self.rule, part.codes[order], seed)
        keys = keys[part.number]
        fit = Fit(len(part), _apart(tree, keys, part.codes), 0, 0.0, len(part))
        again = Part.of(tree, keys, part.codes, part.stored, part.ids, part.number)
        return VectorArchive.of(self.rule, tree, [again], self._none_removed(), fit)

    def _together(self) -> Part:
        """Return all vectors that were not removed, numbered anew."""
        part = joined(self.tree, self.parts, self.removed)
        number = np.empty(len(part), np.int32)
        number[np.argsort(part.number)] = np.arange(len(part))
        return replace(part, number=number)

    def _none_removed(self) -> NDArray[np.bool_]:
        return np.zeros(len(self), bool)

    def search(
        self, units: NDArray[np.float32], k: int, budget: int, short: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids (Q, k) and distances (Q, k) of unit vectors."""
        rule, spots, coder = self.rule, self._searched, self.rule.coder
        if coder is None:
            return self._by_barcodes(units, k, budget)
        ids = np.full((len(units), k), -1, np.int64)
        distances = np.full((len(units), k), np.inf, np.float32)
        weights, terms = rule.weights(units)
        sizes = budget, short, coder.row_bytes, rule.bits
        search_vectors(
            spots.place, spots.tables, spots.kept, rule.sketch_weights(units),
            weights, terms, frozen(units), self.mask, sizes, ids, distances,
        )  # fmt: skip
        return ids, distances

    def _by_barcodes(
        self, units: NDArray[np.float32], k: int, budget: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return what `search` returns, from barcodes alone."""
        mask = self.mask if self.mask.size else None
        bags = self._searched.search(self.rule.barcodes(units), k=k, budget=budget, exclude=mask)
        all_ids = [part.ids for part in self.parts]
        ids = np.full((len(units), k), -1, np.int64)
        distances = np.full((len(units), k), np.inf, np.float32)
        query = np.repeat(np.arange(len(bags)), bags.lengths())
        place = np.arange(len(query)) - bags.offset[query]
        for mine, table, rows in self._searched.by_table(bags.patch):
            ids[query[mine], place[mine]] = all_ids[table][rows]
        length = np.linalg.norm(units - self.rule.centre, axis=1)[query]
        cosine = np.cos(np.pi * bags.hamming / self.rule.n_bits)
        around = self.fit_length
        distances[query, place] = np.maximum((length**2 + around**2) / 2 - length * around * cosine, 0)
        return ids, distances

    @property
    def fit_length(self) -> float:
        """Length of a typical centred vector, by which distances are estimated from barcodes."""
        return float(np.sqrt(max(0.0, 1 - float((self.rule.centre.astype(np.float64) ** 2).sum()))))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store: all vectors that were not removed, as one part."""
        part = self._together()
        words = part.codes.view(np.uint64)  # the widest numbers are first in a file, so at a cache line
        arrays = {_CODES: words, "stored": part.stored, "keys": part.keys, "ids": part.ids}
        arrays |= {"number": part.number, "id_order": part.id_order, "fit": self.fit.to_array()}
        arrays |= {_RULE + name: array for name, array in self.rule.to_arrays().items()}
        return arrays | {_TREE + name: array for name, array in self.tree.to_arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "VectorArchive":
        """Return the archive that `to_arrays` returned; arrays are not copied.

        Parameters
        ----------
        arrays : mapping of str to array

        Returns
        -------
        VectorArchive
            The archive.

        Raises
        ------
        ParameterError
            If they do not fit each other. KeyError, if one is missing.
        """
        rule, tree = (
            {name.removeprefix(of): array for name, array in arrays.items() if name.startswith(of)}
            for of in (_RULE, _TREE)
        )
        own_rule = VectorRule.from_arrays(rule)
        own_tree = (MeanCells if own_rule.coder else TextureTree).from_arrays(tree)
        part = Part.from_arrays(arrays, own_rule, own_tree)
        fit = Fit.from_array(arrays["fit"])
        return cls.of(own_rule, own_tree, [part], np.zeros(len(part), bool), fit)


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a tree still fits; `sish.tree_fit` is the same for the segments of a store."""

    learnt: int
    """Vectors that the tree was learnt for."""
    apart: float
    """Their mean distance to their leaves, of barcodes or of sketches."""
    came: int
    """Vectors that came since."""
    came_apart: float
    """The sum of these distances for them."""
    total: int
    """All vectors."""

    def with_more(self, count: int, apart: float) -> "Fit":
        """Return the fit after more vectors of some mean distance."""
        return replace(
            self, came=self.came + count, came_apart=self.came_apart + count * apart, total=self.total + count
        )

    @property
    def is_due(self) -> bool:
        """Whether a new tree must be learnt: it has grown much, or what comes lies far from its leaves."""
        if self.total > _FULLER * self.learnt:
            return True
        grown = self.came > (_LOOKED - 1) * self.learnt
        return grown and self.came_apart > _FARTHER * self.apart * self.came

    def to_array(self) -> NDArray[np.float64]:
        """Return the numbers to store."""
        return np.array([self.learnt, self.apart, self.came, self.came_apart, self.total], np.float64)

    @classmethod
    def from_array(cls, array: NDArray[np.float64]) -> "Fit":
        """Return the fit of `to_array`."""
        learnt, apart, came, came_apart, total = array.tolist()
        return cls(int(learnt), apart, int(came), came_apart, int(total))


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """Where the compiled search finds the parts."""

    place: NDArray[np.int64]
    """`Place` as an array."""
    tables: NDArray[np.int64]
    """Of each part what `sish.index.texture.shortlist.SPOT` says; sketches stand for barcodes."""
    kept: NDArray[np.int64]
    """Addresses of the ids and of the stored rows of each part, (parts, 2)."""
    _arrays: tuple[NDArray[Any], ...]

    @classmethod
    def of(cls, tree: MeanCells, parts: Sequence[Part]) -> "Spots":
        """Return the addresses of parts whose keys `tree` made."""
        tables, kept = np.zeros((len(parts), SPOT), np.int64), np.zeros((len(parts), 2), np.int64)
        totals, first = np.zeros(tree.n_keys + 1, np.int64), 0
        held: list[NDArray[Any]] = []
        for number, part in enumerate(parts):
            directory = part.directory
            arrays: list[NDArray[Any]] = [
                part.codes,
                part.number,
                directory.node_begins,
                directory.key_begins,
                directory.keys,
            ]
            arrays += [part.ids, part.stored]
            at = [array.ctypes.data if array.size else 0 for array in arrays]
            tables[number] = at[0], at[1], at[1], 0, first, len(part), *at[2:5]
            kept[number] = at[5:]
            totals += directory.totals(tree.n_keys)
            first += len(part)
            held += arrays
        own: list[NDArray[Any]] = [tree.nodes, tree.leaves, totals[:: tree.shape[2]].copy(), totals]
        place = [0, *(array.ctypes.data for array in own), *tree.shape, SKETCH // 8]
        return cls(np.array(place, np.int64), tables, kept, (*held, *own))


def _cells(tree: TextureTree, parts: Sequence[Part]) -> Cells:
    """Return the cells of parts that hold barcodes."""
    tables = []
    for part in parts:
        begins = part.directory.key_begins
        own = part.keys, part.codes, part.number, part.number
        tables.append(KeyTable(*own, key_begins=begins if begins.size else None))
    return Cells.of(tree, tables)


def _rows(rule: VectorRule, vectors: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return sketches and stored rows of unit vectors, or their barcodes and rows of no length."""
    if rule.coder is None:
        return rule.barcodes(vectors), np.empty((len(vectors), 0), np.int8)
    return rule.sketches(vectors), rule.coder.encode(vectors)


def _learnt(rule: VectorRule, codes: NDArray[np.uint8], seed: int) -> tuple[Tree, NDArray[np.integer]]:
    """Return a tree for barcodes, or cells for sketches, and their keys."""
    if rule.coder is None:
        tree = TextureTree.learn(codes, seed=seed)
        return tree, tree.keys(codes)
    blocks = [rule.barcodes_of_sketches(codes[i : i + _BLOCK]) for i in range(0, len(codes), _BLOCK)]
    barcodes = np.concatenate(blocks)
    tree = TextureTree.learn(barcodes, seed=seed)
    return MeanCells.learn(codes, tree.keys(barcodes), tree.shape[2], tree.n_keys, rule.sketch)


def _apart(tree: Tree, keys: NDArray[np.integer], codes: NDArray[np.uint8]) -> float:
    """Return the mean distance of some of the barcodes or sketches to their leaves."""
    if isinstance(tree, MeanCells):
        return tree.apart(codes, keys)
    step = max(1, len(keys) // 1000)
    leaves = tree.leaves_of(keys[::step].astype(np.int64))
    return max(1.0, float(np.bitwise_count(codes[::step] ^ leaves).sum(1).mean()))
