"""``sish doctor``: check this installation (`sish.doctor.command`)."""

from __future__ import annotations

from sish.cli.options import Command
from sish.doctor.command import DESCRIPTION, add_options, run

COMMAND = Command(
    help="check this installation, with a search whose answer is known",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
)
