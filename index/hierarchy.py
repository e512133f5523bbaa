"""Keys that carry texture: a tree of typical barcodes, learnt once from a sample of the archive's own.

The published key is an average of codes, one number: patches of one average share a key whatever their
texture, true neighbours are scattered over all keys, and a fixed budget of keys finds ever fewer of them as
the archive grows. Here a key is a *path*. The tree has a few hundred nodes, each a typical barcode, and under
each node as many leaves; a patch's key is the number of its nearest leaf,

    key = node x (leaves a node) + leaf,

so what shares a node is a range of keys, what shares a leaf is one key, and an archive sorted by key holds
near textures side by side (`sish.index.cells` walks it). Nodes, and the leaves of each node, are numbered
along a short path through them, so that near leaves have near keys.

Typical barcodes are *majorities*: k-means in Hamming space, where the centre of a cluster has each bit as
most of its members have it (Gionis et al. 1999 rank in that space; the vocabulary tree is Nister and
Stewenius 2006). So the tree is learnt in the space that ranks, sees no label, and is the same for the
same sample and seed. A key is a function of one barcode and the tree: adding and removing patches changes no
other key. As the archive grows many times over, learn it anew from a new sample: about a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.barcode import as_barcodes, compiled, distance, popcount
from sish.index.hamming_kernels import (
    LANES,
    aligned,
    as_blocks,
    block_distances,
    eight_within,
    load_int32,
    lowest,
    nearest_block,
)

__all__ = ["TextureTree", "sample_size"]

_PATCHES_A_LEAF = 30  # of the archive, about: so many rows are read as fast as they are found
_FEWEST_LEAVES = 16  # of a tree
_MOST_LEAVES_A_NODE = 128  # opening a node costs comparing with all of them; nodes lie in the cache
MOST_KEYS = 131_072
"""Leaves of the widest tree, 1,024 nodes of 128: archives beyond four million patches have fuller leaves."""
_SMALLEST_SAMPLE = 100_000
_SAMPLE_A_LEAF = 8
_SAMPLE_A_NODE = 256  # of the sample: a node is fewer numbers to learn than its leaves
_PASSES = 6  # of k-means: later ones change little
_FAR = 2**30


@dataclass(frozen=True, slots=True)
class TextureTree:
    """Two levels of typical barcodes. Made by `learn`, or by `from_arrays` of what `to_arrays` gave."""

    nodes: NDArray[np.uint8]
    """uint8 (K, B): the typical barcode of each node."""
    leaves: NDArray[np.uint8]
    """uint8 (K, L, B): those of each node's leaves."""
    node_blocks: NDArray[np.uint64]
    """The nodes as the kernels read them (`as_blocks`)."""
    leaf_blocks: NDArray[np.uint64]
    """The leaves as the kernels read them: (K, ceil(L / 8), B / 8, 8)."""

    @classmethod
    def learn(
        cls,
        barcodes: ArrayLike,
        *,
        seed: int = 0,
        patches: int | None = None,
        branching: tuple[int, int] | None = None,
    ) -> "TextureTree":
        """The tree of a sample uint8 (M, B), M >= 1, B a multiple of 8.

        `patches` is the number of patches in the archive, where the sample is a part of it: the tree has as
        many leaves as leave some thirty patches for each, a power of two from 16 to 131,072; as many nodes
        as leaves under each, and beyond 128 x 128 more nodes (`branching`: both numbers). No more than
        `sample_size` patches are learnt from, drawn at random where there are more.

        >>> tree = TextureTree.learn(np.repeat(np.uint8([[0], [255]]), 8, axis=1), branching=(2, 1))
        >>> tree.keys(np.uint8([[0] * 8, [255] * 8, [254] * 8])).tolist()
        [0, 1, 1]
        """
        rows = as_barcodes(barcodes)
        if not len(rows) or rows.shape[1] % 8:
            raise ParameterError(f"barcodes are {rows.shape}; give (M, B) with M >= 1 and B a multiple of 8")
        rng = np.random.default_rng(seed)
        total = len(rows) if patches is None else patches
        if len(rows) > (enough := sample_size(total)):
            rows = rows[np.sort(rng.choice(len(rows), enough, replace=False))]
        n_nodes, n_leaves = _branching(total) if branching is None else branching
        if min(n_nodes, n_leaves) < 1:
            raise ParameterError(f"branching is {branching}; give two positive numbers")
        words = np.ascontiguousarray(rows).view(np.uint64)
        few = words[np.sort(rng.permutation(len(words))[: _SAMPLE_A_NODE * n_nodes])]
        nodes, node = _cluster(few, n_nodes, rng)[0], np.empty(len(words), np.int64)
        _nearest(words, as_blocks(nodes), node)
        leaves = np.empty((n_nodes, n_leaves, words.shape[1]), np.uint64)
        members = np.split(np.argsort(node, kind="stable"), np.cumsum(np.bincount(node, minlength=n_nodes)))
        for number in range(n_nodes):
            own = words[members[number]] if len(members[number]) else nodes[number : number + 1]
            leaves[number] = _cluster(own, n_leaves, rng)[0]
        return cls._of(nodes, leaves)

    @classmethod
    def _of(cls, nodes: NDArray[np.uint64], leaves: NDArray[np.uint64]) -> "TextureTree":
        blocks = np.stack([as_blocks(one) for one in leaves])
        return cls(nodes.view(np.uint8), leaves.view(np.uint8), aligned(as_blocks(nodes)), aligned(blocks))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "TextureTree":
        """The inverse of `to_arrays`; ParameterError where the arrays are none of a tree."""
        missing = {"nodes", "leaves"} - set(arrays)
        if missing:
            raise ParameterError(f"the tree lacks {sorted(missing)}; give what to_arrays() gave")
        nodes, leaves = arrays["nodes"], arrays["leaves"]
        if (
            any(array.dtype != np.uint8 or not array.size for array in (nodes, leaves))
            or (nodes.ndim, leaves.ndim) != (2, 3)
            or (leaves.shape[0], leaves.shape[2]) != nodes.shape
            or nodes.shape[1] % 8
        ):
            raise ParameterError(
                f"nodes are {nodes.dtype} {nodes.shape} and leaves {leaves.dtype} {leaves.shape}; "
                "give uint8 (K, B) and (K, L, B), B a multiple of 8"
            )
        return cls._of(*(np.ascontiguousarray(array).view(np.uint64) for array in (nodes, leaves)))

    def to_arrays(self) -> dict[str, NDArray[np.uint8]]:
        """The arrays to store, "nodes" and "leaves"; everything else follows from them."""
        return {"nodes": self.nodes, "leaves": self.leaves}

    @property
    def n_keys(self) -> int:
        """Number of leaves: keys are 0 to this, exclusive."""
        return int(self.leaves.shape[0] * self.leaves.shape[1])

    @property
    def barcode_bytes(self) -> int:
        """B, bytes of a barcode."""
        return int(self.nodes.shape[1])

    def check(self, barcodes: ArrayLike, name: str = "barcodes") -> NDArray[np.uint8]:
        """Barcodes as uint8 (N, B); ParameterError where they are not as long as the tree's."""
        rows = as_barcodes(barcodes, name)
        if rows.shape[1] != self.barcode_bytes:
            raise ParameterError(
                f"{name} have {rows.shape[1]} bytes and the tree's {self.barcode_bytes}; "
                "both must come from one encoder"
            )
        return rows

    def keys(self, barcodes: ArrayLike) -> NDArray[np.int64]:
        """Keys int64 (N,) of barcodes uint8 (N, B): the number of the nearest leaf of the two nearest nodes.

        Ties go to the smaller number. 0.7 us a patch.
        """
        rows = np.ascontiguousarray(self.check(barcodes)).view()
        rows.flags.writeable = False
        out = np.empty(len(rows), np.int64)
        _assign(rows, self.node_blocks, self.leaf_blocks, len(self.nodes), self.leaves.shape[1], out)
        return out


