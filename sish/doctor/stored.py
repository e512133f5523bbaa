"""Checks of one index: its folder, its lock, and what it holds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sish.doctor.findings import BROKEN, NOTE, OK, Check, first_line

LITTLE_SPACE = 1 << 30  # bytes


def check_folder(index: str) -> Iterator[Check]:
    """Check that the folder can be read and written, and has space."""
    from sish.index.postgres.addresses import is_address

    name = "index folder"
    if is_address(index):
        yield Check(name, OK, "it is in PostgreSQL")
        return
    folder = Path(index)
    if not folder.is_dir():
        yield Check(name, BROKEN, f"{folder} is no folder", "give the path of an index")
        return
    free = shutil.disk_usage(folder).free
    found = f"{free / (1 << 30):.1f} GiB free"
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Check(
            name, NOTE, f"{found}, and you may only read it", "searches work; to add slides, ask its owner"
        )
    elif free < LITTLE_SPACE:
        yield Check(name, NOTE, found, "make space before slides are added")
    else:
        yield Check(name, OK, found)


def check_lock(index: str) -> Iterator[Check]:
    """Check that the file system has locks, and whether somebody writes to the index."""
    from sish.errors import IndexLockedError
    from sish.index.postgres.addresses import is_address
    from sish.index.store.admission import LOCK
    from sish.index.store.lock import WriterLock

    name, folder = "index lock", Path(index)
    if is_address(index):
        yield Check(name, OK, "PostgreSQL has its own")
        return
    if not (folder / LOCK).exists() or not os.access(folder / LOCK, os.W_OK):
        yield Check(name, OK, "nobody has written to it from here")
        return
    try:
        WriterLock.acquire(folder / LOCK).release()
    except IndexLockedError as error:
        yield Check(name, NOTE, first_line(error))
    except OSError as error:
        advice = "keep the index on a file system with locks (flock); NFS needs version 4"
        yield Check(name, BROKEN, f"the file system cannot lock: {error.strerror}", advice)
    else:
        yield Check(name, OK, "free, and the file system has locks")


def check_index(index: str) -> Iterator[Check]:
    """Open the index and tell what it holds; the bytes of large files are not read."""
    from sish.errors import SishError
    from sish.slide_index import Index

    try:
        opened = Index.open(index)
        damage, info = list(opened.damage), opened.info()
    except SishError as error:
        yield Check("index", BROKEN, first_line(error))
        return
    if damage:
        yield Check(
            "index", BROKEN, "; ".join(map(first_line, damage)), "sish index repair tells what is lost"
        )
        return
    yield Check("index", OK, f"format {info.format_version}, {info.slides} slides, {info.patches} patches")
