"""The published guided search in plain Python, one step at a time; the compiled search must agree with it.

It is written from the description (Chen et al. 2022, Methods; `sish.index.guided.walk`) over any ordered set.
It is the oracle of the tests and the baseline of ``benchmarks.guided_search``. Distances are counted with
numpy, a pair at a time; on Python integers (``int.bit_count``) the loop would be about five times as fast.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sish.index.params import KEY_UNIT, SearchParams

Result = tuple[int, int]
"""A patch and its distance in bits."""


class Neighbours(Protocol):
    """The methods of a tree of keys that the search uses."""

    def predecessor(self, key: int) -> int | None:
        """Return the greatest key smaller than `key`, or None."""

    def successor(self, key: int) -> int | None:
        """Return the smallest key greater than `key`, or None."""


@dataclass(frozen=True, slots=True)
class PlainIndex:
    """An archive for the plain search."""

    tree: Neighbours
    """Its distinct keys."""
    entries: Mapping[int, Sequence[tuple[int, NDArray[np.uint8]]]]
    """Number and barcode of the patches at each key, in insertion order, without the excluded ones."""

    @classmethod
    def build(cls, kind: Any, archive: Sequence[NDArray[Any]], exclude: Sequence[bool] = ()) -> "PlainIndex":
        """Index `archive` (keys (P,), barcodes uint8 (P, B), slide (P,)) by an ordered set."""
        keys, barcodes, slide = archive
        entries: dict[int, list[tuple[int, NDArray[np.uint8]]]] = {}
        for patch, key in enumerate(keys.tolist()):
            at_key = entries.setdefault(key, [])
            if not (slide[patch] < len(exclude) and exclude[slide[patch]]):
                at_key.append((patch, barcodes[patch]))
        return cls(kind.of(np.array(keys, dtype=np.int64)), entries)


def plain_search(
    index: PlainIndex, keys: Sequence[int], barcodes: NDArray[np.uint8], params: SearchParams
) -> list[list[Result]]:
    """Return the bag of each query patch; keys (Q,), barcodes uint8 (Q, B)."""
    return [plain_bag(index, int(key), barcode, params) for key, barcode in zip(keys, barcodes, strict=True)]


def plain_bag(index: PlainIndex, key: int, query: NDArray[np.uint8], params: SearchParams) -> list[Result]:
    """Run the published search of one query patch."""
    closed: set[int] = set()
    bag: list[Result] = []

    def at(key: int) -> list[Result]:
        here = index.entries.get(key, ())
        return [(patch, int(np.unpackbits(row ^ query).sum())) for patch, row in here]

    def walk(start: int, neighbour: Callable[[int], int | None], steps: int) -> None:
        here, skips = neighbour(start), params.skip_step
        while here is not None and steps > 0 and skips >= 0 and here not in closed:
            results = at(here)
            if results:
                steps -= 1
                best = min(results, key=lambda result: result[1])
                if best[1] <= params.threshold:
                    bag.append(best)
                    closed.add(here)
            else:
                skips -= 1
            here = neighbour(here)

    if params.visit_query_key:
        bag += [result for result in at(key) if result[1] <= params.threshold]
        closed |= {key} if bag else set()
    spacing = params.interval * KEY_UNIT
    seeds = [key - t * spacing for t in range(params.n_seeds)]
    seeds += [key + t * spacing for t in range(params.n_seeds)]
    for seed in seeds:
        walk(seed, index.tree.predecessor, params.pre_step)
        walk(seed, index.tree.successor, params.succ_step)
    return sorted(bag, key=lambda result: result[1])
