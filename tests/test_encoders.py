"""The registry of encoders, and the calibration of those that sish did not train."""

import sys

import numpy as np
import pytest

import sish
from sish.calibration import Calibration
from sish.encode import SlideEncoder
from sish.encoders import load
from sish.errors import IndexFormatError, MissingPackageError, ParameterError, QueryError
from sish.header import IndexHeader
from sish.index.barcode import barcodes_of
from sish.index.params import SearchParams
from sish.recipe import Recipe


def features(count=60, width=40, seed=0):
    return np.random.default_rng(seed).normal(5, 1, (count, width)).astype(np.float32)


def test_the_shipped_encoder_keeps_the_protocol():
    encoder = load("shipped")
    images = np.random.default_rng(0).integers(0, 256, (2, encoder.patch_px, encoder.patch_px, 3), np.uint8)
    found = encoder.encode(images)
    assert found.features.shape == (2, encoder.n_features) and found.features.dtype == np.float32
    assert encoder.features(images).tobytes() == found.features.tobytes()
    assert found.codes.shape[0] == 2 and encoder.codebook.ndim == 2
    assert encoder.mpp > 0 and encoder.licence and 0 < encoder.hamming_threshold < 1024
    barcodes = barcodes_of(found.features, encoder.binarisation)
    alone = [encoder.encode(image[None]) for image in images]
    assert np.array_equal(np.concatenate([one.codes for one in alone]), found.codes)
    again = barcodes_of(np.concatenate([one.features for one in alone]), encoder.binarisation)
    assert np.array_equal(again, barcodes)


def test_features_from_elsewhere_are_named_and_not_computed():
    encoder = load("features:uni_v1/1024")
    assert (encoder.fingerprint, encoder.n_features) == ("features-uni_v1-1024", 1024)
    with pytest.raises(QueryError, match=r"features-uni_v1-1024.*feature file"):
        encoder.encode(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize("name", ["features:uni", "features:/1024", "features:uni/0", "features:uni/many"])
def test_features_without_a_name_or_a_length_are_refused(name):
    with pytest.raises(ParameterError, match="ENCODER/DIMS"):
        load(name)


def test_devices_that_are_none_are_refused_on_one_line():
    with pytest.raises(ParameterError, match="got device 'abacus'") as caught:
        load("shipped", device="abacus")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vqvae", "timm:uni"])
def test_without_torch_the_way_out_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match="pip install torch; the encoder tissue does without"):
        load(name)


def test_paper_keys_need_a_codebook():
    with pytest.raises(ParameterError, match="no codebook to order: want keys='texture'"):
        SlideEncoder(Recipe(weights="features:uni/8", keys="paper")).load()


def test_a_calibration_is_the_mean_and_one_percent_of_pairs():
    given = features()
    found = Calibration.learn(given)
    np.testing.assert_allclose(found.centre, given.mean(0), rtol=1e-6)
    bits = np.unpackbits(barcodes_of(given, "projection", centre=found.centre), axis=1).astype(np.int64)
    distances = [np.abs(bits[i] - bits[j]).sum() for i in range(60) for j in range(i)]
    assert abs(found.threshold - np.percentile(distances, 1)) <= 8
    assert found.patches == 60


def test_a_calibration_comes_back_from_a_header():
    found = Calibration.learn(features())
    recipe, params = Recipe(weights="features:a/40"), SearchParams(threshold=found.threshold)
    back = IndexHeader.from_json(IndexHeader(recipe, "x", params, found).to_json()).calibration
    assert back.centre.tobytes() == found.centre.tobytes() and back.fingerprint == found.fingerprint
    assert (back.threshold, back.patches) == (found.threshold, found.patches)
    assert "calibration" not in IndexHeader(recipe, "x", params).to_json()


@pytest.mark.parametrize("stored", [{}, {"centre": "?", "threshold": 1, "patches": 2}, {"centre": 3}, []])
def test_broken_calibrations_are_refused(stored):
    with pytest.raises(IndexFormatError, match="calibration"):
        Calibration.from_json(stored)


def test_barcodes_of_two_centres_never_meet():
    encoder = SlideEncoder(Recipe(weights="features:a/40"))
    one, two = (encoder.measured_on(features(seed=seed)) for seed in (0, 1))
    assert len({encoder.fingerprint, one.fingerprint, two.fingerprint}) == 3
    assert one.fingerprint == encoder.measured_on(features(seed=0)).fingerprint
    assert encoder.needs_calibration and not one.needs_calibration
    assert SlideEncoder(Recipe()).needs_calibration
    assert not SlideEncoder(Recipe(weights="vqvae")).needs_calibration
    with pytest.raises(ParameterError, match="at least 2"):
        encoder.measured_on(features(1))


def test_a_header_from_before_the_registry_opens():
    stored = IndexHeader(Recipe(), "x", SearchParams()).to_json()
    stored["recipe"]["densenet_weights"] = stored["recipe"].pop("network_weights")
    assert IndexHeader.from_json(stored).recipe == Recipe()


def test_the_encoder_of_an_index_can_be_told_where_to_run(tmp_path):
    index = sish.Index.create(tmp_path / "a.sish", device="cpu")
    assert sish.Index.open(index.path, device="cpu").encoder.device == "cpu"
    with pytest.raises(ParameterError, match="got device 'abacus'"):
        sish.Index.open(index.path, device="abacus").encoder.load()
