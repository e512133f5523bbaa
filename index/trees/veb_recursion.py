"""The van Emde Boas recursion, compiled, in flat arrays: the block separators of `sish.index.trees.veb`.

A node stands for a set of values of b bits and keeps its least and greatest value itself. Every value but the
least is split in the middle. Its lower half goes into the *cluster* of its upper half, which is a node, too.
Another node, the *summary*, holds the upper halves whose cluster is not empty. So the bits of nodes go from
63 to 32 or 31, 16 or 15, 8 or 7, and at last 4 or 3: a leaf, which is one word of bits.

Clusters are not slots of an array of all possible ones (2**32 in the root alone). They are entries of one
hash table, keyed by node and upper half, with linear probing. An operation goes on in a cluster or in the
summary, never in both. So each is a loop of at most five rounds, O(log log U) (van Emde Boas 1975; Cormen et
al., chapter 20).

Node 0 is the root. Before adding a value, the caller makes sure that `SPARE` nodes are free and that the
hash table stays at most two thirds full.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sish.index.compiled import compiled, popcount

Int64: TypeAlias = Any
"""An integer in compiled code, always int64; for mypy it is Any, as int and numpy's int64 are mixed."""
KEY_BITS = 63
LEAF_BITS = 6
MAX_DEPTH = 6
SPARE = 12
"""More nodes than one insertion can make."""
LEAST, MOST, SUMMARY = 0, 1, 2
EMPTY = -1
N_VALUES, N_NODES, FREE_NODE = 0, 1, 2
"""Places in `Tree.state`: values in the tree, nodes ever used, the first freed node."""


class Tree(NamedTuple):
    """The arrays of a tree."""

    nodes: NDArray[
        np.int64
    ]  # (M, 3): least (of a leaf, its word), most, summary (of a free node, the next one)
    slots: NDArray[np.int64]  # (2**h, 2): node << 32 | upper half, and the cluster's node; EMPTY, -
    state: NDArray[np.int64]


