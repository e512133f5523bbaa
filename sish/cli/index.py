"""The command line's ``sish index``: make, fill and keep an index of an archive."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from sish.encoders import TIMM
from sish.errors import IndexNotFoundError, ParameterError, SlideOpenError
from sish.index.params import SearchParams
from sish.nearest import nearest_to
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error, print_line, printable
from sish.recipe import Recipe
from sish.slides.reader_threads import SLIDE_TIMEOUT_S, checked_timeout
from sish.slides.scale import check_given

if TYPE_CHECKING:
    from sish.index.repair import RepairReport
    from sish.results import AddReport
    from sish.slide_index import Index

__all__ = [
    "COMMANDS",
    "add_device",
    "add_index_commands",
    "add_scale",
    "add_search",
    "bare_parser",
    "open_index",
    "unused_line",
]


def add_index_commands(parser: ArgumentParser) -> None:
    """Let a parser know the commands of ``sish index``."""
    commands = parser.add_subcommands(required=True)
    for name, sub, text in (
        ("create", _create_parser(), "make an empty index with settings of your own"),
        ("add", _add_parser(), "add slides; makes the index if there is none"),
        ("remove", _remove_parser(), "remove slides by id"),
        ("label", _label_parser(), "give indexed slides labels, patients, sites, metadata"),
        ("list", bare_parser("List the slides of an index."), "list its slides"),
        ("info", bare_parser("Counts and sizes of an index."), "counts and sizes"),
        ("verify", bare_parser("Read every byte of an index and check it."), "check every byte"),
        ("repair", _repair_parser(), "go on without what is damaged"),
        ("compact", bare_parser("Rewrite an index without what was removed."), "drop what was removed"),
    ):
        commands.add_subcommand(name, sub, help=text)


def bare_parser(description: str) -> ArgumentParser:
    """A parser that knows ``--index`` and ``--json``."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--index", type=str, required=True, help="the index's folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _create_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Make an empty index.")
    parser.add_argument("--index", type=str, required=True, help="the folder to make")
    parser.add_argument(
        "--measure",
        type=str,
        nargs="+",
        metavar="SLIDES",
        help="measure a foreign encoder's features on these",
    )
    add_scale(parser, "those")
    parser.add_class_arguments(Recipe, "recipe")
    add_search(parser)
    add_device(parser)
    return parser


def add_search(parser: ArgumentParser) -> None:
    """Let a parser know ``--search.budget`` and its like; those that are not given stay as they are."""
    parser.add_class_arguments(SearchParams, "search")
    parser.set_defaults({f"search.{field.name}": None for field in fields(SearchParams)})


def _search_of(arguments: Namespace) -> dict[str, int]:
    """The search parameters that were given."""
    given = vars(arguments.search) if "search" in arguments else {}
    return {name: value for name, value in given.items() if value is not None}


def add_device(parser: ArgumentParser) -> None:
    """Let a parser know ``--device``."""
    parser.add_argument("--device", type=str, default="cpu", help="where the encoder runs: cpu, cuda, cuda:1")


def add_scale(parser: ArgumentParser, of: str) -> None:
    """Let a parser know ``--mpp`` and ``--override-mpp`` of some files."""
    parser.add_argument(
        "--mpp", type=float | None, help=f"scale in um per pixel of {of}, where a file does not tell its own"
    )
    parser.add_argument(
        "--override-mpp", type=float | None, help=f"scale in um per pixel of {of}, whatever a file tells"
    )


def _add_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Add slides: files, or folders that are searched for slides. Resumable."
    )
    parser.add_argument("slides", type=str, nargs="*", help="slides, or folders of slides")
    parser.add_argument(
        "--features", type=str, nargs="+", metavar="DIR", help="features of TRIDENT or CLAM (.h5) for slides"
    )
    parser.add_argument(
        "--feature-encoder", type=str | None, help="what made them, where files and folders do not tell"
    )
    parser.add_argument(
        "--index", type=str, required=True, help="the index's folder; made if it is not there"
    )
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
    parser.add_argument(
        "--slide-timeout",
        type=float,
        default=SLIDE_TIMEOUT_S,
        metavar="SECONDS",
        help="after so long a slide fails, and the add goes on; 0 for no limit",
    )
    parser.add_argument(
        "--weights", type=str | None, help="the encoder: a path (where it is now), or timm:NAME"
    )
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _remove_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Remove slides by id.")
    parser.add_argument("slide_ids", type=str, nargs="+", help="ids as sish index list shows them")
    parser.add_argument("--index", type=str, required=True, help="the index's folder")
    return parser


