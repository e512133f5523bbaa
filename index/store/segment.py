"""Segments: immutable files of some slides and of their patches in key order.

A segment is a zarr 3 group of the arrays ``keys``, ``barcodes``, ``l0_xy``, ``slide`` and ``row`` (see
`Snapshot`). Each array is one uncompressed chunk, so the chunk's file is the plain little-endian array: it
is mapped into memory here and can be read by any zarr tool. Keys and places are 32 bits wide where all fit.
Where vectors are kept, ``vectors`` has their bytes. Beside the arrays are ``order.safetensors``, the places
of each slide's patches and of each key (`Snapshot.by_slide`, `Snapshot.key_begins`), and
``slides.safetensors``, the slides in insertion order (`sish.index.store.slide_table`). If slides were removed
since, ``tombstones.GENERATION.json`` holds their numbers. Relabelling writes a new table
``slides.GENERATION.safetensors``. A file never changes once a manifest has named it. Opening a segment
maps its files and reads next to nothing of a large one.

In segments of format 1 the table is ``slides.json``, numbers are 64 bits wide, and there is no order. They
are read as they are, and become segments of this format when they are merged.
"""

import hashlib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
import numpy.typing as npt

from sish.errors import IndexCorruptError
from sish.index.store.disk import (
    WAY_OUT,
    FileRecord,
    check_plain,
    corrupt,
    damage_told,
    record_file,
    sync,
    write_file,
)
from sish.index.store.manifest import Manifest, SegmentRecord, decode_json, encode_json
from sish.index.store.packed import packed, unpack
from sish.index.store.scratch import blocks_of, scratch
from sish.index.store.slide_row import SlideRow, wrong_field
from sish.index.store.slide_table import SlideTable
from sish.index.store.snapshot import ARRAYS, Snapshot

TABLE, ORDER = "slides.safetensors", "order.safetensors"
OLD_TABLE = ".json"
"""Ending of the slide tables of format 1."""
VERSIONED_TABLE = re.compile(
    r"slides(\.[0-9]{8,})?\.(json|safetensors)|tombstones\.[0-9]{8,}\.json|order\.safetensors"
)
OWN_NAME = re.compile(rf"{'|'.join((*ARRAYS, 'vectors'))}|zarr\.json|.*\.partial|{VERSIONED_TABLE.pattern}")
"""Names in a segment's folder; zarr writes a file as ``.partial`` and renames it."""
CHUNK_ENCODING: dict[str, Any] = {"name": "default", "separator": "."}
"""Chunks lie flat in their array's folder, which saves two folders an array (and their fsyncs)."""
_WIDTHS: Mapping[str, tuple[np.dtype[Any], ...]] = {
    "keys": (np.dtype("<i4"), np.dtype("<i8")),
    "barcodes": (np.dtype("u1"),),
    "l0_xy": (np.dtype("<i4"), np.dtype("<i8")),
    "slide": (np.dtype("<i4"),),
    "row": (np.dtype("<i4"),),
    "vectors": (np.dtype("u1"),),
}
"""The dtypes that each array may have; the first that holds all of its values is written."""
_BLOCK = 1 << 18  # patches that are checked at a time
SMALL_TABLE = 1 << 16
"""A slide table of at most so many bytes is compared with its checksum and read when a segment is opened."""


@dataclass(frozen=True, slots=True)
class DamagedSegment:
    """A segment of which something is missing or damaged."""

    record: SegmentRecord
    """Its entry in the manifest."""
    reason: str
    """The problem, on one line that names the file and the next step."""
    slides: tuple[SlideRow, ...]
    """Its live slides, where its tables can be read."""
    knows_slides: bool = True
    """Whether its tables can be read."""


