"""The durable store against a list, and each way in which a folder can be refused."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sish.errors import (
    IndexCorruptError,
    IndexFormatError,
    IndexLockedError,
    IndexNotFoundError,
    ParameterError,
    SishError,
    SlideExistsError,
    StoreError,
    UnknownSlideError,
)
from sish.index.manifest import read_manifest
from sish.index.segment import write_segment
from sish.index.store import NO_TISSUE, SlideRow, Snapshot, Store
from sish.index.verify import verify

HEADER = {"fingerprint": "abc", "patch_px": 256, "mpp": 1.0, "search": {"steps": [1, 2]}, "note": None}
ARRAYS = ("keys", "barcodes", "l0_xy", "slide", "row")


def make_row(slide_id: str, n: int, **changes) -> SlideRow:
    row = SlideRow(
        slide_id=slide_id,
        path=f"/slides/{slide_id}.svs",
        n_patches=n,
        patch_l0_px=1024.5,
        mpp=0.25,
        mpp_source="user",
        width=40_000,
        height=30_000,
        label=None,
        patient=slide_id,
        site=None,
        status="indexed" if n else NO_TISSUE,
        metadata={"stain": "H&E"},
    )
    return replace(row, **changes)


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
    for name, dtype in zip(ARRAYS, (np.int64, np.uint8, np.int64, np.int32, np.int32), strict=True):
        assert getattr(got, name).dtype == dtype
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)


def fill(store: Store, counts: list[int], first: int = 0) -> list:
    slides = [(make_row(f"s{i}", n), make_arrays(n, i)) for i, n in enumerate(counts, start=first)]
    for row, arrays in slides:
        store.append(row, *arrays)
    return slides


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path / "a.sish", HEADER) as store:
        yield store


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of operations leaves what a list of slides would hold."""

    names = st.sampled_from([f"s{i}" for i in range(8)])

    @initialize()
    def create(self):
        self.fsync, os.fsync = os.fsync, lambda descriptor: None  # durability is tested elsewhere
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store.create(self.folder / "index", HEADER)
        self.slides = []
        self.held = [(self.store.snapshot(), expected([]))]
        self.widths_known = False

    def teardown(self):
        if hasattr(self, "fsync"):
            os.fsync = self.fsync
            self.store.close()
            shutil.rmtree(self.folder)

    @rule(name=names, n=st.integers(0, 12), seed=st.integers(0, 2**32), replacing=st.booleans())
    def append(self, name, n, seed, replacing):
        row, arrays = make_row(name, n), make_arrays(n, seed)
        if any(old.slide_id == name for old, _ in self.slides):
            if not replacing:
                with pytest.raises(SlideExistsError):
                    self.store.append(row, *arrays)
                return
            self.slides = [slide for slide in self.slides if slide[0].slide_id != name]
        self.slides.append((row, arrays))
        self.store.append(row, *arrays, replace=replacing)
        self.widths_known = True

    @rule(doomed=st.lists(names, max_size=4))
    def remove(self, doomed):
        kept = [slide for slide in self.slides if slide[0].slide_id not in doomed]
        assert self.store.remove(doomed) == len(self.slides) - len(kept)
        self.slides = kept

    @rule(chosen=st.sets(names, max_size=3), label=st.text(max_size=3))
    def relabel(self, chosen, label):
        rows = {
            row.slide_id: replace(row, label=label, patient="p" + label, metadata={label: "x"})
            for row, _ in self.slides
            if row.slide_id in chosen
        }
        self.store.relabel(rows)
        self.slides = [(rows.get(row.slide_id, row), arrays) for row, arrays in self.slides]

    @rule()
    def compact(self):
        self.store.compact()
        assert self.store.info().segments == bool(self.slides)
        assert self.store.info().removed_slides == 0

    @rule(write=st.booleans())
    def reopen(self, write):
        self.store.close()
        reader = Store.open(self.store.path)
        assert_same(reader.snapshot(), expected(self.slides))
        self.store = Store.open(self.store.path, write=True)
        assert dict(self.store.header) == HEADER

    @rule()
    def hold(self):
        self.held.append((self.store.snapshot(), expected(self.slides)))

    @invariant()
    def same(self):
        if not hasattr(self, "store"):
            return
        want = expected(self.slides)
        assert_same(self.store.snapshot(), want)
        assert self.store.slides == want.slides
        assert (self.store.info().slides, self.store.info().patches) == (len(want.slides), len(want))
        for got, then in self.held:
            assert_same(got, then)
        assert self.store.verify() == []
        assert self.store.leftovers() == []


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_what_is_given_is_what_comes_back(tmp_path):
    path = tmp_path / "deep" / "er" / "a.sish"
    with Store.create(path, HEADER) as store:
        assert (store.path, store.generation, len(store), dict(store.header)) == (path, 0, 0, HEADER)
        slides = fill(store, [5, 0, 7])
        assert store.generation == 3
        assert "s1" in store
        assert "s9" not in store
    reader = Store.open(str(path))
    assert dict(reader.header) == HEADER
    assert reader.slides == tuple(row for row, _ in slides)
    assert_same(reader.snapshot(), expected(slides))


