"""Find communities in a database of codes, and search inside the nearest ones.

Haq, Moradi & Wang (poster; the longer paper, Med Image Anal 2021, uses graph communities): each image is a
node of a graph, linked to its nearest codes by Hamming distance, and the graph is divided into communities. A
query is compared with the centre of each community, then with the members of the nearest few.

Communities are found by networkx's Louvain: torch installs it already, and its licence is BSD. igraph and
leidenalg are faster, but GPL. Louvain runs in Python: about a second for a thousand images, minutes for a
hundred thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.index.barcode import nearest


@dataclass(frozen=True, slots=True)
class Communities:
    """A database of codes in communities."""

    codes: NDArray[np.uint8]
    """uint8 (N, L / 8): the codes."""
    member_of: NDArray[np.int64]
    """int64 (N,): community of each code, 0 to C - 1, the largest community first."""
    centres: NDArray[np.float32]
    """float32 (C, L): share of the members with each bit set."""

    def __len__(self) -> int:
        """Return the number of communities."""
        return len(self.centres)

    def order(self, code: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the communities in order of the squared distance of their centres to a code.

        The mean Hamming distance to the members is this distance plus the members' spread about the centre.
        Without the spread, a tight community does not attract every query.

        Parameters
        ----------
        code : uint8 (L / 8,)
            The query.

        Returns
        -------
        int64 (C,)
            Numbers of the communities, nearest first, ties by number.
        """
        bits = np.unpackbits(code)
        return np.argsort(np.square(self.centres - bits).sum(1), kind="stable")

    def candidates(
        self,
        code: NDArray[np.uint8],
        *,
        probe: int,
        at_least: int = 1,
        allowed: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Return the codes in the communities nearest to a query.

        Parameters
        ----------
        code : uint8 (L / 8,)
            The query.
        probe : int
            Number of communities.
        at_least : int
            Number of codes wanted: further communities are taken, nearest first, until there are so many.
        allowed : bool (N,), optional
            Codes that may be returned. Default: all.

        Returns
        -------
        int64 (M,)
            Numbers of the codes, ascending.

        Raises
        ------
        ParameterError
            If `probe` is below 1.
        """
        if probe < 1:
            raise ParameterError(f"got probe={probe}; open 1 community at least")
        may = np.ones(len(self.codes), bool) if allowed is None else allowed
        opened = np.zeros(len(self), bool)
        rows = np.zeros(0, np.int64)
        for number, community in enumerate(self.order(code)):
            if number >= probe and len(rows) >= at_least:
                break
            opened[community] = True
            rows = np.flatnonzero(opened[self.member_of] & may)
        return rows


def neighbour_graph(codes: NDArray[np.uint8], neighbours: int) -> nx.Graph:
    """Return the graph in which each code is linked to its nearest others, O(N^2).

    Parameters
    ----------
    codes : uint8 (N, L / 8)
        The nodes.
    neighbours : int
        Number of links that each code starts; links have no direction.

    Returns
    -------
    networkx.Graph
        The weight of a link is the share of bits that agree; codes without such a bit have no link.

    Raises
    ------
    ParameterError
        If `neighbours` is below 1.
    """
    if neighbours < 1:
        raise ParameterError(f"got {neighbours} neighbours a code; give 1 at least")
    graph = nx.Graph()
    graph.add_nodes_from(range(len(codes)))
    if len(codes) < 2:
        return graph
    n_bits = codes.shape[1] * 8
    found = nearest(codes, codes, min(neighbours + 1, len(codes)))
    for row, (others, distances) in enumerate(zip(found.row, found.hamming, strict=True)):
        ties = [(int(o), int(d)) for o, d in zip(others, distances, strict=True) if o != row][:neighbours]
        weighted = ((row, other, 1 - distance / n_bits) for other, distance in ties if distance < n_bits)
        graph.add_weighted_edges_from(weighted)
    return graph


def find_communities(
    codes: NDArray[np.uint8], *, neighbours: int = 10, resolution: float = 1.0, seed: int = 0
) -> Communities:
    """Divide codes into communities, by Louvain on their `neighbour_graph`.

    Parameters
    ----------
    codes : uint8 (N, L / 8)
        N of at least 1.
    neighbours : int
        Number of links that each code starts.
    resolution : float
        Above 1, communities are smaller and more.
    seed : int
        The same codes and seed give the same communities.

    Returns
    -------
    Communities
        The largest first.

    Raises
    ------
    ParameterError
        If the codes or the resolution do not fit.
    """
    if codes.ndim != 2 or codes.dtype != np.uint8 or not codes.size:
        raise ParameterError(f"codes are {codes.dtype} {codes.shape}; give uint8 (N, L / 8) with N >= 1")
    if resolution <= 0:
        raise ParameterError(f"the resolution of communities is {resolution}; give a positive number")
    graph = neighbour_graph(codes, neighbours)
    parts = nx.community.louvain_communities(graph, resolution=resolution, seed=seed)
    member_of = np.empty(len(codes), np.int64)
    parts = sorted(parts, key=lambda part: (-len(part), min(part)))
    for number, part in enumerate(parts):
        member_of[list(part)] = number
    bits = np.unpackbits(codes, axis=1)
    centres = np.stack([bits[member_of == number].mean(0) for number in range(len(parts))])
    return Communities(codes, member_of, centres.astype(np.float32))
