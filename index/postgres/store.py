"""An archive in PostgreSQL as a store: what `sish.index.store.Store` is for a folder.

Each method that writes is one transaction. It locks the row of ``archive`` first, so several writers wait for
each other, and a writer that is killed leaves the archive as it was. Readers never wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sish.errors import EncoderMismatchError, IndexExistsError, ParameterTypeError
from sish.index.postgres.addresses import Address
from sish.index.postgres.connection import Database, composed, needed
from sish.index.postgres.foreign import Servers, places_of
from sish.index.postgres.schema import CREATE, FIRST, FORMAT
from sish.index.postgres.state import RemoteState, read_state
from sish.index.postgres.writing import Writing
from sish.index.store.manifest import JSON, encode_json
from sish.index.store.slide_row import SlideRow
from sish.index.store.snapshot import Snapshot
from sish.index.store.store import StoreInfo
from sish.index.texture.archive import Facts
from sish.index.texture.tree import TextureTree

if TYPE_CHECKING:
    from psycopg import Connection


class RemoteStore:
    """An archive in PostgreSQL, open for reading, and for writing where the role may write.

    Parameters
    ----------
    address : Address
        The archive.
    state : RemoteState
        Its state.
    database : Database
        Its connections.
    """

    def __init__(self, address: Address, state: RemoteState, database: Database) -> None:
        """Use `create` or `open`."""
        self.path = address
        self._state, self._database = state, database
        self._lock = threading.RLock()

    @classmethod
    def create(cls, address: Address, header: Mapping[str, JSON]) -> RemoteStore:
        """Make an empty archive.

        Parameters
        ----------
        address : Address
            Where; the schema may be there if it is empty.
        header : mapping
            As of `Store.create`.

        Returns
        -------
        RemoteStore
            The archive.

        Raises
        ------
        IndexExistsError
            If there is an archive already.
        StoreError
            If it cannot be made.
        """
        database, text = Database(address), encode_json(dict(header), "the header").decode()
        with database.connection() as connection:
            try:
                with connection.transaction():
                    for statement in CREATE:
                        connection.execute(composed(address, statement))
                    connection.execute(composed(address, FIRST), [FORMAT, text])
            except (needed().errors.DuplicateTable, needed().errors.UniqueViolation):  # by another, just now
                raise IndexExistsError(
                    f"there is an archive at {address} already: open it, or give another archive=NAME"
                ) from None
        return cls.open(address)

    @classmethod
    def open(cls, address: Address) -> RemoteStore:
        """Open an archive; IndexNotFoundError if there is none, StoreError if it cannot be read."""
        database = Database(address)
        state = database.read(lambda connection: read_state(address, connection, database.read))
        return cls(address, state, database)

    def writer(self) -> RemoteStore:
        """Return the archive for writing: itself, as each change locks it for as long as it takes."""
        self.refresh()
        return self

    def close(self) -> None:
        """Close idle connections; others are made when they are needed."""
        self._database.close()

    def __enter__(self) -> RemoteStore:
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close idle connections."""
        self.close()

    def __len__(self) -> int:
        """Return the number of live slides."""
        return self._state.n_slides

    @property
    def header(self) -> Mapping[str, JSON]:
        """As of `Store`."""
        return self._state.header

    @property
    def state(self) -> RemoteState:
        """The state at hand."""
        return self._state

    def current(self) -> RemoteState:
        """Go on to the state that is committed now, and return it."""
        self.refresh()
        return self._state

    def refresh(self) -> bool:
        """Go on to the state that is committed now; return whether it is another one."""
        ask = composed(self.path, "SELECT id, generation FROM {archive}")

        def now(connection: Connection[Any]) -> RemoteState | None:
            row = connection.execute(ask).fetchone()
            if row is not None and (str(row[0]), row[1]) == (self._state.identity, self._state.generation):
                return None
            return read_state(self.path, connection, self._database.read, self._state)

        found = self._database.read(now)
        if found is not None:  # whoever changes the archive holds the lock, and readers go on meanwhile
            self._state = found
        return found is not None

    def info(self) -> StoreInfo:
        """Return counts of the state at hand; its bytes are those on the archive's own server."""
        state = self._state
        removed = sum(len(segment.removed) for segment in state.segments)
        sizes = composed(
            self.path,
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relkind = 'r'",
        )
        size = self._database.read(lambda it: next(iter(it.execute(sizes, [self.path.schema])))[0])
        return StoreInfo(
            generation=state.generation,
            format_version=FORMAT,
            slides=state.n_slides,
            patches=state.n_patches,
            removed_slides=removed,
            removed_patches=sum(segment.removed_patches for segment in state.segments),
            segments=1,
            damaged_segments=0,
            bytes=size,
            leftovers=0,
            leftover_bytes=0,
            measured=state.manifest.measured,
            partitions=self._database.read(lambda it: places_of(it, self.path, state.reader.table)),
        )

    def append_many(
        self,
        new: Sequence[Snapshot],
        *,
        replace: bool = False,
        header: Mapping[str, JSON] | None = None,
        partitions: int = 1,
    ) -> None:
        """Add several slides in one transaction; the keys of a texture tree are made anew by the archive's.

        Parameters
        ----------
        new, replace, header
            As of `Store.append_many`.
        partitions : int
            Number of partitions of the table of patches, if it is made now.

        Raises
        ------
        SlideExistsError
            If an id is taken and `replace` is off, or two of the slides have one id.
        ParameterError
            If shapes do not fit the archive, or the header is not JSON.
        EncoderMismatchError
            If the header is of another encoder or calibration, and slides are there.
        """
        with self.changing() as writing:
            if header is not None and len(writing.state.slides):
                self._check_measured(header, writing.state.header)
            writing.append(new, replace=replace, partitions=partitions)
            writing.tell(header=header)

    def _check_measured(self, header: Mapping[str, JSON], there: Mapping[str, JSON]) -> None:
        """Refuse (EncoderMismatchError) codes of another calibration than the slides that came first."""
        if header.get("fingerprint") != there.get("fingerprint"):
            raise EncoderMismatchError(
                f"{self.path}: another process has measured the encoder and added slides meanwhile; add "
                "again, and these slides get its calibration"
            )

    def remove(self, slide_ids: Collection[str]) -> int:
        """Remove slides; return how many there were. Their patches stay until `compact`."""
        if isinstance(slide_ids, str):
            raise ParameterTypeError(f"slide_ids is the string {slide_ids!r}, wanted a list of ids")
        with self.changing() as writing:
            return writing.remove(slide_ids)

    def relabel(self, rows: Mapping[str, SlideRow]) -> None:
        """Replace the rows of some slides, as `Store.relabel`."""
        if not rows:
            return
        with self.changing() as writing:
            writing.relabel(rows)

    def keep_measured(self, facts: Mapping[str, JSON]) -> None:
        """Keep facts that were measured on the patches, as `Store.keep_measured`."""
        with self.changing() as writing:
            writing.tell(facts=facts)

    def measure(self, facts: Callable[[RemoteState], Mapping[str, JSON]]) -> None:
        """As `Store.measure`; the state is the committed one, and other writers wait until it is measured."""
        with self.changing() as writing:
            writing.tell(facts=facts(writing.state))

    def replace_header(self, header: Mapping[str, JSON], facts: Mapping[str, JSON]) -> None:
        """Replace the header and keep facts, as `Store.replace_header`."""
        with self.changing() as writing:
            writing.tell(header=header, facts=facts)

    def compact(self) -> None:
        """Write the patches of all live slides into a new table, in key order, without what was removed."""
        with self.changing() as writing:
            writing.renew(None)

    def learn_keys(self, *, seed: int = 0, facts: Facts | None = None) -> TextureTree:
        """Learn a tree of all patches, and give them its keys, in a new table.

        Parameters
        ----------
        seed : int
            Seed of the tree.
        facts : callable, optional
            It returns the facts to keep, given the tree and the keys that it made, in order.

        Returns
        -------
        TextureTree
            The tree that an index on disk with these slides would learn.
        """
        with self.changing() as writing:
            tree = writing.learnt(seed)
            writing.renew(tree, facts=facts)
        return tree

    def _become_owner(self, connection: Connection[Any]) -> None:
        """Act as the archive's owner until the transaction ends, where the role may.

        Else a table that a superuser or a member of the owner makes would be closed to the owner and readers.
        """
        owner = connection.execute(
            "SELECT tableowner FROM pg_tables WHERE schemaname = %s AND tablename = 'archive' "
            "AND tableowner <> current_user AND pg_has_role(tableowner, 'MEMBER')",
            [self.path.schema],
        ).fetchone()
        if owner is not None:
            connection.execute(composed(self.path, "SET LOCAL ROLE {role}", role=owner[0]))

    @contextmanager
    def changing(self) -> Iterator[Writing]:
        """Begin a transaction that holds the archive; commit it when the context ends, unless by an error.

        Yields
        ------
        Writing
            What changes the archive.
        """
        with (
            self._lock,
            self._database.connection() as connection,
            Servers(self.path, connection) as servers,
        ):
            with connection.transaction():
                lock = composed(self.path, "SELECT generation FROM {archive} FOR UPDATE")
                connection.execute(lock)
                self._become_owner(connection)
                self._state = read_state(self.path, connection, self._database.read, self._state)
                writing = Writing(self.path, connection, self._state, servers)
                yield writing
                writing.commit()
                state = read_state(self.path, connection, self._database.read, self._state)
            self._state = state
