"""What the commands share: how one is declared, the options of several, and the index they name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from sish.cli.logs import add_log
from sish.encoders import TIMM
from sish.errors import IndexNotFoundError
from sish.failures import Failure, check_failures, fits_a_table, write_failures
from sish.index.params import SearchParams
from sish.index.postgres.addresses import is_address
from sish.nearest import nearest_to
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error, print_line
from sish.slides.reader_threads import SLIDE_TIMEOUT_S

if TYPE_CHECKING:
    from sish.slide_index import Index


@dataclass(frozen=True, slots=True)
class Command:
    """A command of ``sish`` or ``sish index``."""

    help: str
    """One line on it, for the help of the command above."""
    description: str
    """One sentence on it, for its own help."""
    add_options: Callable[[ArgumentParser], None]
    """Lets its parser know its options."""
    run: Callable[[Namespace], int]
    """Does it and returns the exit code."""


def add_commands(
    subcommands: Any, commands: Mapping[str, Command], settings: Mapping[str, Any] | None = None
) -> None:
    """Let the subcommands of a parser know these, by name; their options have these settings as defaults."""
    for name, command in commands.items():
        parser = ArgumentParser(description=command.description, settings=settings)
        command.add_options(parser)
        add_log(parser)
        subcommands.add_subcommand(name, parser, help=command.help)


def add_sources(parser: ArgumentParser) -> None:
    """Let a parser know what is added: slides, or ``--features`` with ``--feature-encoder``."""
    parser.add_argument(
        "slides", type=str, nargs="*", help="slides, folders of slides, or a CSV with a column path"
    )
    parser.add_argument(
        "--features", type=str, nargs="+", metavar="DIR", help="features of TRIDENT or CLAM (.h5) for slides"
    )
    parser.add_argument(
        "--feature-encoder", type=str | None, help="what made them, where files and folders do not tell"
    )


def add_index(parser: ArgumentParser, help: str = "the index's folder, or its address in PostgreSQL") -> None:
    """Let a parser know ``--index``."""
    parser.add_argument("--index", type=str, required=True, help=f"{help}; SISH_INDEX may give it")


def add_json(parser: ArgumentParser, help: str = "print JSON") -> None:
    """Let a parser know ``--json``."""
    parser.add_argument("--json", action="store_true", help=help)


def add_device(parser: ArgumentParser) -> None:
    """Let a parser know ``--device`` and ``--workers``."""
    parser.add_argument("--device", type=str, default="cpu", help="where the encoder runs: cpu, cuda, cuda:1")
    parser.add_argument(
        "--workers",
        type=int | None,
        metavar="N",
        help="threads that read slides, and that run the encoder tissue (default: one for each core, at most "
        "8); barcodes do not depend on it",
    )


def add_rerank(parser: ArgumentParser) -> None:
    """Let a parser know ``--rerank``."""
    parser.add_argument(
        "--rerank",
        choices=["int8", "float16"],
        help="let a new index keep features, and rank the nearest patches again by them",
    )


def add_timeout(parser: ArgumentParser) -> None:
    """Let a parser know ``--slide-timeout``."""
    parser.add_argument(
        "--slide-timeout",
        type=float,
        default=SLIDE_TIMEOUT_S,
        metavar="SECONDS",
        help="after so long a slide fails, and the others go on; 0 for no limit",
    )


def add_encoder(parser: ArgumentParser) -> None:
    """Let a parser know ``--weights``, ``--device`` and ``--workers``."""
    parser.add_argument(
        "--weights", type=str | None, help="the encoder: a path (where it is now), or timm:NAME"
    )
    add_device(parser)


def add_dry_run(parser: ArgumentParser) -> None:
    """Let a parser know ``--dry-run``."""
    parser.add_argument(
        "--dry-run", action="store_true", help="tell what would be done, and write nothing into the index"
    )


def add_failures(parser: ArgumentParser) -> None:
    """Let a parser know ``--failures``."""
    parser.add_argument(
        "--failures",
        type=str | None,
        metavar="FILE.csv",
        help="write the slides that failed there, as a list that sish index add takes",
    )


def check_failures_option(arguments: Namespace, inputs: Iterable[str] = ()) -> None:
    """Refuse the file of ``--failures`` (ParameterError) before the work is done, or if it is an input."""
    if arguments.failures is not None:
        check_failures(arguments.failures, inputs)


def write_failures_option(arguments: Namespace, failed: Iterable[Failure]) -> None:
    """Write what failed, if ``--failures`` was given."""
    if arguments.failures is not None:
        failed = list(failed)
        number = write_failures(arguments.failures, failed)
        print_error(f"sish: wrote {counted(number, 'slide')} that failed to {arguments.failures}")
        for _, file, _ in failed:
            if not fits_a_table(file):
                print_error(
                    f"sish: note: a table cannot hold the name {file}: rename it, or give it by itself"
                )


def add_scale(parser: ArgumentParser, of: str) -> None:
    """Let a parser know ``--mpp`` and ``--override-mpp`` of some files."""
    parser.add_argument(
        "--mpp", type=float | None, help=f"scale in um per pixel of {of}, where a file does not tell its own"
    )
    parser.add_argument(
        "--override-mpp", type=float | None, help=f"scale in um per pixel of {of}, whatever a file tells"
    )


def add_origin(parser: ArgumentParser) -> None:
    """Let a parser know ``--origin``."""
    parser.add_argument(
        "--origin", choices=["bounds", "slide"], default="bounds",
        help="the place (0, 0) of GeoJSON: the corner of OpenSlide's bounds, as QuPath shows slides, or of "
        "all of the slide",
    )  # fmt: skip


def add_search(parser: ArgumentParser) -> None:
    """Let a parser know ``--search.budget`` and its like; those that are not given stay as they are."""
    parser.add_class_arguments(SearchParams, "search")
    parser.set_defaults({f"search.{field.name}": None for field in fields(SearchParams)})


def add_verify(parser: ArgumentParser) -> None:
    """Let a parser know ``--verify``."""
    parser.add_argument(
        "--verify", action="store_true", help="check every byte of a large index first, as of a small one"
    )


def given(arguments: Namespace, *names: str) -> dict[str, Any]:
    """Return these options as keyword arguments."""
    return {name: arguments[name] for name in names}


def given_search(arguments: Namespace) -> dict[str, Any]:
    """Return the search parameters that were given, by name."""
    search = vars(arguments.search) if "search" in arguments else {}
    return {name: value for name, value in search.items() if value is not None}


def is_index(place: str | Path) -> bool:
    """Return whether a folder holds an index's manifest; an address is asked when it is opened."""
    from sish.index.store.manifest import MANIFEST

    return is_address(place) or os.path.lexists(Path(place) / MANIFEST)


