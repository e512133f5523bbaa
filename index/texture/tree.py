"""The learnt tree: a tree of typical barcodes gives each patch a key that carries its texture.

The published key is an average of codes. Patches of one average share a key whatever their texture, and true
neighbours are scattered over all keys. So a fixed budget of keys finds ever fewer of them as the archive
grows. Here a key is a *path* down a tree, which is learnt from a sample of the archive's own barcodes. It has
a few hundred to some thousand nodes, each a typical barcode, and under each node as many leaves. A patch's
key is the number of its nearest leaf,

    key = node x (leaves a node) + leaf.

So the patches of a node have a range of keys, and those of a leaf have one key. An archive sorted by key
holds similar textures side by side (`sish.index.texture.cells` searches it). If there are many nodes, they
lie under *top nodes* in the same way. Then a patch is compared with a few hundred typical barcodes to find
one of half a million leaves. Children are numbered along a short path through them, so that near leaves have
near keys.

Typical barcodes are *majorities* of k-means in Hamming space: the centre of a cluster has each bit as most of
its members have it (Gionis et al. 1999 rank in that space; the vocabulary tree is Nister and Stewenius 2006).
So the tree is learnt in the space that ranks, sees no label, and is the same for the same sample and seed. A
key depends on one barcode and the tree: adding and removing patches changes no other key. When an archive has
grown several times over, a new tree is learnt, in one and a half seconds at a million patches.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.compiled import as_barcodes, compiled, distance, popcount
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

_PATCHES_A_LEAF = 20  # about; reading so many rows takes as long as finding them
_FEWEST_LEAVES = 16  # of a tree
_KEYS_OF_TWO_LEVELS = 4096  # up to so many, comparing with all nodes costs less than one more level
MOST_KEYS = 524_288
"""Leaves of the widest tree, 128 x 64 x 64: archives beyond fifteen million patches have fuller leaves."""
_SMALLEST_SAMPLE = 100_000
_SAMPLE_A_LEAF = 12  # with 6, equal recall in ten million patches takes a fifth more rows; 19 saves none
_SAMPLE_A_NODE = 256  # patches of the sample that each node is learnt from
_PASSES = 6  # of k-means; later ones change little
_BLOCKS = ("top_blocks", "node_blocks", "leaf_blocks")
_NONE = 2**62  # farther than any distance << 32 | number
_NUMBER = 2**32 - 1


@dataclass(frozen=True, slots=True)
class TextureTree:
    """Three levels of typical barcodes, made by `learn`, or by `from_arrays` from the result of `to_arrays`.

    The arrays are kept as the kernels read them: eight barcodes side by side (`as_blocks`), with separate
    blocks for each parent.

    Examples
    --------
    >>> tree = TextureTree.learn(np.repeat(np.uint8([[0], [255]]), 8, axis=1), branching=(2, 1))
    >>> tree.shape, tree.n_keys, tree.keys(np.uint8([[254] * 8])).tolist()
    ((1, 2, 1), 2, [1])
    """

    top_blocks: NDArray[np.uint64]
    """The top nodes: (ceil(T / 8), B / 8, 8)."""
    node_blocks: NDArray[np.uint64]
    """The nodes under each: (T, ceil(K / 8), B / 8, 8)."""
    leaf_blocks: NDArray[np.uint64]
    """The leaves under each of these: (T x K, ceil(L / 8), B / 8, 8)."""
    shape: tuple[int, int, int]
    """Numbers of top nodes T, of nodes K under each, and of leaves L under each node."""

    @classmethod
    def learn(
        cls,
        barcodes: ArrayLike,
        *,
        seed: int = 0,
        patches: int | None = None,
        branching: tuple[int, ...] | None = None,
    ) -> "TextureTree":
        """Learn the tree of an archive from a sample of its barcodes.

        Parameters
        ----------
        barcodes : uint8 (M, B)
            M of at least 1, B a multiple of 8. Of more than `sample_size` barcodes a sample is drawn.
        seed : int
            Seed of the draw and of k-means.
        patches : int, optional
            Number of patches in the archive. Default: M.
        branching : tuple of int, optional
            Numbers of top nodes (may be left out: 1), of nodes under each, and of leaves under each node.
            Default: about equal ones, with 15 to 30 patches a leaf. The number of leaves is a power of two
            from 16 to 524,288.

        Returns
        -------
        TextureTree
            The same for the same barcodes and seed.

        Raises
        ------
        ParameterError
            If barcodes or branching are of another shape.

        Examples
        --------
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
        shape = _branching(total) if branching is None else branching
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ParameterError(f"branching is {branching}; give two or three positive numbers")
        levels = _grown(np.ascontiguousarray(rows).view(np.uint64), shape, rng)
        return cls._of(levels[0][:1] if len(shape) == 2 else levels[0], levels[-2], levels[-1])

    @classmethod
    def _of(
        cls, tops: NDArray[np.uint64], nodes: NDArray[np.uint64], leaves: NDArray[np.uint64]
    ) -> "TextureTree":
        """Return the tree of words (T, W), (T x K, W) and (T x K x L, W)."""
        shape = len(tops), len(nodes) // len(tops), len(leaves) // len(nodes)
        return cls(
            aligned(as_blocks(tops)),
            _blocks_of_each(nodes, shape[1]),
            _blocks_of_each(leaves, shape[2]),
            shape,
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "TextureTree":
        """Return the tree of what `to_arrays` returned, or returned in format 1, as `from_centres` takes it.

        Parameters
        ----------
        arrays : mapping of str to array
            Blocks are not copied, so those of a mapped file stay on the disk.

        Returns
        -------
        TextureTree
            The tree.

        Raises
        ------
        ParameterError
            If the arrays are not a tree's.
        """
        if "shape" not in arrays:
            return cls.from_centres(arrays)
        shape = tuple(arrays["shape"].tolist())
        own = [arrays.get(name, np.empty(0)) for name in _BLOCKS]
        if len(shape) != 3 or min(shape) < 1 or any(array.dtype != np.uint64 for array in own):
            raise ParameterError(f"the tree has shape {shape} and lacks blocks; give what to_arrays() gave")
        padded, width = [-(-count // LANES) for count in shape], own[0].shape[-2] if own[0].ndim == 3 else 0
        wanted = [
            (padded[0], width, LANES),
            (shape[0], padded[1], width, LANES),
            (shape[0] * shape[1], padded[2], width, LANES),
        ]
        if not width or [array.shape for array in own] != wanted:
            raise ParameterError(f"blocks are {[array.shape for array in own]}; give {wanted}")
        return cls(own[0], own[1], own[2], (shape[0], shape[1], shape[2]))

    @classmethod
    def from_centres(cls, arrays: Mapping[str, NDArray[Any]]) -> "TextureTree":
        """Return the tree of typical barcodes.

        Parameters
        ----------
        arrays : mapping of str to uint8 array
            "nodes" (T x K, B), "leaves" (T x K, L, B) and, if T is more than 1, "tops" (T, B).

        Returns
        -------
        TextureTree
            The tree.

        Raises
        ------
        ParameterError
            If the arrays are not a tree's.
        """
        missing = {"nodes", "leaves"} - set(arrays)
        if missing:
            raise ParameterError(f"the tree lacks {sorted(missing)}; give what to_arrays() gave")
        nodes, leaves = arrays["nodes"], arrays["leaves"]
        tops = arrays.get("tops", nodes[:1])
        if (
            any(array.dtype != np.uint8 or not array.size for array in (tops, nodes, leaves))
            or (tops.ndim, nodes.ndim, leaves.ndim) != (2, 2, 3)
            or (leaves.shape[0], leaves.shape[2]) != nodes.shape
            or tops.shape[1] != nodes.shape[1]
            or len(nodes) % len(tops)
            or nodes.shape[1] % 8
        ):
            raise ParameterError(
                f"tops are {tops.dtype} {tops.shape}, nodes {nodes.dtype} {nodes.shape} and leaves "
                f"{leaves.dtype} {leaves.shape}; give uint8 (T, B), (T x K, B) and (T x K, L, B), B a "
                "multiple of 8"
            )
        flat = tops, nodes, leaves.reshape(-1, leaves.shape[2])
        return cls._of(*(np.ascontiguousarray(array).view(np.uint64) for array in flat))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store: the blocks as the kernels read them, and "shape"."""
        blocks = {name: getattr(self, name) for name in _BLOCKS}
        return {**blocks, "shape": np.array(self.shape, np.int64)}

    @property
    def tops(self) -> NDArray[np.uint8]:
        """The typical barcode of each top node, uint8 (T, B); without meaning if there is only one."""
        return _out_of_blocks(self.top_blocks[None], self.shape[0]).reshape(-1, self.barcode_bytes)

    @property
    def nodes(self) -> NDArray[np.uint8]:
        """The typical barcodes of the nodes, uint8 (T x K, B)."""
        return _out_of_blocks(self.node_blocks, self.shape[1]).reshape(-1, self.barcode_bytes)

    @property
    def leaves(self) -> NDArray[np.uint8]:
        """The typical barcodes of each node's leaves, uint8 (T x K, L, B)."""
        return _out_of_blocks(self.leaf_blocks, self.shape[2])

    def leaves_of(self, keys: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the typical barcodes of the leaves of some keys, uint8 (N, B)."""
        nodes, leaves = np.divmod(keys, self.shape[2])
        words = self.leaf_blocks[nodes, leaves // LANES, :, leaves % LANES]
        return np.ascontiguousarray(words).view(np.uint8)

    @property
    def n_keys(self) -> int:
        """Number of leaves; keys are 0 to this, exclusive."""
        return math.prod(self.shape)

    @property
    def barcode_bytes(self) -> int:
        """B, bytes of a barcode."""
        return 8 * int(self.top_blocks.shape[1])

    def check(self, barcodes: ArrayLike, name: str = "barcodes") -> NDArray[np.uint8]:
        """Return barcodes as uint8 (N, B), or raise ParameterError if they are not as long as the tree's."""
        rows = as_barcodes(barcodes, name)
        if rows.shape[1] != self.barcode_bytes:
            raise ParameterError(
                f"{name} have {rows.shape[1]} bytes and the tree's {self.barcode_bytes}; "
                "both must come from one encoder"
            )
        return rows

    def keys(self, barcodes: ArrayLike) -> NDArray[np.int64]:
        """Return the key of each barcode: the nearest leaf of the two nearest nodes, 0.5 us a patch.

        The nodes are looked for under the two nearest top nodes. Ties go to the smaller number.

        Parameters
        ----------
        barcodes : uint8 (N, B)

        Returns
        -------
        int64 (N,)
            Numbers of leaves.
        """
        rows = np.ascontiguousarray(self.check(barcodes)).view()
        rows.flags.writeable = False
        out = np.empty(len(rows), np.int64)
        _assign(rows, self.top_blocks, self.node_blocks, self.leaf_blocks, self.shape, out)
        return out


def _blocks_of_each(children: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """Return words (P x count, W) of the children of P parents in blocks, (P, ceil(count / 8), W, 8)."""
    parents = children.reshape(-1, count, children.shape[1])
    return aligned(np.stack([as_blocks(own) for own in parents]))


def _out_of_blocks(blocks: NDArray[np.uint64], count: int) -> NDArray[np.uint8]:
    """Return the barcodes uint8 (P, count, B) of what `_blocks_of_each` returned."""
    parents, n_blocks, width, lanes = blocks.shape
    rows = blocks.transpose(0, 1, 3, 2).reshape(parents, n_blocks * lanes, width)
    return np.ascontiguousarray(rows[:, :count]).view(np.uint8)


def sample_size(patches: int) -> int:
    """Return the largest number of patches that a tree of an archive of `patches` patches is learnt from."""
    return max(_SMALLEST_SAMPLE, _SAMPLE_A_LEAF * math.prod(_branching(patches)))


def _branching(patches: int) -> tuple[int, int, int]:
    """Return the numbers of top nodes, nodes under each and leaves under each, for an archive's size."""
    wanted = 2 ** round(np.log2(max(1.0, patches / _PATCHES_A_LEAF)))
    depth = int(min(MOST_KEYS, max(_FEWEST_LEAVES, wanted))).bit_length() - 1
    tops = -(-depth // 3) if 2**depth > _KEYS_OF_TWO_LEVELS else 0
    nodes = -(-(depth - tops) // 2)
    return 2**tops, 2**nodes, 2 ** (depth - tops - nodes)


def _grown(
    words: NDArray[np.uint64], shape: tuple[int, ...], rng: np.random.Generator
) -> list[NDArray[np.uint64]]:
    """Return the levels of a tree over words (N, W): (shape[0], W), (shape[0] x shape[1], W), ..."""
    few = words[np.sort(rng.permutation(len(words))[: _SAMPLE_A_NODE * shape[0]])]
    centres = _cluster(few, shape[0], rng)
    if len(shape) == 1:
        return [centres]
    own = np.empty(len(words), np.int64)
    _nearest(words, as_blocks(centres), own)
    order, ends = np.argsort(own, kind="stable"), np.cumsum(np.bincount(own, minlength=len(centres)))
    children = [
        _grown(words[mine] if len(mine) else centres[number : number + 1], shape[1:], rng)
        for number, mine in enumerate(np.split(order, ends[:-1]))
    ]
    return [centres, *(np.concatenate(level) for level in zip(*children, strict=True))]


def _cluster(words: NDArray[np.uint64], count: int, rng: np.random.Generator) -> NDArray[np.uint64]:
    """Return the majorities uint64 (count, W) of clusters of words (N, W), along a short path."""
    # each cluster starts from a random row, and starts again from another one if it loses all members
    first = words[np.sort(rng.permutation(len(words))[:count])]
    centres = np.resize(first, (count, words.shape[1]))
    own = np.empty(len(words), np.int64)
    for _ in range(_PASSES):
        _nearest(words, as_blocks(centres), own)
        _majorities(words, own, centres)
        lost = np.flatnonzero(np.bincount(own, minlength=count) == 0)
        centres[lost] = words[rng.integers(len(words), size=len(lost))]
    return centres[_short_path(centres)]


@compiled
def _nearest(words: NDArray[np.uint64], blocks: NDArray[np.uint64], out: NDArray[np.int64]) -> None:
    """Fill `out` with the number of the nearest centre of each row."""
    width = words.shape[1]
    for row in range(words.shape[0]):
        place = words.ctypes.data + 8 * row * width
        out[row] = nearest_block(blocks.ctypes.data, blocks.shape[0], width, place) & 0xFFFFFFFF


@compiled
def _majorities(words: NDArray[np.uint64], own: NDArray[np.int64], centres: NDArray[np.uint64]) -> None:
    """Set each bit of each centre as most of its rows have it, 0 for a tie; a centre without rows stays.

    Word w of plane p holds bit p of the counts of 64 bits, so that one addition with carry counts 64 bits.
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
            more, equal = none, ~none  # bits set in more than half of the rows; bits equal to half so far
            for plane in range(n_planes - 1, -1, -1):
                if (size[centre] >> 1) >> plane & 1:
                    equal &= planes[centre, plane, word]
                else:
                    more |= equal & planes[centre, plane, word]
                    equal &= ~planes[centre, plane, word]
            centres[centre, word] = more


@compiled
def _short_path(centres: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return an order of the centres: from the one with fewest bits always on to the nearest one left."""
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
    rows: NDArray[np.uint8], top_blocks: NDArray[np.uint64], node_blocks: NDArray[np.uint64],
    leaf_blocks: NDArray[np.uint64], shape: tuple[int, int, int], out: NDArray[np.int64],
) -> None:  # fmt: skip
    """Fill `out` with the key of each row."""
    n_tops, n_nodes, n_leaves = shape
    width, blocks = node_blocks.shape[2], node_blocks.shape[1]
    top_bits = np.empty(LANES * top_blocks.shape[0], np.int32)
    node_bits = np.empty(LANES * blocks, np.int32)
    node_size, leaf_size = 8 * LANES * width * blocks, 8 * LANES * width * leaf_blocks.shape[1]
    for row in range(rows.shape[0]):
        place = rows.ctypes.data + 8 * row * width
        near = _NONE, _NONE
        if n_tops > 1:
            block_distances(top_blocks.ctypes.data, top_blocks.shape[0], width, place, top_bits.ctypes.data)
            near = _two_nearest(top_bits.ctypes.data, n_tops, 0, near)
        else:
            near = 0, _NONE
        nodes = _NONE, _NONE
        for found in near:
            if found < _NONE:
                top = found & _NUMBER
                block_distances(
                    node_blocks.ctypes.data + top * node_size, blocks, width, place, node_bits.ctypes.data
                )
                nodes = _two_nearest(node_bits.ctypes.data, n_nodes, top * n_nodes, nodes)
        best: int = _NONE
        for found in nodes:
            if found < _NONE:
                node = found & _NUMBER
                leaf = nearest_block(
                    leaf_blocks.ctypes.data + node * leaf_size, leaf_blocks.shape[1], width, place
                )
                best = min(best, (leaf >> 32 << 32) | (node * n_leaves + (leaf & _NUMBER)))
        out[row] = best & _NUMBER


@compiled
def _two_nearest(bits: int, count: int, first: int, best: tuple[int, int]) -> tuple[int, int]:
    """Return the two smallest of `best` and int32 distances at an address, as distance << 32 | number."""
    # `count` distances, whose numbers count from `first`
    one, two = best
    for block in range(0, count, LANES):
        hits = eight_within(bits + 4 * block, two >> 32)
        while hits:
            place = block + lowest(hits)
            hits &= hits - 1
            found = (load_int32(bits, place) << 32) | (first + place)
            if place < count and found < two:
                one, two = min(one, found), max(one, found)
    return one, two
