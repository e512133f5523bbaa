"""Segments: immutable files that hold some slides and their patches in key order.

A segment is a zarr 3 group of the arrays ``keys``, ``barcodes``, ``l0_xy``, ``slide`` and ``row`` (see
`Snapshot`), each one uncompressed chunk: that chunk's file is the plain little-endian array, which is
mapped into memory here and can be read by any zarr tool. Beside them are ``slides.json``, the slide table
in insertion order, and, if slides were removed since, ``tombstones.GENERATION.json``, their numbers in
the table. Relabelling writes a new table ``slides.GENERATION.json``; a file never changes once a manifest
has named it.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sish.errors import IndexCorruptError
from sish.index.disk import FileRecord, check_plain, record_file, sync, write_file
from sish.index.manifest import SegmentRecord, encode_json
from sish.index.snapshot import ARRAYS, SlideRow, Snapshot

__all__ = ["Segment", "open_segment", "save_changes", "write_segment"]

TABLE = "slides.json"
VERSIONED_TABLE = re.compile(r"(slides|tombstones)(\.[0-9]{8,})?\.json")
OWN_NAME = re.compile(rf"{'|'.join(ARRAYS)}|zarr\.json|.*\.partial|{VERSIONED_TABLE.pattern}")
"""Names in a segment's folder; zarr writes a file as ``.partial`` and renames it."""
CHUNK_ENCODING: dict[str, Any] = {"name": "default", "separator": "."}
"""Chunks lie flat in their array's folder, which saves two folders an array (and their fsyncs)."""
DTYPES: Mapping[str, np.dtype[Any]] = {
    "keys": np.dtype("<i8"),
    "barcodes": np.dtype("u1"),
    "l0_xy": np.dtype("<i8"),
    "slide": np.dtype("<i4"),
    "row": np.dtype("<i4"),
}


@dataclass(frozen=True, slots=True)
class Segment:
    """An open segment, with the changes made to it since it was written."""

    record: SegmentRecord
    """What the manifest says, or will say, of it."""
    patches: Snapshot
    """All of its patches and slides, those of removed slides included."""
    removed: frozenset[int] = frozenset()
    """Numbers of the removed slides."""
    unsaved: frozenset[str] = frozenset()
    """Which of "table" and "tombstones" differ from the files: see `save_changes`."""

    @property
    def slides(self) -> tuple[SlideRow, ...]:
        """The live slides in insertion order."""
        if not self.removed:
            return self.patches.slides
        return tuple(row for number, row in enumerate(self.patches.slides) if number not in self.removed)

    @property
    def weight(self) -> int:
        """What rewriting it costs: its live patches, and one for each live slide."""
        return sum(row.n_patches + 1 for row in self.slides)

    def live(self) -> Snapshot:
        """Return the live slides' patches: the mapped files themselves if nothing was removed."""
        if not self.removed:
            return self.patches
        alive = np.ones(len(self.patches.slides), bool)
        alive[list(self.removed)] = False
        renumbered = np.cumsum(alive, dtype=np.int32) - np.int32(1)
        kept = np.flatnonzero(alive[self.patches.slide])
        arrays = {name: getattr(self.patches, name)[kept] for name in ARRAYS}
        return Snapshot(self.slides, **{**arrays, "slide": renumbered[arrays["slide"]]})

    def without(self, slide_ids: Collection[str]) -> "Segment":
        """Return it with these slides removed; itself if it has none of them."""
        hit = frozenset(n for n, row in enumerate(self.patches.slides) if row.slide_id in slide_ids)
        if hit <= self.removed:
            return self
        return replace(self, removed=self.removed | hit, unsaved=self.unsaved | {"tombstones"})

    def relabelled(self, rows: Mapping[str, SlideRow]) -> "Segment":
        """Return it with the live slides' rows replaced by those of the same id; itself if there are none."""
        old = self.patches.slides
        new = tuple(
            row if number in self.removed else rows.get(row.slide_id, row) for number, row in enumerate(old)
        )
        if new == old:
            return self
        return replace(self, patches=replace(self.patches, slides=new), unsaved=self.unsaved | {"table"})


def write_segment(folder: Path, patches: Snapshot) -> Segment:
    """Write ``patches`` as a new segment at ``folder`` (which must not exist), durably, and open it.

    Only the folder's own entry in its parent remains to be flushed.
    """
    check_plain(folder.parent)
    _write_arrays(folder, patches)
    write_file(folder / TABLE, _encode_table(patches.slides))
    files = {}
    for path in sorted(folder.rglob("*")):
        sync(path)
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = record_file(path)
    sync(folder)
    record = SegmentRecord(folder.name, len(patches.slides), len(patches), TABLE, None, files)
    return open_segment(folder, record, patches.keys.shape[1], patches.barcodes.shape[1])


