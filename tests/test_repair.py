"""One damaged segment or tree: what still works, what is refused, and how to go on without it."""

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from slide_rows import slide_row
from store_cases import append, arrays_of, assert_whole, make_row

import sish
from sish.cli import main
from sish.errors import IndexCorruptError, StoreError
from sish.index.params import BUDGET
from sish.index.repair import repair
from sish.index.store import Store
from sish.index.store.segment import Segment, open_segment
from sish.index.store.verify import verify
from sish.index.texture.archive import learn_keys
from sish.labels import read_labels
from sish.searchers import stored_tree

NAMES = ["s0", "s1", "s2", "s3", "s4"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Four segments; of the second one slide was removed and another labelled."""
    path = tmp_path_factory.mktemp("repair") / "index"
    with Store.create(path, {}) as store:
        for name, n, seed in (("s0", 600, 0), ("gone", 90, 1), ("s1", 9, 2), ("s2", 60, 3)):
            append(store, name, n, seed)
        append(store, "s3", 9, 4)
        append(store, "s4", 2, 5)
        store.remove(["gone"])
        store.relabel({"s1": replace(make_row("s1", 9, 2, "lung, left"), site="Zürich")})
        assert [[row.slide_id for row in part.slides] for part in store.segments] == [
            ["s0"], ["s1", "s2"], ["s3"], ["s4"],
        ]  # fmt: skip
    return path


@pytest.fixture
def index(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "index")


def segment_of(index: Path, slide_id: str) -> Path:
    with Store.open(index) as store:
        record = next(
            part.record for part in store.segments if slide_id in [row.slide_id for row in part.slides]
        )
    return index / "segments" / record.name


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


DAMAGE: list[tuple[str, Callable[[Path], None], bool]] = [
    ("slides*.safetensors", flip, False),
    ("slides*.safetensors", Path.unlink, False),
    ("tombstones*.json", flip, False),
    ("keys/c.0.0", cut, True),
    ("barcodes/c.0.0", Path.unlink, True),
    ("row/c.0", make_folder, True),
    ("slide/zarr.json", cut, True),
]
"""A file of a segment, what is done to it, and whether its slides are still known."""


@pytest.mark.parametrize(("file", "damage", "known"), DAMAGE)
def test_a_damaged_segment_is_told_and_nothing_goes_on_without_it(index, file, damage, known):
    (path,) = segment_of(index, "s1").glob(file)
    damage(path)
    before = contents(index)
    for write in (False, True):
        with Store.open(index, write=write) as store:
            assert [row.slide_id for row in store.slides] == (NAMES if known else ["s0", "s3", "s4"])
            assert store.info().damaged_segments == 1
            assert not store.refresh()
            with pytest.raises(IndexCorruptError, match=f"{path.name}.*sish index repair"):
                store.snapshot()
    with Store.open(index, write=True) as store:
        for change in (
            lambda: append(store, "new", 1, 6),
            lambda: append(store, "new", 1000, 6),
            lambda: store.remove(["s0"]),
            lambda: store.relabel({"s0": make_row("s0", 600, 0, "x")}),
            store.compact,
        ):
            with pytest.raises(IndexCorruptError, match=path.name):
                change()
    assert contents(index) == before


@pytest.mark.parametrize(("file", "damage", "known"), [*DAMAGE, ("barcodes/c.0.0", flip, True)])
def test_repair_reports_first_and_drops_when_asked(index, file, damage, known):
    folder = segment_of(index, "s1")
    (path,) = folder.glob(file)
    damage(path)
    before, files = contents(index), contents(folder)
    report = repair(index)
    assert (report.is_sound, report.sound_segments, report.sound_slides, report.kept_in) == (
        False,
        3,
        3,
        None,
    )
    assert [damage.segment for damage in report.damaged] == [folder.name]
    assert any(path.name in problem for problem in report.damaged[0].problems)
    assert [row.slide_id for row in report.add_again] == (["s1", "s2"] if known else [])
    assert report.damaged[0].unknown_slides == (0 if known else 3)
    assert contents(index) == before

    done = repair(index, drop=True)
    assert done.is_sound
    assert done.add_again == report.add_again
    kept = Path(done.kept_in)
    assert contents(kept / folder.name) == files
    assert verify(index) == []
    with Store.open(index, write=True) as store:
        assert [row.slide_id for row in store.slides] == ["s0", "s3", "s4"]
        assert_whole(store.snapshot())
        append(store, "s1", 9, 2)  # it can be added again
        append(store, "s3", 7, 8, replacing=True)
        store.compact()
        assert_whole(store.snapshot())
        assert store.leftovers() == []
    assert contents(kept / folder.name) == files
    if known:
        row = read_labels(kept / "add_again.csv").find("/s1.svs", "s1")
        assert (row.label, row.site, row.metadata) == ("lung, left", "Zürich", {"seed": "2"})
    assert repair(index, drop=True).kept_in is None


@pytest.mark.parametrize("damaged", [flip, lambda path: path.write_bytes(path.read_bytes()[::-1])])
def test_a_large_table_that_is_damaged_is_told_and_dropped(index, monkeypatch, damaged):
    """It is not compared when its segment is opened; its rows are not believed all the same."""
    monkeypatch.setattr("sish.index.store.segment.SMALL_TABLE", 0)
    (table,) = segment_of(index, "s1").glob("slides*.safetensors")
    damaged(table)
    (damage,) = repair(index).damaged
    assert (damage.slides, damage.unknown_slides > 0) == ((), True)
    assert repair(index, drop=True).is_sound and verify(index) == []


def test_a_sound_index_is_left_alone(index):
    before = contents(index)
    report = repair(index, drop=True)
    assert report.is_sound and report.sound_segments == 4 and report.add_again == ()
    assert contents(index) == before


def test_all_segments_may_be_damaged_and_two_repairs_keep_both(index):
    flip(segment_of(index, "s4") / "slides.safetensors")
    first = repair(index, drop=True).kept_in
    for folder in list((index / "segments").iterdir()):
        cut(folder / "barcodes" / "c.0.0")
    report = repair(index, drop=True)
    assert report.kept_in != first and len(list(Path(report.kept_in).iterdir())) == 4
    assert {row.slide_id for row in report.add_again} == {"s0", "s1", "s2", "s3"}
    with Store.open(index, write=True) as store:
        assert (store.slides, store.verify(), store.info().segments) == ((), [], 0)
        append(store, "s0", 5, 0)


def test_a_repair_that_was_interrupted_is_done_again(index, monkeypatch):
    folder = segment_of(index, "s3")
    flip(folder / "keys" / "c.0.0")
    with monkeypatch.context() as patch:
        patch.setattr(
            "sish.index.store.store.replace_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            repair(index, drop=True)
    with Store.open(index) as store:
        assert store.info().damaged_segments == 1
    assert len(list(index.glob(f"damaged/*/{folder.name}"))) == 1  # neither lost nor swept
    assert repair(index, drop=True).is_sound
    assert verify(index) == []
    assert len(list(index.glob(f"damaged/*/{folder.name}"))) == 1


def test_a_link_in_the_place_of_the_folder_is_refused(index, tmp_path):
    flip(segment_of(index, "s3") / "slides.safetensors")
    (tmp_path / "elsewhere").mkdir()
    (index / "damaged").symlink_to(tmp_path / "elsewhere")
    before = contents(index)
    with pytest.raises(StoreError, match="symbolic link"):
        repair(index, drop=True)
    assert contents(index) == before and not list((tmp_path / "elsewhere").iterdir())


def test_an_index_that_was_restored_is_used_again(index):
    path = segment_of(index, "s2") / "keys" / "c.0.0"
    good = path.read_bytes()
    path.unlink()
    reader = Store.open(index)
    path.write_bytes(good)
    assert reader.refresh()
    assert_whole(reader.snapshot())
    assert not reader.refresh()


def test_what_is_no_damage_is_not_taken_for_it(index, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    before = contents(index)
    monkeypatch.setattr(np, "memmap", fail)
    for use in (lambda: Store.open(index), lambda: repair(index, drop=True)):
        with pytest.raises(StoreError, match="Too many open files"):
            use()
    assert contents(index) == before


def test_a_disk_that_cannot_read_a_file_is_damage(index, monkeypatch):
    path, original = segment_of(index, "s0") / "barcodes" / "c.0.0", np.memmap

    def fail(file, *arguments, **options):
        if file == path:
            raise OSError(errno.EIO, "Input/output error")
        return original(file, *arguments, **options)

    monkeypatch.setattr(np, "memmap", fail)
    with Store.open(index) as store:
        assert [row.slide_id for row in store.slides] == NAMES
        with pytest.raises(IndexCorruptError, match="Input/output error"):
            _ = store.segments


def test_a_slide_that_is_there_twice_is_damage(index, monkeypatch):
    with Store.open(index, write=True) as store:
        monkeypatch.setattr("sish.index.store.store.check_ids", lambda *_: None)
        monkeypatch.setattr(Segment, "without", lambda segment, slide_ids: segment)
        row = make_row("s0", 1, 7)
        store.append(row, *arrays_of(row))
    with Store.open(index) as store, pytest.raises(IndexCorruptError, match="in the index already"):
        store.snapshot()
    (damage,) = repair(index).damaged
    assert any("slide 's0' is there twice" in problem for problem in damage.problems)
    assert repair(index, drop=True).is_sound
    with Store.open(index) as store:
        assert_whole(store.snapshot())


def test_a_slide_that_is_there_twice_is_kept_with_the_damaged_one(index, monkeypatch):
    first = segment_of(index, "s0")
    with Store.open(index, write=True) as store:
        monkeypatch.setattr("sish.index.store.store.check_ids", lambda *_: None)
        monkeypatch.setattr(Segment, "without", lambda segment, slide_ids: segment)
        row = make_row("s0", 1, 7)
        store.append(row, *arrays_of(row))
    twin = max((index / "segments").iterdir())
    cut(first / "barcodes" / "c.0.0")
    report = repair(index, drop=True)
    assert {path.name for path in Path(report.kept_in).iterdir()} == {first.name, twin.name, "add_again.csv"}
    assert verify(index) == []


def test_what_seems_damaged_for_a_moment_is_not_thrown_away(index, monkeypatch):
    """A disk that fails while the writer opens the index, and not before and after."""
    folder = segment_of(index, "s0")
    flip(segment_of(index, "s4") / "slides.safetensors")
    before, open_writer = contents(index), Store.open.__func__

    def fail(cls, path, *, write=False):
        with monkeypatch.context() as patch:
            patch.setattr("sish.index.store.state.open_segment", failing)
            return open_writer(cls, path, write=write)

    def failing(path, *arguments):
        if path == folder:
            raise IndexCorruptError(f"{path} cannot be read (Input/output error)")
        return open_segment(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "open", classmethod(fail))
        with pytest.raises(IndexCorruptError, match="Input/output error"):
            repair(index, drop=True)
    after = contents(index)
    assert {name: after[name] for name in before} == before
    assert repair(index, drop=True).sound_slides == len(NAMES) - 1


def grow(path: Path, n: int) -> None:
    """An index with a tree."""
    rng = np.random.default_rng(0)
    row = slide_row("a", n)
    with Store.open(path, write=True) as store:
        store.append(
            row, np.zeros((n, 1), int), rng.integers(0, 256, (n, 16), np.uint8), np.zeros((n, 2), int)
        )
        learn_keys(store)


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink, make_folder])
@pytest.mark.parametrize("n", [0, 50, BUDGET + 1])
def test_a_damaged_tree_is_made_anew_without_losing_a_slide(tmp_path, n, damage):
    path = tmp_path / "index"
    sish.Index.create(path)
    grow(path, n)
    (file,) = path.glob("tree.*")
    damage(file)
    index = sish.Index.open(path)
    assert [row.slide_id for row in index.slides] == ["a"]
    with pytest.raises(IndexCorruptError, match=rf"{file.name}.*sish index repair"):
        index.view()
    report = index.repair()
    assert file.name in report.tree
    assert (report.is_sound, report.tree_mended, report.damaged) == (True, True, ())
    assert verify(path) == []
    store = Store.open(path)
    snapshot, tree = store.snapshot(), stored_tree(store)
    keys = np.zeros(n, int) if tree is None else tree.keys(snapshot.barcodes)
    assert (tree is None) == (n <= BUDGET)
    assert np.array_equal(snapshot.keys[:, 0] if n else keys, keys)
    assert index.view().searcher.slides == index.slides


def test_a_damaged_segment_beside_a_damaged_tree(tmp_path):
    path = tmp_path / "index"
    sish.Index.create(path)
    grow(path, 50)
    flip(next(path.glob("tree.*")))
    cut(next(path.glob("segments/*/keys/c.0.0")))
    before = contents(path)
    assert not repair(path).is_sound and contents(path) == before
    report = repair(path, drop=True)
    assert report.is_sound and report.tree_mended and [row.slide_id for row in report.add_again] == ["a"]
    assert verify(path) == [] and not list(path.glob("tree.*"))


def test_a_damaged_manifest_is_one_line(index):
    cut(index / "manifest.json")
    for use in (lambda: Store.open(index), lambda: repair(index), lambda: repair(index, drop=True)):
        with pytest.raises(IndexCorruptError, match=r"manifest\.json is not valid JSON") as error:
            use()
        assert "\n" not in str(error.value)
    assert len(verify(index)) == 1


def test_the_command_line_lists_and_drops(tmp_path, capsys):
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["index", *words, "--index", str(path)])
        return code, *capsys.readouterr()

    path = tmp_path / "index"
    sish.Index.create(path)
    with Store.open(path, write=True) as store:
        for name, n in (("a\tb", 50), ("c", 5)):
            row = replace(make_row(name, n, 1), path=f"/{name}.svs")
            store.append(row, np.zeros((n, 1), int), np.zeros((n, 128), np.uint8), np.zeros((n, 2), int))
    assert run("repair")[:2] == (0, "sound: 2 segments of 2 slides\n")
    file = segment_of(path, "c") / "barcodes" / "c.0.0"
    cut(file)
    for command in ("list", "info"):
        code, _, err = run(command)
        assert code == 0 and err.startswith(f"sish: damaged: {file}") and err.count("\n") == 1
    code, _, err = run("compact")
    assert code == 1 and str(file) in err and "sish index repair" in err
    code, out, _ = run("repair")
    assert code == 1
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "sound", "damaged", "add again", "nothing was changed",
    ]  # fmt: skip
    assert "add again: c: /c.svs\n" in out and f"sish index repair --drop --index {path}" in out
    code, out, _ = run("repair", "--json")
    assert code == 1 and json.loads(out)["add_again"] == [{"slide_id": "c", "path": "/c.svs"}]
    code, out, _ = run("repair", "--drop", "--json")
    said = json.loads(out)
    assert code == 0 and said["is_sound"] and Path(said["kept_in"], "add_again.csv").is_file()
    assert run("verify")[0] == 0
    assert run("repair")[:2] == (0, "sound: 1 segment of 1 slide\n")
