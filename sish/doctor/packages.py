"""Checks of packages: that each one loads, in a version that sish works with, and what extras add."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from sish.doctor.findings import BROKEN, MISSING, NOTE, OK, Check, first_line
from sish.extras import install
from sish.version import __version__

ENABLES = {
    "serve": "the page of sish serve",
    "interop": "features of TRIDENT and CLAM (.h5)",
    "postgres": "an index in PostgreSQL",
    "tables": "pandas and Parquet tables",
    "spatial": "SpatialData and AnnData",
    "timm": "networks of timm as encoders",
    "tensorboard": "curves of training in TensorBoard",
}
"""What each extra of setup.cfg adds for a user."""

_MODULES = {
    "openslide-bin": "openslide_bin",
    "openslide-python": "openslide",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
}
"""Modules whose names are not those of their packages."""

_ON_TORCH = (
    " --index-url https://download.pytorch.org/whl/cpu, or a build for your GPU; "
    "searching, and adding slides with the encoder tissue, work without it"
)
"""What follows the advice to install torch: pip alone may take a build for CUDA."""

_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(\[[^]]*\])?(?P<versions>[^;]*)(;.*extra\s*==\s*['\"](?P<extra>\w+)['\"])?"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One line of what sish requires."""

    name: str
    """The package."""
    versions: str
    """As in ``>=2.0``; empty for any."""
    extra: str | None
    """The extra that it belongs to; None where sish always needs it."""


def requirements() -> tuple[Wanted, ...]:
    """Return what the metadata of this installation require; nothing where sish is not installed."""
    try:
        lines = metadata.requires("sish") or []
    except metadata.PackageNotFoundError:
        return ()
    return tuple(
        Wanted(found["name"], found["versions"].strip(" ()"), found["extra"])
        for line in lines
        if (found := _REQUIREMENT.match(line)) and _applies(line, found["extra"])
    )


def _applies(line: str, extra: str | None) -> bool:
    """Return whether a requirement is one of this Python and system; it is, where nothing can tell."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        return True
    try:
        marker = Requirement(line).marker
    except InvalidRequirement:
        return True
    return marker is None or marker.evaluate({"extra": extra or ""})


def required() -> tuple[str, ...]:
    """Return the names of the packages that sish always needs."""
    return tuple(each.name for each in requirements() if each.extra is None)


def check_sish() -> Iterator[Check]:
    """Check the installation of sish itself."""
    if not required():
        yield Check(
            "sish",
            NOTE,
            f"{__version__}, not installed by pip",
            "its packages are not checked; pip install it",
        )
        return
    installed = metadata.version("sish")
    if installed != __version__:
        advice = "install it again, so that pip knows what it needs"
        yield Check("sish", NOTE, f"{__version__}, and pip knows it as {installed}", advice)
    else:
        yield Check("sish", OK, __version__)


def check_package(name: str) -> Iterator[Check]:
    """Check one package that sish always needs."""
    wanted = next(each for each in requirements() if each.name == name and each.extra is None)
    problem, version = _problem(wanted)
    if problem:
        advice = f"pip install '{name}{wanted.versions}'"
        yield Check(name, BROKEN, problem, advice + (_ON_TORCH if name == "torch" else ""))
    else:
        yield Check(name, OK, version)


def check_extra(extra: str) -> Iterator[Check]:
    """Check all packages of an extra."""
    wanted = [each for each in requirements() if each.extra == extra]
    if not wanted:
        yield Check(f"extra {extra}", MISSING, f"not known to pip ({ENABLES[extra]})", install(extra))
        return
    found = [(each.name, *_problem(each)) for each in wanted]
    problems = [f"{name} {problem}" for name, problem, _ in found if problem]
    if problems:
        yield Check(f"extra {extra}", MISSING, f"{'; '.join(problems)} ({ENABLES[extra]})", install(extra))
    else:
        versions = ", ".join(f"{name} {version}" for name, _, version in found)
        yield Check(f"extra {extra}", OK, f"{ENABLES[extra]}: {versions}")


def _problem(wanted: Wanted) -> tuple[str, str]:
    """Return what is wrong with a package, or "", and its version."""
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return "is not installed", ""
    if not _fits(version, wanted.versions):
        return f"is {version}, and sish wants {wanted.versions}", version
    try:
        importlib.import_module(_MODULES.get(wanted.name, wanted.name.replace("-", "_")))
    except Exception as error:  # a broken library raises anything
        return f"{version} does not load: {first_line(error)}", version
    return "", version


def _fits(version: str, wanted: str) -> bool:
    """Return whether a version is one that is wanted; any is, where nothing can tell."""
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
    except ImportError:
        return True
    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True
