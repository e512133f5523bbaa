"""Measure ``sish serve`` as its users meet it: a server in a process of its own, asked over HTTP.

- cached tiles: 8 clients ask for the same tiles again and again
- uncached tiles: 8 clients ask for tiles of a pyramidal slide that nobody asked for before
- first view: the facts on a slide that was never opened and the tiles that a window of 1,280 x 800 px shows
- search of a box: beside `Index.search` of the same box in this process, by turns, both warm; and the first
  one after the start of the server, which loads the encoder
- memory: resident bytes of the server over tiles of many slides

Clients share the two cores with the server. Times are by the clock, since a user waits for that.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve_clients import CLIENTS, Client, Rate, ask_all
from benchmarks.serve_data import tissue, write_slide
from sish.outputs import write_output
from sish.serve.deep_zoom import DeepZoom
from sish.slide_index import Index

WINDOW_PX = (1280, 800)
"""The window whose tiles are the first view of a slide."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    slides: int
    """Slides of the index."""
    large_px: int
    """Side of the slide whose tiles are read uncached."""
    small_px: int
    """Side of the others."""
    cached: int
    """Requests for cached tiles."""
    uncached: int
    """Requests for tiles that are not cached."""
    tiles: int
    """Tiles of all slides over which memory is looked at."""
    boxes: int
    """Boxes that are searched for."""


FULL = Sizes(50, 12_000, 4_096, 8_000, 2_000, 10_000, 30)
QUICK = Sizes(4, 3_000, 2_048, 400, 100, 200, 4)


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured."""

    tissue: str
    """Where the pixels are from."""
    cached: Rate
    """Tiles from the cache."""
    uncached: Rate
    """Tiles from the file."""
    first_view_ms: tuple[float, float]
    """Median and largest time of a first view, milliseconds."""
    cold_ms: tuple[float, float]
    """Time from the command to its address, and of the first search of a box after it, milliseconds."""
    search_ms: tuple[float, float]
    """Median time of a search of a box over HTTP, and by `Index.search`."""
    search_ratio: tuple[float, float, float]
    """Median, 5th and 95th percentile of the ratio of the two, box by box."""
    same_answers: int
    """Boxes with the same answer both ways."""
    boxes: int
    """Boxes searched for."""
    memory_mb: tuple[float, float, float]
    """Resident memory of the server: idle, half way through the tiles, after all of them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    beside = Path(__file__).parents[2] / "shared" / "data"
    default = os.environ.get("SISH_DATA", beside)
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with real slides")
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args(argv)
    sizes = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), sizes, arguments.data if arguments.data.is_dir() else None)
    print("\n".join(lines_of(found)))
    if arguments.json is not None:
        write_output(arguments.json, json.dumps(asdict(found), indent=2).encode(), replaces=(".json",))
    return 0


