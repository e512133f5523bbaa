"""``sish systems``: describe a folder, search it with one of the systems, and keep nothing."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jsonargparse import Namespace

from sish import systems
from sish.cli.options import Command, add_commands, add_json, add_scale, show
from sish.errors import ParameterError
from sish.parsing import ArgumentParser
from sish.printing import print_error
from sish.recipe import Keys
from sish.systems.base import ItemResults, System
from sish.systems.item import Item
from sish.systems.items import ScaleWarning, read_items

_Maker = Callable[[Namespace], System[Any]]


@dataclass(frozen=True, slots=True)
class NamedSystem:
    """A system as the command line knows it."""

    about: str
    """One line on it."""
    make: _Maker
    """Makes the system, of the options of ``search``."""


def _describer(options: Namespace, *, keys: bool = False) -> systems.PatchDescriber:
    """Return what looks at whole pictures, or at a mosaic of tiles, as the options say."""
    looks = systems.WholePicture() if options.whole else systems.Tiles(mpps=(options.patch_mpp,))
    return systems.PatchDescriber(looks, keys=keys)


def _sish(keys: Keys, ranking: Literal["similarity", "uncertainty"]) -> _Maker:
    return lambda options: systems.Sish(
        keys=keys, ranking=ranking, describer=_describer(options, keys=keys == "paper")
    )


def _slide_similarity(keep: int | None) -> _Maker:
    return lambda options: systems.SlideSimilarity(
        options.patch_mpp, keep=keep, describer=_describer(options) if options.whole else None
    )


def _lesions(options: Namespace) -> systems.LesionSimilarity:
    masks = systems.load_mask_predictor(options.weights) if options.weights else None
    return systems.LesionSimilarity(options.measure, systems.LesionDescriber(masks=masks))


def _xray_codes(options: Namespace) -> systems.XrayCodes:
    if not options.weights:
        raise ParameterError(
            "xray-codes got no weights; train a generator with sish train-codes fit, give it with --weights"
        )
    return systems.XrayCodes(options.weights)


SYSTEMS = {
    "sish": NamedSystem("SISH with texture keys, ranked by similarity", _sish("texture", "similarity")),
    "sish-uncertainty": NamedSystem("the same, ranked by uncertainty", _sish("texture", "uncertainty")),
    "sish-paper": NamedSystem("SISH with the published keys and ranking", _sish("paper", "uncertainty")),
    "sish-paper-similarity": NamedSystem(
        "the published keys, ranked by similarity", _sish("paper", "similarity")
    ),
    "yottixel": NamedSystem(
        "Yottixel: median of the smallest barcode distances",
        lambda options: systems.Yottixel(_describer(options)),
    ),
    "mean-vector": NamedSystem(
        "one vector a slide, the mean of its patches, by cosine",
        lambda options: systems.MeanVector(_describer(options)),
    ),
    "slide-similarity": NamedSystem("matrix of cosines, slide against slide", _slide_similarity(None)),
    "slide-similarity-128": NamedSystem(
        "the same on the 128 features that vary most", _slide_similarity(128)
    ),
    "smily": NamedSystem(
        "SMILY with whole slides as queries (regions: sish smily)",
        lambda options: systems.Smily(None) if options.whole else systems.Smily(),
    ),
    "lesions": NamedSystem("measures of skin lesions (--measure; --weights of a mask predictor)", _lesions),
    "xray-codes": NamedSystem("learnt X-ray codes in communities (--weights of a generator)", _xray_codes),
}
"""What ``sish systems`` offers."""


def main(words: Sequence[str]) -> int:
    """Run ``sish systems ...`` and return its exit code; errors are the caller's to tell."""
    return run("systems", "Other ways to search for similar images.", _COMMANDS, words)


def run(name: str, description: str, commands: Mapping[str, Command], words: Sequence[str]) -> int:
    """Run a command that has commands of its own, its warnings on one line each.

    Parameters
    ----------
    name, description : str
        The command, and one sentence on it.
    commands : mapping of str to Command
        Its own commands.
    words : sequence of str
        The command line after the name.

    Returns
    -------
    int
        The exit code.
    """
    parser = ArgumentParser(prog=f"sish {name}", description=description)
    add_commands(parser.add_subcommands(required=True), commands)
    arguments = parser.parse_args(list(words))
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return commands[arguments.subcommand].run(arguments[arguments.subcommand])


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Show a warning on one line; of those that are not ours, where it came from, too."""
    if issubclass(category, ScaleWarning):
        print_error(f"sish: {message}")
    else:
        sys.stderr.write(warnings.formatwarning(message, category, *where[:2]))


def _search_options(parser: ArgumentParser) -> None:
    parser.add_argument("system", choices=list(SYSTEMS), help="which: see sish systems list")
    parser.add_argument("queries", type=str, nargs="+", help="slides or images to search for")
    parser.add_argument("--data", type=str, required=True, help="the folder of slides or images to search")
    parser.add_argument(
        "--labels", type=str | None, help="CSV as for sish index add; also mask, lesion_id, ..."
    )
    add_scale(parser, "the files")
    parser.add_argument("-k", type=int, default=5, help="hits wanted")
    parser.add_argument(
        "--patch-mpp", type=float, default=1.0, help="scale that patches are read at, um per pixel"
    )
    parser.add_argument(
        "--whole", action="store_true", help="every image is one patch, as in sets of small pictures"
    )
    parser.add_argument("--measure", type=str, default="style", help="of lesions")
    parser.add_argument(
        "--weights", type=str | None, help="of a mask predictor (lesions) or generator (xray-codes)"
    )
    add_json(parser)


def given_items(given: Sequence[str], arguments: Namespace) -> tuple[Item, ...]:
    """Return the items of files and folders, as the command line's labels and scales say."""
    scale = {"mpp": arguments.mpp, "override_mpp": arguments.override_mpp}
    return read_items(given, arguments.get("labels"), **scale)


def _list(arguments: Namespace) -> int:
    sys.stdout.write("".join(f"{name:22}{system.about}\n" for name, system in SYSTEMS.items()))
    return 0


def _search(arguments: Namespace) -> int:
    system = SYSTEMS[arguments.system].make(arguments)
    items = given_items([arguments.data], arguments)
    queries = given_items(arguments.queries, arguments)
    known = {item.path.resolve(): item for item in items}
    system.fit(items, on_error="skip")
    for skipped in system.skipped:
        print_error(f"sish: skipped: {skipped.reason}")
    found = [system.search(known.get(query.path.resolve(), query), arguments.k) for query in queries]
    show(arguments, [results.to_dict() for results in found], _as_lines(found))
    return 1 if system.skipped else 0


def _as_lines(found: Sequence[ItemResults]) -> Iterator[str]:
    for number, results in enumerate(found):
        yield from [""] if number else []
        yield f"{results.query.item_id}: compared with {results.looked_at}"
        for hit in results:
            yield f"{hit.rank:3}  {hit.item_id:32}  {hit.item.label or '-':20}  {hit.score:.3f}"
        yield from [f"  {results.note}"] if results.note else []


_COMMANDS = {
    "list": Command("their names", "Names of the systems.", lambda parser: None, _list),
    "search": Command(
        "search a folder with one of them",
        "Describe a folder, search it with one system, and keep nothing.",
        _search_options,
        _search,
    ),
}
