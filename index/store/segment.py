"""Segments: immutable files of some slides and of their patches in key order.

A segment is a zarr 3 group of the arrays ``keys``, ``barcodes``, ``l0_xy``, ``slide`` and ``row`` (see
`Snapshot`). Each array is one uncompressed chunk, so the chunk's file is the plain little-endian array: it
is mapped into memory here and can be read by any zarr tool. Beside the arrays is ``slides.json``, the slide
table in insertion order. If slides were removed since, ``tombstones.GENERATION.json`` holds their numbers in
the table. Relabelling writes a new table ``slides.GENERATION.json``. A file never changes once a manifest
has named it.
"""

import errno
import hashlib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
import numpy.typing as npt

from sish.errors import IndexCorruptError, ParameterError
from sish.index.store.disk import FileRecord, check_plain, record_file, sync, write_file
from sish.index.store.manifest import SegmentRecord, decode_json, encode_json
from sish.index.store.snapshot import ARRAYS, SlideRow, Snapshot, wrong_field

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
_BLOCK = 1 << 20  # numbers that are counted at a time
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}
"""Errors of the system that mean damage; others (no rights, too many open files) are no damage."""


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
    checked: set[str] = field(default_factory=set, compare=False, repr=False)
    """The checks of its arrays that were done; copies share it, as they share the arrays."""
    numbers: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    """The number of each slide by its id, once one was looked up; copies share it, as ids never change."""

    @property
    def slides(self) -> tuple[SlideRow, ...]:
        """The live slides in insertion order."""
        if not self.removed:
            return self.patches.slides
        return tuple(row for number, row in enumerate(self.patches.slides) if number not in self.removed)

    def number_of(self, slide_id: str) -> int | None:
        """Return the number of a live slide in the table, None if it is not here; O(1) after a first look."""
        if not self.numbers:
            self.numbers.update((row.slide_id, number) for number, row in enumerate(self.patches.slides))
        number = self.numbers.get(slide_id)
        return None if number in self.removed else number

    @property
    def weight(self) -> int:
        """The cost of rewriting it: its live patches, and one for each live slide."""
        return sum(row.n_patches + 1 for row in self.slides)

    @property
    def removed_patches(self) -> int:
        """Patches of the removed slides."""
        return sum(self.patches.slides[number].n_patches for number in self.removed)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(getattr(self.patches, name).nbytes for name in ARRAYS)

    def check(self, folder: Path, *, every_byte: bool) -> None:
        """Compare the mapped arrays with what was written; each kind of check is done once.

        Counts and the order of the keys are always checked. The files themselves may be gone.

        Parameters
        ----------
        folder : Path
            The segment's folder, for errors.
        every_byte : bool
            Check the checksums too.

        Raises
        ------
        IndexCorruptError
            If an array is damaged.
        """
        if every_byte and "bytes" not in self.checked:
            self._check_bytes(folder)
            self.checked.add("bytes")
        if "contents" not in self.checked:
            for problem in self.wrong_contents(folder):
                raise IndexCorruptError(f"{problem}: {_WAY_OUT}", path=folder)
            self.checked.add("contents")

    def _check_bytes(self, folder: Path) -> None:
        for name in ARRAYS if len(self.patches) else ():
            array = getattr(self.patches, name)
            file = f"{name}/{chunk_file(array.shape)}"
            if hashlib.sha256(array).hexdigest() != self.record.files[file].sha256:
                raise corrupt(folder / file, "has other bytes than were written")

    def wrong_contents(self, folder: Path) -> Iterator[str]:
        """Yield a line for each misfit between the arrays and the slide table, or among the arrays."""
        patches = self.patches
        counts = _count(patches.slide, len(patches.slides))
        if counts.tolist() != [row.n_patches for row in patches.slides]:
            yield f"{folder / 'slide'}: patches of each slide do not match n_patches of {self.record.table}"
        keys = patches.keys[:, 0]
        if (keys[1:] < keys[:-1]).any():
            yield f"{folder / 'keys'}: not sorted by the first key"

    def live(self) -> Snapshot:
        """Return the patches of the live slides: the mapped files themselves if no slide was removed."""
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


