"""The autoencoder: shapes, loss, configuration, pooled features, stains."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp

from sish.errors import ParameterError, WeightsError
from sish.vqvae.features import N_FEATURES, PERCENTILES, PooledFeatures
from sish.vqvae.model import PRESETS, VQVAE, VQVAEConfig, from_unit, to_unit
from sish.vqvae.stain import jitter_stain

TINY = VQVAEConfig(
    name="tiny", channels=(8, 16, 240), residual_blocks=1, residual_channels=4, codes=16, code_dim=8
)


def test_paper_gives_64_x_64_codes_of_256():
    config = PRESETS["paper"]
    with torch.device("meta"):
        model = VQVAE(config)
        maps = model.maps(torch.empty(1, 3, 1024, 1024))
        back = model.decoder(maps[-1])
    assert [tuple(m.shape[1:]) for m in maps] == [
        (256, 512, 512),
        (256, 256, 256),
        (256, 128, 128),
        (256, 64, 64),
        (256, 64, 64),
        (256, 64, 64),
        (256, 64, 64),
    ]
    assert model.quantizer.codebook.shape == (128, 256)
    assert back.shape == (1, 3, 1024, 1024)
    assert [c.kernel_size for c in model.encoder.convolutions] == [(4, 4)] * 4


def test_paper_learns_its_codebook_by_gradient():
    model = VQVAE(replace(PRESETS["paper"], channels=(8, 8), code_dim=4, residual_channels=2)).train()
    out = model(torch.rand(2, 3, 64, 64) * 2 - 1)  # more positions than codes
    torch.testing.assert_close(
        out.loss, out.mse + out.quantized.codebook_loss + 0.25 * out.quantized.commitment
    )
    out.loss.backward()
    assert model.quantizer.codebook.grad.abs().sum() > 0


def test_loss_is_mse_and_beta_times_commitment():
    model = VQVAE(replace(TINY, commitment_cost=0.5)).eval()
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    out = model(images)
    assert out.reconstruction.shape == images.shape
    assert out.quantized.codes.shape == (2, 2, 3)
    latent = model.maps(images)[-1]
    codes = model.quantizer.codebook[out.quantized.codes].permute(0, 3, 1, 2)
    mse = ((out.reconstruction - images) ** 2).mean()
    commitment = ((latent - codes) ** 2).mean()
    torch.testing.assert_close(out.loss, mse + 0.5 * commitment)
    out.loss.backward()
    assert model.encoder.convolutions[0].weight.grad.abs().sum() > 0
    assert model.quantizer.codebook.grad is None


@pytest.mark.parametrize("size", [(20, 16), (16, 20), (0, 16)])
def test_sizes_off_the_stride_are_refused(size):
    with pytest.raises(ParameterError, match="multiple of 8"):
        VQVAE(TINY)(torch.zeros(1, 3, *size))


@given(hnp.arrays(np.uint8, (1, 2, 3, 3)))
def test_scaling_pixels_goes_back_exactly(pixels):
    images = torch.from_numpy(pixels)
    unit = to_unit(images)
    assert unit.shape == (1, 3, 2, 3)
    assert unit.abs().max() <= 1
    assert torch.equal(from_unit(unit), images)


def test_pixels_0_and_255_are_the_ends():
    assert to_unit(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)).flatten().tolist() == pytest.approx(
        [-1, 1, -0.6]
    )


def test_config_survives_plain_values():
    for config in (*PRESETS.values(), TINY):
        assert VQVAEConfig.from_dict(config.as_dict()) == config


@pytest.mark.parametrize("change", [{"extra": 1}, {"codes": None}])
def test_config_of_another_release_is_refused(change):
    values = PRESETS["default"].as_dict() | change
    if change.get("codes", 0) is None:
        del values["codes"]
    with pytest.raises(WeightsError, match="export again"):
        VQVAEConfig.from_dict(values)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": ()},
        {"codes": 1},
        {"codes": 257},
        {"decay": 1.0},
        {"mpp": 0.0},
        {"code_dim": 0},
        {"codebook": "kmeans"},
        {"features": "resnet"},
        {"channels": (8, 8), "features": "pooled"},  # too few statistics for a barcode
    ],
)
def test_impossible_networks_are_refused(change):
    with pytest.raises(ParameterError):
        replace(PRESETS["default"], **change)


def test_pooled_statistics_by_hand():
    pooled = PooledFeatures((512,))
    feature_map = torch.zeros(1, 512, 1, 2)
    feature_map[0, 7, 0] = torch.tensor([1.0, 3.0])  # mean 2, standard deviation 1
    raw = pooled.raw([feature_map])[0]
    assert raw[pooled.order == 7] == 2
    assert raw[pooled.order == 512 + 7] == 1
    assert raw.sum() == 3


def test_pooled_features_ignore_the_order_of_positions():
    pooled = PooledFeatures((256, 256))
    maps = [torch.randn(2, 256, 6, 6), torch.randn(2, 256, 3, 3)]
    turned = [torch.rot90(m, 1, (2, 3)).flip(3) for m in maps]
    torch.testing.assert_close(pooled(maps), pooled(turned), rtol=1e-4, atol=1e-5)


def test_calibration_standardises_and_measures_random_pairs():
    pooled = PooledFeatures((512,))
    raw = torch.randn(300, N_FEATURES) * (0.5 + 9 * torch.rand(N_FEATURES)) + 50 * torch.randn(N_FEATURES)
    raw[:, 5] = 3.0  # a channel that never changes
    assert not pooled.calibrated
    pooled.calibrate(raw)
    assert pooled.calibrated
    features = (raw - pooled.mean) / pooled.std
    torch.testing.assert_close(features.mean(0), torch.zeros(N_FEATURES), atol=1e-3, rtol=0)
    assert features[:, 5].abs().max() == 0
    assert torch.isfinite(features).all()
    # independent features: bits agree by chance
    table = dict(zip(PERCENTILES, pooled.distances.tolist(), strict=True))
    assert 500 < table[50.0] < 525
    assert pooled.distances.tolist() == sorted(pooled.distances.tolist())


def test_calibration_of_one_patch_is_refused():
    with pytest.raises(ParameterError, match="at least 2"):
        PooledFeatures((512,)).calibrate(torch.zeros(1, N_FEATURES))


def test_stain_jitter_keeps_white_and_changes_stain():
    images = torch.full((4, 2, 2, 3), 255, dtype=torch.uint8)
    images[:, 0] = torch.tensor([120, 60, 140], dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    jittered = jitter_stain(images, 0.1, generator)
    assert jittered.dtype == torch.uint8
    moved = (jittered.int() - images.int()).abs()
    assert 0 < moved[:, 0].max() < 40
    assert moved[:, 1].max() <= 6  # white has no stain to scale; only the shift is left
    assert not torch.equal(jittered[0], jittered[1])
    assert torch.equal(jitter_stain(images, 0.0), images)
    assert torch.equal(jitter_stain(images, 0.1, torch.Generator().manual_seed(0)), jittered)
