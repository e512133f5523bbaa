"""``sish preview``: a picture of a slide's tissue and mosaic."""

from __future__ import annotations

from jsonargparse import Namespace

from sish.cli.options import Command, add_scale, unused_line
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error, print_line
from sish.recipe import Recipe


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("slide", type=str, help="the slide")
    parser.add_argument("--output", "-o", type=str, required=True, help="the picture to write (.png, .jpg)")
    add_scale(parser, "the slide")
    parser.add_class_arguments(Recipe, "recipe")


def _run(arguments: Namespace) -> int:
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


COMMAND = Command(
    help="picture of a slide's tissue and mosaic",
    description="Picture of a slide: thumbnail, outline of its tissue, mosaic by colour cluster.",
    add_options=_add_options,
    run=_run,
)
