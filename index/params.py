"""The parameters that bound a search: those of the guided search, and those of a search of an index."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

import numpy as np

from sish.errors import ParameterError

OrderedSetName = Literal["sorted_array", "veb", "sorted_list"]
"""A set that holds the paper's keys (`sish.index.trees`): a sorted numpy array, a van Emde Boas tree, or the
sorted lists of `sortedcontainers`."""

BUDGET = 4000
"""Default number of patches that a query patch is compared with at least, for texture keys."""

CEILING = 16
"""A query patch is compared with so many budgets at most: `sish.index.texture.cells`."""

KEY_UNIT = 10**11
"""The weight of the coarsest sum in a paper's key, and the unit of `GuidedParams.interval`."""
_INT64_MAX = 2**63 - 1
_MOST_SEEDS = 10_000  # on each side; each seed is a walk, and more would make a search endless


@dataclass(frozen=True, slots=True)
class GuidedParams:
    """The parameters that bound the guided search. The defaults are the paper's.

    Raises
    ------
    ParameterError
        If a value is out of range.

    Examples
    --------
    >>> GuidedParams(threshold=300).pre_step
    375
    """

    interval: int = 50
    """C: distance between neighbouring seeds, in units of 1e11."""
    n_seeds: int = 10
    """T: seeds on each side of the query's key, the key itself included on both."""
    pre_step: int = 375
    """Keys walked down from each seed."""
    succ_step: int = 375
    """Keys walked up from each seed."""
    threshold: int = 128
    """Largest Hamming distance, in bits, of an entry that joins a bag."""
    skip_step: int = 50_000
    """Number of wholly excluded keys that a walk may pass; it ends at the next one. No patient has so many.
    The limit is for filters that leave almost nothing: a walk would pass through the whole archive."""
    visit_query_key: bool = False
    """Look first at the entries at exactly the query's key, and take all within the threshold. The paper does
    not do this, so its walks may miss them. With this an indexed patch always finds itself."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for field in fields(self):
            if field.type not in (int, bool):
                continue
            value, least = getattr(self, field.name), int(field.name == "budget")
            if not isinstance(value, int | np.integer) or not least <= value <= _INT64_MAX:
                got = reprlib.repr(value)
                raise ParameterError(f"{field.name} is {got}; give an integer of at least {least}")
        if self.n_seeds > _MOST_SEEDS:
            raise ParameterError(f"n_seeds is {self.n_seeds}; give at most {_MOST_SEEDS}")


@dataclass(frozen=True, slots=True)
class SearchParams(GuidedParams):
    """The parameters that bound a search of an index: those of the guided search, and a budget of patches.

    A search along texture keys reads `budget` and `threshold` only. The guided search reads all but `budget`.

    Raises
    ------
    ParameterError
        If a value is out of range.

    Examples
    --------
    >>> params = SearchParams(threshold=300)
    >>> params.budget, params.threshold, params.n_seeds
    (4000, 300, 10)
    """

    reach: int = 0
    """Largest distance, in bits, of a result that the score counts, where that is more than the threshold: of
    an index whose threshold is measured the encoder's. Giving a threshold sets it to 0."""
    budget: int = BUDGET
    """Number of patches that a query patch is compared with at least, for texture keys. A search goes on, up
    to 16 budgets, while it finds nearer ones: `sish.index.texture.cells`. In an archive too small for a
    texture tree a query patch is compared with all patches."""
    ordered_set: OrderedSetName = "sorted_array"
    """The set along which the guided search walks. Answers do not depend on it; the sorted array, whose loops
    are compiled, is much the fastest. It is made once for each state of an index. Texture keys ignore it."""

    def __post_init__(self) -> None:
        """Refuse values out of range, and sets that do not exist."""
        GuidedParams.__post_init__(self)
        known = get_args(OrderedSetName)
        if self.ordered_set not in known:
            got, near = reprlib.repr(self.ordered_set), get_close_matches(str(self.ordered_set), known, n=1)
            nearest = f"; nearest: {near[0]!r}" if near else ""
            raise ParameterError(f"ordered_set is {got}; give one of {', '.join(known)}{nearest}")

    def with_changes(self, given: "SearchParams | Mapping[str, Any]") -> "SearchParams":
        """Return the parameters that are given, or these with some changed.

        Parameters
        ----------
        given : SearchParams or mapping
            All parameters, or a mapping of names to new values.

        Returns
        -------
        SearchParams
            The parameters to search with.

        Raises
        ------
        ParameterError
            If a name is unknown or a value out of range.

        Examples
        --------
        >>> SearchParams(threshold=300).with_changes({"budget": 1000}).threshold
        300
        """
        if isinstance(given, SearchParams):
            return given
        names = [field.name for field in fields(self)]
        if not isinstance(given, Mapping) or not set(given) <= set(names):
            raise ParameterError(
                f"got search={given!r}; want SearchParams, or a mapping of any of {', '.join(names)}"
            )
        return replace(self, **({"reach": 0} | dict(given) if "threshold" in given else given))
