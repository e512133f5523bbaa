"""Show the progress of long work: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from sish.printing import print_error, printable

_LINE_EVERY_S = 10.0

OnProgress = Callable[[int, int], object]
"""Told how many parts of some work are done, and of how many; what it raises ends the work."""


def summed(on_progress: OnProgress) -> OnProgress:
    """Return a callable to tell of several parts, one after another: their counts are added up.

    Parameters
    ----------
    on_progress : callable
        Told the sums.

    Returns
    -------
    callable
        Told how many of a part are done, and of how many; a part ends when all are.

    Examples
    --------
    >>> tell = summed(lambda done, total: print(done, total))
    >>> tell(2, 2), tell(0, 3), tell(3, 3)
    2 2
    2 5
    5 5
    (None, None, None)
    """
    before = 0

    def tell(done: int, total: int) -> None:
        nonlocal before
        on_progress(before + done, before + total)
        before += total if done == total else 0

    return tell


def silent(_done: int, _total: int) -> None:
    """Tell nobody."""


class Progress(Protocol):
    """Shows how many steps are done."""

    def step(self, name: str) -> None:
        """Count one more step, of this name."""


class _Silent:
    def step(self, name: str) -> None:
        """Show nothing."""


class _Lines:
    """Print a line at most every ten seconds and one for the last step, for logs of batch jobs."""

    def __init__(self, task: str, total: int) -> None:
        self._task, self._total, self._done = task, total, 0
        self._next_line_at = time.monotonic() + _LINE_EVERY_S

    def step(self, name: str) -> None:
        self._done += 1
        now = time.monotonic()
        if now >= self._next_line_at or self._done == self._total:
            print_error(f"{self._task}: {self._done}/{self._total} {name}".rstrip())
            sys.stderr.flush()
            self._next_line_at = now + _LINE_EVERY_S


@contextmanager
def progress(task: str, total: int, *, show: bool = True) -> Iterator[Progress]:
    """Show the progress of ``total`` steps on standard error while the context is open."""
    if not show or total == 0:
        yield _Silent()
        return
    if not sys.stderr.isatty():
        yield _Lines(task, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn(printable(task), markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),  # a name may look like rich's own words
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task("", total=total)

        class _Bar:
            def step(self, name: str) -> None:
                bar.update(number, advance=1, description=printable(name))

        yield _Bar()


@contextmanager
def shown(task: str) -> Iterator[OnProgress]:
    """Show on standard error the progress of work that tells its own total, while the context is open."""
    with ExitStack() as stack:
        bars, before = list[Progress](), 0

        def tell(done: int, total: int) -> None:
            nonlocal before
            if not bars:
                bars.append(stack.enter_context(progress(task, total)))
            for _ in range(done - before):
                bars[0].step("")
            before = done

        yield tell
