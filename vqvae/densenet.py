"""The published source of barcode features: DenseNet121 of ImageNet, through timm (extra ``[timm]``).

SISH (Chen et al. 2022, Methods) feeds the patch to a DenseNet121 and averages its last feature map over the
patch: 1,024 numbers, used as they are (not standardised), with a Hamming threshold of 128.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sish.errors import WeightsError
from sish.vqvae.fingerprint import digest_of

__all__ = ["DenseNetFeatures"]

_NAME = "densenet121.tv_in1k"  # torchvision's weights, which the authors used; timm's own are others
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class DenseNetFeatures:
    """Global average of DenseNet121's last feature map: uint8 (N, H, W, 3) to float32 (N, 1024)."""

    fingerprint: str
    """sha256 of the network's weights."""

    def __init__(self, weights: Path | None = None, *, device: str = "cpu") -> None:
        """Load ``weights`` (.safetensors or .pth, in timm's names), or fetch them from the model hub.

        A WeightsError where timm is missing, the hub cannot be reached, or the file does not fit.
        """
        network = _create(pretrained=weights is None)
        if weights is not None:
            _load(network, weights)
        self._network = network.eval().requires_grad_(False).to(device)
        self.fingerprint = digest_of(_NAME, _numbers(network.state_dict()))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 (N, 1024) of images uint8 (N, H, W, 3), H and W at least 32."""
        mean = torch.tensor(_IMAGENET_MEAN, device=images.device)
        std = torch.tensor(_IMAGENET_STD, device=images.device)
        scaled = (images.float() / 255 - mean) / std
        features: Tensor = self._network(scaled.permute(0, 3, 1, 2))
        return features.float()


def _create(*, pretrained: bool) -> nn.Module:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # torchvision's compiled part fails with RuntimeError
        raise WeightsError(
            f"DenseNet121 features need timm, which does not load ({error}); pip install 'sish[timm]'"
        ) from error
    try:
        network: nn.Module = timm.create_model(_NAME, pretrained=pretrained, num_classes=0)
    except Exception as error:  # whatever a network, a proxy or the hub's client may raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{_NAME} cannot be fetched from the model hub ({reason}); give a local file of its weights"
        ) from error
    return network


def _numbers(state: dict[str, Any]) -> dict[str, Tensor]:
    """What decides the features: not the classifier, nor the batch counts of batch norm."""
    return {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith("classifier.") and not name.endswith("num_batches_tracked")
    }


def _load(network: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"no DenseNet121 weights at {path}; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        found = _numbers(state)
    except Exception as error:  # torch.load raises a dozen kinds for bytes that are no checkpoint
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} does not hold weights ({reason}); give a .safetensors or .pth") from error
    needed = {name: tensor.shape for name, tensor in _numbers(network.state_dict()).items()}
    if needed != {name: tensor.shape for name, tensor in found.items()}:
        raise WeightsError(f"{path} does not hold a DenseNet121 in timm's names; give {_NAME} weights")
    network.load_state_dict(found, strict=False)
