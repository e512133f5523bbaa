"""Rows of 3, 4 or 6 bits a number for what a sketch leaves of a vector.

A *sketch* is a row of `VectorCoder`: int8 coordinates along the 120 axes of largest variance. What lies off
these axes, r, is rotated at random, which makes its W numbers about normal, whatever the features are, and
each is rounded to one of 2^b levels c (Max 1960 gives the best step between levels). The dot product with
what lies off the axes of a query, s, is estimated without bias as in RaBitQ (Gao and Long 2024):

    s . r  =  |r|^2 / (c . r)  (c . s)  about,

so a row is this factor, one float32, and W b bits. A cosine distance is that of the sketch less this product:
the row does not repeat what the sketch keeps. Of 100,000 vectors of a mixture with the spectrum of foundation
features, 1,024 numbers each, 3 bits (516 bytes with the sketch) kept 0.959 of the ten nearest and 4 bits
0.978, where 248 axes of int8 alone kept 0.805 in 256 bytes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.index.compiled import frozen
from sish.index.projection import rotation_signs
from sish.index.vector_coder import VectorCoder
from sish.index.vectors.queries import rotated, weights_of_rests

FACTOR = 4
"""Bytes in front of the numbers of a row: its factor, a float32."""
STEPS = {3: 0.5860, 4: 0.3352, 6: 0.1041}
"""Distance of the levels for each number of bits, in standard deviations (Max 1960, table 2)."""
_BLOCK = 512  # numbers that are packed together


@dataclass(frozen=True, slots=True, eq=False)
class ResidualCoder:
    """A rule by which is stored what a sketch leaves."""

    bits: int
    """Bits of a number: 3, 4 or 6."""
    sketch: VectorCoder
    """How sketches are made."""
    signs: NDArray[np.float32]
    """Of the rotation, (rounds, W); W is 0 if the sketch has the features themselves."""

    @classmethod
    def of(cls, bits: int, sketch: VectorCoder) -> "ResidualCoder":
        """Return the rule for what some sketches leave."""
        if bits not in STEPS:
            raise ParameterError(f"{bits} bits a number; give one of {', '.join(map(str, STEPS))}")
        width = -(-sketch.features // _BLOCK) * _BLOCK if len(sketch.axes) else 0
        return cls(bits, sketch, frozen(rotation_signs(width)))

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return FACTOR + int(self.signs.shape[1]) * self.bits // 8

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a row's numbers."""
        return np.dtype(np.int8)

    def encode(self, units: NDArray[np.float32]) -> NDArray[np.int8]:
        """Return rows int8 (N, width) of unit vectors (N, F)."""
        rests = self._rests(units)
        middle = np.float32(2 ** (self.bits - 1))
        square = np.einsum("nw,nw->n", rests, rests)
        step = np.float32(STEPS[self.bits]) * np.sqrt(square / np.float32(max(1, rests.shape[1])))[:, None]
        step[step == 0] = 1
        codes = np.clip(np.floor(rests / step) + middle, 0, 2 * middle - 1).astype(np.uint8)
        along = np.einsum("nw,nw->n", codes - (middle - np.float32(0.5)), rests)
        out = np.empty((len(units), self.width), np.int8)
        out[:, FACTOR:] = packed_codes(codes, self.bits).view(np.int8)
        factor = np.divide(square, along, out=np.zeros_like(square), where=along > 0)
        out[:, :FACTOR] = factor.astype("<f4")[:, None].view(np.int8)
        return out

    def _rests(self, units: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what lies off the axes, rotated, float32 (N, W)."""
        if not self.signs.size:
            return np.empty((len(units), 0), np.float32)
        centred, axes = units - self.sketch.mean, self.sketch.axes
        return rotated(frozen(centred - (centred @ axes.T) @ axes), self.signs)

    def weights(self, units: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Return unit vectors as rows are compared with: weights (Q, W), and terms (Q, 2)."""
        middle = 2.0 ** (self.bits - 1) - 0.5
        return weights_of_rests(self._rests(units), middle)


def packed_codes(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return numbers below 2^bits, (N, W), as `sish.index.vector_kernels.dot_bits` reads them.

    The binary digits of `bits` are the widths of planes: 6 bits are a plane of the upper 4 and one of the
    lower 2. In a plane, a word of 16 bits holds 16 / width numbers, which lie 32 apart.

    Returns
    -------
    uint8 (N, W * bits / 8)
        Packed numbers.
    """
    planes, left = [], bits
    for size in (4, 2, 1):
        if not bits & size:
            continue
        left -= size
        part = ((codes >> left) & (2**size - 1)).astype("<u2").reshape(len(codes), -1, 16 // size, 32)
        words = np.zeros((len(codes), part.shape[1], 32), "<u2")
        for number in range(16 // size):
            words |= part[:, :, number] << np.uint16(number * size)
        planes.append(words.reshape(len(codes), -1).view(np.uint8))
    return np.concatenate(planes, axis=1)
