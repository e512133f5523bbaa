"""Threads that read slides, and may be left behind: a read that never returns must not hold the process.

Python waits for the threads of `concurrent.futures` when it ends, so a decoder that hangs in one of them
keeps the process for ever. The threads here are daemon threads: Python ends without them. A decoder that
hangs and keeps Python's lock still stops everything; OpenSlide, Pillow, the codecs of TIFF and h5py release
it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, TypeVar

from sish.errors import ParameterError, SlideReadError

_T = TypeVar("_T")
_Item = TypeVar("_Item")

PATIENCE_S = 5.0
"""Seconds that the end of something waits for reads that are under way."""

SLIDE_TIMEOUT_S = 1800.0
"""Seconds that a slide may take by default. Large slides take minutes, also on slow disks and
with large encoders on a CPU, so half an hour ends only what hangs."""


def start(work: Callable[..., _T], *given: Any) -> Future[_T]:
    """Begin work in a thread of its own; the process may end before the thread does."""
    future: Future[_T] = Future()
    threading.Thread(target=_run, args=(future, work, given), daemon=True).start()
    return future


def each_ahead(
    items: Iterable[_Item], work: Callable[[_Item], _T], most: int, abandon: Callable[[_Item], None]
) -> Generator[tuple[_Item, Future[_T]]]:
    """Yield each item with the future of its work, in order; that of the next ones goes on meanwhile.

    Parameters
    ----------
    items : iterable
        The items.
    work : callable
        The work on an item, in a thread of its own, so that one that hangs does not delay the others.
    most : int
        How many items are worked on ahead of the one that was yielded.
    abandon : callable
        It is told of each item that was begun and not yielded when the generator is closed.

    Yields
    ------
    item, Future
        An item, and the future of the work on it.
    """
    waiting = deque[tuple[_Item, Future[_T]]]()
    try:
        for item in items:
            waiting.append((item, start(work, item)))
            if len(waiting) == most + 1:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for item, _ in waiting:
            abandon(item)
        wait([future for _, future in waiting], timeout=PATIENCE_S)


def end_soon(work: Callable[[], object]) -> None:
    """Do what is quick, such as closing a file; go on after 5 s if a read that hangs is in its way."""
    wait([start(work)], timeout=PATIENCE_S)


def _run(future: Future[_T], work: Callable[..., _T], given: tuple[Any, ...]) -> None:
    """Do the work and give its result or error to those who wait."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work(*given)
    except BaseException as error:  # whoever waits for the result gets it
        future.set_exception(error)
    else:
        future.set_result(result)


class ReaderThreads:
    """Threads that work off what is submitted, in order."""

    def __init__(self, count: int) -> None:
        """Start so many threads."""
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._work = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[..., _T], *given: Any) -> Future[_T]:
        """Let the next free thread do this work."""
        future: Future[_T] = Future()
        self._work.put((future, work, given))
        return future

    def close(self) -> None:
        """Cancel work that has not begun, and wait for the rest; after 5 s it is left behind."""
        with suppress(queue.Empty):
            while (waiting := self._work.get_nowait()) is not None:
                waiting[0].cancel()
        for _ in self._threads:
            self._work.put(None)
        ends = time.monotonic() + PATIENCE_S
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _serve(self) -> None:
        """Do what is submitted until the pool is closed."""
        while (work := self._work.get()) is not None:
            _run(*work)
            del work  # a result is not kept until the next one


class TimeLimit:
    """Limit on the time that work on one slide takes; it runs inside of ``with limit:`` only.

    Parameters
    ----------
    seconds : float
        0: no limit.
    name : str
        The slide, for the error.
    """

    def __init__(self, seconds: float, name: str) -> None:
        """Set the limit; nothing is spent yet."""
        self._seconds, self._name = seconds, name
        self._spent = 0.0
        self._since: float | None = None

    def __enter__(self) -> None:
        """Begin to count the time."""
        self._since = time.monotonic()

    def __exit__(self, *_error: object) -> None:
        """Stop counting."""
        self._spent, self._since = self.spent, None

    def result(self, future: Future[_T]) -> _T:
        """Return what is being done for the slide; SlideReadError once it has taken too long."""
        if not self._seconds:
            return future.result()
        left = self._seconds - self.spent
        if left > 0:
            with suppress(TimeoutError):
                return future.result(timeout=left)
            if future.done():  # the file system's own error of this name
                return future.result()
        raise SlideReadError(
            f"{self._name}: took longer than {self._seconds:g} s; look at the file, or give it more time "
            "(slide_timeout=, --slide-timeout)"
        )

    @property
    def spent(self) -> float:
        """The seconds that were spent so far."""
        return self._spent + (0.0 if self._since is None else time.monotonic() - self._since)


def checked_timeout(seconds: float) -> float:
    """Return a number of seconds that may be a limit, else raise ParameterError."""
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise ParameterError(f"got slide_timeout={seconds}; want seconds, or 0 for no limit")
    return seconds
