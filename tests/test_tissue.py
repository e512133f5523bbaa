"""The default encoder: its features, and a process that has no torch."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sish.demo.synthetic import write_slides
from sish.encode import PaperKeys, SlideEncoder
from sish.encoders import load
from sish.index.projection import project
from sish.recipe import Recipe
from sish.slides.orientations import oriented
from sish.tissue import PARTS, TissueEncoder, raw_features
from sish.vqvae.tissue_network import TissueNetwork, TissueParts

ENDS = np.cumsum([part.features for part in PARTS]).tolist()


@pytest.fixture(scope="module")
def encoder():
    return TissueEncoder()


@pytest.fixture(scope="module")
def patches():
    """Coloured noise of two grains, uint8 (8, 64, 64, 3)."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(60, 256, (8, 8, 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + rng.normal(0, 10, coarse.shape), 0, 255).astype(np.uint8)


def test_it_is_the_default():
    assert Recipe().weights == "tissue"
    assert isinstance(load(Recipe().weights), TissueEncoder)
    assert SlideEncoder().model.fingerprint == TissueEncoder().fingerprint


def test_the_model_card_is_of_these_weights(encoder):
    card = (Path(__file__).parents[1] / "vqvae/weights/MODEL_CARD.md").read_text()
    assert f"`{encoder.fingerprint}`" in card
    assert f"{encoder.hamming_threshold} of 1,024 bits" in card


def test_the_older_default_keeps_its_name():
    """Indexes of earlier releases say 'shipped' where this one says 'vqvae'."""
    assert (
        Recipe(weights="shipped").resolved().weights == Recipe(weights="vqvae").resolved().weights == "vqvae"
    )
    assert load("shipped").fingerprint == load("vqvae").fingerprint


def test_features_are_the_parts_centred_and_scaled(encoder, patches):
    raw = raw_features(TissueNetwork()(patches))
    found = encoder.features(patches)
    assert found.shape == (8, ENDS[-1]) and found.dtype == np.float32
    # one number for the whole part, so that its angles stay
    for begin, end in pairwise(ENDS):
        before, after = np.ptp(raw[:, begin:end], axis=0), np.ptp(found[:, begin:end], axis=0)
        assert np.allclose(before, after * np.median(before[after > 0] / after[after > 0]), atol=1e-3)
    assert np.array_equal(found, encoder.encode(patches).features)


def test_the_last_part_are_roots_of_shares():
    codes = np.zeros((1, 128), np.float32)
    codes[0, [3, 7]] = 0.75, 0.25
    parts = TissueParts(np.zeros((1, 1536), np.float32), np.zeros((1, 256), np.float32), codes)
    counted = raw_features(parts)[0, ENDS[1] :]
    assert np.flatnonzero(counted).tolist() == [3, 7]
    assert counted[[3, 7]].tolist() == pytest.approx([0.75**0.5, 0.5])


@pytest.mark.parametrize("number", range(1, 8))
def test_orientation_changes_no_more_than_a_bit(encoder, patches, number):
    """Docs promise it: rounding may turn a number that is nearly 0."""
    turned = encoder.features(oriented(patches, number))
    assert (_bits(turned) != _bits(encoder.features(patches))).sum(1).max() <= 1


def test_every_part_changes_bits(encoder, patches):
    """Barcodes and keys depend on the autoencoder's codes and filters, and on the network of photographs."""
    features = encoder.features(patches)
    bits = _bits(features)
    for begin, end in zip([0, *ENDS], ENDS, strict=False):
        without = features.copy()
        without[:, begin:end] = 0
        assert (_bits(without) != bits).sum(1).min() > 8


def _bits(features):
    return project(features, centre=np.zeros(ENDS[-1], np.float32), parts=PARTS) >= 0


def test_paper_keys_are_those_of_the_autoencoder(encoder, patches):
    vqvae = load("vqvae")
    ours, theirs = (PaperKeys.of(it)(it.encode(patches)) for it in (encoder, vqvae))
    assert np.array_equal(ours, theirs) and len(set(ours.tolist())) > 1


WITHOUT_TORCH = """
import json, resource, sys, time

class NoTorch:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("torch", "torchvision", "pytorch_lightning"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
import sish

folder = sys.argv[1]
index = sish.Index.create(f"{folder}/a.sish")
index.add(f"{folder}/slides", labels=f"{folder}/labels.csv", show_progress=False)
first = index.slides[0]
answers = [[hit.slide_id for hit in index.search(query, k=3)] for query in (first.slide_id, first.path)]
print(json.dumps({"answers": answers, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


@pytest.mark.slow
def test_indexing_and_searching_need_no_torch(tmp_path):
    write_slides(tmp_path / "slides", n_slides=4).rename(tmp_path / "labels.csv")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    by_id, by_path = json.loads(done.stdout)["answers"]
    assert by_id == by_path and len(by_id) == 3
