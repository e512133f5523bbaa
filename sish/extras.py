"""Hints that tell how to install optional packages, from a clone or beside a wheel."""

import shlex
from importlib import metadata
from pathlib import Path


def install(extra: str) -> str:
    """Return the command that installs an extra of the clone, or of the wheel, that is running."""
    clone = Path(__file__).resolve().parents[1]
    if (clone / "setup.cfg").is_file():
        return f"pip install -e {shlex.quote(f'{clone}[{extra}]')}"
    return f"pip install {shlex.join(_requirements(extra))}"


def _requirements(extra: str) -> list[str]:
    """Return the packages of an extra, as the metadata of the installed wheel lists them."""
    wanted = f"extra == {extra!r}".replace("'", '"')
    found = (each.partition(";") for each in metadata.requires("sish") or ())
    return [package.strip() for package, _, marker in found if marker.strip() == wanted]
