"""The walk that a server is asked for is that of the compiled search, patch by patch; no server is needed."""

from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_cells import archive
from test_hierarchy import clustered

from sish.index.postgres.walk import Walk
from sish.index.texture.kernel import CELL_KEY, CELL_SHIFT, CELL_WHOLE, nearest_cells
from sish.index.texture.tree import TextureTree

BRANCHINGS = ((3, 2), (8, 8), (2, 3, 4), (4, 3, 6))
SLIDES = 24


def patches_of(walk, stretch, in_key_order):
    """The patches of a stretch, as a server finds them: all of its keys, the first and the last one cut."""
    out = []
    for key in stretch.keys.tolist():
        own = in_key_order[walk.begins[key] : walk.begins[key + 1]]
        begin = stretch.first_nth if key == stretch.keys[0] else 0
        end = stretch.last_nth if key == stretch.keys[-1] else len(own)
        out += own[begin:end].tolist()
    return out


def walked(seed, n, branching, hidden_share):
    """An archive in pieces, a query, excluded slides, and the walk through the whole archive."""
    rng = np.random.default_rng(seed)
    barcodes = clustered(rng, n + 1, clusters=int(rng.integers(2, 30)), n_bytes=8)
    barcodes, query = barcodes[:n], np.ascontiguousarray(barcodes[n:])
    slide = np.sort(rng.integers(0, SLIDES, n))
    tree = TextureTree.learn(barcodes, branching=branching)
    exclude = rng.random(SLIDES) < hidden_share
    in_key_order = np.lexsort((np.arange(n), tree.keys(barcodes)))
    hidden = np.flatnonzero(exclude[slide[in_key_order]])

    def walk_of(cells, budget):
        _, found = nearest_cells(cells.place, query, budget)
        return Walk.of(found, cells.totals, tree.shape[2], hidden)

    cuts = tuple(sorted(set(rng.integers(1, SLIDES, int(rng.integers(0, 5))).tolist())))
    return archive(barcodes, slide, tree, cuts), query, exclude, exclude[slide], in_key_order, walk_of


CASES = {
    "seed": st.integers(0, 10**6),
    "n": st.integers(1, 900),
    "branching": st.sampled_from(BRANCHINGS),
    "budget": st.sampled_from([1, 2, 7, 30, 120, 500]),
    "hidden_share": st.sampled_from([0.0, 0.1, 0.6, 0.88, 0.93, 1.0]),
}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(**CASES)
@example(seed=0, n=900, branching=(2, 3, 4), budget=30, hidden_share=0.6)
def test_the_walk_is_that_of_the_kernel(seed, n, branching, budget, hidden_share):
    (cells, number), query, exclude, hidden, in_key_order, walk_of = walked(seed, n, branching, hidden_share)
    if budget >= len(cells):  # then everything is compared with, in no order
        return
    bags = cells.search(query, k=n, budget=budget, exclude=exclude if exclude.any() else None)
    compared = number[bags.patch].tolist()
    walk = walk_of(cells, budget)
    end = walk.end(len(compared), n) if compared else 0
    along = patches_of(walk, walk.stretch(0, end), in_key_order) if end else []
    assert sorted(patch for patch in along if not hidden[patch]) == sorted(compared)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(**CASES)
def test_stretches_make_up_the_walk(seed, n, branching, budget, hidden_share):
    """Whatever it is cut into; each patch comes once, nearer cells first."""
    (cells, _), _, _, hidden, in_key_order, walk_of = walked(seed, n, branching, hidden_share)
    walk = walk_of(cells, budget)
    whole = int(walk.ends[-1])
    rng = np.random.default_rng(seed)
    ends = sorted({*rng.integers(0, whole + 1, 5).tolist(), whole} - {0})
    parts, begin = [], 0
    for end in ends:
        stretch = walk.stretch(begin, end)
        assert len(set(stretch.keys.tolist())) == len(stretch.keys)
        part = patches_of(walk, stretch, in_key_order)
        assert len(part) == end - begin
        parts, begin = parts + part, end
    assert len(set(parts)) == len(parts) == whole
    assert sorted(parts) == sorted(patches_of(walk, walk.stretch(0, whole), in_key_order))
    for goal in (1, budget, n):
        end = walk.end(goal, whole)
        allowed = [not hidden[patch] for patch in parts]  # cells are in order; so are counts at their ends
        counts = np.concatenate([[0], np.cumsum(allowed)])
        at = np.searchsorted(walk.ends, end, "right")
        before, behind = (
            int(walk.ends[it]) if it >= 0 else 0 for it in (at - 1, min(at, len(walk.ends) - 1))
        )
        assert counts[before] <= goal or end == whole
        assert counts[behind] >= min(goal, counts[-1])
        assert walk.end(goal, 3) == min(3, end)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(**{name: case for name, case in CASES.items() if name != "hidden_share"})
def test_cells_are_in_the_order_of_their_distances(seed, n, branching, budget):
    (cells, _), *_, walk_of = walked(seed, n, branching, 0.0)
    del walk_of
    rng = np.random.default_rng(seed)
    queries = clustered(rng, 5, n_bytes=8)
    offset, found = nearest_cells(cells.place, queries, budget)
    for begin, end in pairwise(offset):
        own = found[begin:end]
        assert (np.diff(own >> CELL_SHIFT) >= 0).all()
        keys = [
            key
            for cell in own.tolist()
            for key in range(cell & CELL_KEY, (cell & CELL_KEY) + (branching[-1] if cell & CELL_WHOLE else 1))
        ]
        assert len(set(keys)) == len(keys)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(**CASES)
def test_tables_and_exclusions_do_not_show_in_the_kernel(seed, n, branching, budget, hidden_share):
    """The order within the last cell is that of keys; and a walk ends at its limit of rows."""
    (cells, number), query, exclude, _, in_key_order, _ = walked(seed, n, branching, hidden_share)
    rng = np.random.default_rng(seed)
    barcodes = clustered(rng, n + 1, clusters=int(rng.integers(2, 30)), n_bytes=8)[:n]
    slide = np.sort(rng.integers(0, SLIDES, n))
    whole, its_number = archive(barcodes, slide, cells.tree, ())
    ask = {"k": n, "budget": budget, "exclude": exclude if exclude.any() else None}
    one, other = cells.search(query, **ask), whole.search(query, **ask)
    found = [
        list(zip(names[bags.patch].tolist(), bags.hamming.tolist(), strict=True))
        for bags, names in ((one, number), (other, its_number))
    ]
    assert sorted(found[0]) == sorted(found[1])
    assert len(in_key_order) == n
