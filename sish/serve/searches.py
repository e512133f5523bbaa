"""Searches that can be watched and cancelled, and their answers for a while after."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sish.errors import SishError
from sish.slides.reader_threads import start

T = TypeVar("T")

MOST_KEPT = 64
"""Searches that are remembered."""
_AT_ONCE = 2  # that may encode at a time
_WAITING = 32
_LOOK_S = 0.25  # between two looks whether the asker is still there

State = Literal["waiting", "running", "done", "cancelled", "failed"]
IsGone = Callable[[], Awaitable[bool]]
"""Tells whether the asker left."""
Progress = Callable[[int, int], None]
"""Told of each step of some work: steps done, steps in all."""


class Cancelled(SishError):
    """The work was cancelled by whoever asked for it."""


class Busy(SishError):
    """Too much work is waiting."""


@dataclass(slots=True, eq=False)
class Job:
    """Some work that somebody waits for."""

    state: State = "waiting"
    """Where it is."""
    done: int = 0
    """Steps done."""
    total: int = 0
    """Steps in all; 0 until they are known."""
    result: Any = None
    """Its result, once it is done, if it is kept for later calls."""
    _cancel: threading.Event = field(default_factory=threading.Event)

    def do(self, work: Callable[[Progress], T]) -> T:
        """Do the work, and note how it ends."""
        with self.noting_failure():
            self.state = "running"
            found = work(self.progress)
            self.state = "cancelled" if self.is_cancelled else "done"
            return found

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Note that an error, or whoever asked, ended it."""
        try:
            yield
        except BaseException as error:
            is_cancelled = self.is_cancelled or isinstance(error, asyncio.CancelledError)
            self.state = "cancelled" if is_cancelled else "failed"
            raise

    def cancel(self) -> None:
        """Let it end at its next step."""
        self._cancel.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody cancelled it."""
        return self._cancel.is_set()

    @property
    def is_spent(self) -> bool:
        """Whether it ended, and nobody can ask for its result."""
        return self.result is None and self.state not in ("waiting", "running")

    def progress(self, done: int, total: int) -> None:
        """Note a step; Cancelled ends the work if somebody cancelled it."""
        if self.is_cancelled:
            raise _cancelled()
        self.done, self.total = done, total

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"state": self.state, "done": self.done, "total": self.total}


class Searches:
    """Runs work in threads, a few at a time, and keeps jobs by the name that the asker gave."""

    def __init__(self) -> None:
        """Begin with none."""
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    def get(self, name: str) -> Job | None:
        """Return a job by its name; None if it is forgotten or never was."""
        return self._jobs.get(name)

    async def run(self, job: Job, work: Callable[[Progress], T], is_gone: IsGone, *, encodes: bool) -> T:
        """Do some work in a thread, and return its result.

        Parameters
        ----------
        job : Job
            A waiting job of :meth:`expect`, by which the work can be watched and cancelled.
        work : callable
            It is given a function to call after each step, whose errors must end it.
        is_gone : callable
            An asynchronous function that tells whether the asker left; then the work is cancelled.
        encodes : bool
            Whether it reads and encodes pixels, which only a few may do at a time; others take milliseconds.

        Returns
        -------
        object
            What the work returned.

        Raises
        ------
        Cancelled
            If it was cancelled.
        Busy
            If too much is waiting.
        """
        with job.noting_failure():
            if self._waiting >= _WAITING:
                raise Busy(f"{self._waiting} searches are waiting; ask again in a moment")
            self._waiting += 1
            try:
                async with self._turn(job, is_gone) if encodes else nullcontext():
                    job.progress(0, 0)  # it may have been cancelled before its turn
                    # its thread ends at its next step; a file that hangs keeps nobody waiting
                    future: asyncio.Future[T] = asyncio.wrap_future(start(job.do, work))
                    future.add_done_callback(_ignore)
                    await _until(future, job, is_gone)
                    return future.result()
            finally:
                self._waiting -= 1

    def expect(self, name: str) -> Job:
        """Return a waiting job of a name: it can be watched and cancelled before its work is known."""
        job = self._jobs.get(name)
        if job is None or job.state != "waiting":
            job = self._jobs[name] = Job()
        self._jobs.move_to_end(name)
        while len(self._jobs) > MOST_KEPT:
            self._jobs.pop(
                next((name for name, it in self._jobs.items() if it.is_spent), next(iter(self._jobs)))
            )
        return job

    @asynccontextmanager
    async def _turn(self, job: Job, is_gone: IsGone) -> AsyncIterator[None]:
        """Wait until less than `_AT_ONCE` others encode; Cancelled if the job is cancelled meanwhile."""
        turn = asyncio.ensure_future(self._free.acquire())
        try:
            await _until(turn, job, is_gone)
            yield
        finally:
            if not turn.cancel():  # it was had
                self._free.release()


async def _until(awaited: asyncio.Future[Any], job: Job, is_gone: IsGone) -> None:
    """Return when something is done; raise Cancelled as soon as the job is cancelled, or its asker left."""
    while not awaited.done():
        if await is_gone():
            job.cancel()
        if job.is_cancelled:
            raise _cancelled()
        await asyncio.wait([awaited], timeout=_LOOK_S)


def _cancelled() -> Cancelled:
    return Cancelled("the search was cancelled")


def _ignore(future: asyncio.Future[Any]) -> None:
    """Take the error of work that nobody waits for any more."""
    if not future.cancelled():
        future.exception()
