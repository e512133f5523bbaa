"""How float vectors are stored, so that the patches of a shortlist are ranked again by cosine distance.

A barcode keeps which sides of random planes a vector lies on, and ranks all patches of a cell. The nearest of
them are ranked again by what is stored here, for each vector one row:

- ``float16``: the vector scaled to length 1, 2 F bytes.
- ``int8``: D numbers of one byte. They are coordinates x_j of the centred unit vector along the D axes of
  largest variance (PCA), each divided by its standard deviation s_j and the *row's* own step g, so that the
  largest is 127. Two float32 in front of them are g, and half the squared length of what the row means. If D
  is the full width, the axes are the features themselves, and no query is rotated.

The cosine distance of two unit vectors is half their squared distance,

    1 - cos = |q - x|^2 / 2 = (|q|^2 + |x'|^2 + r) / 2 - g sum_j (q_j s_j) c_j,

where c are the row's bytes, x' the coordinates that they mean, and r the squared length of what lies off the
axes (q and x are centred). Taking |x'| of the bytes, not |x|, matters: then an error e of rounding adds
(q - x) e, which is small among neighbours, and not q e. Where both were measured on EfficientNet-lite0
features of PatchCamelyon, 248 to 256 axes kept 0.957 of the ten nearest against 0.939.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.compiled import frozen
from sish.index.vector_kernels import TERMS, float16_distances, int8_distances, row_addresses

VectorKind = Literal["int8", "float16"]
"""How vectors are stored: by a byte for each of their largest axes, or whole by two bytes a number."""

_SAMPLE = 16_384  # rows that the axes are learnt from; more change nothing
_LARGEST = 127  # of an int8
_LARGEST_WEIGHT = 32_767  # of an int16
_MOST_AXES = 8_192  # products of more could exceed int32
_BLOCK = 8_192  # rows that are encoded at a time


@dataclass(frozen=True, slots=True, eq=False)
class VectorCoder:
    """A rule by which float vectors are stored, made by `learn`, or by `from_arrays` from `to_arrays`.

    Examples
    --------
    >>> vectors = np.eye(4, dtype=np.float32)
    >>> coder = VectorCoder.learn(vectors, "int8")
    >>> stored = coder.encode(vectors)
    >>> stored.shape, coder.distances(vectors[0], stored).round(1).tolist()
    ((4, 12), [0.0, 1.0, 1.0, 1.0])
    """

    kind: VectorKind
    """How vectors are stored."""
    mean: NDArray[np.float32]
    """Subtracted from unit vectors first, (F,); zeros for float16."""
    axes: NDArray[np.float32]
    """The axes as rows, (D, F); (0, F) where they are the features themselves."""
    spread: NDArray[np.float32]
    """What divides each coordinate, (D,); empty for float16."""

    @classmethod
    def learn(cls, vectors: ArrayLike, kind: VectorKind, dims: int = 256) -> "VectorCoder":
        """Return the rule for an archive's vectors.

        Parameters
        ----------
        vectors : float (N, F)
            Finite, N of at least 1; of many, 16,384 are drawn, always the same.
        kind : {"int8", "float16"}
            How to store them.
        dims : int
            For int8: the axes that are kept, at most F. Of F the features themselves are kept.

        Returns
        -------
        VectorCoder
            The rule.

        Raises
        ------
        ParameterError
            If there is no such kind, or vectors or dims do not fit.
        """
        rows = as_vectors(vectors)
        width = rows.shape[1]
        if kind not in ("int8", "float16"):
            raise ParameterError(f"got kind {kind!r}; want 'int8' or 'float16'")
        if kind == "float16":
            return cls(kind, np.zeros(width, np.float32), np.empty((0, width), np.float32), _NONE)
        if not len(rows) or dims < 1 or min(dims, width) > _MOST_AXES:
            raise ParameterError(
                f"{len(rows)} vectors and dims {dims}; give at least one vector and 1 to {_MOST_AXES} dims"
            )
        if len(rows) > _SAMPLE:
            rows = rows[np.sort(np.random.default_rng(0).choice(len(rows), _SAMPLE, replace=False))]
        return cls._of_sample(unit(rows), min(dims, width))

    @classmethod
    def _of_sample(cls, rows: NDArray[np.float32], dims: int) -> "VectorCoder":
        """Return the int8 rule of unit vectors (M, F)."""
        mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - mean.astype(np.float32)
        axes, spread = np.empty((0, rows.shape[1])), centred.std(axis=0, dtype=np.float64)
        if dims < rows.shape[1]:
            covariance = (centred.T @ centred).astype(np.float64) / len(rows)
            variance, vectors = np.linalg.eigh(covariance)
            axes = vectors[:, ::-1][:, :dims].T
            spread = np.sqrt(np.maximum(variance[::-1][:dims], 0))
        least = 1e-3 * float(np.sqrt((spread**2).mean())) or 1.0  # axes without variance in the sample
        return cls(
            "int8",
            frozen(mean.astype(np.float32)),
            frozen(axes.astype(np.float32)),
            frozen(np.maximum(spread, least).astype(np.float32)),
        )

    @property
    def features(self) -> int:
        """F, the length of a vector."""
        return len(self.mean)

    @property
    def width(self) -> int:
        """Numbers of a stored row: F for float16, D + 8 for int8."""
        return self.features if self.kind == "float16" else TERMS + len(self.spread)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a stored row's numbers."""
        return np.dtype(self.kind)

    @property
    def row_bytes(self) -> int:
        """Bytes of a stored row."""
        return self.width * self.dtype.itemsize

    def encode(self, vectors: ArrayLike) -> NDArray[Any]:
        """Return vectors as they are stored.

        Parameters
        ----------
        vectors : float (N, F)
            Finite, of any length.

        Returns
        -------
        int8 (N, D + 8) or float16 (N, F)
            A row for each vector.
        """
        rows = as_vectors(vectors, self.features)
        out = np.empty((len(rows), self.width), self.dtype)
        for begin in range(0, len(rows), _BLOCK):
            block = unit(rows[begin : begin + _BLOCK])
            out[begin : begin + _BLOCK] = block if self.kind == "float16" else self._bytes(block)
        return out

    def _bytes(self, rows: NDArray[np.float32]) -> NDArray[np.int8]:
        """Return unit vectors as rows of int8."""
        centred = rows - self.mean
        coordinates = self._along(centred)
        standard = coordinates / self.spread
        step = np.abs(standard).max(axis=1, keepdims=True) / np.float32(_LARGEST)
        step[step == 0] = 1
        codes = np.rint(standard / step)
        off = (centred**2).sum(axis=1) - (coordinates**2).sum(axis=1)
        meant = ((codes * step * self.spread) ** 2).sum(axis=1) + np.maximum(off, 0)
        out = np.empty((len(rows), self.width), np.int8)
        out[:, :TERMS] = np.stack([step[:, 0], meant / 2], axis=1).astype("<f4").view(np.int8)
        out[:, TERMS:] = codes
        return out

    def _along(self, centred: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return coordinates float32 (N, D) of centred vectors (N, F)."""
        return centred @ self.axes.T if len(self.axes) else centred

    def decode(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return the unit vectors that rows mean, about, float32 (N, F)."""
        self.check(stored)
        if self.kind == "float16":
            return stored.astype(np.float32)
        step = np.ascontiguousarray(stored[:, :TERMS]).view("<f4")[:, :1]
        coordinates = stored[:, TERMS:] * step * self.spread
        return np.asarray(
            (coordinates @ self.axes if len(self.axes) else coordinates) + self.mean, np.float32
        )

    def check(self, stored: NDArray[Any]) -> None:
        """Refuse an array that is not of this rule's rows (ParameterError)."""
        if stored.dtype != self.dtype or stored.ndim != 2 or stored.shape[1] != self.width:
            raise ParameterError(
                f"stored rows are {stored.dtype} {stored.shape}; give {self.dtype} (N, {self.width})"
            )

    def distances(self, query: ArrayLike, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return the cosine distances of a vector float (F,) to stored rows, float32 (N,), about."""
        offset, rows = np.array([0, len(stored)]), np.arange(len(stored))
        return self.bag_distances(np.asarray(query)[None], offset, rows, [stored])

    def bag_distances(
        self,
        queries: ArrayLike,
        offset: NDArray[np.int64],
        patch: NDArray[np.int64],
        stored: Sequence[NDArray[Any]],
    ) -> NDArray[np.float32]:
        """Return the cosine distance of each result of each bag to its query, about.

        Parameters
        ----------
        queries : float (Q, F)
            Finite, of any length.
        offset : int64 (Q + 1,)
            Where the results of each query begin, as in `Bags`.
        patch : int64 (R,)
            Number of each result, counted through all arrays of stored rows.
        stored : sequence of array
            Stored rows in one or more arrays, such as those of segments. They are not copied if their rows
            are contiguous.

        Returns
        -------
        float32 (R,)
            Distances, 0 to 2.

        Raises
        ------
        ParameterError
            If shapes do not fit, or a number is none of a row.
        """
        vectors = unit(as_vectors(queries, self.features))
        bounds, numbers = np.ascontiguousarray(offset, np.int64), np.ascontiguousarray(patch, np.int64)
        if bounds.shape != (len(vectors) + 1,) or bounds[0] != 0 or np.any(np.diff(bounds) < 0):
            raise ParameterError(f"offset has shape {bounds.shape}; give ({len(vectors) + 1},), ascending")
        if bounds[-1] != len(numbers):
            raise ParameterError(f"offset ends at {bounds[-1]} and there are {len(numbers)} results")
        for array in stored:
            self.check(array)
        kept = [np.ascontiguousarray(array) for array in stored]
        try:
            rows = row_addresses(spots_of(kept), frozen(numbers), self.row_bytes)
        except IndexError:
            raise ParameterError(f"results name rows that are not among {sum(map(len, kept))}") from None
        out = np.empty(len(rows), np.float32)
        if self.kind == "float16":
            float16_distances(frozen(vectors), frozen(bounds), rows, out)
        else:
            int8_distances(*self.asked(vectors), frozen(bounds), rows, out)
        return out

    def asked(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Return unit vectors as `int8_distances` reads them: weights (Q, D), and terms (Q, 2)."""
        centred = vectors - self.mean
        weights = self._along(centred) * self.spread
        step = np.abs(weights).max(axis=1, keepdims=True) / np.float32(_LARGEST_WEIGHT)
        step[step == 0] = 1
        half = (centred**2).sum(axis=1, keepdims=True) / np.float32(2)
        return frozen(np.rint(weights / step).astype(np.int16)), frozen(np.concatenate([step, half], axis=1))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store."""
        if self.kind == "float16":
            return {"mean": self.mean}
        return {"mean": self.mean, "axes": self.axes, "spread": self.spread}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "VectorCoder":
        """Return the rule that `to_arrays` returned; ParameterError if the arrays are none."""
        mean, none = arrays.get("mean"), np.empty((0, 0), np.float32)
        if mean is None or mean.dtype != np.float32 or mean.ndim != 1 or not len(mean):
            raise ParameterError("the rule of stored vectors has no mean; give what to_arrays() gave")
        if "spread" not in arrays:
            return cls("float16", frozen(mean), none.reshape(0, len(mean)), none.ravel())
        axes, spread = arrays.get("axes", none), arrays["spread"]
        dims = len(axes) or len(mean)
        if (
            any(array.dtype != np.float32 for array in (axes, spread))
            or axes.shape != (len(axes), len(mean))
            or spread.shape != (dims,)
        ):
            raise ParameterError(
                f"the rule of stored vectors has axes {axes.shape} and spread {spread.shape} beside a mean "
                f"of {len(mean)}; give what to_arrays() gave"
            )
        return cls("int8", frozen(mean), frozen(axes), frozen(spread))


_NONE = np.empty(0, np.float32)


def spots_of(stored: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the address and the first number of each array, and the end, int64 (arrays + 1, 2)."""
    spots = np.zeros((len(stored) + 1, 2), np.int64)
    spots[:-1, 0] = [array.ctypes.data for array in stored]
    spots[1:, 1] = np.cumsum([len(array) for array in stored])
    return spots


def as_vectors(vectors: ArrayLike, features: int | None = None) -> NDArray[np.float32]:
    """Return vectors as float32 (N, F); ParameterError for another shape or type, NaN or infinity."""
    values = np.asarray(vectors)
    wanted = "F" if features is None else features
    if values.ndim != 2 or values.shape[1] == 0 or (features is not None and values.shape[1] != features):
        raise ParameterError(f"vectors have shape {values.shape}; give (N, {wanted})")
    if values.dtype.kind not in "fiu":
        raise ParameterError(f"vectors are {values.dtype}; give numbers, such as float32")
    out = values.astype(np.float32, copy=False)
    if not np.isfinite(out).all():
        raise ParameterError("vectors hold NaN or infinity; give finite numbers")
    return out


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (N, F) scaled to length 1; a vector of zeros stays."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scaled = vectors / np.where(largest > 0, largest, np.float32(1))  # squares of huge numbers overflow
    length = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    return np.asarray(scaled / np.where(length > 0, length, np.float32(1)), np.float32)
