"""Damage anywhere in an index is found by `verify`, and never crashes a process that opens or searches it.

Run as a script, this file damages an index: ``python tests/test_store_damage.py INDEX KIND``. It does so in a
process of its own, for a crash would take the tests with it, and prints what happened.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_cases import append, make_row

from sish.errors import IndexCorruptError, SishError
from sish.index.guided.walk import guided_search
from sish.index.params import SearchParams
from sish.index.store import Store
from sish.index.store.disk import write_file
from sish.index.store.manifest import read_manifest
from sish.index.store.verify import verify
from sish.index.table import KeyTable

FLIPS = 40  # bits flipped in each file


def files_of(index: Path) -> list[Path]:
    """Every file that belongs to the index; the lock does not, whose content means nothing."""
    return sorted(path for path in index.rglob("*") if path.is_file() and path.name != "lock")


def damaged(kind: str, good: bytes, rng: np.random.Generator) -> list[bytes]:
    """Ways in which a file can go wrong."""
    if kind == "cut":
        cuts = {0, 1, len(good) // 2, len(good) - 1, *rng.integers(0, len(good), 3).tolist()}
        return [*(good[:cut] for cut in sorted(cuts)), good + b"\0", good + good]
    if kind == "blocks":  # what a disk returns for a lost sector
        return [filler * len(good) for filler in (b"\x00", b"\xff", b"\x01") if filler * len(good) != good]
    bits = rng.choice(8 * len(good), min(FLIPS, 8 * len(good)), replace=False)
    bits = [0, 8 * len(good) - 1, *bits.tolist()]
    flipped = []
    for bit in bits:
        copy = bytearray(good)
        copy[bit // 8] ^= 1 << bit % 8
        flipped.append(bytes(copy))
    return flipped


def use(index: Path) -> str:
    """Open and search, as far as it goes; what came of it."""
    try:
        with Store.open(index) as store:
            snapshot = store.snapshot()
            table = KeyTable.build(snapshot.keys[:, 0], snapshot.barcodes, snapshot.slide)
            exclude = np.arange(len(snapshot.slides)) == 0
            for visit in (False, True):
                params = SearchParams(threshold=40, visit_query_key=visit)
                query = snapshot.keys[:5, 0], snapshot.barcodes[:5]
                bags = guided_search(table, *query, exclude=exclude, params=params)
                assert all(snapshot.slides[number] for number in snapshot.slide[bags.patch])
            snapshot.insertion_order()
            store.info()
        return "answered"
    except SishError as error:
        assert "\n" not in str(error)
        return type(error).__name__


def damage(index: Path, kind: str) -> None:
    """Damage each file in turn, use the index, and put it right again."""
    rng = np.random.default_rng(0)
    outcomes: Counter[str] = Counter()
    assert (verify(index), use(index)) == ([], "answered")
    for path in files_of(index):
        good = path.read_bytes()
        for bad in damaged(kind, good, rng):
            path.write_bytes(bad)
            assert verify(index), f"{kind} in {path} was not found"
            outcome = use(index)
            # what is not mapped cannot change an answer: zarr's own files, and the spelling of a manifest
            assert outcome != "answered" or path.name in ("zarr.json", "manifest.json"), path
            outcomes[outcome] += 1
        path.write_bytes(good)
    assert (verify(index), use(index)) == ([], "answered")
    sys.stdout.write(json.dumps(outcomes))


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    """Two segments, with a slide removed and a table relabelled: files of every kind."""
    path = tmp_path_factory.mktemp("damage") / "index"
    with Store.create(path, {"note": "\u00e9"}) as store:
        append(store, "a", 60, 1)
        append(store, "b", 9, 2)
        append(store, "c", 4, 3)
        store.relabel({"b": make_row("b", 9, 2, "new")})
        store.remove(["c"])
        store.relabel({"a": replace(store.slides[0], label="\u00fc")})
    kinds = {path.name.split(".")[0] for path in files_of(path)}
    assert {"manifest", "slides", "tombstones", "zarr", "c"} <= kinds
    assert len(files_of(path)) >= 13
    return path


@pytest.mark.parametrize("kind", ["bits", "cut", "blocks"])
def test_damage_in_any_file_is_found_and_crashes_nothing(index, kind):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", __file__, index, kind], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)
    assert outcomes["IndexCorruptError"] >= 10
    assert sum(outcomes.values()) >= 2 * len(files_of(index))
    if kind == "cut":  # sizes are checked at opening: a mapped file that is too short would kill the process
        assert "answered" not in outcomes


def contents(index: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in files_of(index)}


def flip(path: Path) -> None:
    """Change a bit, and nothing of the size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["keys/c.0.0", "barcodes/c.0.0", "l0_xy/c.0.0", "row/c.0"])
