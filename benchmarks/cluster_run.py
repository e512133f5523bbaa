"""Measured costs of encoding in shards, and a real run of two processes, one of which is killed on its way.

Each process has one core and one reading thread. Slides and starts are counted in processor time, which other
work on the machine changes little, commits and merges by the clock.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

import sish
from benchmarks.cluster_model import Costs, Task, batches_of, grouped, never
from sish.cluster_plan import calibrate
from sish.encode import SlideCodes, SlideEncoder
from sish.identity import file_digest
from sish.index.store import SlideRow, Store
from sish.ingest import Job, row_of
from sish.shard_merge import merge
from sish.shards import Shard, ShardRecord, digest_of
from sish.slide_writer import SlideWriter
from sish.slides.files import find_slides, slide_id_of
from sish.slides.reader_threads import TimeLimit
from sish.slides.slide import open_slide

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_SOON = 0.005  # seconds between two looks at a process
_FLIPPED = 0.03  # share of bits by which copies of a slide differ


@dataclass(frozen=True, slots=True)
class Measured:
    """A slide that was encoded."""

    row: SlideRow
    """Its row."""
    codes: SlideCodes
    """Its codes."""
    seconds: float
    """Processor time of opening, mosaic and codes."""


@dataclass(frozen=True, slots=True)
class Check:
    """A shard as it was encoded by a process, and as the model has it."""

    shard: str
    """Which shard."""
    slides: int
    """Its slides."""
    kills: int
    """How often its process was killed."""
    seconds: float
    """Processor time of all its runs."""
    modelled: float
    """Seconds that the model gives."""
    kept: int | None
    """Slides that were committed when it was killed."""
    modelled_kept: int | None
    """Slides that the model has committed by then."""

    @property
    def ratio(self) -> float:
        """Real by modelled seconds."""
        return self.seconds / self.modelled


def planned(slides: Path, index: Path, mpp: float | None) -> Path:
    """Make the empty index that all shards are like."""
    made = sish.Index.create(index)
    calibrate(made, [str(slides)], mpp=mpp, show_progress=False)
    return index


def measured_slides(slides: Path, index: Path, mpp: float | None) -> list[Measured]:
    """Encode slides one after another, on one core."""
    with one_core():
        encoder = sish.Index.open(index).encoder
        encoder.load()
        paths = find_slides(slides)
        _encoded(encoder, paths[0], mpp)  # what the first needs is counted as starting
        return [_encoded(encoder, path, mpp) for path in paths]


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core for a while."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _encoded(encoder: SlideEncoder, path: Path, mpp: float | None) -> Measured:
    """Encode a slide as :class:`sish.ingest.Ingest` does."""
    start = time.process_time()
    digest = file_digest(path)
    with open_slide(path, mpp=mpp) as slide:
        prepared = encoder.prepare(slide)
        codes = encoder.encode(prepared)
        job = Job(slide_id_of(path), path, None, None, TimeLimit(0, str(path)), digest)
        row = row_of(job, slide, prepared.mosaic.l0_size, codes)
    return Measured(row, codes, time.process_time() - start)


def measure(slides: Path, index: Path, mpp: float | None, copies: int, folder: Path) -> Costs:
    """Measure all costs of the model.

    Parameters
    ----------
    slides : Path
        A folder of slides.
    index : Path
        The empty index that shards are like.
    mpp : float or None
        Scale of slides that do not tell theirs.
    copies : int
        Slides of the shards whose merge is measured, copies of the measured ones with some other bits.
    folder : Path
        An empty folder to work in.

    Returns
    -------
    Costs
        What was measured.
    """
    measured = measured_slides(slides, index, mpp)
    return Costs(
        slide_s=tuple(it.seconds for it in measured),
        commit_s=commit_seconds(measured, index, folder),
        start_s=start_seconds(measured[0], index, mpp, folder),
        listed_s=listed_seconds(index, folder),
        merge_s=merge_seconds(measured, index, copies, folder),
    )


def commit_seconds(measured: Sequence[Measured], index: Path, folder: Path) -> float:
    """Return the median time by the clock of a commit of one slide."""
    times = []
    with Store.create(folder / "commits.sish", Store.open(index).header) as store:
        writer = SlideWriter(store, sish.Recipe())
        for slide in measured:
            writer.take(slide.row, slide.codes)
            start = time.perf_counter()
            writer.commit()
            times.append(time.perf_counter() - start)
    return float(np.median(times))


def start_seconds(slide: Measured, index: Path, mpp: float | None, folder: Path) -> float:
    """Return the processor time of a process that adds one slide, without the slide."""
    times = []
    for number in range(3):
        words = add_words([slide.row.path], folder / f"start{number}.sish", Shard(0, 1), index, mpp)
        times.append(Process(words, core=0).wait() - slide.seconds)
    return max(0.0, float(np.median(times)))


def listed_seconds(index: Path, folder: Path, files: int = 2000) -> float:
    """Return the processor time to find, in a folder, a slide of another shard."""
    many = folder / "many"
    many.mkdir()
    for number in range(files):
        (many / f"{number}.svs").touch()
    nobody = sish.Index.create(folder / "nobody.sish", like=index)
    start = time.process_time()
    nobody.add(many, shard=Shard(0, 999_999_999), show_progress=False)
    return (time.process_time() - start) / files


def merge_seconds(measured: Sequence[Measured], index: Path, copies: int, folder: Path) -> float:
    """Return the time by the clock to merge a slide of two shards that hold so many copies."""
    ids = [f"copy{number}" for number in range(copies)]
    shards = [_shard_of_copies(measured, ids, Shard(number, 2), index, folder) for number in range(2)]
    start = time.perf_counter()
    merge(folder / "merged.sish", shards, show_progress=False)
    return (time.perf_counter() - start) / copies


def _shard_of_copies(
    measured: Sequence[Measured], ids: Sequence[str], shard: Shard, index: Path, folder: Path
) -> Path:
    """Write a finished shard of copies of measured slides, each with some of its bits flipped."""
    path, rng = folder / f"copies{shard.number}.sish", np.random.default_rng(shard.number)
    own = [slide_id for slide_id in ids if shard.holds(slide_id)]
    with Store.create(path, Store.open(index).header) as store:
        writer = SlideWriter(store, sish.Recipe())
        for number, slide_id in enumerate(own):
            slide = measured[number % len(measured)]
            flipped = np.packbits(
                rng.random((len(slide.codes), slide.codes.barcodes.shape[1] * 8)) < _FLIPPED, 1
            )
            codes = replace(slide.codes, barcodes=slide.codes.barcodes ^ flipped)
            writer.take(replace(slide.row, slide_id=slide_id, patient=slide_id), codes)
            if writer.is_due:
                writer.commit()
        writer.commit()
        record = ShardRecord(shard.number, shard.count, digest_of(ids), len(own), 0, 1.0, 2.0, finished=True)
        store.keep_measured(record.fact())
    return path


def add_words(slides: Iterable[str], path: Path, shard: Shard, like: Path, mpp: float | None) -> list[str]:
    """Return the words of a command line that adds a shard."""
    words = [
        "index",
        "add",
        *slides,
        "--index",
        str(path),
        "--shard",
        str(shard),
        "--like",
        str(like),
        "--quiet",
    ]
    return [*words, *(() if mpp is None else ("--mpp", str(mpp)))]


class Process:
    """A process of ``sish`` on one core.

    Parameters
    ----------
    words : sequence of str
        Its command line, after ``sish``.
    core : int
        The number of its core among those that this process may use.
    """

    def __init__(self, words: Sequence[str], core: int) -> None:
        """Start it."""
        cores = sorted(os.sched_getaffinity(0))
        chosen = {cores[core % len(cores)]}
        one = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sish", *words],
            env={**os.environ, **one},
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, chosen),
        )

    def processor_time(self) -> float:
        """Return the seconds of a core that it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def kill_at(self, seconds: float) -> None:
        """Kill it once it has used so many seconds of its core, if it has not ended."""
        while self.processor_time() < seconds and not self._has_ended():
            time.sleep(_SOON)
        self._process.kill()

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> float:
        """Wait for its end and return the seconds of a core that it used."""
        _, _, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = 0
        return usage.ru_utime + usage.ru_stime


