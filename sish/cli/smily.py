"""``sish smily``: keep a database of regions in a folder; search it, and refine the search.

A search is refined by region (``--crop``), by example (``--like``) or by concept (``--shows``, ``--lacks``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from sish.cli.options import Command, add_json, add_scale, show
from sish.cli.systems import given_items, run
from sish.errors import QueryError
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error, print_line
from sish.systems.smily.build import build_folder
from sish.systems.smily.regions import MPPS, RegionQuery, RegionResults, Smily


def main(words: Sequence[str]) -> int:
    """Run ``sish smily ...`` and return its exit code; errors are the caller's to tell."""
    return run("smily", "Search for a region of a slide, in all regions.", _COMMANDS, words)


def _build_options(parser: ArgumentParser) -> None:
    parser.add_argument("slides", type=str, nargs="+", help="slides, or folders of slides")
    parser.add_argument("--database", type=str, required=True, help="the folder to make, or to add to")
    parser.add_argument("--labels", type=str | None, help="CSV as for sish index add")
    add_scale(parser, "the slides")
    parser.add_argument(
        "--mpps", type=list[float], default=list(MPPS), help="scales to embed at, um per pixel; a slide "
        "leaves out those that it cannot show"
    )  # fmt: skip
    parser.add_argument(
        "--whole", action="store_true", help="every image is one patch, as in sets of small pictures"
    )


def _search_options(parser: ArgumentParser) -> None:
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
    add_json(parser)


def _build(arguments: Namespace) -> int:
    items = given_items(arguments.slides, arguments)
    mpps = None if arguments.whole else tuple(arguments.mpps)
    built = build_folder(Path(arguments.database), items, mpps=mpps)
    for skipped in built.skipped:
        print_error(f"sish: skipped: {skipped.reason}")
    print_line(f"{built.added} added; {arguments.database} holds {counted(built.holds, 'item')}")
    return 1 if built.skipped else 0


def _search(arguments: Namespace) -> int:
    smily = Smily.open(arguments.database, search="tree" if arguments.tree else "exact")
    query = _refined(smily, _query(smily, arguments.query, arguments.region, arguments), arguments)
    found = smily.search_region(query, arguments.k)
    show(arguments, found.to_dict(), _as_lines(found))
    return 0


def _as_lines(found: RegionResults) -> Iterator[str]:
    query = found.query
    scale = f" at {query.mpp:g} um/px" if query.mpp else ""
    yield f"{query.item.item_id}: region {','.join(map(str, query.region))}{scale}"
    for hit in found:
        place = ",".join(str(round(value)) for value in (*hit.l0_xy, hit.l0_px, hit.l0_px))
        yield f"{hit.rank:3}  {hit.item_id:32}  {hit.item.label or '-':20}  {place:28}  {hit.score:.3f}"


def _query(smily: Smily, path: str, box: Sequence[int], arguments: Namespace) -> RegionQuery:
    """Return a region of a file, with what the database knows of the same file."""
    items = given_items([path], arguments)
    if len(items) != 1:
        raise QueryError(f"{path}: got a folder of {len(items)} slides; want one of them")
    (item,) = items
    known = next((each for each in smily.items if each.path.resolve() == item.path.resolve()), None)
    if known is not None:
        item = replace(known, mpp=item.mpp or known.mpp, override_mpp=item.override_mpp or known.override_mpp)
    x, y, width, height = box
    return smily.region(item, (x, y, width, height))


def _refined(smily: Smily, query: RegionQuery, arguments: Namespace) -> RegionQuery:
    """Return the query after all refinements that were asked for."""
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
    """Return the region of ``FILE:X,Y,W,H``."""
    path, _, numbers = name.rpartition(":")
    try:
        x, y, width, height = map(int, numbers.split(","))
    except ValueError:
        raise QueryError(f"got the region {name!r}; want FILE:X,Y,W,H") from None
    return _query(smily, path, (x, y, width, height), arguments)


_COMMANDS = {
    "build": Command(
        "make a database, or add to it",
        "Embed all tissue of slides; adds to a database that is there.",
        _build_options,
        _build,
    ),
    "search": Command(
        "find places that look like a region",
        "Find places that look like a region of a slide or image.",
        _search_options,
        _search,
    ),
}