@dataclass(frozen=True, slots=True)
class Segment:
    """An open segment, with the changes made to it since it was written."""

    record: SegmentRecord
    """Its entry in the manifest, or in the next one."""
    patches: Snapshot
    """All of its patches and slides, those of removed slides included."""
    removed: frozenset[int] = frozenset()
    """Numbers of the removed slides."""
    unsaved: frozenset[str] = frozenset()
    """Which of "table" and "tombstones" differ from the files: see `save_changes`."""
    packed: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict, compare=False, repr=False)
    """The bytes of its mapped files beside the arrays, by name."""
    checked: set[str] = field(default_factory=set, compare=False, repr=False)
    """Names of the tables that were checked together with the arrays; copies share it."""

    @property
    def slides(self) -> tuple[SlideRow, ...]:
        """The live slides in insertion order."""
        return tuple(row for number, row in enumerate(self.patches.slides) if number not in self.removed)

    @property
    def is_old(self) -> bool:
        """Whether its files are of format 1."""
        return ORDER not in self.record.files

    @property
    def n_slides(self) -> int:
        """How many live slides it has."""
        return len(self.patches.slides) - len(self.removed)

    @property
    def n_patches(self) -> int:
        """How many patches its live slides have."""
        return len(self.patches) - self.removed_patches

    @property
    def removed_mask(self) -> npt.NDArray[np.bool_]:
        """Which slides were removed, bool (slides,)."""
        mask = np.zeros(len(self.patches.slides), bool)
        mask[list(self.removed)] = True
        return mask

    def number_of(self, slide_id: str) -> int | None:
        """Return the number of a live slide in the table, None if it is not here."""
        number = self.patches.slides.number_of(slide_id)
        return None if number in self.removed else number

    @property
    def weight(self) -> int:
        """The cost of rewriting it: its live patches, and one for each live slide."""
        return self.n_patches + self.n_slides

    @property
    def removed_patches(self) -> int:
        """Patches of the removed slides."""
        return int(self.patches.slides.n_patches[list(self.removed)].sum())

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self.patches.arrays.values())

    def check(self, folder: Path) -> None:
        """Compare the mapped arrays and tables with their checksums and with each other, once.

        The files themselves may be gone.

        Parameters
        ----------
        folder : Path
            The segment's folder, for errors.

        Raises
        ------
        IndexCorruptError
            If something is damaged.
        """
        if self.record.table in self.checked:
            return
        self._check_bytes(folder)
        for problem in self.wrong_contents(folder):
            raise IndexCorruptError(f"{problem}: {WAY_OUT}", path=folder)
        self.checked.add(self.record.table)

    def _check_bytes(self, folder: Path) -> None:
        arrays = {
            f"{name}/{chunk_file(array.shape)}": array
            for name, array in (self.patches.arrays.items() if len(self.patches) else ())
        }
        for file, array in (arrays | dict(self.packed)).items():
            if hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() != self.record.files[file].sha256:
                raise corrupt(folder / file, "has other bytes than were written")

    def _check_table(self) -> None:
        """Refuse to make a new table of a damaged one, which would hide the damage."""
        data, file = self.packed.get(self.record.table), self.record.files.get(self.record.table)
        if data is not None and FileRecord.of(data.data) != file:
            where = self.patches.slides.path or Path(self.record.table)
            raise corrupt(where, "has other bytes than were written")

    def wrong_contents(self, folder: Path) -> Iterator[str]:
        """Yield a line for each misfit between the arrays and the tables, or among the arrays."""
        patches = self.patches
        for problem in patches.slides.problems():
            yield f"{folder / self.record.table}: {problem}"
            return
        counts, last = np.zeros(len(patches.slides), np.int64), patches.keys[:1, 0]
        for first in range(0, len(patches), _BLOCK):  # an index may be larger than the memory
            block = slice(first, first + _BLOCK)
            keys = np.concatenate([last, patches.keys[block, 0]])
            if (keys[1:] < keys[:-1]).any():
                yield f"{folder / 'keys'}: not sorted by the first key"
                return
            slide, row, last = patches.slide[block], patches.row[block], keys[-1:]
            if not 0 <= slide.min() <= slide.max() < len(counts):
                yield f"{folder / 'slide'}: has slide numbers beyond the table's {len(counts)}"
                return
            if (row < 0).any() or (row >= patches.slides.n_patches[slide]).any():
                yield f"{folder / 'row'}: patches of a slide are not numbered from 0 on"
                return
            counts += np.bincount(slide, minlength=len(counts))
            if not self._is_in_order(first, slide, row):
                yield f"{folder / ORDER}: patches of a slide lie elsewhere, or are not numbered from 0 on"
                return
        if (counts != patches.slides.n_patches).any():
            yield f"{folder / 'slide'}: patches of each slide do not match n_patches of {self.record.table}"
            return
        begins = patches.key_begins
        if (
            begins is not None
            and (np.searchsorted(patches.keys[:, 0], np.arange(len(begins))) != begins).any()
        ):
            yield f"{folder / ORDER}: keys begin elsewhere"

    def _is_in_order(self, first: int, slide: npt.NDArray[np.int32], row: npt.NDArray[np.int32]) -> bool:
        """Return whether `by_slide` has the patches from `first` on in their places, where it is stored."""
        by_slide, slides = self.patches.by_slide, self.patches.slides
        if by_slide is None:
            return True
        places = (slides.patch_ends - slides.n_patches)[slide] + row
        return bool((by_slide[places] == np.arange(first, first + len(slide))).all())

    def live(self) -> Snapshot:
        """Return the patches of the live slides: the mapped files themselves if no slide was removed."""
        if not self.removed:
            return self.patches
        alive = ~self.removed_mask
        renumbered = np.cumsum(alive, dtype=np.int32) - np.int32(1)
        slide = self.patches.slide
        if len(slide) and not 0 <= slide.min() <= slide.max() < len(alive):
            raise corrupt(
                self.patches.slides.path or Path("a segment"), "has patches of slides beyond its table"
            )
        kept = np.flatnonzero(alive[slide])
        arrays = {name: array[kept] for name, array in self.patches.arrays.items()}
        slides = self.patches.slides.take(np.flatnonzero(alive))
        return Snapshot(slides, **{**arrays, "slide": renumbered[arrays["slide"]]})

    def without(self, slide_ids: Collection[str]) -> "Segment":
        """Return it with these slides removed; itself if it has none of them."""
        hit = {number for slide_id in slide_ids if (number := self.number_of(slide_id)) is not None}
        if not hit:
            return self
        return replace(self, removed=self.removed | hit, unsaved=self.unsaved | {"tombstones"})

    def relabelled(self, rows: Mapping[str, SlideRow]) -> "Segment":
        """Return it with the live slides' rows replaced by those of the same id; itself if there are none."""
        slides = self.patches.slides
        found = {number: row for name, row in rows.items() if (number := self.number_of(name)) is not None}
        new = {number: row for number, row in found.items() if slides[number] != row}
        if not new:
            return self
        self._check_table()
        patches = replace(self.patches, slides=slides.with_rows(new))
        return replace(self, patches=patches, unsaved=self.unsaved | {"table"})


