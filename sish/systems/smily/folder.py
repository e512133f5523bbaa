"""SMILY's database as a folder.

    regions.smily/
        smily.json          format, encoder, scales, items, and the name that its files have in common
        scale-0.vectors.NAME.npy, scale-0.item.NAME.npy, ...l0_xy..., ...l0_px...; scale-1...
        encoded/            embeddings of a build that is not finished (sish.systems.smily.build)
        lock                held by the process that writes

Arrays are plain NumPy files without pickles. A writer writes new arrays under a new name, replaces
``smily.json``, then deletes the old arrays: a failure at any moment leaves one whole database. Only files of
these names are ever deleted. Readers map the arrays and keep what they have mapped. Format ``smily-1`` had no
NAME; it is still read.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sish.errors import IndexFormatError, IndexNotFoundError, ParameterError, StoreError, about_its_path
from sish.index.store.disk import NEW, replace_file
from sish.index.store.lock import WriterLock
from sish.outputs import check_outside_databases
from sish.systems.item import Item
from sish.systems.smily.embeddings import EmbeddingTable

ENCODED = "encoded"
"""Folder of the embeddings of a build that is not finished."""

_FORMAT = "smily-2"
_READ = ("smily-1", _FORMAT)
_HEADER = "smily.json"
_LOCK = "lock"
_COLUMNS = tuple(each.name for each in fields(EmbeddingTable))
_ARRAY = re.compile(rf"scale-[0-9]+\.({'|'.join(_COLUMNS)})(\.[0-9a-f]{{16}})?\.npy")


@dataclass(frozen=True, slots=True)
class SmilyHeader:
    """The contents of a database beside the patches."""

    encoder: str
    """Fingerprint of the encoder."""
    mpps: tuple[float, ...] | None
    """Scales that were asked for, um per pixel; None if every item is one patch."""
    size_px: int
    """Side of a patch in pixels; 0 if every item is one patch."""
    items: tuple[Item, ...]
    """The database, in order."""


def holds_database(folder: Path) -> bool:
    """Return whether a folder holds a database, of whatever version."""
    return (folder / _HEADER).is_file()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder while the context is open.

    Parameters
    ----------
    folder : Path
        The database's folder; it is made if it is missing.

    Yields
    ------
    None
        While the lock is held.

    Raises
    ------
    StoreError
        If it holds something else, or cannot be written.
    IndexLockedError
        If another process writes to it.
    """
    try:
        _check_ours(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = WriterLock.acquire(folder / _LOCK)
    except OSError as error:
        raise StoreError(_not_written(folder, error), path=folder) from error
    try:
        yield
    finally:
        lock.release()


@about_its_path
def write_folder(folder: Path, header: SmilyHeader, tables: dict[float, EmbeddingTable]) -> None:
    """Write a database in place of an older one; the caller holds the lock.

    Parameters
    ----------
    folder : Path
        The database's folder.
    header : SmilyHeader
        Encoder, scales and items.
    tables : dict of float to EmbeddingTable
        The patches by scale.

    Raises
    ------
    StoreError
        If the folder holds something else, or cannot be written.
    """
    name = secrets.token_hex(8)
    plain = {
        "format": _FORMAT,
        "encoder": header.encoder,
        "mpps": None if header.mpps is None else list(header.mpps),
        "size_px": header.size_px,
        "scales": list(tables),
        "name": name,
        "items": [item.to_dict() for item in header.items],
    }
    try:
        _check_ours(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for number, table in enumerate(tables.values()):
            for column, array in table.arrays().items():
                with _array_file(folder, number, column, name).open("xb") as file:
                    np.save(file, array, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
        replace_file(folder / _HEADER, json.dumps(plain).encode())
        _delete_others(folder, name)
    except OSError as error:
        raise StoreError(_not_written(folder, error)) from error


@about_its_path
def _check_ours(folder: Path) -> None:
    """Refuse a folder of something else (StoreError): ours has a header, or files of a build that was cut."""
    try:
        check_outside_databases(folder)
    except ParameterError as error:
        raise StoreError(str(error)) from error
    if not folder.exists():
        return
    if holds_database(folder):
        try:
            _read_header(folder)
        except IndexFormatError as error:
            raise StoreError(f"{error}, or give a folder that is missing or empty") from error
    elif folder.is_file() or not all(_is_leftover(path.name) for path in folder.iterdir()):
        raise StoreError(f"{folder} holds something else; give a folder that is missing or empty")


def _is_leftover(name: str) -> bool:
    return name in (ENCODED, _LOCK, _HEADER + NEW) or _ARRAY.fullmatch(name) is not None


def _delete_others(folder: Path, name: str) -> None:
    """Delete arrays of other names: those of the older database, and of writers that were interrupted."""
    for path in folder.iterdir():
        if _ARRAY.fullmatch(path.name) and not path.name.endswith(f".{name}.npy"):
            path.unlink(missing_ok=True)


def _not_written(folder: Path, error: OSError) -> str:
    return f"cannot write {folder} ({error.strerror}); give a path that can be written"


@about_its_path
def read_folder(folder: Path) -> tuple[SmilyHeader, dict[float, EmbeddingTable]]:
    """Open a database that `write_folder` wrote, its arrays mapped.

    Parameters
    ----------
    folder : Path
        The database's folder.

    Returns
    -------
    SmilyHeader
        Encoder, scales and items.
    dict of float to EmbeddingTable
        The patches by scale.

    Raises
    ------
    IndexNotFoundError
        If there is no database.
    IndexFormatError
        If it is damaged, or of another format.
    """
    while True:
        plain = _read_header(folder)
        try:
            return _database(folder, plain)
        except FileNotFoundError as error:  # a writer has replaced it meanwhile, or a file is lost
            if _read_header(folder).get("name") == plain.get("name"):
                raise IndexFormatError(_damaged(folder, error)) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IndexFormatError(_damaged(folder, error)) from error


def _read_header(folder: Path) -> dict[str, Any]:
    if not holds_database(folder):
        raise IndexNotFoundError(f"{folder} holds no smily database; make one with sish smily build")
    try:
        plain = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        found = plain.get("format") if isinstance(plain, dict) else None
        if found not in _READ:
            raise ValueError(f"its format is {found!r}, wanted {_FORMAT!r}")
    except (OSError, ValueError, RecursionError) as error:
        raise IndexFormatError(_damaged(folder, error)) from error
    return dict(plain)


def _damaged(folder: Path, error: Exception) -> str:
    return f"{folder} is no smily database ({error}); make it anew"


def _database(folder: Path, plain: dict[str, Any]) -> tuple[SmilyHeader, dict[float, EmbeddingTable]]:
    items = tuple(_item(each) for each in plain["items"])
    mpps = None if plain["mpps"] is None else tuple(map(float, plain["mpps"]))
    name = str(plain.get("name", ""))
    tables = {float(mpp): _table(folder, number, name) for number, mpp in enumerate(plain["scales"])}
    return SmilyHeader(str(plain["encoder"]), mpps, int(plain["size_px"]), items), tables


def _table(folder: Path, number: int, name: str) -> EmbeddingTable:
    """Return the table of one scale."""
    arrays = [
        np.load(_array_file(folder, number, column, name), mmap_mode="r", allow_pickle=False)
        for column in _COLUMNS
    ]
    if len({len(array) for array in arrays}) != 1 or arrays[0].ndim != 2:
        raise ValueError(f"the arrays of scale {number} do not fit together")
    return EmbeddingTable(*arrays)


def _array_file(folder: Path, number: int, column: str, name: str) -> Path:
    file = f"scale-{number}.{column}.{name}.npy" if name else f"scale-{number}.{column}.npy"
    if not _ARRAY.fullmatch(file):  # the name comes from a file
        raise ValueError(f"its files have the name {name!r}")
    return folder / file


def _item(plain: dict[str, Any]) -> Item:
    # In databases without `override_mpp`, a given `mpp` took precedence over the scale that files tell.
    return Item(
        item_id=str(plain["item_id"]),
        path=Path(plain["path"]),
        labels=frozenset(plain["labels"]),
        group=str(plain["group"]),
        mpp=plain["mpp"],
        mask=None if plain["mask"] is None else Path(plain["mask"]),
        override_mpp=plain.get("override_mpp", plain["mpp"]),
    )
