"""Check an index folder byte by byte."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from reprlib import repr as short

import numpy as np

from sish.errors import IndexCorruptError, StoreError
from sish.index.store.disk import FileRecord, check_plain, damage_told, record_file, storage_errors
from sish.index.store.manifest import MANIFEST, SEGMENTS, Manifest, SegmentRecord, read_manifest
from sish.index.store.segment import Segment, check_no_links, open_segment
from sish.index.store.tree_file import open_tree


def verify(path: str | os.PathLike[str]) -> list[str]:
    """Check an index: files, sizes, checksums, key order, slide numbers and counts.

    Every byte is read, and writers may go on meanwhile. It never raises: an index that is missing or cannot
    be read is a problem like others. What a crash left behind is no problem (`sish.index.store.leftovers`).

    Parameters
    ----------
    path : path-like
        The index.

    Returns
    -------
    list of str
        One line for each problem; empty if all is well.
    """
    folder = Path(path)
    try:
        while True:
            manifest = read_manifest(folder)
            problems = [*_changed_manifest(folder, manifest), *_problems(folder, manifest)]
            if not problems or read_manifest(folder) == manifest:
                return problems
    except StoreError as error:
        return [str(error)]
    # Damage may look like anything. Whatever reading it raises is a problem to report, never a crash.
    except Exception as error:
        return [
            f"{folder}: cannot be checked ({error!r}): restore it from a backup, or index the slides again"
        ]


def _changed_manifest(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield a line if the manifest's bytes changed in a way that its checksum ignores, such as a space."""
    path = folder / MANIFEST
    with storage_errors(path, "read"):
        if path.read_bytes() != manifest.to_bytes():
            yield f"{path}: its bytes are not the ones that were written"


def _problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    yield from tree_problems(folder, manifest)
    seen: set[str] = set()
    for record in manifest.segments:
        yield from segment_problems(folder, record, manifest, seen)


def tree_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield a line for each problem of the texture tree."""
    damaged = list(damaged_files(folder, manifest.extras))
    yield from damaged
    if damaged:
        return
    for name, record in manifest.extras.items():
        try:
            open_tree(folder / name, record).arrays()
        except IndexCorruptError as error:
            yield str(error)


def segment_problems(
    folder: Path, record: SegmentRecord, manifest: Manifest, seen: set[str]
) -> Iterator[str]:
    """Read every byte of a segment and yield a line for each problem.

    Parameters
    ----------
    folder : Path
        The index.
    record : SegmentRecord
        The segment.
    manifest : Manifest
        The state that names it.
    seen : set of str
        The ids of the slides in the segments before it; those of its own are added.

    Yields
    ------
    str
        One problem.
    """
    path = folder / SEGMENTS / record.name
    damaged = list(damaged_files(path, record.files))
    yield from damaged
    if damaged:
        return
    try:
        check_no_links(path, record)
        segment = open_segment(path, record, manifest)
    except IndexCorruptError as error:
        yield str(error)
        return
    if wrong := [*segment.wrong_contents(path)]:
        yield from wrong
        return
    yield from _wrong_ties(path, segment)
    ids = [row.slide_id for row in segment.slides]
    twice = seen.intersection(ids) | {slide_id for slide_id, n in Counter(ids).items() if n > 1}
    yield from (
        f"{path / record.table}: slide {short(slide_id)} is there twice" for slide_id in sorted(twice)
    )
    seen.update(ids)


def damaged_files(folder: Path, files: Mapping[str, FileRecord]) -> Iterator[str]:
    """Yield a line for each file whose bytes are not as recorded.

    Parameters
    ----------
    folder : Path
        Where the files are.
    files : mapping of str to FileRecord
        Their names in the folder, and what was written.

    Yields
    ------
    str
        One problem.

    Raises
    ------
    StoreError
        If a file cannot be read for a reason other than damage, such as missing rights.
    """
    for name, wanted in files.items():
        path = folder / name
        try:
            check_plain(path)
            with storage_errors(path, "read"), damage_told(path):
                got = record_file(path)
        except IndexCorruptError as error:
            yield str(error)
            continue
        if got.size != wanted.size:
            yield f"{path}: has {got.size} bytes, wanted {wanted.size}"
        elif got != wanted:
            yield f"{path}: its bytes changed (SHA-256 {got.sha256[:12]}..., wanted {wanted.sha256[:12]}...)"


def _wrong_ties(folder: Path, segment: Segment) -> Iterator[str]:
    """Check the order of patches of one key and their numbers in a slide, which no search checks."""
    patches = segment.patches
    order = np.lexsort((patches.row, patches.slide, patches.keys[:, 0]))
    if not np.array_equal(order, np.arange(len(order))):
        yield f"{folder / 'keys'}: ties are not in insertion order"
    counts = np.array([row.n_patches for row in patches.slides], np.int64)
    places = np.sort((np.cumsum(counts) - counts)[patches.slide] + patches.row)
    if not np.array_equal(places, np.arange(len(places))):
        yield f"{folder / 'row'}: patches of a slide are not numbered from 0 on"