def _count(numbers: npt.NDArray[np.int32], n: int) -> npt.NDArray[np.int64]:
    """Count each number below `n`; block by block, because `bincount` copies its input."""
    counts = np.zeros(n, np.int64)
    for first in range(0, len(numbers), _BLOCK):
        counts += np.bincount(numbers[first : first + _BLOCK], minlength=n)
    return counts


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

    It checks the sizes of all files, the checksums of the tables, and that each patch and each tombstone
    belongs to a slide of the table, so no number in the files leads out of the arrays. `Segment.check` and
    `sish.index.store.verify` check the rest.

    Parameters
    ----------
    folder : Path
        The segment's folder.
    record : SegmentRecord
        Its entry in the manifest.
    key_orders : int
        T, the keys of a patch.
    barcode_bytes : int
        B, the bytes of a barcode.

    Returns
    -------
    Segment
        The segment.

    Raises
    ------
    IndexCorruptError
        If a file is missing, not of its size, or a link, or a table is damaged.
    """  # noqa: DOC501  corrupt() makes that error
    check_no_links(folder, record)
    for name, file in record.files.items():
        _check_size(folder / name, file)
    shapes = array_shapes(record.patches, key_orders, barcode_bytes)
    arrays = {name: _map_array(folder, record, name, shape) for name, shape in shapes.items()}
    slides, removed = read_slides(folder, record)
    numbers = arrays["slide"]
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(slides):
        raise corrupt(folder / "slide", f"has slide numbers beyond the table's {len(slides)}")
    return Segment(record, Snapshot(slides, **arrays), removed)


def read_slides(folder: Path, record: SegmentRecord) -> tuple[tuple[SlideRow, ...], frozenset[int]]:
    """Read a segment's slide table and the numbers of its removed slides.

    Parameters
    ----------
    folder : Path
        The segment's folder.
    record : SegmentRecord
        Its entry in the manifest.

    Returns
    -------
    slides : tuple of SlideRow
        All slides, removed ones included.
    removed : frozenset of int
        The numbers of the removed slides.

    Raises
    ------
    IndexCorruptError
        If a table is missing, damaged, or no table of slides.
    """  # noqa: DOC501  corrupt() makes that error
    path = folder / record.table
    slides = tuple(_slide_of(path, item) for item in _read_list(path, record.files[record.table]))
    counts = len(slides), sum(row.n_patches for row in slides)
    if counts != (record.slides, record.patches):
        wanted = f"{record.slides} of {record.patches}"
        raise corrupt(path, f"has {counts[0]} slides of {short(counts[1])} patches, wanted {wanted}")
    if record.tombstones is None:
        return slides, frozenset()
    path = folder / record.tombstones
    removed = _read_list(path, record.files[record.tombstones])
    if not all(type(number) is int and 0 <= number < len(slides) for number in removed):
        raise corrupt(path, f"names slides beyond the table's {len(slides)}")
    return slides, frozenset(removed)


def save_changes(folder: Path, segment: Segment, generation: int) -> Segment:
    """Write the table and tombstones that changed, durably, under new names of this generation."""
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
    """Return the shape of each array of a segment with this number of patches."""
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
    data = encode_json([_encode_row(row) for row in slides], "the slide table")
    for row in slides:
        if wrong := wrong_field(row):
            raise ParameterError(
                f"the row of slide {row.slide_id!r} has {wrong}: nothing was stored", slide_id=row.slide_id
            )
    return data


def _encode_row(row: SlideRow) -> dict[str, Any]:
    plain = {**asdict(replace(row, metadata={})), "metadata": dict(row.metadata)}
    if row.file_digest is None:
        del plain["file_digest"]  # as in tables that are older than the field
    return plain


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


_WAY_OUT = "restore it from a backup, or see sish index repair"


def corrupt(path: Path, wrong: str) -> IndexCorruptError:
    """Return the error for a damaged file of a segment."""
    return IndexCorruptError(f"{path} {wrong}: {_WAY_OUT}", path=path)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Raise IndexCorruptError if a file is gone or the disk cannot read it; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        wrong = "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
        raise corrupt(path, wrong) from None


def _map_array(folder: Path, record: SegmentRecord, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    dtype = DTYPES[name]
    if shape[0] == 0:  # an empty file cannot be mapped, and zarr writes none
        return np.empty(shape, dtype)
    file = f"{name}/{chunk_file(shape)}"
    wanted = math.prod(shape) * dtype.itemsize
    if file not in record.files or record.files[file].size != wanted:
        raise corrupt(folder / file, f"is not of the {wanted} bytes of {dtype} {shape}")
    try:
        with damage_told(folder / file):
            return np.memmap(folder / file, dtype, mode="r", shape=shape).view(np.ndarray)
    except ValueError:
        raise corrupt(folder / file, f"is too short for {dtype} {shape}") from None


def _read_list(path: Path, file: FileRecord) -> list[Any]:
    """Read a JSON file that is a list."""
    with damage_told(path):
        if record_file(path) != file:
            raise corrupt(path, "does not match its checksum")
        table = decode_json(path.read_bytes(), path, _WAY_OUT)
    if not isinstance(table, list):
        raise corrupt(path, f"holds {short(table)}, wanted a list")
    return table
