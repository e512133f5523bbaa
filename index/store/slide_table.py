"""The slides of a segment as columns: mapped from a file, or in memory, and rows only where one is asked for.

A text stands in the table once, whatever number of slides share it: the distinct texts lie one after another
in order, and a column holds their numbers. So the order of ids is the order of these numbers, and a filter
compares numbers. A slide is found by a hash of its id.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from operator import eq
from pathlib import Path
from typing import Any, overload
from zlib import crc32

import numpy as np
import numpy.typing as npt

from sish.errors import ParameterError, SishError
from sish.index.store.disk import corrupt
from sish.index.store.packed import pack, unpack
from sish.index.store.slide_row import SlideRow, wrong_field

TEXTS = ("slide_id", "path", "mpp_source", "label", "patient", "site", "status", "file_digest")
"""The columns of text, in the order of `SlideTable.texts`."""
_OPTIONAL = ("label", "site", "file_digest")
_SIZES = ("width", "height")
_LENGTHS = ("patch_l0_px", "mpp")
_ENCODING = "utf-8", "surrogatepass"  # a path may hold bytes that are no text
_NUMBER = 2**32 - 1  # the bits of a slide's number in `SlideTable.by_hash`
_WIDEST = 256  # bytes of an id that is kept in an array of texts
_UNREADABLE = (LookupError, ValueError, OverflowError, MemoryError)


@contextmanager
def _damage_told(path: Path | None) -> Iterator[None]:
    """Raise IndexCorruptError where numbers of a table lead nowhere: a large one was not compared."""
    try:
        yield
    except SishError:
        raise
    except _UNREADABLE as error:
        where = path or Path("a slide table in memory")
        raise corrupt(where, f"has numbers that lead nowhere ({str(error)[:80]!r})") from None


class SlideRows(Sequence[SlideRow]):
    """Slides in order, whose rows are made when they are asked for; a slide's number is its place."""

    @abstractmethod
    def _row(self, number: int) -> SlideRow:
        """Return the row of a slide."""

    @overload
    def __getitem__(self, place: int) -> SlideRow: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[SlideRow]: ...
    def __getitem__(self, place: int | slice) -> SlideRow | Sequence[SlideRow]:
        """Return the row of a slide by its number."""
        numbers = range(len(self))[place]
        if isinstance(numbers, range):
            return [self._row(number) for number in numbers]
        return self._row(numbers)

    def __iter__(self) -> Iterator[SlideRow]:
        """Yield all rows."""
        return map(self._row, range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence has the same rows."""
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # as of other sequences that are compared by their contents


@dataclass(frozen=True, eq=False)
class SlideTable(SlideRows):
    """N slides in insertion order; a slide's number is its place here.

    Examples
    --------
    >>> row = SlideRow("a", "/a.svs", 3, 256.0, 0.5, "given", 9, 9, "tumour", "p", None)
    >>> table = SlideTable.of([row])
    >>> table[0] == row, table.number_of("a"), table.has("label", "tumour").tolist()
    (True, 0, [True])
    """

    strings: npt.NDArray[np.uint8]
    """The distinct texts in order of their code points, UTF-8, one after another."""
    string_ends: npt.NDArray[np.int32]
    """int32 (S,): where each text ends."""
    texts: npt.NDArray[np.int32]
    """int32 (8, N): number of each slide's text in each column of `TEXTS`; -1 for none."""
    sizes: npt.NDArray[np.int64]
    """int64 (2, N): width and height of level 0 in pixels."""
    lengths: npt.NDArray[np.float64]
    """float64 (2, N): side of a patch in level-0 pixels, and micrometres per level-0 pixel."""
    patch_ends: npt.NDArray[np.int32]
    """int32 (N,): number of patches of each slide and of all slides before it."""
    metadata: npt.NDArray[np.int32]
    """int32 (M, 2): numbers of the name and the value of each field of metadata, slide after slide."""
    metadata_ends: npt.NDArray[np.int32]
    """int32 (N,): where the metadata of each slide ends."""
    by_hash: npt.NDArray[np.uint64]
    """uint64 (N,): hash of each id in the upper 32 bits, number of its slide in the lower; in order."""
    path: Path | None = None
    """The file that it is mapped from; None in memory."""

    @classmethod
    def of(cls, rows: Sequence[SlideRow]) -> "SlideTable":
        """Return the table of some rows; ParameterError if a field of a row cannot be stored."""
        for row in rows:
            if wrong := wrong_field(row):
                raise ParameterError(
                    f"the row of slide {row.slide_id!r} has {wrong}: nothing was stored",
                    slide_id=str(row.slide_id),
                )
        columns = [[getattr(row, name) for row in rows] for name in TEXTS]
        pairs = [(name, value) for row in rows for name, value in row.metadata.items()]
        texts = sorted({*chain(*columns, *pairs)} - {None})
        number = {text: place for place, text in enumerate(texts)} | {None: -1}
        strings = [text.encode(*_ENCODING) for text in texts]
        return cls(
            **_heap(strings),
            texts=np.array([[number[text] for text in column] for column in columns], np.int32),
            sizes=np.array([[getattr(row, name) for row in rows] for name in _SIZES], np.int64),
            lengths=np.array([[getattr(row, name) for row in rows] for name in _LENGTHS], np.float64),
            patch_ends=_ends([row.n_patches for row in rows]),
            metadata=np.array([[number[it] for it in pair] for pair in pairs], np.int32).reshape(-1, 2),
            metadata_ends=_ends([len(row.metadata) for row in rows]),
            by_hash=_by_hash([row.slide_id.encode(*_ENCODING) for row in rows]),
        )

    @classmethod
    def from_bytes(cls, data: npt.NDArray[np.uint8], path: Path, slides: int) -> "SlideTable":
        """Return the table that a file holds; nothing is read but the shapes of its columns.

        Parameters
        ----------
        data : uint8 (bytes,)
            The file, mapped.
        path : Path
            Its path, for errors.
        slides : int
            N, as the manifest has it.

        Returns
        -------
        SlideTable
            Columns that are views of `data`.

        Raises
        ------
        IndexCorruptError
            If it holds no table of N slides.
        """  # noqa: DOC501  corrupt() makes that error
        try:
            table = cls(**unpack(data), path=path)
            shapes = {name: getattr(table, name).shape for name in COLUMNS}
            wanted = _shapes(slides, len(table.string_ends), len(table.strings), len(table.metadata))
        except (TypeError, ValueError) as error:
            raise corrupt(path, f"holds no slide table ({str(error)[:200]!r})") from None
        if shapes != wanted or any(getattr(table, name).dtype != dtype for name, dtype in COLUMNS.items()):
            raise corrupt(path, f"holds other columns than those of {slides} slides")
        return table

    def to_bytes(self) -> bytes:
        """Return the bytes of the file that `from_bytes` reads."""
        return pack({name: getattr(self, name) for name in COLUMNS})

    # ---- rows

    def __len__(self) -> int:
        """Return N, the number of slides."""
        return int(self.texts.shape[1])

    def _row(self, number: int) -> SlideRow:
        with _damage_told(self.path):
            texts = {name: self._text(code) for name, code in zip(TEXTS, self.texts[:, number], strict=True)}
            begin, end = self._metadata_range(number)
            row = SlideRow(
                **texts,  # type: ignore[arg-type]  # wrong_field looks at them
                n_patches=int(self.n_patches[number]),
                patch_l0_px=float(self.lengths[0, number]),
                mpp=float(self.lengths[1, number]),
                width=int(self.sizes[0, number]),
                height=int(self.sizes[1, number]),
                metadata={self._text(name): self._text(value) for name, value in self.metadata[begin:end]},  # type: ignore[misc]
            )
        if wrong := wrong_field(row):
            raise self._corrupt(f"has {wrong} in the row of slide {number}")
        return row

    def _metadata_range(self, number: int) -> tuple[int, int]:
        return (int(self.metadata_ends[number - 1]) if number else 0), int(self.metadata_ends[number])

    def _text(self, code: int) -> str | None:
        """Return a text by its number; IndexError if there is none."""
        return None if code == -1 else self._string(int(code)).decode(*_ENCODING)

    def _string(self, number: int) -> bytes:
        if not 0 <= number < len(self.string_ends):
            raise IndexError(f"text {number} of {len(self.string_ends)}")
        begin = int(self.string_ends[number - 1]) if number else 0
        return self.strings[begin : int(self.string_ends[number])].tobytes()

    def _corrupt(self, wrong: str) -> Exception:
        return corrupt(self.path or Path("a slide table in memory"), wrong)

    # ---- columns

    @cached_property
    def n_patches(self) -> npt.NDArray[np.int64]:
        """int64 (N,): how many patches each slide has."""
        return np.diff(self.patch_ends, prepend=0).astype(np.int64)

    def numbers(self, column: str) -> npt.NDArray[Any]:
        """Return a column of numbers, int64 or float64 (N,)."""
        if column == "n_patches":
            return self.n_patches
        names, columns = (_SIZES, self.sizes) if column in _SIZES else (_LENGTHS, self.lengths)
        numbers: npt.NDArray[Any] = columns[names.index(column)]
        return numbers

    def number_of(self, slide_id: str) -> int | None:
        """Return the number of a slide by its id, or None; O(log N)."""
        text = slide_id.encode(*_ENCODING)
        place = int(np.searchsorted(self.by_hash, np.uint64(own := _hash(text) << 32)))
        with _damage_told(self.path):
            while place < len(self) and (entry := int(self.by_hash[place])) >> 32 << 32 == own:
                if self._string(int(self.texts[0, number := entry & _NUMBER])) == text:
                    return number
                place += 1
        return None

    def has(self, column: str, value: str | None) -> npt.NDArray[np.bool_]:
        """Return which slides have a value, or none, in a column of `TEXTS`, bool (N,)."""
        code = -1 if value is None else self._code(value)
        found: npt.NDArray[np.bool_] = self.texts[TEXTS.index(column)] == code
        return found

    def has_metadata(self, name: str, value: str) -> npt.NDArray[np.bool_]:
        """Return which slides have a value in a field of metadata, bool (N,)."""
        mask = np.zeros(len(self), bool)
        with _damage_told(self.path):
            fields = (self.metadata[:, 0] == self._code(name)) & (self.metadata[:, 1] == self._code(value))
            mask[self._slides_of(np.flatnonzero(fields))] = True
        return mask

    def values(self, column: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return a column of `TEXTS`.

        Parameters
        ----------
        column : str
            Its name.

        Returns
        -------
        number : int64 (N,)
            Number of each slide's value in the list; -1 for none.
        values : list of str
            The distinct values in order.
        """
        return self._distinct(self.texts[TEXTS.index(column)])

    def metadata_values(self, name: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return a field of metadata as `values` returns a column."""
        codes = np.full(len(self), -1, np.int32)
        with _damage_told(self.path):
            fields = np.flatnonzero(self.metadata[:, 0] == self._code(name))
            codes[self._slides_of(fields)] = self.metadata[fields, 1]
        return self._distinct(codes)

    def metadata_names(self) -> list[str]:
        """Return the names of the fields of metadata that slides have."""
        return self._distinct(self.metadata[:, 0])[1]

    def _distinct(self, codes: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return the place of each code in the list of distinct texts, -1 for none, and these texts."""
        with _damage_told(self.path):
            place = np.full(len(self.string_ends) + 1, -1, np.int64)  # by code; the last is for -1
            place[codes] = 0
            distinct = np.flatnonzero(place[:-1] == 0)
            place[distinct], place[-1] = np.arange(len(distinct)), -1
            return place[codes], self._strings(distinct)

    def _strings(self, codes: npt.NDArray[np.int64]) -> list[str]:
        """Return the texts of some codes, all of them there; ten times as fast as one by one."""
        data, begins = memoryview(self.strings.data), np.concatenate([[0], self.string_ends[:-1]])
        ends = zip(begins[codes].tolist(), self.string_ends[codes].tolist(), strict=True)
        return [str(data[begin:end], *_ENCODING) for begin, end in ends]

    def _slides_of(self, fields: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the slide of each of some fields of metadata."""
        return np.searchsorted(self.metadata_ends, fields, "right")

    def _code(self, text: str) -> int:
        """Return the number of a text, -2 if no slide has it."""
        wanted, low, high = text.encode(*_ENCODING), 0, len(self.string_ends)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._string(middle) < wanted else (low, middle)
        return low if low < len(self.string_ends) and self._string(low) == wanted else -2

    @cached_property
    def id_order(self) -> npt.NDArray[np.int64]:
        """int64 (N,): the numbers of the slides in order of their ids."""
        return np.argsort(self.texts[0], kind="stable")

    @cached_property
    def sorted_ids(self) -> npt.NDArray[Any]:
        """The ids in order, as UTF-8, (N,)."""
        with _damage_told(self.path):
            texts = _split(self.strings, self.string_ends)
            ids = [texts[code] for code in self.texts[0, self.id_order].tolist()]
        return np.array(ids, object if self._has_odd_ids() else f"S{_WIDEST}" if not ids else None)

    def _has_odd_ids(self) -> bool:
        """Return whether numpy's texts do not fit: they are as wide as the longest, and lose last zeros."""
        ends = np.concatenate([[0], self.string_ends])
        last = ends[self.texts[0] + 1]
        lengths = last - ends[self.texts[0]]
        return bool((lengths > _WIDEST).any() or (self.strings[last[lengths > 0] - 1] == 0).any())

    def ids_and_paths(self) -> list[tuple[str, str]]:
        """Return the id and the path of each slide; much faster than whole rows."""
        with _damage_told(self.path):
            texts = [text.decode(*_ENCODING) for text in _split(self.strings, self.string_ends)]
            codes = self.texts[[TEXTS.index("slide_id"), TEXTS.index("path")]].T.tolist()
            return [(texts[slide_id], texts[path]) for slide_id, path in codes]

    def take(self, numbers: npt.NDArray[np.integer]) -> "SlideTable":
        """Return the table of some of the slides."""
        with _damage_told(self.path):
            fields_, lengths = places_of(self.metadata_ends, numbers)
            texts = _split(self.strings, self.string_ends)
            picked = self.texts[:, numbers], self.metadata[fields_]
            used = np.zeros(len(texts) + 1, bool)  # the last is for -1
            used[picked[0]] = used[picked[1]] = True
            kept = np.flatnonzero(used[:-1])
            new = np.full(len(texts) + 1, -1, np.int32)
            new[kept] = np.arange(len(kept), dtype=np.int32)
            return SlideTable(
                **_heap([texts[number] for number in kept.tolist()]),
                texts=new[picked[0]],
                sizes=self.sizes[:, numbers],
                lengths=self.lengths[:, numbers],
                patch_ends=_ends(self.n_patches[numbers]),
                metadata=new[picked[1]],
                metadata_ends=_ends(lengths),
                by_hash=_by_hash([texts[code] for code in self.texts[0, numbers].tolist()]),
            )

    def with_rows(self, rows: Mapping[int, SlideRow]) -> "SlideTable":
        """Return the table with other rows at some numbers."""
        order = np.arange(len(self))
        order[list(rows)] = len(self) + np.arange(len(rows))
        return joined([self, SlideTable.of(list(rows.values()))]).take(order)

    def problems(self) -> Iterator[str]:
        """Read all columns and yield what makes no sense in them."""
        ends = (self.string_ends, self.patch_ends, self.metadata_ends)
        sizes = (len(self.strings), None, len(self.metadata))
        for column, size in zip(ends, sizes, strict=True):
            if (np.diff(column, prepend=0) < 0).any() or (
                size is not None and column[-1:].tolist() != [size][: len(column)]
            ):
                yield "has columns that do not end where they must"
                return
        required = [TEXTS.index(name) for name in TEXTS if name not in _OPTIONAL]
        codes = (self.texts, self.texts[required], self.metadata)
        if any(
            (it < least).any() or (it >= len(self.string_ends)).any()
            for it, least in zip(codes, (-1, 0, 0), strict=True)
        ):
            yield "has numbers of texts that are not there"
            return
        if not (np.isfinite(self.lengths) & (self.lengths >= 0)).all() or (self.sizes < 0).any():
            yield "has sizes or scales that no slide has"
        try:
            strings = _split(self.strings, self.string_ends)
            for text in strings:
                text.decode(*_ENCODING)
        except UnicodeDecodeError:
            yield "has texts that are none"
            return
        by_hash = _by_hash([strings[code] for code in self.texts[0].tolist()])
        if strings != sorted(set(strings)) or (self.by_hash != by_hash).any():
            yield "has texts or hashes out of order"


COLUMNS: Mapping[str, np.dtype[Any]] = {
    "strings": np.dtype("u1"),
    **dict.fromkeys(("string_ends", "texts", "patch_ends", "metadata", "metadata_ends"), np.dtype("<i4")),
    "sizes": np.dtype("<i8"),
    "lengths": np.dtype("<f8"),
    "by_hash": np.dtype("<u8"),
}
"""The columns of a table and their dtypes in the file."""


def joined(tables: Sequence[SlideTable]) -> SlideTable:
    """Return one table of the slides of several, in their order.

    Parameters
    ----------
    tables : sequence of SlideTable
        Any number of tables.

    Returns
    -------
    SlideTable
        All slides, in memory.
    """
    if len(tables) == 1:
        return tables[0]
    with _damage_told(next((table.path for table in tables if table.path), None)):
        pools = [_split(table.strings, table.string_ends) for table in tables]
        texts = sorted(set(chain(*pools)))
        number = {text: place for place, text in enumerate(texts)}
        maps = [np.array([*(number[text] for text in pool), -1], np.int32) for pool in pools]

        def together(name: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(table, name) for table in tables], axis=-1)

        def renumbered(name: str, axis: int) -> npt.NDArray[Any]:
            parts = [new[getattr(table, name)] for table, new in zip(tables, maps, strict=True)]
            return np.concatenate(parts, axis=axis)

        firsts = np.cumsum([0, *map(len, tables)]).astype(np.uint64)
        hashes = [table.by_hash + first for table, first in zip(tables, firsts, strict=False)]
        return SlideTable(
            **_heap(texts),
            texts=renumbered("texts", 1),
            sizes=together("sizes"),
            lengths=together("lengths"),
            patch_ends=_ends(together("n_patches")),
            metadata=renumbered("metadata", 0),
            metadata_ends=_ends(
                np.concatenate([np.diff(table.metadata_ends, prepend=0) for table in tables])
            ),
            by_hash=np.sort(np.concatenate(hashes)),
        )


def places_of(
    ends: npt.NDArray[np.integer], numbers: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the places of some groups in a list that holds group after group.

    Parameters
    ----------
    ends : int (N,)
        Where each group ends.
    numbers : int (M,)
        The groups.

    Returns
    -------
    places : int64 (L,)
        The places of all members of these groups, group after group.
    lengths : int64 (M,)
        How many members each has.

    Examples
    --------
    >>> [it.tolist() for it in places_of(np.array([2, 3, 6]), np.array([2, 0]))]
    [[3, 4, 5, 0, 1], [3, 2]]
    """
    ends_ = np.concatenate([[0], ends])
    begins = ends_[numbers]
    lengths = ends_[np.asarray(numbers) + 1] - begins
    firsts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(begins - firsts, lengths), lengths


def _shapes(slides: int, texts: int, characters: int, fields_: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each column."""
    return {
        "strings": (characters,),
        "string_ends": (texts,),
        "texts": (len(TEXTS), slides),
        "sizes": (len(_SIZES), slides),
        "lengths": (len(_LENGTHS), slides),
        "metadata": (fields_, 2),
        **dict.fromkeys(("patch_ends", "metadata_ends", "by_hash"), (slides,)),
    }


def _heap(texts: Sequence[bytes]) -> dict[str, Any]:
    """Return the columns `strings` and `string_ends` of texts in order."""
    return {
        "strings": np.frombuffer(b"".join(texts), np.uint8),
        "string_ends": _ends([len(text) for text in texts]),
    }


def _by_hash(ids: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """Return the column `by_hash` of the ids of all slides."""
    return np.sort(np.array([_hash(text) << 32 | number for number, text in enumerate(ids)], np.uint64))


def _hash(text: bytes) -> int:
    """Return a hash of 32 bits, the same on every machine."""
    return crc32(text)


def _ends(lengths: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Return where each group ends that has one of these lengths."""
    ends = np.cumsum(np.asarray(lengths, np.int64))
    if len(ends) and ends[-1] >= 2**31:
        raise ParameterError("a segment holds fewer than 2**31 patches and bytes of text: add less at a time")
    return ends.astype(np.int32)


def _split(strings: npt.NDArray[np.uint8], ends: npt.NDArray[np.int32]) -> list[bytes]:
    """Return the texts of a heap."""
    data, places = strings.tobytes(), [0, *ends.tolist()]
    return [data[begin:end] for begin, end in pairwise(places)]
