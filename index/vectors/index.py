"""A nearest-neighbour index for float vectors: added, searched, removed, saved and loaded like an array."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import (
    IndexCorruptError,
    IndexFormatError,
    IndexNotFoundError,
    ParameterError,
    ParameterTypeError,
    PathLike,
    about_its_path,
)
from sish.index.compiled import frozen
from sish.index.params import BUDGET
from sish.index.store.disk import replace_with, storage_errors
from sish.index.store.packed import packed, unpack
from sish.index.vectors.archive import VectorArchive
from sish.index.vectors.queries import unit_rows
from sish.index.vectors.rule import MOST_BITS, RerankKind, VectorRule

_FORMAT = 2


class VectorIndex:
    """The nearest neighbours by cosine distance among many float vectors, each with an id of the caller's.

    While there are at most 4,000 vectors, they are kept as they are, and a search compares with all: answers
    are exact. Then the index learns from what it holds: a centre, the axes of largest variance, and a
    `TextureTree` of barcodes, whose leaves become means of vectors. From then on a vector is kept as its id,
    the key of the nearest mean, a sketch of 128 bytes and its row for re-ranking. A search takes the nearest
    cells until they hold `budget` vectors, compares their sketches, and ranks the nearest by the stored rows.

    The cells are learnt again as the index grows. Centre and axes stay, so the first 4,001 vectors, or all of
    the first large `add`, should be like those that follow.

    Searches may run in several threads, also while one thread adds or removes.

    Parameters
    ----------
    n_bits : int
        Bits of a barcode, a power of two, 64 to 8,192.
    rerank : {"int8", "float16", "int3", "int4", "int6"} or None
        How vectors are stored for re-ranking. "int8": a byte for each of `rerank_dims` axes, and 8 bytes.
        "float16": whole. "int3", "int4", "int6": 3, 4 or 6 bits for each number (F rounded up to a multiple
        of 512) of what the sketch leaves, and 4 bytes; for the same bytes they find more of the nearest than
        int8 of few axes. None: only barcodes are kept, n_bits / 8 bytes each; their order is that of Hamming
        distance, about 0.7 of the ten nearest, and distances are estimates from it.
    rerank_dims : int
        Axes of int8; of as many as the vectors have numbers, the numbers themselves are kept.
    seed : int
        Seed of the tree.

    Raises
    ------
    ParameterError
        If a value is out of range.

    Examples
    --------
    >>> vectors = np.random.default_rng(0).standard_normal((5000, 32))
    >>> index = VectorIndex()
    >>> index.add(vectors)
    >>> ids, distances = index.search(vectors[[7, 42]], k=3)
    >>> ids.shape, ids[:, 0].tolist(), len(index), 4999 in index
    ((2, 3), [7, 42], 5000, True)
    >>> index.remove([7])
    >>> int(index.search(vectors[7])[0][0, 0]) == 7
    False
    """

    def __init__(
        self, n_bits: int = 1024, rerank: RerankKind | None = "int8", rerank_dims: int = 256, seed: int = 0
    ) -> None:
        """Make an empty index."""
        whole = all(isinstance(value, int | np.integer) for value in (n_bits, rerank_dims, seed))
        if not whole or not 64 <= n_bits <= MOST_BITS or n_bits & (n_bits - 1):
            raise ParameterError(f"n_bits is {n_bits!r}; give a power of two from 64 to {MOST_BITS}")
        if (
            not (rerank is None or isinstance(rerank, str))
            or rerank not in _RERANKS
            or rerank_dims < 1
            or seed < 0
        ):
            raise ParameterError(
                f"rerank is {rerank!r} with rerank_dims {rerank_dims} and seed {seed}; give one of "
                f"{', '.join(map(repr, _RERANKS))}, dims of at least 1 and a seed of at least 0"
            )
        self._settings = _Settings(int(n_bits), rerank, int(rerank_dims), int(seed))
        self._held: _Few | VectorArchive | None = None
        self._next = 0
        self._changing = Lock()

    def __len__(self) -> int:
        """Return the number of vectors."""
        return 0 if self._held is None else len(self._held)

    def __contains__(self, id_: object) -> bool:
        """Return whether there is a vector of this id."""
        if self._held is None or not isinstance(id_, int | np.integer):
            return False
        if not -_LARGEST_ID - 1 <= int(id_) <= _LARGEST_ID:
            return False
        return bool(self._held.numbers_of(np.array([int(id_)], np.int64))[0] >= 0)

    def __repr__(self) -> str:
        """Return the class, its settings and its size."""
        own = self._settings
        return (
            f"VectorIndex(n_bits={own.n_bits}, rerank={own.rerank!r}, rerank_dims={own.rerank_dims}, "
            f"seed={own.seed}) of {len(self):,} vectors"
        )

    @property
    def n_features(self) -> int | None:
        """Numbers of a vector, F; None while nothing was added."""
        return None if self._held is None else self._held.n_features

    def add(self, vectors: ArrayLike, ids: ArrayLike | None = None) -> None:
        """Add vectors; if they are refused, nothing is changed.

        Parameters
        ----------
        vectors : float (N, F)
            Finite and not zero, of any length.
        ids : int (N,), optional
            An id for each that is not in the index, any int64. Default: running numbers, from 0 or from
            behind the largest id so far.

        Raises
        ------
        ParameterError
            If vectors or ids do not fit, or an id is in the index or given twice.
        """
        units = _units(vectors, self.n_features, "vectors")
        with self._changing:
            own = self._checked_ids(ids, len(units))
            if not len(own):
                return
            held = self._held or _Few(units[:0], own[:0])
            if isinstance(held, _Few):
                held = self._learnt(held.adding(units, own))
            else:
                held = held.adding(units, own, self._settings.seed)
            self._held, self._next = held, max(self._next, int(own.max()) + 1)

    def _checked_ids(self, ids: ArrayLike | None, count: int) -> NDArray[np.int64]:
        """Return ids for new vectors, int64 (count,), or raise ParameterError."""
        if ids is None:
            if self._next + count > _LARGEST_ID:
                raise ParameterError("the largest id is taken, so there are no running numbers; give ids")
            return np.arange(self._next, self._next + count)
        own = _as_ids(ids)
        if own.shape != (count,):
            raise ParameterError(f"ids have shape {own.shape} beside {count} vectors; give ({count},)")
        ordered = np.sort(own)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(twice):
            raise ParameterError(f"id {twice[0]} is given twice; give each vector an id of its own")
        if self._held is not None and len(there := own[self._held.numbers_of(own) >= 0]):
            raise ParameterError(f"id {there[0]} is in the index already; remove it first, or give another")
        return own

    def _learnt(self, few: "_Few") -> "_Few | VectorArchive":
        """Return the archive of vectors once they are too many to compare with all."""
        if len(few) <= BUDGET:
            return few
        own = self._settings
        rule = VectorRule.learn(few.vectors, own.n_bits, own.rerank, own.rerank_dims)
        return VectorArchive.learn(rule, few.vectors, few.ids, own.seed)

    def remove(self, ids: ArrayLike) -> None:
        """Remove vectors by their ids; if one is unknown, nothing is changed.

        Parameters
        ----------
        ids : int (N,) or int

        Raises
        ------
        ParameterError
            If an id is not in the index.
        """
        own = np.unique(_as_ids(np.atleast_1d(_array(ids, "ids"))))
        with self._changing:
            held = self._held
            numbers = np.full(len(own), -1) if held is None else held.numbers_of(own)
            if (numbers < 0).any():
                unknown = own[numbers < 0]
                raise ParameterError(
                    f"id {unknown[0]} is not in the index ({len(unknown)} of {len(own)} are not); "
                    "give ids that were added"
                )
            if held is not None:
                self._held = held.removing(numbers)

    def search(
        self, queries: ArrayLike, k: int = 10, *, budget: int = 8_000, shortlist: int = 200
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the ids of the nearest vectors of each query, and their cosine distances.

        Parameters
        ----------
        queries : float (Q, F) or (F,)
            Finite and not zero.
        k : int
            Neighbours of each, at least 1.
        budget : int
            Vectors whose sketches each query is compared with at least. More find more of the nearest and
            take longer.
        shortlist : int
            Vectors whose stored rows are compared then, at least 2 k. More help where many vectors are about
            equally near.

        Returns
        -------
        int64 (Q, k), float32 (Q, k)
            Nearest first, ties in the order in which vectors were added; -1 and infinity where there are
            fewer than `k`.

        Raises
        ------
        ParameterError
            If queries do not fit, or `k`, the budget or the shortlist is below 1.
        """
        for name, value in (("k", k), ("budget", budget), ("shortlist", shortlist)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ParameterError(f"{name} is {value!r}; give a whole number of at least 1")
        held = self._held
        units = _units(queries, None if held is None else held.n_features, "queries", one=True)
        if held is None:
            return np.full((len(units), k), -1), np.full((len(units), k), np.inf, np.float32)
        most = max(2 * len(held), 1)  # vectors, with those that were removed and still lie there
        return held.search(units, int(k), min(int(budget), most), min(max(int(shortlist), 2 * int(k)), most))

    def save(self, path: PathLike) -> None:
        """Write the index to one file, under a temporary name that is renamed at the end.

        Parameters
        ----------
        path : path-like
            A file there is replaced.

        Raises
        ------
        StoreError
            If the file cannot be written.
        """
        target = Path(path)
        held, own = self._held, self._settings
        arrays = {} if held is None else held.to_arrays()
        arrays["settings"] = own.to_array(self._next)
        with storage_errors(target, "write"):
            replace_with(target, packed(arrays))

    @classmethod
    @about_its_path
    def load(cls, path: PathLike) -> "VectorIndex":
        """Return the index of a file that `save` wrote; it is mapped into memory and not read.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        VectorIndex
            It may be changed and saved again, also to the same path.

        Raises
        ------
        IndexNotFoundError
            If there is no file.
        IndexFormatError
            If it is another kind of file.
        IndexCorruptError
            If it is damaged.
        """
        arrays = _arrays_of(Path(path))
        settings, following = _Settings.from_array(arrays.pop("settings"), Path(path))
        index = cls(settings.n_bits, settings.rerank, settings.rerank_dims, settings.seed)
        try:
            if "few.ids" in arrays:
                index._held = _Few.from_arrays(arrays)
            elif arrays:
                index._held = VectorArchive.from_arrays(arrays)
        except (ParameterError, LookupError, ValueError, TypeError) as error:
            wrong = f"its arrays do not fit each other ({str(error)[:80]!r})"
            raise IndexCorruptError(_damage(Path(path), wrong), path=path) from None
        index._next = following
        return index


_LARGEST_ID = 2**63 - 1
_RERANKS: tuple[RerankKind | None, ...] = (None, "int8", "float16", "int3", "int4", "int6")


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the caller chose."""

    n_bits: int
    rerank: RerankKind | None
    rerank_dims: int
    seed: int

    def to_array(self, following: int) -> NDArray[np.int64]:
        """Return the numbers to store, with the next running number."""
        chosen = self.n_bits, _RERANKS.index(self.rerank), self.rerank_dims, self.seed
        return np.array([_FORMAT, *chosen, following], np.int64)

    @classmethod
    def from_array(cls, array: NDArray[Any], path: Path) -> "tuple[_Settings, int]":
        """Return the settings and the next running number of `to_array`."""
        if array.shape != (6,) or array.dtype != np.int64:
            raise IndexCorruptError(_damage(path, "its settings are missing"), path=path)
        number, n_bits, rerank, dims, seed, following = array.tolist()
        if number != _FORMAT:
            raise IndexFormatError(f"{path} has format {number}, wanted {_FORMAT}: update sish", path=path)
        if not 0 <= rerank < len(_RERANKS):
            raise IndexCorruptError(_damage(path, "its settings make no sense"), path=path)
        return cls(n_bits, _RERANKS[rerank], dims, seed), following


@dataclass(frozen=True, slots=True, eq=False)
class _Few:
    """Vectors that a query is compared with one by one."""

    vectors: NDArray[np.float32]
    """Of length 1, (N, F)."""
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_features(self) -> int:
        """F."""
        return int(self.vectors.shape[1])

    def adding(self, vectors: NDArray[np.float32], ids: NDArray[np.int64]) -> "_Few":
        """Return these vectors and more."""
        if not len(self):  # the first may be gigabytes
            return _Few(vectors, ids)
        return _Few(np.concatenate([self.vectors, vectors]), np.concatenate([self.ids, ids]))

    def numbers_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of each id, (N,), or -1."""
        if not len(self):
            return np.full(len(ids), -1)
        order = np.argsort(self.ids)
        rows = order[np.minimum(np.searchsorted(self.ids, ids, sorter=order), len(self) - 1)]
        return np.where(self.ids[rows] == ids, rows, -1)

    def removing(self, numbers: NDArray[np.int64]) -> "_Few":
        """Return these vectors without some."""
        return _Few(np.delete(self.vectors, numbers, axis=0), np.delete(self.ids, numbers))

    def search(
        self, units: NDArray[np.float32], k: int, budget: int, short: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the nearest of all, exactly."""
        apart = np.maximum(np.float32(1) - units @ self.vectors.T, np.float32(0))
        order = np.argsort(apart, axis=1, kind="stable")[:, :k]
        ids = np.full((len(units), k), -1, np.int64)
        distances = np.full((len(units), k), np.inf, np.float32)
        ids[:, : order.shape[1]] = self.ids[order]
        distances[:, : order.shape[1]] = np.take_along_axis(apart, order, axis=1)
        return ids, distances

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store."""
        return {"few.vectors": self.vectors, "few.ids": self.ids}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "_Few":
        """Return what `to_arrays` returned."""
        vectors, ids = arrays["few.vectors"], arrays["few.ids"]
        if vectors.dtype != np.float32 or ids.dtype != np.int64 or vectors.ndim != 2 or not vectors.shape[1]:
            raise ParameterError(f"vectors are {vectors.dtype} {vectors.shape}")
        if ids.shape != vectors.shape[:1]:
            raise ParameterError(f"ids are {ids.shape} beside {vectors.shape}")
        return cls(vectors, ids)


def _units(vectors: ArrayLike, features: int | None, name: str, *, one: bool = False) -> NDArray[np.float32]:
    """Return vectors of length 1, float32 (N, F), or raise ParameterError; `one`: (F,) is a row, too."""
    values = _array(vectors, name)
    if one and values.ndim == 1:
        values = values[None]
    wanted = "F" if features is None else features
    if values.ndim != 2 or values.shape[1] == 0 or (features is not None and values.shape[1] != features):
        raise ParameterError(f"{name} have shape {values.shape}; give (N, {wanted})")
    if values.dtype.kind not in "fiu":
        raise ParameterTypeError(f"{name} are {values.dtype}; give numbers, such as float32")
    with np.errstate(over="ignore"):
        units, sizes = unit_rows(frozen(values.astype(np.float32, copy=False)))
    if not np.isfinite(sizes).all():
        raise ParameterError(f"{name} hold NaN or infinity; give finite numbers")
    if len(zeros := np.flatnonzero(sizes == 0)):
        raise ParameterError(f"{name}[{zeros[0]}] is zero and has no direction; leave it out")
    return units


def _array(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return what numpy reads as an array; ParameterTypeError for anything else."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterTypeError(f"{name} are no array ({error}); give one of numpy") from error


def _as_ids(ids: ArrayLike) -> NDArray[np.int64]:
    """Return ids as int64, or raise ParameterError."""
    values = _array(ids, "ids")
    if values.size and values.dtype.kind not in "iu":
        raise ParameterTypeError(f"ids are {values.dtype}; give integers")
    if values.size and values.dtype == np.uint64 and values.max() > _LARGEST_ID:
        raise ParameterError(f"id {values.max()} is above {_LARGEST_ID}; give int64")
    return values.astype(np.int64)


def _damage(path: Path, wrong: str) -> str:
    return f"{path} is damaged: {wrong}; restore it, or add the vectors again"


def _arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file of vectors, mapped."""
    try:
        data = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
    except FileNotFoundError:
        raise IndexNotFoundError(f"{path} does not exist: check the path", path=path) from None
    except (ValueError, OSError) as error:
        raise IndexFormatError(f"{path} is no file of vectors ({error}): check the path", path=path) from None
    try:
        arrays = unpack(data)
    except ValueError as error:
        raise IndexCorruptError(_damage(path, str(error)[:80]), path=path) from None
    if "settings" not in arrays:
        raise IndexFormatError(f"{path} is no file that VectorIndex.save wrote: check the path", path=path)
    return arrays
