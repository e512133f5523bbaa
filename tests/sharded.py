"""Archives of random codes, and shards of them, that are written without slides and encoders."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from slide_rows import slide_row

import sish
from sish.encode import SlideCodes
from sish.index.store import SlideRow, Store
from sish.rerank import Rerank
from sish.shards import Shard, ShardRecord, digest_of
from sish.slide_writer import SlideWriter

PATCHES = 60
_TEXTURES = np.random.default_rng(0).integers(0, 256, (40, 128), np.uint8)


def coded_slide(slide_id: str, vectors: int = 0) -> tuple[SlideRow, SlideCodes]:
    """The slide of this id: patches of five textures, each with noise; stored vectors of some bytes."""
    rng = np.random.default_rng(list(slide_id.encode()))
    noise = np.bitwise_and.reduce(rng.integers(0, 256, (4, PATCHES, 128), np.uint8))
    barcodes = _TEXTURES[rng.integers(0, 40, 5)[rng.integers(0, 5, PATCHES)]] ^ noise
    l0_xy = np.stack(np.divmod(rng.permutation(PATCHES), 8), 1) * 512
    row = slide_row(slide_id, PATCHES, label="abc"[len(slide_id) % 3], patient=f"p{slide_id[-1]}")
    stored = rng.integers(0, 256, (PATCHES, vectors), np.uint8) if vectors else None
    return row, SlideCodes(np.zeros((PATCHES, 1), np.int64), barcodes, l0_xy, stored)


def write_codes(path: Path, ids: Iterable[str], header: dict, vectors: int = 0) -> Path:
    """An index of these slides, in this order, as one add writes it."""
    recipe = sish.Recipe()
    with Store.create(path, header) as store:
        writer = SlideWriter(store, recipe)
        for slide_id in ids:
            writer.take(*coded_slide(slide_id, vectors))
            if writer.is_due:
                writer.commit()
        writer.commit()
    return path


def header_of_codes(folder: Path, vectors: int = 0) -> dict:
    """The header of an index of such slides."""
    store = sish.Index.create(folder / "header.sish")._store
    return dict(store.header) | ({"rerank": Rerank.of("float16", vectors // 2).to_json()} if vectors else {})


def write_shards(folder: Path, ids: list[str], count: int, header: dict, vectors: int = 0) -> list[Path]:
    """Finished shards of a list of slides, each filled in an order of its own."""
    paths = []
    for number in range(count):
        shard = Shard(number, count)
        own = [slide_id for slide_id in reversed(ids) if shard.holds(slide_id)]
        paths.append(write_codes(folder / f"shard{number}", own, header, vectors))
        keep_record(
            paths[-1], ShardRecord(number, count, digest_of(ids), len(own), 0, 1.0, 2.0, finished=True)
        )
    return paths


def keep_record(path: Path, record: ShardRecord) -> None:
    """Keep another record with a shard."""
    with Store.open(path, write=True) as store:
        store.keep_measured(record.fact())


def assert_same(one: Path, other: Path) -> None:
    """Check that two indexes have the same slides, patches, keys, tree and threshold."""
    with Store.open(one) as mine, Store.open(other) as its:
        assert mine.slides == its.slides
        assert mine.header == its.header
        patches, others = mine.snapshot(), its.snapshot()
        assert patches.arrays.keys() == others.arrays.keys()
        for name, array in patches.arrays.items():
            np.testing.assert_array_equal(array, others.arrays[name], err_msg=name)
        trees = mine.tree or {}, its.tree or {}
        assert trees[0].keys() == trees[1].keys()
        for name, array in trees[0].items():
            np.testing.assert_array_equal(array, trees[1][name], err_msg=name)
        for name in ("tree", "recall"):
            assert mine.state.measured.get(name) == its.state.measured.get(name), name
    assert sish.Index.open(one).params == sish.Index.open(other).params
