"""Slides for the tests of the store, whose patches can be told from their rows alone."""

import numpy as np
from slide_rows import slide_row

from sish.index.store import SlideRow, Snapshot, Store, slide_snapshot


def make_row(slide_id: str, n: int, seed: int, label: str | None = None) -> SlideRow:
    return slide_row(slide_id, n, label=label, metadata={"seed": str(seed)})


def arrays_of(row: SlideRow) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The patches that belong to a row: its metadata has their seed."""
    rng, n = np.random.default_rng(int(row.metadata["seed"])), row.n_patches
    return (
        rng.integers(0, 9, (n, 2)),
        rng.integers(0, 256, (n, 8), dtype=np.uint8),
        rng.integers(0, 99, (n, 2)),
    )


def append(store: Store, slide_id: str, n: int, seed: int, *, replacing: bool = False) -> None:
    row = make_row(slide_id, n, seed)
    store.append(row, *arrays_of(row), replace=replacing)


def append_many(store: Store, *cases: tuple[str, int, int], replacing: bool = False) -> None:
    """Append slides given as (id, patches, seed) in one commit."""
    rows = [make_row(*case) for case in cases]
    store.append_many([slide_snapshot(row, *arrays_of(row)) for row in rows], replace=replacing)


def assert_whole(snapshot: Snapshot) -> None:
    """Every slide has exactly the patches that its row tells of, in key order."""
    assert (np.diff(snapshot.keys[:, 0]) >= 0).all()
    assert len(snapshot) == sum(row.n_patches for row in snapshot.slides)
    in_order = snapshot.insertion_order()
    for number, row in enumerate(snapshot.slides):
        mine = in_order[snapshot.slide[in_order] == number]
        for name, want in zip(("keys", "barcodes", "l0_xy"), arrays_of(row), strict=True):
            if len(want):
                np.testing.assert_array_equal(getattr(snapshot, name)[mine], want)
