"""Weights on disk, fingerprints, the frozen encoder, and the weights that are shipped."""

import json
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sish.errors import OutputError, ParameterError, WeightsError
from sish.vqvae import load_encoder, save_weights
from sish.vqvae.calibration import calibrate
from sish.vqvae.fingerprint import digest_of
from sish.vqvae.model import CONFIG_KEY, PRESETS, VQVAE, VQVAEConfig
from sish.vqvae.pretrained import fingerprint_of, read_model

TINY = VQVAEConfig(
    name="tiny", channels=(8, 16, 240), residual_blocks=1, residual_channels=4, codes=16, code_dim=8
)


def textures(count, size, seed=0):
    """Coloured blobs on white, uint8 (count, size, size, 3)."""
    generator = np.random.default_rng(seed)
    small = generator.integers(60, 255, (count, size // 8, size // 8, 3))
    return np.clip(
        small.repeat(8, 1).repeat(8, 2) + generator.integers(-30, 30, (count, size, size, 3)), 0, 255
    ).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = VQVAE(TINY).eval()
    calibrate(network, [torch.from_numpy(textures(20, 32))])
    return network


@pytest.fixture(scope="module")
def shipped():
    return load_encoder()


def test_round_trip(model, tmp_path):
    path = tmp_path / "deep" / "tiny.safetensors"
    fingerprint = save_weights(model, path, training={"steps": 3})
    encoder = load_encoder(path)
    assert encoder.fingerprint == fingerprint == fingerprint_of(model)
    assert fingerprint.startswith("tiny-")
    assert len(fingerprint) == len("tiny-") + 12
    assert encoder.config == TINY
    assert (encoder.patch_px, encoder.mpp, encoder.stride) == (256, 1.0, 8)
    assert encoder.codebook.shape == (16, 8)
    assert encoder.codebook.dtype == np.float32
    assert encoder.hamming_threshold == int(model.head.distances[2])
    assert dict(encoder.hamming.percentiles)[50.0] == float(model.head.distances[-1])
    _, facts = read_model(path)
    assert facts == {"steps": 3}


def test_fingerprint_is_of_the_numbers_not_of_the_file(model, tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(model, path, training={"note": "first"})
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {"training": json.dumps({"note": "second"}), "zzz": "more"}
    tensors = load_file(path)
    save_file(dict(reversed(tensors.items())), tmp_path / "b.safetensors", metadata)
    assert load_encoder(tmp_path / "b.safetensors").fingerprint == fingerprint_of(model)
    tensors["decoder.0.bias"][0] += 1e-3
    save_file(tensors, tmp_path / "c.safetensors", metadata)
    assert load_encoder(tmp_path / "c.safetensors").fingerprint != fingerprint_of(model)


def test_fingerprint_knows_the_configuration(model):
    other = VQVAE(VQVAEConfig(**(TINY.as_dict() | {"channels": TINY.channels, "mpp": 0.5})))
    other.load_state_dict(model.state_dict())
    assert fingerprint_of(other) != fingerprint_of(model)


def test_digest_knows_names_shapes_and_types():
    base = digest_of("h", {"a": torch.zeros(4)})
    assert base != digest_of("i", {"a": torch.zeros(4)})
    assert base != digest_of("h", {"b": torch.zeros(4)})
    assert base != digest_of("h", {"a": torch.zeros(2, 2)})
    assert base != digest_of("h", {"a": torch.zeros(4, dtype=torch.int32)})


def test_weights_without_calibration_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"--data\.folder"):
        save_weights(VQVAE(TINY), tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def _text(path):
    path.write_text("not weights")


def _empty(path):
    path.touch()


def _foreign(path):
    save_file({"a": torch.zeros(1)}, path)


def _pickle(path):
    torch.save({"state_dict": {}, "evil": OnlyByPickle}, path)


def _other_checkpoint(path):
    torch.save({"state_dict": {"layer.weight": torch.zeros(2)}}, path)


class OnlyByPickle:
    """Something that only pickle could bring back."""


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.safetensors", _text),
        ("a.safetensors", _empty),
        ("a.safetensors", _foreign),
        ("a.ckpt", _text),
        ("a.ckpt", _empty),
        ("a.ckpt", _pickle),
        ("a.ckpt", _other_checkpoint),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, write):
    write(tmp_path / name)
    with pytest.raises(WeightsError, match=name) as caught:
        load_encoder(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(WeightsError, match="no weights file"):
            load_encoder(path)


def test_weights_of_another_architecture(model, tmp_path):
    state = {f"vqvae.{name}": value for name, value in model.state_dict().items()}
    config = PRESETS["default"].as_dict()
    torch.save(
        {"state_dict": state, CONFIG_KEY: config, "global_step": 1, "epoch": 0}, tmp_path / "mixed.ckpt"
    )
    with pytest.raises(WeightsError, match="another architecture"):
        load_encoder(tmp_path / "mixed.ckpt")


def test_unwritable_output(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        save_weights(model, tmp_path / "file" / "w.safetensors")


@settings(max_examples=15, deadline=None)
@given(count=st.integers(0, 4), height=st.integers(1, 4), width=st.integers(1, 4))
def test_any_size_that_divides(shipped, count, height, width):
    images = textures(count, 32)[:, : 8 * height, : 8 * width]
    encoded = shipped.encode(images)
    assert encoded.codes.shape == (count, height, width)
    assert encoded.codes.dtype == np.uint8
    assert encoded.features.shape == (count, 1024)
    assert encoded.features.dtype == np.float32


def test_a_patch_does_not_depend_on_its_company(shipped):
    images = textures(6, 64)
    together = shipped.encode(images)
    for number in range(6):
        alone = shipped.encode(images[number : number + 1])
        assert np.array_equal(alone.codes[0], together.codes[number])
        assert np.array_equal(alone.features[0], together.features[number])
    read_only = images.copy()
    read_only.setflags(write=False)
    assert np.array_equal(shipped.encode(read_only[::-1]).codes, together.codes[::-1])


def test_codes_are_the_nearest_codewords(model, tmp_path):
    save_weights(model, tmp_path / "w.safetensors")
    encoder = load_encoder(tmp_path / "w.safetensors")
    images = textures(2, 32, seed=4)
    unit = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latent = model.maps(unit)[-1].permute(0, 2, 3, 1).numpy()
    distances = ((latent[..., None, :] - encoder.codebook) ** 2).sum(-1)
    chosen = np.take_along_axis(distances, encoder.encode(images).codes[..., None].astype(int), -1)[..., 0]
    np.testing.assert_allclose(chosen, distances.min(-1), atol=1e-5)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((1, 16, 16, 4), np.uint8),
        np.zeros((1, 20, 16, 3), np.uint8),
        np.zeros((1, 0, 16, 3), np.uint8),
        [[1, 2]],
    ],
)
def test_other_input_is_refused(shipped, images):
    for method in (shipped.encode, shipped.reconstruct):
        with pytest.raises(ParameterError):
            method(images)


def test_shipped_weights(shipped):
    assert shipped.fingerprint.startswith("default-")
    assert (shipped.patch_px, shipped.mpp, shipped.stride) == (256, 1.0, 8)
    assert shipped.codebook.shape == (128, 64)
    table = dict(shipped.hamming.percentiles)
    assert shipped.hamming_threshold == int(table[1.0])
    assert 0 < shipped.hamming_threshold < table[50.0] < 600
    assert shipped.encode(np.zeros((1, 256, 256, 3), np.uint8)).codes.shape == (1, 32, 32)


def test_the_model_card_is_of_the_shipped_weights(shipped):
    card = resources.files("sish.vqvae").joinpath("weights/MODEL_CARD.md").read_text()
    assert f"`{shipped.fingerprint}`" in card
    assert f"Hamming threshold: {shipped.hamming_threshold} of" in card


def test_shipped_weights_on_real_tissue(shipped, data_dir):
    files = sorted((data_dir / "pcam" / "valid").rglob("*.jpg"))[::25]
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    encoded = shipped.encode(images)
    shares = np.bincount(encoded.codes.ravel(), minlength=128) / encoded.codes.size
    perplexity = np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    assert perplexity >= 64, "at least half of the codebook is in use"
    # directions around those of training tissue: no common part on other tissue either
    np.testing.assert_allclose(np.linalg.norm(encoded.features, axis=1), 1, rtol=1e-4)
    assert np.linalg.norm(encoded.features.mean(0)) < 0.4
    # codes say more about a patch than its mean colour does
    error = ((shipped.reconstruct(images).astype(float) - images) ** 2).mean()
    flat = ((images.mean((1, 2), keepdims=True) - images) ** 2).mean()
    assert error < 0.65 * flat


def test_barcodes_find_a_turned_patch(shipped, data_dir):
    files = sorted((data_dir / "pcam" / "valid").rglob("*.jpg"))[::25]
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    turned = np.rot90(images, 1, (1, 2))[:, ::-1]
    bits = [f[:, 1:] >= f[:, :-1] for f in (shipped.encode(images).features, shipped.encode(turned).features)]
    distances = (bits[0][:, None] != bits[1][None]).sum(-1)
    assert (distances.argmin(1) == np.arange(len(files))).mean() > 0.9


def test_importing_the_package_leaves_torch_out():
    code = "import sys, sish.vqvae; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_weights_leaves_lightning_out():
    code = "import sys, sish.vqvae.pretrained; assert 'pytorch_lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
