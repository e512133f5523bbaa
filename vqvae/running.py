"""Running a Lightning command line as a command of sish: little output, errors on one line."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jsonargparse import set_parsing_settings
from lightning_fabric.utilities.exceptions import MisconfigurationException

from sish.errors import SishError
from sish.printing import print_error, warnings_on_one_line


def run_command(command: Callable[[], object]) -> int:
    """Run a training command; return 0, 1 after an error (one line on stderr), or 130 if interrupted."""
    _be_quiet()
    try:
        with warnings_on_one_line(), _interrupts():
            command()
    except (SishError, OSError, MisconfigurationException) as error:
        print_error(f"error: {' '.join(str(error).split())}")
        return 1
    except KeyboardInterrupt:
        print_error("interrupted; --ckpt_path last goes on from the last checkpoint")
        return 130
    return 0


def _be_quiet() -> None:
    """Silence what Lightning prints about every run; warnings of this package stay."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("pytorch_lightning", "lightning_fabric", "torch", "jsonargparse"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
    # without a checkpoint, --ckpt_path last starts a new run, and should say so
    warnings.filterwarnings("default", message=".*there is no last checkpoint")


@contextmanager
def _interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt for an interrupted run; Lightning turns it into a silent SystemExit."""
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise
