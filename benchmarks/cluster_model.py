"""A model of an archive that is encoded in shards on a cluster: seeded, with discrete events.

A worker takes the next shard when it is free. A task starts, lists all slides, encodes those of its shard,
and commits after every two seconds of work, as :class:`sish.slide_writer.SlideWriter` does. A crash costs the
work that was not committed yet; the task waits for a place, starts again and goes on. Some workers are slower
than others. When all shards are done, one process merges them. The model has no network and no shared disk,
so it cannot tell how a file system behaves that many workers wait for.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

COMMIT_S = 2.0
"""Seconds of work between commits."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that the parts of the work take on one worker."""

    slide_s: tuple[float, ...]
    """Seconds of some slides, from which the model draws."""
    commit_s: float
    """Seconds of a commit."""
    start_s: float
    """Seconds until a task has started, without the list of slides."""
    listed_s: float
    """Seconds to list one slide; each task lists all."""
    merge_s: float
    """Seconds to merge one slide."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong on the cluster."""

    crashes_an_hour: float = 0.01
    """Crashes in an hour of a worker: nodes that fail, tasks that are preempted or killed."""
    wait_s: float = 600.0
    """Seconds until a task that crashed has a place again."""
    slow: float = 0.05
    """Share of slow workers."""
    slow_factor: float = 3.0
    """How many times longer they take."""
    failing: float = 0.01
    """Share of slides that take their time and fail."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an archive was encoded."""

    slides: int
    """Slides of the list."""
    workers: int
    """Workers."""
    shards: int
    """Shards."""
    encode_hours: float
    """Hours until the last shard is done."""
    merge_hours: float
    """Hours of the merge."""
    work_hours: float
    """Hours of work on slides that were committed, and their commits, summed over workers."""
    start_hours: float
    """Hours of starting and listing, summed over workers."""
    lost_hours: float
    """Hours of work that crashes undid, summed over workers."""
    failing_hours: float
    """Hours of work on slides that failed, summed over workers; a part of `work_hours`."""
    crashes: int
    """Number of crashes."""

    @property
    def hours(self) -> float:
        """Hours from the first task to the merged index."""
        return self.encode_hours + self.merge_hours

    @property
    def wasted(self) -> float:
        """Share of the workers' hours that was starting, work undone by crashes, or slides that fail."""
        waste = self.start_hours + self.lost_hours + self.failing_hours
        return waste / (self.work_hours + self.start_hours + self.lost_hours)

    @property
    def efficiency(self) -> float:
        """Work on slides as a share of what all workers could do until the last shard is done."""
        return (self.work_hours - self.failing_hours) / (self.workers * self.encode_hours)


class Task:
    """A task that encodes a shard.

    Parameters
    ----------
    start_s : float
        Seconds to start and to list the slides.
    crashes : iterator of float
        Seconds of running until each crash, one after another.
    """

    def __init__(self, start_s: float, crashes: Iterator[float]) -> None:
        """Set the task up; `run` runs it."""
        self.ran_s, self.lost_s, self.starting_s, self.crashes = 0.0, 0.0, 0.0, 0
        self._start_s, self._crashes = start_s, crashes
        self._until_crash = next(crashes)

    def run(self, batches: Sequence[float]) -> None:
        """Do the work that lies between commits, again and again until it is committed."""
        self._start()
        for seconds in batches:
            while not self._spend(seconds):
                self._start()

    def _start(self) -> None:
        while not self._spend(self._start_s):
            pass
        self.starting_s += self._start_s

    def _spend(self, seconds: float) -> bool:
        """Run for so long, or until a crash; return whether it was to the end."""
        done = min(seconds, self._until_crash)
        self.ran_s += done
        self._until_crash -= done
        if done == seconds:
            return True
        self.lost_s += done
        self.crashes += 1
        self._until_crash = next(self._crashes)
        return False


def grouped(slide_s: Iterable[float]) -> Iterator[list[float]]:
    """Yield the slides that are committed together, by their seconds: up to two seconds of work."""
    group: list[float] = []
    for seconds in slide_s:
        group.append(float(seconds))
        if sum(group) >= COMMIT_S:
            yield group
            group = []
    if group:
        yield group


def batches_of(slide_s: Iterable[float], commit_s: float) -> list[float]:
    """Return the seconds between commits: slides up to two seconds of work, and their commit."""
    return [sum(group) + commit_s for group in grouped(slide_s)]


def never() -> Iterator[float]:
    """Yield the times between crashes of a worker that never crashes."""
    return itertools.repeat(float("inf"))


def random_crashes(rng: np.random.Generator, an_hour: float) -> Iterator[float]:
    """Yield the seconds between crashes that come by chance, so many an hour."""
    while an_hour:
        yield float(rng.exponential(3600 / an_hour))
    yield from never()


def simulate(
    costs: Costs, trouble: Trouble, *, slides: int, workers: int, shards: int, seed: int = 0
) -> Outcome:
    """Simulate an archive.

    Parameters
    ----------
    costs : Costs
        What was measured.
    trouble : Trouble
        What goes wrong.
    slides, workers, shards : int
        Slides of the list, workers, and shards that these take one after another.
    seed : int
        For all that happens by chance: sizes of shards, seconds of slides, slow workers, crashes.

    Returns
    -------
    Outcome
        How it went.
    """
    rng = np.random.default_rng(seed)
    factors = np.where(rng.random(workers) < trouble.slow, trouble.slow_factor, 1.0)
    free = [(0.0, worker) for worker in range(workers)]
    start_s = costs.start_s + slides * costs.listed_s
    totals, failing_s = np.zeros(4), 0.0
    for size in rng.multinomial(slides, np.full(shards, 1 / shards)):
        now, worker = heapq.heappop(free)
        seconds = rng.choice(costs.slide_s, size) * factors[worker]
        batches = batches_of(seconds, costs.commit_s * factors[worker])
        task = Task(start_s * factors[worker], random_crashes(rng, trouble.crashes_an_hour))
        task.run(batches)
        heapq.heappush(free, (now + task.ran_s + task.crashes * trouble.wait_s, worker))
        failing_s += float(seconds[rng.random(size) < trouble.failing].sum())
        totals += (sum(batches), task.starting_s, task.lost_s, task.crashes)
    work, starting, lost, crashes = map(float, totals)
    return Outcome(
        slides,
        workers,
        shards,
        encode_hours=max(free)[0] / 3600,
        merge_hours=slides * (1 - trouble.failing) * costs.merge_s / 3600,
        work_hours=work / 3600,
        start_hours=starting / 3600,
        lost_hours=lost / 3600,
        failing_hours=failing_s / 3600,
        crashes=int(crashes),
    )
