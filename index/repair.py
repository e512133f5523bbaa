"""Find damaged segments of an index, and continue without them.

Nothing is deleted. The files of a damaged segment are first moved into a folder within the index::

    archive.sish/damaged/00000012/          one folder a repair, named by the generation that it started from
        00000003/                           the segment as it was found
        add_again.csv                       its slides, as a labels file: `sish index add --labels` takes it

Then a manifest of the sound segments is committed. The texture tree is learnt from the patches alone, so a
damaged one is made anew.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sish.errors import IndexCorruptError, StoreError
from sish.index.params import BUDGET
from sish.index.store import Store
from sish.index.store.disk import storage_errors, sync, write_file
from sish.index.store.manifest import SEGMENTS, Manifest, read_manifest
from sish.index.store.segment import DamagedSegment, Segment
from sish.index.store.slide_row import SlideRow
from sish.index.store.state import State, load_state
from sish.index.store.verify import damaged_files, segment_problems, tree_problems

ASIDE = "damaged"
"""The folder within the index that keeps the files of damaged segments."""
ADD_AGAIN = "add_again.csv"
_COLUMN = {"given": "mpp", "override": "override_mpp"}  # of a scale that the file itself does not tell


@dataclass(frozen=True, slots=True)
class DamageReport:
    """A damaged segment."""

    segment: str
    """Its folder's name."""
    problems: tuple[str, ...]
    """Its problems, one line for each."""
    slides: tuple[SlideRow, ...]
    """Its live slides, to be added again; none where its table cannot be read."""
    unknown_slides: int
    """How many slides, removed ones included, were in a table that cannot be read; else 0."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """The findings and the actions of a repair."""

    sound_segments: int
    """How many segments have every byte as it was written."""
    sound_slides: int
    """How many slides they hold."""
    damaged: tuple[DamageReport, ...]
    """The other segments."""
    tree: str | None
    """The problem of the texture tree; None if there is none."""
    tree_mended: bool
    """Whether it was made anew."""
    kept_in: str | None
    """The folder that the damaged segments were moved into; None if they were not moved."""

    @property
    def add_again(self) -> tuple[SlideRow, ...]:
        """The slides of the damaged segments, where their tables can be read."""
        return tuple(row for damage in self.damaged for row in damage.slides)

    @property
    def is_sound(self) -> bool:
        """Whether the index can be used now."""
        return (not self.damaged or self.kept_in is not None) and (self.tree is None or self.tree_mended)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON, the slides to add again with their ids and paths."""
        return {
            "is_sound": self.is_sound,
            "sound_segments": self.sound_segments,
            "sound_slides": self.sound_slides,
            "damaged": [
                {
                    "segment": damage.segment,
                    "problems": list(damage.problems),
                    "slides": [row.slide_id for row in damage.slides],
                    "unknown_slides": damage.unknown_slides,
                }
                for damage in self.damaged
            ],
            "tree": self.tree,
            "tree_mended": self.tree_mended,
            "kept_in": self.kept_in,
            "add_again": [{"slide_id": row.slide_id, "path": row.path} for row in self.add_again],
        }


def repair(path: str | os.PathLike[str], *, drop: bool = False, seed: int = 0) -> RepairReport:
    """Repair an index as far as no slide is lost; see :meth:`sish.Index.repair`.

    Parameters
    ----------
    path : path-like
        The index.
    drop : bool
        Also continue without the damaged segments.
    seed : int
        The seed of the texture tree, if it is made anew.

    Returns
    -------
    RepairReport
        The findings and the actions.
    """
    folder = Path(path)
    found = _look(folder)
    if not (found.damaged and drop) and (found.damaged or found.tree is None):
        return found
    with Store.open(folder, write=True) as store:
        found = _look(folder)  # nobody else changes it now
        kept_in = _set_aside(store, found.damaged) if found.damaged else None
        if found.tree is not None:
            _make_keys(store, seed)
    return replace(found, tree_mended=found.tree is not None, kept_in=kept_in)


