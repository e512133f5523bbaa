"""The texture network: the same for a patch however it lies; learnt by contrast, without labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.slides.orientations import ORIENTATIONS, oriented
from sish.vqvae.contrast import ContrastModule, contrast_loss
from sish.vqvae.model import VQVAE, VQVAEConfig, to_unit
from sish.vqvae.p4m import GroupConv, LiftingConv, turned
from sish.vqvae.pretrained import fingerprint_of, hamming_scale, load_encoder, read_model, save_weights
from sish.vqvae.texture import TextureNet
from sish.vqvae.views import Views


@pytest.fixture
def net() -> TextureNet:
    """A small network with weights that are not special."""
    torch.manual_seed(0)
    small = TextureNet((2, 3), (1, 1), out=5).eval()
    with torch.no_grad():
        for parameter in small.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return small


def _images(count: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Patches with structure at several scales."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(60, 250, (count, side // 8, side // 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + generator.integers(-50, 50, (count, side, side, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("number", range(ORIENTATIONS))
def test_maps_and_pixels_are_turned_alike(number: int) -> None:
    patches = _images(2, 16)
    maps = turned(torch.from_numpy(patches).permute(0, 3, 1, 2), number)
    np.testing.assert_array_equal(maps.permute(0, 2, 3, 1).numpy(), oriented(patches, number))


@given(t=st.integers(0, 7), u=st.integers(0, 7), side=st.sampled_from([8, 12]))
@settings(max_examples=20, deadline=None)
def test_turning_the_image_turns_the_maps_and_permutes_their_copies(t: int, u: int, side: int) -> None:
    torch.manual_seed(t)
    layers = torch.nn.Sequential(LiftingConv(3, 2, 6, 2), GroupConv(2, 3, 3), GroupConv(3, 2, 4, 2)).eval()
    image = torch.randn(1, 3, side, side)
    with torch.no_grad():
        plain, moved = (layers(it)[0].unflatten(0, (8, 2)) for it in (image, turned(image, t)))
    # copy u of the plain maps, turned, is some copy of the moved ones
    differences = (moved - turned(plain[u], t)).abs().amax((1, 2, 3))
    assert differences.min() < 1e-4
    assert (differences < 1e-4).sum() == 1


def test_statistics_do_not_change_when_the_patch_is_turned(net: TextureNet) -> None:
    images = to_unit(torch.from_numpy(_images(2, 32)))
    with torch.no_grad():
        plain = net.statistics(images)
        for t in range(1, ORIENTATIONS):
            torch.testing.assert_close(net.statistics(turned(images, t)), plain, rtol=1e-4, atol=1e-5)
    assert plain.shape == (2, net.n_statistics)
    assert (plain[0] - plain[1]).abs().max() > 0.01


def test_other_networks_tell_turned_images_apart() -> None:
    """The property above is not one that any network has."""
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(3, 4, 4, 2, 1)
    image = to_unit(torch.from_numpy(_images(1, 32)))
    difference = (plain(image).relu().mean((2, 3)) - plain(turned(image, 1)).relu().mean((2, 3))).abs()
    assert difference.max() > 1e-3


def test_the_filters_that_are_kept_are_those_of_the_weights(net: TextureNet) -> None:
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        first = net.statistics(images)
        again = net.statistics(images)
        net.train()
        learning = net.statistics(images)
        net.last.weight += 1 * torch.randn_like(net.last.weight)
        net.eval()
        changed = net.statistics(images)
    assert torch.equal(first, again)
    torch.testing.assert_close(first, learning)
    assert not torch.allclose(first, changed)


def test_contrast_loss_by_hand() -> None:
    """Four views on two axes: the partner has similarity 1, the others 0: -log(e / (e + 2))."""
    one = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss, found = contrast_loss(one, 3 * one, temperature=1.0)
    assert float(loss) == pytest.approx(-np.log(np.e / (np.e + 2)), rel=1e-5)
    assert float(found) == 1
    _, crossed = contrast_loss(one, one.flip(0), temperature=1.0)
    assert float(crossed) == 0


def test_views_stay_in_range_and_differ() -> None:
    images = to_unit(torch.from_numpy(_images(6, 96)))
    torch.manual_seed(0)
    first, second = (Views(size_px=32).draw(images) for _ in range(2))
    assert first.shape == (6, 3, 32, 32)
    assert float(first.min()) >= -1
    assert float(first.max()) <= 1
    assert (first - second).abs().mean() > 0.05


def test_a_view_without_changes_is_the_centre_turned() -> None:
    images = to_unit(torch.full((2, 64, 64, 3), 130, dtype=torch.uint8))
    plain = Views(size_px=32, zoom=1, shift_px=0, stain=0, stain_shift=0, strength=0, blur=0).draw(images)
    torch.testing.assert_close(plain, torch.full_like(plain, float(images[0, 0, 0, 0])), rtol=0, atol=0.02)


@pytest.mark.parametrize("wrong", [{"zoom": 0.5}, {"blur": 2.0}, {"stain": -1.0}, {"size_px": 0}])
def test_impossible_views_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match="views need"):
        Views(**wrong)  # type: ignore[arg-type]  # one wrong value at a time


def test_training_changes_the_texture_network_alone() -> None:
    torch.manual_seed(0)
    module = ContrastModule(texture_channels=(2, 2), texture_blocks=(0, 0), views=Views(size_px=16))
    learning = {name for name, it in module.vqvae.named_parameters() if it.requires_grad}
    assert learning
    assert all(name.startswith("texture.net.") for name in learning)
    batch = to_unit(torch.from_numpy(_images(4, 32)))
    loss, _ = contrast_loss(
        *(module.head(module.vqvae.texture.net(module.views.draw(batch))) for _ in "ab"), 0.2
    )
    loss.backward()
    assert all(it.grad is not None for name, it in module.vqvae.named_parameters() if name in learning)


def test_weights_with_a_texture_network_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(features="texture", texture_channels=(2, 2), texture_blocks=(0, 1))).eval()
    model.head.calibrate(model.raw_features(to_unit(torch.from_numpy(_images(64, 32)))).detach())
    fingerprint = save_weights(model, tmp_path / "w.safetensors")
    again, _ = read_model(tmp_path / "w.safetensors")
    assert fingerprint_of(again) == fingerprint
    assert hamming_scale(again) == hamming_scale(model)
    encoder = load_encoder(tmp_path / "w.safetensors")
    assert encoder.binarisation == "sign"
    images = _images(3, 64, seed=5)
    together = encoder.encode(images).features
    alone = np.concatenate([encoder.encode(images[i : i + 1]).features for i in range(3)])
    np.testing.assert_array_equal(together, alone)
