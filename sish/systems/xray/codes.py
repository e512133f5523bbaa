"""Search X-rays by codes learnt from their findings, inside communities (Haq, Moradi & Wang).

An archive with findings trains the code generator (`sish.systems.training.modules`), and is searched. For
measurements, the queries must be of patients that were not in the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.index.barcode import hamming
from sish.systems.base import Allowed, Scores, System
from sish.systems.item import Item
from sish.systems.small_pictures import read_picture
from sish.systems.xray.communities import Communities, find_communities

if TYPE_CHECKING:
    from sish.systems.xray.generator import CodeGenerator


class XrayCodes(System[NDArray[np.uint8]]):
    """Search by Hamming distance of codes, in the communities nearest to the query.

    A score is the share of bits that agree. If these communities hold fewer than k items, further ones are
    searched. A query is compared with the centres of all communities and the codes of a few.

    >>> import tempfile
    >>> from PIL import Image
    >>> from sish.systems.xray.generator import CodeGenerator, CodeNetwork, GeneratorConfig
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in "abcd":
    ...     Image.fromarray(rng.integers(0, 200, (16, 16), np.uint8)).save(folder / f"{name}.png")
    >>> items = [Item(name, folder / f"{name}.png") for name in "abcd"]
    >>> generator = CodeGenerator(CodeNetwork(GeneratorConfig(channels=(8, 16), size_px=16), ["Mass"]))
    >>> hits = XrayCodes(generator).fit(items).search(Item("copy", items[1].path), k=3)
    >>> {hit.item_id: hit.score for hit in hits}["b"]       # the network is not trained
    1.0
    """

    def __init__(
        self,
        generator: CodeGenerator | str | Path,
        *,
        probe: int | None = 2,
        neighbours: int = 10,
        resolution: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Choose how codes are made and searched.

        Parameters
        ----------
        generator : CodeGenerator, str or Path
            The code generator, or the file of its weights (`sish train-codes export`).
        probe : int or None
            Number of communities that a query is compared with; None compares it with every code.
        neighbours : int
            Number of nearest codes that each code is linked to in the graph of communities.
        resolution : float
            Above 1, communities are smaller and more.
        seed : int
            Seed of the search for communities.

        Raises
        ------
        ParameterError
            If a number is out of range.
        """
        if (probe is not None and probe < 1) or neighbours < 1 or resolution <= 0:
            raise ParameterError(
                f"probe is {probe}, neighbours {neighbours}, resolution {resolution}; give 1 community and 1"
                " neighbour at least and a positive resolution"
            )
        if isinstance(generator, str | Path):
            from sish.systems.xray.generator import load_code_generator

            generator = load_code_generator(generator)
        self._generator = generator
        self._probe = probe
        self._find = partial(find_communities, neighbours=neighbours, resolution=resolution, seed=seed)
        self._codes = np.zeros((0, generator.bits // 8), np.uint8)
        self.communities: Communities | None = None
        self.name = f"x-ray codes, {'exhaustive' if probe is None else f'communities opened: {probe}'}"

    def describe(self, item: Item) -> NDArray[np.uint8]:
        """Return the code uint8 (L / 8,) of a picture."""
        side = self._generator.size_px
        code: NDArray[np.uint8] = self._generator.codes(read_picture(item.path, (side, side), "L")[None])[0]
        return code

    def build(self, descriptions: Sequence[NDArray[np.uint8]]) -> None:
        """Keep the codes, and find their communities unless every code is searched."""
        self._codes = np.reshape(np.asarray(descriptions, np.uint8), (-1, self._generator.bits // 8))
        self.communities = None
        if self._probe is not None and len(self._codes):
            self.communities = self._find(self._codes)

    def score(self, description: NDArray[np.uint8], allowed: Allowed, k: int) -> Scores:
        """Return the share of bits that agree, for codes of the nearest communities or for all."""
        rows: NDArray[np.int64] = np.flatnonzero(allowed)
        if self.communities is not None and self._probe is not None:
            rows = self.communities.candidates(description, probe=self._probe, at_least=k, allowed=allowed)
        bits = hamming(self._codes[rows], description)
        return Scores(1 - bits / self._generator.bits, place=rows, looked_at=len(rows))

    def nbytes(self) -> int:
        """Return the bytes of the codes, and of the communities' numbers and centres."""
        if self.communities is None:
            return self._codes.nbytes
        return self._codes.nbytes + self.communities.member_of.nbytes + self.communities.centres.nbytes
