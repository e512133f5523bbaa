"""Find, count and delete the files that a writer made and the manifest does not name."""

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from sish.index.store.disk import NEW, sync
from sish.index.store.manifest import EXTRA_NAME, MANIFEST, SEGMENT_NAME, SEGMENTS, Manifest
from sish.index.store.segment import OWN_NAME, VERSIONED_TABLE

_LOG = logging.getLogger(__name__)


def find_leftovers(folder: Path, manifest: Manifest) -> list[Path]:
    """Return the files and folders that a writer made and that the manifest does not name.

    They are harmless: a crash or a failed clean-up left them, or a writer is at work. Links, files of other
    names and folders that hold anything else are not among them.

    Parameters
    ----------
    folder : Path
        The index.
    manifest : Manifest
        Its state.

    Returns
    -------
    list of Path
        The leftovers.
    """
    records = {record.name: record for record in manifest.segments}
    found = [
        path
        for path in _entries(folder)
        if path.name == MANIFEST + NEW
        or (EXTRA_NAME.fullmatch(path.name) and path.name not in manifest.extras)
    ]
    segments = folder / SEGMENTS
    for path in [] if segments.is_symlink() else _entries(segments):
        if path.name in records:
            named = records[path.name].files
            tables = (table for table in _entries(path) if VERSIONED_TABLE.fullmatch(table.name))
            found += [table for table in tables if table.name not in named]
        elif SEGMENT_NAME.fullmatch(path.name) and _is_segment(path):
            found.append(path)
    return found


def count_bytes(paths: Iterable[Path]) -> int:
    """Return the total length in bytes of all files at or below some paths."""
    return sum(_size(file) for path in paths for file in (path, *path.rglob("*")))


def sweep(folder: Path, manifest: Manifest) -> None:
    """Delete the leftovers; only the writer may do this. What cannot be deleted stays.

    If the writer was killed before the flush, the manifest that is really on the disk may be one commit older
    than the one that is read here. So the folder is flushed before files of the older one are deleted.
    """
    found = find_leftovers(folder, manifest)
    if not found:
        return
    try:
        sync(folder)
    except OSError:
        return
    _LOG.info("%r: deleting what an interrupted writer left: %d files or folders", str(folder), len(found))
    for path in found:
        _delete(path)


def delete_unnamed(folder: Path, old: Manifest, new: Manifest) -> None:
    """Delete the files that only the old manifest names; what cannot be deleted is a leftover."""
    now = {record.name: record.files for record in new.segments}
    for name in old.extras.keys() - new.extras.keys():
        _delete(folder / name)
    for record in old.segments:
        path = folder / SEGMENTS / record.name
        if record.name not in now:
            _delete(path)
        else:
            for name in record.files.keys() - now[record.name].keys():
                _delete(path / name)


def _entries(folder: Path) -> list[Path]:
    """Return the files and folders in a folder, without links; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in entries if not entry.is_symlink())
    except OSError:
        return []


def _is_segment(folder: Path) -> bool:
    """Return whether a folder holds only what a writer puts there: a segment or a part of one."""
    try:
        return all(OWN_NAME.fullmatch(path.name) for path in folder.iterdir())
    except OSError:  # a file, not readable, or just deleted
        return False


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if not path.is_dir() else 0
    except OSError:  # a writer has just deleted it
        return 0


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return  # harmless: it is reported as a leftover
