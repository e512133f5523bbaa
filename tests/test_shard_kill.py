"""Shards and their merge as plain processes that are killed at random moments and started again.

Run as a script, this file forks a process for each line of words of the command line that comes in.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sharded import assert_same

import sish
from sish import slide_writer
from sish.cli import main
from sish.cluster_status import ClusterStatus
from sish.demo.synthetic import write_slides

FIRST_S, GROWTH = 0.05, 1.4
"""A process is killed within so many seconds, and the next one within so many times more."""
SLIDES = 12


def serve() -> None:
    """Fork a process for each line, which has nothing to import; kill it in time, and tell its status."""
    slide_writer._COMMIT_S = 0.0  # a commit for each slide, so that kills hit many of them
    for line in sys.stdin:
        seconds, words = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)
            os._exit(main(words))
        os.write(1, f"{ended(child, time.monotonic() + seconds)}\n".encode())


def ended(child: int, end: float) -> int:
    """Kill a process at this time, and return its exit status; that of its own if it ended before."""
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


@contextmanager
def commands() -> Iterator[Callable[[list[str], float], bool]]:
    """A function that runs a command for so many seconds and returns whether it came to its end."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(words: list[str], seconds: float) -> bool:
        process.stdin.write(json.dumps([seconds, words]) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        assert status in (0, signal.SIGKILL)
        return status == 0

    try:
        yield run
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_shards_and_a_merge_that_are_killed_give_the_index_of_one_add(tmp_path):
    slides, index = tmp_path / "slides", tmp_path / "archive.sish"
    labels = write_slides(slides, n_slides=SLIDES, seed=3, side_um=600)
    one = sish.Index.create(tmp_path / "one.sish")
    assert len(one.add(slides, labels=labels, show_progress=False).added) == SLIDES
    words = [str(slides), "--labels", str(labels)]
    assert main(["index", "plan", *words, "--index", str(index), "--shards", "2", "--quiet"]) == 0
    shards = [Path(f"{index}.shards") / str(number) for number in range(2)]
    tasks = [
        ["index", "add", *words, "--index", str(it), "--shard", f"{n}/2", "--like", str(index), "--quiet"]
        for n, it in enumerate(shards)
    ]
    tasks.append(["index", "merge", str(index), *map(str, shards), "--quiet"])
    rng = np.random.default_rng(int(os.environ.get("SISH_TEST_SEED", 0)))
    kills = [0, 0, 0]
    with commands() as run:
        for number, task in enumerate(tasks):
            while not run(task, rng.uniform(0, FIRST_S * GROWTH ** kills[number])):
                kills[number] += 1
    assert min(kills) > 0, kills
    assert_same(index, one.path)
    status = ClusterStatus.read(shards)
    assert (status.done, status.left, status.failed) == (SLIDES, 0, [])


if __name__ == "__main__":
    serve()
