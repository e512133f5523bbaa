"""Damage that opening does not see is told by the first search, and no search goes on for ever."""

import hashlib
import re
import shutil
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from slide_rows import slide_row

import sish
from sish.cli import main
from sish.encode import SlideCodes
from sish.index.bags import Bags
from sish.index.params import SearchParams
from sish.index.repair import repair
from sish.index.store import Store, slide_snapshot
from sish.index.store.disk import FileRecord
from sish.index.store.manifest import SegmentRecord, read_manifest
from sish.index.store.segment import Segment
from sish.index.store.slide_list import SlideList
from sish.index.store.slide_table import SlideTable
from sish.index.texture.archive import learn_keys
from sish.queries import indexed_query, stored_codes
from sish.searchers import searcher_of
from sish.view import View

ARRAYS = ("keys", "barcodes", "l0_xy", "slide", "row")
PATCHES = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """An index of three slides in one segment, and a fourth in another."""
    path, rng = tmp_path_factory.mktemp("damaged") / "archive.sish", np.random.default_rng(0)
    sish.Index.create(path, recipe=sish.Recipe(keys="paper"), search=SearchParams(threshold=600))
    with Store.open(path, write=True) as store:
        for name, n in (("a", PATCHES), ("b", PATCHES), ("c", PATCHES), ("d", 3)):
            row = slide_row(name, n)
            barcodes = rng.integers(0, 256, (n, 128), np.uint8)
            store.append(row, rng.integers(1, 99, (n, 1)), barcodes, rng.integers(1, 9, (n, 2)))
        assert len(store.segments) == 2
    return path


@pytest.fixture
def path(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "archive.sish")


def chunk(path: Path, name: str) -> Path:
    """The file of an array of the first segment."""
    (file,) = (path / "segments" / read_manifest(path).segments[0].name / name).glob("c.*")
    return file


def zeroed(data: bytes) -> bytes:
    return bytes(len(data))


def flipped(data: bytes) -> bytes:
    """A bit of the first number is another: small enough that every number stays in its range."""
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("keys", ["paper", "texture"])
@pytest.mark.parametrize("damage", [zeroed, flipped])
@pytest.mark.parametrize("name", ARRAYS)
def test_no_damaged_array_answers(path, name, damage, keys):
    file = chunk(path, name)
    file.write_bytes(damage(file.read_bytes()))
    index = sish.Index.open(path)
    assert [row.slide_id for row in index.slides] == ["a", "b", "c", "d"]
    for ask in (lambda: index.search("a"), index.view, index.snapshot, lambda: sish.evaluate(index)):
        with pytest.raises(sish.IndexCorruptError, match=f"{name}/c.* has other bytes .*sish index repair"):
            ask()
    with pytest.raises(sish.IndexCorruptError, match=f"{name}/c"):
        searcher_of(Store.open(path), keys, SearchParams())


def vouch(path: Path, name: str, array: np.ndarray) -> None:
    """Write other numbers into an array of the first segment, with a manifest that vouches for them."""
    file, manifest = chunk(path, name), read_manifest(path)
    file.write_bytes(array.tobytes())
    first = manifest.segments[0]
    record = FileRecord(array.nbytes, hashlib.sha256(array.tobytes()).hexdigest())
    files = {**first.files, file.relative_to(path / "segments" / first.name).as_posix(): record}
    segments = (replace(first, files=files), *manifest.segments[1:])
    (path / "manifest.json").write_bytes(replace(manifest, segments=segments).to_bytes())


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("slide", lambda slide: np.zeros_like(slide), "not numbered from 0 on|do not match n_patches"),
        ("slide", lambda slide: slide + 1, "beyond the table's"),
        ("keys", lambda keys: keys[::-1], "not sorted by the first key"),
    ],
)
def test_arrays_that_were_vouched_for_and_make_no_sense(path, name, change, says, monkeypatch):
    (segment, _) = Store.open(path).segments
    vouch(path, name, np.ascontiguousarray(change(getattr(segment.patches, name))))
    with pytest.raises(sish.IndexCorruptError, match=says):
        sish.Index.open(path).search("a")
    assert [line for line in sish.verify(path) if re.search(says, line)]
    monkeypatch.setattr("sish.index.store.state.SMALL_BYTES", 0)  # as a large archive
    with pytest.raises(sish.IndexCorruptError, match=says):
        sish.Index.open(path, verify=True).search("a")


def test_numbers_within_slides_are_checked_by_verify(path):
    (segment, _) = Store.open(path).segments
    vouch(path, "row", np.zeros_like(segment.patches.row))
    assert [line for line in sish.verify(path) if "not numbered from 0 on" in line]


def test_of_a_large_archive_checksums_are_compared_on_request(path, monkeypatch, capsys):
    file = chunk(path, "barcodes")
    file.write_bytes(flipped(file.read_bytes()))
    monkeypatch.setattr("sish.index.store.state.SMALL_BYTES", file.stat().st_size - 1)
    assert sish.Index.open(path).search("a")[0].slide_id == "a"
    with pytest.raises(sish.IndexCorruptError, match=str(file)):
        sish.Index.open(path, verify=True).search("a")
    asked = ["search", "a", "--index", str(path)]
    assert [main(asked), main([*asked, "--verify"])] == [0, 1]
    assert str(file) in capsys.readouterr().err
    assert main(["evaluate", "--index", str(path), "--verify"]) == 1
    assert str(file) in capsys.readouterr().err


