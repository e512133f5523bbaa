"""The outlines of a mask: polygons along the edges of its pixels, with their holes.

>>> square = np.zeros((3, 3), bool)
>>> square[:2, :2] = True
>>> [[ring.tolist() for ring in piece] for piece in outlines(square)]
[[[[0, 0], [2, 0], [2, 2], [0, 2]]]]
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sish.slides.slide import Slide
from sish.slides.tissue import TissueMask

Ring = NDArray[np.int64]
"""Corners (N, 2), x first, each once: the last is joined to the first."""

_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def outlines(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    """Return the polygons of a mask: for each piece its outer ring, then its holes.

    Pixels that meet at a corner only belong to different pieces. Rings are simple: they neither cross nor
    touch themselves; two rings of a piece may share a corner. So every piece is a valid polygon by the rules
    of GeoJSON and JTS.

    Parameters
    ----------
    mask : bool (H, W)
        The mask.

    Returns
    -------
    list of list of int64 (N, 2)
        Corners of pixels, x first: (0, 0) is the top left corner of the mask. Outer rings run clockwise on
        the screen and holes the other way round. Pieces and rings come in the order of their first pixel.
    """
    numbers, _ = ndimage.label(mask)
    pieces = ndimage.find_objects(numbers)
    return [
        [ring + np.array([columns.start, rows.start]) for ring in _rings(numbers[rows, columns] == number)]
        for number, (rows, columns) in enumerate(pieces, 1)
    ]


def on_slide(ring: Ring, tissue: TissueMask, slide: Slide) -> NDArray[np.floating]:
    """Return a ring of a tissue mask in level-0 pixels, (N, 2), no further than the slide's bounds."""
    left, top, width, height = slide.bounds
    places = ring * tissue.l0_per_px + tissue.l0_xy
    inside: NDArray[np.floating] = np.minimum(places, (left + width, top + height))
    return inside


def _rings(piece: NDArray[np.bool_]) -> Iterator[Ring]:
    """Yield the rings around the edges of a piece; the outer one is first, as it has the first corner."""
    ahead = _edges(piece)
    for start in tuple(ahead):
        while start in ahead:  # its ring was not walked yet
            yield _walk(ahead, start)


def _walk(ahead: dict[tuple[int, int], list[int]], start: tuple[int, int]) -> Ring:
    """Return the ring from a corner along the edges of `ahead`, which are taken out."""
    place, heading = start, ahead[start][0]
    corners: list[tuple[int, int]] = []
    while place != start or not corners:
        before, heading = heading, _next(ahead, place, heading)
        if before != heading or not corners:
            corners.append(place)
        step_x, step_y = _STEPS[heading]
        place = (place[0] + step_x, place[1] + step_y)
    return np.array(corners, np.int64)


def _edges(piece: NDArray[np.bool_]) -> dict[tuple[int, int], list[int]]:
    """Return the headings of the edges that leave each corner, row by row; the piece is on their right."""
    padded = np.pad(piece, 1)
    inside = padded[1:-1, 1:-1]
    beside = {
        _RIGHT: padded[:-2, 1:-1],
        _DOWN: padded[1:-1, 2:],
        _LEFT: padded[2:, 1:-1],
        _UP: padded[1:-1, :-2],
    }
    shifts = {_RIGHT: (0, 0), _DOWN: (1, 0), _LEFT: (1, 1), _UP: (0, 1)}
    found = []
    for heading, other in beside.items():
        rows, columns = np.nonzero(inside & ~other)
        shift_x, shift_y = shifts[heading]
        found.append(np.stack([rows + shift_y, columns + shift_x, np.full(len(rows), heading)], axis=1))
    edges = np.concatenate(found)
    ahead: dict[tuple[int, int], list[int]] = {}
    for y, x, heading in edges[np.lexsort(edges.T[::-1])].tolist():
        ahead.setdefault((x, y), []).append(heading)
    return ahead


def _next(ahead: dict[tuple[int, int], list[int]], place: tuple[int, int], heading: int) -> int:
    """Take the edge that leaves a corner; where two do, the one that turns left, around the gap."""
    headings = ahead[place]
    turned = (heading - 1) % 4
    taken = turned if len(headings) > 1 and turned in headings else headings[0]
    headings.remove(taken)
    if not headings:
        del ahead[place]
    return taken
