"""The recall of an archive, measured on itself: the share of the ten nearest patches that a search finds.

Some of the archive's own patches are searched for, as a query's patches are, and compared with all patches
too. A patch is not counted as its own neighbour. They are the 64 of the smallest hash (`sample_of` of
`sish.thresholds`), or fewer, at least 16, beyond eight million patches, so that it takes seconds at most.

The writer measures when a tree is learnt, and again whenever the archive has grown by a quarter. The figure
is kept with the archive. So a search only reads it, and the cost of adding a patch does not depend on the
number of patches. Two kinds of archives are not measured: those of the paper's keys, and those that are too
small for a tree, in which a query is compared with all patches.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sish.archives import AnyStore, archive_of
from sish.errors import IndexCorruptError, ParameterError
from sish.index.bags import Bags
from sish.index.params import BUDGET, SearchParams
from sish.index.store import State
from sish.index.store.manifest import JSON
from sish.index.texture.tree import TextureTree
from sish.results import Results
from sish.thresholds import sample_of

_LOG = logging.getLogger(__name__)

FACT = "recall"
"""The name of the measurement among the facts that the store keeps."""

LOW = 0.9
"""An answer has a note if the recall is lower."""

_K = 10
_MOST, _FEWEST, _COMPARISONS = 64, 16, 5 * 10**8  # queries, and comparisons of barcodes


@dataclass(frozen=True, slots=True)
class Recall:
    """A measurement of the recall."""

    at_10: float
    """Share of the ten nearest that were found."""
    budget: int
    """The budget of the search."""
    queries: int
    """Patches that were searched for."""
    patches: int
    """Patches of the archive at that time."""

    @classmethod
    def on(cls, state: State, tree: TextureTree, budget: int) -> Recall:
        """Measure on a state whose keys `tree` made."""
        archive = archive_of(state, tree)
        patches = state.n_patches
        queries = sample_of(state)[1][: max(_FEWEST, min(_MOST, _COMPARISONS // max(1, patches)))]
        everything = archive.search(queries, k=_K + 1, budget=max(1, len(archive)))
        found = archive.search(queries, k=budget, budget=budget)
        shares = map(_share, _distances(found), _distances(everything))
        return cls(round(float(np.mean([*shares])), 4), budget, len(queries), patches)

    @classmethod
    def kept_with(cls, facts: Mapping[str, JSON]) -> Recall | None:
        """Return the measurement among a store's facts; None if there is none, or one of another kind."""
        fact = facts.get(FACT)
        try:
            found = cls(**fact) if isinstance(fact, Mapping) else None  # type: ignore[arg-type]
        except TypeError:
            return None
        values = () if found is None else (found.at_10, found.budget, found.queries, found.patches)
        return found if all(isinstance(it, int | float) for it in values) else None

    def fact(self) -> dict[str, JSON]:
        """Return what the store keeps."""
        return {FACT: asdict(self)}

    def told(self) -> str:
        """Return the measurement in words."""
        return (
            f"{self.at_10:.3f} of the ten nearest patches are found at a budget of {self.budget}, "
            f"measured on {self.queries} of {self.patches} patches"
        )


def measure_recall(store: AnyStore) -> None:
    """Measure the recall of an archive that is open for writing and has a tree, and keep it."""
    store.measure(_fact_of)
    found = Recall.kept_with(store.state.measured)
    _LOG.info("measured the recall: %s", "not kept" if found is None else found.told())


def _fact_of(state: State) -> dict[str, JSON]:
    """Return the fact to keep of a state: its recall at its own budget."""
    return Recall.on(state, TextureTree.from_arrays(state.tree or {}), _budget_of(state)).fact()


def told_of(state: State) -> str:
    """Return the recall of a state in words."""
    found = Recall.kept_with(state.measured)
    if found is not None:
        return found.told()
    return (
        "not measured: sish index tune measures it"
        if state.tree_file
        else "1: a query is compared with all patches"
    )


def noted(results: Results, state: State, params: SearchParams) -> Results:
    """Return results, with a note if the recall of the state at this budget is low."""
    found = Recall.kept_with(state.measured)
    if found is None or found.at_10 >= LOW or params.budget > found.budget:
        return results
    said = (
        f"about {100 * found.at_10:.0f} % of the nearest patches are found: the archive is too dense for a "
        f"budget of {found.budget}; sish index tune --recall 0.95 raises it"
    )
    return replace(results, note="; ".join(filter(None, (results.note, said))))


def tune(store: AnyStore, tree: TextureTree | None, wanted: float) -> Recall:
    """Set the budget of an archive to the least of 4,000, 8,000, 16,000, ... that has the wanted recall.

    Parameters
    ----------
    store : Store or RemoteStore
        The archive, open for writing.
    tree : TextureTree or None
        Its tree.
    wanted : float
        The recall, above 0 and at most 1. A budget of the whole archive has a recall of 1.

    Returns
    -------
    Recall
        What was measured at the budget that was set.

    Raises
    ------
    ParameterError
        If the recall is out of range, or the archive has no tree: it has the paper's keys, or so few patches
        that a query is compared with all of them.
    IndexCorruptError
        If the header has no search parameters.
    """
    if not 0 < wanted <= 1:
        raise ParameterError(f"got a recall of {wanted}; want a number above 0, and at most 1")
    if tree is None or not store.state.n_patches:
        raise ParameterError(
            f"{store.path} has no texture tree, or no patches: its keys are the paper's, or it is so small "
            "that a query is compared with all patches; there is no budget to tune"
        )
    found = Recall.on(store.state, tree, BUDGET)
    while found.at_10 < wanted and found.budget < found.patches:
        found = Recall.on(store.state, tree, min(2 * found.budget, found.patches))
    search = store.header["search"]
    if not isinstance(search, Mapping):
        raise IndexCorruptError(f"{store.path}: its search parameters are {search!r}; make the index again")
    store.replace_header({**store.header, "search": {**search, "budget": found.budget}}, found.fact())
    return found


def _budget_of(state: State) -> int:
    """Return the budget of an archive's header."""
    search = state.header.get("search")
    budget = search.get("budget", BUDGET) if isinstance(search, Mapping) else BUDGET
    return budget if isinstance(budget, int) else BUDGET


def _distances(bags: Bags) -> list[NDArray[np.int32]]:
    """Return the distances of each bag."""
    return np.split(bags.hamming, bags.offset[1:-1])


def _share(found: NDArray[np.int32], nearest: NDArray[np.int32]) -> float:
    """Return the share of the nearest that was found; the nearest of all is the patch itself."""
    return max(0, int((found[: len(nearest)] <= nearest[-1]).sum()) - 1) / max(1, len(nearest) - 1)