def ask_everything(path: Path) -> None:
    """Search along texture keys with filters, look slides up, and change the index; errors are ours."""
    with suppress(sish.SishError):
        state = Store.open(path).state
        view = View.of(searcher_of(state, "texture", SearchParams(threshold=60)))
        (part, *_) = state.segments
        for where in ({}, {"stain": "x"}, {"patient": "t1"}):
            for codes in stored_codes(part.patches, [0, 1]):
                with suppress(sish.SishError):
                    list(view.search(indexed_query(part.patches.slides[0], codes), codes, where=where))
    for use in (
        lambda: Store.open(path).state.rows_with("path", "/t1.svs"),
        lambda: list(Store.open(path).state.ids_and_paths()),
        lambda: "t2" in Store.open(path),
        lambda: Store.open(path).slides,
        lambda: Store.open(path).snapshot(),
        lambda: repair(path),
    ):
        with suppress(sish.SishError):
            use()
    with suppress(sish.SishError), Store.open(path, write=True) as store:
        store.relabel({"t1": replace(slide_row("t1", 40), label="new")})
        store.remove(["t2"])
        store.compact()


@pytest.mark.slow
def test_a_large_index_that_is_damaged_raises_our_errors_only(tmp_path, monkeypatch):
    """As if it were too large to be compared with its checksums before the first search."""
    good, rng = tmp_path / "good", np.random.default_rng(3)
    with Store.create(good, {}) as store:
        for number in range(30):
            row = slide_row(f"t{number}", 40, metadata={"stain": "xy"[number % 2]}, label="ab"[number % 2])
            codes = rng.integers(0, 256, (40, 16), np.uint8)
            store.append(row, np.zeros((40, 1), int), codes, rng.integers(0, 99, (40, 2)))
        learn_keys(store)
        store.remove(["t5"])
    monkeypatch.setattr("sish.index.store.state.SMALL_BYTES", 0)
    monkeypatch.setattr("sish.index.store.segment.SMALL_TABLE", 0)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    files = [path for path in good.rglob("*") if path.is_file() and path.suffix not in (".json", "")]
    assert {path.name.partition(".")[0] for path in files} == {"c", "order", "slides", "tree"}
    for number, file in enumerate(sorted(files) * 8):
        copy = shutil.copytree(good, tmp_path / str(number))
        data = bytearray((copy / file.relative_to(good)).read_bytes())
        for place in rng.integers(len(data) // 3, len(data), 20):
            data[place] = rng.choice([0, 1, 127, 128, 255])
        (copy / file.relative_to(good)).write_bytes(data)
        ask_everything(copy)
        shutil.rmtree(copy)


def test_checksums_are_compared_once(path, monkeypatch):
    read, check = [], Segment._check_bytes

    def counted(segment: Segment, folder: Path) -> None:
        read.append(folder.name)
        check(segment, folder)

    monkeypatch.setattr(Segment, "_check_bytes", counted)
    index = sish.Index.open(path)
    first = index.search("a")
    assert index.search("a") == first
    assert len(read) == 2  # each segment
    index.remove("d")
    assert index.search("a").hits != first.hits
    assert len(read) == 2  # the segment that stays is the one that was mapped


class Liar:
    """Patches whose scans do not keep to what is excluded."""

    n_bits = 1024

    def __init__(self, n_slides: int, found: list[int]) -> None:
        self.slides = SlideList((SlideTable.of([slide_row(f"s{n}") for n in range(n_slides)]),))
        self.found, self.rank = np.ones(n_slides, bool), np.arange(n_slides)
        self._patches = np.array(found, np.int64)

    def scan(self, codes, exclude, k) -> Bags:
        return Bags(np.array([0, len(self._patches)]), self._patches, np.zeros(len(self._patches), np.int32))

    def slide_of(self, patches):
        return patches


@pytest.mark.parametrize("found", [[], [0], [0, 0, 2]])
def test_scans_end_whatever_they_find(found):
    view = View.of(Liar(5, found))
    codes = SlideCodes(np.zeros((1, 1), np.int64), np.zeros((1, 128), np.uint8), np.zeros((1, 2), np.int64))
    assert len(list(view._scans(codes, None))) <= 5


def test_counts_are_checked_without_a_copy_of_the_patches(tmp_path):
    """An index may be larger than the memory: what the first search checks must not be copied."""
    n = 3_000_000
    row = slide_row("a", n)
    patches = slide_snapshot(row, np.zeros((n, 1), int), np.zeros((n, 1), np.uint8), np.zeros((n, 2), int))
    segment = Segment(SegmentRecord("00000001", 1, n, "slides.json", None, {}), patches)
    tracemalloc.start()
    try:
        assert list(segment.wrong_contents(tmp_path)) == []
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < patches.slide.nbytes
    patches.slide[-1] = 1
    two = SlideTable.of([row, replace(row, slide_id="b")])
    (problem,) = replace(segment, patches=replace(patches, slides=two)).wrong_contents(tmp_path)
    assert "do not match n_patches" in problem