def _label_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Give indexed slides labels, patients, sites and metadata.")
    parser.add_argument("labels", type=str, help="CSV with path or slide_id, and any of label, patient, site")
    parser.add_argument("--index", type=str, required=True, help="the index's folder")
    return parser


def _repair_parser() -> ArgumentParser:
    parser = bare_parser(
        "Read every byte, list what is damaged and the slides to add again, and mend what loses nothing."
    )
    parser.add_argument(
        "--drop", action="store_true", help="go on without damaged segments; their files are kept aside"
    )
    return parser


# ---- what is done


def _create(arguments: Namespace) -> int:
    from sish.slide_index import Index

    given = Recipe(**arguments.recipe)
    suited, plain = Recipe.of(given.weights), Recipe()
    own = {name: getattr(suited, name) for name in ("patch_px", "mpp")}  # of a known network, unless told
    told = {name for name in own if getattr(given, name) != getattr(plain, name)}
    recipe = replace(given, **{name: value for name, value in own.items() if name not in told})
    index = Index.create(
        arguments.index,
        recipe=recipe,
        search=_search_of(arguments),
        measure=arguments.measure,
        mpp=arguments.mpp,
        override_mpp=arguments.override_mpp,
        device=arguments.device,
    )
    print_line(f"made {index.path} with encoder {index.fingerprint}")
    _tell_licence(index)
    return 0


def _tell_licence(index: Index) -> None:
    """Weights that are not of sish have terms of their own."""
    if index.recipe.weights.startswith(TIMM):
        print_error(f"sish: licence of {index.recipe.weights}: {index.encoder.licence}")


def _add(arguments: Namespace) -> int:
    from sish.labels import read_labels

    if arguments.labels is not None:
        read_labels(arguments.labels)  # before an index is made for them
    check_given(arguments.mpp, arguments.override_mpp)
    checked_timeout(arguments.slide_timeout)
    if bool(arguments.slides) == bool(arguments.features):
        raise ParameterError("got slides and features, or neither; want slides, or --features with a folder")
    options = {
        "labels": arguments.labels,
        "mpp": arguments.mpp,
        "override_mpp": arguments.override_mpp,
        "replace": arguments.replace,
        "on_error": arguments.on_error,
        "slide_timeout": arguments.slide_timeout,
        "show_progress": not arguments.quiet,
    }
    index, report = (_add_features if arguments.features else _add_slides)(arguments, options)
    _tell_added(arguments, index, report)
    return 1 if report.failed else 0


def _tell_added(arguments: Namespace, index: Index, report: AddReport) -> None:
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
    if arguments.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print_line(f"{report.summary()}; {_held(index)}")


def unused_line(slides: int) -> str:
    """The line that says of how many slides a given scale was not used."""
    tell = "1 slide tells its" if slides == 1 else f"{slides} slides tell their"
    return f"sish: {tell} own scale, so the given mpp was not used; --override-mpp replaces it"


def _check_slides(given: Sequence[str]) -> None:
    """Refuse to make an index for slides of which none is there: most likely a typing error (SlideError)."""
    from sish.slides.files import find_slides

    errors: list[SlideOpenError] = []
    for name in given:
        try:
            if find_slides(name, on_error=errors.append):
                return
        except SlideOpenError as error:
            errors.append(error)
    reason = errors[0] if errors else f"{given[0]}: got a folder without slides or images in it"
    raise SlideOpenError(f"{reason}; no index was made")


def _add_slides(arguments: Namespace, options: dict[str, Any]) -> tuple[Index, AddReport]:
    from sish.slide_index import Index

    if not is_index(Path(arguments.index)):
        _check_slides(arguments.slides)
    index = Index.open_or_create(
        arguments.index,
        weights=arguments.weights,
        measure=arguments.slides,
        mpp=arguments.mpp,
        override_mpp=arguments.override_mpp,
        device=arguments.device,
    )
    _tell_licence(index)
    return index, index.add(arguments.slides, **options)


