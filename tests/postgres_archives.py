"""Archives of random codes for the tests of an archive in PostgreSQL, and what both places must answer."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from postgres_servers import Database
from slide_rows import slide_row

import sish
from sish.encode import SlideCodes
from sish.index.store import SlideRow, Store
from sish.slide_writer import SlideWriter

TEXTURES = np.random.default_rng(0).integers(0, 256, (30, 128), np.uint8)
RANKINGS = ("uncertainty", "similarity")
FEW, MANY = 60, 200
"""Slides of an archive without and with a learnt tree: it needs 4,000 patches."""

Coded = tuple[SlideRow, SlideCodes]


def coded(number: int, slide_id: str | None = None, **changes: Any) -> Coded:
    """The slide of a number: 12 to 31 patches of four textures with noise; two slides a patient."""
    rng = np.random.default_rng(number)
    count = int(rng.integers(12, 32))
    noise = np.bitwise_and.reduce(rng.integers(0, 256, (4, count, 128), np.uint8))
    noise[rng.random(count) < 0.3] = 0  # so that many patches are equally far
    barcodes = TEXTURES[rng.integers(0, 30, 4)[rng.integers(0, 4, count)]] ^ noise
    told = {
        "label": "abc"[number % 3],
        "patient": f"p{number // 2}",
        "site": ["lung", "breast", None][number % 5 % 3],
        "metadata": {"age": str(20 + number % 60)} if number % 4 else {},
        "patch_l0_px": [256.0, 512.5][number % 2],
    }
    row = slide_row(f"s{number:03}" if slide_id is None else slide_id, count, **(told | changes))
    l0_xy = np.stack(np.divmod(rng.permutation(count), 8), 1) * 512
    return row, SlideCodes(rng.integers(0, 40, (count, 1)) * 10**11, barcodes, l0_xy)


def without_tissue(slide_id: str) -> Coded:
    """A slide without patches."""
    row = slide_row(slide_id, 0, label="a")
    return row, SlideCodes(np.zeros((0, 1), np.int64), np.zeros((0, 128), np.uint8), np.zeros((0, 2), int))


def twin(slide: Coded, slide_id: str) -> Coded:
    """A slide of another patient with the same patches."""
    return replace(slide[0], slide_id=slide_id, patient=slide_id), slide[1]


def write_archive(
    path: Path, slides: Iterable[Coded], *, recipe: sish.Recipe | None = None, commits: int = 1
) -> sish.Index:
    """An index of slides, written as `Index.add` writes them, in some commits."""
    sish.Index.create(path, recipe=recipe)
    add(path, slides, commits=commits)
    return sish.Index.open(path)


def add(path: Path, slides: Iterable[Coded], *, commits: int = 1, replacing: bool = False) -> None:
    """Add slides to an index in a folder, or replace them."""
    slides = [*slides]
    with Store.open(path, write=True) as store:
        recipe = sish.Index.open(path).recipe
        for part in np.array_split(np.arange(len(slides)), commits):
            writer = SlideWriter(store, recipe, replace=replacing)
            for number in part.tolist():
                row, codes = slides[number]
                writer.take(row, codes, store.state.row(row.slide_id))
            writer.commit()


def many_slides() -> list[Coded]:
    """Enough slides for a learnt tree, in no order; two are twins, and one has no tissue."""
    numbers = np.random.default_rng(1).permutation(MANY).tolist()
    return [*map(coded, numbers), twin(coded(7), "a twin"), without_tissue("glass")]


def few_slides() -> list[Coded]:
    """Too few slides for a learnt tree, in no order; two are twins, and one has no tissue."""
    numbers = np.random.default_rng(2).permutation(FEW).tolist()
    return [*map(coded, numbers), twin(coded(7), "a twin"), without_tissue("glass")]


def address(database: Database, archive: str = "sish", user: str = "owner", **options: str) -> str:
    """The address of an archive in a test's database, as a role would give it."""
    dsn = database.dsn_of(user)
    return f"{dsn}{'&' if '?' in dsn else '?'}{urlencode({'archive': archive, **options})}"


def pushed(index: sish.Index, database: Database, archive: str = "sish", **options: Any) -> sish.Index:
    """The archive that an index is pushed to."""
    index.push(address(database, archive), **options)
    return sish.Index.open(address(database, archive))


def assert_same_answers(
    folder: sish.Index, remote: sish.Index, queries: Sequence[Any], asked: Iterable[dict[str, Any]]
) -> None:
    """Check that both give the same answers: hits, scores, uncertainty, pairs, places, notes, metadata."""
    assert not isinstance(remote.path, Path)
    for query in queries:
        for options in asked:
            want, got = (index.search(query, **options).to_dict() for index in (folder, remote))
            assert got == want, (query, options)


def assert_same_archive(folder: sish.Index, remote: sish.Index) -> None:
    """Check that both hold the same slides with the same codes, and search them alike."""
    mine, its = (sorted(map(repr, index.slides)) for index in (folder, remote))  # scales may be NaN
    assert its == mine
    assert (remote.params, remote.fingerprint, remote.recipe) == (
        folder.params,
        folder.fingerprint,
        folder.recipe,
    )
    for name in (row.slide_id for row in folder.slides if row.n_patches):
        mine, its = folder.patches(name), remote.patches(name)
        for field in ("keys", "barcodes", "l0_xy"):
            np.testing.assert_array_equal(getattr(its, field), getattr(mine, field), err_msg=name)
