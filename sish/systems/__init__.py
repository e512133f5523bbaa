"""Published search systems behind one interface: fit a system on items, then search it.

An :class:`Item` is a slide or image with what is known of it; :func:`read_items` makes items of files,
folders and a labels file. Every system is a :class:`System`: ``fit(items)``, then ``search(item, k)``,
which returns :class:`ItemResults`. The names below are imported from their modules when they are first used,
so that ``import sish.systems`` needs neither torch nor numba.

- :class:`Sish`: the machinery of :class:`sish.Index`, on a database in memory
- :class:`Yottixel`: barcodes of a mosaic, and the median of their smallest distances
- :class:`SlideSimilarity`: the cosines of all patches with all patches
- :class:`Smily`: any region of any slide as the query; refined by region, by example and by concept
- :class:`XrayCodes`: codes that a network learnt from findings, searched in communities
- :class:`LesionSimilarity`: features, texture and outline of skin lesions

>>> from pathlib import Path
>>> from sish import systems
>>> issubclass(systems.Yottixel, systems.System)
True
>>> systems.Item("field-7", Path("field-7.png"), labels=frozenset({"benign"}), mpp=0.5).label
'benign'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sish.systems.base import ItemHit, ItemResults, Scores, System
    from sish.systems.item import Item
    from sish.systems.items import read_items
    from sish.systems.lesions.mask_predictor import load_mask_predictor
    from sish.systems.lesions.similarity import LesionDescriber, LesionSimilarity
    from sish.systems.patch_features import PatchDescriber, Tiles, WholePicture
    from sish.systems.sish_system import Sish
    from sish.systems.slide_similarity import SlideSimilarity
    from sish.systems.smily.regions import RegionHit, RegionQuery, Smily
    from sish.systems.training.modules import train_code_generator, train_mask_predictor
    from sish.systems.xray.codes import XrayCodes
    from sish.systems.xray.generator import load_code_generator
    from sish.systems.yottixel import Yottixel

__all__ = [
    "Item",
    "ItemHit",
    "ItemResults",
    "LesionDescriber",
    "LesionSimilarity",
    "PatchDescriber",
    "RegionHit",
    "RegionQuery",
    "Scores",
    "Sish",
    "SlideSimilarity",
    "Smily",
    "System",
    "Tiles",
    "WholePicture",
    "XrayCodes",
    "Yottixel",
    "load_code_generator",
    "load_mask_predictor",
    "read_items",
    "train_code_generator",
    "train_mask_predictor",
]

_HOME = {
    "base": ("ItemHit", "ItemResults", "Scores", "System"),
    "item": ("Item",),
    "items": ("read_items",),
    "lesions.mask_predictor": ("load_mask_predictor",),
    "lesions.similarity": ("LesionDescriber", "LesionSimilarity"),
    "patch_features": ("PatchDescriber", "Tiles", "WholePicture"),
    "sish_system": ("Sish",),
    "slide_similarity": ("SlideSimilarity",),
    "smily.regions": ("RegionHit", "RegionQuery", "Smily"),
    "training.modules": ("train_code_generator", "train_mask_predictor"),
    "xray.codes": ("XrayCodes",),
    "xray.generator": ("load_code_generator",),
    "yottixel": ("Yottixel",),
}
"""The names that each module of this folder hands on."""


def __getattr__(name: str) -> Any:
    """Return a public name, imported from its module."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
