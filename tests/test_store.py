"""The durable store against a list."""

import json
import os
import shutil
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store_oracle import ARRAYS, HEADER, assert_same, expected, fill, make_arrays, make_row

from sish.errors import ParameterError, SlideExistsError
from sish.index.store import Store, slide_snapshot
from sish.index.store.segment import write_segment
from sish.index.store.slide_table import TEXTS


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
        self.facts = {}
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

    @rule(
        new=st.lists(st.tuples(names, st.integers(0, 12)), max_size=4),
        seed=st.integers(0, 2**32),
        replacing=st.booleans(),
    )
    def append_many(self, new, seed, replacing):
        slides = [(make_row(name, n), make_arrays(n, seed + place)) for place, (name, n) in enumerate(new)]
        parts = [slide_snapshot(row, *arrays) for row, arrays in slides]
        ids = [name for name, _ in new]
        there = [row.slide_id for row, _ in self.slides]
        if len(set(ids)) < len(ids) or (set(ids) & set(there) and not replacing):
            with pytest.raises(SlideExistsError):
                self.store.append_many(parts, replace=replacing)
            return
        before = self.store.generation
        self.store.append_many(parts, replace=replacing)
        assert self.store.generation == before + bool(new)
        self.slides = [slide for slide in self.slides if slide[0].slide_id not in ids] + slides

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

    @rule(facts=st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(0, 3)))
    def measure(self, facts):
        self.store.keep_measured(facts)
        self.facts = {name: fact for name, fact in (self.facts | facts).items() if fact is not None}

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
        assert self.store.info().measured == self.store.state.measured == self.facts
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
    ids = [*(row.slide_id for row, _ in slides), "zero", "none"]
    assert [row.slide_id for row in want.slides] == ids


def test_any_reader_of_safetensors_reads_the_slides(store):
    slides = [row for row, _ in fill(store, [6, 3])]
    store.relabel({"s1": replace(slides[1], label="b\u00e9")})
    store.compact()
    (segment,) = (store.path / "segments").iterdir()
    (table,) = segment.glob("slides.*safetensors")
    arrays = read_safetensors(table.read_bytes())
    texts, ends = arrays["strings"].tobytes(), arrays["string_ends"].tolist()
    texts = [texts[begin:end].decode() for begin, end in pairwise([0, *ends])]
    told = dict(zip(TEXTS, arrays["texts"].tolist(), strict=True))
    assert [texts[code] for code in told["slide_id"]] == ["s0", "s1"]
    assert (told["label"][0], texts[told["label"][1]]) == (-1, "b\u00e9")
    assert np.diff(arrays["patch_ends"], prepend=0).tolist() == [6, 3]
    assert all(array.ctypes.data % array.itemsize == 0 for array in arrays.values())
    order = read_safetensors((segment / "order.safetensors").read_bytes())
    assert order["by_slide"].tolist() == store.snapshot().insertion_order().tolist()


def test_many_appends_leave_few_segments_and_little_rewriting(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    written = []

    def write(folder, patches):
        written.append(len(patches.slides))
        return write_segment(folder, patches)

    monkeypatch.setattr("sish.index.store.store.write_segment", write)
    with Store.create(tmp_path / "a", {}) as store:
        for i in range(200):
            store.append(make_row(f"s{i}", i % 5), *make_arrays(i % 5, i))
            assert store.info().segments <= 1 + np.log2(i + 1) + np.log2(5)
            assert (store.path / "manifest.json").stat().st_size < 30_000
    assert sum(written) <= 200 * np.log(200 * 5) / np.log(1.5)


def read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """Read a file as the specification of safetensors says, with none of our code."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kinds = {"I32": "<i4", "I64": "<i8", "U64": "<u8", "F64": "<f8", "U8": "u1"}
    ends = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    assert [0, *(end for _, end in ends)] == [*(begin for begin, _ in ends), len(body)]  # no gaps
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], kinds[entry["dtype"]]).reshape(
            entry["shape"]
        )
        for name, entry in header.items()
    }


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


def test_measured_facts_are_one_commit_that_writes_the_manifest_alone(store):
    fill(store, [2])
    before = {path for path in store.path.rglob("*") if path.is_file()}
    generation, reader = store.generation, Store.open(store.path)
    store.keep_measured({"threshold": {"bits": 5}, "other": 1})
    store.keep_measured({"other": 1})  # as it was: no commit
    assert {path for path in store.path.rglob("*") if path.is_file()} == before
    assert (store.generation, dict(reader.state.measured)) == (generation + 1, {})
    assert reader.refresh() and reader.state.measured == {"threshold": {"bits": 5}, "other": 1}
    store.keep_measured({"other": None})
    assert Store.open(store.path).info().measured == {"threshold": {"bits": 5}}


def test_a_header_is_replaced_with_facts_in_one_commit(store):
    fill(store, [2])
    generation, before = store.generation, store.snapshot()
    header = {**store.header, "search": {"budget": 8000}}
    store.replace_header(header, {"recall": 0.97})
    store.replace_header(header, {})  # as it was: no commit
    again = Store.open(store.path)
    assert (again.generation, dict(again.header), dict(again.state.measured)) == (
        generation + 1, header, {"recall": 0.97},
    )  # fmt: skip
    assert_same(again.snapshot(), before)
    with pytest.raises(ParameterError, match="header"):
        store.replace_header({"search": float}, {})
    assert dict(store.header) == header


def test_a_manifest_without_measured_facts_is_as_older_releases_wrote_it(store):
    fill(store, [2])
    assert "measured" not in json.loads((store.path / "manifest.json").read_text())


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
    assert store.info().format_version == 2


def test_odd_names_survive(store):
    odd = "d\u00e9p\u00f4t \udcff\n"  # a file name that is no UTF-8 arrives as a lone surrogate
    store.append(make_row(odd, 0, path=odd, metadata={odd: odd}), *make_arrays(0, 0))
    (row,) = Store.open(store.path).slides
    assert (row.slide_id, row.path, dict(row.metadata)) == (odd, odd, {odd: odd})
