"""The store when something goes wrong: lost power, killed writers, failing disks, readers meanwhile.

Run as a script, this file is the writer that the tests kill: ``python tests/test_store_crash.py INDEX SEED``.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr  # noqa: F401  the store imports it late, and the kills are to hit what follows

from sish.errors import IndexLockedError, StoreError
from sish.index import store as store_module
from sish.index.store import SlideRow, Snapshot, Store

KILLS = 25


def make_row(slide_id: str, n: int, seed: int, label: str | None = None) -> SlideRow:
    metadata = {"seed": str(seed)}
    return SlideRow(
        slide_id, f"/{slide_id}.svs", n, 256.0, 1.0, "user", 9, 9, label, slide_id, None, metadata=metadata
    )


def arrays_of(row: SlideRow) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The patches that belong to a row: its metadata has their seed."""
    rng, n = np.random.default_rng(int(row.metadata["seed"])), row.n_patches
    return (
        rng.integers(0, 9, (n, 2)),
        rng.integers(0, 256, (n, 8), dtype=np.uint8),
        rng.integers(0, 99, (n, 2)),
    )


def append(store: Store, slide_id: str, n: int, seed: int, *, replacing: bool = False) -> None:
    row = make_row(slide_id, n, seed)
    store.append(row, *arrays_of(row), replace=replacing)


def assert_whole(snapshot: Snapshot) -> None:
    """Every slide has exactly the patches that its row tells of, in key order."""
    assert (np.diff(snapshot.keys[:, 0]) >= 0).all()
    assert len(snapshot) == sum(row.n_patches for row in snapshot.slides)
    in_order = snapshot.insertion_order()
    for number, row in enumerate(snapshot.slides):
        mine = in_order[snapshot.slide[in_order] == number]
        for name, want in zip(("keys", "barcodes", "l0_xy"), arrays_of(row), strict=True):
            if len(want):
                np.testing.assert_array_equal(getattr(snapshot, name)[mine], want)