def write_segment(folder: Path, patches: Snapshot) -> Segment:
    """Write a new segment durably and open it.

    Only the folder's own entry in its parent remains to be flushed.

    Parameters
    ----------
    folder : Path
        The segment's folder, which must not exist.
    patches : Snapshot
        Its slides and patches.

    Returns
    -------
    Segment
        The segment, mapped from its files.
    """
    check_plain(folder.parent)
    _write_arrays(folder, patches)
    write_file(folder / ORDER, packed(_order(folder.parent.parent, patches)))
    write_file(folder / TABLE, patches.slides.to_bytes())
    files = {}
    for path in sorted(folder.rglob("*")):
        sync(path)
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = record_file(path)
    sync(folder)
    record = SegmentRecord(folder.name, len(patches.slides), len(patches), TABLE, None, files)
    return _open_arrays(folder, record, array_shapes(len(patches), *patches.widths))


def open_segment(folder: Path, record: SegmentRecord, manifest: Manifest) -> Segment:
    """Map a segment's files into memory.

    The caller has looked for links (`check_no_links`). Here the sizes of all files, a small slide table, the
    tombstones and the places of keys are checked: no number in the files leads a kernel out of the arrays.
    `Segment.check` and `sish.index.store.verify` check the rest.

    Parameters
    ----------
    folder : Path
        The segment's folder.
    record : SegmentRecord
        Its entry in the manifest.
    manifest : Manifest
        The state that names it; it tells the widths of the arrays.

    Returns
    -------
    Segment
        The segment.

    Raises
    ------
    IndexCorruptError
        If a file is missing or not of its size, or a table is damaged.
    """
    key_orders, barcode_bytes, vector_bytes = manifest.widths
    shapes = array_shapes(record.patches, key_orders or 1, barcode_bytes or 1, vector_bytes)
    return _open_arrays(folder, record, shapes)


