"""Measure what an archive costs that is encoded in shards, and simulate it on 1 to 1,000 workers.

First the costs are measured on some slides, on one core: seconds of a slide, of a start, of a commit, of the
listing of a slide and of its merge. Then two processes encode the same slides in two shards. One of them is
killed on its way and started again. The seconds that they used are compared with those of the model, so it
is checked in the run that feeds it. With ``--simulate``, the model encodes an archive of 100,000 slides.

``hours`` are from the first task to the merged index. ``wasted`` is the share of the workers' hours that was
starting, listing, work that crashes undid, or slides that fail. ``busy`` is the share of all workers' hours,
until the last shard is done, that was work on slides. With several shards a worker, the others take shards
that a slow one would have had.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster_model import Costs, Outcome, Trouble, simulate
from benchmarks.cluster_run import Check, checks, measure, planned
from sish.demo.synthetic import write_slides
from sish.outputs import write_output
from sish.printing import print_line

WORKERS = (1, 10, 100, 1000)
SHARDS_A_WORKER = (1, 4, 16)
_BACH_MPP = 0.42
_QUICK, _FULL = 12, 40  # slides
_COPIES = {True: 200, False: 2000}  # slides of the merge, by --quick


def slides_of(data: Path, folder: Path, count: int) -> tuple[Path, float | None]:
    """Return a folder of slides, and their scale: a real slide and fields of bach, else painted slides."""
    fields, slide = data / "bach" / "fields", data / "slides" / "cmu-1-small-region.svs"
    slides = folder / "slides"
    if not fields.is_dir() or not slide.is_file():
        print_line(f"no bach and no slides in {data}: painted slides instead")
        write_slides(slides, n_slides=count, seed=0)
        return slides, None
    slides.mkdir()
    for path in [slide, *sorted(fields.glob("*.jpg"))[: count - 1]]:
        (slides / path.name).symlink_to(path)
    return slides, _BACH_MPP


def scaled(costs: Costs, seconds: float | None) -> Costs:
    """Return the costs with slides that take so many seconds in the mean, spread as the measured ones are."""
    if seconds is None:
        return costs
    factor = seconds / float(np.mean(costs.slide_s))
    return replace(costs, slide_s=tuple(factor * it for it in costs.slide_s))


def simulated(
    costs: Costs, trouble: Trouble, slides: int, workers: Sequence[int], seed: int
) -> list[Outcome]:
    """Simulate an archive on so many workers, each with one shard or several."""
    return [
        simulate(costs, trouble, slides=slides, workers=each, shards=each * shards, seed=seed)
        for each in workers
        for shards in SHARDS_A_WORKER
    ]


def tell_costs(costs: Costs) -> None:
    """Print what was measured."""
    seconds = np.array(costs.slide_s)
    print_line(
        f"{len(seconds)} slides: {seconds.mean():.2f} s each (median {np.median(seconds):.2f}, "
        f"longest {seconds.max():.2f}) on one core"
    )
    print_line(
        f"start {costs.start_s:.2f} s, commit {1e3 * costs.commit_s:.1f} ms, listing "
        f"{1e3 * costs.listed_s:.3f} ms a slide, merge {1e3 * costs.merge_s:.2f} ms a slide"
    )


def tell_checks(found: Sequence[Check], seconds: float) -> None:
    """Print how the model compares with two processes."""
    for check in found:
        killed = (
            ""
            if check.kept is None
            else f"; when killed it had kept {check.kept}, model {check.modelled_kept}"
        )
        print_line(
            f"shard {check.shard}, {check.slides} slides: {check.seconds:.1f} s of its core, model "
            f"{check.modelled:.1f}, ratio {check.ratio:.2f}{killed}"
        )
    ratio = sum(check.seconds for check in found) / sum(check.modelled for check in found)
    print_line(f"both: ratio {ratio:.2f}; {seconds:.1f} s by the clock until they were merged")


def tell_outcomes(outcomes: Sequence[Outcome], mean_s: float) -> None:
    """Print a table of simulated archives."""
    print_line(f"{outcomes[0].slides} slides of {mean_s:.1f} s in the mean, simulated:")
    print_line(f"{'workers':>8}{'shards':>8}{'hours':>9}{'merge h':>9}{'crashes':>9}{'wasted':>8}{'busy':>7}")
    for it in outcomes:
        print_line(
            f"{it.workers:>8}{it.shards:>8}{it.hours:>9.2f}{it.merge_hours:>9.2f}{it.crashes:>9}"
            f"{it.wasted:>8.3f}{it.efficiency:>7.2f}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, compare, simulate, and print the tables."""
    arguments = _parser().parse_args(argv)
    trouble = Trouble(
        arguments.crashes, arguments.wait, arguments.slow, arguments.slow_factor, arguments.failing
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slides, mpp = slides_of(arguments.data, folder, _QUICK if arguments.quick else _FULL)
        index = planned(slides, folder / "archive.sish", mpp)
        costs = measure(slides, index, mpp, _COPIES[arguments.quick], folder)
        tell_costs(costs)
        found, seconds = checks(slides, index, mpp, costs, folder)
        tell_checks(found, seconds)
    told: dict[str, Any] = {
        "costs": asdict(costs),
        "trouble": asdict(trouble),
        "checks": [asdict(it) for it in found],
    }
    told["simulated"] = []
    for mean_s in (arguments.seconds or [None]) if arguments.simulate else []:
        used = scaled(costs, mean_s)
        outcomes = simulated(used, trouble, arguments.slides, arguments.workers, arguments.seed)
        tell_outcomes(outcomes, float(np.mean(used.slide_s)))
        told["simulated"] += [
            {**asdict(it), "hours": it.hours, "wasted": it.wasted, "busy": it.efficiency} for it in outcomes
        ]
    if arguments.json is not None:
        write_output(arguments.json, json.dumps(told, indent=2).encode(), replaces=(".json",))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    usual = Trouble()
    beside = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SISH_DATA", beside)),
        help="folder with bach and slides; default $SISH_DATA. Without it, slides are painted",
    )
    parser.add_argument("--simulate", action="store_true", help="also simulate a large archive")
    parser.add_argument("--slides", type=int, default=100_000, help="its slides; default 100,000")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="numbers of its workers")
    parser.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        help="mean seconds of its slides; default as measured, of small ones",
    )
    parser.add_argument("--crashes", type=float, default=usual.crashes_an_hour, help="of a worker in an hour")
    parser.add_argument("--wait", type=float, default=usual.wait_s, help="seconds until it has a place again")
    parser.add_argument("--slow", type=float, default=usual.slow, help="share of slow workers")
    parser.add_argument(
        "--slow-factor", type=float, default=usual.slow_factor, help="by which they are slower"
    )
    parser.add_argument("--failing", type=float, default=usual.failing, help="share of slides that fail")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation")
    parser.add_argument("--quick", action="store_true", help="fewer slides")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
