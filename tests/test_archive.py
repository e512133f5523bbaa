"""Segments of a store, searched where they lie, against a scan of what was appended and not removed."""

from dataclasses import replace

import numpy as np
import pytest
from slide_rows import slide_row
from test_hierarchy import clustered

from sish.errors import ParameterError
from sish.index.store import Store
from sish.index.texture.archive import Archive, learn_tree, rekeyed
from sish.index.texture.tree import TextureTree

EVERYTHING = 10**9


@pytest.fixture
def stored(tmp_path):
    """A store of 12 slides in several segments, two removed, one replaced; and what is live, in order."""
    rng = np.random.default_rng(0)
    barcodes = clustered(rng, 1300)
    tree = TextureTree.learn(barcodes)
    live = {}
    with Store.create(tmp_path / "index", {}) as store:
        for number in range(12):
            count = int(rng.integers(0, 150)) if number else 300
            own = barcodes[rng.integers(0, 1300, count)]
            xy = rng.integers(0, 9999, (count, 2))
            name = f"s{number}" if number != 9 else "s2"
            live.pop(name, None)
            live[name] = (own, xy)
            store.append(slide_row(name, count), tree.keys(own)[:, None], own, xy, replace=True)
        store.remove(["s4", "s7"])
        del live["s4"], live["s7"]
    return Store.open(tmp_path / "index"), tree, live, clustered(rng, 15)


def expected(live, queries, k, skip=()):
    """(distance, slide id, number in the slide) of the k nearest of each query."""
    out = []
    for query in queries:
        found = [
            (int(np.bitwise_count(barcode ^ query).sum()), place, name, row)
            for place, (name, (own, _)) in enumerate(live.items())
            if name not in skip
            for row, barcode in enumerate(own)
        ]
        out.append([(bits, name, row) for bits, _, name, row in sorted(found)[:k]])
    return out


def answer(archive, bags, live):
    names = [archive.slides[number].slide_id for number in archive.slide_of(bags.patch)]
    flat = []
    for bits, name, xy in zip(bags.hamming, names, archive.l0_xy_of(bags.patch), strict=True):
        flat.append((int(bits), name, int(np.flatnonzero((live[name][1] == xy).all(axis=1))[0])))
    return [flat[a:b] for a, b in zip(bags.offset[:-1], bags.offset[1:], strict=True)]


def test_an_unlimited_search_is_a_scan_of_the_live_slides(stored):
    store, tree, live, queries = stored
    archive = Archive.of(tree, store.segments)
    assert len(store.segments) > 1 and archive.removed.any()
    assert answer(archive, archive.search(queries, k=8, budget=EVERYTHING), live) == expected(
        live, queries, 8
    )


def test_segments_with_other_keys_get_a_tree_of_their_own(stored, tmp_path):
    _, _, live, queries = stored
    with Store.create(tmp_path / "other", {}) as store:
        for number, (name, (own, xy)) in enumerate(live.items()):
            keys = np.stack([np.arange(len(own))[::-1], np.full(len(own), number)], axis=1)
            store.append(slide_row(name, len(own)), keys, own, xy)
        tree, same_tree = (
            learn_tree([part.patches.barcodes for part in store.segments], seed=3) for _ in range(2)
        )
        store.rekey(tree.to_arrays(), lambda patches: rekeyed(patches, tree))
        archive, again = (Archive.of(one, store.segments) for one in (tree, same_tree))
    want = expected(live, queries, 8)
    assert answer(archive, archive.search(queries, k=8, budget=EVERYTHING), live) == want
    some, same = archive.search(queries, budget=100), again.search(queries, budget=100)
    assert some.patch.tolist() == same.patch.tolist()
    nearest = [best[0][0] for best in want]
    assert np.mean(some.hamming[some.offset[:-1]] == nearest) > 0.7  # 100 of 1,000 patches looked at


