"""Large arrays lie in files without names, and a store writes and merges them as it does small ones."""

import numpy as np
import pytest
from code_archives import random_slides, store_of
from sharded import assert_same, header_of_codes, write_codes, write_shards

import sish
from sish.index.store import scratch as scratch_module
from sish.index.store.scratch import scratch
from sish.index.store.snapshot import merge, merge_into


@pytest.fixture
def always_large(monkeypatch):
    """Put every array into a file, and work on a few patches at a time."""
    monkeypatch.setattr(scratch_module, "LARGE_BYTES", -1)
    monkeypatch.setattr(scratch_module, "BLOCK", 7)


def test_a_large_array_takes_a_file_that_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch_module, "LARGE_BYTES", 100)
    small, large = scratch(tmp_path, (3, 4), np.int64), scratch(tmp_path, (4, 4), np.int64)
    in_memory = scratch(None, (4, 4), np.int64)
    large[:] = in_memory[:] = small[0, 0] = 7
    assert [isinstance(array.base, np.memmap) for array in (small, large, in_memory)] == [False, True, False]
    assert (large == 7).all() and large.shape == (4, 4) and in_memory.ctypes.data % 64 == 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with store_of(tmp_path / "a", random_slides(0), "texture") as store:
        before = store.snapshot()
        store.remove([store.slides[0].slide_id])  # so that there is something to rewrite
        monkeypatch.setattr(scratch_module, "LARGE_BYTES", -1)
        monkeypatch.setattr(scratch_module, "_reserve", full)
        with pytest.raises(sish.StoreError, match="No space left"):
            store.compact()
    assert sish.verify(tmp_path / "a") == []
    assert len(sish.index.store.Store.open(tmp_path / "a").slides) == len(before.slides) - 1


@pytest.mark.parametrize("kind", ["texture with a tree", "paper"])
def test_tables_are_merged_as_they_are_in_memory(tmp_path, kind, always_large):
    parts = [
        store_of(tmp_path / str(seed), random_slides(seed), kind, commits=1).snapshot() for seed in range(4)
    ]
    wanted, found = merge(parts), merge_into(tmp_path, parts)
    assert isinstance(found.barcodes.base, np.memmap)
    for name, array in wanted.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)


def test_an_archive_that_is_always_large_is_the_same(tmp_path, monkeypatch):
    ids, header = [f"s{number:03}" for number in range(70)], header_of_codes(tmp_path, vectors=16)
    write_codes(tmp_path / "one", ids, header, vectors=16)
    monkeypatch.setattr(scratch_module, "LARGE_BYTES", -1)
    monkeypatch.setattr(scratch_module, "BLOCK", 1000)
    sish.merge(tmp_path / "m", write_shards(tmp_path, ids, 2, header, vectors=16), show_progress=False)
    assert sish.index.store.Store.open(tmp_path / "m").tree is not None
    assert_same(tmp_path / "one", tmp_path / "m")
    assert sish.verify(tmp_path / "m") == []
