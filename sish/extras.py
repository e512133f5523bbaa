"""How to install what is optional: sish is not published yet, so hints name the clone."""

import shlex
from pathlib import Path

__all__ = ["install"]


def install(extra: str) -> str:
    """Return the command that installs an extra, from the clone that is running if one is."""
    clone = Path(__file__).resolve().parents[1]
    if (clone / "setup.cfg").is_file():
        return f"pip install -e {shlex.quote(f'{clone}[{extra}]')}"
    return f"pip install '.[{extra}]' in a clone of sish"
