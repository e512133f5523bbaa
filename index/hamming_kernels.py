"""Hamming distances eight at a time: explicit vector instructions for numba.

numba counts the bits of one word at a time. Processors with AVX-512 count those of eight words at once, and
LLVM compiles the same vector code well for others. So the kernels here are written in LLVM's vectors of eight
64-bit words. They take *addresses* (``array.ctypes.data``), which a mapped file, a row in the middle of a
segment and a table of centroids all have. The caller keeps the arrays alive and gives the
number of words of a barcode.

Centroids, which every query is compared with, are kept in *blocks* of eight: word w of all eight side by side
(`as_blocks`). Rows of an archive stay as they are stored, row after row.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from sish.index.compiled import compiled

LANES = 8
"""Words in a vector, centroids in a block, and rows that are compared at a time."""

TOGETHER, FIELD_BITS = 4, 16
"""Rows that `four_distances` compares at a time, and the bits that hold the distance of each."""

_LINE = 64  # bytes of a cache line
_USUAL_WORDS = 16  # 1,024 bits
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_I64, LANES)
_HALF = ir.VectorType(_I32, LANES)
_ZERO = ir.Constant(_VECTOR, [0] * LANES)
_NONE = ir.Constant(_VECTOR, ir.Undefined)


# numba's helpers have no types of their own
_variable: Any = cgutils.alloca_once_value
_function: Any = cgutils.get_or_insert_function


def _vector(b: Any, address: Any) -> Any:
    """Load eight words from any address."""
    value = b.load(b.bitcast(address, _VECTOR.as_pointer()))
    value.align = 1
    return value


def _word(b: Any, address: Any) -> Any:
    """Load one word from any address."""
    value = b.load(address)
    value.align = 1
    return value


def _spread(b: Any, word: Any) -> Any:
    """Return a vector with one word in all eight places."""
    first = b.insert_element(_NONE, word, ir.Constant(_I32, 0))
    return b.shuffle_vector(first, _NONE, ir.Constant(_HALF, [0] * LANES))


def _bits(b: Any, value: Any) -> Any:
    """Count the set bits of each of eight words."""
    count = _function(b.module, ir.FunctionType(_VECTOR, [_VECTOR]), "llvm.ctpop.v8i64")
    return b.call(count, [value])


def _pointer(b: Any, address: Any, offset: Any) -> Any:
    """Return a pointer to word `offset` behind an address."""
    return b.gep(b.inttoptr(address, _I64.as_pointer()), [offset])


def _block(b: Any, block: Any, query: Any, words: Any) -> Any:
    """Return the distances of one query to the eight centroids of a block, a vector."""
    total = _variable(b, _ZERO)
    with cgutils.for_range(b, words) as loop:
        theirs = _vector(b, _pointer(b, block, b.mul(loop.index, ir.Constant(_I64, LANES))))
        ours = _word(b, _pointer(b, query, loop.index))
        b.store(b.add(b.load(total), _bits(b, b.xor(theirs, _spread(b, ours)))), total)
    return b.load(total)


def _next_block(b: Any, blocks: Any, number: Any, words: Any) -> Any:
    """Return the address of a block."""
    size = b.mul(words, ir.Constant(_I64, 8 * LANES))
    return b.add(blocks, b.mul(number, size))


def _block_distances(typing: Any, blocks: Any, n_blocks: Any, words: Any, query: Any, out: Any) -> Any:
    """Write int32 distances of a query to all centroids of `n_blocks` blocks at the address `out`."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        blocks, n_blocks, words, query, out = args
        with cgutils.for_range(b, n_blocks) as loop:
            bits = _block(b, _next_block(b, blocks, loop.index, words), query, words)
            place = b.add(out, b.mul(loop.index, ir.Constant(_I64, 4 * LANES)))
            stored = b.store(b.trunc(bits, _HALF), b.inttoptr(place, _HALF.as_pointer()))
            stored.align = 4
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


block_distances: Any = intrinsic(_block_distances)