def _open_arrays(folder: Path, record: SegmentRecord, shapes: Mapping[str, tuple[int, ...]]) -> Segment:
    """Return a segment whose arrays have these shapes."""
    for name, file in record.files.items():
        _check_size(folder / name, file)
    arrays = {name: _map_array(folder, record, name, shape) for name, shape in shapes.items()}
    packed = {name: _map_bytes(folder / name) for name in (record.table, ORDER) if is_mapped(name, record)}
    slides, removed = read_slides(folder, record, packed.get(record.table))
    order = _read_order(folder / ORDER, packed[ORDER], record.patches) if ORDER in packed else {}
    return Segment(record, Snapshot(slides, **arrays, **order), removed, packed=packed)


def reopened(segment: Segment, folder: Path, record: SegmentRecord) -> Segment:
    """Return an open segment as a later entry has it, which differs by its removed slides alone."""
    slides = segment.patches.slides
    return replace(segment, record=record, removed=_read_removed(folder, record, len(slides)))


def is_mapped(name: str, record: SegmentRecord) -> bool:
    """Return whether a segment has a file of this name that holds packed arrays."""
    return name in record.files and not name.endswith(OLD_TABLE)


def read_slides(
    folder: Path, record: SegmentRecord, data: npt.NDArray[np.uint8] | None = None
) -> tuple[SlideTable, frozenset[int]]:
    """Read a segment's slide table and the numbers of its removed slides.

    Parameters
    ----------
    folder : Path
        The segment's folder.
    record : SegmentRecord
        Its entry in the manifest.
    data : uint8 (bytes,), optional
        The table's file, where it is mapped already.

    Returns
    -------
    slides : SlideTable
        All slides, removed ones included.
    removed : frozenset of int
        The numbers of the removed slides.

    Raises
    ------
    IndexCorruptError
        If a table is missing, damaged, or no table of slides.
    """  # noqa: DOC501  corrupt() makes that error
    path, file = folder / record.table, record.files[record.table]
    if record.table.endswith(OLD_TABLE):
        slides = SlideTable.of([_slide_of(path, item) for item in _read_list(path, file)])
    else:
        slides = _read_table(path, file, record.slides, _map_bytes(path) if data is None else data)
    counts = len(slides), int(slides.patch_ends[-1]) if len(slides) else 0
    if counts != (record.slides, record.patches):
        wanted = f"{record.slides} of {record.patches}"
        raise corrupt(path, f"has {counts[0]} slides of {short(counts[1])} patches, wanted {wanted}")
    return slides, _read_removed(folder, record, len(slides))


def _read_removed(folder: Path, record: SegmentRecord, slides: int) -> frozenset[int]:
    """Return the numbers of the removed slides."""
    if record.tombstones is None:
        return frozenset()
    path = folder / record.tombstones
    removed = _read_list(path, record.files[record.tombstones])
    if not all(type(number) is int and 0 <= number < slides for number in removed):
        raise corrupt(path, f"names slides beyond the table's {slides}")
    return frozenset(removed)


