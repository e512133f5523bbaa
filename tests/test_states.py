"""An answer is of one committed state, whatever is committed between two steps of it.

Run as a script, this file is a writer in a process of its own: ``python tests/test_states.py INDEX ROUNDS``.
"""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from slide_rows import slide_row

import sish
from sish import index_base, queries, searchers
from sish.index.params import SearchParams
from sish.index.store import Snapshot, Store, slide_snapshot
from sish.index.texture.archive import learn_keys, learn_tree, rekeyed
from sish.searchers import searcher_of, stored_tree

N_BYTES, PATCHES, SLIDES = 128, 40, 10
STAYS = "s0"  # the slide that is asked for: replaced now and then, never gone


def barcodes_of(slide_id: str, version: int) -> np.ndarray:
    """The patches of a version of a slide: textures that all share, with a tenth of the bits flipped."""
    textures = np.random.default_rng(0).integers(0, 256, (30, N_BYTES), np.uint8)
    rng = np.random.default_rng([int(slide_id[1:]), version])
    noise = np.packbits(rng.random((PATCHES, 8 * N_BYTES)) < 0.1, axis=1)
    return textures[rng.integers(30, size=PATCHES)] ^ noise


def slide(store: Store, slide_id: str, version: int) -> Snapshot:
    """A version of a slide, ready to be stored; a patch's place tells its number and the version."""
    row = slide_row(slide_id, PATCHES)
    barcodes, tree = barcodes_of(slide_id, version), stored_tree(store)
    keys = np.zeros(PATCHES, np.int64) if tree is None else tree.keys(barcodes)
    xy = np.stack([np.arange(PATCHES), np.full(PATCHES, version)], axis=1)
    return slide_snapshot(row, keys[:, None], barcodes, xy)


