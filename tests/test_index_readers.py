"""Searching an index while another thread or process changes it.

Run as a script, this file is a reader in a process of its own: ``python tests/test_index_readers.py INDEX``
searches until its input ends, and prints what it saw.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import sish


def search_once(index: sish.Index, stays: str) -> tuple[str, ...]:
    """Search for a slide that nobody removes; the ids found, checked against one state of the index."""
    row = next(row for row in index.slides if row.slide_id == stays)
    results = index.search(row.path, k=8, ranking="similarity")
    found = tuple(hit.slide_id for hit in results)
    assert found[0] == stays
    assert results[0].score == pytest.approx(1.0)
    assert len(set(found)) == len(found)
    assert 7 <= len(found) <= 8  # one slide comes and goes
    return found


def change(index: sish.Index, rounds: int) -> tuple[str, str]:
    """Remove a slide, add it again, and clean up, again and again."""
    labels = Path(index.slides[0].path).parent / "labels.csv"
    row = index.slides[-1]
    for _ in range(rounds):
        assert index.remove(row.slide_id) == 1
        index.relabel(labels)
        assert index.add(row.path, labels=labels, show_progress=False).summary() == "1 added"
        index.compact()
    return row.slide_id, index.slides[0].slide_id


def test_threads_search_while_one_adds_and_removes(own_index):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stop, errors, found = threading.Event(), [], []
    stays = own_index.slides[0].slide_id

    def read(index: sish.Index) -> None:
        try:
            while not stop.is_set():
                found.append(search_once(index, stays))
        except BaseException as error:
            errors.append(error)

    # two share the index that changes, one has opened it for itself
    readers = [
        threading.Thread(target=read, args=[index])
        for index in (own_index, own_index, sish.Index.open(own_index.path))
    ]
    for reader in readers:
        reader.start()
    try:
        change(own_index, 3)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        torch.set_num_threads(threads)
    assert errors == []
    assert found
    assert sish.verify(own_index.path) == []


@pytest.mark.slow
def test_processes_search_while_another_adds_and_removes(own_index):
    readers = [
        subprocess.Popen(
            [sys.executable, __file__, own_index.path, own_index.slides[0].slide_id],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"
    doomed, _ = change(own_index, 4)
    for reader in readers:
        sizes = json.loads(reader.communicate()[0])
        assert reader.returncode == 0
        assert sizes
    assert doomed in own_index
    assert sish.verify(own_index.path) == []


def main(path: str, stays: str) -> None:
    """Search until the input ends; print how many slides each search found."""
    torch.set_num_threads(1)
    index = sish.Index.open(path)
    search_once(index, stays)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
    sizes = []
    while not ended.is_set() or not sizes:
        sizes.append(len(search_once(index, stays)))
    sys.stdout.write(json.dumps(sizes))


if __name__ == "__main__":
    main(*sys.argv[1:])
