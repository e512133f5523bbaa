"""``sish export``: write the patches of an index as a table."""

from __future__ import annotations

from jsonargparse import Namespace

from sish.cli.options import Command, add_index, open_index
from sish.parsing import ArgumentParser
from sish.printing import counted, print_line


def _add_options(parser: ArgumentParser) -> None:
    add_index(parser)
    parser.add_argument("--parquet", type=str, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--slides", type=str, nargs="+", metavar="ID", help="only these, ids as sish index list shows them"
    )


def _run(arguments: Namespace) -> int:
    from sish.parquet import check_parquet

    check_parquet(arguments.parquet)
    patches = open_index(arguments).to_parquet(arguments.parquet, slide_ids=arguments.slides)
    print_line(f"{arguments.parquet}: {counted(patches, 'patch', 'es')}")
    return 0


COMMAND = Command(
    help="write an index's patches as Parquet: places, keys, barcodes",
    description="Write the patches of an index as Parquet, a row each: slide_id, x, y, size, mpp, key, "
    "barcode and, if the index keeps them, vector.",
    add_options=_add_options,
    run=_run,
)
