"""The rule by which a `VectorIndex` turns float vectors into what it keeps and searches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.index.compiled import frozen
from sish.index.projection import rotation_signs
from sish.index.vector_coder import VectorCoder, VectorKind
from sish.index.vector_kernels import SKETCH, TERMS
from sish.index.vectors.queries import barcodes_of_units, weights_of_units
from sish.index.vectors.residual import ResidualCoder

RerankKind = VectorKind | Literal["int3", "int4", "int6"]
"""How vectors are stored for re-ranking: by `VectorCoder`, or by what a sketch leaves (`ResidualCoder`)."""
_RESIDUALS = {"int3": 3, "int4": 4, "int6": 6}
_SKETCHED = "sketch."
_STORED = "stored."
_SAMPLE = 65_536  # vectors that centre and axes are learnt from


@dataclass(frozen=True, slots=True, eq=False)
class VectorRule:
    """Barcodes, sketches and stored rows of vectors of length 1."""

    n_bits: int
    """Bits of a barcode."""
    centre: NDArray[np.float32]
    """Subtracted before a vector is projected to its barcode, (F,)."""
    sketch: VectorCoder
    """How the row is made by which the shortlist is found."""
    coder: VectorCoder | ResidualCoder | None
    """How the row is made by which the shortlist is ranked; None if barcodes alone rank."""
    _signs: NDArray[np.float32]
    _columns: tuple[NDArray[np.float32], NDArray[np.float32]]  # axes of sketch and coder as columns

    @classmethod
    def learn(
        cls, vectors: NDArray[np.float32], n_bits: int, rerank: RerankKind | None, dims: int
    ) -> "VectorRule":
        """Return the rule of vectors (N, F)."""
        rows = vectors
        if len(rows) > _SAMPLE:
            rows = rows[np.sort(np.random.default_rng(0).choice(len(rows), _SAMPLE, replace=False))]
        sketch = VectorCoder.learn(rows, "int8", SKETCH - TERMS)
        coder: VectorCoder | ResidualCoder | None
        if rerank in ("int8", "float16"):
            coder = VectorCoder.learn(rows, rerank, dims)
        else:
            coder = None if rerank is None else ResidualCoder.of(_RESIDUALS[rerank], sketch)
        return cls.of(n_bits, rows.mean(axis=0, dtype=np.float64).astype(np.float32), sketch, coder)

    @classmethod
    def of(
        cls,
        n_bits: int,
        centre: NDArray[np.float32],
        sketch: VectorCoder,
        coder: VectorCoder | ResidualCoder | None,
    ) -> "VectorRule":
        """Return the rule of what was learnt."""
        size = max(n_bits, 1 << (len(centre) - 1).bit_length())
        columns = tuple(
            frozen(np.ascontiguousarray(it.axes.T))
            for it in (sketch, coder if isinstance(coder, VectorCoder) else sketch)
        )
        signs = frozen(rotation_signs(size))
        return cls(n_bits, frozen(centre), sketch, coder, signs, (columns[0], columns[1]))

    def barcodes(self, units: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return barcodes uint8 (N, n_bits / 8) of unit vectors."""
        return barcodes_of_units(frozen(units), self.centre, self._signs, self.n_bits // 8)

    def sketches(self, units: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return sketches uint8 (N, 128) of unit vectors."""
        out = np.zeros((len(units), SKETCH), np.uint8)
        out[:, : self.sketch.width] = self.sketch.encode(units).view(np.uint8)
        return out

    def barcodes_of_sketches(self, sketches: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return barcodes uint8 (N, n_bits / 8) of what sketches (N, 128) mean."""
        return self.barcodes(self.sketch.decode(sketches[:, : self.sketch.width].view(np.int8)))

    def sketch_weights(self, units: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Return unit vectors as they are compared with sketches: int16 (Q, 128) and terms (Q, 2)."""
        weights, terms = self._weights(units, self.sketch, 0, TERMS)
        if weights.shape[1] < SKETCH:
            weights = np.pad(weights, ((0, 0), (0, SKETCH - weights.shape[1])))
        return frozen(weights), frozen(terms)

    @property
    def bits(self) -> int:
        """Bits of a number of a stored row."""
        if isinstance(self.coder, ResidualCoder):
            return self.coder.bits
        return 16 if self.coder is not None and self.coder.kind == "float16" else 8

    def weights(self, units: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Return unit vectors as they are compared with stored rows: weights (Q, D) and terms (Q, 2)."""
        if isinstance(self.coder, ResidualCoder):
            return self.coder.weights(units)
        if self.coder is None or self.coder.kind != "int8":
            return frozen(np.empty((0, 0), np.int16)), frozen(np.empty((0, 2), np.float32))
        weights, terms = self._weights(units, self.coder, 1, 0)
        return frozen(weights), frozen(terms)

    def _weights(
        self, units: NDArray[np.float32], coder: VectorCoder, number: int, skip: int
    ) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        return weights_of_units(frozen(units), coder.mean, self._columns[number], coder.spread, skip)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store."""
        arrays: dict[str, NDArray[Any]] = {"centre": self.centre, "n_bits": np.array([self.n_bits])}
        arrays |= {_SKETCHED + name: array for name, array in self.sketch.to_arrays().items()}
        if isinstance(self.coder, ResidualCoder):
            arrays["bits"] = np.array([self.coder.bits])
        elif self.coder is not None:
            arrays |= {_STORED + name: array for name, array in self.coder.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "VectorRule":
        """Return the rule that `to_arrays` returned; ParameterError or KeyError if the arrays are none."""
        sketch, stored = (
            {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            for prefix in (_SKETCHED, _STORED)
        )
        coders = VectorCoder.from_arrays(sketch), VectorCoder.from_arrays(stored) if stored else None
        residual = ResidualCoder.of(int(arrays["bits"][0]), coders[0]) if "bits" in arrays else None
        centre, n_bits = arrays["centre"], int(arrays["n_bits"][0])
        if centre.dtype != np.float32 or any(it and it.features != len(centre) for it in coders):
            raise ParameterError("the rules of vectors are not of one width; give what to_arrays() gave")
        if (
            coders[0].kind != "int8"
            or coders[0].width > SKETCH
            or n_bits % 64
            or not 64 <= n_bits <= MOST_BITS
        ):
            raise ParameterError("sketches or barcodes are of no possible width; give what to_arrays() gave")
        return cls.of(n_bits, centre, coders[0], residual or coders[1])


MOST_BITS = 8192
"""Bits of the longest barcode."""
