"""Make networks of timm with random weights, which measure their cost without a download."""

import sys
from importlib import import_module
from typing import Any

_KEPT: list[Any] = []  # libraries of operators; an operator is gone once its library is deleted


def random_network(name: str) -> Any:
    """Make a network that gives pooled features, with seeded random weights.

    timm imports torchvision, whose operators do not load beside a CPU build of torch. It needs two of them to
    be defined; nothing here calls them.

    Parameters
    ----------
    name : str
        timm's name of the network.

    Returns
    -------
    Module or None
        The network in evaluation mode, or None if timm does not load.
    """
    import torch

    try:
        import_module("torchvision")
    except ImportError:
        return None
    except RuntimeError:
        for module in [module for module in sys.modules if module.startswith("torchvision")]:
            del sys.modules[module]
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        _KEPT.append(library)
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        timm: Any = import_module("timm")
    except (ImportError, RuntimeError):
        return None
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=0).eval()
