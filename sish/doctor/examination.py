"""All checks together: run them, and tell what they found to a person, a program or an issue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sish.doctor.checks import OF_AN_INDEX, OF_THE_MACHINE
from sish.doctor.children import run_checks
from sish.doctor.findings import BROKEN, STATES, Check
from sish.doctor.private import Private
from sish.errors import ParameterError
from sish.version import __version__


@dataclass(frozen=True, slots=True)
class Examination:
    """What all checks found."""

    checks: tuple[Check, ...]
    """The checks, in order."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing that sish needs is broken."""
        return all(check.state != BROKEN for check in self.checks)

    def lines(self) -> Iterator[str]:
        """Yield one line a check."""
        width = max((len(check.name) for check in self.checks), default=0)
        for check in self.checks:
            yield check.line(width)

    def summary(self) -> str:
        """Return how many checks found what, on one line."""
        counts = {state: sum(check.state == state for check in self.checks) for state in STATES}
        return ", ".join(f"{number} {state}" for state, number in counts.items() if number)

    def to_dict(self) -> dict[str, Any]:
        """Return the examination as JSON has it."""
        return {
            "sish": __version__,
            "sound": self.is_sound,
            "checks": [asdict(check) for check in self.checks],
        }

    def report(self, private: Private | None = None) -> str:
        """Return the examination in Markdown, for an issue.

        Parameters
        ----------
        private : Private, optional
            What must not be told; by default the names of this user and machine, folders, and addresses.

        Returns
        -------
        str
            A table, a line for each check.
        """
        hide = (private or Private.here()).hide
        rows = [
            "| " + " | ".join(_cell(hide(text)) for text in (check.state, check.name, check.found)) + " |"
            for check in self.checks
        ]
        head = [f"sish {__version__}: {self.summary()}", "", "| state | check | found |", "|---|---|---|"]
        return "\n".join([*head, *rows]) + "\n"


def _cell(text: str) -> str:
    """Return text that stays in its cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def examine(index: str | None = None, only: Sequence[str] | None = None) -> Examination:
    """Check this installation, and an index if one is given.

    Parameters
    ----------
    index : str, optional
        The folder of an index, or its address in PostgreSQL.
    only : sequence of str, optional
        Names of checks; by default all of them.

    Returns
    -------
    Examination
        What was found.

    Raises
    ------
    ParameterError
        If there is no check of such a name.

    Examples
    --------
    >>> [check.state for check in examine(only=["python", "cores"]).checks][0]
    'ok'
    """
    return Examination(tuple(run_checks(check_names(index, only), index)))


def check_names(index: str | None = None, only: Sequence[str] | None = None) -> list[str]:
    """Return the names of the checks to run; ParameterError where there is none of such a name."""
    known = [*OF_THE_MACHINE, *(OF_AN_INDEX if index is not None else ())]
    for name in only or ():
        if name not in known:
            raise ParameterError(f"there is no check {name!r}; want some of: {', '.join(known)}")
    return known if only is None else list(only)
