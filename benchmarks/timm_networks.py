"""Networks of timm with random weights: to learn what they cost, nothing needs to be downloaded."""

import sys
from importlib import import_module
from typing import Any

__all__ = ["random_network"]

_KEPT: list[Any] = []  # definitions of operators, which end with the object that made them


def random_network(name: str) -> Any:
    """A network that gives pooled features, or None where timm does not load. Seeded.

    torchvision, which timm imports, does not load beside a CPU build of torch: the two operators that it
    misses, which nothing here calls, are named for it.
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
