"""Reading every patch of an archive in PostgreSQL, and checking it against slides, tree and counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import SishError
from sish.index.postgres.addresses import Address
from sish.index.postgres.connection import Database, composed
from sish.index.postgres.foreign import Servers
from sish.index.postgres.patch_table import PatchTable
from sish.index.postgres.schema import ROW_BITS
from sish.index.postgres.state import RemoteState, read_state, tree_in
from sish.index.postgres.writing import digests_of
from sish.index.store.slide_table import SlideTable
from sish.index.store.snapshot import Snapshot

if TYPE_CHECKING:
    from psycopg import Connection

_SLIDES = 256  # slides that are read together


def verify_archive(address: Address) -> list[str]:
    """Return the problems of an archive, one line for each.

    Its tables are read in one transaction, so writers go on meanwhile. The pages themselves are the server's
    to check (``initdb --data-checksums``, ``pg_amcheck``).

    Parameters
    ----------
    address : Address
        The archive.

    Returns
    -------
    list of str
        What is wrong; none if every patch is as it was written.
    """
    database = Database(address)
    try:
        with database.connection() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            state = read_state(address, connection, lambda ask: ask(connection))
            return [f"{address}: {problem}" for problem in _problems(state, connection)]
    except SishError as error:
        return [str(error)]
    finally:
        database.close()


def _problems(state: RemoteState, connection: Connection[Any]) -> Iterator[str]:
    """Yield what is wrong with a state."""
    reader = state.reader
    table = state.segments[0].patches.slides if state.segments else SlideTable.of([])
    if len(table) != reader.slides:
        yield f"{reader.slides} slides were added, and the table of slides has {len(table)}"
    if not state.segments or len(table) != reader.slides:
        return
    if state.tree_file is None and len(state.counts) > 1:
        yield "its keys are those of a tree, and it has none"
    if problem := next(table.problems(), None):
        yield f"the table of slides: {problem}"
        return
    asked = composed(state.address, "SELECT codes_digest FROM {slide} ORDER BY number")
    digests = [bytes(row[0]) for row in connection.execute(asked)]
    servers = Servers(state.address, connection)
    patches = PatchTable(connection, state.address, reader.table, reader.records, servers)
    counts = np.zeros(max(1, len(state.counts)), np.int64)
    for start in range(0, len(table), _SLIDES):
        numbers = np.arange(start, min(start + _SLIDES, len(table)))
        yield from _wrong_slides(state, patches, table, numbers, digests, counts)
    if len(state.counts):
        if (counts[: len(state.counts)] != state.counts).any():
            yield "the numbers of patches of the keys are not those that are kept with the tree"
        if wrong := _out_of_order(state, connection):
            yield f"{wrong} patches are not in the order of slides and rows within their keys"


def _wrong_slides(
    state: RemoteState,
    patches: PatchTable,
    table: SlideTable,
    numbers: NDArray[np.int64],
    digests: list[bytes],
    counts: NDArray[np.int64],
) -> Iterator[str]:
    """Yield what is wrong with the patches of some slides; add the patches of each key to `counts`."""
    columns = patches.records.columns
    names = ", ".join(f'p."{name}"' for name in columns)
    parts = patches.stream(
        f'SELECT {names} FROM {{patch}} p WHERE p.slide = ANY(%s) ORDER BY p.slide, p."row"',
        columns,
        numbers.tolist(),
    )
    found = np.concatenate([*parts])
    tree = tree_in(state)
    for number in numbers.tolist():
        row = table[number]
        own = found[found["slide"] == number]
        if len(own) != row.n_patches or (own["row"] != np.arange(len(own))).any():
            yield f"slide {row.slide_id!r} has {len(own)} patches, or others than its {row.n_patches}"
            continue
        barcodes = np.ascontiguousarray(own["barcode"])
        if tree is not None and (tree.keys(barcodes) != own["key"]).any():
            yield f"slide {row.slide_id!r} has patches whose keys are not those of the tree"
        kept = Snapshot(
            SlideTable.of([row]),
            own["key"].astype(np.int64)[:, None],
            barcodes,
            np.stack([own["x"], own["y"]], axis=1).astype(np.int64),
            np.zeros(len(own), np.int32),
            own["row"].astype(np.int32),
            vectors=np.ascontiguousarray(own["vector"]) if "vector" in columns else None,
        )
        if (own["patch"] != (number << ROW_BITS) + np.arange(len(own))).any():
            yield f"slide {row.slide_id!r} has patches whose numbers are not of its slide and row"
        if next(iter(digests_of(kept))) != digests[number]:
            yield f"slide {row.slide_id!r} has barcodes, places or vectors that are not those written"
        if len(state.counts):
            keys = own["key"].astype(np.int64)
            known = keys[(keys >= 0) & (keys < len(counts))]
            counts += np.bincount(known, minlength=len(counts))


def _out_of_order(state: RemoteState, connection: Connection[Any]) -> int:
    """Return how many patches have another place in their key than slides and rows give them."""
    ask = composed(
        state.address,
        'SELECT count(*) FROM (SELECT nth, row_number() OVER (PARTITION BY key ORDER BY slide, "row") - 1 '
        "AS wanted FROM {patch} WHERE slide < %s) p WHERE nth <> wanted",
        patch=state.reader.table,
    )
    row = connection.execute(ask, [state.reader.slides]).fetchone()
    return 0 if row is None else int(row[0])
