"""``sish systems`` and ``sish smily``: the other systems on the command line.

``sish systems search`` describes a folder, searches it with one system, and keeps nothing; ``sish smily``
keeps a database of regions in a folder, and refines a search by region, by example and by concept.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from sish.cli.options import add_scale
from sish.errors import ParameterError, QueryError
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error, print_line
from sish.systems.base import ItemResults, System
from sish.systems.item import Item
from sish.systems.items import ScaleWarning, read_items
from sish.systems.smily.build import build_folder
from sish.systems.smily.regions import MPPS, RegionQuery, Smily

__all__ = ["SYSTEMS", "NamedSystem", "main"]


@dataclass(frozen=True, slots=True)
class NamedSystem:
    """A system as the command line knows it."""

    about: str
    """One line on it."""
    make: Callable[[Namespace], System[Any]]
    """The system, of the options of ``search``."""


def _describer(options: Namespace, *, keys: bool = False) -> Any:
    from sish.systems.patch_features import PatchDescriber, Tiles, WholePicture

    return PatchDescriber(WholePicture() if options.whole else Tiles(mpps=(options.patch_mpp,)), keys=keys)


def _sish(keys: Any, ranking: Any) -> Callable[[Namespace], System[Any]]:
    def make(options: Namespace) -> System[Any]:
        from sish.systems.sish_system import Sish

        return Sish(keys=keys, ranking=ranking, describer=_describer(options, keys=keys == "paper"))

    return make


def _yottixel(options: Namespace) -> System[Any]:
    from sish.systems.yottixel import Yottixel

    return Yottixel(_describer(options))


def _slide_similarity(keep: int | None) -> Callable[[Namespace], System[Any]]:
    def make(options: Namespace) -> System[Any]:
        from sish.systems.slide_similarity import SlideSimilarity

        return SlideSimilarity(
            options.patch_mpp, keep=keep, describer=_describer(options) if options.whole else None
        )

    return make


def _smily(options: Namespace) -> System[Any]:
    return Smily(None if options.whole else MPPS)


def _lesions(options: Namespace) -> System[Any]:
    from sish.systems.lesions.similarity import LesionDescriber, LesionSimilarity

    masks = None
    if options.weights:
        from sish.systems.lesions.mask_predictor import load_mask_predictor

        masks = load_mask_predictor(options.weights)
    return LesionSimilarity(options.measure, LesionDescriber(masks=masks))


def _xray_codes(options: Namespace) -> System[Any]:
    from sish.systems.xray.codes import XrayCodes

    if not options.weights:
        raise ParameterError(
            "xray-codes got no weights; train a generator with sish train-codes fit, give it with --weights"
        )
    return XrayCodes(options.weights)


SYSTEMS = {
    "sish": NamedSystem("SISH with texture keys, ranked by similarity", _sish("texture", "similarity")),
    "sish-uncertainty": NamedSystem("the same, ranked by uncertainty", _sish("texture", "uncertainty")),
    "sish-paper": NamedSystem("SISH with the published keys and ranking", _sish("paper", "uncertainty")),
    "sish-paper-similarity": NamedSystem(
        "the published keys, ranked by similarity", _sish("paper", "similarity")
    ),
    "yottixel": NamedSystem("Yottixel: median of the smallest barcode distances", _yottixel),
    "slide-similarity": NamedSystem("matrix of cosines, slide against slide", _slide_similarity(None)),
    "slide-similarity-128": NamedSystem(
        "the same on the 128 features that vary most", _slide_similarity(128)
    ),
    "smily": NamedSystem("SMILY with whole slides as queries (regions: sish smily)", _smily),
    "lesions": NamedSystem("measures of skin lesions (--measure; --weights of a mask predictor)", _lesions),
    "xray-codes": NamedSystem("learnt X-ray codes in communities (--weights of a generator)", _xray_codes),
}
"""What ``sish systems`` offers."""


def main(words: Sequence[str], prog: str) -> int:
    """Run ``sish systems ...`` or ``sish smily ...``; errors are the caller's to tell."""
    parser, commands = (_systems_parser(), _SYSTEMS) if prog == "systems" else (_smily_parser(), _SMILY)
    arguments = parser.parse_args(list(words))
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return commands[arguments.subcommand](arguments[arguments.subcommand])


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Show a warning on one line; of those that are not ours, where it came from, too."""
    if issubclass(category, ScaleWarning):
        print_error(f"sish: {message}")
    else:
        sys.stderr.write(warnings.formatwarning(message, category, *where[:2]))


# ---- sish systems


def _systems_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="sish systems", description="Other ways to search for similar images.")
    commands = parser.add_subcommands(required=True)
    commands.add_subcommand("list", ArgumentParser(description="Names of the systems."), help="their names")
    search = ArgumentParser(description="Describe a folder, search it with one system, and keep nothing.")
    search.add_argument("system", choices=list(SYSTEMS), help="which: see sish systems list")
    search.add_argument("queries", type=str, nargs="+", help="slides or images to search for")
    search.add_argument("--data", type=str, required=True, help="the folder of slides or images to search")
    search.add_argument(
        "--labels", type=str | None, help="CSV as for sish index add; also mask, lesion_id, ..."
    )
    add_scale(search, "the files")
    search.add_argument("-k", type=int, default=5, help="hits wanted")
    search.add_argument(
        "--patch-mpp", type=float, default=1.0, help="scale that patches are read at, um per pixel"
    )
    search.add_argument(
        "--whole", action="store_true", help="every image is one patch, as in sets of small pictures"
    )
    search.add_argument("--measure", type=str, default="style", help="of lesions")
    search.add_argument(
        "--weights", type=str | None, help="of a mask predictor (lesions) or generator (xray-codes)"
    )
    search.add_argument("--json", action="store_true", help="print JSON")
    commands.add_subcommand("search", search, help="search a folder with one of them")
    return parser


def _items(given: Sequence[str], arguments: Namespace) -> tuple[Item, ...]:
    """The items of files and folders, as the command line's labels and scales say."""
    scale = {"mpp": arguments.mpp, "override_mpp": arguments.override_mpp}
    return read_items(given, arguments.get("labels"), **scale)


