"""``sish index``: make, fill and keep an index of an archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from sish.cli.add import ADD
from sish.cli.cluster import PLAN, STATUS
from sish.cli.merge import MERGE
from sish.cli.options import (
    Command,
    add_device,
    add_dry_run,
    add_encoder,
    add_index,
    add_json,
    add_rerank,
    add_scale,
    add_search,
    add_timeout,
    given,
    given_search,
    held,
    is_index,
    open_index,
    show,
    tell_licence,
)
from sish.errors import ParameterError
from sish.nearest import nearest_to
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error, print_line, printable
from sish.recipe import Recipe

if TYPE_CHECKING:
    from sish.index.repair import RepairReport
    from sish.slide_index import Index

# ---- create


def _create_options(parser: ArgumentParser) -> None:
    add_index(parser, "the folder to make")
    parser.add_argument(
        "--measure",
        type=str,
        nargs="+",
        metavar="SLIDES",
        help="measure the encoder's features on these, and not on the slides of the first add",
    )
    parser.add_argument(
        "--like",
        type=str | None,
        metavar="INDEX",
        help="have the recipe, calibration and search parameters of this index: for shards of one archive",
    )
    add_scale(parser, "those")
    add_rerank(parser)
    parser.add_class_arguments(Recipe, "recipe")
    add_search(parser)
    add_device(parser)


def _create(arguments: Namespace) -> int:
    from sish.slide_index import Index

    recipe = Recipe(**arguments.recipe)
    if arguments.like is not None and recipe == Recipe():
        own: dict[str, Any] = {"like": arguments.like}
    else:
        own = {
            "recipe": replace(recipe, weights=Recipe().weights),
            "encoder": recipe.weights,
            "like": arguments.like,  # refused beside a recipe
        }
    index = Index.create(
        arguments.index,
        search=given_search(arguments),
        **own,
        **given(arguments, "measure", "mpp", "override_mpp", "device", "workers", "rerank"),
    )
    print_line(f"made {index.path} with encoder {index.fingerprint}")
    tell_licence(index)
    return 0


# ---- remove and label


def _remove_options(parser: ArgumentParser) -> None:
    parser.add_argument("slide_ids", type=str, nargs="+", help="ids as sish index list shows them")
    add_index(parser)
    add_dry_run(parser)


def _remove(arguments: Namespace) -> int:
    index = open_index(arguments)
    if arguments.dry_run:
        rows = index.plan_remove(arguments.slide_ids)
        for row in rows:
            print_line(f"would remove: {row.slide_id}: {counted(row.n_patches, 'patch', 'es')}")
        print_line(f"{len(rows)} to remove; nothing was written; {held(index)}")
        return 0
    print_line(f"removed {index.remove(arguments.slide_ids)}; {held(index)}")
    return 0


def _label_options(parser: ArgumentParser) -> None:
    parser.add_argument("labels", type=str, help="CSV with path or slide_id, and any of label, patient, site")
    add_index(parser)
    add_dry_run(parser)


def _label(arguments: Namespace) -> int:
    index = open_index(arguments)
    report = (index.plan_relabel if arguments.dry_run else index.relabel)(arguments.labels)
    for note in report.notes:
        print_error(f"sish: note: {note}")
    known = [row.slide_id for row in index.slides]
    for name in report.unknown:
        near = nearest_to(name, known)
        print_error(
            f"sish: skipped: {arguments.labels} names {name}, and the index holds no such slide{near}"
        )
    if arguments.dry_run:
        for slide_id in report.changed:
            print_line(f"would change: {slide_id}")
        print_line(f"{counted(len(report.changed), 'slide')} to relabel; nothing was written")
    else:
        print_line(f"relabelled {counted(len(report.changed), 'slide')}")
    return 1 if report.unknown else 0


# ---- list, info, verify, repair and compact


def _index_and_json(parser: ArgumentParser) -> None:
    add_index(parser)
    add_json(parser)


def _list(arguments: Namespace) -> int:
    index = open_index(arguments)
    rows = index.slides
    _tell_damage(index)
    if arguments.json:
        show(arguments, [asdict(row) for row in rows], [])
        return 0
    for row in rows:
        patches = counted(row.n_patches, "patch", "es")
        cells = (row.slide_id, row.label or "-", row.patient, patches, row.status, row.path)
        print("\t".join(map(printable, cells)))
    if not rows:
        print_error(f"sish: {index.path} holds no slides; sish index add SLIDES adds some")
    return 0


def _tell_damage(index: Index) -> None:
    for reason in index.damage:
        print_error(f"sish: damaged: {reason}")


def _info(arguments: Namespace) -> int:
    index = open_index(arguments)
    _tell_damage(index)
    calibration = index.encoder.calibration
    facts = {
        "path": str(index.path),
        "encoder": index.fingerprint,
        **asdict(index.info()),
        "search": asdict(index.params),
        "recipe": asdict(index.recipe),
        "rerank": index.rerank,
        "calibration": None
        if calibration is None
        else {"patches": calibration.patches, "shipped": calibration.shipped},
    }
    lines = {
        **facts,
        "calibration": index.calibration_source,
        "rerank": index.rerank_source,
        "threshold": index.threshold_source,
        "recall": index.recall_source,
    }
    lines |= lines["partitions"]
    del lines["measured"], lines["search"], lines["partitions"]
    show(arguments, facts, (f"{name:12} {value}" for name, value in lines.items()))
    return 0


def _verify_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "place", type=str, nargs="?", metavar="INDEX", help="the same as --index, and comes first"
    )
    parser.add_argument("--index", type=str | None, help="the index's folder, or its address in PostgreSQL")
    add_json(parser)


def _verify(arguments: Namespace) -> int:
    from sish.archives import verify

    arguments.index = arguments.place or arguments.index
    if arguments.index is None:
        raise ParameterError("got no index; want --index with its folder or address")
    if not is_index(arguments.index):
        open_index(arguments)  # says on stderr that there is no index, and which one may be meant
    problems = verify(arguments.index)  # it also looks at what is too damaged to be opened
    show(arguments, problems, problems or ["every byte is as it was written"])
    return 1 if problems else 0


def _repair_options(parser: ArgumentParser) -> None:
    _index_and_json(parser)
    parser.add_argument(
        "--drop", action="store_true", help="go on without damaged segments; their files are kept aside"
    )


def _repair(arguments: Namespace) -> int:
    report = open_index(arguments).repair(drop=arguments.drop)
    show(arguments, report.to_dict(), _repair_lines(report, arguments.index))
    return 0 if report.is_sound else 1


def _repair_lines(report: RepairReport, index: str) -> Iterator[str]:
    segments, slides = counted(report.sound_segments, "segment"), counted(report.sound_slides, "slide")
    yield f"sound: {segments} of {slides}"
    if report.tree is not None:
        yield f"tree: {report.tree}{'; it was made anew from the patches' if report.tree_mended else ''}"
    for damage in report.damaged:
        yield from (f"damaged: segment {damage.segment}: {problem}" for problem in damage.problems)
        if damage.unknown_slides:
            slides = counted(damage.unknown_slides, "slide")
            yield f"damaged: segment {damage.segment}: up to {slides}, names unknown"
    for row in report.add_again:
        yield f"add again: {row.slide_id}: {row.path or 'given as vectors'}"
    if report.kept_in:
        given = any(not row.path for row in report.add_again)
        taken_by = "the labels= of Index.add_vectors, read by pandas" if given else "index add --labels"
        yield f"dropped; their files are kept in {report.kept_in}, with add_again.csv for {taken_by}"
    elif report.damaged:
        yield (
            "nothing was changed: restore these files from a backup, or go on without them by "
            f"sish index repair --drop --index {index}"
        )


def _tune_options(parser: ArgumentParser) -> None:
    _index_and_json(parser)
    parser.add_argument(
        "--recall", type=float, default=0.95, help="share of the ten nearest patches that is to be found"
    )


def _tune(arguments: Namespace) -> int:
    index = open_index(arguments)
    found = index.tune(arguments.recall)
    show(arguments, asdict(found), [f"budget {found.budget}: {found.told()}"])
    return 0


def _measure(arguments: Namespace) -> int:
    index = open_index(arguments)
    bits = index.measure_threshold()
    show(arguments, {"threshold": bits}, [f"threshold {index.threshold_source}"])
    return 0


def _recalibrate_options(parser: ArgumentParser) -> None:
    _index_and_json(parser)
    add_encoder(parser)
    add_timeout(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _recalibrate(arguments: Namespace) -> int:
    index = open_index(arguments)
    done = index.recalibrate(slide_timeout=arguments.slide_timeout, show_progress=not arguments.quiet)
    slides = counted(done.slides, "slide")
    line = (
        f"{slides} encoded again" if done.slides else "nothing was encoded: the same features were measured"
    )
    show(arguments, asdict(done), [f"{line}; {index.calibration_source}"])
    return 0


def _compact_options(parser: ArgumentParser) -> None:
    _index_and_json(parser)
    parser.add_argument(
        "--recalibrate",
        action="store_true",
        help="measure the encoder's features again, and encode all slides again, as recalibrate does",
    )
    add_encoder(parser)


def _compact(arguments: Namespace) -> int:
    index = open_index(arguments)
    before = index.info().bytes
    index.compact(recalibrate=arguments.recalibrate)
    after = index.info().bytes
    sizes = {"bytes_before": before, "bytes_after": after}
    show(arguments, sizes, [f"{before} bytes before, {after} after"])
    return 0


def _convert(arguments: Namespace) -> int:
    index = open_index(arguments)
    before = index.info().format_version
    index.convert()
    after = index.info().format_version
    done = f"format {before} before, {after} now" if before != after else f"it is of format {after} already"
    show(arguments, {"format_before": before, "format_after": after}, [done])
    return 0


COMMANDS = {
    "create": Command(
        "make an empty index with settings of your own", "Make an empty index.", _create_options, _create
    ),
    "add": ADD,
    "plan": PLAN,
    "status": STATUS,
    "merge": MERGE,
    "remove": Command("remove slides by id", "Remove slides by id.", _remove_options, _remove),
    "label": Command(
        "give indexed slides labels, patients, sites, metadata",
        "Give indexed slides labels, patients, sites and metadata.",
        _label_options,
        _label,
    ),
    "list": Command(
        "list its slides",
        "List the slides of an index, a line each, with tabs between: id, label, patient (the id if none is "
        "known), patches, status, path.",
        _index_and_json,
        _list,
    ),
    "info": Command("counts and sizes", "Counts and sizes of an index.", _index_and_json, _info),
    "verify": Command(
        "check every byte", "Read every byte of an index and check it.", _verify_options, _verify
    ),
    "repair": Command(
        "go on without what is damaged",
        "Read every byte, list what is damaged and the slides to add again, and mend what loses nothing.",
        _repair_options,
        _repair,
    ),
    "tune": Command(
        "set the budget by the recall that is wanted",
        "Set the budget of an index to the least that finds a share of the nearest patches.",
        _tune_options,
        _tune,
    ),
    "measure": Command(
        "let searches use the threshold measured on it",
        "Let searches of an index use the threshold that is measured on its patches, as new indexes do.",
        _index_and_json,
        _measure,
    ),
    "recalibrate": Command(
        "measure the encoder's features again, and encode all slides again",
        "Measure the encoder's features on the slides of an index, and encode these again. Resumable.",
        _recalibrate_options,
        _recalibrate,
    ),
    "compact": Command(
        "drop what was removed", "Rewrite an index without what was removed.", _compact_options, _compact
    ),
    "convert": Command(
        "rewrite an older index in the newest format",
        "Rewrite an index of an older format in the newest one. Its slides and its answers stay.",
        _index_and_json,
        _convert,
    ),
}
"""The commands of ``sish index``, by name."""
