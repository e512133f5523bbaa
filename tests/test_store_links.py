"""A stranger's index with links in it that lead to other files: nothing outside of it is touched."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from store_cases import append, assert_whole, make_row

from sish.errors import IndexCorruptError, StoreError
from sish.index.store import Store
from sish.index.store.verify import verify

STEPS: dict[str, Callable[[Store], object]] = {
    "append": lambda store: append(store, "c", 2, 3),
    "remove": lambda store: store.remove(["a"]),
    "relabel": lambda store: store.relabel({"a": make_row("a", 20, 1, "new")}),
    "rekey": lambda store: store.rekey({"nodes": np.zeros((1, 8), np.uint8)}, lambda patches: patches),
    "compact": lambda store: store.compact(),
}


@pytest.fixture(autouse=True)
def _no_flushes(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # durability is tested elsewhere


@pytest.fixture
def index(tmp_path) -> Path:
    """Two segments, a removed slide, and a tree."""
    path = tmp_path / "index"
    with Store.create(path, {}) as store:
        append(store, "a", 20, 1)
        append(store, "x", 1, 1)
        append(store, "y", 1, 1)
        STEPS["rekey"](store)
        append(store, "b", 2, 2)
        store.remove(["x"])
        assert len(store.segments) == 2
    return path


@pytest.fixture
def victim(tmp_path) -> Path:
    """Somebody's folder, with a sub-folder that is named as a segment is."""
    folder = tmp_path / "photos"
    (folder / "20240101").mkdir(parents=True)
    (folder / "20240101" / "x.jpg").write_text("precious")
    (folder / "slides.json").write_text("precious")
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("leads_to", ["a file", "a folder", "nothing"])
@pytest.mark.parametrize("name", STEPS)
def test_a_link_in_the_place_of_what_is_written_leads_nowhere(index, victim, tmp_path, name, leads_to):
    target = {"a file": victim / "slides.json", "a folder": victim, "nothing": victim / "new"}[leads_to]
    before = contents(victim)
    shutil.copytree(index, tmp_path / "done")
    with Store.open(tmp_path / "done", write=True) as store:
        STEPS[name](store)
    made = contents(tmp_path / "done").keys() - contents(index).keys()
    made = {made_name for made_name in made if (index / made_name).parent.exists()}
    assert made
    for place in ("lock", "manifest.json.new", *sorted(made)):
        own = Path(shutil.copytree(index, tmp_path / "own"))
        (own / place).unlink(missing_ok=True)
        (own / place).symlink_to(target)
        try:
            with Store.open(own, write=True) as store:
                STEPS[name](store)
                assert store.verify() == []
        except StoreError as error:
            assert place == "lock"
            assert "lock is a symbolic link, wanted only files and folders in an index" in str(error)
            assert "\n" not in str(error)
        assert contents(victim) == before
        shutil.rmtree(own)


def test_a_link_in_the_place_of_what_is_read_is_refused(index, tmp_path):
    for name in contents(index):
        own, outside = Path(shutil.copytree(index, tmp_path / "own")), tmp_path / "outside"
        (own / name).rename(outside)
        (own / name).symlink_to(outside)
        before = contents(tmp_path / "outside") or outside.read_bytes()
        for write in (False, True) if name != "lock" else (True,):
            with pytest.raises(IndexCorruptError, match="is a symbolic link") as error:
                opened = Store.open(own, write=write)
                assert name.startswith("tree"), name  # read when it is asked for
                opened.close()
                _ = opened.tree
            assert "\n" not in str(error.value)
        assert any("is a symbolic link" in line for line in verify(own)) == (name != "lock"), name
        assert (contents(tmp_path / "outside") or outside.read_bytes()) == before
        shutil.rmtree(own)
        shutil.rmtree(outside) if outside.is_dir() else outside.unlink()


def test_nothing_is_written_into_or_deleted_from_a_linked_folder_of_segments(victim, tmp_path):
    before = contents(victim)
    Store.create(tmp_path / "index", {}).close()
    (tmp_path / "index" / "segments").rmdir()
    (tmp_path / "index" / "segments").symlink_to(victim)
    with Store.open(tmp_path / "index", write=True) as store:
        store.compact()
        assert store.leftovers() == []
        with pytest.raises(IndexCorruptError, match="segments is a symbolic link"):
            append(store, "a", 3, 1)
        assert store.generation == 0
    (tmp_path / "index" / "manifest.json").unlink()
    with pytest.raises(StoreError, match="segments"):
        Store.create(tmp_path / "index", {})
    assert contents(victim) == before


def test_what_is_not_ours_is_never_swept(index, victim):
    segments = index / "segments"
    shutil.copytree(victim / "20240101", segments / "20240101")
    (segments / "00000099").symlink_to(victim)
    (segments / "00000098").write_text("mine")
    (index / "tree.00000099.safetensors").symlink_to(victim / "slides.json")
    before, outside = contents(index), contents(victim)
    assert Store.open(index).leftovers() == []
    with Store.open(index, write=True) as store:
        store.compact()
    kept = contents(index).keys()
    assert {name for name in before if "20240101" in name or "0000009" in name} <= kept
    assert contents(victim) == outside


def test_an_index_that_is_reached_through_a_link_works(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "archive").symlink_to(tmp_path / "data")
    with Store.create(tmp_path / "archive", {}) as store:
        append(store, "a", 20, 1)
        for name in ("append", "relabel", "rekey", "remove", "compact"):
            STEPS[name](store)
    with Store.open(tmp_path / "data") as store:
        assert store.verify() == verify(tmp_path / "archive") == []
        assert_whole(store.snapshot())
        assert [row.slide_id for row in store.slides] == ["c"]
    assert (tmp_path / "archive").is_symlink()


@pytest.mark.parametrize("name", ["manifest.json", "lock"])
def test_a_pipe_is_refused_and_not_waited_for(index, name):
    (index / name).unlink()
    os.mkfifo(index / name)
    with pytest.raises(IndexCorruptError, match=f"{name} is no plain file"):
        Store.open(index, write=True)