def sample_size(patches: int) -> int:
    """How many patches a tree is learnt from at most, for an archive of so many."""
    return max(_SMALLEST_SAMPLE, _SAMPLE_A_LEAF * int(np.prod(_branching(patches))))


def _branching(patches: int) -> tuple[int, int]:
    """Nodes, and leaves under each, for an archive of so many patches."""
    wanted = 2 ** round(np.log2(max(1.0, patches / _PATCHES_A_LEAF)))
    keys = int(min(MOST_KEYS, max(_FEWEST_LEAVES, wanted)))
    leaves = min(_MOST_LEAVES_A_NODE, 1 << (keys.bit_length() - 1) // 2)
    return keys // leaves, leaves


def _cluster(
    words: NDArray[np.uint64], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Majorities uint64 (count, W) of clusters of words (N, W) along a short path, and each row's number.

    Starts from random rows; a cluster that loses all members starts again from a random row.
    """
    first = words[np.sort(rng.permutation(len(words))[:count])]
    centres = np.resize(first, (count, words.shape[1]))
    own = np.empty(len(words), np.int64)
    for _ in range(_PASSES):
        _nearest(words, as_blocks(centres), own)
        _majorities(words, own, centres)
        lost = np.flatnonzero(np.bincount(own, minlength=count) == 0)
        centres[lost] = words[rng.integers(len(words), size=len(lost))]
    centres = centres[_short_path(centres)]
    _nearest(words, as_blocks(centres), own)
    return centres, own


@compiled
def _nearest(words: NDArray[np.uint64], blocks: NDArray[np.uint64], out: NDArray[np.int64]) -> None:
    """The number of the nearest centre of each row."""
    width = words.shape[1]
    for row in range(words.shape[0]):
        place = words.ctypes.data + 8 * row * width
        out[row] = nearest_block(blocks.ctypes.data, blocks.shape[0], width, place) & 0xFFFFFFFF


@compiled
def _majorities(words: NDArray[np.uint64], own: NDArray[np.int64], centres: NDArray[np.uint64]) -> None:
    """Set each bit of each centre as most of its rows have it (0 in a draw); one without rows stays.

    Counts stand upright: word w of plane p holds bit p of the counts of 64 bits, so that one addition with
    carry counts 64 bits at once.
    """
    size = np.zeros(centres.shape[0], np.int64)
    for row in range(words.shape[0]):
        size[own[row]] += 1
    n_planes = 1
    while size.max() >> n_planes:
        n_planes += 1
    width, none = words.shape[1], np.uint64(0)
    planes = np.zeros((centres.shape[0], n_planes, width), np.uint64)
    carry = np.empty(width, np.uint64)
    for row in range(words.shape[0]):
        mine = planes[own[row]]
        for word in range(width):
            carry[word] = words[row, word]
        for plane in range(n_planes):
            for word in range(width):
                old = mine[plane, word]
                mine[plane, word] = old ^ carry[word]
                carry[word] &= old
    for centre in range(centres.shape[0]):
        for word in range(width if size[centre] else 0):
            more, equal = none, ~none  # counts greater than half of the rows, and equal so far
            for plane in range(n_planes - 1, -1, -1):
                if (size[centre] >> 1) >> plane & 1:
                    equal &= planes[centre, plane, word]
                else:
                    more |= equal & planes[centre, plane, word]
                    equal &= ~planes[centre, plane, word]
            centres[centre, word] = more


@compiled
def _short_path(centres: NDArray[np.uint64]) -> NDArray[np.int64]:
    """An order of the centres: from the one with the fewest bits always on to the nearest that is left."""
    count = centres.shape[0]
    path, left = np.empty(count, np.int64), np.ones(count, np.bool_)
    here, least = 0, 64 * centres.shape[1] + 1
    for centre in range(count):
        bits = np.int64(0)
        for word in range(centres.shape[1]):
            bits += np.int64(popcount(centres[centre, word]))
        if bits < least:
            here, least = centre, int(bits)
    for place in range(count):
        path[place] = here
        left[here] = False
        least, start = 64 * centres.shape[1] + 1, here
        for centre in range(count):
            if left[centre]:
                apart = distance(centres, start, centres, centre)
                if apart < least:
                    here, least = centre, apart
    return path


@compiled
def _assign(
    rows: NDArray[np.uint8], node_blocks: NDArray[np.uint64], leaf_blocks: NDArray[np.uint64], n_nodes: int,
    n_leaves: int, out: NDArray[np.int64],
) -> None:  # fmt: skip
    """The key of each row."""
    width, blocks = node_blocks.shape[1], node_blocks.shape[0]
    near = np.empty(LANES * blocks, np.int32)
    size = 8 * LANES * width * leaf_blocks.shape[1]  # bytes of a node's leaves
    for row in range(rows.shape[0]):
        place = rows.ctypes.data + 8 * row * width
        block_distances(node_blocks.ctypes.data, blocks, width, place, near.ctypes.data)
        best: int = 2**62
        for node in _two_nearest(near.ctypes.data, blocks, n_nodes):
            if node < n_nodes:
                found = nearest_block(
                    leaf_blocks.ctypes.data + node * size, leaf_blocks.shape[1], width, place
                )
                best = min(best, (found >> 32 << 32) | (node * n_leaves + (found & 0xFFFFFFFF)))
        out[row] = best & 0xFFFFFFFF


@compiled
def _two_nearest(near: int, blocks: int, n_nodes: int) -> tuple[int, int]:
    """The numbers of the two smallest int32 distances at an address; `n_nodes` where there is no second."""
    first = second = _FAR
    one = two = n_nodes
    for block in range(0, blocks * LANES, LANES):
        hits = eight_within(near + 4 * block, second - 1)
        while hits:
            node = block + lowest(hits)
            hits &= hits - 1
            bits = load_int32(near, node)
            if node >= n_nodes or bits >= second:
                continue
            if bits < first:
                first, second, one, two = bits, first, node, one
            else:
                second, two = bits, node
    return one, two