STEPS: list[Callable[[Store], object]] = [
    lambda store: append(store, "a", 9, 1),
    lambda store: append(store, "b", 2, 2),
    lambda store: append(store, "c", 0, 3),
    lambda store: append(store, "d", 4, 4),
    lambda store: append(store, "a", 3, 5, replacing=True),
    lambda store: store.relabel({"b": make_row("b", 2, 2, "new"), "d": make_row("d", 4, 4, "new")}),
    lambda store: store.remove(["b"]),
    lambda store: append(store, "e", 40, 6),
    lambda store: append(store, "f", 1, 7),
    lambda store: store.remove(["d", "f"]),
    lambda store: store.compact(),
    lambda store: store.remove(["a", "c", "e"]),
]
"""A life of an index: merges, tombstones, relabelled tables, replaced and emptied segments."""


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> list[tuple[Path, tuple[SlideRow, ...]]]:
    """The index before the first step and after each: a copy of the folder, and its slides."""
    folder = tmp_path_factory.mktemp("life")
    found = []
    with pytest.MonkeyPatch.context() as patch, Store.create(folder / "index", {}) as store:
        patch.setattr(os, "fsync", lambda descriptor: None)  # copies need no durability
        for number, step in enumerate([None, *STEPS]):
            if step is not None:
                step(store)
            found.append((Path(shutil.copytree(folder / "index", folder / str(number))), store.slides))
    return found


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class PowerCut:
    """What the disk holds if the power goes: only what was flushed is sure to be there.

    It watches fsync from the first one on. Open descriptors keep the inodes alive, so that none of them is
    used again under another meaning.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, look: Callable[[], None]) -> None:
        self.root, self.look = root, look
        self.entries: dict[int, dict[str, int]] = {}
        self.contents: dict[int, bytes] = {}
        self.kept: list[int] = []
        self.fsync, self.replace, self.delete = os.fsync, os.replace, store_module._delete
        monkeypatch.setattr(os, "fsync", self.on_fsync)
        monkeypatch.setattr(os, "replace", self.on_replace)
        monkeypatch.setattr(store_module, "_delete", self.on_delete)

    def on_fsync(self, descriptor: int) -> None:
        self.look()
        self.kept.append(os.dup(descriptor))
        path, inode = Path(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_ino
        if path.is_dir():
            self.entries[inode] = {entry.name: entry.inode() for entry in os.scandir(descriptor)}
        else:
            self.contents[inode] = path.read_bytes()

    def on_replace(self, old: Path, new: Path) -> None:
        self.replace(old, new)
        if in_main_thread():  # zarr renames in several threads; what it wrote is not flushed yet
            self.look()

    def on_delete(self, path: Path) -> None:
        self.look()
        self.delete(path)

    def restore(self, target: Path, *, entries_flushed: bool) -> None:
        """Make ``target`` what a restart finds; ``entries_flushed``: folders were, and contents were not."""
        self._restore(self.root, self.root.stat().st_ino, target, entries_flushed)

    def _restore(self, source: Path, inode: int, target: Path, entries_flushed: bool) -> None:
        target.mkdir()
        flushed = self.entries.get(inode, {})
        now = {entry.name: entry.inode() for entry in os.scandir(source)} if source.is_dir() else {}
        for name, child in (now if entries_flushed else flushed).items():
            if child in self.entries or (source / name).is_dir():
                self._restore(source / name, child, target / name, entries_flushed)
            else:
                (target / name).write_bytes(self.contents.get(child, b""))

    def close(self) -> None:
        for descriptor in self.kept:
            os.close(descriptor)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads open files through /proc")
def test_a_power_cut_at_any_step_leaves_the_old_index_or_the_new_one(life, tmp_path, monkeypatch):
    want = [slides for _, slides in life]
    root, copy = tmp_path / "root", tmp_path / "copy"
    root.mkdir()
    seen: dict[int, list[tuple[SlideRow, ...]]] = {number: [] for number in range(-1, len(STEPS))}

    def look() -> None:
        for entries_flushed in (False, True) if done >= 0 else ():
            cut.restore(copy, entries_flushed=entries_flushed)
            with Store.open(copy / "index") as store:
                assert store.slides in want[done : done + 2]
                assert store.verify() == []
                assert_whole(store.snapshot())
                seen[done].append(store.slides)
            shutil.rmtree(copy)

    done = -1
    cut = PowerCut(monkeypatch, root, look)
    try:
        store = Store.create(root / "index", {})
        for done, step in enumerate(STEPS):
            step(store)
            cut.restore(copy, entries_flushed=False)
            assert Store.open(copy / "index").slides == want[done + 1]  # what returned is on the disk
            shutil.rmtree(copy)
    finally:
        monkeypatch.undo()
        cut.close()
    for number in range(len(STEPS) - 1):  # both sides of each commit were looked at
        assert want[number] in seen[number]
        assert want[number + 1] in seen[number]


class Faults:
    """Lets the ``at``-th flush, rename or deletion fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int) -> None:
        self.error, self.left = error, at
        for owner, name in ((os, "fsync"), (os, "replace"), (store_module, "_delete")):
            monkeypatch.setattr(owner, name, self.failing(getattr(owner, name)))

    def failing(self, function: Callable) -> Callable:
        def call(*args: object) -> object:
            if isinstance(self.error, KeyboardInterrupt) and not in_main_thread():
                return function(*args)  # zarr writes in threads, and Python interrupts only the main one
            self.left -= 1
            if self.left == 0:
                raise self.error
            return function(*args)

        return call


@pytest.mark.parametrize(
    ("number", "error"),
    [
        *((number, OSError(28, "No space left on device")) for number in (0, 3, 4, 5, 6, 10)),
        *((number, KeyboardInterrupt()) for number in (4, 6)),
    ],
)
def test_a_failure_at_any_call_loses_nothing(life, tmp_path, monkeypatch, number, error):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    (before, old), (_, new) = life[number : number + 2]
    for at in range(1, 1000):
        path = Path(shutil.copytree(before, tmp_path / str(at)))
        with Store.open(path, write=True) as store:
            with monkeypatch.context() as patch:
                faults = Faults(patch, error, at)
                attempt(STEPS[number], store, error)
            assert store.slides == Store.open(path).slides
            assert store.slides in (old, new)
            assert store.verify() == []
            assert_whole(store.snapshot())
            if faults.left > 0:
                break
            if store.slides == old:
                STEPS[number](store)  # the same store goes on
            assert store.slides == new
            store.compact()
            assert store.verify() == store.leftovers() == []
        shutil.rmtree(path)
    assert store.slides == new
    assert at > 3