@compiled
def hashed(key: Int64, size: Int64) -> Int64:
    """Return the slot where the search for `key` begins, in a table of `size`, a power of two."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(size - 1))


@compiled
def get(slots: NDArray[np.int64], key: Int64) -> Int64:
    """Return the value of `key` in the hash table, or EMPTY."""
    at = hashed(key, len(slots))
    while slots[at, 0] != EMPTY:
        if slots[at, 0] == key:
            return slots[at, 1]
        at = (at + 1) & (len(slots) - 1)
    return EMPTY


@compiled
def put(slots: NDArray[np.int64], key: Int64, value: Int64) -> None:
    """Enter a new key."""
    at = hashed(key, len(slots))
    while slots[at, 0] != EMPTY:
        at = (at + 1) & (len(slots) - 1)
    slots[at, 0], slots[at, 1] = key, value


@compiled
def take_out(slots: NDArray[np.int64], key: Int64) -> None:
    """Take out a key that is there; later ones move up, so that no gap cuts them off."""
    last = len(slots) - 1
    gap = hashed(key, len(slots))
    while slots[gap, 0] != key:
        gap = (gap + 1) & last
    at = gap
    while True:
        at = (at + 1) & last
        if slots[at, 0] == EMPTY:
            break
        if ((at - hashed(slots[at, 0], len(slots))) & last) >= ((at - gap) & last):
            slots[gap, 0], slots[gap, 1] = slots[at, 0], slots[at, 1]
            gap = at
    slots[gap, 0] = EMPTY


@compiled
def _lowest(word: Int64) -> Int64:
    """Return the number of the lowest bit set."""
    return popcount((word & -word) - 1)


@compiled
def _highest(word: Int64) -> Int64:
    """Return the number of the highest bit set, below the sign."""
    for shift in (1, 2, 4, 8, 16, 32):
        word |= word >> shift
    return popcount(word) - 1


@compiled
def _least(tree: Tree, node: Int64, bits: Int64) -> Int64:
    return tree.nodes[node, LEAST] if bits > LEAF_BITS else _lowest(tree.nodes[node, LEAST])


@compiled
def _most(tree: Tree, node: Int64, bits: Int64) -> Int64:
    return tree.nodes[node, MOST] if bits > LEAF_BITS else _highest(tree.nodes[node, LEAST])


@compiled
def _cluster(tree: Tree, node: Int64, upper: Int64) -> Int64:
    """Return the node of a cluster; EMPTY if it has no values."""
    return get(tree.slots, np.int64(node) << 32 | upper)


@compiled
def _new_node(tree: Tree, bits: Int64, value: Int64) -> Int64:
    """Return a node that holds one value."""
    node = tree.state[FREE_NODE]
    if node == EMPTY:
        node = tree.state[N_NODES]
        tree.state[N_NODES] += 1
    else:
        tree.state[FREE_NODE] = tree.nodes[node, SUMMARY]
    _set_single(tree, node, bits, value)
    return node


@compiled
def _set_single(tree: Tree, node: Int64, bits: Int64, value: Int64) -> None:
    tree.nodes[node, LEAST] = value if bits > LEAF_BITS else np.int64(1) << value
    tree.nodes[node, MOST] = value
    tree.nodes[node, SUMMARY] = EMPTY


@compiled
def _free_node(tree: Tree, node: Int64) -> None:
    tree.nodes[node, SUMMARY] = tree.state[FREE_NODE]
    tree.state[FREE_NODE] = node


@compiled
def greatest(tree: Tree) -> Int64:
    """Return the greatest value; EMPTY if there is none."""
    return tree.nodes[0, MOST] if tree.state[N_VALUES] else EMPTY


@compiled
def insert(tree: Tree, value: Int64) -> None:
    """Put in a value that is not there; the caller has made sure of room."""
    nodes = tree.nodes
    tree.state[N_VALUES] += 1
    if tree.state[N_VALUES] == 1:
        _set_single(tree, 0, KEY_BITS, value)
        return
    node, bits = 0, KEY_BITS
    while bits > LEAF_BITS:
        if value < nodes[node, LEAST]:
            nodes[node, LEAST], value = value, nodes[node, LEAST]
        nodes[node, MOST] = max(nodes[node, MOST], value)
        half = bits // 2
        upper, lower = value >> half, value & ((np.int64(1) << half) - 1)
        cluster = EMPTY if nodes[node, SUMMARY] == EMPTY else _cluster(tree, node, upper)
        if cluster != EMPTY:
            node, bits, value = cluster, half, lower
            continue
        put(tree.slots, np.int64(node) << 32 | upper, _new_node(tree, half, lower))
        if nodes[node, SUMMARY] == EMPTY:
            nodes[node, SUMMARY] = _new_node(tree, bits - half, upper)
            return
        node, bits, value = nodes[node, SUMMARY], bits - half, upper
    nodes[node, LEAST] |= np.int64(1) << value


@compiled
def remove(tree: Tree, value: Int64) -> None:
    """Take out a value that is there."""
    nodes = tree.nodes
    path = np.empty((MAX_DEPTH, 2), np.int64)  # nodes whose greatest value is removed, and their bits
    node, bits, depth = 0, KEY_BITS, 0
    tree.state[N_VALUES] -= 1
    if tree.state[N_VALUES] == 0:
        return
    while bits > LEAF_BITS:
        half = bits // 2
        if value == nodes[node, LEAST]:  # the next value takes its place, and leaves its cluster
            upper = _least(tree, nodes[node, SUMMARY], bits - half)
            value = upper << half | _least(tree, _cluster(tree, node, upper), half)
            nodes[node, LEAST] = value
        if value == nodes[node, MOST]:
            path[depth, 0], path[depth, 1] = node, bits
            depth += 1
        upper, lower = value >> half, value & ((np.int64(1) << half) - 1)
        cluster = _cluster(tree, node, upper)
        if _least(tree, cluster, half) != _most(tree, cluster, half):
            node, bits, value = cluster, half, lower
            continue
        _free_node(tree, cluster)
        take_out(tree.slots, np.int64(node) << 32 | upper)
        summary = nodes[node, SUMMARY]
        if _least(tree, summary, bits - half) == _most(tree, summary, bits - half):
            _free_node(tree, summary)
            nodes[node, SUMMARY] = EMPTY
            break
        node, bits, value = summary, bits - half, upper
    if bits <= LEAF_BITS:
        nodes[node, LEAST] &= ~(np.int64(1) << value)
    for step in range(depth - 1, -1, -1):
        _renew_most(tree, path[step, 0], path[step, 1])


@compiled
def _renew_most(tree: Tree, node: Int64, bits: Int64) -> None:
    """Find the greatest value of a node again, from its summary and clusters."""
    half, summary = bits // 2, tree.nodes[node, SUMMARY]
    if summary == EMPTY:
        tree.nodes[node, MOST] = tree.nodes[node, LEAST]
    else:
        upper = _most(tree, summary, bits - half)
        tree.nodes[node, MOST] = upper << half | _most(tree, _cluster(tree, node, upper), half)


@compiled
def below(tree: Tree, value: Int64) -> Int64:
    """Return the greatest value smaller than `value`; EMPTY if there is none."""
    nodes = tree.nodes
    if tree.state[N_VALUES] == 0 or value <= nodes[0, LEAST]:
        return EMPTY
    path = np.empty((MAX_DEPTH, 3), np.int64)  # node, half, upper half (EMPTY while it is not known)
    node, bits, depth, found = 0, KEY_BITS, 0, np.int64(EMPTY)
    while found == EMPTY:
        if bits <= LEAF_BITS:
            found = _highest(nodes[node, LEAST] & ((np.int64(1) << value) - 1))
        elif value > nodes[node, MOST]:
            found = nodes[node, MOST]
        else:
            half = bits // 2
            upper, lower = value >> half, value & ((np.int64(1) << half) - 1)
            cluster, summary = _cluster(tree, node, upper), nodes[node, SUMMARY]
            path[depth, 0], path[depth, 1], path[depth, 2] = node, half, upper
            if cluster != EMPTY and lower > _least(tree, cluster, half):
                node, bits, value = cluster, half, lower
            elif upper <= _least(tree, summary, bits - half):
                found = nodes[node, LEAST]
                break
            else:
                path[depth, 2] = EMPTY
                node, bits, value = summary, bits - half, upper
            depth += 1
    for step in range(depth - 1, -1, -1):
        node, half, upper = path[step, 0], path[step, 1], path[step, 2]
        if upper == EMPTY:
            found = found << half | _most(tree, _cluster(tree, node, found), half)
        else:
            found |= upper << half
    return found


def values_of(tree: Tree) -> list[int]:
    """Return all values, ascending, and assert the invariants of every node; for tests."""
    clusters: dict[int, list[int]] = {}
    for key, child in tree.slots.tolist():
        if key != EMPTY:
            assert get(tree.slots, key) == child
            clusters.setdefault(key >> 32, []).append(key & 0xFFFFFFFF)
    return _checked_values(tree, clusters, 0, KEY_BITS) if tree.state[N_VALUES] else []


def _checked_values(tree: Tree, clusters: dict[int, list[int]], node: int, bits: int) -> list[int]:
    least, most, summary = tree.nodes[node].tolist()
    if bits <= LEAF_BITS:
        assert 0 < least < 1 << (1 << bits)
        return [value for value in range(1 << bits) if least >> value & 1]
    half, values = bits // 2, [least]
    uppers = [] if summary == EMPTY else _checked_values(tree, clusters, summary, bits - half)
    for upper in uppers:
        cluster = _checked_values(tree, clusters, get(tree.slots, node << 32 | upper), half)
        values += [upper << half | lower for lower in cluster]
    assert uppers == sorted(clusters.get(node, []))
    assert values == sorted(set(values))
    assert most == values[-1]
    return values
