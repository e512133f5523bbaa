"""A van Emde Boas tree of 63-bit keys, compiled, whose memory is proportional to the number of keys.

The tree of the paper takes an array slot for each possible cluster, 2**32 in the root alone, and so 34 GB
before the first key. Two changes bring this to a few bytes a key. First, clusters are entries of a hash
table, which exist only while they hold something (`sish.index.trees.veb_recursion`). Second, the tree does
not hold the keys, each of which would take several nodes. It holds one *separator* for each block of up to 64
keys. A block is a sorted row of an array: the keys from its separator to before the next one. The first block
has the keys before all separators. (This is the indirection of Willard's y-fast trie, 1983.)

So an operation is a walk down the tree, O(log log U), and a binary search in a block of fixed size, O(1). A
full block is split, and one that runs low is merged with a neighbour, so that blocks stay filled however keys
come and go.
"""

import operator
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.index.compiled import compiled
from sish.index.trees.ordered_set import LARGEST_KEY, as_key, distinct_keys
from sish.index.trees.veb_recursion import (
    EMPTY,
    FREE_NODE,
    N_NODES,
    N_VALUES,
    SPARE,
    Int64,
    Tree,
    below,
    get,
    greatest,
    insert,
    put,
    remove,
    take_out,
    values_of,
)

BLOCK = 64
"""Keys that a block has room for."""
FILLED = 48
"""Keys of a block in a set that is built at once, and the most keys of a merged block."""
LOW = 16
"""A block with fewer keys is merged with a neighbour, if both fit into one."""
SIZE, NEXT, PREVIOUS, SEPARATOR = BLOCK, BLOCK + 1, BLOCK + 2, BLOCK + 3  # columns behind a block's keys
N_KEYS, N_BLOCKS, FREE_BLOCK, LAST_BLOCK = 3, 4, 5, 6  # places in `Tree.state`, behind the tree's own
BOTTOM = -1  # the separator of the first block, block 0, which is not in the tree


class _Blocks(NamedTuple):
    """All arrays of a set."""

    tree: Tree
    rows: NDArray[np.int64]  # (blocks, BLOCK + 4)
    homes: NDArray[np.int64]  # hash table: separator, its block