def open_index(arguments: Namespace) -> Index:
    """Open the index that a command names.

    Parameters
    ----------
    arguments : Namespace
        Its options: ``index``, and ``weights``, ``device``, ``workers``, ``search`` and ``verify`` if it has
        them.

    Returns
    -------
    Index
        The index.

    Raises
    ------
    IndexNotFoundError
        If there is none; the message names similar folders beside it.
    """
    from sish.slide_index import Index

    try:
        return Index.open(
            arguments.index,
            weights=arguments.get("weights"),
            device=arguments.get("device") or "cpu",
            workers=arguments.get("workers"),
            search=given_search(arguments),
            verify=bool(arguments.get("verify")),
        )
    except IndexNotFoundError as error:
        if is_address(arguments.index):
            raise
        path = Path(arguments.index)
        beside = (folder.name for folder in path.parent.glob("*") if is_index(folder))
        raise IndexNotFoundError(f"{error}{nearest_to(path.name, beside)}", path=path) from error


def show(arguments: Namespace, answer: Any, lines: Iterable[str]) -> None:
    """Print an answer as JSON if ``--json`` was given, else these lines."""
    if arguments.json:
        print(json.dumps(answer, indent=2))
        return
    for line in lines:
        print_line(line)


def unused_line(slides: int) -> str:
    """Return the line that says of how many slides a given scale was not used."""
    tell = "1 slide tells its" if slides == 1 else f"{slides} slides tell their"
    return f"sish: {tell} own scale, so the given mpp was not used; --override-mpp replaces it"


def held(index: Index) -> str:
    """Return what an index holds, in words."""
    return f"{index.path} holds {counted(len(index), 'slide')}"


def tell_licence(index: Index) -> None:
    """Tell the licence of weights that are not of sish."""
    if index.recipe.weights.startswith(TIMM):
        print_error(f"sish: licence of {index.recipe.weights}: {index.encoder.licence}")