@pytest.mark.parametrize("change", ["compact", "append", "append after remove"])
def test_damage_is_never_given_new_checksums(tmp_path, name, change):
    path = tmp_path / "index"
    with Store.create(path, {}) as store:
        append(store, "a", 20, 1)
        append(store, "b", 15, 2)
        store.remove(["b"] if change == "append after remove" else [])
        append(store, "c", 1, 3)
        assert len(store._state.segments) == 2
        (damaged_file,) = (path / "segments").glob(f"{store._state.segments[0].record.name}/{name}")
        flip(damaged_file)
        before, slides = contents(path), store.slides
        with pytest.raises(
            IndexCorruptError, match=r"c\.0.*its bytes changed.*restore the index from a backup"
        ):
            store.compact() if change == "compact" else append(store, "d", 50, 4)
        assert (contents(path), store.slides) == (before, slides)
        assert any(name in line for line in verify(path))
        flip(damaged_file)
        store.compact()
        assert verify(path) == []


def forge(index: Path, name: str, data: bytes) -> None:
    """Write other contents into a file of the first segment, with a manifest that vouches for them."""
    manifest = read_manifest(index)
    first = manifest.segments[0]
    files = {**first.files, name: write_file(index / "segments" / first.name / name, data)}
    segments = (replace(first, files=files), *manifest.segments[1:])
    (index / "manifest.json").write_bytes(replace(manifest, segments=segments).to_bytes())


@pytest.mark.parametrize(
    ("table", "data"),
    [
        ("tombstones", b"[7]"),
        ("tombstones", b"[[1]]"),
        ("table", b"[1]"),
        ("table", b'[{"no": 1}]'),
        ("table", b"7"),
    ],
)
def test_tables_that_were_vouched_for_and_make_no_sense(index, tmp_path, table, data):
    own = shutil.copytree(index, tmp_path / "own")
    name = getattr(read_manifest(own).segments[0], table)
    if name is None:
        with Store.open(own, write=True) as store:
            store.remove(["a"])
    forge(own, getattr(read_manifest(own).segments[0], table), data)
    assert use(own) == "IndexCorruptError"
    assert len(verify(own)) >= 1


def ruin_in_odd_ways(index: Path) -> Iterator[Path]:
    """Folders that are hardly an index any more."""
    yield index / "nowhere"
    yield index / "manifest.json"
    yield index / ("x" * 300)
    chunk = next(index.glob("segments/*/keys/c.0.0"))
    chunk.unlink()
    chunk.mkdir()
    yield index
    shutil.rmtree(index / "segments")
    (index / "segments").write_bytes(b"")
    yield index
    for data in (b"", b"\xff", b"[" * 100_000, b"{}", b"null"):
        (index / "manifest.json").write_bytes(data)
        yield index
    (index / "manifest.json").unlink()
    (index / "manifest.json").mkdir()
    yield index


def test_verify_says_what_is_wrong_and_never_raises(index, tmp_path):
    for path in ruin_in_odd_ways(shutil.copytree(index, tmp_path / "own")):
        problems = verify(path)
        assert problems and not any("\n" in line for line in problems)
        assert verify(str(path)) == problems


if __name__ == "__main__":
    damage(Path(sys.argv[1]), sys.argv[2])
