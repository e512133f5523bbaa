"""Networks of timm: features by name, with random weights in the published formats.

What needs timm itself runs in processes of its own, where its folder is on the path (make test-timm): a
half-loaded torchvision would break other tests.
"""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from sish.encode import SlideEncoder
from sish.encoders import load
from sish.errors import MissingPackageError, WeightsError
from sish.recipe import Recipe
from sish.vqvae import save_weights
from sish.vqvae.known_networks import ELSEWHERE, KNOWN
from sish.vqvae.model import PRESETS, VQVAE, VQVAEConfig
from sish.vqvae.timm_network import _load


@pytest.fixture
def no_timm(monkeypatch):
    """A place where timm is not installed."""
    monkeypatch.setitem(sys.modules, "timm", None)


def _small_paper():
    config = PRESETS["paper"].as_dict() | {"channels": (8, 8, 8, 8), "residual_channels": 4, "code_dim": 4}
    return VQVAE(VQVAEConfig(**config))


@pytest.mark.usefixtures("no_timm")
def test_without_timm_it_says_what_to_install(tmp_path):
    save_weights(_small_paper(), path := tmp_path / "paper.safetensors")
    for name in (str(path), "timm:resnet50", "timm:uni"):
        with pytest.raises(MissingPackageError, match=r"pip install -e .*\[timm\]'"):
            load(name)


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_networks_that_timm_cannot_load_are_refused_with_the_way_to_go(name):
    with pytest.raises(WeightsError, match=rf"timm cannot load {name} .*--features"):
        load(f"timm:{name}")


def test_known_networks_say_their_scale():
    assert (Recipe.of("timm:UNI").patch_px, Recipe.of("timm:uni").mpp) == (224, 0.5)
    assert SlideEncoder(Recipe.of("timm:virchow2")).recipe == Recipe.of("timm:virchow2")
    assert Recipe.of("timm:resnet50") == Recipe(weights="timm:resnet50")
    assert all(network.px == 224 and 0.25 <= network.mpp <= 1 for network in KNOWN.values())


