"""The power goes at any moment: each state of the disk that POSIX allows holds the old index or the new one.

POSIX promises little without a flush. A file's bytes are on the disk once fsync of the file returned, and a
name (made, renamed or unlinked) once fsync of its folder returned. Until then each file and each name, one by
one, may be as it was, as it is, or as it was at any time between. `Disk` records what may be there while a
store works, and `replays` makes the folders that a restart may find: all of them where they are few, else the
extremes, those where a single flush was missing, and a seeded sample.
"""

import hashlib
import itertools
import json
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from store_cases import append, append_many, make_row
from store_oracle import assert_same

from sish.errors import IndexNotFoundError
from sish.index.store import Snapshot, Store

INDEX = "deep/er/index"
"""Where the index is: two folders of its path are missing at first."""
EXHAUSTIVE = 256
"""Up to so many states of the disk are all replayed."""
SAMPLE = 20
"""Random states where there are more."""
OPENED = 2
"""States of each moment that the store itself opens and checks; the others are read without it."""

Tree = Mapping[str, bytes | None]
"""A folder: the bytes of each file by its path, None for a folder."""
Key = tuple[int, str | None]
"""What may differ: a name in a folder, or (with None) the bytes of a file."""


class Killed(BaseException):
    """The process of the writer is gone, and cleans nothing up."""


@dataclass(frozen=True)
class Moment:
    """What the disk may hold: the choices, oldest first."""

    root: int
    names: Mapping[int, Mapping[str, tuple[int | None, ...]]]
    contents: Mapping[int, tuple[bytes, ...]]

    def choices(self) -> dict[Key, int]:
        """How many there are for each name and file that has several."""
        found: dict[Key, int] = {}
        todo = [self.root]
        while todo:
            inode = todo.pop()
            if inode not in self.names:
                found[inode, None] = len(self.contents[inode])
                continue
            for name, may in self.names[inode].items():
                found[inode, name] = len(may)
                todo += [child for child in may if child is not None]
        return {key: n for key, n in found.items() if n > 1}

    def tree(self, pick: Mapping[Key, int]) -> Tree:
        """The folder for one choice each; the newest where none is given."""
        found: dict[str, bytes | None] = {}
        todo = [(self.root, "")]
        while todo:
            folder, path = todo.pop()
            for name, may in self.names[folder].items():
                child = may[pick.get((folder, name), -1)]
                if child in self.names:
                    found[path + name] = None
                    todo.append((child, f"{path}{name}/"))
                elif child is not None:
                    found[path + name] = self.contents[child][pick.get((child, None), -1)]
        return found