def _read_table(path: Path, file: FileRecord, slides: int, data: npt.NDArray[np.uint8]) -> SlideTable:
    """Return the slide table of a file; a small one is checked."""
    small = len(data) <= SMALL_TABLE
    if small and FileRecord.of(data.data) != file:
        raise corrupt(path, "does not match its checksum")
    table = SlideTable.from_bytes(data, path, slides)
    for problem in table.problems() if small else ():
        raise corrupt(path, problem)
    return table


def _read_order(path: Path, data: npt.NDArray[np.uint8], patches: int) -> dict[str, Any]:
    """Return the arrays that `_order` wrote."""
    try:
        order = unpack(data)
    except ValueError as error:
        raise corrupt(path, f"holds no order of patches ({error})") from None
    begins = order.get("key_begins", np.array([0, patches], np.int32))
    fits = (
        {"by_slide"} <= set(order) <= {"by_slide", "key_begins"}
        and all(array.dtype == np.int32 and array.ndim == 1 for array in order.values())
        and len(order["by_slide"]) == patches
        and begins[:1].tolist() == [0]
        and begins[-1] == patches
        and bool((begins[1:] >= begins[:-1]).all())
    )
    if not fits:
        raise corrupt(path, f"does not hold the order of {patches} patches")
    return order


def save_changes(folder: Path, segment: Segment, generation: int) -> Segment:
    """Write the table and tombstones that changed, durably, under new names of this generation."""
    if not segment.unsaved:
        return segment
    record, files, packed = segment.record, dict(segment.record.files), dict(segment.packed)
    if "table" in segment.unsaved:
        files.pop(record.table)
        packed.pop(record.table, None)
        record = replace(record, table=f"slides.{generation:08d}.safetensors")
        files[record.table] = write_file(folder / record.table, segment.patches.slides.to_bytes())
        packed[record.table] = _map_bytes(folder / record.table)
    if "tombstones" in segment.unsaved:
        files.pop(record.tombstones or "", None)
        name = f"tombstones.{generation:08d}.json"
        record = replace(record, tombstones=name)
        files[name] = write_file(folder / name, encode_json(sorted(segment.removed), "tombstones"))
    sync(folder)
    record = replace(record, files=files)
    patches = segment.patches
    if "table" in segment.unsaved:  # mapped again, so that nothing of it stays in memory
        table = SlideTable.from_bytes(packed[record.table], folder / record.table, record.slides)
        patches = replace(patches, slides=table)
    return replace(segment, record=record, patches=patches, packed=packed, unsaved=frozenset())


