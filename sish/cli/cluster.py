"""``sish index plan`` and ``status``: an archive that is encoded in shards on a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from sish.cli.options import (
    Command,
    add_encoder,
    add_failures,
    add_index,
    add_json,
    add_rerank,
    add_scale,
    add_sources,
    add_timeout,
    check_failures_option,
    given,
    show,
    tell_licence,
    write_failures_option,
)
from sish.errors import ParameterError
from sish.outputs import check_output, write_output
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error, print_line
from sish.slides.files import absolute
from sish.slides.reader_threads import SLIDE_TIMEOUT_S

if TYPE_CHECKING:
    from sish.cluster_plan import ClusterPlan, Resources
    from sish.slide_index import Index

_SCRIPTS = (".sh",)

# ---- plan


def _plan_options(parser: ArgumentParser) -> None:
    add_sources(parser)
    add_index(parser, "the archive's folder, into which the shards will be merged; made if it is not there")
    parser.add_argument("--shards", type=int, required=True, metavar="N", help="number of shards")
    parser.add_argument("--labels", type=str | None, help="labels of all slides, as of sish index add")
    add_scale(parser, "the slides")
    add_timeout(parser)
    add_encoder(parser)
    add_rerank(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument(
        "--slurm", action="store_true", help="write a script for SLURM; without it, commands are printed"
    )
    _resource_options(parser)


def _resource_options(parser: ArgumentParser) -> None:
    """Let a parser know what a task asks SLURM for."""
    parser.add_argument("--script", type=str | None, metavar="FILE.sh", help="write the script there")
    parser.add_argument("--time", type=str | None, help="time limit of a task, such as 8:00:00")
    parser.add_argument("--memory", type=str | None, help="memory of a task, such as 8G")
    parser.add_argument("--cpus", type=int | None, help="cores of a task")
    parser.add_argument(
        "--gpus", type=str | None, help="GPUs of a task, such as 1 or a100:1, for its encoder"
    )
    parser.add_argument("--partition", type=str | None, help="partition of the tasks")
    parser.add_argument(
        "--sbatch",
        type=str,
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="more options of sbatch, such as account=lab",
    )


def _plan(arguments: Namespace) -> int:
    from sish.cluster_plan import this_sish

    if bool(arguments.slides) == bool(arguments.features):
        raise ParameterError("got slides and features, or neither; want slides, or --features with a folder")
    plan = _plan_of(arguments)
    script = absolute(arguments.script or plan.script)
    if arguments.slurm:
        check_output(script, replaces=_SCRIPTS)
        text = plan.slurm_script(_resources(arguments), this_sish())
    index = _archive(arguments, plan)
    if len(index):
        raise ParameterError(
            f"{index.path} holds {counted(len(index), 'slide')}, and a merge makes a whole index: give a new "
            "folder, or add a few more slides with sish index add"
        )
    for folder in (plan.folder, plan.logs) if arguments.slurm else (plan.folder,):
        folder.mkdir(exist_ok=True)
    tell_licence(index)
    print_error(f"sish: {index.path} has encoder {index.fingerprint} for {counted(plan.shards, 'shard')}")
    if not arguments.slurm:
        print(plan.commands(this_sish()), end="")
        return 0
    write_output(script, os.fsencode(text), replaces=_SCRIPTS)
    print_line(f"wrote {script}: bash runs it where sbatch is")
    return 0


def _plan_of(arguments: Namespace) -> ClusterPlan:
    """Return the plan, with absolute paths."""
    from sish.archives import folder_of
    from sish.cluster_plan import ClusterPlan

    index = absolute(folder_of(arguments.index))
    sources = tuple(str(absolute(name)) for name in arguments.slides or arguments.features)
    options = {"like": str(index)} | {
        name.replace("_", "-"): str(value)
        for name, value in given(arguments, "mpp", "override_mpp", "feature_encoder").items()
        if value is not None
    }
    if arguments.labels is not None:
        options["labels"] = str(absolute(arguments.labels))
    if arguments.slide_timeout != SLIDE_TIMEOUT_S:
        options["slide-timeout"] = str(arguments.slide_timeout)
    device = "cuda" if arguments.gpus and arguments.device == "cpu" else arguments.device
    if device != "cpu":
        options["device"] = device
    if arguments.workers is not None:
        options["workers"] = str(arguments.workers)
    return ClusterPlan(sources, index, arguments.shards, options, are_features=bool(arguments.features))


def _resources(arguments: Namespace) -> Resources:
    from sish.cluster_plan import Resources

    return Resources(
        **given(arguments, "time", "memory", "cpus", "gpus", "partition"), options=tuple(arguments.sbatch)
    )


def _archive(arguments: Namespace, plan: ClusterPlan) -> Index:
    """Return the archive's index, which is empty and measured; it is made if it is not there."""
    from sish.cluster_plan import calibrate
    from sish.slide_index import Index, open_or_make

    scales = given(arguments, "mpp", "override_mpp")
    if plan.are_features:
        return open_or_make(
            lambda: Index.open(plan.index),
            lambda: Index.create_for_features(
                plan.index,
                plan.sources,
                feature_encoder=arguments.feature_encoder,
                **scales,
                rerank=arguments.rerank or "auto",
            ),
        )
    weights = arguments.weights
    if weights is not None and Path(weights).exists():
        weights = str(absolute(weights))  # tasks run in another folder
    index = Index.open_or_create(
        plan.index, weights=weights, **given(arguments, "device", "workers", "rerank")
    )
    calibrate(
        index,
        plan.sources,
        labels=arguments.labels,
        **scales,
        slide_timeout=arguments.slide_timeout,
        show_progress=not arguments.quiet,
    )
    return Index.open(plan.index)


PLAN = Command(
    "plan to encode slides in shards on a cluster, and merge them",
    "Make the index of an archive, measured and empty, and the commands that encode its slides in shards and "
    "merge them: as a script for SLURM, or to be run anywhere.",
    _plan_options,
    _plan,
)
"""The command ``sish index plan``."""

# ---- status


def _status_options(parser: ArgumentParser) -> None:
    parser.add_argument("shards", type=str, nargs="+", metavar="SHARD", help="folders of the shards")
    add_failures(parser)
    add_json(parser)


def _status(arguments: Namespace) -> int:
    from sish.cluster_status import ClusterStatus

    check_failures_option(arguments)
    status = ClusterStatus.read(arguments.shards)
    show(arguments, status.to_dict(), status.lines())
    write_failures_option(arguments, status.failed)
    return 0


STATUS = Command(
    "progress of shards that are being encoded",
    "Tell how far shards are: slides done, failed and left, slides an hour, and when they end.",
    _status_options,
    _status,
)
"""The command ``sish index status``."""
