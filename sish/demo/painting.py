"""Paint synthetic tissue that looks like H&E under a microscope, from a seed.

Six kinds of tissue are painted as optical densities of two stains, hematoxylin (nuclei) and eosin (everything
else), and mixed by Beer and Lambert's law as on a real slide. Broad structure is painted at 1 um/px, nuclei
and grain at 0.5 um/px, the scale of the result. All lengths below are micrometres.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Field = NDArray[np.float32]
Points = NDArray[np.float64]

MPP = 0.5
"""Micrometres per pixel of a painted slide."""

HEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.10, 0.90, 0.40])
"""Optical density in red, green and blue per unit of stain, from Ruifrok and Johnston (2001), with a less
magenta eosin, as on most scanners."""

NUCLEAR = 1.25
"""Density of a nucleus drawn with depth 1."""

GLASS = 244.0
"""Brightness of empty glass."""

ANGLES = 12
"""Directions in which nuclei are drawn, over half a turn."""


@dataclass(frozen=True, slots=True)
class Look:
    """The look of a slide: stain, colour, size and density, which differ between slides of one tissue."""

    hematoxylin: float
    """Strength of the nuclear stain, about 1."""
    eosin: float
    """Strength of the other stain, about 1."""
    tint: tuple[float, float, float]
    """Shift of the stains' colours, each about 0."""
    scale: float
    """Size of structures and cells, about 1."""
    density: float
    """Density of cells, about 1."""


@dataclass(slots=True)
class Canvas:
    """A tissue while it is painted."""

    rng: np.random.Generator
    """Source of all random numbers."""
    look: Look
    """The slide's look."""
    eosin: Field
    """Eosin at 1 um/px, (h, w)."""
    blue: Field
    """Diffuse hematoxylin at 1 um/px, (h, w)."""
    nuclei: Field
    """Hematoxylin of nuclei at 0.5 um/px, (2h, 2w)."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in um."""
        height, width = self.eosin.shape
        return height, width


def paint(
    tissue: str, shape_um: tuple[int, int], look: Look, seed: int, pieces: int = 1
) -> NDArray[np.uint8]:
    """Paint a slide with white glass around the tissue.

    The same arguments give the same pixels.

    Parameters
    ----------
    tissue : str
        A key of TISSUES.
    shape_um : tuple of int
        Height h and width w in micrometres.
    look : Look
        The slide's look.
    seed : int
        The seed of everything painted.
    pieces : int
        Separate regions of tissue.

    Returns
    -------
    ndarray
        The slide at 0.5 um/px, uint8 (2h, 2w, 3).
    """
    rng = np.random.default_rng(seed)
    height, width = shape_um
    canvas = Canvas(
        rng,
        look,
        np.zeros(shape_um, np.float32),
        np.zeros(shape_um, np.float32),
        np.zeros((2 * height, 2 * width), np.float32),
    )
    TISSUES[tissue](canvas)
    return develop(canvas, outline(canvas, pieces))


def develop(canvas: Canvas, presence: Field) -> NDArray[np.uint8]:
    """Mix the stains where tissue is present; return uint8 (2h, 2w, 3)."""
    look, rng = canvas.look, canvas.rng
    shape = canvas.nuclei.shape
    uneven: Field = 1 + np.float32(0.08) * noise(rng, canvas.shape, 160)
    there = enlarge(presence, shape)
    eosin = enlarge(canvas.eosin * uneven, shape) * there * np.float32(look.eosin)
    blue = enlarge(canvas.blue * uneven, shape) + np.float32(NUCLEAR) * canvas.nuclei
    blue *= there * np.float32(look.hematoxylin)
    # A nucleus takes the place of cytoplasm.
    eosin *= 1 - 0.55 * np.minimum(canvas.nuclei, 1)
    np.maximum(eosin, 0, out=eosin)
    grain = 1 + 0.10 * tiled_grain(rng, shape)
    eosin *= grain
    blue *= grain
    vectors = (HEMATOXYLIN + 0.05 * np.array(look.tint), EOSIN + 0.04 * np.array(look.tint[::-1]))
    out = np.empty((*shape, 3), np.uint8)
    for channel in range(3):
        density = blue * np.float32(vectors[0][channel]) + eosin * np.float32(vectors[1][channel])
        out[..., channel] = np.float32(GLASS) * np.exp(-density) + 0.5
    return out


