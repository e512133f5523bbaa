"""Show the rows of `benchmarks.scaling` as a table and as a picture."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sish.outputs import write_output

RECALLS = (0.90, 0.95, 0.99)
_COLOURS = {
    "sish": "#c1272d", "sish-paper": "#f2a03d", "sish-exhaustive": "#7a7a7a", "faiss-ivf": "#0b5fa5",
    "faiss-hnsw": "#3aa6a0", "faiss-flat": "#b0b0b0", "usearch": "#6a51a3", "hnswlib": "#4d8c2b",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One index at one setting."""

    index: str
    """Its name."""
    params: str
    """How it was built, and its setting."""
    n: int
    """Patches in the archive."""
    threads: int
    """Threads that answer."""
    recall_at_10: float
    """Share of the first ten results that are no farther than the true tenth neighbour."""
    query_us_median: float
    """Microseconds of a query, median."""
    query_us_p95: float
    """Microseconds of a query, 95th percentile over the calls."""
    build_s: float
    """Seconds to build it."""
    bytes_per_patch: float
    """Bytes that it keeps, the barcodes included."""
    queries: str
    """``near`` or ``unseen``."""
    n_queries: int
    """How many were timed."""
    built: str
    """How it was built, without the setting."""
    setting: int
    """The setting alone."""
    batch: int = 1
    """Queries that are given at once."""


def time_at(rows: Iterable[Row], recall: float) -> float | None:
    """Interpolate the median time of one sweep at a recall; None if it does not reach it."""
    return _read_at([(row.setting, row.recall_at_10, row.query_us_median) for row in rows], recall)


def setting_at(rows: Iterable[Row], recall: float) -> float | None:
    """Interpolate the setting of one sweep at a recall; None if it does not reach it."""
    return _read_at([(row.setting, row.recall_at_10, float(row.setting)) for row in rows], recall)


def _read_at(sweep: Iterable[tuple[int, float, float]], recall: float) -> float | None:
    """Interpolate the value at a recall in a sweep of (setting, recall, value)."""
    below: tuple[float, float] | None = None
    for _, reached, value in sorted(sweep):
        if reached >= recall:
            if below is None or reached == below[0]:
                return value
            return below[1] + (recall - below[0]) / (reached - below[0]) * (value - below[1])
        below = reached, value
    return None


def best_time(rows: Sequence[Row], index: str, recall: float) -> tuple[float, str] | None:
    """Return the shortest time of an index at a recall and how it was built; None if none reaches it."""
    found = []
    for built in sorted({row.built for row in rows if row.index == index}):
        time = time_at([row for row in rows if row.index == index and row.built == built], recall)
        if time is not None:
            found.append((time, built))
    return min(found) if found else None


