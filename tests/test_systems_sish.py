"""SISH as a system: the contract for both keys and both rankings, and the same answers as the index's."""

from dataclasses import replace

import numpy as np
import pytest
from plain_encoder import OnceDescriber, PlainEncoder
from slide_rows import slide_row
from system_contract import SystemContract

import sish
from sish.encode import SlideCodes
from sish.errors import ParameterError, QueryError
from sish.index.params import SearchParams
from sish.index.store import Store
from sish.index.store.snapshot import merge, slide_snapshot
from sish.searchers import TextureKeys, searcher_in_memory, searcher_of
from sish.systems.item import Item
from sish.systems.patch_features import PatchDescriber, Tiles
from sish.systems.sish_system import Sish

MOSAIC = OnceDescriber(Tiles(64, (1.0,)))
KEYED = OnceDescriber(Tiles(64, (1.0,)), keys=True)
SEARCH = SearchParams(threshold=20, visit_query_key=True)


class TestSish(SystemContract):
    needs_mpp = True

    def make(self):
        return Sish(describer=MOSAIC, search=SEARCH)


class TestSishByUncertainty(SystemContract):
    needs_mpp = True
    finds_equals = False  # it ranks by what the labels around agree on

    def make(self):
        return Sish(ranking="uncertainty", describer=MOSAIC, search=SEARCH)

    def test_a_system_that_learns_wants_labels_of_two_classes(self, pictures):
        bare = [Item(item.item_id, item.path, mpp=1.0) for item in pictures]
        with pytest.raises(QueryError, match="label"):
            self.make().fit(bare).search(bare[0])

    def test_one_class_only_is_an_answer_like_any_other(self, pictures):
        alike = [replace(item, labels=frozenset({"pink"})) for item in pictures]
        found = self.make().fit(alike).search(alike[0], 3)
        assert len(found) == 3 and not found.note


class TestSishByPaperKeys(SystemContract):
    needs_mpp = True

    def make(self):
        return Sish(keys="paper", describer=KEYED, search=SEARCH)


def test_both_keys_answer_as_the_index_does(synthetic_slides, built_index):
    """The system is the index: the same slides, the same ranking and the same scores."""
    index = sish.Index.open(built_index)
    rows = {row.slide_id: row for row in index.slides}
    items = [
        Item(row.slide_id, synthetic_slides / f"{row.slide_id}.tif", frozenset({row.label}), row.patient)
        for row in rows.values()
    ]
    system = Sish(ranking="similarity").fit(items)
    for item in items[::3]:
        want = index.search(item.path, k=4, ranking="similarity", exclude_patient=True)
        assert [(hit.item_id, hit.score) for hit in system.search(item, 4)] == [
            (hit.slide_id, hit.score) for hit in want
        ]


@pytest.mark.parametrize("keys", ["texture", "paper"])
def test_a_searcher_in_memory_finds_what_that_of_a_store_finds(keys, tmp_path, monkeypatch):
    monkeypatch.setattr("sish.searchers.BUDGET", 100)  # enough patches for a tree
    rng = np.random.default_rng(5)
    slides = [
        slide_snapshot(
            slide_row(f"s{n}", 60),
            rng.integers(0, 50, (60, 1)), rng.integers(0, 256, (60, 16), np.uint8), np.zeros((60, 2), int),
        )
        for n in range(5)
    ]  # fmt: skip
    with Store.create(tmp_path / "store", {}) as store:
        store.append_many(slides)
        if keys == "texture":
            TextureKeys(store, seed=0).grow(0)
    params = SearchParams(budget=40, threshold=60, interval=1, visit_query_key=True)
    stored = searcher_of(Store.open(tmp_path / "store"), keys, params)
    loose = searcher_in_memory(merge(slides), keys, params)
    assert keys == "paper" or loose.archive.cells.tree.n_keys == stored.archive.cells.tree.n_keys > 1
    codes = SlideCodes(
        rng.integers(0, 50, (9, 1)), rng.integers(0, 256, (9, 16), np.uint8), np.zeros((9, 2), int)
    )
    for exclude in (None, np.arange(5) == 2):
        want, got = (each.bags(codes, exclude, params) for each in (stored, loose))
        assert got.patch.tolist() == want.patch.tolist() and len(got.patch)
        assert got.hamming.tolist() == want.hamming.tolist()


def test_paper_keys_want_codes(pictures):
    class Bare(PlainEncoder):
        codebook = None

    with pytest.raises(ParameterError, match="codebook"):
        Sish(keys="paper", describer=PatchDescriber(Tiles(64), Bare(), keys=True)).describe(pictures[0])
    mirrored = PatchDescriber(Tiles(48), PlainEncoder(), keys=True).describe(
        pictures[0]
    )  # 6 x 6 codes make one block
    assert len(mirrored.keys) == len(mirrored)
    with pytest.raises(ParameterError, match="keys="):
        Sish(keys="colour")
