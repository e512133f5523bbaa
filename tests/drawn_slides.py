"""Slides drawn for tests of tissue: glass of any colour, tissue with nuclei, and ink, at 4 um per pixel."""

import numpy as np

GLASS = (244, 243, 245)
MPP = 4.0

INKS = {
    "blue": (40, 60, 170),
    "green": (20, 140, 80),
    "red": (200, 40, 50),
    "black": (45, 45, 50),
}


def glass(height: int = 500, width: int = 600, colour=GLASS, noise: float = 2.0) -> np.ndarray:
    """Noisy glass, float (height, width, 3)."""
    rng = np.random.default_rng(0)
    return np.array(colour, float) + rng.normal(0, noise, (height, width, 3))


def stain(pixels: np.ndarray, box, dye=(222, 150, 190), nuclei=(110, 70, 150), seed: int = 1) -> np.ndarray:
    """Put tissue on glass: light passes through both. Returns where it is, bool (H, W).

    box: top, left, height, width. dye, nuclei: their colours on white glass.
    """
    top, left, height, width = box
    rng = np.random.default_rng(seed)
    light = np.ones((height, width, 3)) * dye
    light *= rng.normal(1, 0.06, (height, width, 1))
    rows, columns = np.mgrid[:height, :width]
    for _ in range(height * width // 40):
        y, x = rng.integers(0, height), rng.integers(0, width)
        near = np.s_[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        inside = (rows[near] - y) ** 2 + (columns[near] - x) ** 2 <= 4
        light[near][inside] = nuclei
    pixels[top : top + height, left : left + width] *= light / 255
    where = np.zeros(pixels.shape[:2], bool)
    where[top : top + height, left : left + width] = True
    return where


def draw_ink(pixels: np.ndarray, box, colour) -> np.ndarray:
    """Draw a stroke along a box (top, left, height, width), thicker in places; returns where it is."""
    top, left, height, width = box
    where = np.zeros(pixels.shape[:2], bool)
    where[top : top + height, left : left + width] = True
    amount = 1 + 0.2 * np.sin(np.arange(width) * MPP / 80)
    density = -np.log(np.array(colour) / 255)
    pixels[top : top + height, left : left + width] *= np.exp(-amount[None, :, None] * density)
    return where


def picture(pixels: np.ndarray) -> np.ndarray:
    """Pixels as a camera stores them, uint8."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