def array_shapes(
    patches: int, key_orders: int, barcode_bytes: int, vector_bytes: int | None
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a segment with this number of patches."""
    shapes: dict[str, tuple[int, ...]] = {
        "keys": (patches, key_orders),
        "barcodes": (patches, barcode_bytes),
        "l0_xy": (patches, 2),
        "slide": (patches,),
        "row": (patches,),
    }
    return shapes if vector_bytes is None else {**shapes, "vectors": (patches, vector_bytes)}


def chunk_file(shape: tuple[int, ...]) -> str:
    """Return the name of an array's only chunk, e.g. ``c.0.0`` for a table of two axes."""
    return ".".join(["c", *("0" for _ in shape)])


def _write_arrays(folder: Path, patches: Snapshot) -> None:
    import zarr  # only writing needs it, and it takes long to import

    group = zarr.open_group(folder, mode="w-", zarr_format=3)
    for name, data in patches.arrays.items():
        dtype = next(dtype for dtype in _WIDTHS[name] if _fits(data, dtype))
        group.create_array(
            name,
            shape=data.shape,
            chunks=tuple(max(n, 1) for n in data.shape),
            dtype=dtype,
            compressors=None,
            chunk_key_encoding=CHUNK_ENCODING,
        )
        if len(data):  # zarr would copy all of it in memory
            blocks = (data[block].astype(dtype).reshape(-1) for block in blocks_of(len(data)))
            pieces = (block.view(np.uint8).data for block in blocks)
            write_file(folder / name / chunk_file(data.shape), pieces)


def _fits(values: npt.NDArray[np.integer], dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype holds all of these values."""
    if values.dtype.itemsize <= dtype.itemsize or not values.size:
        return True
    limits = np.iinfo(dtype)
    return bool(limits.min <= values.min() and values.max() <= limits.max)


def _order(folder: Path, patches: Snapshot) -> dict[str, npt.NDArray[np.int32]]:
    """Return the places of each slide's patches and, if they are dense, of each key, as they are stored."""
    begins, keys = patches.slides.patch_ends - patches.slides.n_patches, patches.keys[:, 0]
    by_slide = scratch(folder, (len(patches),), np.int32)
    dense = bool(len(keys)) and 0 <= keys.min() <= keys.max() < len(keys)
    counts = np.zeros(int(keys.max()) + 1 if dense else 0, np.int64)
    for block in blocks_of(len(patches)):
        place = begins[patches.slide[block]] + patches.row[block]
        by_slide[place] = np.arange(block.start, block.start + len(place), dtype=np.int32)
        if dense:
            counts += np.bincount(keys[block], minlength=len(counts))
    order: dict[str, npt.NDArray[np.int32]] = {"by_slide": by_slide}
    if dense:
        order["key_begins"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return order


def check_no_links(folder: Path, record: SegmentRecord) -> None:
    """Refuse a segment with a link in it (IndexCorruptError): no repair may read through it."""
    files = [folder / name for name in record.files]
    for path in {folder.parent, folder, *(file.parent for file in files), *files}:
        check_plain(path)


def _slide_of(path: Path, item: object) -> SlideRow:
    """Read a row from an entry of a slide table; IndexCorruptError if it is none."""
    try:
        row = SlideRow(**item) if isinstance(item, dict) else None
    except TypeError:
        row = None
    if row is None:
        raise corrupt(path, f"has an entry that is no slide, {short(item)}")
    if wrong := wrong_field(row):
        raise corrupt(path, f"has {wrong} in the row of slide {short(row.slide_id)}")
    return row


def _check_size(path: Path, file: FileRecord) -> None:
    with damage_told(path):
        size = path.stat().st_size
    if size != file.size:
        raise corrupt(path, f"has {size} bytes, wanted {file.size}")


def _map_array(folder: Path, record: SegmentRecord, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if shape[0] == 0:  # an empty file cannot be mapped, and zarr writes none
        return np.empty(shape, _WIDTHS[name][-1])
    file = f"{name}/{chunk_file(shape)}"
    size = record.files[file].size if file in record.files else 0
    fitting = [dtype for dtype in _WIDTHS[name] if math.prod(shape) * dtype.itemsize == size]
    if not fitting:
        wanted = math.prod(shape) * _WIDTHS[name][-1].itemsize
        raise corrupt(folder / file, f"is not of the {wanted} bytes of {_WIDTHS[name][-1]} {shape}")
    try:
        with damage_told(folder / file):
            return np.memmap(folder / file, fitting[0], mode="r", shape=shape).view(np.ndarray)
    except ValueError:
        raise corrupt(folder / file, f"is too short for {fitting[0]} {shape}") from None


def _map_bytes(path: Path) -> npt.NDArray[np.uint8]:
    """Map a file into memory, read-only."""
    try:
        with damage_told(path):
            return np.memmap(path, np.uint8, mode="r").view(np.ndarray)
    except ValueError:  # an empty file cannot be mapped
        return np.empty(0, np.uint8)


def _read_list(path: Path, file: FileRecord) -> list[Any]:
    """Read a JSON file that is a list."""
    with damage_told(path):
        if record_file(path) != file:
            raise corrupt(path, "does not match its checksum")
        table = decode_json(path.read_bytes(), path, WAY_OUT)
    if not isinstance(table, list):
        raise corrupt(path, f"holds {short(table)}, wanted a list")
    return table
