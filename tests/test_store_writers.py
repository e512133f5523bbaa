"""Who may write: after a fork, after crashes, and when two processes make one index at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr  # noqa: F401  the store imports it late, and a fork has nothing to import then
from store_cases import append, assert_whole

import sish
from sish.cli import main
from sish.errors import IndexExistsError, IndexFormatError, IndexLockedError, IndexNotFoundError
from sish.index.store import Store
from sish.index.store import state as state_module
from sish.index.store import store as store_module


@pytest.fixture
def index(tmp_path) -> Path:
    with Store.create(tmp_path / "index", {}) as store:
        append(store, "a", 30, 1)
    return tmp_path / "index"


def forked(work: Callable[[], object]) -> int:
    """Start a child that does this work and ends; its process number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def killed(work: Callable[[], object]) -> None:
    """Do this work in a child, which must not survive it."""
    _, status = os.waitpid(forked(work), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def kill_self(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# ---- forks


def wait_for(pipe: tuple[int, int]) -> None:
    """Wait, in a child, until the test closes its end of the pipe."""
    os.close(pipe[1])
    os.read(pipe[0], 1)


def test_a_child_that_lives_on_does_not_keep_the_lock(index):
    pipe = os.pipe()
    with Store.open(index, write=True):
        child = forked(lambda: wait_for(pipe))
        with pytest.raises(IndexLockedError):
            Store.open(index, write=True)
    Store.open(index, write=True).close()
    os.close(pipe[1])
    os.waitpid(child, 0)
    os.close(pipe[0])


def test_a_child_of_a_killed_writer_does_not_keep_the_lock(index):
    pipe = os.pipe()

    def write_and_die() -> None:
        _held = Store.open(index, write=True)
        forked(lambda: wait_for(pipe))
        kill_self()

    killed(write_and_die)
    Store.open(index, write=True).close()
    os.close(pipe[1])
    os.close(pipe[0])


def test_a_child_does_not_close_a_file_of_its_own_with_the_number_of_the_lock(index):
    store = Store.open(index, write=True)

    def close_in_child() -> None:
        opened = {os.open(index, os.O_RDONLY) for _ in range(8)}
        store.close()
        for descriptor in opened:
            os.fstat(descriptor)
        kill_self()  # says that all is well: an error would end the child in another way

    killed(close_in_child)
    store.close()


# ---- leftovers


def crash_in_a_commit(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with Store.open(index, write=True) as store:
            append(store, "b", 100, 2)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "replace_file", kill_self)
        killed(work)


def test_the_next_writer_sweeps_what_crashes_left(index, monkeypatch):
    before = Store.open(index).info()
    assert (before.leftovers, before.leftover_bytes) == (0, 0)
    for _ in range(3):
        crash_in_a_commit(index, monkeypatch)
        (left,) = (path for path in (index / "segments").iterdir() if path.name != "00000001")
        info = Store.open(index).info()
        assert info.leftovers == len(Store.open(index).leftovers()) == 1
        assert info.leftover_bytes == sum(path.stat().st_size for path in left.rglob("*") if path.is_file())
        assert info.leftover_bytes > 1000
    reader = Store.open(index)
    with Store.open(index, write=True) as store:
        assert (store.info(), store.leftovers(), store.verify()) == (before, [], [])
    assert_whole(reader.snapshot())


def test_info_tells_of_leftovers_on_the_command_line(own_index, monkeypatch, capsys):
    (own_index.path / "manifest.json.new").write_text("half")
    assert main(["index", "info", "--index", str(own_index.path)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (lines["leftovers"], lines["leftover_bytes"]) == ("1", "4")


def test_what_cannot_be_deleted_stops_no_writer(index, monkeypatch):
    crash_in_a_commit(index, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda path, ignore_errors: None)
        with Store.open(index, write=True) as store:
            append(store, "c", 2, 3)
            assert len(store.leftovers()) == 1
    assert Store.open(index).verify() == []


def test_a_reader_that_opens_while_a_writer_commits_sees_the_new_state(index, monkeypatch):
    read = state_module.read_manifest
    changes = ["b", "c"]

    def read_and_change(folder: Path) -> object:
        manifest = read(folder)
        if changes:
            name = changes.pop()
            with monkeypatch.context() as patch:
                patch.setattr(state_module, "read_manifest", read)
                with Store.open(folder, write=True) as store:
                    append(store, name, 100, 2)  # merges, and deletes the segment that the reader wants
        return manifest

    monkeypatch.setattr(state_module, "read_manifest", read_and_change)
    with Store.open(index) as store:
        assert [row.slide_id for row in store.slides] == ["a", "c", "b"]
        assert_whole(store.snapshot())


# ---- two that make one index


def test_making_an_index_that_is_being_made_says_that_another_process_writes(tmp_path, monkeypatch):
    def make_another(path: Path, data: bytes) -> None:
        with pytest.raises(IndexNotFoundError):  # there are a folder and a lock, and no manifest yet
            Store.open(path.parent)
        with pytest.raises(IndexLockedError, match=f"being written to by process {os.getpid()}"):
            Store.create(path.parent, {})
        replace(path, data)
        with pytest.raises(IndexExistsError, match="there is an index"):
            Store.create(path.parent, {})

    replace = store_module.replace_file
    monkeypatch.setattr(store_module, "replace_file", make_another)
    with Store.create(tmp_path / "index", {"mine": 1}) as store:
        assert store.header == {"mine": 1}


@pytest.mark.parametrize("step", ["mkdir", "acquire", "replace_file", "sync"])
def test_a_crash_while_an_index_is_made_does_not_block_the_next(tmp_path, monkeypatch, step):
    path = tmp_path / "deep" / "index"
    owner = {
        "mkdir": (os, "fsync"),
        "acquire": (store_module.WriterLock, "acquire"),
        "replace_file": (store_module, "replace_file"),
        "sync": (os, "replace"),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(*owner, kill_self)
        killed(lambda: Store.create(path, {}))
    with pytest.raises(IndexNotFoundError):
        Store.open(path)
    with Store.create(path, {}) as store:
        append(store, "a", 3, 1)
        assert store.verify() == store.leftovers() == []


def test_segments_without_a_manifest_are_not_taken_for_a_free_place(index):
    manifest = (index / "manifest.json").read_bytes()
    (index / "manifest.json").unlink()
    with pytest.raises(IndexFormatError, match="holds segments/00000001 and no manifest") as error:
        Store.create(index, {})
    assert "\n" not in str(error.value)
    (index / "manifest.json").write_bytes(manifest)
    assert_whole(Store.open(index).snapshot())


@pytest.fixture
def overtaken(monkeypatch) -> None:
    """Whoever makes an index finds that another has just made the same one."""
    create = Store.create

    def overtake(path: Path, header: dict) -> Store:
        create(path, header).close()
        return create(path, header)

    monkeypatch.setattr(Store, "create", overtake)


def test_the_second_of_two_first_adds_opens_what_the_first_made(overtaken, tmp_path):
    index = sish.Index.open_or_create(tmp_path / "index")
    assert len(index) == 0
    with pytest.raises(IndexExistsError):
        sish.Index.create(tmp_path / "index")
    with Store.open(tmp_path / "index", write=True), pytest.raises(IndexLockedError, match="being written"):
        index.add([tmp_path], show_progress=False)


def test_two_first_adds_of_features(overtaken, tmp_path):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file["features"] = rng.normal(size=(196, 48)).astype("float32")
        file["coords"] = [(512 * x, 512 * y) for x in range(14) for y in range(14)]
        file["coords"].attrs.update({"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40})
        file["coords"].attrs.update({"target_magnification": 20})
    words = ["index", "add", "--index", str(tmp_path / "index"), "--features", str(tmp_path), "--quiet"]
    assert main([*words, "--feature-encoder", "some"]) == 0
    assert len(sish.Index.open(tmp_path / "index")) == 1


# ---- other systems


@pytest.mark.parametrize("code", ["import sish.index.store.lock", "main(['index', 'info', '--index', 'x'])"])
def test_a_system_without_file_locks_is_told_so_on_one_line(code, tmp_path):
    start = "import sys; sys.modules['fcntl'] = None; from sish.cli import main; "
    done = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "an index needs the file locks of a POSIX system (fcntl), and this one has none" in last
    if "main" in code:
        assert done.stderr.count("\n") == 1