class Disk:
    """Records what a restart may find below ``root``, a folder that is on the disk as it is now.

    What may be found only grows between two flushes, so that the moments just before each flush, and the
    end, cover all others. Open descriptors keep the inodes alive, so that no number comes to mean another.
    """

    CHANGES = ("replace", "rename", "link", "unlink", "rmdir", "mkdir")

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.names: dict[int, dict[str, tuple[int | None, ...]]] = {}
        self.contents: dict[int, tuple[bytes, ...]] = {}
        self.moments: list[Moment] = []
        self.kill_at = math.inf
        self.events = 0
        self._descriptors: list[int] = []
        self._lock = threading.RLock()  # zarr writes in threads of its own
        self._look()
        for inode in (*self.names, *self.contents):
            self._settle(inode)
        for name in self.CHANGES:
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))
        monkeypatch.setattr(os, "fsync", self._flushed(os.fsync))

    def moment(self) -> Moment:
        """What the disk may hold now."""
        with self._lock:
            self._look()
            return Moment(
                self.root.stat().st_ino, {k: dict(v) for k, v in self.names.items()}, self.contents.copy()
            )

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _watched(self, change: Callable) -> Callable:
        def call(*args: object, **options: object) -> object:
            with self._lock:
                self._event()
                self._look()
                return change(*args, **options)

        return call

    def _flushed(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            with self._lock:
                self._event()
                self.moments.append(self.moment())
                fsync(descriptor)
                self._settle(os.fstat(descriptor).st_ino)

        return call

    def _event(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.events += 1
            if self.events >= self.kill_at:
                raise Killed

    def _settle(self, inode: int) -> None:
        if inode in self.names:
            known = self.names[inode].items()
            self.names[inode] = {name: may[-1:] for name, may in known if may[-1] is not None}
        elif inode in self.contents:
            self.contents[inode] = self.contents[inode][-1:]

    def _look(self) -> None:
        todo = [self.root]
        while todo:
            folder = todo.pop()
            with os.scandir(folder) as entries:
                now = {entry.name: entry.inode() for entry in entries}
            known = self.names.setdefault(self._keep(folder), {})
            for name in known.keys() | now.keys():
                known[name] = seen(known.get(name, (None,)), now.get(name))
            for name in now:
                if (folder / name).is_dir():
                    todo.append(folder / name)
                else:
                    inode, data = self._keep(folder / name), (folder / name).read_bytes()
                    self.contents[inode] = seen(self.contents.get(inode, (b"",)), data)

    def _keep(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self.names and inode not in self.contents:
            self._descriptors.append(os.open(path, os.O_RDONLY))
        return inode


def seen(may: tuple, now: object) -> tuple:
    """What may be on the disk, and now this as well: the bytes of a file also in part, or as zeros."""
    if may[-1] == now:
        return may
    partial = (now[: len(now) // 2], bytes(len(now))) if isinstance(now, bytes) else ()
    return (*may, *partial, now)


def replays(moment: Moment, rng: np.random.Generator) -> Iterator[Tree]:
    """The folders that a restart may find, each once."""
    choices = moment.choices()
    found = set()
    for pick in picks(choices, rng):
        tree = moment.tree(pick)
        key = frozenset(tree.items())
        if key not in found:
            found.add(key)
            yield tree


def picks(choices: Mapping[Key, int], rng: np.random.Generator) -> Iterator[Mapping[Key, int]]:
    """Every choice for each of them, or a sample that has the newest, the oldest, and either but for one."""
    if math.prod(choices.values()) <= EXHAUSTIVE:
        for chosen in itertools.product(*map(range, choices.values())):
            yield dict(zip(choices, chosen, strict=True))
        return
    oldest, newest = dict.fromkeys(choices, 0), {key: n - 1 for key, n in choices.items()}
    yield from (oldest, newest)
    yield {key: 0 if key[1] is None else n - 1 for key, n in choices.items()}  # every name, and no bytes
    for key, n in choices.items():
        yield from ({**newest, key: old} for old in range(n - 1))
        yield {**oldest, key: n - 1}
    for _ in range(SAMPLE):
        yield {key: int(rng.integers(n)) for key, n in choices.items()}


# ---- what a restart must find


@dataclass(frozen=True)
class State:
    """A committed state of an index."""

    snapshot: Snapshot
    tree: Mapping[str, np.ndarray] | None

    @classmethod
    def of(cls, store: Store) -> "State":
        return cls(store.snapshot(), store.tree)


def manifest_of(tree: Tree) -> bytes | None:
    return tree.get(f"{INDEX}/manifest.json")


def assert_bytes(tree: Tree, states: Mapping[bytes | None, State | None]) -> None:
    """Without the store: the manifest is of one of the states, and each file that it names is whole."""
    manifest = manifest_of(tree)
    assert manifest in states
    if manifest is None:
        return
    said = json.loads(manifest)
    files = {f"{INDEX}/{name}": record for name, record in said.get("extras", {}).items()}
    for segment in said["segments"]:
        folder = f"{INDEX}/segments/{segment['name']}"
        files |= {f"{folder}/{name}": record for name, record in segment["files"].items()}
    for path, record in files.items():
        assert hashlib.sha256(tree.get(path) or b"").hexdigest() == record["sha256"], path


def assert_opens(tree: Tree, states: Mapping[bytes | None, State | None], folder: Path) -> None:
    """With the store: it opens, every byte is right, and the next writer clears up."""
    for name, data in sorted(tree.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            (folder / name).mkdir(exist_ok=True)
        else:
            (folder / name).write_bytes(data)
    want = states[manifest_of(tree)]
    if want is None:
        with pytest.raises(IndexNotFoundError):
            Store.open(folder / INDEX)
        Store.create(folder / INDEX, {}).close()
    else:
        with Store.open(folder / INDEX) as store:
            assert store.verify() == []
            assert_state(State.of(store), want)
    with Store.open(folder / INDEX, write=True) as store:
        assert store.leftovers() == store.verify() == []
        assert_state(State.of(store), want or State.of(store))
    shutil.rmtree(folder)


def assert_state(got: State, want: State) -> None:
    assert_same(got.snapshot, want.snapshot)
    assert (got.tree is None) == (want.tree is None)
    for name, array in (want.tree or {}).items():
        np.testing.assert_array_equal(got.tree[name], array)


def assert_survived(
    moment: Moment, states: Mapping[bytes | None, State | None], folder: Path, rng: np.random.Generator
) -> set[bytes | None]:
    """Replay a moment; the manifests that were found."""
    trees = list(replays(moment, rng))
    for tree in trees:
        assert_bytes(tree, states)
    for number in rng.choice(len(trees), min(OPENED, len(trees)), replace=False):
        assert_opens(trees[number], states, folder)
    return {manifest_of(tree) for tree in trees}


# ---- what a store does


def learned(seed: int) -> dict[str, np.ndarray]:
    return {"nodes": np.random.default_rng(seed).integers(0, 256, (3, 8), dtype=np.uint8)}


def unchanged(patches: Snapshot) -> Snapshot:
    return patches


STEPS: list[Callable[[Store], object]] = [
    lambda store: append(store, "a", 9, 1),
    lambda store: append_many(store, ("b", 2, 2), ("c", 0, 3)),
    lambda store: store.rekey(learned(0), unchanged),
    lambda store: append(store, "d", 1, 4),
    lambda store: store.relabel({"b": make_row("b", 2, 2, "new"), "d": make_row("d", 1, 4, "new")}),
    lambda store: store.remove(["b"]),
    lambda store: store.compact(),
    lambda store: append(store, "a", 3, 5, replacing=True),
    lambda store: store.rekey(learned(1), unchanged),
    lambda store: store.remove(["a", "c", "d"]),
    lambda store: append(store, "e", 4, 6),
]
"""A life of an index: every kind of change."""


@contextmanager
def watched(root: Path) -> Iterator[Disk]:
    """The disk below ``root``, recorded as long as this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(root, patch)
        try:
            yield disk
        finally:
            disk.close()


def written(store: Store) -> dict[bytes | None, State | None]:
    """The state of a store, by its manifest."""
    return {(store.path / "manifest.json").read_bytes(): State.of(store)}


@pytest.mark.slow
def test_a_power_cut_at_any_moment_leaves_the_old_index_or_the_new_one(tmp_path, monkeypatch):
    told: list[tuple[list[Moment], dict[bytes | None, State | None]]] = []
    before: dict[bytes | None, State | None] = {None: None}
    (tmp_path / "root").mkdir()
    with watched(tmp_path / "root") as disk, Store.create(disk.root / INDEX, {}) as store:
        for step in (None, *STEPS):
            if step is not None:
                step(store)
            after = written(store)
            told += [(disk.moments, {**before, **after}), ([disk.moment()], after)]
            disk.moments, before = [], after
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the replays themselves need no durability
    rng = np.random.default_rng(0)
    for moments, states in told:
        found = [assert_survived(moment, states, tmp_path / "replay", rng) for moment in moments]
        assert set().union(*found) == set(states)  # both sides of each commit were looked at


@pytest.mark.slow
@pytest.mark.parametrize("number", [5, 8])
def test_a_killed_writer_and_then_a_power_cut_while_the_next_one_clears_up(tmp_path, monkeypatch, number):
    """What the killed one did not flush is seen by the next, and may still be lost."""
    source = tmp_path / "source"
    with Store.create(source / INDEX, {}) as store:
        for step in STEPS[:number]:
            step(store)
    before, rng = written(store), np.random.default_rng(0)
    for kill_at in itertools.count(1):
        root = Path(shutil.copytree(source, tmp_path / str(kill_at)))
        with watched(root) as disk:
            killed = interrupted(disk, STEPS[number], kill_at)
            after = written(Store.open(root / INDEX))
            disk.moments = []
            Store.open(root / INDEX, write=True).close()
            moments = [*disk.moments, disk.moment()]
        if not killed:
            break
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: None)
            for moment in moments:
                assert_survived(moment, {**before, **after}, tmp_path / "replay", rng)
    assert kill_at > 5
    assert before.keys() != after.keys()


def interrupted(disk: Disk, step: Callable[[Store], object], kill_at: int) -> bool:
    """Whether the step was killed at that change or flush, from which on it changes nothing more."""
    store = Store.open(disk.root / INDEX, write=True)
    disk.events, disk.kill_at = 0, kill_at
    try:
        step(store)
    except Killed:
        return True
    finally:
        disk.kill_at = math.inf
        store.close()
    return False
