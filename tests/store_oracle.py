"""Slides of any make for the tests of the store, and what a snapshot of them must be."""

import numpy as np
from slide_rows import slide_row

from sish.index.store import SlideRow, Snapshot, Store

HEADER = {"fingerprint": "abc", "patch_px": 256, "mpp": 1.0, "search": {"steps": [1, 2]}, "note": None}
ARRAYS = ("keys", "barcodes", "l0_xy", "slide", "row")


def make_row(slide_id: str, n: int, **changes) -> SlideRow:
    odd = {
        "patch_l0_px": 1024.5,
        "mpp": 0.25,
        "width": 40_000,
        "height": 30_000,
        "metadata": {"stain": "H&E"},
    }
    return slide_row(slide_id, n, **odd | changes)


def make_arrays(n: int, seed: int, n_keys: int = 3, n_bytes: int = 4):
    """Few distinct keys, so that ties are the rule."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(-2, 3, (n, n_keys)) * 10**15
    return keys, rng.integers(0, 256, (n, n_bytes), dtype=np.uint8), rng.integers(0, 10**6, (n, 2))


def expected(slides: list, n_keys: int = 3, n_bytes: int = 4) -> Snapshot:
    """What a snapshot of [(row, arrays), ...] must be: everything in insertion order, sorted stably."""
    none = make_arrays(0, 0, n_keys if slides else 1, n_bytes if slides else 1)
    keys, barcodes, l0_xy = (
        np.concatenate([none[i], *(arrays[i] for _, arrays in slides)]) for i in range(3)
    )
    slide = np.concatenate(
        [np.empty(0, int), *(np.full(row.n_patches, i) for i, (row, _) in enumerate(slides))]
    )
    number = np.concatenate([np.empty(0, int), *(np.arange(row.n_patches) for row, _ in slides)])
    order = sorted(range(len(keys)), key=lambda i: keys[i, 0])
    rows = tuple(row for row, _ in slides)
    return Snapshot(rows, keys[order], barcodes[order], l0_xy[order], slide[order], number[order])


def assert_same(got: Snapshot, want: Snapshot) -> None:
    assert got.slides == want.slides
    for name, kind in zip(ARRAYS, "iuiii", strict=True):
        assert getattr(got, name).dtype.kind == kind
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)


def fill(store: Store, counts: list[int], first: int = 0) -> list:
    slides = [(make_row(f"s{i}", n), make_arrays(n, i)) for i, n in enumerate(counts, start=first)]
    for row, arrays in slides:
        store.append(row, *arrays)
    return slides
