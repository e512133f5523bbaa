"""The manifest: the one file that says which others make up the index, and the only commit point.

``manifest.json`` of format version 1 is an object of ``format`` ("sish index"), ``version`` (1),
``generation`` (commits so far), ``header`` (the creator's, verbatim), ``next_segment``, ``key_orders`` and
``barcode_bytes`` (null until the first slide), ``segments`` (oldest slides first) and ``sha256``, the
checksum of all the others written as JSON with sorted keys and no spaces.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from sish.errors import IndexCorruptError, IndexFormatError, IndexNotFoundError, ParameterError
from sish.index.disk import FileRecord, check_plain, storage_errors

__all__ = ["FORMAT_VERSION", "JSON", "Manifest", "SegmentRecord", "encode_json", "read_manifest"]

FORMAT = "sish index"
FORMAT_VERSION = 1
"""The version that this release writes, and the only one that it reads."""
MANIFEST = "manifest.json"
SEGMENT_NAME = re.compile(r"[0-9]{8,}")
EXTRA_NAME = re.compile(r"tree\.[0-9]{8,}\.npz")
FILE_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)?(\.[a-z0-9]+)*")

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None
"""What a JSON file can say."""


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What the manifest says of one segment."""

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
    segments: tuple[SegmentRecord, ...] = ()
    """The segments; their slides follow each other in insertion order."""
    extras: Mapping[str, FileRecord] = field(default_factory=dict)
    """Files beside the segments, by name: the texture tree that made the keys, if there is one."""

    def to_bytes(self) -> bytes:
        """Return the bytes of ``manifest.json``."""
        body = {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self), "header": dict(self.header)}
        if not self.extras:
            del body["extras"]  # as in manifests that are older than the field
        body["sha256"] = _checksum(body)
        return json.dumps(body, indent=1).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> "Manifest":
        """Read what `to_bytes` wrote; ``path`` is named in errors.

        Raises:
            IndexFormatError: not one of ours, or of another version.
            IndexCorruptError: not what was written.
        """
        try:
            body = json.loads(data)
        except ValueError as error:
            raise IndexCorruptError(
                f"{path} is not valid JSON ({error}): restore it from a backup, or index the slides again"
            ) from None
        _check_format(body, path)
        if body.pop("sha256", None) != _checksum(body):
            raise IndexCorruptError(
                f"{path} does not match its own checksum: restore it from a backup, or index the slides again"
            )
        try:
            return cls(
                header=body["header"],
                generation=body["generation"],
                next_segment=body["next_segment"],
                key_orders=body["key_orders"],
                barcode_bytes=body["barcode_bytes"],
                segments=tuple(_segment_record(item) for item in body["segments"]),
                extras=_extras(body.get("extras", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IndexCorruptError(
                f"{path} has a wrong entry ({error!r}): restore it from a backup, or index the slides again"
            ) from None


def encode_json(value: Any, what: str) -> bytes:
    """Return ``value`` as JSON; ``what`` is named in the error.

    Raises:
        ParameterError: JSON cannot say it.
    """
    try:
        return json.dumps(value, allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"{what} cannot be written as JSON ({error}): give plain str, int, finite float, bool or None"
        ) from None


def read_manifest(folder: Path) -> Manifest:
    """Return the state of the index at ``folder`` as it is on the disk now.

    Raises:
        IndexNotFoundError: there is no index at ``folder``.
        IndexFormatError: it is a file, or of another format.
        IndexCorruptError: the manifest is damaged, or a link.
    """
    path = folder / MANIFEST
    with storage_errors(folder, "read the index at"):
        check_plain(path)
        try:
            return Manifest.from_bytes(path.read_bytes(), path)
        except FileNotFoundError:
            missing = f"has no {MANIFEST}, so it is no index" if folder.is_dir() else "does not exist"
            raise IndexNotFoundError(f"{folder} {missing}: check the path, or create one first") from None
        except NotADirectoryError:
            raise IndexFormatError(f"{folder} is a file, wanted the folder of an index") from None


def _checksum(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _check_format(body: Any, path: Path) -> None:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise IndexFormatError(f"{path} is not the manifest of a sish index: check the path")
    if body.get("version") != FORMAT_VERSION:
        raise IndexFormatError(
            f"{path} is of index format {body.get('version')!r}, this release reads format {FORMAT_VERSION}: "
            "use the release of sish that wrote it, or index the slides again"
        )


def _extras(items: Mapping[str, Mapping[str, Any]]) -> dict[str, FileRecord]:
    if not all(EXTRA_NAME.fullmatch(name) for name in items):
        raise ValueError(f"extras {sorted(items)}")
    return {name: FileRecord(**item) for name, item in items.items()}


def _segment_record(item: Mapping[str, Any]) -> SegmentRecord:
    """Read one segment's record; its names become paths, so they must be ours."""
    record = SegmentRecord(**{**item, "files": {k: FileRecord(**v) for k, v in item["files"].items()}})
    names = [record.table, *([record.tombstones] if record.tombstones else []), *record.files]
    if not SEGMENT_NAME.fullmatch(record.name) or not all(FILE_NAME.fullmatch(name) for name in names):
        raise ValueError(f"segment {record.name!r}")
    return record
