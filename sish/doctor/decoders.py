"""Checks of decoders: each one decodes a small picture whose pixels are known."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sish.doctor.findings import BROKEN, MISSING, OK, Check, first_line

LOSSLESS = 0
LOSSY = 12
"""Largest mean difference of pixels, of 255, that JPEG and JPEG 2000 may make in a smooth picture."""

TIFFS = {
    "none": (None, LOSSLESS),
    "PackBits": ("packbits", LOSSLESS),
    "LZW": ("lzw", LOSSLESS),
    "deflate": ("deflate", LOSSLESS),
    "LZMA": ("lzma", LOSSLESS),
    "zstd": ("zstd", LOSSLESS),
    "JPEG": ("jpeg", LOSSY),
    "JPEG 2000": ("jpeg2000", LOSSY),
}
"""Compressions of TIFF files that sish reads without OpenSlide, their names in tifffile, and their loss."""

PICTURES = {"PNG": LOSSLESS, "TIFF": LOSSLESS, "BMP": LOSSLESS, "JPEG": LOSSY, "WEBP": LOSSY}
"""Formats of plain pictures, and their loss."""

PRIMARIES = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
"""Colours of three quarters of OpenSlide's own test picture: upper left, upper right, lower left."""

VENDORS = "Aperio, DICOM, Hamamatsu, Leica, MIRAX, Philips, Sakura, Trestle, Ventana, Zeiss, generic TIFF"
"""Formats of OpenSlide 4, as its documentation lists them."""

APERIO = "Aperio Image Library v1\n256x256|MPP = 0.5"
"""Description by which OpenSlide knows a slide of Aperio."""

_SIDE_PX = 256
_REINSTALL = "pip install --force-reinstall {}"


def check_openslide() -> Iterator[Check]:
    """Let OpenSlide decode the pictures that it carries for this purpose; all show the same."""
    import numpy as np
    import openslide

    name = "openslide decoders"
    with openslide.OpenSlide("") as slide:  # OPENSLIDE_DEBUG=synthetic, see `sish.doctor.children`
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"), dtype=np.int16)
        properties = dict(slide.properties)
    shown = sorted(
        (int(key[len("synthetic.image[") : -1]), value)
        for key, value in properties.items()
        if key.startswith("synthetic.image[")
    )
    side = pixels.shape[0]
    wrong = []
    for place, kind in shown:
        tile = pixels[:, place * side : (place + 1) * side]
        near, far = slice(2, side // 2 - 2), slice(side // 2 + 2, side - 2)  # JPEG mixes colours at edges
        quarters = tile[near, near], tile[near, far], tile[far, near]
        if any(np.abs(part - c).mean() > LOSSY for part, c in zip(quarters, PRIMARIES, strict=True)):
            wrong.append(kind)
    if wrong or not shown:
        advice = _REINSTALL.format("openslide-bin")
        yield Check(name, BROKEN, f"other pixels than it should show: {', '.join(wrong)}", advice)
        return
    version, kinds = openslide.__library_version__, ", ".join(kind for _, kind in shown)
    yield Check(name, OK, f"OpenSlide {version} decodes {kinds}; it reads {VENDORS}")


def check_slides() -> Iterator[Check]:
    """Write a small slide of each kind that can be written here, and read it."""
    import numpy as np

    from sish.demo.synthetic import write_pyramid
    from sish.slides import open_slide

    truth = _picture()
    kinds: dict[str, Callable[[Path], None]] = {
        "generic TIFF": lambda path: write_pyramid(path, truth),
        "Aperio": lambda path: _write_tiff(path, truth, "jpeg", tile=(128, 128), description=APERIO),
    }
    problems = []
    with tempfile.TemporaryDirectory(prefix="sish-doctor-") as folder:
        for kind, write in kinds.items():
            path = Path(folder, f"{kind}.svs")
            try:
                write(path)
                with open_slide(path) as slide:
                    found = slide.read((0, 0), _SIDE_PX, 0.5)
                    problems += _difference(kind, found, truth, LOSSY)
                    if not np.isclose(slide.mpp, 0.5):
                        problems.append(f"{kind}: scale {slide.mpp}")
            except Exception as error:
                problems.append(f"{kind}: {first_line(error)}")
    yield _told("slides", ", ".join(kinds), problems, "openslide-bin openslide-python")


def check_tiffs() -> Iterator[Check]:
    """Write and read a TIFF in strips of each compression; OpenSlide does not read strips."""
    from sish.slides.formats.tiff import TiffLevels

    truth = _picture()
    problems = []
    with tempfile.TemporaryDirectory(prefix="sish-doctor-") as folder:
        for kind, (compression, loss) in TIFFS.items():
            path = Path(folder, f"{kind}.tif")
            try:
                _write_tiff(path, truth, compression)
                levels = TiffLevels(path)
                found, _ = levels.read_level(0, (0, 0), levels.sizes[0])
                levels.close()
                problems += _difference(kind, found, truth, loss)
            except Exception as error:
                problems.append(f"{kind}: {first_line(error)}")
    yield _told("tiff decoders", ", ".join(TIFFS), problems, "imagecodecs tifffile")


def check_pictures() -> Iterator[Check]:
    """Write and read a plain picture of each format."""
    import numpy as np
    from PIL import Image, features

    from sish.slides.formats.pictures import decode_picture

    truth = _picture()
    problems, lacking = [], []
    with tempfile.TemporaryDirectory(prefix="sish-doctor-") as folder:
        for kind, loss in PICTURES.items():
            if kind == "WEBP" and not features.check("webp"):
                lacking.append(kind)
                continue
            path = Path(folder, f"picture.{kind.lower()}")
            try:
                Image.fromarray(truth).save(path, kind)
                problems += _difference(kind, np.asarray(decode_picture(path)), truth, loss)
            except Exception as error:
                problems.append(f"{kind}: {first_line(error)}")
    if lacking and not problems:
        advice = _REINSTALL.format("pillow")
        yield Check("picture decoders", MISSING, f"Pillow was built without {', '.join(lacking)}", advice)
    else:
        yield _told("picture decoders", ", ".join(PICTURES), problems, "pillow")


def _told(name: str, kinds: str, problems: list[str], packages: str) -> Check:
    if problems:
        return Check(name, BROKEN, "; ".join(problems), _REINSTALL.format(packages))
    return Check(name, OK, kinds)


def _picture() -> Any:
    """Return a smooth picture in the colours of tissue, uint8 (256, 256, 3)."""
    import numpy as np

    y, x = np.mgrid[:_SIDE_PX, :_SIDE_PX] / _SIDE_PX
    wave = np.sin(6 * x) * np.cos(5 * y)
    return np.rint(np.stack([200 + 40 * wave, 130 + 60 * wave, 180 + 30 * wave], axis=-1)).astype(np.uint8)


def _write_tiff(path: Path, pixels: Any, compression: str | None, **options: Any) -> None:
    import tifffile

    tifffile.imwrite(
        path, pixels, compression=compression, photometric="rgb", metadata=None,
        resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **options,
    )  # fmt: skip


def _difference(kind: str, found: Any, truth: Any, loss: float) -> list[str]:
    """Return what is wrong with decoded pixels, if anything."""
    import numpy as np

    if found.shape != truth.shape:
        return [f"{kind}: {found.shape} pixels in place of {truth.shape}"]
    mean = float(np.abs(found.astype(np.int16) - truth).mean())
    return [f"{kind}: pixels differ by {mean:.1f} of 255"] if mean > loss else []
