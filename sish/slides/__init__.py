"""Slides: pixels by place and scale, the tissue, the mosaic, and the files that hold them.

Places are level-0 pixels, x first; scales are micrometres per pixel (``mpp``); pixels are uint8 (H, W, 3),
RGB. The names below are imported from their modules when they are first used, so ``import sish.slides`` is
light.

- :func:`open_slide` and :func:`slide_from_array` make a :class:`Slide`, of a file or of an image in memory
- :func:`read_bounds` returns the part of a slide that was scanned
- :func:`find_slides` lists the slides below a folder, and :func:`slide_id_of` names one
- :func:`find_tissue` returns a :class:`TissueMask`, and :func:`outlines` the polygons of a mask
- :func:`tile` covers the tissue with :class:`Patches`; :func:`select_mosaic` takes a :class:`Mosaic` of them
- :func:`read_patch` reads one patch, and :func:`read_patches` many, by several threads
- :func:`oriented` turns patches into one of their eight :data:`ORIENTATIONS`
- :func:`decode_picture` decodes a picture file, upright and in 8 bits

A slide in memory, or a file, gives its mosaic in three lines:

>>> import numpy as np
>>> from sish import slides
>>> pixels = np.full((1200, 1200, 3), 240, np.uint8)
>>> pixels[100:1100, 100:1100] = (200, 90, 160)
>>> slide = slides.slide_from_array(pixels, mpp=1.0)
>>> tiles = slides.tile(slide, slides.find_tissue(slide), size_px=100)
>>> mosaic = slides.select_mosaic(slide, tiles)
>>> len(tiles), len(mosaic), mosaic.l0_xy.shape
(100, 5, (5, 2))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