def attempt(step: Callable[[Store], object], store: Store, error: BaseException) -> None:
    """Do a step that may fail with ``error``; the disk's own errors must arrive as ours, on one line."""
    try:
        step(store)
    except KeyboardInterrupt as raised:
        assert raised is error
    except StoreError as raised:
        assert isinstance(error, OSError)
        assert "\n" not in str(raised)
        assert f"cannot write to {store.path}: No space left on device" in str(raised)


def test_a_file_that_cannot_grow_is_a_full_disk(tmp_path):
    with Store.create(tmp_path / "index", {}) as store:
        append(store, "a", 5, 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (50_000, hard)
        )  # zarr's own writes fail, not only our fsync
        try:
            with pytest.raises(StoreError, match="File too large; nothing stored is lost") as error:
                append(store, "b", 50_000, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "\n" not in str(error.value)
        assert [row.slide_id for row in store.slides] == ["a"]
        assert store.verify() == store.leftovers() == []
        append(store, "b", 50_000, 2)
    assert_whole(Store.open(tmp_path / "index").snapshot())


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder with an index, nothing of which this process may write."""
    folder = Path(tempfile.mkdtemp())
    with Store.create(folder / "index", {"a": 1}) as store:
        append(store, "a", 5, 1)
        append(store, "b", 50, 2)
    everything = [folder, *folder.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # rights do not hold for root
    try:
        yield folder
    finally:
        if user == 0:
            os.seteuid(0)
        for path in everything:
            path.chmod(0o755)
        shutil.rmtree(folder)


def test_reading_writes_nothing_and_needs_no_rights_to(read_only_folder):
    def listing() -> list:
        return [(path, path.stat()[:6], path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))]

    folder = read_only_folder / "index"
    before = listing()
    with Store.open(folder) as store:
        assert_whole(store.snapshot())
        assert (store.info().slides, store.verify(), store.leftovers(), store.refresh()) == (2, [], [], False)
    assert listing() == before
    for attempt in (
        lambda: Store.open(folder, write=True),
        lambda: Store.create(read_only_folder / "other", {}),
    ):
        with pytest.raises(StoreError, match="Permission denied") as error:
            attempt()
        assert "\n" not in str(error.value)
    assert listing() == before


def writer(path: str, seed: str) -> None:
    """Change the index for ever, saying what is tried and, once it is committed, that it is done."""
    rng = np.random.default_rng(int(seed))
    with Store.open(path, write=True) as store:
        say("ready")
        while True:
            kind = rng.choice(["append", "append", "append", "remove", "relabel", "compact"])
            ids = [row.slide_id for row in store.slides]
            chosen = [str(name) for name in rng.choice(ids, min(len(ids), 2), replace=False)] if ids else []
            change = {"kind": str(kind), "ids": chosen, "seed": int(rng.integers(2**31))}
            if kind == "append" and rng.random() < 0.7:
                change["ids"] = [f"s{rng.integers(10**9)}"]
            change["ids"] = change["ids"][:1] if kind == "append" else change["ids"]
            say({"try": change})
            apply(store, change)
            say({"done": change})


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def new_row(change: dict) -> SlideRow:
    return make_row(change["ids"][0], change["seed"] % 30, change["seed"])


def apply(store: Store, change: dict) -> None:
    rows = {row.slide_id: row for row in store.slides}
    if change["kind"] == "append" and change["ids"]:
        row = new_row(change)
        store.append(row, *arrays_of(row), replace=True)
    elif change["kind"] == "remove":
        store.remove(change["ids"])
    elif change["kind"] == "relabel":
        store.relabel({name: replace(rows[name], label=str(change["seed"])) for name in change["ids"]})
    elif change["kind"] == "compact":
        store.compact()


def applied(slides: tuple[SlideRow, ...], change: dict) -> tuple[SlideRow, ...]:
    """What `apply` does to a list."""
    ids, kind = change["ids"], change["kind"]
    if kind == "append" and ids:
        return (*(row for row in slides if row.slide_id not in ids), new_row(change))
    if kind == "remove":
        return tuple(row for row in slides if row.slide_id not in ids)
    if kind == "relabel":
        return tuple(
            replace(row, label=str(change["seed"])) if row.slide_id in ids else row for row in slides
        )
    return slides


def start_writer(path: Path, seed: int) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, __file__, path, str(seed)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == "ready"
    return process


def read_done(process: subprocess.Popen[str], n: int) -> list[dict]:
    """Return what a writer says until it has done ``n`` changes."""
    said: list[dict] = []
    assert process.stdout is not None
    while sum("done" in line for line in said) < n:
        said.append(json.loads(process.stdout.readline()))
    return said


def kill(process: subprocess.Popen[str]) -> list[dict]:
    """Kill a writer and return what it said."""
    process.kill()
    lines = process.communicate()[0].splitlines()
    assert process.returncode == -signal.SIGKILL
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path):
    path = tmp_path / "index"
    Store.create(path, {}).close()
    rng = np.random.default_rng(0)
    known: tuple[SlideRow, ...] = ()
    commits = in_flight = 0
    for seed in range(KILLS):
        process = start_writer(path, seed)
        said = read_done(process, int(rng.integers(0, 7)))
        time.sleep(rng.uniform(0, 0.03))
        said += kill(process)
        for line in said:
            known = applied(known, line["done"]) if "done" in line else known
        allowed = [known]
        if said and "try" in said[-1]:
            allowed.append(applied(known, said[-1]["try"]))
        with Store.open(path) as store:
            assert store.slides in allowed
            assert store.verify() == []
            assert_whole(store.snapshot())
            known = store.slides
            commits = store.generation
        in_flight += len(allowed) == 2
    assert commits > KILLS
    assert in_flight > 0
    with Store.open(path, write=True) as store:
        store.compact()
        assert (store.slides, store.leftovers(), store.verify()) == (known, [], [])


@pytest.mark.slow
def test_readers_in_other_processes_see_whole_states(tmp_path):
    path = tmp_path / "index"
    Store.create(path, {}).close()
    process = start_writer(path, 1)
    try:
        with pytest.raises(IndexLockedError, match=f"by process {process.pid}"):
            Store.open(path, write=True)
        held, generations = [], [0]
        reader = Store.open(path)
        until = time.monotonic() + 4
        while time.monotonic() < until or generations[-1] < 20:
            fresh = Store.open(path)
            reader.refresh()
            generations += [fresh.generation, reader.generation]
            held = [*held[-9:], fresh.snapshot(), reader.snapshot()]
            for snapshot in held[
                :: max(1, len(held) - 1)
            ]:  # the oldest, whose files are gone, and the newest
                assert_whole(snapshot)
            assert fresh.verify() == []
    finally:
        said = kill(process)
    assert generations == sorted(generations)
    assert sum("done" in line for line in said) >= 20


def test_threads_read_while_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    errors: list[BaseException] = []
    reads = []
    stop = threading.Event()
    with Store.create(tmp_path / "index", {}) as store:

        def read(opened: Callable[[], Store]) -> None:
            try:
                while not stop.is_set():
                    snapshot = opened().snapshot()
                    assert_whole(snapshot)
                    reads.append(len(snapshot.slides))
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=read, args=[opened])
            for opened in (lambda: store, lambda: Store.open(tmp_path / "index"))
        ]
        for thread in threads:
            thread.start()
        for i in range(25):
            append(store, f"s{i % 15}", i % 7, i, replacing=True)
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert max(reads) > 1


def test_a_fork_does_not_give_the_lock_of_its_parent_back(tmp_path):
    path = tmp_path / "index"
    with Store.create(path, {}) as store:
        child = os.fork()
        if child == 0:
            refused = False
            try:
                store.remove(["x"])
            except StoreError:
                refused = True
            store.close()
            os._exit(0 if refused else 1)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(IndexLockedError):
            Store.open(path, write=True)
        append(store, "a", 3, 1)
    with Store.open(path, write=True) as store:
        assert len(store) == 1


if __name__ == "__main__":
    writer(*sys.argv[1:])
