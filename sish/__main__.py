"""The command ``sish``, also as ``python -m sish``. From its start on, an interrupt prints a single line.

The imports of a command take a second. An interrupt in that second would print a traceback, or a library
would catch it. Nothing is open then, so the process ends at once.
"""

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def main() -> int:
    """Run the command line of this process and return its exit code."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, _end)
    if sys.argv[1:2] == ["doctor"]:  # it also runs where packages of the other commands are broken
        from sish.doctor.command import main as examine

        signal.signal(signal.SIGINT, usual)
        return examine(sys.argv[2:])
    try:
        from sish.cli import main as run
    except ImportError as error:
        sys.stderr.write(f"sish: error: {' '.join(str(error).split())}: sish doctor tells what is broken\n")
        return 1
    signal.signal(signal.SIGINT, usual)
    return run()


def _end(number: int, frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), b"sish: interrupted\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
