"""Each way in which a folder, or what is given to the store, can be refused."""

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_oracle import HEADER, assert_same, expected, fill, make_arrays, make_row

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
from sish.index.store import Store
from sish.index.store.manifest import read_manifest
from sish.index.store.slide_table import SlideTable
from sish.index.store.verify import verify


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path / "a.sish", HEADER) as store:
        yield store


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
        (
            {"keys": np.zeros((3, 2), int)},
            "has 2 keys, 4 barcode bytes and 0 bytes of a vector a patch, wanted 3, 4 and 0",
        ),
        ({"barcodes": np.zeros((3, 4), int)}, "barcodes is int64"),
        ({"barcodes": np.zeros((3, 5), np.uint8)}, "5 barcode bytes"),
        ({"l0_xy": np.zeros((3, 3), int)}, "l0_xy is int64 (3, 3), wanted int64 (3, 2)"),
        ({"row": make_row("t", 3, mpp=float("nan"))}, "nothing was stored"),
        ({"row": make_row("t", 3, path=Path("x"))}, "nothing was stored"),
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
            b'"version": 2',
            b'"version": 3',
            IndexFormatError,
            "is of index format 3, this release reads formats 1 to 2",
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
            Store.open(store.path).snapshot()
        assert [line for line in store.verify() if name in line]
        path.unlink()
        with refused(IndexCorruptError, f"{name} is missing"):
            Store.open(store.path).snapshot()
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
    good = expected([(make_row("u", 4), make_arrays(4, 1))])
    good = replace(good, slides=SlideTable.of(good.slides))
    unsorted = replace(good, keys=good.keys[::-1] - np.arange(4)[:, None])
    monkeypatch.setattr("sish.index.store.store.merge", lambda parts: unsorted)
    store.append(make_row("u", 4), *make_arrays(4, 1))
    assert any("not sorted" in line for line in store.verify())
    wrong = replace(good, slides=SlideTable.of([make_row("u", 3), make_row("v", 1)]))
    monkeypatch.setattr("sish.index.store.store.merge", lambda parts: wrong)
    store.append(make_row("u", 4), *make_arrays(4, 1), replace=True)
    assert any("patches of a slide are not numbered" in line for line in store.verify())


def test_leftovers_are_reported_apart_and_compact_deletes_only_them(store):
    slides = fill(store, [3, 9])
    (store.path / "manifest.json.new").write_text("half")
    (store.path / "segments" / "00000077").mkdir()
    (store.path / "segments" / "00000077" / "zarr.json").write_text("half")
    (store.path / "notes.txt").write_text("mine")
    segment = next(
        path for path in (store.path / "segments").iterdir() if (path / "slides.safetensors").exists()
    )
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


@pytest.mark.parametrize("facts", [{"a": float("nan")}, {"a": {1, 2}}, {"a": b""}])
def test_measured_facts_that_are_no_json_are_refused(store, facts):
    fill(store, [2])
    with refused(ParameterError, "what was measured cannot be written as JSON"):
        store.keep_measured(facts)
    assert store.generation == 1


def test_measured_facts_that_could_not_be_read_again_are_refused(store):
    deep = {}
    for _ in range(40):
        deep = {"a": deep}
    with refused(ParameterError, "too deep"):
        store.keep_measured(deep)
    assert (store.generation, Store.open(store.path).generation) == (0, 0)
