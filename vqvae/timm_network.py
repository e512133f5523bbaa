"""Any network of timm as a source of features (extra ``[timm]``): of ImageNet, and of pathology by name.

The published SISH makes its barcodes of one of them: DenseNet121 of ImageNet. Its last feature map, averaged
over the patch, is 1,024 numbers, used as they are (Chen et al. 2022, Methods).
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sish.errors import MissingPackageError, WeightsError, WeightsNotFoundError, errors_about
from sish.extras import install
from sish.nearest import nearest_to
from sish.vqvae.fingerprint import digest_of
from sish.vqvae.known_networks import ELSEWHERE, IMAGENET_MEAN, IMAGENET_STD, KNOWN, KnownNetwork
from sish.vqvae.tensor_files import misfits, one_line

DENSENET121 = "densenet121.tv_in1k"
"""torchvision's weights, which the authors used; timm has others of its own."""

_ANY_MPP = 1.0  # a network of photographs has no scale: that of sish


class TimmNetwork:
    """A frozen network that turns patches uint8 (N, H, W, 3) into features float32 (N, F).

    Parameters
    ----------
    name : str
        One of `KNOWN`, or any name that timm knows (``resnet50.a1_in1k``, ``hf-hub:owner/network``).
    weights : Path, optional
        A file of its weights under timm's names (.safetensors, .pth, .bin). Default: from the model hub.
    device : str
        Where it runs, as torch names it.

    Raises
    ------
    WeightsError
        If timm is missing or cannot load the network, if the hub cannot be reached or its licence is not
        accepted yet, or if the file does not fit.
    """

    def __init__(self, name: str, weights: Path | None = None, *, device: str = "cpu") -> None:
        """Build the network and load its weights; see the class for the arguments."""
        known = KNOWN.get(name.lower())
        network = _create(name, known, pretrained=weights is None)
        if weights is not None:
            with errors_about(weights):
                _load(network, name, weights)
        settings = dict(getattr(network, "pretrained_cfg", None) or {})
        self.name = name
        self.licence = known.licence if known else str(settings.get("license") or "see the model hub")
        self.mpp = known.mpp if known else _ANY_MPP
        self.px = known.px if known else int(settings.get("input_size", (3, 224, 224))[-1])
        self.fingerprint = digest_of(name.lower() if known else name, _numbers(network))
        self._resizes = known is not None or bool(settings.get("fixed_input_size"))
        self._class_and_mean = known is not None and known.class_and_mean
        mean = known.mean if known else settings.get("mean", IMAGENET_MEAN)
        std = known.std if known else settings.get("std", IMAGENET_STD)
        self._mean, self._std = (torch.tensor(three, device=device) for three in (mean, std))
        self._network = network.eval().requires_grad_(False).to(device)
        width = int(getattr(network, "num_features", 0))
        self.n_features = 2 * width if self._class_and_mean else width

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._mean.device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of patches.

        Parameters
        ----------
        images : Tensor
            uint8 (N, H, W, 3), H and W at least 32. For transformers, patches are resized to `px`.

        Returns
        -------
        Tensor
            float32 (N, `n_features`): DenseNet121 turns (16, 256, 256, 3) into (16, 1024).

        Raises
        ------
        WeightsError
            If the network's features are not one vector for each patch.
        """
        scaled = ((images.float() / 255 - self._mean) / self._std).permute(0, 3, 1, 2)
        if self._resizes and scaled.shape[2:] != (self.px, self.px):
            scaled = F.interpolate(scaled, (self.px, self.px), mode="bicubic", antialias=True)
        found: Tensor = self._network(scaled)
        if self._class_and_mean:
            first = 1 + int(getattr(self._network, "num_reg_tokens", 0))
            found = torch.cat([found[:, 0], found[:, first:].mean(1)], 1)
        if found.ndim != 2:
            raise WeightsError(
                f"timm:{self.name} gives {tuple(found.shape[1:])} a patch; want one with pooled features"
            )
        return found.float()


def _create(name: str, known: KnownNetwork | None, *, pretrained: bool) -> nn.Module:
    if name.lower() in ELSEWHERE:
        raise WeightsError(
            f"timm cannot load {name} ({ELSEWHERE[name.lower()]}); compute its features with TRIDENT or CLAM "
            "and add them with sish index add --features DIR"
        )
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # torchvision's compiled part fails with RuntimeError
        raise MissingPackageError(
            f"{name} features need timm, which does not load ({error}); {install('timm')}{_near(name)}"
        ) from error
    arguments: dict[str, Any] = {"num_classes": 0, **(known.arguments if known else {})}
    if "mlp_layer" in arguments:
        arguments |= {"mlp_layer": getattr(timm.layers, arguments["mlp_layer"])}
        arguments |= {"act_layer": getattr(nn, arguments["act_layer"])}
    wanted = name
    if known is not None:
        wanted = f"hf-hub:{known.repository}" if pretrained else known.architecture
    try:
        network: nn.Module = timm.create_model(wanted, pretrained=pretrained, **arguments)
    except Exception as error:  # whatever a network, a proxy or the hub's client may raise
        raise WeightsError(_no_network(name, known, pretrained=pretrained, error=error)) from error
    return network


def _no_network(name: str, known: KnownNetwork | None, *, pretrained: bool, error: Exception) -> str:
    reason = one_line(error)
    if not pretrained:
        return f"timm cannot build {name} ({reason}); timm.list_models() tells what there is"
    if known is None:
        return (
            f"{name} cannot be fetched from the model hub ({reason}); give a local file of its weights"
            f"{_near(name)}"
        )
    return (
        f"{name} cannot be fetched from the model hub ({reason}); accept its licence ({known.licence}) at "
        f"https://huggingface.co/{known.repository} and log in, or give a local file of its weights"
    )


def _near(name: str) -> str:
    """Return a hint with known names like this one; empty for a known name."""
    return "" if name.lower() in KNOWN else nearest_to(name, KNOWN)


def _numbers(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that features depend on."""
    return _of_features(network.state_dict(), network)


def _of_features(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a state, without the classifier and the batch counts of batch norm."""
    heads = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or "classifier"
    prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    return {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor)
        and not name.startswith(prefixes)
        and not name.endswith("num_batches_tracked")
    }


def _load(network: nn.Module, name: str, path: Path) -> None:
    if not path.is_file():
        raise WeightsNotFoundError(f"no weights of {name} at {path}; give a .safetensors, .pth or .bin file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        found = _of_features(state, network)
    except Exception as error:  # torch.load raises a dozen kinds for bytes that are no checkpoint
        raise WeightsError(
            f"{path} does not hold weights ({one_line(error)}); give a .safetensors or .pth"
        ) from error
    if odd := misfits(_numbers(network), found):
        raise WeightsError(
            f"{path} does not hold a {name} in timm's names ({odd[0]} and {len(odd) - 1} more do not fit);"
            " give its own weights"
        )
    network.load_state_dict(found, strict=False)
