from .files import find_slides as find_slides, slide_id_of as slide_id_of
from .formats.pictures import decode_picture as decode_picture
from .mosaic import (
    Mosaic as Mosaic,
    Patches as Patches,
    read_patch as read_patch,
    select_mosaic as select_mosaic,
    tile as tile,
)
from .orientations import ORIENTATIONS as ORIENTATIONS, oriented as oriented
from .outlines import outlines as outlines
from .reading import read_patches as read_patches
from .slide import (
    Slide as Slide,
    open_slide as open_slide,
    read_bounds as read_bounds,
    slide_from_array as slide_from_array,
)
from .tissue import TissueMask as TissueMask, find_tissue as find_tissue
