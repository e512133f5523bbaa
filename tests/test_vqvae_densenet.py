"""The paper's features: DenseNet121 through timm, with random weights in the published format."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from sish.errors import WeightsError
from sish.vqvae import load_encoder, save_weights
from sish.vqvae.model import PRESETS, VQVAE, ModelConfig


def test_paper_without_timm_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    path = tmp_path / "paper.safetensors"
    save_weights(_small_paper(), path)
    with pytest.raises(WeightsError, match=r"pip install 'sish\[timm\]'"):
        load_encoder(path)


def _small_paper():
    config = PRESETS["paper"].as_dict() | {"channels": (8, 8, 8, 8), "residual_channels": 4, "code_dim": 4}
    return VQVAE(ModelConfig(**config))


_WITH_TIMM = """
import sys, types, importlib.util
import numpy as np, torch
try:
    import torchvision
except RuntimeError:  # its compiled part does not load beside CPU torch: name the two operators it misses
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm
from safetensors.torch import save_file
from sish.errors import WeightsError
from sish.vqvae import load_encoder

folder = sys.argv[1]
torch.manual_seed(0)
source = timm.create_model("densenet121", pretrained=False).eval()
save_file(source.state_dict(), f"{folder}/densenet.safetensors")
torch.save(source.state_dict(), f"{folder}/densenet.pth")
encoders = [load_encoder(f"{folder}/paper.safetensors", features=f"{folder}/densenet.{s}")
            for s in ("safetensors", "pth")]
assert encoders[0].fingerprint == encoders[1].fingerprint, encoders
assert encoders[0].hamming_threshold == 128
images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
encoded = encoders[0].encode(images)
assert encoded.codes.shape == (2, 4, 4)
mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
scaled = torch.from_numpy(((images / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
with torch.no_grad():
    expected = source.forward_features(scaled).mean((2, 3)).numpy()
np.testing.assert_allclose(encoded.features, expected, rtol=1e-3, atol=1e-4)
save_file({"a": torch.zeros(1)}, f"{folder}/other.safetensors")
for bad in ("none.pth", "other.safetensors", "paper.safetensors"):
    try:
        load_encoder(f"{folder}/paper.safetensors", features=f"{folder}/{bad}")
    except WeightsError as error:
        assert bad in str(error), error
    else:
        raise AssertionError(bad)
"""


@pytest.mark.slow
def test_paper_takes_its_features_from_densenet(tmp_path):
    if find_spec("timm") is None or find_spec("torchvision") is None:
        pytest.skip("timm is not installed: pip install 'sish[timm]'")
    save_weights(_small_paper(), tmp_path / "paper.safetensors")
    # in a process of its own: half-loaded torchvision would break other tests
    done = subprocess.run(
        [sys.executable, "-c", _WITH_TIMM, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
