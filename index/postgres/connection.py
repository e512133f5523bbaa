"""Connections to PostgreSQL: kept and shared among threads, and their errors in words."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sish.errors import (
    ArchiveRenewedError,
    IndexNotFoundError,
    MissingPackageError,
    ParameterError,
    SishError,
    StoreError,
)
from sish.index.postgres.addresses import WANTED, Address

if TYPE_CHECKING:
    from psycopg import Connection, Cursor
    from psycopg.sql import Composed

_LOG = logging.getLogger(__name__)

_T = TypeVar("_T")
_OPTIONS = "-c jit=off -c plan_cache_mode=force_custom_plan -c enable_partitionwise_aggregate=on"
"""Compiling a plan takes longer than most searches, a general plan does not know how many keys come, and
results are put together where the patches are."""
_PATCHES = re.compile(r"\.patch_\d")  # a table of patches, in an error of the server
_LOST = "08", "57P"  # SQLSTATE of connections that the server or the network ended
_DEFAULTS = {
    "connect_timeout": 10,
    "application_name": "sish",
    "keepalives_idle": 60,  # seconds
    "tcp_user_timeout": 30_000,  # milliseconds
}
"""Unless the address says otherwise. A firewall may cut an idle connection and tell nobody: without the last
two, the next search on it would wait for a quarter of an hour."""


class Database:
    """An archive's database; threads share its idle connections.

    Parameters
    ----------
    address : Address
        Where it is.
    """

    def __init__(self, address: Address) -> None:
        """See the class; nothing is connected yet."""
        self.address = address
        self._idle: list[Connection[Any]] = []
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        """Lend a connection, on which each statement is a transaction unless one is begun.

        Yields
        ------
        Connection
            It goes back when the context ends; after an error it is closed.

        Raises
        ------
        StoreError
            If the server cannot be reached, refuses, or fails.
        """
        with told(self.address):
            connection = self._take() or self._connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            with self._lock:
                self._idle.append(connection)

    def read(self, ask: Callable[[Connection[Any]], _T]) -> _T:
        """Return what a function reads; it is called again if the server was restarted since the last call.

        Parameters
        ----------
        ask : callable
            It gets a connection.

        Returns
        -------
        object
            What it returns.

        Raises
        ------
        StoreError
            As of `connection`.
        """
        try:
            with self.connection() as connection:
                return ask(connection)
        except ConnectionLostError as error:
            _LOG.warning("asking again: %s", error)
            self.close()
            with self.connection() as connection:
                return ask(connection)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Connection[Any] | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _connect(self) -> Connection[Any]:
        psycopg = needed()
        try:
            own = psycopg.conninfo.conninfo_to_dict(self.address.conninfo)
        except psycopg.ProgrammingError:  # its message may quote a part of a password
            raise ParameterError(
                f"got {str(self.address)!r}, which libpq cannot read; want {WANTED}, other characters than "
                "letters and digits as %XX, and options of libpq"
            ) from None
        _LOG.debug("connecting to %s", self.address)
        options = f"{_OPTIONS} {own.pop('options', '')}".strip()
        try:
            connection: Connection[Any] = psycopg.connect(
                **{**_DEFAULTS, **own}, options=options, autocommit=True, prepare_threshold=None
            )
        except psycopg.OperationalError as error:
            raise StoreError(
                f"{self.address}: cannot connect ({_on_one_line(error)}); check host, port, database, user "
                "and password"
            ) from error
        return connection


class ConnectionLostError(StoreError):
    """The server ended a connection."""


def needed() -> Any:
    """Return psycopg; MissingPackageError without it."""
    try:
        import psycopg
    except ImportError as error:
        raise MissingPackageError(
            f"an index in PostgreSQL needs psycopg, which cannot be imported ({error}): "
            "pip install 'psycopg[binary]'"
        ) from error
    return psycopg


@contextmanager
def told(address: Address | str) -> Iterator[None]:
    """Raise errors of PostgreSQL as errors of sish, on one line.

    Parameters
    ----------
    address : Address or str
        The archive, or what else is to be named.

    Yields
    ------
    None
        Nothing.
    """  # noqa: DOC501  _in_words() makes that error
    psycopg = needed()
    try:
        yield
    except psycopg.Error as error:
        raise _in_words(address, error, psycopg.errors) from error


def _in_words(address: Address | str, error: Any, errors: Any) -> SishError:
    """Return the error to raise for one of psycopg."""
    said = _on_one_line(error)
    if "remote SQL command" in (error.diag.context or ""):
        address = f"{address}: another server, which holds some of its patches"
        if isinstance(error, errors.UndefinedTable):
            return StoreError(
                f"{address}, has them no more ({said}): they were deleted, or a copy of this database (a "
                "promoted replica) made the keys anew; use that one"
            )
    if "user mapping not found" in said:
        return StoreError(
            f"{address}: got a role that other servers with some of the patches do not know ({said}); want "
            "CREATE USER MAPPING for it"
        )
    if said.startswith("could not connect to server"):
        return StoreError(f"{address}: one of the servers that hold its patches does not answer ({said})")
    if _PATCHES.search(said) and isinstance(error, errors.UndefinedTable):
        return ArchiveRenewedError(f"{address}: its keys were made anew while it was read: ask again")
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        return IndexNotFoundError(
            f"{address}: got a database without this archive; want one that sish index push has filled"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return StoreError(
            f"{address}: got a role without the right to do this ({said}); want its owner, or a "
            "role that the owner granted it to"
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return StoreError(f"{address}: got a read replica, or a read-only session; write to its primary")
    if isinstance(error, errors.DiskFull):
        return StoreError(
            f"{address}: the server's disk is full ({said}): nothing was changed; free some space, and repeat"
        )
    if isinstance(error, errors.OperationalError) and (error.sqlstate or "08").startswith(_LOST):
        return ConnectionLostError(
            f"{address}: the server ended the connection ({said}): what was not committed is gone; repeat it"
        )
    return StoreError(f"{address}: PostgreSQL says {error.sqlstate}: {said}")


def _on_one_line(error: Any) -> str:
    """Return what an error of psycopg says, without the statement that it is about."""
    return " ".join(re.split("\n(?:LINE|CONTEXT:) ", str(error))[0].split()) or type(error).__name__


def rows(cursor: Cursor[Any]) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    return cursor.fetchall()


def composed(address: Address, statement: str, *, role: str | None = None, **names: str) -> Composed:
    """Return a statement whose ``{names}`` are identifiers: ``{archive}``, ``{slide}``, or given ones.

    Parameters
    ----------
    address : Address
        The archive; its schema qualifies all names.
    statement : str
        SQL.
    role : str, optional
        A role of the server.
    **names : str
        Tables of the archive.

    Returns
    -------
    Composed
        The statement.
    """
    sql = needed().sql
    tables = {"archive": "archive", "slide": "slide", **names}
    known = {name: sql.Identifier(address.schema, table) for name, table in tables.items()}
    known |= {"schema": sql.Identifier(address.schema), "role": sql.Identifier(role or "")}
    composed: Composed = sql.SQL(statement).format(**known)
    return composed
