"""Where an archive is, in a folder or in PostgreSQL: opened, made, and searched by the same calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sish.errors import IndexNotFoundError, ParameterError
from sish.index.postgres.addresses import Address, place_of
from sish.index.postgres.state import RemoteState
from sish.index.postgres.store import RemoteStore
from sish.index.postgres.verify import verify_archive
from sish.index.store import State, Store
from sish.index.store.admission import check_vacant
from sish.index.store.manifest import JSON
from sish.index.store.verify import verify as verify_folder
from sish.index.texture.archive import Archive, Facts, learn_keys
from sish.index.texture.tree import TextureTree
from sish.printing import counted

if TYPE_CHECKING:
    from sish.index.postgres.archive import RemoteArchive

_LOG = logging.getLogger(__name__)

AnyStore = Store | RemoteStore
"""A store, wherever it is."""


def open_store(place: str | os.PathLike[str] | Address) -> AnyStore:
    """Open a store for reading.

    Parameters
    ----------
    place : path-like or Address
        A folder, or an address in PostgreSQL or its text.

    Returns
    -------
    Store or RemoteStore
        The store.

    Raises
    ------
    StoreError
        If there is none, or it cannot be read.
    """
    found = place_of(place)
    return RemoteStore.open(found) if isinstance(found, Address) else Store.open(found)


def create_store(place: str | os.PathLike[str] | Address, header: Mapping[str, JSON]) -> AnyStore:
    """Make an empty store and open it for writing.

    Parameters
    ----------
    place : path-like or Address
        As of `open_store`.
    header : mapping
        Its header.

    Returns
    -------
    Store or RemoteStore
        The store.

    Raises
    ------
    StoreError
        If there is something already, or it cannot be written.
    """
    found = place_of(place)
    return RemoteStore.create(found, header) if isinstance(found, Address) else Store.create(found, header)


def is_there(place: str | os.PathLike[str] | Address) -> bool:
    """Return whether there is a store, without making one; a place that is taken is refused.

    Parameters
    ----------
    place : path-like or Address
        As of `open_store`.

    Returns
    -------
    bool
        False if `create_store` could make one there.

    Raises
    ------
    StoreError
        If there is something else, or it cannot be read.
    """
    try:
        open_store(place)
    except IndexNotFoundError:
        found = place_of(place)
        if isinstance(found, Path) and found.exists():
            check_vacant(found)
        return False
    return True


def folder_of(place: str | os.PathLike[str] | Address) -> Path:
    """Return the path of a folder; ParameterError for an address in PostgreSQL."""
    found = place_of(place)
    if isinstance(found, Address):
        raise ParameterError(
            f"got {found}; want a folder: sish index pull makes one of an archive in PostgreSQL, and sish "
            "index push an archive of a folder"
        )
    return found


def verify(path: str | os.PathLike[str] | Address) -> list[str]:
    """Read every byte of an index, or every patch of one in PostgreSQL, and check it; it never raises.

    Writers may go on meanwhile. What a crash left behind is no problem.

    Parameters
    ----------
    path : path-like or Address
        The index.

    Returns
    -------
    list of str
        One line for each problem; empty if all is well.
    """
    try:
        place = place_of(path)
    except ParameterError as error:
        return [str(error)]
    return verify_archive(place) if isinstance(place, Address) else verify_folder(place)


def archive_of(state: State, tree: TextureTree) -> Archive | RemoteArchive:
    """Return the patches of a state, to be searched through the tree that made their keys."""
    if isinstance(state, RemoteState) and state.segments:
        return state.archive(tree)
    return Archive.of(tree, state.segments)


def learn_keys_of(store: AnyStore, *, facts: Facts, seed: int) -> TextureTree:
    """Learn a tree of all patches of a store, and give them its keys (`learn_keys`), wherever it is."""
    _LOG.info("learning a tree of %s", counted(store.state.n_patches, "patch", "es"))
    if isinstance(store, RemoteStore):
        tree = store.learn_keys(seed=seed, facts=facts)
    else:
        tree = learn_keys(store, seed=seed, facts=facts)
    _LOG.info("learnt the tree, and gave all patches its keys")
    return tree
