"""``sish preview``: a slide's tissue and mosaic, as a picture or for QuPath."""

from __future__ import annotations

from jsonargparse import Namespace

from sish.cli.options import Command, add_origin, add_scale, unused_line
from sish.errors import ParameterError
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error, print_line
from sish.recipe import Recipe


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("slide", type=str, help="the slide")
    parser.add_argument("--output", "-o", type=str | None, help="the picture to write (.png, .jpg)")
    parser.add_argument(
        "--geojson", type=str | None, metavar="FILE", help="write tissue and mosaic for QuPath (.geojson)"
    )
    add_origin(parser)
    add_scale(parser, "the slide")
    parser.add_class_arguments(Recipe, "recipe")


def _run(arguments: Namespace) -> int:
    from sish.encode import SlideEncoder
    from sish.geojson import check_geojson
    from sish.preview import check_picture, draw_mosaic, write_picture
    from sish.qupath import write_preview
    from sish.slides.scale import is_unused
    from sish.slides.slide import open_slide

    output, geojson = arguments.output, arguments.geojson
    if output is None and geojson is None:
        raise ParameterError("got nothing to write; give -o PICTURE.png, --geojson FILE.geojson, or both")
    if output is not None:
        check_picture(output, arguments.slide)
    if geojson is not None:
        check_geojson(geojson, inputs=[arguments.slide])
    with open_slide(arguments.slide, mpp=arguments.mpp, override_mpp=arguments.override_mpp) as slide:
        if arguments.override_mpp is None and is_unused(arguments.mpp, slide.mpp):
            print_error(unused_line(1))
        prepared = SlideEncoder(Recipe(**arguments.recipe)).prepare(slide)
        mosaic = prepared.mosaic
        if output is not None:
            write_picture(draw_mosaic(slide, prepared.tissue, mosaic), output, slide=arguments.slide)
        if geojson is not None:
            write_preview(slide, prepared.tissue, mosaic, geojson, origin=arguments.origin)
    patches, tiles = counted(len(mosaic), "patch", "es"), counted(mosaic.n_tiles, "tile")
    written = " and ".join(filter(None, (output, geojson)))
    print_line(f"{written}: {patches} of {tiles} of tissue")
    if not len(mosaic):
        print_line(f"  {prepared.tissue.hint}")
    return 0


COMMAND = Command(
    help="a slide's tissue and mosaic, as a picture or for QuPath",
    description="Picture of a slide: thumbnail, outline of its tissue, mosaic by colour cluster; or the same "
    "as GeoJSON for QuPath.",
    add_options=_add_options,
    run=_run,
)
