"""Statistics of the first filters in all orientations, what whitening makes of them; the shipped barcode."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from sish.errors import ParameterError, WeightsError
from sish.slides.orientations import ORIENTATIONS
from sish.vqvae.calibration import calibrate
from sish.vqvae.encoder import Encoder
from sish.vqvae.features import WhitenedFeatures
from sish.vqvae.model import VQVAE, VQVAEConfig, to_unit
from sish.vqvae.oriented import n_oriented_statistics, oriented_statistics
from sish.vqvae.p4m import turned
from sish.vqvae.pretrained import fingerprint_of, load_encoder, read_model, save_weights

SMALL = VQVAEConfig(
    features="oriented", channels=(4, 6, 8), residual_blocks=1, residual_channels=4, code_dim=8
)


def _images(count: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Patches with structure at several scales."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(60, 250, (count, side // 8, side // 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + generator.integers(-50, 50, (count, side, side, 3)), 0, 255).astype(np.uint8)


def _convolution() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 4, stride=2, padding=1)


def test_a_network_of_two_convolutions_knows_no_orientation_either() -> None:
    """Its sides are multiples of 4; those of the scales are not, so patches are cropped in the middle."""
    torch.manual_seed(0)
    network = VQVAE(VQVAEConfig(channels=(4, 6), residual_blocks=0, code_dim=8)).eval()
    images = to_unit(torch.from_numpy(_images(1, 40)[:, :28, :36]))
    plain = network.raw_features(images)
    for t in range(ORIENTATIONS):
        torch.testing.assert_close(network.raw_features(turned(images, t)), plain, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def model() -> VQVAE:
    """A small autoencoder with random weights, calibrated."""
    torch.manual_seed(0)
    network = VQVAE(SMALL).eval()
    calibrate(network, [torch.from_numpy(_images(64, 32))])
    return network


@given(t=st.integers(1, 7), height=st.sampled_from([8, 22, 24, 36]), width=st.sampled_from([8, 28]))
@settings(max_examples=20, deadline=None)
def test_statistics_do_not_change_when_the_patch_is_turned(t: int, height: int, width: int) -> None:
    images = to_unit(torch.from_numpy(_images(2, 40)[:, :height, :width]))
    with torch.no_grad():
        plain = oriented_statistics(_convolution(), images)
        torch.testing.assert_close(
            oriented_statistics(_convolution(), turned(images, t)), plain, rtol=1e-4, atol=1e-5
        )
    assert plain.shape == (2, n_oriented_statistics(4)) == (2, 96)
    assert (plain[0] - plain[1]).abs().max() > 0.01


@pytest.mark.parametrize("side", [64, 40])
def test_statistics_are_those_of_the_answers_in_all_orientations(side: int) -> None:
    """Each orientation by itself: the image turned, convolved, and its map turned back.

    Of 40 px come 20, 10 and 5 positions a side, whose squares overlap.
    """
    convolution = _convolution()
    images = to_unit(torch.from_numpy(_images(1, side)))
    # quarter turns are undone the other way, mirrorings by themselves
    back = dict(zip(range(ORIENTATIONS), (0, 3, 2, 1, 4, 5, 6, 7), strict=True))
    wanted: list[torch.Tensor] = []
    with torch.no_grad():
        for scale, kept in ((1, 2), (2, 3), (4, 3)):
            smaller = functional.avg_pool2d(images, scale)
            looks = torch.stack([turned(convolution(turned(smaller, t)), back[t])[0] for t in back])
            for maps in (looks.mean(0), looks.max(0).values, looks.min(0).values)[:kept]:
                answers = maps.relu()
                squares = functional.adaptive_avg_pool2d(answers, -(-answers.shape[-1] // 4))
                mean = answers.mean((1, 2))
                variances = [it.square().mean((1, 2)) - mean**2 for it in (answers, squares)]
                wanted += [mean, *[it.clamp(0).add(1e-6).sqrt() for it in variances]]
        found = oriented_statistics(convolution, images)[0]
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-3, atol=1e-4)


def test_a_patch_of_one_colour_has_no_deviations() -> None:
    inside = nn.Conv2d(3, 4, 4, stride=2)  # no margin, where the answers are others
    found = oriented_statistics(inside, torch.full((1, 3, 32, 32), 0.3)).view(8, 3, 4)
    assert found[:, 0].max() > 0.05
    torch.testing.assert_close(found[:, 1:], torch.full((8, 2, 4), 1e-3), rtol=0.2, atol=0)


def test_no_patches_have_no_statistics_and_filters_may_have_no_bias() -> None:
    bare = nn.Conv2d(3, 4, 4, stride=2, padding=1, bias=False)
    assert oriented_statistics(bare, torch.zeros(0, 3, 8, 8)).shape == (0, 96)
    assert not oriented_statistics(bare, torch.zeros(1, 3, 8, 8)).view(8, 3, 4)[:, 0].any()


def test_a_patch_that_is_too_small_is_refused() -> None:
    with pytest.raises(ParameterError, match="got a patch of 8 x 4 px; its sides must be 8 px or more"):
        oriented_statistics(_convolution(), torch.zeros(1, 3, 4, 8))


def test_a_patch_has_the_same_statistics_in_any_company() -> None:
    images = to_unit(torch.from_numpy(_images(3, 32)))
    with torch.no_grad():
        together = oriented_statistics(_convolution(), images)
        alone = torch.cat([oriented_statistics(_convolution(), it[None]) for it in images])
    torch.testing.assert_close(together, alone)


def test_features_keep_angles_and_their_bits_measure_them() -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn((400, 40), generator=generator) * torch.logspace(0, -2, 40)
    head = WhitenedFeatures(40)
    assert not head.calibrated
    head.calibrate(raw)
    assert head.calibrated
    features = head.normal(raw).numpy()
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    angle = np.arccos(np.clip(features[:200] @ features[200:].T, -1, 1))
    bits = np.packbits(features >= 0, axis=1)
    hamming = np.bitwise_count(bits[:200, None] ^ bits[None, 200:]).sum(2)
    assert np.abs(hamming / 1024 - angle / np.pi).mean() < 0.02  # Charikar 2002: the share is the angle / pi
    scale = dict(zip((0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0), head.distances.tolist(), strict=True))
    assert 450 < scale[50.0] < 560


def test_what_changes_between_views_counts_less_by_hand() -> None:
    """Two independent statistics of equal spread; views differ in the second one by as much as patches do."""
    raw = torch.tensor([[1.0, 10.0], [1.0, -10.0], [-1.0, 10.0], [-1.0, -10.0]])
    head = WhitenedFeatures(2)
    head.calibrate(raw)
    features = head.normal(raw)
    alike = torch.tensor([[1.0, 0, 0, -1], [0, 1, -1, 0], [0, -1, 1, 0], [-1, 0, 0, 1]])
    torch.testing.assert_close(features @ features.T, alike, rtol=0, atol=1e-5)
    # between is 1 and within 20**2 / 10**2 / 2 = 2: noise is 0.03 and 2.03, so squares weigh 203 to 3
    head.calibrate(raw, torch.tensor([[0.0, 20.0], [0.0, -20.0]]))
    features = head.normal(raw)
    assert float(features[0] @ features[1]) == pytest.approx(200 / 206, abs=2e-3)
    assert float(features[0] @ features[2]) == pytest.approx(-200 / 206, abs=2e-3)


def test_a_statistic_that_never_changes_says_nothing() -> None:
    raw = torch.cat([torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), torch.ones(50, 1)], 1)
    head = WhitenedFeatures(4)
    head.calibrate(raw)
    moved = raw + torch.tensor([0.0, 0, 0, 5])
    torch.testing.assert_close(head.normal(raw), head.normal(moved))


def _same_convolutions(one: VQVAE, other: VQVAE) -> bool:
    return all(
        torch.equal(it, other.state_dict()[name])
        for name, it in one.state_dict().items()
        if name.startswith(("encoder.", "decoder."))
    )


def test_other_features_for_a_finished_autoencoder(tmp_path: Path) -> None:
    wide = VQVAEConfig(features="pooled", channels=(8, 16, 240), residual_blocks=1, code_dim=8)
    before, file = VQVAE(wide).eval(), tmp_path / "before.safetensors"
    calibrate(before, [torch.from_numpy(_images(64, 32))])
    save_weights(before, file)
    after, _ = read_model(file, "oriented")
    with pytest.raises(WeightsError, match="never measured"):
        save_weights(after, tmp_path / "a.safetensors")
    calibrate(after, [torch.from_numpy(_images(64, 32))])
    save_weights(after, tmp_path / "a.safetensors")
    again, _ = read_model(tmp_path / "a.safetensors")
    assert again.config.features == "oriented"
    assert _same_convolutions(before, again)
    assert fingerprint_of(again) == fingerprint_of(after) != fingerprint_of(before)


def test_a_barcode_of_another_release_is_refused_but_its_autoencoder_is_read(
    model: VQVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "old.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("sish.vqvae.model.n_oriented_statistics", lambda filters: 7)
        old = VQVAE(SMALL)
        old.load_state_dict(model.autoencoder(), strict=False)
        old.head.calibrate(torch.randn(50, 7))
        save_weights(old, file)
    with pytest.raises(WeightsError, match=r"another release.*its autoencoder is whole.*export --checkpoint"):
        read_model(file)
    found, _ = read_model(file, "oriented")
    assert _same_convolutions(model, found)
    assert not found.head.calibrated


def test_calibration_is_the_same_every_time(model: VQVAE) -> None:
    again = VQVAE(SMALL).eval()
    again.load_state_dict(model.autoencoder(), strict=False)
    calibrate(again, [torch.from_numpy(_images(64, 32))])
    assert fingerprint_of(again) == fingerprint_of(model)


@pytest.fixture(scope="module")
def shipped() -> Encoder:
    """The shipped weights."""
    return load_encoder()


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_the_shipped_barcode_of_a_turned_patch_stays_within_a_few_bits(shipped: Encoder, seed: int) -> None:
    image = _images(1, 256, seed)[0]
    ways = [np.rot90(it, turns) for it in (image, image[:, ::-1]) for turns in range(4)]
    bits = np.packbits(shipped.encode(np.stack(ways)).features >= 0, axis=1)
    assert np.bitwise_count(bits ^ bits[0]).sum(1).max() <= 4


def test_the_shipped_encoder_looks_in_all_orientations_and_is_under_20_mb(shipped: Encoder) -> None:
    assert shipped.config.features == "oriented"
    weights = Path(__file__).parents[1] / "vqvae/weights/default.safetensors"
    assert weights.stat().st_size < 20e6
