"""Ranking again by stored vectors: the nearest patches of a bag by cosine in place of Hamming distance.

A barcode tells the angle between two features to within some degrees: each of its 1,024 bits is a coin that
falls on one side with the angle's share of a half turn. An index may keep the features as well
(``rerank="int8"``, a byte a number, or ``"float16"``): centred and scaled as the barcodes see them
(:func:`sish.index.projection.calibrated`), by :class:`sish.index.vector_coder.VectorCoder`. A search then
asks for barcodes as before. The nearest 128 results of each query patch get the distance that a barcode
without chance would have: its number of bits times the angle over half a turn. So thresholds and rankings
mean what they did.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from reprlib import repr as short
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.index.bags import Bags
from sish.index.vector_coder import VectorCoder, VectorKind
from sish.recipe import odd_header

RERANKED = 128
"""Results of a query patch, the nearest by barcode, whose distances are those of the stored vectors."""

CHANCE = 64
"""Bits by which a barcode may overstate a distance: four standard deviations of 1,024 coins."""

KINDS = ("int8", "float16")

VectorsOf = Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], Sequence[NDArray[np.uint8]]]]
"""Returns numbers (N,) of patches (N,) in arrays of stored vectors, counted through all, and these (P, V)."""

RerankName: TypeAlias = 'VectorKind | Literal["auto"] | None'
"""How an index is asked to keep vectors."""


@dataclass(frozen=True, slots=True, eq=False)
class Rerank:
    """How an index keeps vectors beside its barcodes."""

    coder: VectorCoder
    """The rule that makes bytes of vectors."""

    @classmethod
    def of(cls, kind: str, n_features: int) -> Rerank:
        """Return the rule before features were measured; ParameterError if there is no such kind."""
        if kind not in KINDS:
            raise ParameterError(f"got rerank={kind!r}; want 'int8', 'float16' or None")
        nothing = np.zeros(n_features, np.float32)
        return cls(_coder(nothing, None if kind == "float16" else nothing + 1))

    def measured_on(self, vectors: NDArray[np.float32]) -> Rerank:
        """Return the rule for vectors like these, float32 (M, F)."""
        return replace(self, coder=VectorCoder.learn(vectors, self.coder.kind, dims=vectors.shape[1]))

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return vectors float32 (N, F) as bytes (N, V)."""
        return self.coder.encode(vectors).view(np.uint8)

    def decode(self, stored: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the vectors float32 (N, F) of bytes (N, V)."""
        return self.coder.decode(np.ascontiguousarray(stored).view(self.coder.dtype))

    def bags(
        self,
        bags: Bags,
        asked: NDArray[np.uint8],
        vectors_of: VectorsOf,
        *,
        n_bits: int,
        threshold: int,
    ) -> Bags:
        """Return bags in which the nearest results have the distances of their vectors, in order of these.

        Parameters
        ----------
        bags : Bags
            Results by barcode.
        asked : uint8 (Q, V)
            Stored vectors of the query patches.
        vectors_of : callable
            It returns numbers (N,) of patches (N,) in a list of arrays of stored vectors, and that list.
        n_bits : int
            Bits of a barcode.
        threshold : int
            Largest distance of a result.

        Returns
        -------
        Bags
            The same results, without those beyond the threshold.
        """
        coder = self.coder
        place = np.arange(len(bags.patch)) - np.repeat(bags.offset[:-1], bags.lengths())
        near = place < RERANKED
        offset = np.concatenate([[0], np.cumsum(near)])[bags.offset]
        numbers, stored = vectors_of(bags.patch[near])
        views = [rows.view(coder.dtype) for rows in stored if len(rows)]
        apart = coder.bag_distances(self.decode(asked), offset, numbers, views)
        hamming = bags.hamming.copy()
        hamming[near] = _in_bits(apart, hamming[near], n_bits)
        kept = np.flatnonzero(hamming <= threshold)
        query_patch = np.repeat(np.arange(len(bags)), bags.lengths())[kept]
        order = np.argsort(query_patch * (n_bits + 1) + hamming[kept], kind="stable")
        offset = np.searchsorted(query_patch, np.arange(len(bags) + 1))
        return Bags(offset, bags.patch[kept[order]], hamming[kept[order]])

    def distances(
        self,
        asked: NDArray[np.uint8],
        stored: NDArray[np.uint8],
        hamming: NDArray[np.int32],
        *,
        n_bits: int,
    ) -> NDArray[np.int32]:
        """Return the distances that `bags` gives to results, of every stored vector.

        Parameters
        ----------
        asked : uint8 (Q, V)
            Stored vectors of the query patches.
        stored : uint8 (P, V)
            Stored vectors of other patches.
        hamming : int32 (Q, P)
            Distances of their barcodes.
        n_bits : int
            Bits of a barcode.

        Returns
        -------
        int32 (Q, P)
            Distances in bits.
        """
        coder, (rows, columns) = self.coder, hamming.shape
        offset, patch = np.arange(rows + 1) * columns, np.tile(np.arange(columns), rows)
        rows_of = np.ascontiguousarray(stored).view(coder.dtype)
        apart = coder.bag_distances(self.decode(asked), offset, patch, [rows_of] if columns else [])
        return _in_bits(apart, hamming.ravel(), n_bits).reshape(hamming.shape)

    def to_json(self) -> dict[str, str]:
        """Return plain values for JSON: the arrays of the rule, float32, as base64."""
        arrays = {name: array for name, array in self.coder.to_arrays().items() if array.size}
        return {
            name: base64.b64encode(array.astype("<f4").tobytes()).decode() for name, array in arrays.items()
        }

    @classmethod
    def from_json(cls, stored: object) -> Rerank:
        """Return what `to_json` gave.

        Parameters
        ----------
        stored : object
            A value of a JSON file.

        Returns
        -------
        Rerank
            The rule.

        Raises
        ------
        IndexFormatError
            If it is anything else.
        """  # noqa: DOC501  odd_header() makes that error
        try:
            if not isinstance(stored, Mapping):
                raise TypeError("wanted an object")
            arrays = {
                str(name): np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
                for name, text in stored.items()
            }
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError("wanted finite numbers")
            return cls(_coder(arrays["mean"], arrays.get("spread")))
        except (KeyError, TypeError, ValueError, ParameterError) as error:
            raise odd_header(f"its rerank is {short(stored)} ({error})") from error


def _in_bits(apart: NDArray[np.float32], hamming: NDArray[np.int32], n_bits: int) -> NDArray[np.int32]:
    """Return cosine distances in bits; patches of one barcode are 0 bits apart."""
    angle = np.rint(np.arccos(np.clip(1 - apart, -1, 1)) * (n_bits / np.pi))
    return np.where(hamming == 0, 0, angle).astype(np.int32)  # rounding would part equal patches


def _coder(mean: NDArray[np.float32], spread: NDArray[np.float32] | None) -> VectorCoder:
    """Return the rule that keeps all numbers of a vector: a byte each if a spread is given, else two."""
    if spread is None:
        return VectorCoder.from_arrays({"mean": mean})
    axes = np.empty((0, len(mean)), np.float32)
    return VectorCoder.from_arrays({"mean": mean, "axes": axes, "spread": spread})


def kind_of(rerank: RerankName, is_slide_level: bool) -> VectorKind | None:
    """Return how vectors are kept: of slides with a vector each, whole, unless something else is wanted."""
    if rerank != "auto":
        return rerank
    return "float16" if is_slide_level else None
