"""Archives that learn their tree as they grow, and both kinds of keys behind one interface."""

import numpy as np
import pytest
from slide_rows import slide_row

import sish
from sish.encode import SlideCodes
from sish.index.barcode import nearest
from sish.index.params import SearchParams
from sish.index.store import Store, slide_snapshot
from sish.index.store.verify import verify
from sish.results import Query
from sish.searchers import TextureKeys, searcher_of, stored_tree
from sish.view import View

BITS = 1024


def tissue(seed: int, slides: int, patches: int = 60) -> list[np.ndarray]:
    """Barcodes of slides that each hold some of 40 textures, with a tenth of the bits flipped."""
    random = np.random.default_rng(seed)
    textures = np.random.default_rng(0).random((40, BITS)) < 0.5
    out = []
    for _ in range(slides):
        chosen = textures[random.choice(random.choice(40, 5), patches)]
        out.append(np.packbits(chosen ^ (random.random(chosen.shape) < 0.1), axis=1))
    return out


def grow(store: Store, barcodes: list[np.ndarray], first: int = 0) -> None:
    keys = TextureKeys(store, seed=0)
    for number, codes in enumerate(barcodes, first):
        xy = np.stack([np.arange(len(codes)), np.full(len(codes), number)], axis=1)
        store.append(slide_row(f"s{number}", len(codes)), keys.of(codes), codes, xy)
        keys.grow(len(codes))


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A store that has learnt its tree, and the barcodes of its slides."""
    barcodes = tissue(1, 90)
    path = tmp_path_factory.mktemp("grown") / "archive.sish"
    with Store.create(path, {}) as store:
        grow(store, barcodes)
    return path, barcodes


def test_a_small_archive_has_no_tree_and_compares_with_everything(tmp_path):
    barcodes = tissue(2, 5)
    with Store.create(tmp_path / "a", {}) as store:
        grow(store, barcodes)
        assert store.tree is None
        patches = searcher_of(store, "texture", SearchParams(threshold=BITS, budget=10))
    codes = SlideCodes(np.zeros((60, 1), np.int64), barcodes[0], np.zeros((60, 2), np.int64))
    bags = patches.bags(codes, None, patches.params)
    exact = nearest(np.concatenate(barcodes), barcodes[0], 300)
    assert np.array_equal(bags.hamming.reshape(60, 300), exact.hamming)


def test_the_tree_is_learnt_once_there_is_enough_and_makes_every_key(grown):
    path, barcodes = grown
    store = Store.open(path)
    tree = stored_tree(store)
    assert tree is not None and tree.n_keys > 1
    snapshot = store.snapshot()
    assert np.array_equal(snapshot.keys[:, 0], tree.keys(snapshot.barcodes))
    order = snapshot.insertion_order()
    assert np.array_equal(snapshot.barcodes[order], np.concatenate(barcodes))
    assert snapshot.l0_xy[order][60:62].tolist() == [[0, 1], [1, 1]]
    assert verify(path) == [] and store.leftovers() == []
    assert len(list(path.glob("tree.*"))) == 1


def test_the_tree_does_not_depend_on_how_slides_were_committed(tmp_path, grown):
    """Commits come every so many seconds, hence anywhere; a tree is learnt after the same slide always."""
    path, barcodes = grown
    with Store.create(tmp_path / "a", {}) as store:
        keys, waiting = TextureKeys(store, seed=0), []
        for number, codes in enumerate(barcodes):
            waiting.append((slide_row(f"s{number}", len(codes)), codes))
            patches = sum(len(codes) for _, codes in waiting)
            if number % 7 == 3 or keys.is_due(patches) or number == len(barcodes) - 1:
                store.append_many(
                    [
                        slide_snapshot(of, keys.of(codes), codes, np.zeros((len(codes), 2), int))
                        for of, codes in waiting
                    ]
                )
                keys.grow(patches)
                waiting = []
        one_by_one = Store.open(path)
        for name, array in one_by_one.tree.items():
            assert np.array_equal(store.tree[name], array)
        assert np.array_equal(store.snapshot().keys, one_by_one.snapshot().keys)
        assert np.array_equal(store.snapshot().barcodes, one_by_one.snapshot().barcodes)


def test_what_a_search_finds_is_what_a_scan_finds(grown):
    path, barcodes = grown
    patches = searcher_of(Store.open(path), "texture", SearchParams())
    queries = np.concatenate(tissue(3, 2))
    codes = SlideCodes(np.zeros((120, 1), np.int64), queries, np.zeros((120, 2), np.int64))
    exact = nearest(np.concatenate(barcodes), queries, 10).hamming
    bags = patches.bags(codes, None, SearchParams(threshold=BITS))
    found = bags.hamming[bags.offset[:-1, None] + np.arange(10)]
    assert (found <= exact[:, -1:]).mean() > 0.95, "recall at 10"
    scan = patches.scan(codes, np.zeros(90, bool), 10)
    assert np.array_equal(scan.hamming.reshape(120, 10), exact)


def test_the_searched_archive_goes_on_changing(tmp_path, grown):
    _, barcodes = grown
    path = tmp_path / "archive.sish"
    with Store.create(path, {}) as store:
        grow(store, barcodes)
        tree = store.tree
        grow(store, tissue(4, 3), first=90)  # by the same tree
        assert np.array_equal(store.tree["leaf_blocks"], tree["leaf_blocks"])
        store.remove(["s1", "s91"])
        view = View.of(searcher_of(store, "texture", SearchParams(threshold=400)))
        store.compact()
        after = View.of(searcher_of(store, "texture", SearchParams(threshold=400)))
        assert store.leftovers() == []
    query = Query("q", None, "s90", 1.0, None, 60, 256.0)
    codes = SlideCodes(np.zeros((60, 1), np.int64), tissue(4, 1)[0], np.zeros((60, 2), np.int64))
    for one in (view, after):
        assert one.search(query, codes, k=1)[0].slide_id == "s90"
        found = {hit.slide_id for hit in one.search(query, codes, k=100, exclude_patient=True)}
        assert len(found) == 90 and not found & {"s1", "s90", "s91"}
    pairs = view.search(query, codes, k=1)[0].patches
    assert all(pair.xy[1] == 90 and pair.hamming == 0 for pair in pairs)


def test_a_damaged_tree_is_found_and_refused(tmp_path, grown):
    path = tmp_path / "archive.sish"
    with Store.create(path, {}) as store:
        grow(store, grown[1])
    (file,) = path.glob("tree.*")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert [line for line in verify(path) if file.name in line]
    with pytest.raises(sish.IndexCorruptError, match=file.name):
        searcher_of(Store.open(path), "texture", SearchParams())
    file.unlink()
    assert [line for line in verify(path) if file.name in line]
    with pytest.raises(sish.StoreError, match=file.name):
        searcher_of(Store.open(path), "texture", SearchParams())


@pytest.mark.parametrize("keys", ["paper", "texture"])
def test_both_keys_find_a_slide_itself(keys, tmp_path, synthetic_slides):
    index = sish.Index.create(tmp_path / "archive.sish", recipe=sish.Recipe(keys=keys))
    index.add(synthetic_slides, labels=synthetic_slides / "labels.csv", show_progress=False)
    assert sish.Index.open(index.path).recipe.keys == keys
    for ranking in ("uncertainty", "similarity"):
        results = index.search(index.slides[2].path, k=3, ranking=ranking)
        assert results[0].slide_id == index.slides[2].slide_id and len(results) == 3
    assert sish.verify(index.path) == []
