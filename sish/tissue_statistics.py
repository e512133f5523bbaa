"""Measure the features of the default encoder on tissue of free licences.

``make weights`` runs it. Its file centres and scales the features (:mod:`sish.tissue`), and stands in for an
archive that is too small to be measured itself (:mod:`sish.calibration`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from sish.index.barcode import barcodes_of
from sish.outputs import write_output
from sish.parsing import ArgumentParser
from sish.slides.files import find_slides
from sish.slides.mosaic import read_patch
from sish.slides.slide import open_slide
from sish.slides.tissue import find_tissue
from sish.tissue import PARTS, PATCH_MPP, PATCH_PX, raw_features
from sish.vqvae.random_pairs import random_pair_distances
from sish.vqvae.stages import STRIDE
from sish.vqvae.tissue_network import TissueNetwork

_SEED = 0
_LEAST = 1e-6  # a feature that varies less is constant but for its rounding
_COVERED = 0.5  # share of a patch of a slide that is tissue
_TRIES = 20  # places drawn for each patch that is wanted
_PAIRS, _PERCENTILE = 200_000, 1.0  # as for the weights of the autoencoder


def statistics_of(images: NDArray[np.float32], slides: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return the numbers that the encoder keeps: mean and spread of its features, and a threshold.

    Features of a part that is standardised get a deviation of 1. Those of another part are divided by one
    number, so that their length is, on average, their weight times that of the first part.

    Parameters
    ----------
    images, slides : float32 (M, F) and (N, F)
        Features of patches, as `sish.tissue.raw_features` gives them. Those of slides may overlap.

    Returns
    -------
    dict
        ``mean`` and ``spread``, each float32 (F,), and ``threshold``, the bits within which 1 % of random
        pairs of images lie.
    """
    raw = np.concatenate([images, slides])
    mean, spread = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, dtype=np.float64)
    spread[spread < _LEAST] = 1
    end = 0
    for part in PARTS:
        begin, end = end, end + part.features
        if not part.standardised:
            length = np.linalg.norm(spread[begin:end])
            spread[begin:end] = length / (part.weight * np.sqrt(PARTS[0].features))
    mean, spread = mean.astype(np.float32), spread.astype(np.float32)
    barcodes = barcodes_of((images - mean) / spread, "projection", centre=np.zeros_like(mean), parts=PARTS)
    threshold = np.percentile(random_pair_distances(barcodes, _PAIRS), _PERCENTILE)
    return {"mean": mean, "spread": spread, "threshold": np.array(threshold, np.int32)}


def features_of_images(folder: Path, mpp: float, count: int) -> NDArray[np.float32]:
    """Return raw features (N, F) of so many images of a folder, each read as one patch."""
    files = find_slides(folder)
    drawn = np.random.default_rng(_SEED).permutation(len(files))[:count]
    network, patches = TissueNetwork(), []
    for number in sorted(drawn):
        with open_slide(files[number], mpp=mpp) as slide:
            patches.append(read_patch(slide, slide.bounds[:2], PATCH_PX, PATCH_MPP, step_px=STRIDE))
    return np.concatenate([raw_features(network(patch[None])) for patch in patches])


def features_of_slide(path: Path, mpp: float, count: int) -> NDArray[np.float32]:
    """Return raw features (N, F) of so many patches of a slide's tissue, which overlap."""
    network, rng = TissueNetwork(), np.random.default_rng(_SEED)
    with open_slide(path, mpp=mpp) as slide:
        tissue = find_tissue(slide)
        left, top, width, height = slide.bounds
        side = PATCH_PX * PATCH_MPP / slide.mpp
        room = np.array([width - side, height - side]).astype(np.int64)
        corners = np.array([left, top]) + rng.integers(0, room, (_TRIES * count, 2))
        kept = corners[tissue.coverage(corners, np.array([side, side])) >= _COVERED][:count]
        pixels = np.stack([slide.read((x, y), PATCH_PX, PATCH_MPP) for x, y in kept.tolist()])
    return raw_features(network(pixels))


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line names, and write the file."""
    parser = ArgumentParser(prog="python -m sish.tissue_statistics", description=__doc__)
    parser.add_argument("output", type=Path, help="file to write, .safetensors")
    parser.add_argument("--images", type=Path, required=True, help="folder of images of a patch each")
    parser.add_argument("--images-mpp", type=float, required=True, help="their um per pixel")
    parser.add_argument("--slides", type=Path, nargs="+", required=True, help="slides")
    parser.add_argument(
        "--slides-mpp", type=float, default=0.5, help="um per pixel of those that do not tell"
    )
    parser.add_argument("--patches", type=int, default=2000, help="half of images, half of slides")
    given = parser.parse_args(arguments)
    half = given.patches // 2
    each = half // len(given.slides)
    images = features_of_images(given.images, given.images_mpp, half)
    slides = [features_of_slide(path, given.slides_mpp, each) for path in given.slides]
    numbers = statistics_of(images, np.concatenate(slides))
    write_output(given.output, save(numbers), replaces=(".safetensors",))
    return 0


if __name__ == "__main__":
    sys.exit(main())