def summary(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """Return all tables and notes as text."""
    parts = ["Kernels in memory, k = 10; benchmarks.archive measures the calls that a user makes."]
    for n in sorted({row.n for row in rows}):
        for queries in ("near", "unseen"):
            own = [row for row in rows if row.n == n and row.queries == queries]
            for batch, threads in sorted({(row.batch, row.threads) for row in own}):
                alike = [row for row in own if (row.batch, row.threads) == (batch, threads)]
                way = "one at a time" if batch == 1 else f"{batch} at once"
                way += " on one thread" if threads == 1 else f" on {threads} threads"
                parts.append(_table(alike, f"{n:,} patches, {queries} queries, {way}"))
    return "\n\n".join([*parts, *_flatness(_one_at_a_time(rows)), "\n".join(notes)])


def _one_at_a_time(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if (row.batch, row.threads) == (1, 1)]


def _table(rows: Sequence[Row], heading: str) -> str:
    lines = [
        f"{heading}: microseconds at recall (median)",
        f"{'index':16} {'built as':30}"
        + "".join(f"{recall:>9.2f}" for recall in RECALLS)
        + "   best recall   build s   bytes/patch",
    ]
    for index in _COLOURS:
        for built in sorted({row.built for row in rows if row.index == index}):
            lines.append(_line(index, built, [r for r in rows if r.index == index and r.built == built]))
    lines.append(_ratios(rows))
    return "\n".join(lines)


def _line(index: str, built: str, sweep: Sequence[Row]) -> str:
    times = [time_at(sweep, recall) for recall in RECALLS]
    cells = "".join(f"{'-' if time is None else f'{time:.1f}':>9}" for time in times)
    best = max(sweep, key=lambda row: row.recall_at_10)
    reached = f"{best.recall_at_10:.3f} at {best.query_us_median:.0f} us"
    kept = f"{sweep[0].build_s:9.1f} {sweep[0].bytes_per_patch:9.1f}"
    return f"{index:16} {built:30}{cells}   {reached:>19} {kept}"


def _ratios(rows: Sequence[Row]) -> str:
    """Return our time divided by that of the best other index, at each recall."""
    parts = []
    for recall in RECALLS:
        ours = best_time(rows, "sish", recall)
        theirs = [
            (*best, index)
            for index in _COLOURS
            if not index.startswith("sish") and (best := best_time(rows, index, recall)) is not None
        ]
        if ours and theirs:
            time, built, index = min(theirs)
            parts.append(f"{recall:.2f}: {ours[0] / time:.2f} of {index} {built}")
    return "sish against the best other   " + "; ".join([*parts, *_build_ratio(rows)])


def _build_ratio(rows: Sequence[Row]) -> list[str]:
    """Return how much faster ours is built than the fastest of IVF and HNSW."""
    ours = [row.build_s for row in rows if row.index == "sish"]
    theirs = [row.build_s for row in rows if row.index in ("faiss-ivf", "faiss-hnsw", "usearch", "hnswlib")]
    return [f"built in 1/{min(theirs) / min(ours):.1f} of the time"] if ours and theirs else []


def _flatness(rows: Sequence[Row]) -> list[str]:
    """Return, for each size, time and budget at recall 0.95, and recall at fixed budgets."""
    sizes = sorted({row.n for row in rows})
    if len(sizes) < 2:
        return []
    lines = [f"{'microseconds at recall 0.95':29} " + "".join(f"{n:>12,}" for n in sizes)]
    for queries in ("near", "unseen"):
        own = [row for row in rows if row.queries == queries]
        for index in _COLOURS:
            best = [best_time([row for row in own if row.n == n], index, 0.95) for n in sizes]
            if any(best):
                lines.append(f"{queries:8} {index:20} " + _cells([one and one[0] for one in best], ".1f"))
    ours = [row for row in rows if row.index == "sish"]
    lines.append("budget of sish at recall 0.95: a query is compared with so many patches at least")
    for queries in ("near", "unseen"):
        sweeps = [[row for row in ours if (row.queries, row.n) == (queries, n)] for n in sizes]
        lines.append(f"{queries:29} " + _cells([setting_at(sweep, 0.95) for sweep in sweeps], ".0f"))
    lines.append("recall of sish at a fixed budget")
    for queries in ("near", "unseen"):
        for budget in (1000, 2000, 4000):
            recalls = {r.n: r.recall_at_10 for r in ours if (r.queries, r.setting) == (queries, budget)}
            lines.append(f"{queries:8} budget {budget:<13} " + _cells([recalls.get(n) for n in sizes], ".3f"))
    return ["\n".join(lines)]


def _cells(values: Iterable[float | None], form: str) -> str:
    return "".join(f"{'-' if value is None else format(value, form):>12}" for value in values)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw time against recall at the largest size that all indexes have, and time against size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = sorted({row.n for row in rows})
    shared = max(n for n in sizes if n <= 1_000_000)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    near = [row for row in _one_at_a_time(rows) if row.queries == "near"]
    _recall_panel(left, [row for row in near if row.n == shared], shared)
    _size_panel(right, near, sizes)
    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix.removeprefix(".") or "png", dpi=130)
    write_output(path, stream.getvalue(), replaces=(path.suffix.lower(),))
    pyplot.close(figure)


_PERFECT = 0.9995  # where recall 1 is drawn
_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999)


def _recall_panel(axes: Any, rows: Sequence[Row], n: int) -> None:
    """Draw time against 1 - recall on a log scale, so that 0.95 and 0.99 stand apart."""
    for index, colour in _COLOURS.items():
        front = _front([row for row in rows if row.index == index])
        if front:
            times = [row.query_us_median for row in front]
            missing = [1 - min(row.recall_at_10, _PERFECT) for row in front]
            style = "o-" if len(front) > 1 else "D"
            axes.plot(missing, times, style, color=colour, label=index, markersize=4, linewidth=1.6)
    axes.set(
        xscale="log", yscale="log", xlim=(1.1, 0.9 * (1 - _PERFECT)), xlabel="recall@10 (by distance)",
        ylabel="microseconds a query, one thread", title=f"{n:,} patches: time against recall",
    )  # fmt: skip
    axes.set_xticks([1 - tick for tick in _TICKS], [f"{tick:g}" for tick in _TICKS])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _front(rows: Sequence[Row]) -> list[Row]:
    """Return the settings of an index that none of its other settings beats in both time and recall."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (-row.recall_at_10, row.query_us_median)):
        if not front or row.query_us_median < front[-1].query_us_median:
            front.append(row)
    return front[::-1]


def _size_panel(axes: Any, rows: Sequence[Row], sizes: Sequence[int]) -> None:
    for index, colour in _COLOURS.items():
        points = []
        for n in sizes:
            own = [row for row in rows if row.n == n]
            best = best_time(own, index, 0.95)
            if best is None and index == "sish-paper":
                fixed = [row.query_us_median for row in own if row.index == index]
                best = (float(np.median(fixed)), "") if fixed else None
            if best is not None:
                points.append((n, best[0]))
        if points:
            label = f"{index} (its own recall)" if index == "sish-paper" else index
            axes.plot(
                *zip(*points, strict=True), "o-", color=colour, label=label, markersize=4, linewidth=1.6
            )
            if index == "sish-paper":
                _mark_recalls(axes, [row for row in rows if row.index == index], points)
    axes.set(
        xscale="log", yscale="log", xlabel="patches in the archive",
        ylabel="microseconds a query, one thread", title="Time at recall 0.95 against size",
    )  # fmt: skip
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)


def _mark_recalls(axes: Any, rows: Sequence[Row], points: Sequence[tuple[int, float]]) -> None:
    for n, time in points:
        recall = next(row.recall_at_10 for row in rows if row.n == n)
        axes.annotate(
            f"{recall:.2f}", (n, time), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=7
        )
