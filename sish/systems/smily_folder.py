"""SMILY's database as a folder.

    regions.smily/
        smily.json          format, encoder, scales, items
        scale-0.vectors.npy, scale-0.item.npy, scale-0.l0_xy.npy, scale-0.l0_px.npy; scale-1...

Plain NumPy files without pickles. They are written beside the folder and then put in its place, so that a
failure leaves the old database; readers map the embeddings and keep what they have mapped.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sish.errors import IndexFormatError, IndexNotFoundError, StoreError
from sish.systems.item import Item
from sish.systems.patch_table import PatchTable

__all__ = ["SmilyHeader", "read_folder", "write_folder"]

_FORMAT = "smily-1"
_HEADER = "smily.json"


@dataclass(frozen=True, slots=True)
class SmilyHeader:
    """What is kept beside the patches."""

    encoder: str
    """Fingerprint of the encoder."""
    mpps: tuple[float, ...] | None
    """Scales that were asked for, um per pixel; None where every item is one patch."""
    size_px: int
    """Side of a patch in pixels; 0 where every item is one patch."""
    items: tuple[Item, ...]
    """The database, in order."""


def write_folder(folder: Path, header: SmilyHeader, tables: dict[float, PatchTable]) -> None:
    """Write a database. StoreError where the folder holds something else or the disk fails."""
    if folder.exists() and not (folder / _HEADER).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise StoreError(f"{folder} holds something else; give a folder that is missing or empty")
    new = folder.with_name(f"{folder.name}.new")
    plain = {
        "format": _FORMAT,
        "encoder": header.encoder,
        "mpps": None if header.mpps is None else list(header.mpps),
        "size_px": header.size_px,
        "scales": list(tables),
        "items": [_plain(item) for item in header.items],
    }
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for number, table in enumerate(tables.values()):
            for name, array in table.arrays().items():
                np.save(new / f"scale-{number}.{name}.npy", array, allow_pickle=False)
        (new / _HEADER).write_text(json.dumps(plain), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        new.replace(folder)
    except OSError as error:
        raise StoreError(
            f"cannot write {folder} ({error.strerror}); give a path that can be written"
        ) from error


def read_folder(folder: Path) -> tuple[SmilyHeader, dict[float, PatchTable]]:
    """A database that `write_folder` wrote, its arrays mapped.

    Raises IndexNotFoundError where there is none, IndexFormatError where it is none of ours or damaged.
    """
    if not (folder / _HEADER).is_file():
        raise IndexNotFoundError(f"{folder} holds no smily database; make one with sish smily build")
    try:
        plain = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        if plain["format"] != _FORMAT:
            raise ValueError(f"its format is {plain['format']!r}, wanted {_FORMAT!r}")
        items = tuple(_item(each) for each in plain["items"])
        mpps = None if plain["mpps"] is None else tuple(map(float, plain["mpps"]))
        tables = {float(mpp): _table(folder, number) for number, mpp in enumerate(plain["scales"])}
        header = SmilyHeader(str(plain["encoder"]), mpps, int(plain["size_px"]), items)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexFormatError(f"{folder} is no smily database ({error}); make it anew") from error
    return header, tables


def _table(folder: Path, number: int) -> PatchTable:
    """The table of one scale."""
    names = [each.name for each in fields(PatchTable)]
    arrays = [
        np.load(folder / f"scale-{number}.{name}.npy", mmap_mode="r", allow_pickle=False) for name in names
    ]
    if len({len(array) for array in arrays}) != 1 or arrays[0].ndim != 2:
        raise ValueError(f"the arrays of scale {number} do not fit together")
    return PatchTable(*arrays)


def _plain(item: Item) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "path": str(item.path),
        "labels": sorted(item.labels),
        "group": item.group,
        "mpp": item.mpp,
        "mask": None if item.mask is None else str(item.mask),
        "override_mpp": item.override_mpp,
    }


def _item(plain: dict[str, Any]) -> Item:
    # Where databases have no `override_mpp`, what was given as `mpp` came before what files tell.
    return Item(
        item_id=str(plain["item_id"]),
        path=Path(plain["path"]),
        labels=frozenset(plain["labels"]),
        group=str(plain["group"]),
        mpp=plain["mpp"],
        mask=None if plain["mask"] is None else Path(plain["mask"]),
        override_mpp=plain.get("override_mpp", plain["mpp"]),
    )
