"""An index as the first release wrote it, and as this one does: every later release must open both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sish.index.store import NO_TISSUE, SlideRow, Snapshot, Store

GOLDEN = Path(__file__).parent / "golden" / "v1.sish"
HEADER = {"fingerprint": "golden", "mpp": 1.0, "patch_px": 256, "search": {"steps": [1, 2]}}


def make_row(slide_id: str, n: int, **changes) -> SlideRow:
    row = SlideRow(
        slide_id=slide_id,
        path=f"slides/{slide_id}.svs",
        n_patches=n,
        patch_l0_px=512.5,
        mpp=0.5,
        mpp_source="user",
        width=4000,
        height=3000,
        label=None,
        patient=slide_id,
        site="Zürich",
        status="indexed" if n else NO_TISSUE,
        metadata={"stain": "H&E"},
    )
    return replace(row, **changes)


def make_golden(path: Path) -> None:
    """Write the golden index: three segments, with a removed slide, a relabelled one, and no patches."""
    with Store.create(path, HEADER) as store:
        for slide_id, keys in [
            ("a", [7, -5, 7]),
            ("c", [7]),
            ("gone", [1, 2]),
            ("b", [10**15, 7]),
            ("empty", []),
        ]:
            n = len(keys)
            both = np.stack([np.array(keys, np.int64), np.arange(n)], axis=1)
            barcodes = np.arange(2 * n, dtype=np.uint8).reshape(n, 2) + np.uint8(len(store))
            store.append(make_row(slide_id, n), both, barcodes, both[:, ::-1])
        store.remove(["gone"])
        store.relabel({"b": make_row("b", 2, label="tumour", patient="p", metadata={"é": "1"})})
    (path / "lock").unlink()


def assert_golden(store: Store) -> None:
    snapshot: Snapshot = store.snapshot()
    assert dict(store.header) == HEADER
    assert snapshot.slides == (
        make_row("a", 3),
        make_row("c", 1),
        make_row("b", 2, label="tumour", patient="p", metadata={"é": "1"}),
        make_row("empty", 0),
    )
    assert snapshot.keys.tolist() == [[-5, 1], [7, 0], [7, 2], [7, 0], [7, 1], [10**15, 0]]
    assert snapshot.barcodes.tolist() == [[2, 3], [0, 1], [4, 5], [1, 2], [5, 6], [3, 4]]
    assert snapshot.l0_xy.tolist() == [[1, -5], [0, 7], [2, 7], [0, 7], [1, 7], [0, 10**15]]
    assert snapshot.slide.tolist() == [0, 0, 0, 1, 2, 2]
    assert snapshot.row.tolist() == [1, 0, 2, 0, 1, 0]
    assert (store.verify(), store.leftovers(), store.generation) == ([], [], 7)


@pytest.mark.parametrize("make", [False, True], ids=["stored", "made today"])
def test_format_version_1_is_read(tmp_path, make):
    path = tmp_path / "made" if make else GOLDEN
    if make:
        make_golden(path)
    before = sorted(path.rglob("*"))
    store = Store.open(path)
    assert_golden(store)
    version = 2 if make else 1
    assert (store.info().format_version, store.info().segments, store.info().removed_slides) == (
        version,
        3,
        1,
    )
    assert sorted(path.rglob("*")) == before