def checks(
    slides: Path, index: Path, mpp: float | None, costs: Costs, folder: Path
) -> tuple[list[Check], float]:
    """Encode slides in two shards, each by a process; the first is killed on its way and started again.

    Parameters
    ----------
    slides : Path
        A folder of slides, whose costs were measured in their order.
    index : Path
        The empty index that shards are like, into which they are merged.
    mpp : float or None
        Scale of slides that do not tell theirs.
    costs : Costs
        What was measured on them.
    folder : Path
        A folder to work in.

    Returns
    -------
    checks : list of Check
        Both shards.
    seconds : float
        Time by the clock from the start of both to the merged index.
    """
    start = time.perf_counter()
    ids = [slide_id_of(path) for path in find_slides(slides)]
    cost = dict(zip(ids, costs.slide_s, strict=True))
    shards = [Shard(number, 2) for number in range(2)]
    own = [[cost[name] for name in ids if shard.holds(name)] for shard in shards]
    paths = [folder / f"shard{number}.sish" for number in range(2)]
    words = [add_words([str(slides)], *each, index, mpp) for each in zip(paths, shards, strict=True)]
    first, second = (Process(each, core) for core, each in enumerate(words))
    first.kill_at(costs.start_s + sum(own[0]) / 2)
    killed = first.wait()
    with Store.open(paths[0]) as store:
        kept = len(store)
    again = Process(words[0], 0).wait()
    used = second.wait()
    merge(index, paths, show_progress=False)
    seconds = time.perf_counter() - start
    kept_by_model = _kept(costs, own[0], killed)
    with_kill = _modelled(costs, own[0], [killed])
    return [
        Check(str(shards[0]), len(own[0]), 1, killed + again, with_kill, kept, kept_by_model),
        Check(str(shards[1]), len(own[1]), 0, used, _modelled(costs, own[1], []), None, None),
    ], seconds


def _modelled(costs: Costs, slide_s: Sequence[float], crashes: Sequence[float]) -> float:
    """Return the seconds of a shard of these slides by the model, with crashes after so many seconds."""
    task = Task(costs.start_s, chain(crashes, never()))
    task.run(batches_of(slide_s, costs.commit_s))
    return task.ran_s


def _kept(costs: Costs, slide_s: Sequence[float], seconds: float) -> int:
    """Return how many slides the model has committed after so many seconds."""
    kept, now = 0, costs.start_s
    for group in grouped(slide_s):
        now += sum(group) + costs.commit_s
        if now > seconds:
            break
        kept += len(group)
    return kept