@pytest.mark.parametrize("state", [[], {"epoch": 3}, {"weight": torch.zeros(2, 3)}, {3: torch.zeros(2)}])
def test_weights_of_something_else_are_refused(state, tmp_path):
    torch.save(state, path := tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth does not hold"):
        _load(torch.nn.Linear(5, 2), "linear", path)


_TIMM = """
import sys
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
from pathlib import Path
from safetensors.torch import save_file
folder = Path(sys.argv[1])
torch.manual_seed(0)
images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
def in_imagenet_scale(images):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.from_numpy(((images / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
def refusal(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        return type(error).__name__ + ": " + str(error)
    raise AssertionError("not refused")
"""


def in_a_process(code, folder):
    """Run code in which timm is there; skips where it is not."""
    if find_spec("timm") is None or find_spec("torchvision") is None:
        pytest.skip("timm is not installed: make test-timm")
    done = subprocess.run(
        [sys.executable, "-c", _TIMM + code, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_paper_takes_its_features_from_densenet(tmp_path):
    save_weights(_small_paper(), tmp_path / "paper.safetensors")
    in_a_process(
        """
from sish.vqvae import load_encoder
source = timm.create_model("densenet121", pretrained=False).eval()
save_file(source.state_dict(), folder / "densenet.safetensors")
torch.save(source.state_dict(), folder / "densenet.pth")
encoders = [load_encoder(folder / "paper.safetensors", features=folder / f"densenet.{s}")
            for s in ("safetensors", "pth")]
assert encoders[0].fingerprint == encoders[1].fingerprint, encoders
assert (encoders[0].hamming_threshold, encoders[0].binarisation) == (128, "minmax")
encoded = encoders[0].encode(images)
assert encoded.codes.shape == (3, 4, 4)
with torch.no_grad():
    expected = source.forward_features(in_imagenet_scale(images)).mean((2, 3)).numpy()
np.testing.assert_allclose(encoded.features, expected, rtol=1e-3, atol=1e-4)
save_file({"a": torch.zeros(1)}, folder / "other.safetensors")
for bad in ("none.pth", "other.safetensors", "paper.safetensors"):
    told = refusal(load_encoder, folder / "paper.safetensors", features=folder / bad)
    kind = "WeightsNotFoundError" if bad == "none.pth" else "WeightsError"
    assert told.startswith(f"{kind}: ") and bad in told, told
""",
        tmp_path,
    )


@pytest.mark.slow
def test_any_network_of_timm_is_an_encoder(tmp_path):
    in_a_process(
        """
from sish.encode import SlideEncoder
from sish.recipe import Recipe
from sish.encoders import TimmEncoder, load
from sish.vqvae.timm_network import TimmNetwork
source = timm.create_model("resnet18", pretrained=False).eval()
torch.save(source.state_dict(), folder / "resnet18.bin")
encoder = load("timm:resnet18", network_weights=str(folder / "resnet18.bin"))
assert (encoder.n_features, encoder.binarisation, encoder.codebook) == (512, "projection", None)
encoded = encoder.encode(images)
with torch.no_grad():
    expected = source.forward_features(in_imagenet_scale(images)).mean((2, 3)).numpy()
np.testing.assert_allclose(encoded.features, expected, rtol=1e-3, atol=1e-4)
alone = np.concatenate([encoder.encode(image[None]).features for image in images])
assert encoded.codes is None and np.array_equal(alone, encoded.features)
assert "resnet18" in encoder.fingerprint
by_four = TimmEncoder(TimmNetwork("resnet18", folder / "resnet18.bin"), batch=4)  # as on a GPU: filled up
many = np.concatenate([images, images[::-1]])
parts = [by_four.encode(many[:n]).features for n in (1, 3, 6)]
assert np.array_equal(parts[2][:3], parts[1]) and np.array_equal(parts[1][:1], parts[0])
np.testing.assert_allclose(parts[1], encoded.features, rtol=1e-3, atol=1e-4)
vit = timm.create_model("vit_tiny_patch16_224", pretrained=False).eval()  # takes 224 px: others are resized
save_file(vit.state_dict(), folder / "vit.safetensors")
small = load("timm:vit_tiny_patch16_224", network_weights=str(folder / "vit.safetensors"))
assert small.encode(images).features.shape == (3, 192)

recipe = Recipe(weights="timm:resnet18", network_weights=str(folder / "resnet18.bin"), patch_px=64)
slides = SlideEncoder(recipe)
codes = slides.encode_patches(images)
assert codes.barcodes.shape == (3, 128) and not codes.keys.any()
measured = slides.measured_on(slides.features(images))
assert measured.fingerprint != slides.fingerprint and slides.needs_calibration
assert not measured.needs_calibration and measured.encode_patches(images).barcodes.shape == (3, 128)
paper = SlideEncoder(Recipe(weights=recipe.weights, network_weights=recipe.network_weights, keys="paper"))
assert "has no codebook to order" in refusal(paper.load)
assert "vit.safetensors" in refusal(load, "timm:resnet18", network_weights=str(folder / "vit.safetensors"))
assert "timm cannot build" in refusal(load, "timm:resnet19000", network_weights=str(folder / "resnet18.bin"))
assert "got device" in refusal(load, "timm:resnet18", device="abacus")
""",
        tmp_path,
    )


@pytest.mark.slow
def test_networks_of_pathology_are_what_their_cards_say(tmp_path):
    """Built without memory: as many numbers as published, and features as long."""
    in_a_process(
        """
from sish.vqvae import timm_network
from sish.vqvae.known_networks import KNOWN, KnownNetwork
published = {"uni": 303, "uni2-h": 681, "virchow": 631, "virchow2": 631, "prov-gigapath": 1135,
             "h-optimus-0": 1135, "h-optimus-1": 1135}  # million parameters
for name, known in KNOWN.items():
    with torch.device("meta"):
        network = timm_network._create(name, known, pretrained=False).eval()
    millions = sum(one.numel() for one in network.parameters()) / 1e6
    assert abs(millions / published[name] - 1) < 0.01, (name, millions)
    with torch.no_grad():
        found = network(torch.empty(2, 3, known.px, known.px, device="meta"))
    if known.class_and_mean:
        tokens = 1 + network.num_reg_tokens + (known.px // 14) ** 2
        assert found.shape == (2, tokens, known.n_features // 2), (name, found.shape)
    else:
        assert found.shape == (2, known.n_features), (name, found.shape)

# the way of Virchow, in small: the class token beside the mean of the patch tokens, registers left out
tiny = KnownNetwork("nobody/tiny", "vit_tiny_patch16_224", "none", 384, px=32, class_and_mean=True,
                    arguments={"img_size": 32, "reg_tokens": 4, "global_pool": ""})
timm_network.KNOWN = {**KNOWN, "tiny": tiny}
source = timm.create_model("vit_tiny_patch16_224", num_classes=0, **tiny.arguments).eval()
save_file(source.state_dict(), folder / "tiny.safetensors")
network = timm_network.TimmNetwork("Tiny", folder / "tiny.safetensors")
assert (network.n_features, network.px, network.mpp, network.licence) == (384, 32, 0.5, "none")
pixels = images[:, :32, :32]
with torch.no_grad():
    tokens = source(in_imagenet_scale(pixels))
expected = torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1)
found = network(torch.from_numpy(pixels.copy()))
np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
""",
        tmp_path,
    )


@pytest.mark.slow
def test_an_archive_of_a_foreign_encoder(tmp_path):
    in_a_process(
        """
import sish
from sish.demo.synthetic import write_slides
labels = write_slides(folder / "slides", n_slides=4)
torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), folder / "resnet18.bin")
recipe = sish.Recipe(weights="timm:resnet18", network_weights=str(folder / "resnet18.bin"))
index = sish.Index.create(folder / "a.sish", recipe=recipe, measure=folder / "slides")
assert 0 < index.params.threshold < 512
assert index.add(folder / "slides", labels=labels, show_progress=False).summary() == "4 added"
again = sish.Index.open(folder / "a.sish")
for row in again.slides:
    assert again.search(row.path, k=1)[0].slide_id == row.slide_id
torch.manual_seed(1)
torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), folder / "resnet18.bin")
told = refusal(sish.Index.open(folder / "a.sish").search, index.slides[0].path)
assert told.startswith("EncoderMismatchError"), told
""",
        tmp_path,
    )
