"""``sish serve``: a web page to look at the slides of an index and to search for what is drawn on them."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from sish.cli.options import Command, add_device, add_index, add_search, add_verify, open_index
from sish.errors import MissingPackageError
from sish.extras import install
from sish.parsing import ArgumentParser


def _add_options(parser: ArgumentParser) -> None:
    add_index(parser)
    parser.add_argument("--port", type=int, default=8080, help="the port; 0 takes any that is free")
    parser.add_argument(
        "--slides", type=str | None, metavar="ROOT",
        help="where the slides are now: of an archive that moved, or that was made of features",
    )  # fmt: skip
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument(
        "--host", type=str, default="127.0.0.1",
        help="the address to listen on; others than this machine's own are without encryption",
    )  # fmt: skip
    parser.add_argument(
        "--name", type=str, action="append", default=[], metavar="HOST",
        help="another name under which the page is reached, such as that of a proxy",
    )  # fmt: skip
    parser.add_argument("--weights", type=str | None, help="where the encoder's weights are now")
    add_search(parser)
    add_verify(parser)
    add_device(parser)


def _run(arguments: Namespace) -> int:
    try:
        from sish.serve.server import Address, run_server
    except ImportError as error:
        raise MissingPackageError(f"sish serve needs {error.name}: {install('serve')}") from error

    index = open_index(arguments)
    address = Address(arguments.host, arguments.port, arguments.name)
    slides = None if arguments.slides is None else Path(arguments.slides)
    run_server(index, address, slides=slides, opens_browser=not arguments.no_browser)
    return 0


COMMAND = Command(
    help="a web page to look at slides and search for what is drawn on them",
    description="Show an index in a browser: its slides, searches for slides and for boxes drawn on them. "
    "Prints the address, with a token that lets in; stops at Ctrl-C.",
    add_options=_add_options,
    run=_run,
)