def _nearest_block(typing: Any, blocks: Any, n_blocks: Any, words: Any, query: Any) -> Any:
    """Return distance x 2**32 + number of the centroid nearest to a query, the first of equally near ones."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        blocks, n_blocks, words, query = args
        best = _variable(b, ir.Constant(_VECTOR, [2**62] * LANES))
        lanes, shift = ir.Constant(_VECTOR, list(range(LANES))), ir.Constant(_VECTOR, [32] * LANES)
        with cgutils.for_range(b, n_blocks) as loop:
            bits = _block(b, _next_block(b, blocks, loop.index, words), query, words)
            first = _spread(b, b.mul(loop.index, ir.Constant(_I64, LANES)))
            found = b.or_(b.shl(bits, shift), b.add(first, lanes))
            old = b.load(best)
            b.store(b.select(b.icmp_signed("<", found, old), found, old), best)
        least = _function(b.module, ir.FunctionType(_I64, [_VECTOR]), "llvm.vector.reduce.smin.v8i64")
        return b.call(least, [b.load(best)])

    return types.int64(*[types.int64] * 4), generate


nearest_block: Any = intrinsic(_nearest_block)


def _row(b: Any, row: Any, query: Any, words: Any) -> Any:
    """Count differing bits of a row and a query in eight columns, of words that fill whole vectors."""
    total = _variable(b, _ZERO)
    whole = b.and_(words, ir.Constant(_I64, -LANES))
    with cgutils.for_range_slice(b, ir.Constant(_I64, 0), whole, ir.Constant(_I64, LANES), _I64) as (word, _):
        differ = b.xor(_vector(b, _pointer(b, row, word)), _vector(b, _pointer(b, query, word)))
        b.store(b.add(b.load(total), _bits(b, differ)), total)
    return b.load(total)


_FOLDS = (
    ((0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)),
    ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
    ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
)
"""Lanes of two vectors to add to each other; three rounds turn eight vectors into one of their sums."""


def _sums(b: Any, vectors: list[Any]) -> Any:
    """Sum each of eight vectors into one vector, with 14 shuffles instead of 8 x 3."""
    for picks in _FOLDS:
        even, odd = (ir.Constant(_HALF, list(pick)) for pick in picks)
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [b.add(b.shuffle_vector(v, w, even), b.shuffle_vector(v, w, odd)) for v, w in pairs]
    return vectors[0]


def _eight(b: Any, rows: Any, words: Any, query: Any) -> Any:
    """Return the distances of a query to eight adjacent rows, a vector."""
    starts = [b.add(rows, b.mul(words, ir.Constant(_I64, 8 * lane))) for lane in range(LANES)]
    total = _variable(b, _sums(b, [_row(b, row, query, words) for row in starts]))
    whole = b.and_(words, ir.Constant(_I64, -LANES))
    with cgutils.for_range_slice(b, whole, words, ir.Constant(_I64, 1), _I64) as (word, _):
        column = _NONE
        for lane, row in enumerate(starts):
            column = b.insert_element(column, _word(b, _pointer(b, row, word)), ir.Constant(_I32, lane))
        differ = b.xor(column, _spread(b, _word(b, _pointer(b, query, word))))
        b.store(b.add(b.load(total), _bits(b, differ)), total)
    return b.load(total)


def _eight_rows(typing: Any, rows: Any, words: Any, query: Any, out: Any, most: Any) -> Any:
    """Write int32 distances to eight adjacent rows at `out`; return a bit for each that is <= `most`."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        rows, words, query, out, most = args
        bits = _variable(b, _ZERO)
        usual = ir.Constant(_I64, _USUAL_WORDS)
        with b.if_else(b.icmp_signed("==", words, usual)) as (then, otherwise):
            with then:  # the same code with a constant, which LLVM unrolls
                b.store(_eight(b, rows, usual, query), bits)
            with otherwise:
                b.store(_eight(b, rows, words, query), bits)
        stored = b.store(b.trunc(b.load(bits), _HALF), b.inttoptr(out, _HALF.as_pointer()))
        stored.align = 4
        near = b.bitcast(b.icmp_signed("<=", b.load(bits), _spread(b, most)), _I8)
        return b.zext(near, _I64)

    return types.int64(*[types.int64] * 5), generate


