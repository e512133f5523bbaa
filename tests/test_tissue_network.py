"""The network of the default encoder: its parts against torch, and what its results do not depend on."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from sish.errors import ParameterError
from sish.index.projection import project
from sish.vqvae.lite0 import STAGES, Lite0
from sish.vqvae.pretrained import load_encoder, shipped_model
from sish.vqvae.tissue_network import N_NETWORK, TissueNetwork, _shipped, shipped_codebook
from sish.vqvae.tissue_weights import Tissue, published_lite0, write_network


@pytest.fixture(scope="module")
def network():
    return TissueNetwork(threads=1)


@pytest.fixture(scope="module")
def patches():
    """Smooth coloured noise with edges, uint8 (6, 96, 128, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 256, (6, 12, 16, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def stored_lite0():
    """The network of photographs in torch, with the weights of the shipped file."""
    weights = {}
    for tensor in onnx.load_from_string(_shipped("tissue.onnx")).graph.initializer:
        weights[tensor.name.removesuffix(".half")] = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
    lite0 = Lite0().eval()
    lite0.load_state_dict({name: weights[f"lite0.{name}"].float() for name in lite0.state_dict()})
    return lite0


def test_a_patch_depends_neither_on_its_batch_nor_on_threads(network, patches):
    alone = [network(patches[number : number + 1]) for number in range(len(patches))]
    for found in (network(patches), TissueNetwork(threads=3)(patches)):
        for name in ("network", "filters", "codes"):
            assert np.array_equal(getattr(found, name), np.concatenate([getattr(one, name) for one in alone]))


def test_lite0_is_that_of_torch_to_rounding(network, patches, stored_lite0):
    with torch.inference_mode():
        wanted = torch.cat([stored_lite0(torch.from_numpy(patch[None]).float()) for patch in patches]).numpy()
    found = network(patches).network
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert _bits_apart(found, wanted).max() <= 2


def test_half_precision_costs_few_bits(patches, stored_lite0):
    published = published_lite0()
    with torch.inference_mode():
        whole, half = (
            torch.cat([model(torch.from_numpy(patch[None]).float()) for patch in patches]).numpy()
            for model in (published, stored_lite0)
        )
    assert 0 < _bits_apart(whole, half).max() <= 8


def _bits_apart(one, other):
    """How many of 1,024 signs differ between the rows of two sets of statistics, standardised alike."""
    mean, spread = one.mean(0), one.std(0) + 1e-3
    left, right = (
        project((it - mean) / spread, centre=np.zeros(N_NETWORK, np.float32)) >= 0 for it in (one, other)
    )
    return (left != right).sum(1)


def test_codes_are_those_of_the_autoencoder(network, patches):
    encoder = load_encoder()
    assert np.array_equal(network(patches).codes, encoder.encode(patches).codes)
    assert np.array_equal(shipped_codebook(), encoder.codebook)


def test_filters_have_the_angles_of_the_autoencoders_features(network, patches):
    features, filters = load_encoder().encode(patches).features, network(patches).filters
    assert np.allclose(features @ features.T, filters @ filters.T, atol=1e-4)
    assert np.allclose(np.linalg.norm(filters, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_the_shipped_file_can_be_made_again(tmp_path, network, patches):
    write_network(Tissue(published_lite0(), shipped_model()), tmp_path / "again.onnx")
    again = TissueNetwork(threads=1, model=(tmp_path / "again.onnx").read_bytes())
    made, shipped = again(patches), network(patches)
    assert np.array_equal(made.network, shipped.network) and np.array_equal(made.codes, shipped.codes)
    assert np.allclose(made.filters @ made.filters.T, shipped.filters @ shipped.filters.T, atol=1e-4)


@pytest.mark.parametrize(
    "odd",
    [
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 64, 64), np.uint8),
        np.zeros((1, 64, 48, 3), np.uint8),
        np.zeros((1, 0, 64, 3), np.uint8),
    ],
)
def test_other_patches_are_refused(network, odd):
    with pytest.raises(ParameterError, match=r"wanted patches|want sides"):
        network(odd)


def test_no_patches_give_no_rows(network):
    found = network(np.zeros((0, 64, 64, 3), np.uint8))
    assert found.network.shape == (0, N_NETWORK) and found.codes.shape == (0, 8, 8)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", ""])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ParameterError, match="onnxruntime-gpu"):
        TissueNetwork(device)


def test_strides_and_sides(stored_lite0):
    """The sides are halved as often as in the published network, also of a patch that is not square."""
    assert np.prod([2] + [stage.stride for stage in STAGES]) == 32
    for height, width in ((32, 32), (64, 224)):
        assert stored_lite0(torch.zeros(1, height, width, 3)).shape == (1, N_NETWORK)