def test_an_empty_index_has_an_empty_snapshot(store):
    snapshot = store.snapshot()
    assert len(snapshot) == 0
    assert [getattr(snapshot, name).shape for name in ARRAYS] == [(0, 1), (0, 1), (0, 2), (0,), (0,)]
    fill(store, [0, 0])
    assert store.snapshot().keys.shape == (0, 3)
    store.remove(["s0", "s1"])
    assert store.info().segments == 0


def test_ties_are_in_insertion_order(store):
    for slide_id, keys in [("a", [5, 1, 5]), ("b", [5, 1]), ("c", [1])]:
        n = len(keys)
        store.append(
            make_row(slide_id, n), np.array(keys)[:, None], np.zeros((n, 1), np.uint8), np.zeros((n, 2), int)
        )
    got = store.snapshot()
    assert got.keys[:, 0].tolist() == [1, 1, 1, 5, 5, 5]
    assert got.slide.tolist() == [0, 1, 2, 0, 0, 1]
    assert got.row.tolist() == [1, 1, 0, 0, 2, 0]
    assert got.insertion_order().tolist() == [3, 0, 4, 5, 1, 2]


def test_one_live_segment_is_served_from_its_files(store):
    fill(store, [9, 9])
    store.compact()

    def mapped(array):
        while array is not None and not isinstance(array, np.memmap):
            array = getattr(array, "base", None)
        return isinstance(array, np.memmap)

    assert all(mapped(getattr(store.snapshot(), name)) for name in ARRAYS)
    store.remove(["s0"])
    assert not any(mapped(getattr(store.snapshot(), name)) for name in ARRAYS)


def test_any_zarr_tool_reads_a_segment(store):
    slides = fill(store, [6, 3])
    store.append(make_row("zero", 4), *(np.zeros_like(a) for a in make_arrays(4, 0)))
    store.append(make_row("none", 0), *make_arrays(0, 0))
    store.compact()
    (segment,) = (store.path / "segments").iterdir()
    group = zarr.open_group(segment, mode="r")
    want = store.snapshot()
    for name in ARRAYS:
        np.testing.assert_array_equal(group[name][...], getattr(want, name))
    assert len(want) == 13
    assert [row["slide_id"] for row in json.loads((segment / "slides.json").read_text())] == [
        *(row.slide_id for row, _ in slides),
        "zero",
        "none",
    ]