def _list(arguments: Namespace) -> int:
    sys.stdout.write("".join(f"{name:22}{system.about}\n" for name, system in SYSTEMS.items()))
    return 0


def _search(arguments: Namespace) -> int:
    system = SYSTEMS[arguments.system].make(arguments)
    items = _items([arguments.data], arguments)
    queries = _items(arguments.queries, arguments)
    known = {item.path.resolve(): item for item in items}
    system.fit(items, on_error="skip")
    for skipped in system.skipped:
        print_error(f"sish: skipped: {skipped.reason}")
    found = [system.search(known.get(query.path.resolve(), query), arguments.k) for query in queries]
    if arguments.json:
        sys.stdout.write(json.dumps([results.to_dict() for results in found], indent=2) + "\n")
    else:
        for number, results in enumerate(found):
            for line in ["", *_as_lines(results)] if number else _as_lines(results):
                print_line(line)
    return 1 if system.skipped else 0


def _as_lines(results: ItemResults) -> list[str]:
    lines = [f"{results.query.item_id}: compared with {results.looked_at}"]
    lines += [f"{it.rank:3}  {it.item_id:32}  {it.item.label or '-':20}  {it.score:.3f}" for it in results]
    return [*lines, f"  {results.note}"] if results.note else lines


# ---- sish smily


def _smily_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="sish smily", description="Search for a region of a slide, in all regions.")
    commands = parser.add_subcommands(required=True)
    build = ArgumentParser(description="Embed all tissue of slides; adds to a database that is there.")
    build.add_argument("slides", type=str, nargs="+", help="slides, or folders of slides")
    build.add_argument("--database", type=str, required=True, help="the folder to make, or to add to")
    build.add_argument("--labels", type=str | None, help="CSV as for sish index add")
    add_scale(build, "the slides")
    build.add_argument(
        "--mpps", type=list[float], default=list(MPPS), help="scales to embed at, um per pixel; a slide "
        "leaves out those that it cannot show"
    )  # fmt: skip
    build.add_argument(
        "--whole", action="store_true", help="every image is one patch, as in sets of small pictures"
    )
    commands.add_subcommand("build", build, help="make a database, or add to it")
    commands.add_subcommand("search", _region_parser(), help="find places that look like a region")
    return parser


