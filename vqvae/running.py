"""Running a command line of Lightning as a command of sish: quiet, errors on one line, interrupts told."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jsonargparse import set_parsing_settings
from lightning_fabric.utilities.exceptions import MisconfigurationException

from sish.errors import SishError
from sish.printing import print_error, warnings_on_one_line

__all__ = ["run_command"]


def run_command(command: Callable[[], object]) -> int:
    """Run a command of training: 0 when it worked, 1 with one line on stderr when not, 130 interrupted."""
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
    """Leave out what Lightning says about every run; warnings of this package stay."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("pytorch_lightning", "lightning_fabric", "torch", "jsonargparse"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
    # --ckpt_path last starts anew where there is no checkpoint yet, and should say so
    warnings.filterwarnings("default", message=".*there is no last checkpoint")


@contextmanager
def _interrupts() -> Iterator[None]:
    """Let an interrupt of a run be one: Lightning makes an exit with 1 of it, and says nothing."""
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise
