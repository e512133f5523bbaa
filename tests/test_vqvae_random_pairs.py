"""Distances of random pairs: the same pairs in every release, for they decide stored thresholds."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sish.calibration import Calibration
from sish.index.barcode import barcodes_of
from sish.vqvae.features import PERCENTILES, BitRule, _barcodes, _Calibrated
from sish.vqvae.random_pairs import random_pair_distances


def some_features(rows: int = 300, dims: int = 64) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(rows, dims)).astype(np.float32) + np.float32(0.5)


@pytest.mark.parametrize(
    ("rule", "first", "digest"),
    [
        ("minmax", [29, 32, 37, 34, 31, 33], "4d206500c988"),
        ("sign", [25, 25, 30, 29, 25, 30], "613a6b198b0d"),
    ],
)
def test_release_0_1_drew_the_same_pairs(rule: BitRule, first: list[int], digest: str):
    found = random_pair_distances(barcodes_of(some_features(), rule), 25_000, 3)
    assert found[:6].tolist() == first
    assert hashlib.sha256(found.tobytes()).hexdigest()[:12] == digest


def test_release_0_1_measured_the_same_threshold():
    found = Calibration.learn(some_features())
    assert (found.threshold, found.fingerprint, found.patches) == (412, "3cf4ce", 300)


@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_a_patch_is_never_paired_with_itself(rows: int, seed: int):
    one_bit_each = np.packbits(np.eye(rows, 16, dtype=bool), axis=1)
    assert set(random_pair_distances(one_bit_each, 200, seed).tolist()) == {2}


@pytest.mark.parametrize("rule", ["minmax", "sign"])
def test_the_encoder_and_the_index_make_the_same_barcodes(rule: BitRule):
    features = np.round(some_features(), 0)  # ties and zeros
    np.testing.assert_array_equal(_barcodes(features, rule), barcodes_of(features, rule))


def test_weights_keep_percentiles_of_random_pairs():
    class AsTheyAre(_Calibrated):
        binarisation = "sign"

        def normal(self, raw: Tensor) -> Tensor:
            return raw

        def _measure(self, raw: Tensor, changes: Tensor) -> None:
            pass

    head = AsTheyAre()
    head.calibrate(torch.from_numpy(some_features()), pairs=1000, seed=7)
    distances = random_pair_distances(barcodes_of(some_features(), "sign"), 1000, 7)
    np.testing.assert_allclose(head.distances.numpy(), np.percentile(distances, PERCENTILES), rtol=1e-6)