class VanEmdeBoas:
    """A set of n keys in a van Emde Boas tree, U = 2**63 (`sish.index.trees.ordered_set.OrderedSet`).

    Examples
    --------
    >>> keys = VanEmdeBoas.of([30, 10, 20, 20])
    >>> len(keys), list(keys), 20 in keys
    (3, [10, 20, 30], True)
    >>> keys.successor(10), keys.successor(11), keys.successor(30), keys.predecessor(10)
    (20, 20, None, None)
    >>> keys.walk(10, 5), keys.walk(30, -1), keys.min(), keys.max()
    ([20, 30], [20], 10, 30)
    >>> keys.add(15)
    >>> keys.discard(20)
    >>> list(keys)
    [10, 15, 30]
    """

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        """Make an empty set."""
        self._blocks = _with_room(1)

    @classmethod
    def of(cls, keys: ArrayLike) -> Self:
        """Return the set of integer `keys` (N,), in any order, O(N log N)."""
        made = cls()
        made._blocks = _filled(distinct_keys(keys))
        return made

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        blocks = self._blocks
        return sum(part.nbytes for part in (*blocks.tree, blocks.rows, blocks.homes))

    def add(self, key: SupportsIndex) -> None:
        """Put `key` in, O(log log U)."""
        number = as_key(key)
        while not _add(self._blocks, number):
            self._blocks = _grown(self._blocks)

    def discard(self, key: SupportsIndex) -> None:
        """Take `key` out, O(log log U)."""
        number = operator.index(key)
        if 0 <= number <= LARGEST_KEY and _discard(self._blocks, number):
            self._blocks = _filled(np.array(list(self), np.int64))

    def successor(self, key: SupportsIndex) -> int | None:
        """Return the smallest key strictly greater than `key`, or None; O(log log U)."""
        number = operator.index(key)
        if number >= LARGEST_KEY:
            return None
        found = _neighbour(self._blocks, max(number, -1), True)
        return None if found == EMPTY else found

    def predecessor(self, key: SupportsIndex) -> int | None:
        """Return the greatest key strictly smaller than `key`, or None; O(log log U)."""
        number = operator.index(key)
        if number > LARGEST_KEY:
            return self.max()
        found = _neighbour(self._blocks, max(number, 0), False)
        return None if found == EMPTY else found

    def walk(self, key: SupportsIndex, steps: int) -> list[int]:
        """Return the next `steps` keys after `key`, if negative those before it; O(log log U + steps)."""
        number, head = operator.index(key), []
        if number >= LARGEST_KEY and steps > 0:
            return []
        if number > LARGEST_KEY:  # walk from the largest possible key, and put it first if it is there
            number, head = LARGEST_KEY, [LARGEST_KEY] if LARGEST_KEY in self else []
        out = np.empty(min(abs(steps), len(self)), np.int64)
        n_found = _walk(self._blocks, max(number, -1), steps > 0, out)
        return [*head, *out[:n_found].tolist()][: abs(steps)]

    def min(self) -> int | None:
        """Return the smallest key, or None; O(1)."""
        return int(self._blocks.rows[0, 0]) if len(self) else None

    def max(self) -> int | None:
        """Return the greatest key, or None; O(1)."""
        last = self._blocks.rows[self._blocks.tree.state[LAST_BLOCK]]
        return int(last[last[SIZE] - 1]) if len(self) else None

    def __contains__(self, key: SupportsIndex) -> bool:
        """Return whether `key` is in the set, O(log log U)."""
        number = operator.index(key)
        return 0 <= number <= LARGEST_KEY and _neighbour(self._blocks, number - 1, True) == number

    def __len__(self) -> int:
        """Return the number of keys, O(1)."""
        return int(self._blocks.tree.state[N_KEYS])

    def __iter__(self) -> Iterator[int]:
        """Iterate over the keys, ascending, O(n)."""
        return iter(self.walk(-1, len(self)))

    def _check(self) -> None:
        """Assert the invariants."""
        tree, rows, homes = self._blocks
        keys: list[int] = []
        separators: list[int] = []
        block, before = 0, EMPTY
        while block != EMPTY:
            row = rows[block].tolist()
            assert row[PREVIOUS] == before
            assert row[SIZE] or len(self) == 0
            assert all(row[SEPARATOR] <= key for key in row[: row[SIZE]])
            assert not keys or row[SEPARATOR] > keys[-1]
            separators.append(row[SEPARATOR])
            assert block == 0 or get(homes, row[SEPARATOR]) == block
            keys += row[: row[SIZE]]
            before, block = block, row[NEXT]
        assert before == tree.state[LAST_BLOCK]
        assert all(a < b for a, b in pairwise(keys))
        assert len(keys) == len(self)
        assert separators[0] == BOTTOM
        assert values_of(tree) == separators[1:]
        assert (homes[:, 0] != EMPTY).sum() == len(separators) - 1


def _with_room(n_blocks: int) -> _Blocks:
    """Return the arrays of an empty set."""
    rows = np.zeros((n_blocks, BLOCK + 4), np.int64)
    rows[0, SIZE:] = 0, EMPTY, EMPTY, BOTTOM
    state = np.zeros(7, np.int64)
    state[[N_NODES, N_BLOCKS]] = 1
    state[[FREE_NODE, FREE_BLOCK]] = EMPTY
    n_nodes = SPARE + 3 * n_blocks
    return _Blocks(Tree(np.zeros((n_nodes, 3), np.int64), _slots(n_nodes), state), rows, _slots(n_blocks))


