"""The command ``sish``, also as ``python -m sish``: an interrupt is one line from the first moment on.

Importing what a command needs takes a second, in which an interrupt would be a traceback, or be swallowed
by a library. Nothing is open then, so the process just ends.
"""

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> int:
    """Run the command of the process; returns its exit code."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, _end)
    from sish.cli import main as run

    signal.signal(signal.SIGINT, usual)
    return run()


def _end(number: int, frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), b"sish: interrupted\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