def measure(folder: Path, sizes: Sizes, data: Path | None) -> Found:
    """Write slides, index them, serve them, and measure."""
    pixels, source = tissue(data)
    slides = folder / "slides"
    slides.mkdir()
    for number in range(sizes.slides):
        side = sizes.large_px if number == 0 else sizes.small_px
        write_slide(slides / f"slide-{number:03}.tif", pixels, side, 97 * number)
    index = Index.create(folder / "a.sish")
    index.add(slides, show_progress=False)
    start = time.perf_counter()
    with serving(Path(str(index.path))) as (address, pid):
        started = 1e3 * (time.perf_counter() - start)
        idle = resident_mb(pid)
        first = first_views(address, sizes)
        uncached = ask_all(address, large_tiles(sizes)[: sizes.uncached])
        hot = large_tiles(sizes)[: min(200, sizes.uncached)]
        ask_all(address, hot)
        cached = ask_all(address, [hot[number % len(hot)] for number in range(sizes.cached)])
        cold, ours, theirs, same = searches(address, index, sizes)
        tiles = all_tiles(sizes)
        ask_all(address, tiles[: sizes.tiles // 2])
        half = resident_mb(pid)
        ask_all(address, tiles[sizes.tiles // 2 : sizes.tiles])
        memory = (idle, half, resident_mb(pid))
    ratios = np.divide(ours, theirs)
    return Found(
        source,
        cached,
        uncached,
        (statistics.median(first), max(first)),
        (started, cold),
        (statistics.median(ours), statistics.median(theirs)),
        tuple(np.percentile(ratios, (50, 5, 95)).tolist()),
        same,
        len(ours),
        memory,
    )


@contextmanager
def serving(index: Path) -> Iterator[tuple[str, int]]:
    """Serve an index by ``sish serve``; yield its address and the number of its process."""
    command = [sys.executable, "-m", "sish", "serve", "--index", str(index), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"the server did not start: exit code {server.wait()}")
            yield address, server.pid
        finally:
            server.terminate()


def first_views(address: str, sizes: Sizes) -> list[float]:
    """Return the times, in milliseconds, of the first view of each slide but the large one."""
    client, times = Client(address), []
    client.get("/api/info")
    for number in range(1, sizes.slides):
        start = time.perf_counter()
        facts = json.loads(client.get(f"/api/slides/slide-{number:03}"))["dzi"]
        zoom = DeepZoom(facts["width"], facts["height"])
        shown = min(window / side for window, side in zip(WINDOW_PX, zoom.size(zoom.levels - 1), strict=True))
        level = next(n for n in range(zoom.levels) if zoom.step(n) <= 1 / min(1.0, shown))
        for path in tiles_of(f"slide-{number:03}", zoom, level):
            client.get(path)
        times.append(1e3 * (time.perf_counter() - start))
    client.close()
    return times


def tiles_of(slide_id: str, zoom: DeepZoom, level: int) -> list[str]:
    """Return the paths of all tiles of a level."""
    columns, rows = zoom.columns_and_rows(level)
    return [
        f"/api/slides/{slide_id}/tiles/{level}/{column}_{row}.jpg"
        for row in range(rows)
        for column in range(columns)
    ]


def large_tiles(sizes: Sizes) -> list[str]:
    """Return tiles of the large slide, of its three finest levels, in an order as people look: by level."""
    zoom = DeepZoom(sizes.large_px, sizes.large_px)
    return [path for back in (3, 2, 1) for path in tiles_of("slide-000", zoom, zoom.levels - back)]


def all_tiles(sizes: Sizes) -> list[str]:
    """Return tiles of all slides, slide by slide in turns, as many as are asked for."""
    zoom = DeepZoom(sizes.small_px, sizes.small_px)
    level = zoom.levels - 1
    each = -(-sizes.tiles // (sizes.slides - 1))
    paths = [tiles_of(f"slide-{number:03}", zoom, level)[:each] for number in range(1, sizes.slides)]
    return [path for turn in zip(*paths, strict=True) for path in turn]


def searches(address: str, index: Index, sizes: Sizes) -> tuple[float, list[float], list[float], int]:
    """Return the time of the first search, those of boxes over HTTP and here, and how often they agree."""
    rng = np.random.default_rng(0)
    side = round(4 * index.recipe.patch_px * index.recipe.mpp / 0.5)
    cold, ours, theirs, same = 0.0, [], [], 0
    for turn in range(sizes.boxes + 1):
        x, y = rng.integers(0, sizes.large_px - side, 2).tolist()
        body = json.dumps({"slide_id": "slide-000", "region": [x, y, side, side]}).encode()
        took: dict[str, float] = {}
        answers: dict[str, Any] = {}
        ways = (
            ("http", lambda: json.loads(posted(address, "/api/search", body))),  # noqa: B023  called at once
            ("here", lambda: index.search("slide-000", region=(x, y, side, side)).to_dict()),  # noqa: B023
        )
        for name, ask in ways if turn % 2 else ways[::-1]:
            start = time.perf_counter()
            answers[name] = ask()
            took[name] = 1e3 * (time.perf_counter() - start)
        if not turn:  # the server loads its encoder
            cold = took["http"]
        else:
            ours.append(took["http"])
            theirs.append(took["here"])
            same += answers["http"] == json.loads(json.dumps(answers["here"]))
    return cold, ours, theirs, same


def posted(address: str, path: str, body: bytes) -> bytes:
    """Return the answer to a POST over a connection of its own: a server ends those that are idle."""
    client = Client(address)
    try:
        return client.post(path, body)
    finally:
        client.close()


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def lines_of(found: Found) -> Iterator[str]:
    """Yield the figures, a line each."""
    yield f"slides of {found.tissue}; {CLIENTS} clients, one server process"
    for name, rate in (("cached", found.cached), ("uncached", found.uncached)):
        yield (
            f"{name} tiles: {rate.per_second:,.0f}/s over {rate.requests:,}, median {rate.median_ms:.1f} ms, "
            f"95 % within {rate.p95_ms:.1f} ms"
        )
    yield "first view: median {:.0f} ms, slowest {:.0f} ms".format(*found.first_view_ms)
    yield "cold: address after {:.0f} ms, first search of a box {:.0f} ms".format(*found.cold_ms)
    yield (
        "search of a box: {:.0f} ms over HTTP, {:.0f} ms by Index.search; ".format(*found.search_ms)
        + "ratio {:.2f} (5 to 95 %: {:.2f} to {:.2f}); ".format(*found.search_ratio)
        + f"same answer for {found.same_answers} of {found.boxes}"
    )
    yield "memory of the server: {:.0f} MB idle, {:.0f} MB half way, {:.0f} MB at the end".format(
        *found.memory_mb
    )


if __name__ == "__main__":
    raise SystemExit(main())