eight_rows: Any = intrinsic(_eight_rows)


def _four_distances(typing: Any, row: Any, row_bytes: Any, query: Any) -> Any:
    """Return the distances of a cache line of four rows to the query's, 16 bits each, the first lowest."""
    # summing a vector's words costs more than counting their bits, so the sum is taken once for all four rows

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        address, row_bytes, query = args
        zero, packed = ir.Constant(_I64, 0), _ZERO
        ours = _vector(b, _pointer(b, query, zero))
        for number in range(TOGETHER):
            counts = _bits(b, b.xor(_vector(b, _pointer(b, address, zero)), ours))
            shift = ir.Constant(_VECTOR, [FIELD_BITS * number] * LANES)
            packed = b.add(packed, b.shl(counts, shift))
            address = b.add(address, row_bytes)
        add = _function(b.module, ir.FunctionType(_I64, [_VECTOR]), "llvm.vector.reduce.add.v8i64")
        return b.call(add, [packed])

    return types.int64(*[types.int64] * 3), generate


four_distances: Any = intrinsic(_four_distances)


def _eight_within(typing: Any, numbers: Any, most: Any) -> Any:
    """Return a bit for each of the eight int32 at an address that is <= `most`."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        value = b.load(b.inttoptr(args[0], _HALF.as_pointer()))
        value.align = 4
        near = b.icmp_signed("<=", b.sext(value, _VECTOR), _spread(b, args[1]))
        return b.zext(b.bitcast(near, _I8), _I64)

    return types.int64(types.int64, types.int64), generate


eight_within: Any = intrinsic(_eight_within)


def _lowest(typing: Any, bits: Any) -> Any:
    """Return the place of the lowest set bit of a number that is not 0."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


lowest: Any = intrinsic(_lowest)


def _prefetch(typing: Any, address: Any) -> Any:
    """Prefetch the cache line at an address, which need not be valid."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        ask = _function(b.module, kind, "llvm.prefetch.p0")
        read, keep, data = (ir.Constant(_I32, value) for value in (0, 3, 1))
        b.call(ask, [b.inttoptr(args[0], _I8.as_pointer()), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), generate


prefetch: Any = intrinsic(_prefetch)


def _loader(kind: ir.Type) -> Any:
    """Return an intrinsic that loads a number of a kind as int64."""

    def load(typing: Any, address: Any, number: Any) -> Any:
        def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
            value = _word(b, b.gep(b.inttoptr(args[0], kind.as_pointer()), [args[1]]))
            return value if kind is _I64 else b.sext(value, _I64)

        return types.int64(types.int64, types.int64), generate

    return intrinsic(load)


load_int32 = _loader(_I32)
"""load_int32(address, number) returns the int32 that is `number` places behind an address."""
load_int64 = _loader(_I64)
"""load_int64(address, number) does the same for 64-bit words."""


@compiled
def as_blocks(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return barcodes uint64 (N, W) in blocks of eight.

    The rest of the last block is filled with copies of the first barcode. In a tie the first barcode itself
    wins, because its number is smaller.

    Returns
    -------
    uint64 (ceil(N / 8), W, 8)
        Word w of eight barcodes side by side.
    """
    count, width = words.shape
    out = np.empty(((count + LANES - 1) // LANES, width, LANES), np.uint64)
    for place in range(out.shape[0] * LANES):
        number = place if place < count else 0
        for word in range(width):
            out[place // LANES, word, place % LANES] = words[number, word]
    return out


def aligned(array: NDArray[Any], rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
    """Return a copy of an array or of some rows that begins at a cache line, so no vector crosses lines."""
    count = len(array) if rows is None else len(rows)
    size = count * array[:1].nbytes
    raw = np.empty(size + _LINE, np.uint8)
    skip = -raw.ctypes.data % _LINE
    out = raw[skip : skip + size].view(array.dtype).reshape(count, *array.shape[1:])
    if rows is None:
        out[...] = array
    else:
        np.take(array, rows, axis=0, out=out, mode="clip")
    return out
