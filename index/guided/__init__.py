"""The published search: it walks along the integer keys around a patch's key (Chen et al. 2022, Methods)."""

from sish.index.guided.walk import guided_search

__all__ = ["guided_search"]