def test_a_patch_is_of_the_slide_that_its_table_says(stored):
    store, tree, _, _ = stored
    archive = Archive.of(tree, store.segments)
    tables = archive.cells.tables
    want = np.concatenate([table.slide + table.first_slide for table in tables])
    assert len(tables) > 1 and archive.slide_of(np.arange(len(archive))).tolist() == want.tolist()
    mixed = np.random.default_rng(1).permutation(len(archive))
    assert archive.slide_of(mixed).tolist() == want[mixed].tolist()
    for number in (-1, len(archive)):
        with pytest.raises(IndexError):
            archive.slide_of(np.array([0, number]))


def test_excluded_slides_are_left_out_beside_removed_ones(stored):
    store, tree, live, queries = stored
    archive = Archive.of(tree, store.segments)
    exclude = np.array([row.slide_id in ("s0", "s10") for row in archive.slides])
    bags = archive.search(queries, k=5, budget=EVERYTHING, exclude=exclude)
    assert answer(archive, bags, live) == expected(live, queries, 5, skip=("s0", "s10"))
    with pytest.raises(ParameterError):
        archive.search(queries, exclude=exclude[:3])


def test_compacting_changes_no_answer(stored):
    store, tree, live, queries = stored
    before = Archive.of(tree, store.segments)
    want = answer(before, before.search(queries, k=5, budget=EVERYTHING), live)
    with Store.open(store.path, write=True) as writer:
        writer.compact()
        after = Archive.of(tree, writer.segments)
    assert len(after.parts) == 1 and not after.removed.any()
    assert answer(after, after.search(queries, k=5, budget=EVERYTHING), live) == want
    # what was opened before still answers: its files stay mapped
    assert answer(before, before.search(queries, k=5, budget=EVERYTHING), live) == want


def test_barcodes_are_read_from_the_files(stored):
    store, tree, _, _ = stored
    archive = Archive.of(tree, store.segments)
    for table in archive.cells.tables:
        assert not table.barcodes.flags.owndata and not table.barcodes.flags.writeable


def test_an_empty_store_answers(tmp_path):
    barcodes = clustered(np.random.default_rng(1), 10)
    with Store.create(tmp_path / "index", {}) as store:
        archive = Archive.of(TextureTree.learn(barcodes), store.segments)
        learnt = Archive.of(learn_tree([part.patches.barcodes for part in store.segments]), store.segments)
    assert len(archive) == 0 and archive.search(barcodes).lengths().tolist() == [0] * 10
    assert len(learnt) == 0


@pytest.mark.parametrize("kept", [{"s2"}, {"s0", "s3", "s11"}, {"s5"}, {"s4", "s8"}])
@pytest.mark.parametrize("threshold", [None, 60])
def test_a_filter_that_leaves_few_patches_compares_with_these_alone(stored, monkeypatch, kept, threshold):
    store, tree, live, queries = stored
    archive = Archive.of(tree, store.segments)
    exclude = np.array([row.slide_id not in kept for row in archive.slides])
    others = [name for name in live if name not in kept]
    found = archive.search(queries, k=7, budget=1000, exclude=exclude, threshold=threshold)
    monkeypatch.setattr("sish.index.texture.archive.FEW", 0)  # as a walk over everything finds them
    walked = archive.search(queries, k=7, budget=EVERYTHING, exclude=exclude, threshold=threshold)
    for name in ("offset", "patch", "hamming"):
        assert np.array_equal(getattr(found, name), getattr(walked, name)), name
    if threshold is None:
        assert answer(archive, found, live) == expected(live, queries, 7, skip=others)


def test_a_slide_is_looked_up_by_its_id_in_every_state(stored):
    store, *_ = stored
    assert all(store.state.row(row.slide_id) == row for row in store.slides)
    assert [name for name in ("s2", "s4", "s7", "none") if name in store] == ["s2"]
    with Store.open(store.path, write=True) as writer:
        before = writer.state
        writer.relabel({"s2": replace(writer.state.row("s2"), label="new")})
        writer.remove(["s3"])
        assert (writer.state.row("s2").label, writer.state.row("s3")) == ("new", None)
        assert before.row("s3") is not None and before.row("s2").label != "new"
    assert 5 not in store and None not in store
