"""One change of an archive in PostgreSQL, within a transaction that holds the archive."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError, StoreError
from sish.index.postgres.addresses import Address
from sish.index.postgres.connection import composed
from sish.index.postgres.foreign import Servers
from sish.index.postgres.patch_table import PatchTable, bounds_of, nth_of
from sish.index.postgres.records import Records
from sish.index.postgres.schema import GRANTS, ROW_BITS, SLIDE_BITS, SLIDE_COLUMNS
from sish.index.postgres.state import RemoteState, slide_values, tree_in
from sish.index.store.admission import check_ids, check_rows, check_widths
from sish.index.store.manifest import JSON, encode_json, is_deep
from sish.index.store.packed import pack
from sish.index.store.slide_row import SlideRow
from sish.index.store.snapshot import Snapshot, merge
from sish.index.texture.archive import Facts, learn_tree_of
from sish.index.texture.tree import TextureTree

if TYPE_CHECKING:
    from psycopg import Connection

_MOST_KEYS = 1 << 20  # a tree has fewer keys; those of the paper are larger, and are not counted
_TOGETHER = 1 << 20  # patches of new slides that are sorted and written together
_REKEYED = np.dtype(
    [("fields", ">i2")] + [(f"{part}{name}", ">i4") for name in ("key", "slide", "row") for part in ("l", "")]
)


class Writing:
    """A change.

    Parameters
    ----------
    address : Address
        The archive.
    connection : Connection
        Its transaction has locked the row of ``archive``.
    state : RemoteState
        The state before.
    servers : Servers
        Where its patches are.
    """

    def __init__(
        self, address: Address, connection: Connection[Any], state: RemoteState, servers: Servers
    ) -> None:
        """See the class."""
        self.state = state
        """The state before."""
        self._servers = servers
        self._address, self._connection = address, connection
        self._changes: dict[str, Any] = {}  # of the row of `archive`, by column
        self._rows_changed = False  # whether rows of slides changed that were there before
        self._slides = state.reader.slides
        self._counts = state.counts.astype(np.int64)

    def append(
        self,
        new: Sequence[Snapshot],
        *,
        replace: bool,
        partitions: int = 1,
        servers: Sequence[str] = (),
        tree: bytes | None = None,
    ) -> None:
        """Add slides, as `RemoteStore.append_many` does.

        Parameters
        ----------
        new, replace, partitions
            As of `RemoteStore.append_many`.
        servers : sequence of str
            Foreign servers that hold partitions besides the archive's own, in turn, if they are made now.
        tree : bytes, optional
            The tree that made their keys, for an archive without slides.
        """
        fresh = self.state.manifest.barcode_bytes is None
        if not fresh:
            self._check_servers(servers)
        if not new:
            return
        check_widths(new, self.state.manifest)
        self._check_ids(new, replace=replace)
        if tree is not None:
            self._changes["tree"] = tree
        table = self._made(new, partitions, servers) if fresh else self._patches()
        if not fresh:
            table.delete_from(self._slides)
        own = self._tree()
        for some in _batches(new):
            self._write(table, merge([_keyed(part, own) for part in some]))
        if fresh:
            table.finish()

    def digests(self) -> dict[str, bytes]:
        """Return the digest of the codes of each live slide, by its id (`digests_of`)."""
        ask = composed(self._address, "SELECT slide_id, codes_digest FROM {slide} WHERE NOT removed")
        return {name: bytes(digest) for name, digest in self._connection.execute(ask)}

    def grant(self, roles: Collection[str]) -> None:
        """Let roles read the archive, and its tables to come."""
        for role in roles:
            for statement in GRANTS:
                self._connection.execute(composed(self._address, statement, role=role))
        if roles:
            self._servers.grant(self._patches().parts, roles)

    def remove(self, slide_ids: Collection[str]) -> int:
        """Remove slides; return how many there were."""
        done = self._run(
            "UPDATE {slide} SET removed = true WHERE slide_id = ANY(%s) AND NOT removed", list(slide_ids)
        )
        if done:
            self._rows_changed = True
        return done

    def relabel(self, rows: Mapping[str, SlideRow]) -> None:
        """Replace the rows of slides.

        Parameters
        ----------
        rows : mapping of str to SlideRow
            The new rows by slide id.

        Raises
        ------
        UnknownSlideError
            If there is no such slide.
        ParameterError
            If a row is not of that slide.
        """
        names = ", ".join(f"{name} = %s" for name in SLIDE_COLUMNS)
        check_rows(self._address, rows, self.state.row)
        for slide_id, row in rows.items():
            self._run(f"UPDATE {{slide}} SET {names} WHERE slide_id = %s AND NOT removed",
                      *_plain(row), slide_id)  # fmt: skip
        self._rows_changed = True

    def tell(
        self, *, header: Mapping[str, JSON] | None = None, facts: Mapping[str, JSON | None] | None = None
    ) -> None:
        """Replace the header, and keep more facts; a fact of None is forgotten."""
        if header is not None:
            self._changes["header"] = _json(header, "the header")
        if facts:
            known = {**self.state.manifest.measured, **facts}
            kept = {name: fact for name, fact in known.items() if fact is not None}
            self._changes["measured"] = _json(kept, "what was measured")

    def learnt(self, seed: int) -> TextureTree:
        """Return the tree that is learnt from all live patches."""
        table = self._patches()
        barcodes = (
            records["barcode"]
            for records in table.stream(
                "SELECT p.barcode FROM {patch} p JOIN {slide} s ON s.number = p.slide "
                'WHERE p.slide < %s AND NOT s.removed ORDER BY p.key, p.slide, p."row"',
                ("barcode",),
                self._slides,
            )
        )
        width = self.state.manifest.barcode_bytes or 8
        return learn_tree_of(barcodes, self.state.n_patches, width, seed=seed)

    def renew(
        self, tree: TextureTree | None, *, partitions: int | None = None, facts: Facts | None = None
    ) -> None:
        """Write all live patches into a new table, with the keys of a new tree if one is given.

        Parameters
        ----------
        tree : TextureTree, optional
            The tree. Default: keys stay.
        partitions : int, optional
            Number of partitions of the new table. Default: as many as before.
        facts : callable, optional
            It returns the facts to keep, given the tree and its keys in order.
        """
        if self.state.manifest.barcode_bytes is None:
            return
        old = self._patches()
        new = replace(old, name=f"patch_{old.number + 1}")
        live = np.flatnonzero(~self._removed())
        keys = None if tree is None else [*self._rekeyed(old, tree)]
        together = (
            self._sorted_keys(old) if keys is None else np.sort(np.concatenate([it["key"] for it in keys]))
        )
        servers = [part.server for part in old.parts]
        new.create(bounds_of(together, partitions or len(servers)), servers)
        if tree is not None and facts is not None:
            self.tell(facts=facts(tree, together))  # before the old table is locked: it reads patches
        old.renew(new, live, None if keys is None else iter(keys))
        new.finish()
        self._renumber(live)
        n_keys = self._n_keys(together, tree)
        self._counts = (
            np.bincount(together.astype(np.int64), minlength=n_keys) if n_keys else np.zeros(0, np.int64)
        )
        self._slides = len(live)
        self._changes["patches"] = new.name
        self._rows_changed = True
        if tree is not None:
            self._changes["tree"] = pack(tree.to_arrays())

    def commit(self) -> None:
        """Write the row of the archive, if anything changed, and commit on the other servers."""
        if self._changes or self._rows_changed or self._slides > self.state.reader.slides:
            self._write_archive()
        self._servers.commit()

    def _write_archive(self) -> None:
        generation = self.state.generation + 1
        values = {
            **self._changes,
            "slides": self._slides,
            "counts": self._counts.astype("<i4").tobytes(),
            "generation": generation,
        }
        if self._rows_changed:
            values["rows_changed"] = generation
        names = ", ".join(f"{name} = %s" for name in values)
        self._run(f"UPDATE {{archive}} SET {names}", *values.values())

    def _made(self, new: Sequence[Snapshot], partitions: int, servers: Sequence[str]) -> PatchTable:
        """Make the table of patches for the first slides, and return it."""
        _, barcode_bytes, vector_bytes = new[0].widths
        table = replace(self._patches(), records=Records(barcode_bytes, vector_bytes))
        keys = np.sort(np.concatenate([part.keys[:, 0] for part in new]))
        table.create(bounds_of(keys, partitions), (None, *servers))
        self._changes |= {"barcode_bytes": barcode_bytes, "vector_bytes": vector_bytes}
        return table

    def _check_servers(self, wanted: Sequence[str]) -> None:
        """Refuse (ParameterError) servers that the archive does not use."""
        used = {part.server for part in self._patches().parts} - {None}
        if wanted and set(wanted) != used:
            others = ", ".join(sorted(map(str, used))) or "none"
            raise ParameterError(
                f"{self._address}: got servers {', '.join(wanted)}; its patches are on its own and these: "
                f"{others}; they are chosen with the first slides: leave them out, or give another archive"
            )

    def _patches(self) -> PatchTable:
        reader = self.state.reader
        return PatchTable(self._connection, self._address, reader.table, reader.records, self._servers)

    def _tree(self) -> TextureTree | None:
        """Return the tree of the archive, if it has one."""
        if "tree" in self._changes:
            return None  # it made the keys of these slides
        return tree_in(self.state)

    def _write(self, table: PatchTable, patches: Snapshot) -> None:
        """Write patches in key order, and their slides."""
        keys = patches.keys[:, 0].astype(np.int64)
        largest = int(keys[-1]) if len(keys) else 0
        counted = largest < _MOST_KEYS and (len(self._counts) > 0 or self._slides == 0)
        nth = np.zeros(len(keys), np.int64)
        if counted:
            grown = np.zeros(max(len(self._counts), largest + 1), np.int64)
            grown[: len(self._counts)] = self._counts
            nth = nth_of(keys, grown)
            self._counts = grown + np.bincount(keys, minlength=len(grown))
        else:
            self._counts = np.zeros(0, np.int64)
        table.copy(patches, self._slides, nth)
        self._write_slides(patches)
        self._slides += len(patches.slides)

    def _write_slides(self, patches: Snapshot) -> None:
        names = ", ".join(("number", *SLIDE_COLUMNS, "codes_digest"))
        statement = composed(self._address, f"COPY {{slide}} ({names}) FROM STDIN")
        digests = digests_of(patches)
        with self._connection.cursor().copy(statement) as copy:
            for number, (row, digest) in enumerate(zip(patches.slides, digests, strict=True), self._slides):
                copy.write_row([number, *_plain(row), digest])

    def _check_ids(self, new: Sequence[Snapshot], *, replace: bool) -> None:
        """Remove the slides that are replaced; SlideExistsError if an id is taken."""
        ids = [row.slide_id for part in new for row in part.slides]
        check_ids(self._address, ids, (lambda _: False) if replace else self.state.has)
        if self._slides + len(ids) > 1 << SLIDE_BITS or any(
            row.n_patches > 1 << ROW_BITS for part in new for row in part.slides
        ):
            raise StoreError(
                f"{self._address}: got more than {1 << SLIDE_BITS} slides, or {1 << ROW_BITS} patches of "
                "one; want another archive for them"
            )
        if replace:
            self.remove(ids)

    def _removed(self) -> NDArray[np.bool_]:
        parts = [segment.removed_mask for segment in self.state.segments]
        return np.concatenate([np.zeros(0, bool), *parts])

    def _rekeyed(self, table: PatchTable, tree: TextureTree) -> Iterator[NDArray[Any]]:
        """Yield the new key of each live patch, as records to be copied."""
        columns = ("slide", "row", "barcode")
        for records in table.stream(
            'SELECT p.slide, p."row", p.barcode FROM {patch} p JOIN {slide} s ON s.number = p.slide '
            "WHERE p.slide < %s AND NOT s.removed",
            columns,
            self._slides,
        ):
            out = np.zeros(len(records), _REKEYED)
            out["fields"], out["lkey"], out["lslide"], out["lrow"] = 3, 4, 4, 4
            out["key"] = tree.keys(np.ascontiguousarray(records["barcode"]))
            out["slide"], out["row"] = records["slide"], records["row"]
            yield out

    def _sorted_keys(self, table: PatchTable) -> NDArray[np.int64]:
        """Return the keys of all live patches, ascending."""
        parts = table.stream(
            "SELECT p.key FROM {patch} p JOIN {slide} s ON s.number = p.slide "
            "WHERE p.slide < %s AND NOT s.removed",
            ("key",),
            self._slides,
        )
        return np.sort(np.concatenate([records["key"] for records in parts]).astype(np.int64))

    def _n_keys(self, keys: NDArray[np.int64], tree: TextureTree | None) -> int:
        """Return how many keys are counted; 0 for those of the paper."""
        if tree is not None:
            return tree.n_keys
        return 0 if not len(self._counts) else max(len(self._counts), int(keys.max(initial=-1)) + 1)

    def _renumber(self, live: NDArray[np.integer]) -> None:
        """Delete removed slides, and number the others from 0 on."""
        self._run("DELETE FROM {slide} WHERE number <> ALL(%s)", live.tolist())
        self._run(
            "UPDATE {slide} s SET number = -n.place "
            "FROM unnest(%s::int[]) WITH ORDINALITY AS n(number, place) WHERE s.number = n.number",
            live.tolist(),
        )
        self._run("UPDATE {slide} SET number = -number - 1")

    def _run(self, statement: str, *values: object) -> int:
        """Run a statement on the archive; return the number of rows that it changed."""
        return self._connection.execute(composed(self._address, statement), values or None).rowcount


def digests_of(patches: Snapshot) -> Iterator[bytes]:
    """Yield a digest of the barcodes, places and vectors of each slide of a table, in the slide's order."""
    rows = patches.rows_of(np.arange(len(patches.slides)))
    for own in np.split(rows, np.cumsum(patches.slides.n_patches)[:-1]) if len(patches.slides) else ():
        digest = hashlib.blake2b(patches.barcodes[own].tobytes(), digest_size=16)
        digest.update(patches.l0_xy[own].astype("<i8").tobytes())
        if patches.vectors is not None:
            digest.update(patches.vectors[own].tobytes())
        yield digest.digest()


