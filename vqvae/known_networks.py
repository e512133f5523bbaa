"""Published networks by name: where their weights are, which pixels they take, and their licence.

The facts are as they are generally given. The model cards on the hub, behind a gate, have precedence, above
all on licences. A network that is not in the table is looked up in timm, and takes pixels as timm says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BIOPTIMUS_MEAN = (0.707223, 0.578729, 0.703617)
_BIOPTIMUS_STD = (0.211883, 0.230117, 0.177517)
_BY_NC_ND = "CC BY-NC-ND 4.0 (gated; no commercial use)"
_APACHE = "Apache-2.0 (gated)"

_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
_VIRCHOW = {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", **_SWIGLU}
_OPTIMUS = {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False, "global_pool": "token"}


@dataclass(frozen=True, slots=True)
class KnownNetwork:
    """A published network and how to use it."""

    repository: str
    """Its name on the model hub."""
    architecture: str
    """Its name in timm."""
    licence: str
    """Licence of its weights, in short; the terms are on the hub."""
    n_features: int
    """Length of a patch's features."""
    px: int = 224
    """Side of the patches that it takes."""
    mpp: float = 0.5
    """Micrometres per pixel that it was trained at; of several, the one that its authors evaluate at."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from red, green and blue in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Then divides them."""
    class_and_mean: bool = False
    """Whether features are the class token and the mean of the patch tokens, instead of the output."""
    arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Arguments with which timm builds it; layers by name."""


KNOWN: Mapping[str, KnownNetwork] = MappingProxyType(
    {
        "uni": KnownNetwork(
            "MahmoodLab/UNI", "vit_large_patch16_224", _BY_NC_ND, 1024,
            arguments={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
        ),
        "uni2-h": KnownNetwork(
            "MahmoodLab/UNI2-h", "vit_giant_patch14_224", _BY_NC_ND, 1536,
            arguments={
                "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5,
                "embed_dim": 1536, "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 8,
                "dynamic_img_size": True, **_SWIGLU,
            },
        ),
        "virchow": KnownNetwork(
            "paige-ai/Virchow", "vit_huge_patch14_224", _APACHE, 2560, class_and_mean=True,
            arguments={**_VIRCHOW, "dynamic_img_size": True},
        ),
        "virchow2": KnownNetwork(
            "paige-ai/Virchow2", "vit_huge_patch14_224", _BY_NC_ND, 2560, class_and_mean=True,
            arguments={**_VIRCHOW, "dynamic_img_size": True, "reg_tokens": 4},
        ),
        "prov-gigapath": KnownNetwork(
            "prov-gigapath/prov-gigapath", "vit_giant_patch14_dinov2", _APACHE, 1536,
            arguments={
                "img_size": 224, "patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24,
                "init_values": 1e-5, "mlp_ratio": 5.33334,
            },
        ),
        "h-optimus-0": KnownNetwork(
            "bioptimus/H-optimus-0", "vit_giant_patch14_reg4_dinov2", _APACHE, 1536,
            mean=_BIOPTIMUS_MEAN, std=_BIOPTIMUS_STD, arguments=_OPTIMUS,
        ),
        "h-optimus-1": KnownNetwork(
            "bioptimus/H-optimus-1", "vit_giant_patch14_reg4_dinov2", _BY_NC_ND, 1536,
            mean=_BIOPTIMUS_MEAN, std=_BIOPTIMUS_STD, arguments=_OPTIMUS,
        ),
    }
)  # fmt: skip
"""The networks by the names that follow `timm:`."""

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "conch": "MahmoodLab/CONCH, CC BY-NC-ND 4.0, for its own package",
        "conch-v1.5": "MahmoodLab/conchv1_5, CC BY-NC-ND 4.0, for transformers",
        "hibou-b": "histai/hibou-b, Apache-2.0, for transformers",
        "hibou-l": "histai/hibou-L, Apache-2.0, for transformers",
        "midnight-12k": "kaiko-ai/midnight, MIT, for transformers",
        "musk": "xiangjx/musk, CC BY-NC-ND 4.0, for its own package",
        "phikon": "owkin/phikon, non-commercial, for transformers",
        "phikon-v2": "owkin/phikon-v2, non-commercial, for transformers",
    }
)
"""Networks that timm cannot load: where they are published, their licence, and what loads them."""