def _add_features(arguments: Namespace, options: dict[str, Any]) -> tuple[Index, AddReport]:
    from sish.slide_index import Index, open_or_make

    encoder = arguments.feature_encoder

    def make() -> Index:
        return Index.create_for_features(
            arguments.index,
            arguments.features,
            feature_encoder=encoder,
            mpp=arguments.mpp,
            override_mpp=arguments.override_mpp,
        )

    index = open_or_make(lambda: Index.open(arguments.index), make)
    return index, index.add_features(arguments.features, feature_encoder=encoder, **options)


def is_index(path: Path) -> bool:
    """Return whether a folder holds an index's manifest."""
    from sish.index.store.manifest import MANIFEST

    return os.path.lexists(path / MANIFEST)


def open_index(arguments: Namespace) -> Index:
    """The index that a command names."""
    from sish.slide_index import Index

    try:
        return Index.open(
            arguments.index,
            weights=arguments.get("weights"),
            device=arguments.get("device") or "cpu",
            search=_search_of(arguments),
            verify=bool(arguments.get("verify")),
        )
    except IndexNotFoundError as error:
        path = Path(arguments.index)
        beside = (folder.name for folder in path.parent.glob("*") if is_index(folder))
        raise IndexNotFoundError(f"{error}{nearest_to(path.name, beside)}") from error


def _remove(arguments: Namespace) -> int:
    index = open_index(arguments)
    print_line(f"removed {index.remove(arguments.slide_ids)}; {_held(index)}")
    return 0


def _held(index: Index) -> str:
    return f"{index.path} holds {counted(len(index), 'slide')}"


def _label(arguments: Namespace) -> int:
    index = open_index(arguments)
    report = index.relabel(arguments.labels)
    for note in report.notes:
        print_error(f"sish: note: {note}")
    known = [row.slide_id for row in index.slides]
    for name in report.unknown:
        near = nearest_to(name, known)
        print_error(
            f"sish: skipped: {arguments.labels} names {name}, and the index holds no such slide{near}"
        )
    print_line(f"relabelled {counted(len(report.changed), 'slide')}")
    return 1 if report.unknown else 0


def _list(arguments: Namespace) -> int:
    index = open_index(arguments)
    rows = index.slides
    _tell_damage(index)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    for row in rows:
        patches = counted(row.n_patches, "patch", "es")
        cells = (row.slide_id, row.label or "-", row.patient, patches, row.status, row.path)
        print("\t".join(map(printable, cells)))
    return 0


def _tell_damage(index: Index) -> None:
    for reason in index.damage:
        print_error(f"sish: damaged: {reason}")


def _info(arguments: Namespace) -> int:
    index = open_index(arguments)
    _tell_damage(index)
    facts = {
        "path": str(index.path),
        "encoder": index.fingerprint,
        **asdict(index.info()),
        "recipe": asdict(index.recipe),
    }
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print_line(f"{name:12} {value}")
    return 0


def _verify(arguments: Namespace) -> int:
    from sish.index.store.verify import verify

    path = Path(arguments.index)
    if not is_index(path):
        open_index(arguments)  # says on stderr that there is no index, and which one may be meant
    problems = verify(path)  # it also looks at what is too damaged to be opened
    if arguments.json:
        print(json.dumps(problems, indent=2))
    else:
        for line in problems or ["every byte is as it was written"]:
            print_line(line)
    return 1 if problems else 0


def _repair(arguments: Namespace) -> int:
    report = open_index(arguments).repair(drop=arguments.drop)
    if arguments.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        for line in _repair_lines(report, arguments.index):
            print_line(line)
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
        yield f"add again: {row.slide_id}: {row.path}"
    if report.kept_in:
        yield f"dropped; their files are kept in {report.kept_in}, with add_again.csv for index add --labels"
    elif report.damaged:
        yield (
            "nothing was changed: restore these files from a backup, or go on without them by "
            f"sish index repair --drop --index {index}"
        )


def _compact(arguments: Namespace) -> int:
    index = open_index(arguments)
    before = index.info().bytes
    index.compact()
    after = index.info().bytes
    if arguments.json:
        print(json.dumps({"bytes_before": before, "bytes_after": after}, indent=2))
    else:
        print_line(f"{before} bytes before, {after} after")
    return 0


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "index create": _create,
    "index add": _add,
    "index remove": _remove,
    "index label": _label,
    "index list": _list,
    "index info": _info,
    "index verify": _verify,
    "index repair": _repair,
    "index compact": _compact,
}
"""What does each command, by its words; gives the exit code."""
