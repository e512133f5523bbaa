"""Build a SMILY database; a build that was interrupted goes on where it stopped.

Embedding all tissue of a slide takes minutes, writing it a moment. So each slide's embeddings are saved in
the database's folder as soon as they are made, and the database takes them in at the end of the build. A
build after an interruption finds them there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from sish.index.store.disk import NEW
from sish.results import Skipped
from sish.systems.item import Item
from sish.systems.smily.folder import ENCODED, holds_database, locked
from sish.systems.smily.regions import MPPS, Smily, SmilyPatches
from sish.version import __version__

_KEPT = re.compile(rf"[0-9a-f]{{64}}\.npz({re.escape(NEW)})?")


@dataclass(frozen=True, slots=True)
class Built:
    """The report of a build."""

    added: int
    """Number of items that are new in the database."""
    holds: int
    """Number of items that it holds now."""
    skipped: tuple[Skipped, ...]
    """Items that could not be described."""


def build_folder(folder: Path, items: Iterable[Item], *, mpps: tuple[float, ...] | None = MPPS) -> Built:
    """Add items to the database in a folder; items that are in it stay as they are.

    Parameters
    ----------
    folder : Path
        The database's folder; it is made if it is missing.
    items : iterable of Item
        Slides and images.
    mpps : tuple of float, optional
        Scales of a new database, as of :class:`sish.systems.smily.regions.Smily`. An older database keeps its
        own.

    Returns
    -------
    Built
        The report.
    """
    new = Smily(mpps)  # refuses wrong scales before a folder is made for them
    with locked(folder):
        smily = Smily.open(folder) if holds_database(folder) else new.fit([])
        here = {item.item_id for item in smily.items}
        kept = _Kept(smily, folder / ENCODED)
        done, found = smily.describe_all(
            [item for item in items if item.item_id not in here], "skip", kept.describe
        )
        skipped = smily.skipped
        smily.add(done, found).write(folder)
        kept.clear()
    return Built(len(done), len(smily), skipped)


class _Kept:
    """Embeddings of items on disk, named by everything that they depend on."""

    def __init__(self, smily: Smily, folder: Path) -> None:
        self._smily, self._folder = smily, folder

    def describe(self, item: Item) -> SmilyPatches:
        """Return the embeddings of an item: those on disk, or new ones, which are saved."""
        path = self._folder / f"{self._digest(item)}.npz"
        found = _read(path)
        if found is None:
            found = self._smily.describe(item)
            _write(path, found)
        return found

    def clear(self) -> None:
        """Delete the files that the database has taken in; files of other names stay."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if _KEPT.fullmatch(path.name):
                path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _digest(self, item: Item) -> str:
        """Return a name for the item's file and for how it is embedded."""
        try:
            state = item.path.stat()
            file = [str(item.path.resolve()), state.st_size, state.st_mtime_ns]
        except OSError:  # describing it will say what is wrong
            file = [str(item.path)]
        about = [__version__, self._smily.recipe, item.mpp, item.override_mpp, *file]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _write(path: Path, found: SmilyPatches) -> None:
    """Save embeddings, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(path.name + NEW)
    new.unlink(missing_ok=True)
    with new.open("xb") as file:
        np.savez(file, **{each.name: getattr(found, each.name) for each in fields(found)})
    new.replace(path)


def _read(path: Path) -> SmilyPatches | None:
    """Return saved embeddings; None if there are none, or only half of them after a power failure."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return SmilyPatches(*(arrays[each.name] for each in fields(SmilyPatches)))
    except (OSError, ValueError, KeyError, BadZipFile, EOFError):
        return None
