"""Measure how many neighbours stay when float features become 1,024 bits: signs, centred or not, and min-max.

For each patch of a data set, the ten nearest by the cosine of centred features are compared with the ten
nearest by Hamming distance. The table gives the mean share that both have in common. Features come from the
encoder of sish and, where timm loads, from untrained networks. Images are resized to 96 x 96 px.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import load_dataset
from benchmarks.rows import write_rows
from benchmarks.timm_networks import random_network
from sish.encoders import VQVAE, load
from sish.index.barcode import barcodes_of, minmax_barcodes, nearest
from sish.slides.formats.pictures import decode_picture

K = 10
NETWORKS = ("resnet50", "densenet121", "vit_tiny_patch16_224")
HEADS = ("minus archive mean", "minus own mean", "not centred", "min-max")
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """Neighbours that the bits of one kind of features keep."""

    features: str
    """Their name."""
    length: int
    """Features of a patch."""
    shares: dict[str, float]
    """Share of the ten nearest that stay, by way to make bits (`HEADS`)."""


def row_of(name: str, features: Floats) -> Row:
    """Measure one kind of features (N, F)."""
    centre = features.mean(axis=0)
    kept = features[:, : features.shape[1] // 8 * 8][:, :1024]
    bits = {
        HEADS[0]: barcodes_of(features, "projection", centre=centre),
        HEADS[1]: barcodes_of(features, "projection"),
        HEADS[2]: barcodes_of(features, "projection", centre=np.zeros_like(centre)),
        HEADS[3]: minmax_barcodes(kept),
    }
    wanted = nearest_by_cosine(features - centre)
    return Row(
        name, features.shape[1], {head: share(wanted, nearest_by_bits(it)) for head, it in bits.items()}
    )


def nearest_by_cosine(features: Floats) -> NDArray[np.int64]:
    """Return the rows of the K nearest others of each row, (N, K)."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1, kind="stable")[:, :K]


def nearest_by_bits(barcodes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the rows of the K nearest others of each row, (N, K); ties by number."""
    found = nearest(barcodes, barcodes, K + 1).row
    return np.array([[row for row in rows if row != own][:K] for own, rows in enumerate(found.tolist())])


def share(wanted: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Return the mean share of the wanted neighbours that were found."""
    return float(np.mean([len(set(one) & set(other)) / K for one, other in zip(wanted, found, strict=True)]))


def kinds(images: NDArray[np.uint8]) -> Iterator[tuple[str, Floats]]:
    """Yield the name and the features of each encoder."""
    yield "encoder of sish", load(VQVAE).encode(images).features
    for name in NETWORKS:
        network = random_network(name)
        if network is not None:
            yield f"{name}, untrained", _features_of(network, images)


def _features_of(network: Any, images: NDArray[np.uint8]) -> Floats:
    import torch

    fixed = bool(network.pretrained_cfg.get("fixed_input_size"))
    rows = []
    for image in images:
        pixels = torch.from_numpy(image[None]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            if fixed:
                pixels = torch.nn.functional.interpolate(pixels, (224, 224), mode="bilinear")
            rows.append(network(pixels)[0].numpy())
    return np.stack(rows)


def read_images(folder: Path, count: int) -> NDArray[np.uint8]:
    """Read images of a data set, evenly from its list, uint8 (N, 96, 96, 3)."""
    dataset = load_dataset(folder)
    items = sorted({item.path for item in (*dataset.queries, *dataset.database)})
    chosen = [items[number * len(items) // count] for number in range(min(count, len(items)))]
    return np.stack([np.asarray(decode_picture(path).convert("RGB").resize((96, 96))) for path in chosen])


def table(rows: Sequence[Row]) -> str:
    """Return the shares as text."""
    lines = [f"{'features':32} {'length':>7} " + " ".join(f"{head:>24}" for head in HEADS)]
    for row in rows:
        cells = " ".join(f"{row.shares[head]:24.2f}" for head in HEADS)
        lines.append(f"{row.features:32} {row.length:7} {cells}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.binarisation", description=__doc__)
    parser.add_argument("dataset", type=Path, help="a folder with a labels.csv")
    parser.add_argument("--images", type=int, default=1000, help="images to take")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    given = parser.parse_args(arguments)
    images = read_images(given.dataset, given.images)
    rows = [row_of(name, features) for name, features in kinds(images)]
    print(f"{len(images)} images\n{table(rows)}")
    if given.json:
        write_rows(given.json, [asdict(row) for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
