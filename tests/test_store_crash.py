"""The store when something goes wrong: lost power, failing disks, no rights, readers in threads."""

import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_cases import append, append_many, assert_whole, make_row

from sish.errors import IndexLockedError, StoreError
from sish.index.store import SlideRow, Store
from sish.index.store import leftovers as leftovers_module

STEPS: list[Callable[[Store], object]] = [
    lambda store: append(store, "a", 9, 1),
    lambda store: append(store, "b", 2, 2),
    lambda store: append(store, "c", 0, 3),
    lambda store: append(store, "d", 4, 4),
    lambda store: append(store, "a", 3, 5, replacing=True),
    lambda store: store.relabel({"b": make_row("b", 2, 2, "new"), "d": make_row("d", 4, 4, "new")}),
    lambda store: store.keep_measured({"bits": 300}),
    lambda store: store.replace_header({**store.header, "budget": 8000}, {"bits": 301}),
    lambda store: store.remove(["b"]),
    lambda store: append(store, "e", 40, 6),
    lambda store: append(store, "f", 1, 7),
    lambda store: store.remove(["d", "f"]),
    lambda store: store.compact(),
    lambda store: store.remove(["a", "c", "e"]),
    lambda store: append_many(store, ("g", 3, 8), ("h", 0, 9), ("i", 12, 10)),
    lambda store: append_many(store, ("j", 5, 11), ("g", 7, 12), replacing=True),
]
"""A life of an index: merges, several at once, tombstones, relabelled tables, replaced, emptied segments."""


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
        self.fsync, self.replace, self.delete = os.fsync, os.replace, leftovers_module._delete
        monkeypatch.setattr(os, "fsync", self.on_fsync)
        monkeypatch.setattr(os, "replace", self.on_replace)
        monkeypatch.setattr(leftovers_module, "_delete", self.on_delete)

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
        for owner, name in ((os, "fsync"), (os, "replace"), (leftovers_module, "_delete")):
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
        *((number, OSError(28, "No space left on device")) for number in (0, 3, 4, 5, 6, 10, 13)),
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


def test_threads_read_while_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    errors: list[BaseException] = []
    reads = []
    stop = threading.Event()
    with Store.create(tmp_path / "index", {}) as store:

        def read(opened: Callable[[], Store]) -> None:
            try:
                while not stop.wait(0.001):  # a moment for the writer, or the readers take all the time
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
