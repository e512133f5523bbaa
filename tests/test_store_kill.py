"""Writers that are killed, again and again, and readers in other processes meanwhile.

Run as a script, this file starts such writers: ``python tests/test_store_kill.py INDEX``, then a seed a line.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr  # noqa: F401  the store imports it late, and the kills are to hit what follows
from store_cases import arrays_of, assert_whole, make_row

from sish.errors import IndexLockedError
from sish.index.store import SlideRow, Store, slide_snapshot

KILLS = 300
KINDS = [
    "append",
    "append_many",
    "append_many",
    "remove",
    "remove",
    "remove",
    "relabel",
    "relabel",
    "compact",
]
"""Quick ones more often, so that each is hit by a kill."""


def writer(path: str, seed: int) -> None:
    """Change the index for ever, saying what is tried and, once it is committed, that it is done."""
    rng = np.random.default_rng(seed)
    with Store.open(path, write=True) as store:
        say("ready")
        while True:
            kind = str(rng.choice(KINDS))
            ids = [row.slide_id for row in store.slides]
            chosen = [str(name) for name in rng.choice(ids, min(len(ids), 2), replace=False)] if ids else []
            change = {"kind": kind, "ids": chosen, "seed": int(rng.integers(2**31))}
            if kind == "append":
                change["ids"] = [f"s{rng.integers(40)}"]  # few names: new slides, and replaced ones
            if kind == "append_many":
                change["ids"] = [f"s{n}" for n in rng.choice(40, rng.integers(1, 12), replace=False)]
            say({"try": change})
            apply(store, change)
            say({"done": change})


def say(what: object) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())  # whole lines, whatever moment it is killed at


def new_rows(change: dict) -> list[SlideRow]:
    seeds = range(change["seed"], change["seed"] + len(change["ids"]))
    return [make_row(name, seed % 30, seed) for name, seed in zip(change["ids"], seeds, strict=True)]


def apply(store: Store, change: dict) -> None:
    rows = {row.slide_id: row for row in store.slides}
    if change["kind"] == "append":
        (row,) = new_rows(change)
        store.append(row, *arrays_of(row), replace=True)
    elif change["kind"] == "append_many":
        slides = [slide_snapshot(row, *arrays_of(row)) for row in new_rows(change)]
        store.append_many(slides, replace=True)
    elif change["kind"] == "remove":
        store.remove(change["ids"])
    elif change["kind"] == "relabel":
        store.relabel({name: replace(rows[name], label=str(change["seed"])) for name in change["ids"]})
    else:
        store.compact()


def applied(slides: tuple[SlideRow, ...], change: dict) -> tuple[SlideRow, ...]:
    """What `apply` does to a list."""
    ids, kind = change["ids"], change["kind"]
    if kind.startswith("append"):  # all of them, or none
        return (*(row for row in slides if row.slide_id not in ids), *new_rows(change))
    if kind == "remove":
        return tuple(row for row in slides if row.slide_id not in ids)
    if kind == "relabel":
        return tuple(
            replace(row, label=str(change["seed"])) if row.slide_id in ids else row for row in slides
        )
    return slides


def serve(path: str) -> None:
    """Fork a writer for each seed that comes in: a fork has nothing to import, so that it is cheap."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            writer(path, int(line))
        say({"pid": child})
        os.waitpid(child, 0)
        say("ended")


class Writers:
    """The process that forks writers."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, seed: int) -> int:
        """Fork a writer, and return its process number once it has opened the index."""
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()
        said = [self.read(), self.read()]  # in either order
        assert "ready" in said
        return next(line["pid"] for line in said if line != "ready")

    def read(self):
        line = self.process.stdout.readline()
        assert line, "the writer failed"
        return json.loads(line)

    def read_done(self, n: int) -> list[dict]:
        """Return what the writer says until it has done ``n`` changes."""
        said: list[dict] = []
        while sum("done" in line for line in said) < n:
            said.append(self.read())
        return said

    def kill(self, pid: int) -> list[dict]:
        """Kill the writer, and return what it said that was not read yet."""
        os.kill(pid, signal.SIGKILL)
        said = []
        while (line := self.read()) != "ended":
            said.append(line)
        return said


@contextmanager
def writers(path: Path) -> Iterator[Writers]:
    started = Writers(path)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is one: a killed process takes nothing from the page cache with it."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else None)
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_it_acknowledged(in_memory):
    path = in_memory / "index"
    Store.create(path, {}).close()
    rng = np.random.default_rng(0)
    known: tuple[SlideRow, ...] = ()
    hit = dict.fromkeys(KINDS, 0)
    with writers(path) as fork:
        for seed in itertools.count():
            if seed >= KILLS and min(hit.values()) > 0:  # each kind of change was interrupted
                break
            assert seed < 10 * KILLS, f"kills never hit every kind of change: {hit}"
            pid = fork.start(seed)
            said = fork.read_done(int(rng.integers(0, 3)))
            time.sleep(rng.uniform(0, 0.02))
            said += fork.kill(pid)
            for line in said:
                known = applied(known, line["done"]) if "done" in line else known
            allowed = [known]
            if said and "try" in said[-1]:
                allowed.append(applied(known, said[-1]["try"]))
                hit[said[-1]["try"]["kind"]] += 1
            with Store.open(path) as store:
                assert store.slides in allowed
                assert store.verify() == []
                assert_whole(store.snapshot())
                known = store.slides
                commits = store.generation
    assert commits > KILLS
    with Store.open(path, write=True) as store:
        store.compact()
        assert (store.slides, store.leftovers(), store.verify()) == (known, [], [])


@pytest.mark.slow
def test_readers_in_other_processes_see_whole_states(in_memory):
    path = in_memory / "index"
    Store.create(path, {}).close()
    with writers(path) as fork:
        pid = fork.start(1)
        with pytest.raises(IndexLockedError, match=f"by process {pid}"):
            Store.open(path, write=True)
        held, generations = [], [0]
        reader = Store.open(path)
        while generations[-1] < 60 or len(generations) < 100:
            fresh = Store.open(path)
            reader.refresh()
            generations += [fresh.generation, reader.generation]
            held = [*held[-9:], fresh.snapshot(), reader.snapshot()]
            for snapshot in (held[0], held[-1]):  # the oldest, whose files are gone, and the newest
                assert_whole(snapshot)
            assert fresh.verify() == []
        said = fork.kill(pid)
    assert generations == sorted(generations)
    assert sum("done" in line for line in said) >= 60


if __name__ == "__main__":
    serve(sys.argv[1])
