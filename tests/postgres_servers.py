"""PostgreSQL servers for tests, with roles and fresh databases; see `benchmarks.postgres_servers`."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
from benchmarks import postgres_servers as servers  # noqa: E402  # it needs psycopg

OWNER, PASSWORD_ROLE, PASSWORD = "owner", "locked", "open sesame"
ROLES = f"""
    CREATE ROLE {OWNER} LOGIN;
    CREATE ROLE reader LOGIN;
    CREATE ROLE stranger LOGIN;
    CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD '{PASSWORD}';
"""
WHO_MAY_COME_IN = f"""
host all {PASSWORD_ROLE} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""
SETTINGS = {"shared_buffers": "64MB", "max_connections": "60"}
NUMBERS = itertools.count(1)


class Server(servers.Server):
    """A server that knows the tests' roles."""

    def make_data(self) -> None:
        super().make_data()
        (self.folder / "data" / "pg_hba.conf").write_text(WHO_MAY_COME_IN)

    @contextmanager
    def database(self) -> Iterator["Database"]:
        """A fresh database that belongs to the role `owner`."""
        name = f"test_{next(NUMBERS)}"
        self.run(f"CREATE DATABASE {name} OWNER {OWNER}")
        try:
            yield Database(self, name)
        finally:
            if self.process is None or self.process.poll() is not None:
                self.start()
            self.run(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Database:
    """A database of one test."""

    server: Server
    name: str

    @property
    def dsn(self) -> str:
        """How its owner, an ordinary role, reaches it."""
        return self.dsn_of(OWNER)

    def dsn_of(self, user: str, password: str | None = None) -> str:
        """How a role reaches it: owner, reader, stranger, locked (`PASSWORD`) or postgres, the superuser."""
        return self.server.dsn(self.name, user, password)

    def run(self, statement: str) -> list[tuple]:
        """Return the rows of a statement that the superuser runs."""
        return self.server.run(statement, self.name)

    @contextmanager
    def full_disk(self, tag: str = "CREATE INDEX") -> Iterator[None]:
        """Commands of this tag fail as they do on a full disk (SQLSTATE 53100)."""
        self.run(f"""
            CREATE FUNCTION public.disk_is_full() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                RAISE 'could not extend file "base/5/16384": No space left on device'
                    USING ERRCODE = 'disk_full', HINT = 'Check free disk space.';
            END $$;
            CREATE EVENT TRIGGER full_disk ON ddl_command_end WHEN TAG IN ('{tag}')
                EXECUTE FUNCTION public.disk_is_full()""")
        try:
            yield
        finally:
            self.run("DROP EVENT TRIGGER full_disk; DROP FUNCTION public.disk_is_full()")


@contextmanager
def serving(name: str) -> Iterator[Server]:
    """A server with fresh data; without its programs the test is skipped, unless CI forbids that."""
    try:
        servers.programs_of(name)
    except servers.MissingServerError as error:
        say = pytest.fail if os.environ.get("SISH_TEST_EVERYTHING") else pytest.skip
        say(str(error))
    with servers.serving(name, SETTINGS, Server) as server:
        server.run(ROLES)
        yield server


def with_foreign_tables(front: Database, remote: Database) -> Database:
    """Let the owner of a database use the tables of another server, which it knows as `remote`."""
    front.run(f"""
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS (host '127.0.0.1', port '{remote.server.port}', dbname '{remote.name}',
                     async_capable 'true');
        GRANT USAGE ON FOREIGN SERVER remote TO {OWNER};
        CREATE USER MAPPING FOR {OWNER} SERVER remote OPTIONS (user '{OWNER}', password_required 'false')""")
    return front
