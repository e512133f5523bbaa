"""Checking an index folder byte by byte."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sish.errors import IndexCorruptError, StoreError
from sish.index.disk import FileRecord, check_plain, record_file, storage_errors
from sish.index.leftovers import SEGMENTS
from sish.index.manifest import MANIFEST, Manifest, read_manifest
from sish.index.segment import Segment, open_segment

__all__ = ["damaged_files", "verify"]


def verify(path: str | os.PathLike[str]) -> list[str]:
    """Return what is wrong with the index at ``path``, one line for each problem; empty if all is well.

    Every byte is read: missing files, sizes, checksums, key order, slide numbers, and counts. Writers may
    go on meanwhile. What a crash left behind is no problem: see `sish.index.leftovers`. It never raises: that
    there is no index, or none that can be read, is a problem too.
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
    # Damage may look like anything at all; whatever reading it raises is a finding, never a crash.
    except Exception as error:
        return [
            f"{folder}: cannot be checked ({error!r}): restore it from a backup, or index the slides again"
        ]


def _changed_manifest(folder: Path, manifest: Manifest) -> Iterator[str]:
    """A change of the manifest's bytes that says the same in other words, which its checksum does not see."""
    path = folder / MANIFEST
    with storage_errors(path, "read"):
        if path.read_bytes() != manifest.to_bytes():
            yield f"{path}: its bytes are not the ones that were written"


def _problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    yield from damaged_files(folder, manifest.extras)
    seen: set[str] = set()
    for record in manifest.segments:
        path = folder / SEGMENTS / record.name
        damaged = list(damaged_files(path, record.files))
        yield from damaged
        if damaged:
            continue
        try:
            segment = open_segment(path, record, manifest.key_orders or 1, manifest.barcode_bytes or 1)
        except IndexCorruptError as error:
            yield str(error)
            continue
        yield from _wrong_contents(path, segment)
        ids = [row.slide_id for row in segment.slides]
        twice = seen.intersection(ids) | {slide_id for slide_id, n in Counter(ids).items() if n > 1}
        yield from (f"{path / record.table}: slide {slide_id} is there twice" for slide_id in sorted(twice))
        seen.update(ids)


def damaged_files(folder: Path, files: Mapping[str, FileRecord]) -> Iterator[str]:
    """Yield a line for each of the ``files`` in ``folder`` whose bytes are not as recorded."""
    for name, wanted in files.items():
        path = folder / name
        try:
            with storage_errors(path, "read"):
                check_plain(path)
                got = record_file(path)
        except IndexCorruptError as error:
            yield str(error)
            continue
        except StoreError:
            yield f"{path}: is missing or cannot be read"
            continue
        if got.size != wanted.size:
            yield f"{path}: has {got.size} bytes, wanted {wanted.size}"
        elif got != wanted:
            yield f"{path}: its bytes changed (SHA-256 {got.sha256[:12]}..., wanted {wanted.sha256[:12]}...)"


def _wrong_contents(folder: Path, segment: Segment) -> Iterator[str]:
    """Check what checksums cannot: that what was written makes sense."""
    record, patches = segment.record, segment.patches
    n_slides = len(patches.slides)
    if n_slides != record.slides:
        yield f"{folder / record.table}: has {n_slides} slides, wanted {record.slides}"
    counts = np.bincount(patches.slide, minlength=n_slides)
    if counts.tolist() != [row.n_patches for row in patches.slides]:
        yield f"{folder / 'slide'}: patches of each slide do not match n_patches of {record.table}"
    order = np.lexsort((patches.row, patches.slide, patches.keys[:, 0]))
    if not np.array_equal(order, np.arange(len(order))):
        yield f"{folder / 'keys'}: not sorted by the first key, ties in insertion order"
