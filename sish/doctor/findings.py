"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, MISSING, BROKEN = "ok", "note", "missing", "broken"
STATES = (OK, NOTE, MISSING, BROKEN)
"""Works; works with a drawback; an optional part is not there; something that sish needs does not work."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check and what it found."""

    name: str
    """What was checked."""
    state: str
    """One of `STATES`."""
    found: str
    """What was found, on one line."""
    advice: str = ""
    """What to do; empty where nothing needs to be done."""

    def line(self, width: int) -> str:
        """Return the check as one line, its name padded to a width."""
        advice = f": {self.advice}" if self.advice else ""
        return f"{self.state:7}  {self.name:{width}}  {self.found}{advice}"


def first_line(error: BaseException | str) -> str:
    """Return an error's message on one line of moderate length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


_LONGEST = 300  # characters