def _region_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Find places that look like a region of a slide or image.")
    box = ("X", "Y", "W", "H")
    parser.add_argument("query", type=str, help="the slide or image")
    parser.add_argument("--database", type=str, required=True, help="the folder that sish smily build made")
    parser.add_argument(
        "--region", type=int, nargs=4, metavar=box, required=True, help="the box, level-0 pixels"
    )
    parser.add_argument("-k", type=int, default=10, help="places wanted")
    add_scale(parser, "the query")
    parser.add_argument(
        "--tree", action="store_true", help="look at a bounded number of patches, led by a tree"
    )
    parser.add_argument("--crop", type=int, nargs=4, metavar=box, help="refine by region: a part of the box")
    parser.add_argument(
        "--like", type=int, nargs="+", metavar="RANK", help="refine by example: these places are relevant"
    )
    parser.add_argument("--like-weight", type=float, default=0.5, help="how far to move toward them, 0 to 1")
    parser.add_argument(
        "--shows", type=str, nargs="+", default=[], metavar="FILE:X,Y,W,H",
        help="refine by concept: regions that show it",
    )  # fmt: skip
    parser.add_argument(
        "--lacks", type=str, nargs="+", default=[], metavar="FILE:X,Y,W,H", help="regions that do not"
    )
    parser.add_argument("--slider", type=float, default=0.5, help="how far to move along it, -1 to 1")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _build(arguments: Namespace) -> int:
    items = _items(arguments.slides, arguments)
    mpps = None if arguments.whole else tuple(arguments.mpps)
    built = build_folder(Path(arguments.database), items, mpps=mpps)
    for skipped in built.skipped:
        print_error(f"sish: skipped: {skipped.reason}")
    print_line(f"{built.added} added; {arguments.database} holds {counted(built.holds, 'item')}")
    return 1 if built.skipped else 0


def _region(arguments: Namespace) -> int:
    smily = Smily.open(arguments.database, search="tree" if arguments.tree else "exact")
    query = _refined(smily, _query(smily, arguments.query, arguments.region, arguments), arguments)
    found = smily.search_region(query, arguments.k)
    if arguments.json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=2) + "\n")
        return 0
    scale = f" at {query.mpp:g} um/px" if query.mpp else ""
    print_line(f"{query.item.item_id}: region {','.join(map(str, query.region))}{scale}")
    for hit in found:
        place = ",".join(str(round(value)) for value in (*hit.l0_xy, hit.l0_px, hit.l0_px))
        label = hit.item.label or "-"
        print_line(f"{hit.rank:3}  {hit.item_id:32}  {label:20}  {place:28}  {hit.score:.3f}")
    return 0


def _query(smily: Smily, path: str, box: Sequence[int], arguments: Namespace) -> RegionQuery:
    """A region of a file; what the database knows of the same file comes with it."""
    items = _items([path], arguments)
    if len(items) != 1:
        raise QueryError(f"{path}: got a folder of {len(items)} slides; want one of them")
    (item,) = items
    known = next((each for each in smily.items if each.path.resolve() == item.path.resolve()), None)
    if known is not None:
        item = replace(known, mpp=item.mpp or known.mpp, override_mpp=item.override_mpp or known.override_mpp)
    x, y, width, height = box
    return smily.region(item, (x, y, width, height))


def _refined(smily: Smily, query: RegionQuery, arguments: Namespace) -> RegionQuery:
    """The query after all refinements that were asked for."""
    if arguments.crop:
        x, y, width, height = arguments.crop
        query = smily.crop(query, (x, y, width, height))
    if arguments.like:
        shown = smily.search_region(query, max(arguments.k, *arguments.like))
        liked = [hit for hit in shown if hit.rank in set(arguments.like)]
        if len(liked) < len(set(arguments.like)):
            raise QueryError(f"got --like {arguments.like}; want ranks from 1 to {len(shown)}")
        query = smily.like(query, liked, arguments.like_weight)
    if arguments.shows or arguments.lacks:
        sides = (
            [_named(smily, name, arguments) for name in side] for side in (arguments.shows, arguments.lacks)
        )
        query = smily.along(query, smily.concept("given regions", *sides), arguments.slider)
    return query


def _named(smily: Smily, name: str, arguments: Namespace) -> RegionQuery:
    """The region of ``FILE:X,Y,W,H``."""
    path, _, numbers = name.rpartition(":")
    try:
        x, y, width, height = map(int, numbers.split(","))
    except ValueError:
        raise QueryError(f"got the region {name!r}; want FILE:X,Y,W,H") from None
    return _query(smily, path, (x, y, width, height), arguments)


_SYSTEMS: dict[str, Callable[[Namespace], int]] = {"list": _list, "search": _search}
_SMILY: dict[str, Callable[[Namespace], int]] = {"build": _build, "search": _region}
