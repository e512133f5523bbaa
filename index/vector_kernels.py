"""Dot products of a query with stored vectors of int8 or float16: explicit vector instructions for numba.

As in `sish.index.hamming_kernels`, the kernels take addresses, which a mapped file and a row in the middle of
a segment have too. LLVM compiles the loop over int8 to the processor's multiply-and-add of pairs (VNNI,
AVX2), and the loop over float16 to its conversions.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from sish.index.compiled import compiled
from sish.index.hamming_kernels import prefetch

TERMS = 8
"""Bytes in front of the numbers of an int8 row: its step and its squared length, two float32."""

SKETCH = 128
"""Bytes of a sketch: two cache lines."""

_WIDE = 32  # numbers of a stored row that are multiplied at a time
_LINE = 64  # bytes of a cache line
_AHEAD = 12  # rows that are prefetched while one is compared
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F16, _F32 = ir.HalfType(), ir.FloatType()

# numba's helpers have no types of their own
_variable: Any = cgutils.alloca_once_value
_function: Any = cgutils.get_or_insert_function


def _load(b: Any, address: Any, place: Any, kind: Any, count: int, size: int) -> Any:
    """Load `count` numbers of `size` bytes, or one as a scalar, from any address."""
    wanted = ir.VectorType(kind, count) if count > 1 else kind
    at = b.add(address, b.mul(place, ir.Constant(_I64, size)))
    value = b.load(b.inttoptr(at, wanted.as_pointer()))
    value.align = 1
    return value


def _whole(b: Any, count: Any) -> tuple[Any, Any]:
    """Return 0 and the largest multiple of `_WIDE` up to a count, a range."""
    return ir.Constant(_I64, 0), b.and_(count, ir.Constant(_I64, -_WIDE))


def _pairs(b: Any, products: Any) -> Any:
    """Add neighbours of 32 numbers; LLVM knows this as one instruction with the product before it."""
    nothing = ir.Constant(ir.VectorType(_I32, _WIDE), ir.Undefined)
    half = ir.VectorType(_I32, _WIDE // 2)
    even, odd = (ir.Constant(half, list(range(first, _WIDE, 2))) for first in (0, 1))
    return b.add(b.shuffle_vector(products, nothing, even), b.shuffle_vector(products, nothing, odd))


def _dot_int8(typing: Any, row: Any, query: Any, count: Any) -> Any:
    """Return the dot product of `count` int8 and `count` int16 at two addresses, at most 8,192 numbers."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        row, query, count = args
        kind, half = ir.VectorType(_I32, _WIDE), ir.VectorType(_I32, _WIDE // 2)
        total = _variable(b, ir.Constant(half, [0] * (_WIDE // 2)))
        first, whole = _whole(b, count)
        with cgutils.for_range_slice(b, first, whole, ir.Constant(_I64, _WIDE), _I64) as (place, _):
            theirs = b.sext(_load(b, row, place, _I8, _WIDE, 1), kind)
            ours = b.sext(_load(b, query, place, _I16, _WIDE, 2), kind)
            b.store(b.add(b.load(total), _pairs(b, b.mul(theirs, ours))), total)
        add = _function(b.module, ir.FunctionType(_I32, [half]), "llvm.vector.reduce.add.v16i32")
        dot = _variable(b, b.sext(b.call(add, [b.load(total)]), _I64))
        with cgutils.for_range_slice(b, whole, count, ir.Constant(_I64, 1), _I64) as (place, _):
            theirs = b.sext(_load(b, row, place, _I8, 1, 1), _I64)
            ours = b.sext(_load(b, query, place, _I16, 1, 2), _I64)
            b.store(b.add(b.load(dot), b.mul(theirs, ours)), dot)
        return b.load(dot)

    return types.int64(*[types.int64] * 3), generate


dot_int8: Any = intrinsic(_dot_int8)


def _dot_plane(typing: Any, row: Any, query: Any, count: Any, bits: Any) -> Any:
    """Return the dot product of `count` numbers of 1, 2 or 4 bits and int16; count is a multiple of 512."""
    size = bits.literal_value
    kind, half = ir.VectorType(_I32, _WIDE), ir.VectorType(_I32, _WIDE // 2)
    words = ir.VectorType(_I16, _WIDE)

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        row, query, count, _ = args
        total = _variable(b, ir.Constant(half, [0] * (_WIDE // 2)))
        together = ir.Constant(_I64, _WIDE * 16 // size)
        with cgutils.for_range_slice(b, ir.Constant(_I64, 0), count, together, _I64) as (first, _):
            at = b.lshr(b.mul(first, ir.Constant(_I64, size)), ir.Constant(_I64, 4))
            packed, sums = _load(b, row, at, _I16, _WIDE, 2), b.load(total)
            for number in range(16 // size):
                shifted = b.lshr(packed, ir.Constant(words, [size * number] * _WIDE))
                theirs = b.zext(b.and_(shifted, ir.Constant(words, [2**size - 1] * _WIDE)), kind)
                place = b.add(first, ir.Constant(_I64, _WIDE * number))
                ours = b.sext(_load(b, query, place, _I16, _WIDE, 2), kind)
                sums = b.add(sums, _pairs(b, b.mul(theirs, ours)))
            b.store(sums, total)
        add = _function(b.module, ir.FunctionType(_I32, [half]), "llvm.vector.reduce.add.v16i32")
        return b.sext(b.call(add, [b.load(total)]), _I64)

    return types.int64(*[types.int64] * 3, bits), generate


_plane: Any = intrinsic(prefer_literal=True)(_dot_plane)


@compiled
def dot_bits(row: int, query: int, count: int, bits: int) -> int:
    """Return the dot product of packed numbers (`packed_codes`) and int16, at two addresses."""
    total = 0
    if bits & 4:
        total = _plane(row, query, count, 4)
        row += count // 2
    if bits & 2:
        total = 4 * total + _plane(row, query, count, 2)
        row += count // 4
    if bits & 1:
        total = 2 * total + _plane(row, query, count, 1)
    return total


def _dot_float16(typing: Any, row: Any, query: Any, count: Any) -> Any:
    """Return the dot product, float32, of `count` float16 and `count` float32 at two addresses."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        row, query, count = args
        kind = ir.VectorType(_F32, _WIDE)
        total = _variable(b, ir.Constant(kind, [0.0] * _WIDE))
        first, whole = _whole(b, count)
        with cgutils.for_range_slice(b, first, whole, ir.Constant(_I64, _WIDE), _I64) as (place, _):
            theirs = b.fpext(_load(b, row, place, _F16, _WIDE, 2), kind)
            ours = _load(b, query, place, _F32, _WIDE, 4)
            b.store(
                b.fadd(b.load(total), b.fmul(theirs, ours, flags=["contract"]), flags=["contract"]), total
            )
        dot = _variable(b, _sum(b, b.load(total)))
        with cgutils.for_range_slice(b, whole, count, ir.Constant(_I64, 1), _I64) as (place, _):
            theirs = b.fpext(_load(b, row, place, _F16, 1, 2), _F32)
            b.store(b.fadd(b.load(dot), b.fmul(theirs, _load(b, query, place, _F32, 1, 4))), dot)
        return b.load(dot)

    return types.float32(*[types.int64] * 3), generate


dot_float16: Any = intrinsic(_dot_float16)


def _sum(b: Any, values: Any) -> Any:
    """Add the numbers of a float32 vector, half to half, in a fixed order."""
    count = values.type.count
    while count > 1:
        count //= 2
        kind = ir.VectorType(_I32, count)
        low, high = (ir.Constant(kind, list(range(first, first + count))) for first in (0, count))
        values = b.fadd(b.shuffle_vector(values, values, low), b.shuffle_vector(values, values, high))
    return b.extract_element(values, ir.Constant(_I32, 0))


def _load_float32(typing: Any, address: Any) -> Any:
    """Load the float32 at any address."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _load(b, args[0], ir.Constant(_I64, 0), _F32, 1, 4)

    return types.float32(types.int64), generate


load_float32: Any = intrinsic(_load_float32)


@compiled
def prefetch_row(address: int, row_bytes: int) -> None:
    """Prefetch all cache lines of a row."""
    for line in range(address & -_LINE, address + row_bytes, _LINE):
        prefetch(line)


@compiled
def row_addresses(spots: NDArray[np.int64], patch: NDArray[np.int64], row_bytes: int) -> NDArray[np.int64]:
    """Return the addresses of rows, (R,), whose numbers count through arrays.

    `spots`, int64 (arrays + 1, 2), has the address and the first number of each array; then the end.

    Returns
    -------
    int64 (R,)
        Addresses.

    Raises
    ------
    IndexError
        If a number is none of a row.
    """
    out, array, last = np.empty(patch.size, np.int64), 0, spots.shape[0] - 2
    for number in range(patch.size):  # most are of the array of the one before
        while array > 0 and patch[number] < spots[array, 1]:
            array -= 1
        while array < last and patch[number] >= spots[array + 1, 1]:
            array += 1
        row = patch[number] - spots[array, 1]
        if not 0 <= row < spots[array + 1, 1] - spots[array, 1]:
            raise IndexError("there is no row of this number")
        out[number] = spots[array, 0] + row_bytes * row
    return out


@compiled
def int8_distances(
    weights: NDArray[np.int16], terms: NDArray[np.float32], offset: NDArray[np.int64],
    rows: NDArray[np.int64], out: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill `out` with half the squared distances of rows, at addresses, to the queries of their bags.

    `weights` (Q, D) are the queries' and `terms` (Q, 2) the step of these, and half the squared length.
    """
    width = weights.shape[1]
    for number in range(min(_AHEAD, rows.size)):
        prefetch_row(rows[number], TERMS + width)
    for query in range(weights.shape[0]):
        ours, step, half = weights.ctypes.data + 2 * width * query, terms[query, 0], terms[query, 1]
        for number in range(offset[query], offset[query + 1]):
            if number + _AHEAD < rows.size:
                prefetch_row(rows[number + _AHEAD], TERMS + width)
            row = rows[number]
            dot = np.float32(dot_int8(row + TERMS, ours, width))
            apart = half + load_float32(row + 4) - step * load_float32(row) * dot
            out[number] = max(apart, np.float32(0))


@compiled
def float16_distances(
    queries: NDArray[np.float32], offset: NDArray[np.int64], rows: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill `out` with 1 - the dot products of rows of float16, at addresses, with their bags' queries."""
    width = queries.shape[1]
    for number in range(min(_AHEAD, rows.size)):
        prefetch_row(rows[number], 2 * width)
    for query in range(queries.shape[0]):
        ours = queries.ctypes.data + 4 * width * query
        for number in range(offset[query], offset[query + 1]):
            if number + _AHEAD < rows.size:
                prefetch_row(rows[number + _AHEAD], 2 * width)
            apart = np.float32(1) - dot_float16(rows[number], ours, width)
            out[number] = max(apart, np.float32(0))
