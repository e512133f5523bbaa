"""Partitions of an archive's patches on other servers, which the archive's server reaches by postgres_fdw.

Whoever searches asks the archive's server alone, and that asks the others. A writer has a connection of its
own to each, because COPY there is many times as fast as through a foreign table; how to get there is told by
the foreign server's and the user mapping's options, so the client must reach the same hosts.

What an archive has on another server lies in a schema that is named after the archive and the database that
holds it (`Servers.schema`), so that nobody else's tables are there. The other servers commit first. A writer
that dies before its archive's server commits leaves patches there of slides that the archive does not have,
which the next writer deletes, or tables that it does not have, which are dropped when new ones are made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sish.errors import ParameterError, StoreError
from sish.index.postgres.addresses import Address
from sish.index.postgres.connection import composed, needed, told
from sish.index.postgres.schema import ELSEWHERE, GRANTS

if TYPE_CHECKING:
    from psycopg import Connection

_TIMEOUT_S = 10  # to connect, unless the foreign server says otherwise


@dataclass(frozen=True, slots=True)
class Part:
    """A partition of a table of patches."""

    name: str
    """Its name in the archive."""
    low: int | None
    """Its first key; None for the first partition."""
    server: str | None
    """The foreign server that holds its patches, None for the archive's own."""
    schema: str
    """The schema of its table there."""
    table: str
    """Its table there."""


def parts_of(connection: Connection[Any], address: Address, table: str) -> list[Part]:
    """Return the partitions of a table of patches in the order of their keys; none if there is no table."""
    found = connection.execute(_PARTS, [f'"{address.schema}"."{table}"'])
    return [
        Part(name, low, server, own.get("schema_name", address.schema), own.get("table_name", name))
        for name, low, server, own in ((*row[:3], _options(row[3])) for row in found)
    ]


_PARTS = r"""
SELECT c.relname, substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \(''?(-?\d+)')::bigint AS low,
       s.srvname, f.ftoptions
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
LEFT JOIN pg_foreign_table f ON f.ftrelid = c.oid LEFT JOIN pg_foreign_server s ON s.oid = f.ftserver
WHERE i.inhparent = to_regclass(%s)
ORDER BY low NULLS FIRST
"""


def places_of(connection: Connection[Any], address: Address, table: str) -> dict[str, str]:
    """Return where the partitions of a table of patches are, in words, by their names."""
    parts = parts_of(connection, address, table)
    own = address.name.rpartition(".")[0]
    found = {}
    for number, part in enumerate(parts):
        high = parts[number + 1].low if number + 1 < len(parts) else None
        first = "the first" if part.low is None else part.low
        last = "the last" if high is None else high - 1
        where = f"database {own}" if part.server is None else f"server {part.server}, schema {part.schema}"
        found[part.name] = f"{where}: keys {first} to {last}"
    return found


def servers_with(connection: Connection[Any], extension: str) -> set[str]:
    """Return the foreign servers that are said (option ``extensions``) to have an extension, as this has."""
    found = connection.execute("SELECT srvname, srvoptions FROM pg_foreign_server")
    named = ((name, _options(own).get("extensions", "").split(",")) for name, own in found)
    return {name for name, extensions in named if extension in map(str.strip, extensions)}


