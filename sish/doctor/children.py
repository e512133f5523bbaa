"""Run checks in a child process, and go on with another one where the child crashes or hangs.

The child prints a line of JSON when a check begins and another one with what it found. So the parent knows
which check was running when the child ended.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from sish.doctor.findings import BROKEN, Check, first_line

PATIENCE_S = 120.0
"""A check that takes longer hangs; to compile kernels takes the longest, about 20 s."""

BEGIN, END = "begin", "end"
"""The keys of the lines that name a check before and after it runs."""

_CODE = "import sys; sys.path[:] = {path!r}; from sish.doctor.checks import main; main({names!r}, {index!r})"


@dataclass(frozen=True, slots=True)
class _End:
    """A child ended."""

    code: int
    """Its exit code; minus the signal that killed it."""
    last_words: str
    """The last line on its standard error."""


def run_checks(
    names: Sequence[str], index: str | None = None, patience_s: float = PATIENCE_S
) -> Iterator[Check]:
    """Run checks in child processes and yield what each one found.

    Parameters
    ----------
    names : sequence of str
        The checks, in order.
    index : str, optional
        The index that checks of an index look at.
    patience_s : float
        A check that takes longer is stopped.

    Yields
    ------
    Check
        One for each name, or several where a check tells of several things.
    """
    left = list(names)
    while left:
        running = left[0]
        for told in _child(left, index, patience_s):
            if isinstance(told, _End):
                if left:  # it did not come to its end
                    yield _broken_off(running, told)
                    left.remove(running)
            elif BEGIN in told:
                left = left[left.index(told[BEGIN]) :]
                running = told[BEGIN]
            elif END in told:
                left.remove(told[END])
            else:
                yield Check(**told)


def _child(names: Sequence[str], index: str | None, patience_s: float) -> Iterator[Any]:
    """Yield what a child tells, and its end."""
    code = _CODE.format(path=sys.path, names=list(names), index=index)
    environment = {**os.environ, "OPENSLIDE_DEBUG": "synthetic"}  # OpenSlide's test of its own decoders
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="replace",
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        lines: queue.Queue[str | None] = queue.Queue()
        errors: list[str] = []
        threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True).start()
        listener = threading.Thread(target=errors.extend, args=(child.stderr,), daemon=True)
        listener.start()
        try:
            while (line := lines.get(timeout=patience_s)) is not None:
                yield json.loads(line)
        except queue.Empty:
            child.kill()
            errors.append(f"it did not end within {patience_s:g} s")
        except GeneratorExit:
            child.kill()
            raise
        child.wait()
        listener.join(timeout=1)
    yield _End(child.returncode, next((line for line in reversed(errors) if line.strip()), ""))


def _pass_on(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    """Put the lines of a stream into a queue, and None at its end."""
    for line in stream:
        lines.put(line)
    lines.put(None)


def _broken_off(name: str, end: _End) -> Check:
    """Return the check during which a child ended."""
    advice = "install that package again, or another version of it"
    if end.code < 0:
        killed = f"Python was killed by {signal.Signals(-end.code).name}"
        words = f"{killed} ({first_line(end.last_words)})" if end.last_words else killed
        return Check(name, BROKEN, words, advice)
    words = f": {first_line(end.last_words)}" if end.last_words else ""
    return Check(name, BROKEN, f"Python ended with {end.code}{words}", advice)
