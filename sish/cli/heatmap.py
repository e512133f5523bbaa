"""``sish heatmap``: where on an indexed slide it looks like a query."""

from __future__ import annotations

import numpy as np
from jsonargparse import Namespace

from sish.cli.options import Command, add_device, add_index, add_json, open_index, show
from sish.outputs import check_output
from sish.parsing import ArgumentParser
from sish.printing import counted
from sish.progress import shown


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("slide_id", type=str, help="the indexed slide")
    parser.add_argument("--query", type=str, required=True, help="slide or image that it is compared with")
    add_index(parser)
    parser.add_argument("--output", "-o", type=str, required=True, help="the picture to write (.png, .jpg)")
    parser.add_argument(
        "--region", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="part of the query, level-0 pixels"
    )
    parser.add_argument("--mpp", type=float | None, help="scale in um per pixel of a query that tells none")
    parser.add_argument("--weights", type=str | None, help="where the encoder's weights are now")
    add_device(parser)
    add_json(parser, "print the distance of each tile as JSON")


def _run(arguments: Namespace) -> int:
    from sish.preview import PICTURES, check_picture, write_picture

    index, output = open_index(arguments), arguments.output
    check_picture(output, arguments.query)
    check_output(output, inputs=(row.path for row in index.slides if row.path), replaces=tuple(PICTURES))
    region = tuple(arguments.region) if arguments.region else None
    with shown("tiles") as tell:
        heatmap = index.heatmap(
            arguments.slide_id, arguments.query, region=region, mpp=arguments.mpp, on_progress=tell
        )
    write_picture(heatmap.draw(), output, slide=heatmap.row.path)
    nearest = f", the nearest at {heatmap.hamming.min()} bits" if len(heatmap) else ""
    line = (
        f"{output}: {heatmap.n_similar} of {counted(len(heatmap), 'tile')} of tissue within the threshold of "
        f"{heatmap.threshold} bits{nearest}, median {np.median(heatmap.hamming):g}"
    )
    show(arguments, heatmap.to_dict(), [line])
    return 0


COMMAND = Command(
    help="where on an indexed slide it looks like a query",
    description="Picture of an indexed slide whose tissue is coloured by its distance to a query.",
    add_options=_add_options,
    run=_run,
)
