"""Ordered sets of integer keys with predecessor and successor: three, with one interface (`OrderedSet`)."""

from sish.index.trees.ordered_set import OrderedSet
from sish.index.trees.sorted_array import SortedArray
from sish.index.trees.sorted_list import SortedListSet
from sish.index.trees.veb import VanEmdeBoas

__all__ = ["OrderedSet", "SortedArray", "SortedListSet", "VanEmdeBoas"]
