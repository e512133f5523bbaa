"""The command line: ``sish index``, ``search``, ``evaluate``, ``demo``, ``train``, ``systems`` and others.

Exit codes: 0 done; 1 an error, or some slides of an add failed; 2 a wrong command line; 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jsonargparse import Namespace, set_parsing_settings

from sish.cli.index import (
    COMMANDS,
    add_device,
    add_index_commands,
    add_scale,
    add_search,
    bare_parser,
    open_index,
    unused_line,
)
from sish.errors import QueryError, SishError, SlideError
from sish.parsing import ArgumentParser
from sish.printing import (
    counted,
    figure,
    make_printable,
    print_error,
    print_line,
    warnings_on_one_line,
)
from sish.recipe import Recipe
from sish.results import SCORE
from sish.version import __version__

if TYPE_CHECKING:
    from sish.evaluation import Evaluation
    from sish.results import Results

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    make_printable()
    with warnings_on_one_line():
        return _guarded(words)


def _guarded(words: list[str]) -> int:
    """Run a command; whatever goes wrong is told on one line."""
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except SishError as error:
        print_error(f"sish: error: {error}")
        return 1
    except KeyboardInterrupt:
        print_error("sish: interrupted; nothing that was stored is lost")
        return 130
    except BrokenPipeError:  # the reader of our output left, as in `sish index list | head`
        sys.stderr.close()
        return 1
    except OSError as error:
        print_error(f"sish: error: {error.filename or 'output'}: {error.strerror}; see to its folder")
        return 1


def _run(words: list[str]) -> int:
    if words[:1] == ["train"]:  # Lightning's own command line reads the rest
        from sish.vqvae.cli import main as train

        return train(words[1:], prog="sish train")
    if words[:1] in (["train-codes"], ["train-masks"]):
        from sish.cli.training import main as train_system

        return train_system(words[0].removeprefix("train-"), words[1:])
    if words[:1] in (["systems"], ["smily"]):
        from sish.cli.systems import main as other_system

        return other_system(words[1:], words[0])
    arguments = _parser().parse_args(words)
    return _COMMANDS[_command(arguments)](_leaf(arguments))


def _command(arguments: Namespace) -> str:
    name: str = arguments.subcommand
    return f"index {arguments.index.subcommand}" if name == "index" else name


def _leaf(arguments: Namespace) -> Namespace:
    leaf: Namespace = arguments[arguments.subcommand]
    return leaf[leaf.subcommand] if arguments.subcommand == "index" else leaf


# ---- what can be said


def _parser() -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # a field's help is its docstring
    parser = ArgumentParser(
        prog="sish", description="Find whole-slide images that look alike.", version=__version__
    )
    commands = parser.add_subcommands(required=True)
    index = ArgumentParser(description="Make and keep an index of an archive.")
    commands.add_subcommand("index", index, help="make and keep an index of an archive")
    add_index_commands(index)  # after its parent, as jsonargparse wants it
    commands.add_subcommand(
        "search", _search_parser(), help="find slides that look like a slide, a region or an image"
    )
    commands.add_subcommand(
        "evaluate", _evaluate_parser(), help="measure retrieval, leaving each patient out in turn"
    )
    commands.add_subcommand("preview", _preview_parser(), help="picture of a slide's tissue and mosaic")
    commands.add_subcommand("demo", _demo_parser(), help="generate slides, index, search, evaluate, report")
    commands.add_subcommand(
        "train", ArgumentParser(add_help=False), help="train an encoder (Lightning command line)"
    )
    for name, of in (("codes", "a generator of X-ray codes"), ("masks", "a predictor of lesion masks")):
        sub = ArgumentParser(add_help=False)
        commands.add_subcommand(f"train-{name}", sub, help=f"train {of} (Lightning command line)")
    for name, text in (("systems", "other ways to search"), ("smily", "search for a region in all regions")):
        commands.add_subcommand(name, ArgumentParser(add_help=False), help=text)
    return parser


def _search_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Find slides that look like a slide, a region of one, or an image.")
    parser.add_argument("queries", type=str, nargs="+", help="slides or images to search for")
    parser.add_argument("--index", type=str, required=True, help="the index's folder")
    parser.add_argument("-k", type=int, default=5, help="hits wanted")
    add_scale(parser, "the query")
    parser.add_argument(
        "--region", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="part of it, level-0 pixels"
    )
    parser.add_argument(
        "--ranking", choices=["auto", "uncertainty", "similarity"], default="auto", help="how to rank"
    )
    parser.add_argument("--exclude-patient", action="store_true", help="leave out the query's own patient")
    parser.add_argument(
        "--patient", type=str | None, help="the query's patient, if the index does not know it"
    )
    parser.add_argument(
        "--where", type=str, action="append", default=[], metavar="COLUMN=VALUE",
        help="only slides with this value; give it again for another column",
    )  # fmt: skip
    parser.add_argument("--weights", type=str | None, help="where the encoder's weights are now")
    add_search(parser)
    _add_verify(parser)
    add_device(parser)
    parser.add_argument(
        "--json", action="store_true", help="print JSON; a list of objects for several queries"
    )
    parser.add_argument("--report", type=str | None, help="write a self-contained HTML page")
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = bare_parser(
        "Search every labelled slide with its own patient left out, and measure the answers."
    )
    parser.add_argument("-k", type=int, default=5, help="hits a query")
    parser.add_argument(
        "--ranking", choices=["auto", "uncertainty", "similarity"], default="auto", help="how to rank"
    )
    add_search(parser)
    _add_verify(parser)
    return parser


def _add_verify(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check every byte of a large index first, as of a small one",
    )


def _preview_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Picture of a slide: thumbnail, outline of its tissue, mosaic by colour cluster."
    )
    parser.add_argument("slide", type=str, help="the slide")
    parser.add_argument("--output", "-o", type=str, required=True, help="the picture to write (.png, .jpg)")
    add_scale(parser, "the slide")
    parser.add_class_arguments(Recipe, "recipe")
    return parser


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Generate slides, index them, search, evaluate, and write a report to look at."
    )
    parser.add_argument("folder", type=str, nargs="?", default="demo", help="where to put it all")
    parser.add_argument("--slides", type=int, default=36, help="how many slides to generate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the slides")
    return parser


# ---- what is done


def _search(arguments: Namespace) -> int:
    from sish.report import check_report, write_report

    if arguments.region and len(arguments.queries) > 1:
        raise QueryError(f"got --region with {len(arguments.queries)} queries; give one query")
    index = open_index(arguments)
    if arguments.report is not None:
        check_report(arguments.report, arguments.queries, index)
    options = {
        "k": arguments.k,
        "mpp": arguments.mpp,
        "override_mpp": arguments.override_mpp,
        "region": tuple(arguments.region) if arguments.region else None,
        "ranking": arguments.ranking,
        "exclude_patient": arguments.exclude_patient,
        "patient": arguments.patient,
        "where": _filters(arguments.where),
    }
    answers = []
    for query in arguments.queries:
        try:
            answers.append(index.search(query, **options))
        except SlideError as error:  # the other queries still get their answers
            if len(arguments.queries) == 1:
                raise
            print_error(f"sish: skipped: {error}")
    if arguments.report is not None and answers:  # a page of nothing replaces no earlier one
        write_report(answers, arguments.report, index=index)
    if arguments.json:
        plain = [answer.to_dict() for answer in answers]
        print(json.dumps(plain[0] if len(arguments.queries) == 1 else plain, indent=2))
    else:
        blocks = [*map(_as_lines, answers), *_explained(answers)]
        for number, lines in enumerate(blocks):
            for line in ["", *lines] if number else lines:
                print_line(line)
    return 0 if len(answers) == len(arguments.queries) else 1


def _filters(words: Sequence[str]) -> dict[str, str]:
    filters: dict[str, str] = {}
    for word in words:
        column, sign, value = word.partition("=")
        if not sign or column in filters:
            raise QueryError(f"got --where {word}; want COLUMN=VALUE once a column, as in --where site=lung")
        filters[column] = value
    return filters


def _as_lines(results: Results) -> list[str]:
    query = results.query
    lines = [f"{query.slide_id}: {counted(query.n_patches, 'patch', 'es')}, {results.headline}"]
    if len(results):
        lines.append(_ROW.format("", "slide", "label", "score", "matched", "median"))
    for hit in results:
        flag = "" if hit.placed else "  by similarity, to fill the list"
        flag = "  beyond the threshold: nearest, not similar" if hit.below_threshold else flag
        matched, median = f"{hit.n_matched}/{query.n_patches}", f"{hit.median_distance:g} bits"
        row = _ROW.format(hit.rank, hit.slide_id, hit.label or "-", f"{hit.score:.3f}", matched, median)
        lines.append(row + flag)
    return lines


_ROW = "{:>3}  {:32}  {:20}  {:>5}  {:>9}  {:>10}"


def _explained(answers: Sequence[Results]) -> list[list[str]]:
    """What the columns of the tables mean, once for all of them."""
    if not any(map(len, answers)):
        return []
    lines = [
        SCORE,
        "matched, median: patches of the query with a match in the slide, and their median distance",
    ]
    if any(answer.ranking == "uncertainty" for answer in answers):
        lines.append("ranked by uncertainty: matches of one label come first; scores may rise further down")
    return [lines]


def _evaluate(arguments: Namespace) -> int:
    from sish.evaluation import evaluate

    found = evaluate(open_index(arguments), k=arguments.k, ranking=arguments.ranking)
    print(json.dumps(found.to_dict(), indent=2) if arguments.json else _evaluation_table(found))
    return 0


def _evaluation_table(found: Evaluation) -> str:
    return "\n".join(f"{name:36} {figure(value):>14}" for name, value in found.rows())


def _preview(arguments: Namespace) -> int:
    from sish.encode import SlideEncoder
    from sish.preview import check_picture, draw_mosaic, write_picture
    from sish.slides.scale import is_unused
    from sish.slides.slide import open_slide

    check_picture(arguments.output, arguments.slide)
    with open_slide(arguments.slide, mpp=arguments.mpp, override_mpp=arguments.override_mpp) as slide:
        if arguments.override_mpp is None and is_unused(arguments.mpp, slide.mpp):
            print_error(unused_line(1))
        prepared = SlideEncoder(Recipe(**arguments.recipe)).prepare(slide)
        picture = draw_mosaic(slide, prepared.tissue, prepared.mosaic)
    write_picture(picture, arguments.output, slide=arguments.slide)
    mosaic = prepared.mosaic
    patches, tiles = counted(len(mosaic), "patch", "es"), counted(mosaic.n_tiles, "tile")
    print_line(f"{arguments.output}: {patches} of {tiles} of tissue")
    if not len(mosaic):
        print_line(f"  {prepared.tissue.hint}")
    return 0


def _demo(arguments: Namespace) -> int:
    from sish.demo.run import run_demo

    run_demo(arguments.folder, n_slides=arguments.slides, seed=arguments.seed)
    return 0


_COMMANDS: dict[str, Callable[[Namespace], int]] = {
    **COMMANDS,
    "search": _search,
    "evaluate": _evaluate,
    "preview": _preview,
    "demo": _demo,
}