def _keyed(patches: Snapshot, tree: TextureTree | None) -> Snapshot:
    """Return the patches of a slide in the order of the tree's keys; as they are without a tree."""
    if tree is None:
        return patches
    keys = tree.keys(patches.barcodes)
    order = np.lexsort((patches.row, patches.slide, keys))
    arrays = {name: array[order] for name, array in patches.arrays.items()}
    return Snapshot(patches.slides, **{**arrays, "keys": keys[order][:, None]})


def _batches(new: Sequence[Snapshot]) -> Iterator[list[Snapshot]]:
    """Yield the slides in groups of about `_TOGETHER` patches."""
    group, patches = list[Snapshot](), 0
    for part in new:
        group.append(part)
        patches += len(part)
        if patches >= _TOGETHER:
            yield group
            group, patches = [], 0
    if group:
        yield group


def _plain(row: SlideRow) -> list[Any]:
    """Return the values of a slide's row; StoreError if PostgreSQL cannot keep a text of it."""
    values = slide_values(row)
    texts = [value for value in values if isinstance(value, str)]
    for text in texts:
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise StoreError(
                f"slide {row.slide_id!r}: got {text[:80]!r}, which PostgreSQL cannot keep; want text without "
                "NUL and without bytes that are no UTF-8: rename the file, or give another id",
                slide_id=row.slide_id,
            )
    return values


def _json(value: Mapping[str, Any], what: str) -> str:
    """Return a mapping as JSON; ParameterError if JSON cannot say it, or nothing could read it again."""
    if is_deep(dict(value)):
        raise ParameterError(f"{what} is nested too deep to be read again: give a flatter one")
    return encode_json(dict(value), what).decode("ascii")
