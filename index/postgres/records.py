"""Patches as COPY writes and reads them: binary records of one length, so that numpy makes and takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import IndexCorruptError

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""The begin of a binary COPY: its signature, no flags, no extension."""
END = b"\xff\xff"
"""Its end, in place of another record's number of fields."""
NUMBERS = {"key": 8, "patch": 8, "x": 4, "y": 4, "nth": 4, "slide": 4, "row": 4}
"""Bytes of each column that is a whole number, in the order of the table."""
_READ_TOGETHER = 1 << 24  # bytes


@dataclass(frozen=True, slots=True)
class Records:
    """How the patches of an archive are written: numbers, a barcode, and a vector where they are kept."""

    barcode_bytes: int
    """B, bytes of a barcode."""
    vector_bytes: int | None
    """V, bytes of a vector; None where none are kept."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (*NUMBERS, "barcode", *([] if self.vector_bytes is None else ["vector"]))

    def dtype(self, columns: tuple[str, ...]) -> np.dtype[Any]:
        """Return the layout of a record of some columns.

        Parameters
        ----------
        columns : tuple of str
            Their names, in order.

        Returns
        -------
        dtype
            The number of fields, and before each value its length in bytes (`length_of`).
        """
        fields: list[Any] = [("fields", ">i2")]
        for name in columns:
            fields.append((length_of(name), ">i4"))
            if name in NUMBERS:
                fields.append((name, f">i{NUMBERS[name]}"))
            elif name == "barcode":
                fields += [("bits", ">i4"), (name, "u1", self.barcode_bytes)]
            else:
                fields.append((name, "u1", self.vector_bytes))
        return np.dtype(fields)

    def empty(self, count: int) -> NDArray[Any]:
        """Return `count` records of all columns, whose values are to be filled in."""
        columns = self.columns
        records = np.zeros(count, self.dtype(columns))
        records["fields"], records["bits"] = len(columns), 8 * self.barcode_bytes
        for name in columns:
            records[length_of(name)] = self._length(name)
        return records

    def stream(
        self, parts: Iterator[bytes | bytearray | memoryview], columns: tuple[str, ...]
    ) -> Iterator[NDArray[Any]]:
        """Yield the records of a binary COPY of some columns, many at a time.

        Parameters
        ----------
        parts : iterator of bytes
            What COPY sends.
        columns : tuple of str
            Their names, in order.

        Yields
        ------
        structured array
            Records, as `dtype` lays them out.

        Raises
        ------
        IndexCorruptError
            If a barcode or a vector has another length than those of the archive, or is missing.
        """
        dtype, data = self.dtype(columns), bytearray()
        header = len(HEADER)
        for part in parts:
            data += part
            if len(data) - header >= _READ_TOGETHER:
                whole = (len(data) - header) // dtype.itemsize * dtype.itemsize
                yield self._checked(bytes(data[header : header + whole]), columns)
                del data[: header + whole]
                header = 0
        yield self._checked(bytes(data[header : -len(END)]), columns)

    def _checked(self, data: bytes, columns: tuple[str, ...]) -> NDArray[Any]:
        """Return the records of some bytes; IndexCorruptError if their values have other lengths."""
        dtype = self.dtype(columns)
        records = np.frombuffer(data[: len(data) - len(data) % dtype.itemsize], dtype)
        odd = len(data) % dtype.itemsize or any(
            (records[length_of(name)] != self._length(name)).any() for name in columns
        )
        if odd:
            raise IndexCorruptError(
                "the table of patches has barcodes or vectors of other lengths than the archive: "
                "see sish index verify"
            )
        return records

    def _length(self, name: str) -> int:
        """Return the length that COPY tells of a value."""
        if name in NUMBERS:
            return NUMBERS[name]
        return 4 + self.barcode_bytes if name == "barcode" else self.vector_bytes or 0


def length_of(column: str) -> str:
    """Return the name of the field with the length of a column's value."""
    return f"length of {column}"
