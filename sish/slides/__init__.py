"""Slides: pixels by place and scale, tissue, the mosaic, and the files that hold them."""
