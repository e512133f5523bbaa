"""Where things lie on a screen, by screenshots alone: marks of a slide (marked_slides.py) and colours."""

import io
from dataclasses import dataclass

import numpy as np
from marked_slides import FIRST, SECOND
from PIL import Image

NEAR = 60  # of 255, by which a colour of a JPEG tile may be off
LEAST_PX = 12  # pixels of a mark that is in sight


@dataclass(frozen=True)
class Sight:
    """How level-0 pixels of a slide lie on the screen: turned, scaled, moved, and perhaps mirrored."""

    factor: complex
    offset: complex
    mirrored: bool

    @classmethod
    def of(cls, marks: np.ndarray, seen: np.ndarray, mirrored: bool = False) -> "Sight":
        """Return the one that puts two places (2, 2) of the slide where they are seen, (2, 2)."""
        (a, b), (p, q) = (_plane(marks, mirrored), _plane(seen))
        factor = (q - p) / (b - a)
        return cls(factor, p - factor * a, mirrored)

    @property
    def scale(self) -> float:
        """Screen pixels per level-0 pixel."""
        return abs(self.factor)

    def to_screen(self, l0_xy: np.ndarray) -> np.ndarray:
        """Return places (N, 2) of the slide on the screen."""
        found = self.factor * _plane(l0_xy, self.mirrored) + self.offset
        return np.stack([found.real, found.imag], axis=-1)


def _plane(places: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Return places (N, 2) as complex numbers; a mirror swaps left and right."""
    x, y = np.asarray(places, float).T
    return (-x if mirrored else x) + 1j * y


def picture_of(page, selector: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of a part of the page, int (H, W, 3), and its top left corner on the screen."""
    box = page.locator(selector).bounding_box()
    picture = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
    return np.asarray(picture).astype(int), np.array([box["x"], box["y"]])


def slide_in(page, pane: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture of a slide in `#first` or `#second` without the navigator, and where it is."""
    pixels, corner = picture_of(page, f"{pane} .deep-zoom")
    small = page.locator(f"{pane} .navigator").bounding_box()
    left, top = (round(small[side] - at) for side, at in zip("xy", corner, strict=True))
    pixels[top : top + round(small["height"]) + 4, left : left + round(small["width"]) + 4] = 255
    return pixels, corner


def of_colour(pixels: np.ndarray, colour, near: int = NEAR) -> np.ndarray:
    """Return the places (N, 2), x first, of pixels of about a colour."""
    return np.argwhere((np.abs(pixels - np.array(colour)) <= near).all(axis=2))[:, ::-1]


def sight_of(page, pane: str, marks: np.ndarray, mirrored: bool = False) -> Sight:
    """Return how a slide whose marks are known lies in a pane, once both are seen and at rest."""
    before = None
    for _ in range(40):
        pixels, corner = slide_in(page, pane)
        found = [of_colour(pixels, colour) for colour in (FIRST, SECOND)]
        if all(len(places) >= LEAST_PX for places in found):
            seen = np.array([(places.min(axis=0) + places.max(axis=0) + 1) / 2 for places in found]) + corner
            if before is not None and np.abs(seen - before).max() < 0.5:
                return Sight.of(marks, seen, mirrored)
            before = seen
        page.wait_for_timeout(100)
    raise AssertionError(f"the marks of the slide in {pane} are not both in sight")