def make_index(path: Path) -> None:
    """An index of ten slides with a tree, which looks at a third of it for each patch."""
    sish.Index.create(path, search=SearchParams(threshold=400, budget=PATCHES * SLIDES // 3))
    with Store.open(path, write=True) as store:
        store.append_many([slide(store, f"s{number}", 0) for number in range(SLIDES)])
        learn_keys(store)


def change(path: Path, rounds: int, tell: Callable[[dict[str, int]], None]) -> None:
    """Replace, remove and add slides and learn new trees; tell each state before it is committed."""
    rng = np.random.default_rng(1)
    with Store.open(path, write=True) as store:
        there = {row.slide_id: 0 for row in store.slides}
        for version in range(1, rounds + 1):
            chosen = f"s{rng.integers(1, SLIDES)}" if version % 3 else STAYS
            if chosen != STAYS and chosen in there and version % 2:
                there = {name: old for name, old in there.items() if name != chosen}
                tell(there)
                store.remove([chosen])
            else:
                there = {**there, chosen: version}
                tell(there)
                store.append_many([slide(store, chosen, version)], replace=True)
            if version % 4 == 0:
                tree = learn_tree([part.patches.barcodes for part in store.segments], seed=version)
                store.rekey(tree.to_arrays(), lambda patches, tree=tree: rekeyed(patches, tree))


def search(index: sish.Index) -> dict[str, int]:
    """Ask for the slide that stays, check every pair of patches that the answer names, and tell its state."""
    results = index.search(STAYS, k=2 * SLIDES)
    versions = {hit.slide_id: hit.patches[0].xy[1] for hit in results}
    assert results[0].slide_id == STAYS
    assert {pair.hamming for pair in results[0].patches} == {0}
    for hit in results:
        for pair in hit.patches:
            (asked, of), (found, version) = pair.query_xy, pair.xy
            assert (of, version) == (versions[STAYS], versions[hit.slide_id])
            bits = barcodes_of(STAYS, of)[asked] ^ barcodes_of(hit.slide_id, version)[found]
            assert pair.hamming == np.bitwise_count(bits).sum()
    return versions


def read(index: sish.Index, stop: threading.Event, seen: list, errors: list) -> None:
    try:
        while not stop.wait(0.02) or not seen:  # a moment for the writer, or the readers take all the time
            seen.append(search(index))
    except BaseException as error:
        errors.append(error)


def with_readers(path: Path, write: Callable[[], list[dict[str, int]]]) -> None:
    """Search in threads while `write` runs; every answer must be one of the states that it returns."""
    stop, errors = threading.Event(), []
    shared = sish.Index.open(path)
    seen: list[list[dict[str, int]]] = [[], [], []]
    readers = [
        threading.Thread(target=read, args=[index, stop, own, errors])
        for index, own in zip((shared, shared, sish.Index.open(path)), seen, strict=True)
    ]
    for reader in readers:
        reader.start()
    try:
        states = write()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert errors == []
    assert all(answer in states for own in seen for answer in own)
    assert search(shared) == states[-1]
    assert sish.verify(path) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("states") / "archive.sish"
    make_index(path)
    return path


@pytest.fixture
def path(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "archive.sish")


def test_every_answer_is_of_one_committed_state(path):
    def write() -> list[dict[str, int]]:
        states = [{f"s{number}": 0 for number in range(SLIDES)}]
        change(path, 9, states.append)
        return states

    with_readers(path, write)


@pytest.mark.slow
def test_every_answer_is_of_one_committed_state_of_another_process(path):
    def write() -> list[dict[str, int]]:
        done = subprocess.run(
            [sys.executable, __file__, path, "40"], stdout=subprocess.PIPE, text=True, check=True
        )
        first = {f"s{number}": 0 for number in range(SLIDES)}
        return [first, *map(json.loads, done.stdout.splitlines())]

    with_readers(path, write)


def assert_keys_are_of_the_tree(patches) -> None:
    for part in patches.archive.parts:
        assert np.array_equal(part.keys[:, 0], patches.archive.cells.tree.keys(part.barcodes))


def test_a_tree_and_its_segments_are_of_one_commit(path, monkeypatch):
    reader, original = Store.open(path), searchers.tree_of

    def commit_between(state):
        tree = original(state)
        with Store.open(path, write=True) as store:
            other = learn_tree([part.patches.barcodes for part in store.segments], seed=7)
            store.rekey(other.to_arrays(), lambda patches: rekeyed(patches, other))
        assert reader.refresh()
        return tree

    with monkeypatch.context() as patch:
        patch.setattr(searchers, "tree_of", commit_between)
        assert_keys_are_of_the_tree(searcher_of(reader, "texture", SearchParams()))
    assert_keys_are_of_the_tree(searcher_of(reader, "texture", SearchParams()))


def test_a_reader_keeps_its_tree_and_patches_when_a_writer_makes_others(path):
    reader = Store.open(path)
    tree, keys = {name: array.copy() for name, array in reader.tree.items()}, reader.snapshot().keys.copy()
    with Store.open(path, write=True) as store:
        for seed in (5, 6):
            other = learn_tree([part.patches.barcodes for part in store.segments], seed=seed)
            store.rekey(other.to_arrays(), lambda patches, other=other: rekeyed(patches, other))
        assert not np.array_equal(store.tree["leaf_blocks"], tree["leaf_blocks"])
    assert len(list(path.glob("tree.*"))) == 1
    assert all(np.array_equal(reader.tree[name], array) for name, array in tree.items())
    assert np.array_equal(reader.snapshot().keys, keys)
    assert_keys_are_of_the_tree(searcher_of(reader, "texture", SearchParams()))


def test_a_view_that_was_overtaken_while_it_was_built_is_built_anew(path, monkeypatch):
    index, original = sish.Index.open(path), index_base.searcher_of

    def remove_between(state, keys, params, **options):
        patches = original(state, keys, params, **options)
        monkeypatch.setattr(index_base, "searcher_of", original)
        sish.Index.open(path).remove("s3")
        other = threading.Thread(target=lambda: index.slides)  # brings the shared store to the new state
        other.start()
        other.join()
        return patches

    monkeypatch.setattr(index_base, "searcher_of", remove_between)
    assert "s3" in search(index)  # begun before
    assert "s3" not in search(index)


def test_a_query_is_looked_up_in_the_state_that_is_ranked(path, monkeypatch):
    index, original = sish.Index.open(path), queries.query_of_indexed

    def replace_between(*arguments):
        asked = original(*arguments)
        monkeypatch.setattr(queries, "query_of_indexed", original)
        with Store.open(path, write=True) as store:
            store.append_many([slide(store, STAYS, 9)], replace=True)
        assert len(index) == SLIDES  # the shared store has gone on
        return asked

    monkeypatch.setattr(queries, "query_of_indexed", replace_between)
    assert search(index)[STAYS] == 0
    assert search(index)[STAYS] == 9


def test_a_reader_that_failed_once_reads_again(path, monkeypatch):
    """Its next search goes on to the newest state, although the manifest is the same as when it failed."""
    reader = Store.open(path)
    monkeypatch.setattr("sish.index.store.manifest._RACY_NS", 0)  # a manifest of some age
    with Store.open(path, write=True) as store:
        store.remove(["s3"])
    with monkeypatch.context() as patch:
        patch.setattr(
            "sish.index.store.store.load_state", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            reader.refresh()
    assert "s3" in reader and reader.refresh() and "s3" not in reader
    assert not reader.refresh()


def test_what_did_not_change_is_not_opened_again(path):
    reader = Store.open(path)
    (old,) = reader.segments
    old.check(path / "segments" / old.record.name)
    with Store.open(path, write=True) as store:
        store.append_many([slide(store, "s77", 1)])
    first, second = reader.current().segments
    assert first is old and first.checked and not second.checked
    assert [row.slide_id for row in second.slides] == ["s77"]


if __name__ == "__main__":
    change(Path(sys.argv[1]), int(sys.argv[2]), lambda state: print(json.dumps(state), flush=True))  # noqa: T201