def _slots(room: int) -> NDArray[np.int64]:
    """Return an empty hash table that is at most two thirds full with `room` keys."""
    return np.full((1 << (room * 3 // 2).bit_length(), 2), EMPTY, np.int64)


def _filled(keys: NDArray[np.int64]) -> _Blocks:
    """Return the arrays of a set of `keys`, ascending."""
    blocks = _with_room(max(1, -(-len(keys) // FILLED)))
    while (done := int(blocks.tree.state[N_KEYS])) < len(keys):
        _fill(blocks, keys[done:])
        if blocks.tree.state[N_KEYS] < len(keys):
            blocks = _grown(blocks)
    return blocks


def _grown(blocks: _Blocks) -> _Blocks:
    """Return the same set with room for one more block at least."""
    tree, rows, homes = blocks
    if tree.state[N_NODES] + SPARE > len(tree.nodes):
        nodes = _longer(tree.nodes)
        tree = Tree(nodes, _rehashed(tree.slots, len(nodes)), tree.state)
    if tree.state[FREE_BLOCK] == EMPTY and tree.state[N_BLOCKS] == len(rows):
        rows = _longer(rows)
        homes = _rehashed(homes, len(rows))
    return _Blocks(tree, rows, homes)


def _longer(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a copy of the rows with room for half as many again."""
    longer = np.zeros((len(rows) + len(rows) // 2 + 1, rows.shape[1]), np.int64)
    longer[: len(rows)] = rows
    return longer


def _rehashed(slots: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Return the hash table with room for so many keys."""
    wider = _slots(room)
    if len(wider) == len(slots):
        return slots
    _put_all(wider, slots)
    return wider


@compiled
def _put_all(slots: NDArray[np.int64], others: NDArray[np.int64]) -> None:
    for at in range(len(others)):
        if others[at, 0] != EMPTY:
            put(slots, others[at, 0], others[at, 1])


@compiled
def _has_room(blocks: _Blocks) -> bool:
    """Return whether one more block can be made."""
    state = blocks.tree.state
    free_row = state[FREE_BLOCK] != EMPTY or state[N_BLOCKS] < len(blocks.rows)
    return bool(free_row and state[N_NODES] + SPARE <= len(blocks.tree.nodes))


@compiled
def _fill(blocks: _Blocks, keys: NDArray[np.int64]) -> None:
    """Append `keys`, ascending and greater than all, a block at a time, as long as there is room."""
    state = blocks.tree.state
    for start in range(0, len(keys), FILLED):
        block = np.int64(0)
        if state[N_KEYS]:
            if not _has_room(blocks):
                return
            block = _new_block(blocks, state[LAST_BLOCK], keys[start])
        part = keys[start : start + FILLED]
        blocks.rows[block, : len(part)] = part
        blocks.rows[block, SIZE] = len(part)
        state[N_KEYS] += len(part)


@compiled
def _new_block(blocks: _Blocks, before: Int64, separator: Int64) -> Int64:
    """Return a new, empty block behind another one; the caller has made sure of room."""
    rows, state = blocks.rows, blocks.tree.state
    block = state[FREE_BLOCK]
    if block == EMPTY:
        block = state[N_BLOCKS]
        state[N_BLOCKS] += 1
    else:
        state[FREE_BLOCK] = rows[block, NEXT]
    after = rows[before, NEXT]
    rows[block, SIZE], rows[block, SEPARATOR] = 0, separator
    rows[block, PREVIOUS], rows[block, NEXT] = before, after
    rows[before, NEXT] = block
    if after == EMPTY:
        state[LAST_BLOCK] = block
    else:
        rows[after, PREVIOUS] = block
    insert(blocks.tree, separator)
    put(blocks.homes, separator, block)
    return block


@compiled
def _merge(blocks: _Blocks, left: Int64, right: Int64) -> None:
    """Move the keys of a block to the one before it, and free the block."""
    rows, state = blocks.rows, blocks.tree.state
    size, moved, after = rows[left, SIZE], rows[right, SIZE], rows[right, NEXT]
    rows[left, size : size + moved] = rows[right, :moved]
    rows[left, SIZE], rows[left, NEXT] = size + moved, after
    if after == EMPTY:
        state[LAST_BLOCK] = left
    else:
        rows[after, PREVIOUS] = left
    remove(blocks.tree, rows[right, SEPARATOR])
    take_out(blocks.homes, rows[right, SEPARATOR])
    rows[right, NEXT] = state[FREE_BLOCK]
    state[FREE_BLOCK] = right


@compiled
def _block_of(blocks: _Blocks, key: Int64) -> Int64:
    """Return the block where `key` is or would be."""
    if blocks.tree.state[N_VALUES] == 0 or key < blocks.tree.nodes[0, 0]:
        return 0
    last = greatest(blocks.tree)
    return get(blocks.homes, last if key >= last else below(blocks.tree, key + 1))


@compiled
def _n_below(row: NDArray[np.int64], key: Int64) -> Int64:
    """Return the number of keys in a block smaller than `key`."""
    low, high = np.int64(0), row[SIZE]
    while low < high:
        middle = (low + high) >> 1
        if row[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _add(blocks: _Blocks, key: Int64) -> bool:
    """Put `key` in; return False, and do nothing, if a full block must be split and there is no room."""
    rows, block = blocks.rows, _block_of(blocks, key)
    size, place = rows[block, SIZE], _n_below(rows[block], key)
    if place < size and rows[block, place] == key:
        return True
    if size == BLOCK:
        if not _has_room(blocks):
            return False
        half = BLOCK // 2
        right = _new_block(blocks, block, rows[block, half])
        rows[right, :half] = rows[block, half:BLOCK]
        rows[right, SIZE] = rows[block, SIZE] = size = half
        if place > half or (place == half and key > rows[right, SEPARATOR]):
            block, place = right, place - half
    for at in range(size, place, -1):
        rows[block, at] = rows[block, at - 1]
    rows[block, place] = key
    rows[block, SIZE] = size + 1
    blocks.tree.state[N_KEYS] += 1
    return True


@compiled
def _discard(blocks: _Blocks, key: Int64) -> bool:
    """Take `key` out if it is there; return whether so few keys are left that memory should be freed."""
    rows, state, block = blocks.rows, blocks.tree.state, _block_of(blocks, key)
    size, place = rows[block, SIZE] - 1, _n_below(rows[block], key)
    if place > size or rows[block, place] != key:
        return False
    for at in range(place, size):
        rows[block, at] = rows[block, at + 1]
    rows[block, SIZE] = size
    state[N_KEYS] -= 1
    before, after = rows[block, PREVIOUS], rows[block, NEXT]
    if after != EMPTY and (size == 0 or (size < LOW and size + rows[after, SIZE] <= FILLED)):
        _merge(blocks, block, after)
    elif before != EMPTY and (size == 0 or (size < LOW and size + rows[before, SIZE] <= FILLED)):
        _merge(blocks, before, block)
    return bool(len(rows) > LOW and state[N_KEYS] * LOW < len(rows) * BLOCK)


@compiled
def _first(blocks: _Blocks, key: Int64, up: bool) -> tuple[Int64, Int64]:
    """Return block and place of the first key after `key`, or before it; block EMPTY if there is none."""
    rows = blocks.rows
    block = _block_of(blocks, key if up else key - 1)
    if not up:
        return (block, _n_below(rows[block], key) - 1) if _n_below(rows[block], key) else _last(blocks, block)
    place = _n_below(rows[block], key + 1)
    if place < rows[block, SIZE]:
        return block, place
    return rows[block, NEXT], 0


@compiled
def _last(blocks: _Blocks, block: Int64) -> tuple[Int64, Int64]:
    """Return the last key of the block before `block`."""
    before = blocks.rows[block, PREVIOUS]
    return before, (blocks.rows[before, SIZE] - 1 if before != EMPTY else 0)


@compiled
def _neighbour(blocks: _Blocks, key: Int64, up: bool) -> Int64:
    """Return the first key after `key`, which must be below LARGEST_KEY, or before it; EMPTY if none."""
    block, place = _first(blocks, key, up)
    return blocks.rows[block, place] if block != EMPTY else EMPTY


@compiled
def _walk(blocks: _Blocks, key: Int64, up: bool, out: NDArray[np.int64]) -> Int64:
    """Fill `out` with the keys after `key`, or before it; return their number."""
    rows, count = blocks.rows, 0
    block, place = _first(blocks, key, up)
    while count < len(out) and block != EMPTY:
        out[count] = rows[block, place]
        count += 1
        if up:
            place += 1
            if place == rows[block, SIZE]:
                block, place = rows[block, NEXT], 0
        elif place:
            place -= 1
        else:
            block, place = _last(blocks, block)
    return count
