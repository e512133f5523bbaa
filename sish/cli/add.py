"""``sish index add``: add slides, features, or one shard of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from sish.cli.options import (
    Command,
    add_dry_run,
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
    held,
    is_index,
    show,
    tell_licence,
    unused_line,
    write_failures_option,
)
from sish.errors import ParameterError, SlideOpenError
from sish.parsing import ArgumentParser
from sish.printing import print_error
from sish.results import failures_of
from sish.shards import Shard
from sish.slides.reader_threads import checked_timeout
from sish.slides.scale import check_given

if TYPE_CHECKING:
    from sish.results import AddReport
    from sish.slide_index import Index


def _add_options(parser: ArgumentParser) -> None:
    add_sources(parser)
    add_index(parser, "the index's folder; made if it is not there")
    parser.add_argument(
        "--labels",
        type=str | None,
        help="CSV with path or slide_id, and any of label, patient, site, mpp, override_mpp",
    )
    add_scale(parser, "the slides")
    parser.add_argument(
        "--replace", action="store_true", help="make the codes of slides anew that are there already"
    )
    parser.add_argument(
        "--on-error",
        choices=["skip", "raise"],
        default="skip",
        help="after a slide that fails: go on, or stop",
    )
    add_timeout(parser)
    add_encoder(parser)
    parser.add_argument(
        "--like",
        type=str | None,
        metavar="INDEX",
        help="let a new index have the recipe, calibration and search parameters of this one",
    )
    parser.add_argument(
        "--shard",
        type=str | None,
        metavar="I/N",
        help="add one of N shards of the slides only, I from 0 to N - 1, into an index of its own; auto: the "
        "task of a SLURM array",
    )
    add_rerank(parser)
    add_failures(parser)
    add_dry_run(parser)
    add_json(parser, "print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add(arguments: Namespace) -> int:
    from sish.labels import read_labels

    if arguments.labels is not None:
        read_labels(arguments.labels)  # before an index is made for them
    check_given(arguments.mpp, arguments.override_mpp)
    checked_timeout(arguments.slide_timeout)
    if bool(arguments.slides) == bool(arguments.features):
        raise ParameterError("got slides and features, or neither; want slides, or --features with a folder")
    sources = arguments.slides or arguments.features
    check_failures_option(arguments, filter(None, [*sources, arguments.labels]))
    shard = None if arguments.shard is None else Shard.parse(arguments.shard)
    options = {
        "shard": shard,
        **given(arguments, "labels", "mpp", "override_mpp", "replace", "slide_timeout"),
        "show_progress": not arguments.quiet,
    }
    if arguments.dry_run:
        return _tell_plan(arguments, options)
    options |= given(arguments, "on_error")
    if arguments.features:
        index = _index_of_features(arguments, arguments.index)
        report = index.add_features(arguments.features, **given(arguments, "feature_encoder"), **options)
    else:
        index = _index_of_slides(arguments, arguments.index)
        report = index.add(arguments.slides, **options)
    _tell_added(arguments, report)
    write_failures_option(arguments, failures_of(report.failed))
    show(arguments, asdict(report), [f"{report.summary()}; {held(index)}"])
    return 1 if report.failed else 0


def _tell_plan(arguments: Namespace, options: dict[str, Any]) -> int:
    """Tell what an add would do; an index that is not there yet is made elsewhere, and deleted."""
    with _place_to_plan_in(arguments.index) as place:
        if arguments.features:
            index = _index_of_features(arguments, place)
            encoder = given(arguments, "feature_encoder")
            plan = index.plan_add_features(arguments.features, **encoder, **options)
        else:
            plan = _index_of_slides(arguments, place).plan_add(arguments.slides, **options)
    for note in plan.notes:
        print_error(f"sish: note: {note}")
    for skipped in plan.failed:
        print_error(f"sish: would be skipped: {skipped.reason}")
    write_failures_option(arguments, failures_of(plan.failed))
    show(arguments, asdict(plan), plan.lines())
    return 1 if plan.failed else 0


@contextmanager
def _place_to_plan_in(index: str) -> Iterator[str]:
    """Yield the place of an index if it is there, else one that is deleted afterwards."""
    from sish.archives import is_there

    if is_there(index):
        yield index
        return
    with TemporaryDirectory(prefix="sish-plan-") as folder:
        yield str(Path(folder, "new.sish"))


def _index_of_slides(arguments: Namespace, place: str) -> Index:
    """Open the index, or make it."""
    from sish.slide_index import Index

    if not is_index(place):
        _check_slides(arguments.slides)
        _check_alike(arguments)
    index = Index.open_or_create(
        place,
        **given(arguments, "weights", "mpp", "override_mpp", "like", "device", "workers", "rerank"),
    )
    tell_licence(index)
    return index


def _check_slides(names: Sequence[str]) -> None:
    """Refuse to make an index for slides of which none is there: most likely a typing error (SlideError)."""
    from sish.slides.files import find_slides

    errors: list[SlideOpenError] = []
    for name in names:
        try:
            if find_slides(name, on_error=errors.append):
                return
        except SlideOpenError as error:
            errors.append(error)
    reason = errors[0] if errors else f"{names[0]}: got a folder or list without slides in it"
    hint = "; features (.h5) are added by --features" if any(_has_features(name) for name in names) else ""
    raise SlideOpenError(f"{reason}{hint}; no index was made")


def _has_features(name: str) -> bool:
    """Return whether a name is a file of features, or a folder with such files."""
    place = Path(name)
    return place.suffix == ".h5" or any(place.glob("*.h5"))


def _check_alike(arguments: Namespace) -> None:
    """Refuse to make an index for a shard that measures its own slides (ParameterError)."""
    if arguments.shard is not None and arguments.like is None:
        raise ParameterError(
            f"got --shard {arguments.shard} without --like for a new index, and all shards must share one "
            "measurement of the encoder: make an index by sish index create --measure SLIDES, and give "
            "--like that index"
        )


def _index_of_features(arguments: Namespace, place: str) -> Index:
    """Open the index of features, or make it."""
    from sish.index_base import check_alike, check_keeps
    from sish.slide_index import Index, open_or_make

    def make() -> Index:
        if arguments.like is not None:
            return Index.create(place, like=arguments.like, rerank=arguments.rerank)
        return Index.create_for_features(
            place,
            arguments.features,
            **given(arguments, "feature_encoder", "mpp", "override_mpp"),
            rerank=arguments.rerank or "auto",
        )

    index = open_or_make(lambda: Index.open(place), make)
    check_keeps(index, arguments.rerank)
    check_alike(index, arguments.like)
    return index


def _tell_added(arguments: Namespace, report: AddReport) -> None:
    for note in report.notes:
        print_error(f"sish: note: {note}")
    for skipped in report.failed:
        print_error(f"sish: skipped: {skipped.reason}")
    if report.own_scale:
        print_error(unused_line(len(report.own_scale)))
    if report.no_tissue and not arguments.features:
        print_error(f"sish: {report.hint}")
    if report.already and arguments.labels:
        print_error("sish: labels of slides already there stay: sish index label LABELS changes them")


ADD = Command(
    "add slides; makes the index if there is none",
    "Add slides: files, or folders that are searched for slides. Resumable.",
    _add_options,
    _add,
)
"""The command ``sish index add``."""
