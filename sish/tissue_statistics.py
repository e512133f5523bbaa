"""Measure the features of the default encoder on tissue of free licences.

``make weights`` runs it. Its file centres and scales the features (:mod:`sish.tissue`), and stands in for an archive
that is too small to be measured itself (:mod:`sish.calibration`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from sish.calibration import Calibration
from sish.encode import SlideEncoder
from sish.outputs import write_output
from sish.parsing import ArgumentParser
from sish.slides.files import find_slides
from sish.slides.reading import read_patches
from sish.slides.slide import open_slide
from sish.tissue import PARTS, raw_features
from sish.vqvae.tissue_network import STRIDE, TissueNetwork

_SEED = 0


def statistics_of(raw: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return mean and spread that give features (M, F) their weights.

    Features of a part that is standardised get a deviation of 1. Those of another part are divided by one number, so
    that their length is, on average, their weight times that of the first part.

    Parameters
    ----------
    raw : float32 (M, F)
        Features of some patches, as `sish.tissue.raw_features` gives them.

    Returns
    -------
    dict
        ``mean`` and ``spread``, each float32 (F,).
    """
    mean = raw.mean(axis=0, dtype=np.float64)
    spread = raw.std(axis=0, dtype=np.float64)
    first = PARTS[0].features
    end = 0
    for part in PARTS:
        begin, end = end, end + part.features
        if not part.standardised:
            length = np.sqrt(np.square(spread[begin:end]).sum())
            spread[begin:end] = length / (part.weight * np.sqrt(first))
    spread[spread == 0] = 1
    return {"mean": mean.astype(np.float32), "spread": spread.astype(np.float32)}


def raw_features_of(place: Path, mpp: float, most: int) -> NDArray[np.float32]:
    """Return raw features (M, F) of patches of slides, or of one patch each of drawn images.

    Parameters
    ----------
    place : Path
        A slide, or a folder of slides and images.
    mpp : float
        Scale in um per pixel of those that do not tell it.
    most : int
        Largest number of files; they are drawn at random, always the same.

    Returns
    -------
    float32 (M, F)
        Their features.
    """
    network, coder = TissueNetwork(), SlideEncoder()
    files = find_slides(place)
    drawn = np.random.default_rng(_SEED).permutation(len(files))[:most]
    found = []
    for number in sorted(drawn):
        with open_slide(files[number], mpp=mpp) as slide:
            corners = coder.prepare(slide).mosaic.l0_xy
            batches = read_patches(slide, corners, coder.recipe.patch_px, coder.recipe.mpp, step_px=STRIDE)
            found += [raw_features(network(pixels)) for pixels in batches]
    return np.concatenate(found)


def main(arguments: list[str] | None = None) -> int:
    """Measure the places that the command line names, and write the file."""
    parser = ArgumentParser(prog="python -m sish.tissue_statistics", description=__doc__)
    parser.add_argument("output", type=Path, help="file to write, .safetensors")
    parser.add_argument("places", type=Path, nargs="+", help="slides, or folders of slides and images")
    parser.add_argument("--mpp", type=float, default=1.0, help="um per pixel where a file does not tell it")
    parser.add_argument("--most", type=int, default=2000, help="files of a folder at most")
    given = parser.parse_args(arguments)
    raw = np.concatenate([raw_features_of(place, given.mpp, given.most) for place in given.places])
    numbers = statistics_of(raw)
    features = (raw - numbers["mean"]) / numbers["spread"]
    numbers["threshold"] = np.array(Calibration.learn(features, PARTS).threshold, np.int32)
    write_output(given.output, save(numbers, {"patches": str(len(raw))}), replaces=(".safetensors",))
    return 0


if __name__ == "__main__":
    sys.exit(main())