def outline(canvas: Canvas, pieces: int) -> Field:
    """Draw where tissue is, 0 to 1 at 1 um/px: ragged ovals side by side, one for each piece."""
    height, width = canvas.shape
    y, x = np.ogrid[:height, :width]
    rng = canvas.rng
    ragged = 0.09 * noise(rng, canvas.shape, 170) + 0.015 * noise(rng, canvas.shape, 22)
    best = np.full(canvas.shape, -1.0, np.float32)
    for piece in range(pieces):
        centre_x = width * (piece + 0.5) / pieces + rng.normal(0, 0.02 * width)
        centre_y = height * (0.5 + rng.normal(0, 0.03))
        radius_x = width / pieces * rng.uniform(0.38, 0.44)
        radius_y = height * rng.uniform(0.36, 0.44)
        turned = rng.normal(0, 0.25)
        across, down = (x - centre_x) / radius_x, (y - centre_y) / radius_y
        oval = 1 - np.hypot(across + turned * down, down - turned * across)
        best = np.maximum(best, oval.astype(np.float32))
    return step(best + ragged, 1 / 60)


def noise(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Field:
    """Draw smooth noise with features of ``size`` pixels, mean about 0, deviation about 1."""
    height, width = (int(side / size) + 4 for side in shape)
    coarse = rng.standard_normal((height, width)).astype(np.float32)
    # Without a random shift, the lattice would show at the same places in all fields.
    left, top = rng.uniform(0, 1, 2)
    box = (1 + left, 1 + top, 1 + left + shape[1] / size, 1 + top + shape[0] / size)
    box = (box[0], box[1], min(box[2], width), min(box[3], height))
    large = Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box)
    field: Field = np.asarray(large) * np.float32(1.3)
    return field


