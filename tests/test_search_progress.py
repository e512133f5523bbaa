"""A search tells how far it is, and ends when it is told to: nothing reads then, and no file is open."""

import threading
from pathlib import Path

import numpy as np
import pytest

import sish


class Cancelled(Exception):
    """Raised by a caller who wants no answer any more."""


class Told:
    """What a search told, and in which thread; it cancels at a number of patches."""

    def __init__(self, cancel_at: float = np.inf) -> None:
        self.calls, self.threads, self.cancel_at = [], set(), cancel_at

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))
        self.threads.add(threading.get_ident())
        if done >= self.cancel_at:
            raise Cancelled


@pytest.fixture
def index(built_index, monkeypatch) -> sish.Index:
    """An index whose queries are read two patches at a time."""
    monkeypatch.setattr("sish.slides.reading.batch_patches", lambda _: 2)
    return sish.Index.open(built_index)


def open_files() -> set[str]:
    """The files that this process holds open."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("this system does not list open files in /proc")
    return {str(fd.readlink()) for fd in folder.iterdir() if fd.is_symlink()}


def test_each_batch_is_told_in_the_callers_thread(index):
    row = index.slides[0]
    told = Told()
    answer = index.search(row.path, on_progress=told)
    total = answer.query.n_patches
    assert told.calls == [(done, total) for done in (*range(0, total, 2), total)]
    assert total > 2 and told.threads == {threading.get_ident()}
    assert answer == index.search(row.path)


@pytest.mark.parametrize("cancel_at", [0, 2])
def test_what_it_raises_ends_the_search(index, cancel_at):
    row = index.slides[0]
    before = set(threading.enumerate())
    told = Told(cancel_at)
    with pytest.raises(Cancelled):
        index.search(row.path, on_progress=told)
    assert told.calls[-1][0] == cancel_at < told.calls[-1][1]
    assert set(threading.enumerate()) <= before
    assert row.path not in open_files()
    assert len(index.search(row.path)), "the index goes on answering"


def test_stored_codes_are_told_once(index):
    row = index.slides[0]
    told = Told()
    index.search(row.slide_id, on_progress=told)
    assert told.calls == [(row.n_patches, row.n_patches)]
    with pytest.raises(Cancelled):
        index.search(row.slide_id, on_progress=Told(0))


def test_vectors_are_told_once(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)
    index = sish.Index.from_vectors(tmp_path / "v.sish", vectors, np.repeat(["a", "b", "c"], 20))
    told = Told()
    index.search(vectors[:20], on_progress=told)
    assert told.calls == [(20, 20)]
