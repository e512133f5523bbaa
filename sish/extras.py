"""Hints that tell how to install optional packages, from a clone, as sish is not published yet."""

import shlex
from pathlib import Path


def install(extra: str) -> str:
    """Return the command that installs an extra, from the clone that is running if there is one."""
    clone = Path(__file__).resolve().parents[1]
    if (clone / "setup.cfg").is_file():
        return f"pip install -e {shlex.quote(f'{clone}[{extra}]')}"
    return f"pip install '.[{extra}]' in a clone of sish"
