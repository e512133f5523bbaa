"""Weights that somebody else made: whatever they say, one line, and no memory for what they only claim."""

import json
import resource
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from sish.errors import ParameterError, WeightsError
from sish.systems.lesions.mask_predictor import KIND as MASKS
from sish.systems.lesions.mask_predictor import UNet, UNetConfig, load_mask_predictor
from sish.systems.xray.generator import KIND, CodeNetwork, GeneratorConfig, load_code_generator
from sish.vqvae import load_encoder
from sish.vqvae.calibration import calibrate
from sish.vqvae.model import CONFIG_KEY, VQVAE, VQVAEConfig

TINY = VQVAEConfig(
    name="tiny", channels=(8, 16, 240), residual_blocks=1, residual_channels=4, codes=16, code_dim=8
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = VQVAE(TINY).eval()
    calibrate(network, [torch.randint(0, 255, (20, 32, 32, 3), dtype=torch.uint8)])
    return network


def encoder_parts(model):
    training_only = ("quantizer.ema_counts", "quantizer.ema_sums", "quantizer.batches")
    tensors = {name: it for name, it in state_of(model).items() if name not in training_only}
    return tensors, TINY.as_dict()


def state_of(network):
    """A copy, laid out as safetensors wants it."""
    return {
        name: it.clone(memory_format=torch.contiguous_format) for name, it in network.state_dict().items()
    }


def write_encoder(path, tensors, config):
    """As safetensors or as a checkpoint."""
    if path.suffix == ".ckpt":
        state = {f"vqvae.{name}": it for name, it in tensors.items()}
        torch.save({"state_dict": state, CONFIG_KEY: config, "global_step": 1, "epoch": 1}, path)
        return
    text = config if isinstance(config, str) else json.dumps(config)
    save_file(tensors, path, {"format": "sish-vqvae-1", "config": text, "training": "{}"})


def refused(load, path):
    """The error's text: one line, a WeightsError, and little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError) as caught:
        load(path)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB
    return text


ENDINGS = [".safetensors", ".ckpt"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_sound_weights_are_read(ending, model, tmp_path):
    path = tmp_path / f"sound{ending}"
    write_encoder(path, *encoder_parts(model))
    assert load_encoder(path).config == TINY


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channels", [2**40, 16, 240]),
        ("channels", [8] * 100_000),
        ("channels", [8, "16", 240]),
        ("channels", 7),
        ("channels", None),
        ("residual_blocks", 10**12),
        ("residual_channels", 2**62),
        ("code_dim", 2**70),
        ("code_dim", 1.5),
        ("codes", True),
        ("decay", "0.9"),
        ("decay", float("nan")),
        ("mpp", float("inf")),
        ("name", {"a": 1}),
        ("features", ["pooled"]),
        ("features", "unknown"),
    ],
)
def test_a_configuration_that_claims_anything(ending, name, value, model, tmp_path):
    tensors, config = encoder_parts(model)
    path = tmp_path / f"claims{ending}"
    write_encoder(path, tensors, config | {name: value})
    assert path.name in refused(load_encoder, path)


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "[" * 100_000, '{"name": 1', "NaN"])
def test_a_configuration_that_is_no_object(text, model, tmp_path):
    path = tmp_path / "odd.safetensors"
    write_encoder(path, encoder_parts(model)[0], text)
    assert path.name in refused(load_encoder, path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["quantizer.codebook", "encoder.head.bias", "oriented.projection"])
def test_numbers_that_are_none(ending, name, value, model, tmp_path):
    tensors, config = encoder_parts(model)
    tensors[name].view(-1)[-1] = value
    path = tmp_path / f"nan{ending}"
    write_encoder(path, tensors, config)
    assert name in refused(load_encoder, path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("quantizer.codebook", torch.zeros(0, 8)),
        ("quantizer.codebook", torch.zeros(16, 8, dtype=torch.int64)),
        ("quantizer.codebook", torch.zeros(())),
        ("pooled.order", torch.full((1024 // 2 * 2,), 10**9)),
        ("pooled.order", torch.full((1024,), -1)),
        ("oriented.distances", torch.full((8,), 5000.0)),
        ("oriented.distances", torch.full((8,), float("nan"))),
        ("quantizer.ema_counts", torch.zeros(3)),
        ("more", torch.zeros(3)),
    ],
)
def test_tensors_of_another_shape_kind_or_range(ending, name, tensor, model, tmp_path):
    tensors, config = encoder_parts(model)
    if name == "pooled.order":
        tensor = tensor[: len(tensors[name])]
    path = tmp_path / f"shape{ending}"
    write_encoder(path, tensors | {name: tensor}, config)
    assert name.rpartition(".")[2] in refused(load_encoder, path)


@pytest.mark.parametrize("lacks", ["state_dict", "global_step", "epoch"])
def test_a_checkpoint_that_lacks_a_part(lacks, model, tmp_path):
    path = tmp_path / "part.ckpt"
    write_encoder(path, *encoder_parts(model))
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint[lacks]
    torch.save(checkpoint, path)
    assert lacks in refused(load_encoder, path)


# ---- the networks of the systems


def stored(kind, path, network, config):
    save_file(state_of(network), path, {"format": kind, "config": json.dumps(config), "training": "{}"})


@pytest.mark.parametrize(
    "claims",
    [
        {"bits": 2**40},
        {"channels": [2**50, 8]},
        {"channels": "many"},
        {"channels": [4] * 5000},
        {"size_px": 2**40},
        {"findings": "Mass"},
        {"findings": []},
        {"findings": [1, 2]},
        {"dropout": "no"},
        {"more": 1},
    ],
)
def test_a_generator_that_claims_anything(claims, tmp_path):
    config, path = (
        GeneratorConfig(name="tiny", bits=16, channels=(4, 8), size_px=16),
        tmp_path / "c.safetensors",
    )
    network = CodeNetwork(config, ("Effusion", "Mass"))
    stored(KIND, path, network, network.as_dict())
    assert load_code_generator(path).bits == 16
    stored(KIND, path, network, network.as_dict() | claims)
    assert path.name in refused(load_code_generator, path)


@pytest.mark.parametrize(
    "claims",
    [{"channels": [2**50, 8]}, {"size_px": [2**40, 2**40]}, {"size_px": [32]}, {"size_px": 32}, {"name": 3}],
)
def test_a_mask_predictor_that_claims_anything(claims, tmp_path):
    config, path = UNetConfig(name="tiny", channels=(4, 8), size_px=(32, 24)), tmp_path / "m.safetensors"
    network = UNet(config)
    stored(MASKS, path, network, config.as_dict())
    assert load_mask_predictor(path).size_px == (32, 24)
    stored(MASKS, path, network, config.as_dict() | claims)
    assert path.name in refused(load_mask_predictor, path)
    next(iter(network.state_dict().values())).fill_(float("nan"))
    stored(MASKS, path, network, config.as_dict())
    assert "not finite" in refused(load_mask_predictor, path)


def test_a_network_of_more_layers_than_there_are_is_refused_in_training_too():
    with pytest.raises(ParameterError, match="layers"):
        VQVAEConfig(**(asdict(TINY) | {"residual_blocks": 10**9}))


def test_the_shipped_weights_load_without_the_compiler_of_torch():
    """Networks without memory may import it: a second before each search and each add."""
    code = "import sys, sish.vqvae as v; v.load_encoder(); print('torch._dynamo' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
