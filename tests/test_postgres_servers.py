"""The servers that other tests use: fresh databases, roles, and nothing that stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from postgres_servers import PASSWORD, PASSWORD_ROLE, psycopg

OTHER_TEST = """
import sys, time
sys.path.insert(0, sys.argv[1])
from postgres_servers import serving
with serving(sys.argv[2]) as server:
    print(server.folder, server.process.pid, flush=True)
    time.sleep(60)
"""


def ask(dsn: str, sql: str):
    """The first value of a statement's answer."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(sql).fetchone()[0]


def wait_until(condition) -> None:
    """Wait for a condition, for a minute at most."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_database_is_fresh_and_belongs_to_an_ordinary_role(database):
    with psycopg.connect(database.dsn) as connection:
        connection.execute("CREATE TABLE patch (key bigint)")
        assert connection.execute("SELECT current_setting('is_superuser')").fetchone() == ("off",)
    with database.server.database() as other:
        assert other.run("SELECT to_regclass('public.patch')") == [(None,)]


def test_the_reader_owns_nothing(database):
    database.run("CREATE TABLE patch (key bigint)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(database.dsn_of("reader"), "SELECT count(*) FROM patch")


def test_one_role_needs_its_password(database):
    assert ask(database.dsn_of(PASSWORD_ROLE, PASSWORD), "SELECT current_user") == PASSWORD_ROLE
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(database.dsn_of(PASSWORD_ROLE, "guess"), "SELECT 1")


def test_servers_differ_in_how_they_sort_text(database):
    """So that an order of slides cannot depend on the database's collation unnoticed."""
    by_code_points = database.run("SELECT 'a' > 'B'") == [(True,)]
    assert by_code_points == (database.server.name == "wheel")


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_data_survive_a_restart(database, end):
    database.run("CREATE TABLE patch AS SELECT 7 AS key")
    getattr(database.server, end)()
    with pytest.raises(psycopg.OperationalError):
        ask(database.dsn, "SELECT 1")
    database.server.start()
    assert database.run("SELECT key FROM patch") == [(7,)]


def test_a_full_disk_is_an_error_that_leaves_the_database_usable(database):
    database.run("CREATE TABLE patch (key bigint)")
    with database.full_disk("CREATE INDEX"), pytest.raises(psycopg.errors.DiskFull):
        database.run("CREATE INDEX by_key ON patch (key)")
    database.run("CREATE INDEX by_key ON patch (key)")


def test_a_server_reads_the_tables_of_another(two_databases):
    front, remote = two_databases
    with psycopg.connect(remote.dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA archive; CREATE TABLE archive.patch AS SELECT 7 AS key")
    with psycopg.connect(front.dsn) as connection:
        connection.execute("IMPORT FOREIGN SCHEMA archive FROM SERVER remote INTO public")
        assert connection.execute("SELECT key FROM patch").fetchall() == [(7,)]


def test_a_killed_test_leaves_neither_a_server_nor_its_data(postgres):
    command = [sys.executable, "-c", OTHER_TEST, str(Path(__file__).parent), postgres.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        folder, pid = other.stdout.readline().split()
        assert (Path(folder) / "data" / "postmaster.pid").exists()
        other.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(folder).exists() and not is_running(int(pid)))


def is_running(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
