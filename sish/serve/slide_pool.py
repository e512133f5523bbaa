"""Open slides, a bounded number of them, each read by threads of its own.

A file that is slow or hangs keeps only its own threads busy: other slides are read meanwhile.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sish.index.store import SlideRow
from sish.serve.shown_slide import ShownSlide
from sish.serve.slide_files import SlideFiles
from sish.slides.reader_threads import ReaderThreads, start

T = TypeVar("T")

MOST_SLIDES = 24
"""Slides that are held open at a time, unless more are being read."""
_THREADS = 2  # that read one slide


@dataclass(slots=True, eq=False)
class _Held:
    """A slide of the pool."""

    row: SlideRow
    threads: ReaderThreads = field(default_factory=lambda: ReaderThreads(_THREADS))
    opening: threading.Lock = field(default_factory=threading.Lock)
    shown: ShownSlide | None = None
    stamp: tuple[int, ...] = ()
    pending: int = 0

    def opened(self, files: SlideFiles) -> ShownSlide:
        """Return the slide, open; it is opened again if its file was changed, or is gone."""
        with self.opening:
            path = files.path_of(self.row)
            stamp = _stamp(path)
            if self.shown is None or stamp != self.stamp:
                old, self.shown = self.shown, None
                if old is not None:
                    old.slide.close()
                self.shown, self.stamp = ShownSlide(files.open(self.row)), stamp
            return self.shown

    def close(self) -> None:
        """End its threads and release its file."""
        self.threads.close()
        if self.shown is not None:
            self.shown.slide.close()


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written or another takes its place; nothing of one that is gone."""
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_ino, state.st_size, state.st_mtime_ns


class SlidePool:
    """Reads indexed slides in threads.

    Parameters
    ----------
    files : SlideFiles
        Opens them.
    most_slides : int
        Slides that are held open at a time; the least recently used ones that nobody reads are closed.
    """

    def __init__(self, files: SlideFiles, most_slides: int = MOST_SLIDES) -> None:
        """Begin with no slide."""
        self._files, self._most = files, most_slides
        self._held: OrderedDict[Hashable, _Held] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many slides are held."""
        return len(self._held)

    def submit(self, row: SlideRow, work: Callable[[ShownSlide], T]) -> Future[T]:
        """Let a thread of the slide do some work on it, which opens it first if need be.

        Parameters
        ----------
        row : SlideRow
            The slide.
        work : callable
            It is given the open slide.

        Returns
        -------
        Future
            The result of the work. Its error is a SlideError if the slide cannot be opened or read. A future
            that is cancelled before its turn does nothing.
        """
        with self._lock:
            key = (row.slide_id, row.path, row.file_digest)
            held = self._held.pop(key, None) or _Held(row)
            self._held[key] = held
            held.pending += 1
            surplus = self._surplus()
        for old in surplus:
            start(old.close)
        future = held.threads.submit(self._do, held, work)
        future.add_done_callback(lambda _: self._done(held))
        return future

    def close(self) -> None:
        """Release all files."""
        with self._lock:
            held, self._held = list(self._held.values()), OrderedDict()
        for old in held:
            start(old.close)

    def _do(self, held: _Held, work: Callable[[ShownSlide], T]) -> T:
        return work(held.opened(self._files))

    def _done(self, held: _Held) -> None:
        with self._lock:
            held.pending -= 1

    def _surplus(self) -> list[_Held]:
        """Take the least recently used slides out that are too many and not being read."""
        surplus = len(self._held) - self._most
        idle = [key for key, held in self._held.items() if not held.pending][: max(0, surplus)]
        return [self._held.pop(key) for key in idle]
