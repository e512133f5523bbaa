"""Draw the rows of `benchmarks.systems`: a panel for each data set, an interval for each system."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sish.outputs import write_output

_COLOURS = {
    "sish": "#c1272d", "yottixel": "#f2a03d", "slide similarity": "#3aa6a0", "smily": "#0b5fa5",
    "lesion measures": "#4d8c2b", "x-ray codes": "#6a51a3",
}  # fmt: skip
_PLAIN = "#8a8a8a"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a picture of mMV@5 (AvG@5 if images have several findings) with 95 % intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = list(dict.fromkeys((row["task"], row["dataset"]) for row in rows))
    groups = [[row for row in rows if (row["task"], row["dataset"]) == panel] for panel in panels]
    heights = [len(group) + 2 for group in groups]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9, 0.24 * sum(heights) + 0.6 * len(panels)),
        height_ratios=heights,
        squeeze=False,
    )
    for axis, (title, name), group in zip(axes[:, 0], panels, groups, strict=True):
        _panel(axis, f"{title}: {name}, {group[0]['n']} images, {group[0]['queries']} queries", group)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix.removeprefix(".") or "png", dpi=130)
    write_output(path, stream.getvalue(), replaces=(path.suffix.lower(),))
    plt.close(figure)


def _panel(axis: Any, title: str, group: Sequence[dict[str, Any]]) -> None:
    """Draw one data set, its systems from top to bottom as in the table."""
    figure = "avg5" if group[0]["mmv5"] is None else "mmv5"
    for row in group:
        if row["system"] == "random":  # a system is worth how far it lies to the right of chance
            axis.axvline(row[figure], color=_PLAIN, linewidth=0.8, linestyle=":")
    for place, row in enumerate(reversed(group)):
        low, high = row["ci"][figure]
        colour = _COLOURS.get(row["system"], _PLAIN)
        axis.plot([low, high], [place, place], color=colour, linewidth=2, alpha=0.5)
        axis.plot(row[figure], place, "o", color=colour, markersize=5)
    names = [_named(row, group[0]["queries"]) for row in reversed(group)]
    axis.set_yticks(range(len(group)), names, fontsize=7)
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_xlabel("AvG@5 (95 %)" if figure == "avg5" else "mMV@5 (95 %)", fontsize=7)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _named(row: dict[str, Any], queries: int) -> str:
    """Return a row's method, with its number of queries if that is not the panel's."""
    return row["method"] if row["queries"] == queries else f"{row['method']} ({row['queries']} queries)"