def _look(folder: Path) -> RepairReport:
    """Read every byte; do it again if there is damage and a writer committed meanwhile."""
    while True:
        state = load_state(folder)
        found = _report(state)
        if (not found.damaged and found.tree is None) or read_manifest(folder) == state.manifest:
            return found


def _report(state: State) -> RepairReport:
    seen: set[str] = set()
    damaged: list[DamageReport] = []
    sound: list[int] = []
    for part in state.parts:
        problems = tuple(segment_problems(state.folder, part.record, state.manifest, seen))
        if problems:
            slides = _known_slides(state.folder, part)
            lost = part.record.slides if slides is None else 0
            damaged.append(DamageReport(part.record.name, problems, slides or (), lost))
            seen.update(row.slide_id for row in slides or ())
        else:
            sound.append(len(part.slides) if isinstance(part, DamagedSegment) else part.n_slides)
    tree = next(tree_problems(state.folder, state.manifest), None)
    return RepairReport(len(sound), sum(sound), tuple(damaged), tree, tree_mended=False, kept_in=None)


def _known_slides(folder: Path, part: Segment | DamagedSegment) -> tuple[SlideRow, ...] | None:
    """Return the live slides of a damaged segment; None where its tables are what is damaged."""
    if isinstance(part, DamagedSegment):
        return part.slides if part.knows_slides else None
    names = {part.record.table, part.record.tombstones or part.record.table}
    tables = {name: part.record.files[name] for name in names}  # a large one was not compared yet
    if any(damaged_files(folder / SEGMENTS / part.record.name, tables)):
        return None
    try:
        return part.slides
    except IndexCorruptError:
        return None


def _set_aside(store: Store, damaged: Sequence[DamageReport]) -> str:
    """Move these segments and commit an index without them; return the folder that they are in."""
    target = _new_folder(store.path, store.state.manifest)
    with storage_errors(target, "write to"):
        write_file(target / ADD_AGAIN, _labels_file([row for damage in damaged for row in damage.slides]))
        sync(target)
    store.set_aside([damage.segment for damage in damaged], target)
    return str(target)


def _new_folder(index: Path, manifest: Manifest) -> Path:
    """Make a new folder for damaged segments; refuse a link, which could lead out of the index."""
    aside = index / ASIDE
    if aside.is_symlink():
        raise StoreError(f"{aside} is a symbolic link: remove it, and run the repair again", path=aside)
    with storage_errors(aside, "write to"):
        aside.mkdir(exist_ok=True)
        target, number = aside / f"{manifest.generation:08d}", 1
        while target.exists() or target.is_symlink():  # an earlier repair was interrupted
            target, number = aside / f"{manifest.generation:08d}.{number}", number + 1
        target.mkdir()
        sync(aside)
        sync(index)
    return target


def _labels_file(rows: Sequence[SlideRow]) -> bytes:
    """Return a labels file of slides with their paths and all other facts in their rows."""
    told = [_told(row) for row in rows]
    columns = list(dict.fromkeys(["path", "slide_id", *(name for it in told for name in it)]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(told)
    return text.getvalue().encode("utf-8", "replace")


def _told(row: SlideRow) -> dict[str, str]:
    own: Mapping[str, str | None] = {
        **row.metadata,
        "path": row.path,
        "slide_id": row.slide_id,
        "label": row.label,
        "patient": row.patient,
        "site": row.site,
        _COLUMN.get(row.mpp_source, ""): str(row.mpp),
    }
    return {name: value for name, value in own.items() if name and value}


def _make_keys(store: Store, seed: int) -> None:
    """Give all patches keys of a tree that is learnt from them, or one key if they are too few for a tree."""
    from sish.index.texture.archive import learn_keys, rekeyed, root_tree  # numba takes long to import

    if store.info().patches > BUDGET:
        learn_keys(store, seed=seed)
        return
    width = store.state.manifest.barcode_bytes or 8
    store.rekey(None, lambda patches: rekeyed(patches, root_tree(width)))