class Servers:
    """The servers of one change of an archive: its own, and those that hold partitions of it.

    Parameters
    ----------
    address : Address
        The archive.
    connection : Connection
        To its server; its transaction holds the archive.
    """

    def __init__(self, address: Address, connection: Connection[Any]) -> None:
        """See the class; the others are connected when they are needed."""
        self._address, self._own = address, connection
        self._others: dict[str, Connection[Any]] = {}
        self._made: set[str] = set()
        self._replaced: list[Part] = []
        self._stack = ExitStack()

    def __enter__(self) -> Servers:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what was replaced, if the archive's server has committed, and close the other connections."""
        try:
            if error is None:
                self._drop_replaced()
        finally:
            self._stack.close()

    @cached_property
    def schema(self) -> str:
        """The archive's schema on other servers: its own name, and a digest that tells its database."""
        row = self._own.execute(_IDENTITY).fetchone()
        assert row is not None
        text = f"{row[0]} {row[1]} {self._address.schema}"
        return f"{self._address.schema}_{blake2b(text.encode(), digest_size=5).hexdigest()}"

    @contextmanager
    def using(self, part: Part) -> Iterator[tuple[Connection[Any], Address]]:
        """Lend the connection to the server of a partition, and the place of its table there.

        Yields
        ------
        tuple of Connection and Address
            In a transaction; the address is there for its schema.

        Raises
        ------
        StoreError
            If the server cannot be reached or fails, or the table belongs to another database.
        """
        if part.server is None:
            yield self._own, self._address
            return
        if part.schema != self.schema:
            raise StoreError(
                f"{self._address}: partition {part.name} is in schema {part.schema} of server {part.server}, "
                f"and this database's own is {self.schema}: it is a copy of another database, or the "
                "partition was put there by hand; sish index compact gives it its own partitions"
            )
        with self._told(part.server):
            yield self._connection(part.server), self._elsewhere

    def make(self, name: str, server: str, bits: int) -> Part:
        """Make the table of a partition on another server, without indexes."""
        part = Part(name, None, server, self.schema, name)
        with self.using(part) as (connection, place):
            if server not in self._made:
                connection.execute(composed(place, "CREATE SCHEMA IF NOT EXISTS {schema}"))
                self._drop_orphans(server, connection)
                self._made.add(server)
            for statement in ELSEWHERE:
                query = needed().sql.SQL(statement).format(
                    patch=needed().sql.Identifier(place.schema, name), bits=needed().sql.Literal(bits)
                )  # fmt: skip
                connection.execute(query)
        return part

    def grant(self, parts: Sequence[Part], roles: Collection[str]) -> None:
        """Let roles of the same names read the archive's partitions on other servers, and those to come."""
        first = {part.server: part for part in parts if part.server is not None}
        for part in first.values():
            with self.using(part) as (connection, place):
                for role in roles:
                    for statement in GRANTS:
                        connection.execute(composed(place, statement, role=role))

    def replaced(self, parts: Sequence[Part]) -> None:
        """Take note of partitions that the archive will not have any more."""
        self._replaced += [part for part in parts if part.server is not None and part.schema == self.schema]

    def commit(self) -> None:
        """Commit on the other servers; nobody sees that before the archive's own commits."""
        for server, connection in self._others.items():
            with self._told(server):
                connection.commit()

    @property
    def _elsewhere(self) -> Address:
        return replace(self._address, schema=self.schema)

    def _connection(self, server: str) -> Connection[Any]:
        if server not in self._others:
            connection = needed().connect(**self._conninfo(server))
            self._others[server] = self._stack.enter_context(_closing(connection))
        return self._others[server]

    def _conninfo(self, server: str) -> dict[str, str]:
        """Return how a foreign server is reached, of the options that libpq knows."""
        row = self._own.execute(_MAPPING, [server]).fetchone()
        if row is None or row[1] is None:
            wanted = f"CREATE USER MAPPING FOR a role SERVER {server}" if row else f"CREATE SERVER {server}"
            what = f"server {server} without a user mapping for this role" if row else f"no server {server}"
            raise ParameterError(f"{self._address}: got {what}; want one of postgres_fdw: {wanted}")
        known = {option.keyword.decode() for option in needed().pq.Conninfo.get_defaults()}
        own = {**_options(row[0]), **_options(row[2])}
        options = {name: value for name, value in own.items() if name in known}
        return {"connect_timeout": str(_TIMEOUT_S), "application_name": "sish", **options}

    def _drop_orphans(self, server: str, connection: Connection[Any]) -> None:
        """Drop tables that a writer made there that died before the archive's server committed."""
        used = [_options(row[0]) for row in self._own.execute(_USED, [server])]
        names = [own["table_name"] for own in used if own.get("schema_name") == self.schema]
        for (name,) in connection.execute(_ORPHANS, [self.schema, names]).fetchall():
            connection.execute(composed(self._elsewhere, "DROP TABLE {patch}", patch=name))

    def _drop_replaced(self) -> None:
        """Drop tables that the archive has no more; if a server fails now they are dropped another time."""
        for part in self._replaced:
            with suppress(StoreError), self.using(part) as (connection, place):
                connection.execute(composed(place, "DROP TABLE {patch}", patch=part.table))
                connection.commit()

    @contextmanager
    def _told(self, server: str) -> Iterator[None]:
        with told(f"{self._address}: server {server}"):
            yield


_IDENTITY = """
SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d
WHERE d.datname = current_database()
"""
_MAPPING = """
SELECT s.srvoptions, m.srvid, m.umoptions
FROM pg_foreign_server s
JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'postgres_fdw'
LEFT JOIN pg_user_mappings m ON m.srvid = s.oid AND (m.usename = current_user OR m.umuser = 0)
WHERE s.srvname = %s
ORDER BY m.umuser DESC LIMIT 1
"""
_USED = """
SELECT f.ftoptions FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver
WHERE s.srvname = %s
"""
_ORPHANS = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind = 'r' AND c.relname <> ALL(%s)
"""


def _options(texts: Sequence[str] | None) -> dict[str, str]:
    """Return options as the catalogs keep them, ``name=value``, by their names."""
    return dict(text.split("=", 1) for text in texts or ())


@contextmanager
def _closing(connection: Connection[Any]) -> Iterator[Connection[Any]]:
    """Close a connection in the end; psycopg's own context would commit."""
    try:
        yield connection
    finally:
        connection.close()
