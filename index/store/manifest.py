"""The manifest: the file that names all others of the index; replacing it is the only commit point.

``manifest.json`` is an object of ``format`` ("sish index"), ``version`` (2, or 1: see `Manifest.version`),
``generation`` (commits so far), ``header`` (the creator's, verbatim), ``next_segment``, ``key_orders`` and
``barcode_bytes`` (null until the first slide), ``segments`` (oldest slides first) and ``sha256``, the
checksum of all the others written as JSON with sorted keys and no spaces. ``extras``, ``measured`` and
``vector_bytes`` are there only if they are not empty.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeAlias

from sish.errors import IndexCorruptError, IndexFormatError, IndexNotFoundError, ParameterError, errors_about
from sish.index.store.disk import FileRecord, check_plain, storage_errors

FORMAT = "sish index"
FORMAT_VERSION = 2
"""The version that this release writes; it reads version 1 too."""
MANIFEST = "manifest.json"
SEGMENTS = "segments"
"""The folder of the segments within the index."""
SEGMENT_NAME = re.compile(r"[0-9]{8,}")
EXTRA_NAME = re.compile(r"tree\.[0-9]{8,}\.(npz|safetensors)")
FILE_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)?(\.[a-z0-9]+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 1 << 26  # of a manifest: one of a large archive has some hundred thousand
_RACY_NS = 10**9  # a clock of a file system ticks at least once in this time
_DEEPEST = 32  # lists and objects within each other in a header
_WAY_OUT = "restore the whole index from a backup, or index the slides again"

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None
"""What a JSON file can say."""


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """The manifest's entry of one segment."""

    name: str
    """Its folder under ``segments/``: a number that is never used again."""
    slides: int
    """Slides in its table, removed ones included."""
    patches: int
    """Patches in its arrays, those of removed slides included."""
    table: str
    """The file of its slide table."""
    tombstones: str | None
    """The file that lists its removed slides; None if there are none."""
    files: Mapping[str, FileRecord]
    """All of its files by path within the segment, with their sizes and checksums."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One state of the index."""

    header: Mapping[str, JSON]
    """What the creator wanted kept: the encoder's fingerprint and the like."""
    generation: int = 0
    """Number of commits since the index was created."""
    next_segment: int = 1
    """The first number that no segment ever had."""
    key_orders: int | None = None
    """T, keys of a patch; None before the first slide."""
    barcode_bytes: int | None = None
    """B, bytes of a barcode; None before the first slide."""
    vector_bytes: int | None = None
    """V, bytes of a stored vector; None before the first slide, and where no vectors are kept."""
    segments: tuple[SegmentRecord, ...] = ()
    """The segments; their slides follow each other in insertion order."""
    extras: Mapping[str, FileRecord] = field(default_factory=dict)
    """Files beside the segments, by name: the texture tree that made the keys, if there is one."""
    measured: Mapping[str, JSON] = field(default_factory=dict)
    """Facts that a writer measured on the patches, by name; without them a search works as it did before."""
    version: int = FORMAT_VERSION
    """The version of the format. Segments and tree of version 1 are read as they are; a commit makes it 2."""

    @property
    def widths(self) -> tuple[int | None, int | None, int | None]:
        """T, B and V, as of `Snapshot.widths`."""
        return self.key_orders, self.barcode_bytes, self.vector_bytes

    def to_bytes(self) -> bytes:
        """Return the bytes of ``manifest.json``."""
        body = {"format": FORMAT, "version": self.version, **asdict(self), "header": dict(self.header)}
        for name in ("extras", "measured", "vector_bytes"):
            if not body[name]:
                del body[name]  # as in manifests that are older than the field
        body["sha256"] = _checksum(body)
        return json.dumps(body, indent=1).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> "Manifest":
        """Read what `to_bytes` wrote.

        Parameters
        ----------
        data : bytes
            The bytes of ``manifest.json``.
        path : Path
            Its path, for errors.

        Returns
        -------
        Manifest
            The state that it describes.

        Raises
        ------
        IndexFormatError
            If it is not one of ours, or of another version.
        IndexCorruptError
            If it is not what was written.
        """
        body = decode_json(data, path, _WAY_OUT)
        _check_format(body, path)
        try:
            if body.pop("sha256", None) != _checksum(body):
                raise IndexCorruptError(f"{path} does not match its own checksum: {_WAY_OUT}")
            return cls(
                header=_object(body["header"], "header"),
                generation=_count(body["generation"]),
                next_segment=_count(body["next_segment"]),
                key_orders=_width(body["key_orders"]),
                barcode_bytes=_width(body["barcode_bytes"]),
                vector_bytes=_width(body.get("vector_bytes")),
                segments=_segment_records(body["segments"]),
                extras=_extras(body.get("extras", {})),
                measured=_object(body.get("measured", {}), "measured"),
                version=body["version"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise IndexCorruptError(f"{path} has a wrong entry ({repr(error)[:200]}): {_WAY_OUT}") from None


def encode_json(value: Any, what: str) -> bytes:
    """Return a value as JSON.

    Parameters
    ----------
    value : any
        The value.
    what : str
        Its name, for the error.

    Returns
    -------
    bytes
        JSON in ASCII.

    Raises
    ------
    ParameterError
        If JSON cannot say it.
    """
    try:
        return json.dumps(value, allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(
            f"{what} cannot be written as JSON ({error}): give plain str, int, finite float, bool or None"
        ) from None


def decode_json(data: bytes, path: Path, way_out: str) -> Any:
    """Return the value of a JSON file.

    Parameters
    ----------
    data : bytes
        Its bytes.
    path : Path
        Its path, for the error.
    way_out : str
        What to do about it, for the error.

    Returns
    -------
    any
        The value.

    Raises
    ------
    IndexCorruptError
        If it is not JSON, or nested too deep.
    """
    try:
        return json.loads(data)
    except ValueError as error:
        raise IndexCorruptError(f"{path} is not valid JSON ({error}): {way_out}", path=path) from None
    except RecursionError:
        raise IndexCorruptError(f"{path} is nested too deep to be read: {way_out}", path=path) from None


def read_manifest(folder: Path) -> Manifest:
    """Return the state of an index as it is on the disk now.

    Parameters
    ----------
    folder : Path
        The index.

    Returns
    -------
    Manifest
        Its state.

    Raises
    ------
    IndexNotFoundError
        If there is no index.
    IndexFormatError
        If it is a file, or of another format.
    IndexCorruptError
        If the manifest is damaged, or a link.
    """
    path = folder / MANIFEST
    with storage_errors(folder, "read the index at"), errors_about(path):
        check_plain(path)
        try:
            return Manifest.from_bytes(_read_bytes(path), path)
        except FileNotFoundError:
            missing = f"has no {MANIFEST}, so it is no index" if folder.is_dir() else "does not exist"
            raise IndexNotFoundError(
                f"{folder} {missing}: check the path, or create one first", path=folder
            ) from None
        except NotADirectoryError:
            raise IndexFormatError(
                f"{folder} is a file, wanted the folder of an index", path=folder
            ) from None


def manifest_stamp(folder: Path) -> tuple[int, ...] | None:
    """Return what tells the file of this state from that of another, without reading it.

    Returns
    -------
    tuple of int or None
        None if it cannot be known: there is no file, or it is so new that the next one may look alike.
    """
    try:
        it = os.lstat(folder / MANIFEST)
    except OSError:
        return None
    if time.time_ns() - it.st_mtime_ns < _RACY_NS:
        return None
    return it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise IndexCorruptError(
            f"{path} has more than {_MOST_BYTES} bytes, which no manifest has: {_WAY_OUT}"
        )
    return data


def _checksum(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _check_format(body: Any, path: Path) -> None:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise IndexFormatError(f"{path} is not the manifest of a sish index: check the path")
    version = body.get("version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise IndexFormatError(
            f"{path} is of index format {short(version)}, this release reads formats 1 to "
            f"{FORMAT_VERSION}: use the release of sish that wrote it, or index the slides again"
        )


def _object(value: Any, what: str) -> Mapping[str, JSON]:
    """Return a writer's own object; ValueError unless it is one that is not nested too deep."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} {short(value)}")
    if is_deep(value):
        raise ValueError(f"{what} nested more than {_DEEPEST} deep")
    return value


def is_deep(value: JSON) -> bool:
    """Return whether lists and objects are nested so deep that copying them may fail."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for it in level
            if isinstance(it, dict | list)
            for child in (it.values() if isinstance(it, dict) else it)
        ]
    return bool(level)


def _count(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise ValueError(f"{short(value)}, wanted a whole number of at least {least}")
    return value


def _width(value: Any) -> int | None:
    return None if value is None else _count(value, 1)


def _file_record(item: Mapping[str, Any]) -> FileRecord:
    record = FileRecord(**item)
    if not SHA256.fullmatch(record.sha256):
        raise ValueError(f"sha256 {short(record.sha256)}")
    _count(record.size)
    return record


def _extras(items: Mapping[str, Mapping[str, Any]]) -> dict[str, FileRecord]:
    if not all(EXTRA_NAME.fullmatch(name) for name in items):
        raise ValueError(f"extras {short(sorted(items))}")
    return {name: _file_record(item) for name, item in items.items()}


def _segment_records(items: Any) -> tuple[SegmentRecord, ...]:
    if not isinstance(items, list):
        raise ValueError(f"segments {short(items)}")
    records = tuple(map(_segment_record, items))
    if len({record.name for record in records}) < len(records):
        raise ValueError("two segments of one name")
    return records


def _segment_record(item: Mapping[str, Any]) -> SegmentRecord:
    """Read the entry of one segment; its names become paths, so they must be ones that a writer gives."""
    record = SegmentRecord(**{**item, "files": {k: _file_record(v) for k, v in item["files"].items()}})
    tables = [record.table, *([] if record.tombstones is None else [record.tombstones])]
    if not SEGMENT_NAME.fullmatch(record.name) or not all(FILE_NAME.fullmatch(name) for name in record.files):
        raise ValueError(f"segment {short(record.name)}")
    if not set(tables) <= set(record.files):
        raise ValueError(f"segment {record.name} without a file {short(tables)}")
    _count(record.slides)
    _count(record.patches)
    return record