def enlarge(field: Field, shape: tuple[int, ...]) -> Field:
    """Enlarge a field to the shape of a finer one."""
    return np.asarray(Image.fromarray(field).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def tiled_grain(rng: np.random.Generator, shape: tuple[int, ...], side: int = 512) -> Field:
    """Draw fine grain of deviation 1: one square, repeated from a random place on."""
    square = ndimage.gaussian_filter(rng.standard_normal((side, side)).astype(np.float32), 0.8, mode="wrap")
    square = np.roll(square / square.std(), tuple(rng.integers(0, side, 2)), (0, 1))
    repeats = (-(-shape[0] // side), -(-shape[1] // side))
    grain: Field = np.tile(square, repeats)[: shape[0], : shape[1]]
    return grain


def scatter(rng: np.random.Generator, shape: tuple[int, int], spacing: float, jitter: float = 0.35) -> Points:
    """Draw points (N, 2), y first, on a hexagonal lattice shaken by ``jitter`` of its spacing."""
    rows = np.arange(0, shape[0] + spacing, spacing * 0.87)
    columns = np.arange(0, shape[1] + spacing, spacing)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    x = x + (np.arange(len(rows)) % 2)[:, None] * spacing / 2
    points = np.stack([y.ravel(), x.ravel()], axis=1)
    points += rng.normal(0, jitter * spacing, points.shape)
    inside = (points >= 0).all(axis=1) & (points < np.array(shape) - 1).all(axis=1)
    kept: Points = points[inside]
    return kept


def at(field: NDArray[np.floating], points: Points) -> NDArray[np.floating]:
    """Return the values of a field (at 1 um/px) at points."""
    y, x = points.astype(np.intp).T
    values: NDArray[np.floating] = field[y, x]
    return values


def cells(shape: tuple[int, int], centres: Points) -> Field:
    """Return each pixel's distance to the border of its Voronoi cell, (h, w)."""
    seeds = np.ones(shape, bool)
    rows, columns = centres.astype(np.intp).T
    seeds[rows, columns] = False
    near = ndimage.distance_transform_edt(seeds, return_distances=False, return_indices=True)
    owner = near[0] * shape[1] + near[1]
    inside = np.ones(shape, bool)
    inside[:-1] &= owner[:-1] == owner[1:]
    inside[:, :-1] &= owner[:, :-1] == owner[:, 1:]
    distance: Field = ndimage.distance_transform_edt(inside).astype(np.float32)
    return distance


def rounded(field: Field, size: float) -> Field:
    """Blur the ridges and corners of a field, so that Voronoi cells lose their straight edges."""
    smooth: Field = ndimage.gaussian_filter(field, size, truncate=2.5)
    return smooth


def step(field: NDArray[np.floating], softness: float) -> Field:
    """Return 0 below zero and 1 above, with a ramp as wide as ``softness``."""
    ramp: Field = np.clip(field / softness + 0.5, 0, 1).astype(np.float32)
    return ramp


def stamp_nuclei(
    canvas: Canvas,
    points: Points,
    radius: float,
    *,
    long: float = 1.2,
    angle: NDArray[np.floating] | None = None,
    depth: float = 1.0,
) -> None:
    """Draw nuclei at points.

    Parameters
    ----------
    canvas : Canvas
        What to draw on.
    points : ndarray
        Centres in micrometres, (N, 2), y first.
    radius : float
        Half the short axis in micrometres.
    long : float
        Ratio of the axes.
    angle : ndarray, optional
        Direction of the long axis at each point in radians, (N,); random if None.
    depth : float
        Optical density.
    """
    rng = canvas.rng
    if angle is None:
        angle = rng.uniform(0, np.pi, len(points))
    half = int(np.ceil(max(SIZES) * radius / MPP * long)) + 2
    shapes = [(radius * size / MPP, np.pi * turn / ANGLES) for turn in range(ANGLES) for size in SIZES]
    bank = [nucleus(rng, half, radius_px, long, turned) for radius_px, turned in shapes]
    turns = np.rint(angle / np.pi * ANGLES + rng.normal(0, 0.5, len(points))).astype(int) % ANGLES
    kinds = turns * len(SIZES) + rng.integers(0, len(SIZES), len(points))
    depths = (depth * rng.uniform(0.75, 1.2, len(points))).astype(np.float32)
    height, width = canvas.nuclei.shape
    corners = np.rint(points / MPP).astype(int) - half
    fits = (corners >= 0).all(axis=1) & (corners < np.array([height, width]) - 2 * half - 1).all(axis=1)
    drawn = zip(corners[fits].tolist(), kinds[fits].tolist(), depths[fits], strict=True)
    for (top, left), kind, strength in drawn:
        place = canvas.nuclei[top : top + 2 * half + 1, left : left + 2 * half + 1]
        np.maximum(place, bank[kind] * strength, out=place)


SIZES = (0.85, 1.0, 1.0, 1.18)
"""Relative sizes of nuclei."""


def nucleus(rng: np.random.Generator, half: int, radius: float, long: float, angle: float) -> Field:
    """Draw a nucleus, an ellipse with a crisp membrane and clumped chromatin, (2 half + 1, 2 half + 1)."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    along = (x * np.cos(angle) + y * np.sin(angle)) / (radius * long)
    across = (y * np.cos(angle) - x * np.sin(angle)) / radius
    distance = np.hypot(along, across)
    bumps = ndimage.gaussian_filter(rng.standard_normal(x.shape), 1.2)
    body = np.clip((1.0 + 0.25 * bumps - distance) * radius * 0.9, 0, 1)
    chromatin = 0.78 + 0.5 * bumps + 0.25 * np.clip(distance, 0, 1) ** 2
    picture: Field = (body * np.clip(chromatin, 0.35, 1.2)).astype(np.float32)
    return picture


def fibres(canvas: Canvas, width: float, waviness: float) -> tuple[Field, Field]:
    """Draw wavy strands; return their strength, 0 to 1, and direction in radians, both at 1 um/px."""
    rng, (height, wide) = canvas.rng, canvas.shape
    y, x = np.mgrid[:height, :wide].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    across = y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))
    along = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    bend = waviness * (34 * noise(rng, canvas.shape, 120) + 7 * noise(rng, canvas.shape, 38))
    across = across + bend
    texture = ndimage.gaussian_filter(rng.standard_normal((512, 512)).astype(np.float32), 1.0, mode="wrap")
    texture /= texture.std()
    places = np.stack([across / width * 2, along / (width * 9)])
    strands = ndimage.map_coordinates(texture, places, order=1, mode="grid-wrap")
    slope_y, slope_x = np.gradient(across)
    direction: Field = np.arctan2(slope_x * -1, slope_y).astype(np.float32)
    return (1 / (1 + np.exp(-1.8 * strands))).astype(np.float32), direction


def fill_stroma(
    canvas: Canvas, where: Field | None = None, *, depth: float = 0.55, spacing: float = 22.0
) -> None:
    """Paint fibrous tissue with spindle nuclei, everywhere or where a field says."""
    strength, direction = fibres(canvas, 3.2 * canvas.look.scale, 0.8)
    eosin = depth * (0.35 + 0.8 * strength)
    canvas.eosin += eosin if where is None else eosin * where
    points = scatter(canvas.rng, canvas.shape, spacing * canvas.look.scale / canvas.look.density)
    if where is not None:
        points = points[at(where, points) > 0.6]
    stamp_nuclei(canvas, points, 1.7 * canvas.look.scale, long=3.6, angle=at(direction, points), depth=0.95)


def glandular(canvas: Canvas) -> None:
    """Paint glands: rings of tall cells around a lumen, in loose stroma."""
    rng, look = canvas.rng, canvas.look
    spacing = 118 * look.scale
    border = rounded(cells(canvas.shape, scatter(rng, canvas.shape, spacing, 0.16)), 6)
    depth = border - 9 * look.scale / look.density + 5 * noise(rng, canvas.shape, 30)
    tall = 22 * look.scale
    gland = step(depth, 2)
    lumen = step(depth - tall - 3 * noise(rng, canvas.shape, 14), 2.5)
    fill_stroma(canvas, 1 - gland, depth=0.5, spacing=19)
    wall = gland * (1 - lumen)
    canvas.eosin += wall * (0.42 + 0.12 * np.sin(depth / 3))
    canvas.blue += wall * 0.10
    canvas.eosin += lumen * 0.05 * (noise(rng, canvas.shape, 25) > 0.6)
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(depth, 2))
    points = scatter(rng, canvas.shape, 6.4 * look.scale / look.density, 0.28)
    level = at(depth, points)
    points = points[(level > 3.5) & (level < tall * 0.55)]
    angle = np.arctan2(at(slope_y, points), at(slope_x, points)) % np.pi
    stamp_nuclei(canvas, points, 2.3 * look.scale, long=1.9, angle=angle, depth=1.05)


def lymphoid(canvas: Canvas) -> None:
    """Paint packed small round nuclei, with paler follicles of larger cells."""
    rng, look = canvas.rng, canvas.look
    border = rounded(cells(canvas.shape, scatter(rng, canvas.shape, 330 * look.scale, 0.2)), 25)
    follicle = step(border - 82 * look.scale + 9 * noise(rng, canvas.shape, 50), 14)
    canvas.eosin += 0.26 + 0.08 * noise(rng, canvas.shape, 12) * (1 - follicle) + 0.06 * follicle
    canvas.blue += 0.10 + 0.04 * (1 - follicle)
    small = scatter(rng, canvas.shape, 7.0 * look.scale / look.density, 0.2)
    small = small[at(follicle, small) < rng.uniform(0.1, 0.6, len(small))]
    stamp_nuclei(canvas, small, 2.6 * look.scale, long=1.06, depth=1.25)
    large = scatter(rng, canvas.shape, 10.5 * look.scale / look.density, 0.25)
    stamp_nuclei(canvas, large[at(follicle, large) > 0.5], 3.7 * look.scale, long=1.2, depth=0.62)


def fibrous(canvas: Canvas) -> None:
    """Paint dense wavy collagen with few spindle cells and clefts."""
    fill_stroma(canvas, depth=0.72, spacing=27)
    strands, _ = fibres(canvas, 9 * canvas.look.scale, 1.0)
    canvas.eosin *= 0.45 + 0.9 * strands
    clefts = step(strands * -1 + 0.16, 0.05)
    canvas.eosin *= 1 - 0.8 * clefts


def adipose(canvas: Canvas) -> None:
    """Paint large empty fat cells with thin walls, and septa."""
    rng, look = canvas.rng, canvas.look
    border = rounded(cells(canvas.shape, scatter(rng, canvas.shape, 62 * look.scale / look.density, 0.2)), 3)
    septum = step(0.12 - np.abs(noise(rng, canvas.shape, 240)), 0.03)
    wall = step(2.9 + 0.4 * noise(rng, canvas.shape, 20) - border, 0.9)
    # Solvents leave a faint tint of the fat.
    canvas.eosin += (0.07 + 0.6 * wall) * (1 - septum)
    fill_stroma(canvas, septum, depth=0.6, spacing=20)
    points = scatter(rng, canvas.shape, 15 * look.scale)
    points = points[(at(border, points) < 2.9) & (rng.random(len(points)) < 0.55)]
    stamp_nuclei(canvas, points, 1.7 * look.scale, long=2.4, depth=1.0)


def squamous(canvas: Canvas) -> None:
    """Paint nests with a dark rim that ripen inwards to whorls of keratin, in stroma."""
    rng, look = canvas.rng, canvas.look
    border = rounded(cells(canvas.shape, scatter(rng, canvas.shape, 245 * look.scale, 0.2)), 9)
    depth = border - 17 * look.scale / look.density + 10 * noise(rng, canvas.shape, 55)
    depth = depth + 3 * noise(rng, canvas.shape, 18)
    nest = step(depth, 2.5)
    pearl = step(depth - 62 * look.scale - 9 * noise(rng, canvas.shape, 60), 6)
    fill_stroma(canvas, 1 - nest, depth=0.5, spacing=14)
    canvas.eosin += nest * (1 - pearl) * (0.45 + np.clip(depth, 0, 60) * 0.006)
    canvas.blue += nest * np.clip(0.24 - depth * 0.006, 0, 1)
    whorls = 0.5 + 0.5 * np.sin(depth / (1.5 * look.scale) + 2 * noise(rng, canvas.shape, 25))
    canvas.eosin += pearl * (0.8 + 0.5 * whorls)
    points = scatter(rng, canvas.shape, 8.2 * look.scale / look.density, 0.24)
    level = at(depth, points)
    rim = (level > 2) & (level < 20 * look.scale)
    stamp_nuclei(canvas, points[rim], 2.7 * look.scale, long=1.5, depth=1.15)
    inner = scatter(rng, canvas.shape, 12.5 * look.scale / look.density, 0.24)
    inner = inner[(at(depth, inner) >= 20 * look.scale) & (at(pearl, inner) < 0.3)]
    stamp_nuclei(canvas, inner, 3.1 * look.scale, long=1.3, depth=0.8)
    walls = cells(canvas.shape, inner) if len(inner) else np.full(canvas.shape, 9, np.float32)
    middle = nest * (1 - pearl) * (depth >= 20 * look.scale)
    canvas.eosin *= 1 - 0.45 * middle * step(1.2 - walls, 1)


def hepatic(canvas: Canvas) -> None:
    """Paint plates of large polygonal cells with round central nuclei, between sinusoids, around veins."""
    rng, look = canvas.rng, canvas.look
    centres = scatter(rng, canvas.shape, 21 * look.scale / look.density, 0.17)
    walls = cells(canvas.shape, centres)
    vein = step(noise(rng, canvas.shape, 170) - 1.9, 0.12)
    sinus = step(0.13 - np.abs(noise(rng, canvas.shape, 32)), 0.06)
    open_space = np.maximum(vein, 0.9 * sinus)
    granules = 1 + 0.13 * noise(rng, canvas.shape, 3.5)
    canvas.eosin += (0.80 * granules - 0.38 * step(1.3 - walls, 1)) * (1 - open_space)
    canvas.blue += 0.12 * granules * (1 - open_space)
    centres = centres[at(open_space, centres) < 0.4]
    stamp_nuclei(canvas, centres, 3.6 * look.scale, long=1.06, depth=1.2)
    lining = scatter(rng, canvas.shape, 15 * look.scale)
    lining = lining[(at(sinus, lining) > 0.3) & (at(vein, lining) < 0.2)]
    stamp_nuclei(canvas, lining, 1.5 * look.scale, long=2.6, depth=1.05)


TISSUES: dict[str, Callable[[Canvas], None]] = {
    "glandular": glandular,
    "lymphoid": lymphoid,
    "fibrous": fibrous,
    "adipose": adipose,
    "squamous": squamous,
    "hepatic": hepatic,
}
"""The painter of each tissue, by name."""
