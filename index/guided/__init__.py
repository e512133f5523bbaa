"""The published search: it walks along integer keys to where a patch leads (Chen et al. 2022, Methods)."""

from sish.index.guided.walk import guided_search

__all__ = ["guided_search"]