def open_segment(folder: Path, record: SegmentRecord, key_orders: int, barcode_bytes: int) -> Segment:
    """Map a segment's arrays into memory and read its tables.

    Sizes are checked for all files, checksums for the tables, and that each patch and each tombstone is of
    a slide in them, so that nothing that is in the files can lead out of the arrays; `sish.index.verify`
    checks the rest.

    Raises:
        IndexCorruptError: a file is missing, or not of its size, or a link, or a table is damaged.
    """
    _check_no_links(folder, record)
    for name, file in record.files.items():
        _check_size(folder / name, file)
    shapes = array_shapes(record.patches, key_orders, barcode_bytes)
    arrays = {name: _map_array(folder / name, DTYPES[name], shape) for name, shape in shapes.items()}
    try:
        slides = tuple(SlideRow(**row) for row in _read_table(folder, record, record.table))
        removed = frozenset(_read_table(folder, record, record.tombstones) if record.tombstones else ())
    except (TypeError, KeyError) as error:
        raise _corrupt(folder, f"has a table with a wrong entry ({error!r})") from None
    if not removed <= set(range(len(slides))):
        raise _corrupt(folder / (record.tombstones or ""), f"names slides beyond the table's {len(slides)}")
    numbers = arrays["slide"]
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(slides):
        raise _corrupt(folder / "slide", f"has slide numbers beyond the table's {len(slides)}")
    return Segment(record, Snapshot(slides, **arrays), removed)


def save_changes(folder: Path, segment: Segment, generation: int) -> Segment:
    """Write the table and tombstones that changed, durably, under names of their own for ``generation``."""
    if not segment.unsaved:
        return segment
    record, files = segment.record, dict(segment.record.files)
    if "table" in segment.unsaved:
        files.pop(record.table)
        record = replace(record, table=f"slides.{generation:08d}.json")
        files[record.table] = write_file(folder / record.table, _encode_table(segment.patches.slides))
    if "tombstones" in segment.unsaved:
        files.pop(record.tombstones or "", None)
        name = f"tombstones.{generation:08d}.json"
        record = replace(record, tombstones=name)
        files[name] = write_file(folder / name, encode_json(sorted(segment.removed), "tombstones"))
    sync(folder)
    return replace(segment, record=replace(record, files=files), unsaved=frozenset())


def array_shapes(patches: int, key_orders: int, barcode_bytes: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a segment of so many patches."""
    return {
        "keys": (patches, key_orders),
        "barcodes": (patches, barcode_bytes),
        "l0_xy": (patches, 2),
        "slide": (patches,),
        "row": (patches,),
    }


def chunk_file(shape: tuple[int, ...]) -> str:
    """Return the name of an array's only chunk, e.g. ``c.0.0`` for a table of two axes."""
    return ".".join(["c", *("0" for _ in shape)])


def _write_arrays(folder: Path, patches: Snapshot) -> None:
    import zarr  # only writing needs it, and it takes long to import

    group = zarr.open_group(folder, mode="w-", zarr_format=3)
    for name in ARRAYS:
        data = getattr(patches, name)
        array = group.create_array(
            name,
            shape=data.shape,
            chunks=tuple(max(n, 1) for n in data.shape),
            dtype=DTYPES[name],
            compressors=None,
            chunk_key_encoding=CHUNK_ENCODING,
            config={"write_empty_chunks": True},  # a chunk of zeros would otherwise have no file to map
        )
        array[...] = data


def _encode_table(slides: tuple[SlideRow, ...]) -> bytes:
    return encode_json([_encode_row(row) for row in slides], "the slide table")


def _encode_row(row: SlideRow) -> dict[str, Any]:
    plain = {**asdict(replace(row, metadata={})), "metadata": dict(row.metadata)}
    if row.file_digest is None:
        del plain["file_digest"]  # as in tables that are older than the field
    return plain


def _check_no_links(folder: Path, record: SegmentRecord) -> None:
    files = [folder / name for name in record.files]
    for path in {folder.parent, folder, *(file.parent for file in files), *files}:
        check_plain(path)


def _check_size(path: Path, file: FileRecord) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise _corrupt(path, "is missing") from None
    if size != file.size:
        raise _corrupt(path, f"has {size} bytes, wanted {file.size}")


def _corrupt(path: Path, wrong: str) -> IndexCorruptError:
    return IndexCorruptError(f"{path} {wrong}: restore it from a backup, or index the slides again")


def _map_array(folder: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if shape[0] == 0:  # an empty file cannot be mapped, and zarr writes none
        return np.empty(shape, dtype)
    path = folder / chunk_file(shape)
    try:
        return np.memmap(path, dtype, mode="r", shape=shape).view(np.ndarray)
    except FileNotFoundError:
        raise _corrupt(path, "is missing") from None
    except ValueError:
        raise _corrupt(path, f"is too short for {dtype} {shape}") from None


def _read_table(folder: Path, record: SegmentRecord, name: str) -> list[Any]:
    path = folder / name
    try:
        if record_file(path) != record.files[name]:
            raise _corrupt(path, "does not match its checksum")
        table: list[Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _corrupt(path, "is missing") from None
    return table