def test_many_appends_leave_few_segments_and_little_rewriting(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    written = []

    def write(folder, patches):
        written.append(len(patches.slides))
        return write_segment(folder, patches)

    monkeypatch.setattr("sish.index.store.write_segment", write)
    with Store.create(tmp_path / "a", {}) as store:
        for i in range(200):
            store.append(make_row(f"s{i}", i % 5), *make_arrays(i % 5, i))
            assert store.info().segments <= 1 + np.log2(i + 1) + np.log2(5)
            assert (store.path / "manifest.json").stat().st_size < 30_000
    assert sum(written) <= 200 * np.log(200 * 5) / np.log(1.5)


def test_replacing_moves_a_slide_to_the_end_in_one_commit(store):
    a, b, _ = fill(store, [3, 4, 2])
    again = (make_row("s1", 5, label="new"), make_arrays(5, 99))
    before = store.generation
    store.append(again[0], *again[1], replace=True)
    assert store.generation == before + 1
    assert [row.slide_id for row in store.slides] == ["s0", "s2", "s1"]
    assert store.slides[-1].label == "new"
    assert (a[0] in store.slides, b[0] in store.slides) == (True, False)


def test_removing_nothing_commits_nothing(store):
    fill(store, [2])
    assert store.remove(["other"]) == 0
    store.relabel({"s0": store.slides[0]})
    store.compact()
    assert store.generation == 1


def test_a_compacted_index_gives_back_the_space(store):
    fill(store, [400, 400, 3])
    store.remove(["s0"])
    info = store.info()
    assert (info.slides, info.patches, info.removed_slides, info.removed_patches) == (2, 403, 1, 400)
    store.compact()
    assert store.info().bytes < info.bytes - 400 * 40
    assert (store.info().removed_slides, store.info().removed_patches, store.info().segments) == (0, 0, 1)


def test_info_counts_the_bytes_of_the_files(store):
    fill(store, [4, 40, 3])
    store.remove(["s1"])
    files = [path for path in store.path.rglob("*") if path.is_file() and path.name != "lock"]
    assert store.info().bytes == sum(path.stat().st_size for path in files)
    assert store.info().format_version == 1


def test_odd_names_survive(store):
    odd = "d\u00e9p\u00f4t \udcff\n"  # a file name that is no UTF-8 arrives as a lone surrogate
    store.append(make_row(odd, 0, path=odd, metadata={odd: odd}), *make_arrays(0, 0))
    (row,) = Store.open(store.path).slides
    assert (row.slide_id, row.path, dict(row.metadata)) == (odd, odd, {odd: odd})


@contextmanager
def refused(kind: type[SishError], says: str):
    with pytest.raises(kind) as error:
        yield
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"keys": np.zeros((3, 3))}, "keys is float64 (3, 3), wanted int64"),
        ({"keys": np.zeros(3, int)}, "keys is int64 (3,), wanted int64 (3, at least 1)"),
        ({"keys": np.zeros((3, 0), int)}, "keys is int64 (3, 0)"),
        ({"keys": np.zeros((3, 3), np.uint64)}, "keys is uint64"),
        ({"keys": np.zeros((4, 3), int)}, "keys is int64 (4, 3)"),
        ({"keys": np.zeros((3, 2), int)}, "has 2 keys and 4 barcode bytes a patch, wanted 3 and 4"),
        ({"barcodes": np.zeros((3, 4), int)}, "barcodes is int64"),
        ({"barcodes": np.zeros((3, 5), np.uint8)}, "5 barcode bytes"),
        ({"l0_xy": np.zeros((3, 3), int)}, "l0_xy is int64 (3, 3), wanted int64 (3, 2)"),
        ({"row": make_row("t", 3, mpp=float("nan"))}, "slide table cannot be written as JSON"),
        ({"row": make_row("t", 3, path=Path("x"))}, "slide table cannot be written as JSON"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(store, changes, says):
    slides = fill(store, [2])
    keys, barcodes, l0_xy = make_arrays(3, 1)
    given = {"row": make_row("t", 3), "keys": keys, "barcodes": barcodes, "l0_xy": l0_xy, **changes}
    with refused(ParameterError, says):
        store.append(**given)
    assert_same(Store.open(store.path).snapshot(), expected(slides))
    assert (store.generation, store.verify(), store.leftovers()) == (1, [], [])


def test_wrong_arguments(store, tmp_path):
    (slide,) = fill(store, [2])
    with refused(SlideExistsError, "slide s0 is in"):
        store.append(slide[0], *slide[1])
    with refused(ParameterError, "is the string 's0'"):
        store.remove("s0")
    with refused(UnknownSlideError, "slide x is not in"):
        store.relabel({"s0": replace(slide[0], label="y"), "x": make_row("x", 2)})
    with refused(ParameterError, "wanted the same id and 2"):
        store.relabel({"s0": make_row("s0", 3)})
    with refused(ParameterError, "the header cannot be written as JSON"):
        Store.create(tmp_path / "b", {"x": {1, 2}})
    assert store.slides == (slide[0],)


def test_one_writer_at_a_time(store):
    with refused(IndexLockedError, f"by process {os.getpid()}"):
        Store.open(store.path, write=True)
    reader = Store.open(store.path)
    with refused(StoreError, "not open for writing"):
        reader.remove(["s0"])
    store.close()
    store.close()
    with refused(StoreError, "not open for writing"):
        fill(store, [1])
    with Store.open(store.path, write=True) as second:
        fill(second, [1])
    assert [reader.refresh(), reader.refresh(), store.refresh()] == [True, False, True]
    assert reader.slides == store.slides == second.slides


def test_paths_that_are_no_index(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.doc").write_text("x")
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text('{"format": "something"}')
    for write in (False, True):
        with refused(IndexNotFoundError, "does not exist"):
            Store.open(tmp_path / "none", write=write)
        with refused(IndexNotFoundError, "has no manifest.json"):
            Store.open(full, write=write)
        with refused(IndexFormatError, "is a file"):
            Store.open(file, write=write)
        with refused(IndexFormatError, "is not the manifest of a sish index"):
            Store.open(other, write=write)
    assert verify(tmp_path / "none") != []
    with refused(IndexFormatError, "is a file"):
        Store.create(file, {})
    with refused(IndexFormatError, "it holds thesis.doc"):
        Store.create(full, {})
    with refused(StoreError, "there is an index at"):
        Store.create(other, {})
    with refused(StoreError, "Not a directory"):
        Store.create(file / "below", {})
    assert sorted(path.name for path in full.iterdir()) == ["thesis.doc"]


def test_a_creation_that_was_interrupted_can_be_repeated(tmp_path, monkeypatch):
    def fail(old, new):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with refused(StoreError, "No space left on device"):
            Store.create(tmp_path / "a", HEADER)
    with Store.create(tmp_path / "a", HEADER) as store:
        assert store.verify() == store.leftovers() == []


def test_manifests_of_other_versions_and_damaged_ones(store):
    fill(store, [3])
    path = store.path / "manifest.json"
    good = path.read_bytes()
    for old, new, kind, says in [
        (
            b'"version": 1',
            b'"version": 2',
            IndexFormatError,
            "is of index format 2, this release reads format 1",
        ),
        (b'"patches": 3', b'"patches": 4', IndexCorruptError, "does not match its own checksum"),
        (b"abc", b"abd", IndexCorruptError, "does not match its own checksum"),
        (good[30:], b"", IndexCorruptError, "is not valid JSON"),
        (good, b"", IndexCorruptError, "is not valid JSON"),
        (good, b"\xff\x00", IndexCorruptError, "is not valid JSON"),
        (good, b"[1, 2]", IndexFormatError, "is not the manifest of a sish index"),
    ]:
        assert old in good
        path.write_bytes(good.replace(old, new))
        with refused(kind, says):
            Store.open(store.path)
        assert len(verify(store.path)) == 1
    path.write_bytes(good)
    assert verify(store.path) == []


def files_of(store: Store) -> list[Path]:
    return sorted(path for path in (store.path / "segments").rglob("*") if path.is_file())


def test_damaged_segments(store):
    fill(store, [50, 3])
    store.remove(["s1"])
    store.relabel({"s0": replace(store.slides[0], label="x")})
    store.append(make_row("s2", 1), *make_arrays(1, 1))
    assert len(files_of(store)) >= 12
    for path in files_of(store):
        name, good = str(path), path.read_bytes()
        path.write_bytes(good[:-1])
        with refused(IndexCorruptError, f"{name} has {len(good) - 1} bytes, wanted {len(good)}"):
            Store.open(store.path)
        assert [line for line in store.verify() if name in line]
        path.unlink()
        with refused(IndexCorruptError, f"{name} is missing"):
            Store.open(store.path)
        assert [line for line in store.verify() if name in line]
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 1
        path.write_bytes(flipped)
        (line,) = store.verify()
        assert line.startswith(f"{name}: its bytes changed")
        path.write_bytes(good)
    assert store.verify() == []
    assert [row.slide_id for row in Store.open(store.path).slides] == ["s0", "s2"]


def test_verify_sees_what_checksums_cannot(store, monkeypatch):
    unsorted = expected([(make_row("u", 4), make_arrays(4, 1))])
    unsorted = replace(unsorted, keys=unsorted.keys[::-1] - np.arange(4)[:, None])
    monkeypatch.setattr("sish.index.store.merge", lambda parts: unsorted)
    store.append(make_row("u", 4), *make_arrays(4, 1))
    assert any("not sorted" in line for line in store.verify())
    wrong = replace(unsorted, slides=(make_row("u", 5),))
    monkeypatch.setattr("sish.index.store.merge", lambda parts: wrong)
    store.append(make_row("u", 4), *make_arrays(4, 1), replace=True)
    assert any("do not match n_patches" in line for line in store.verify())


def test_leftovers_are_reported_apart_and_compact_deletes_only_them(store):
    slides = fill(store, [3, 9])
    (store.path / "manifest.json.new").write_text("half")
    (store.path / "segments" / "00000077").mkdir()
    (store.path / "segments" / "00000077" / "zarr.json").write_text("half")
    (store.path / "notes.txt").write_text("mine")
    segment = next(path for path in (store.path / "segments").iterdir() if (path / "slides.json").exists())
    (segment / "tombstones.00000099.json").write_text("half")
    assert store.verify() == []
    assert sorted(store.leftovers()) == [
        "manifest.json.new",
        f"segments/{segment.name}/tombstones.00000099.json",
        "segments/00000077",
    ]
    store.compact()
    assert store.leftovers() == store.verify() == []
    assert (store.path / "notes.txt").read_text() == "mine"
    assert_same(store.snapshot(), expected(slides))


def test_a_hostile_manifest_names_no_files_elsewhere(store, tmp_path):
    fill(store, [2])
    manifest = read_manifest(store.path)
    for bad in (
        replace(manifest.segments[0], name="../../x"),
        replace(manifest.segments[0], table="../../secret"),
        replace(manifest.segments[0], files={"/etc/passwd": next(iter(manifest.segments[0].files.values()))}),
    ):
        (store.path / "manifest.json").write_bytes(replace(manifest, segments=(bad,)).to_bytes())
        with refused(IndexCorruptError, "has a wrong entry"):
            Store.open(store.path)
