"""The program that measures what relevance feedback gains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sish
from benchmarks import refinement
from benchmarks.datasets import Dataset
from benchmarks.retrieval import Archive
from sish.errors import ParameterError
from sish.queries import query_of_indexed
from sish.systems.item import Item

SLIDES, ROWS = 40, 3


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Archive:
    """Two classes that overlap, of single patients."""
    rng = np.random.default_rng(0)
    label = np.array(["x", "y"] * (SLIDES // 2))
    vectors = rng.normal(size=(SLIDES * ROWS, 40))
    vectors[:, :12] += np.where(np.repeat(label, ROWS) == "x", 0.6, -0.6)[:, None]
    ids = [f"s{number:02}" for number in range(SLIDES)]
    index = sish.Index.from_vectors(
        tmp_path_factory.mktemp("refined") / "a.sish",
        vectors.astype(np.float32),
        np.repeat(ids, ROWS),
        labels=dict(zip(ids, label.tolist(), strict=True)),
        show_progress=False,
    )
    state = index.state_and_view()[0]
    return Archive(
        index, {one: query_of_indexed(state.row(one), state.segments, None)[1] for one in ids}, 0.0
    )


def test_feedback_gains_and_what_was_shown_is_left_out(archive):
    session = refinement.Session(archive, "similarity")
    asked = [(refinement._query(one, one, archive), codes) for one, codes in archive.queries.items()]
    query, codes = asked[0]
    shown = session.hits(query, (codes, None), 5)
    rest = session.hits(query, (codes, None), SLIDES, shown)
    assert set(shown) | set(rest) == set(archive.queries) - {query.slide_id}
    assert not set(shown) & set(rest)
    rows = {(row.method, row.shown, row.left): row for row in refinement.rows_of("toy", session, asked)}
    assert len(rows) == len(refinement.METHODS) * 4
    found = rows["sish", 5, "slides"]
    assert found.difference == pytest.approx(found.after - found.before) and found.low > 0
    assert found.queries == SLIDES and 0 < found.liked < 5
    assert len(list(refinement.table(list(rows.values())))) == len(rows) + 1


def test_groups_are_told_by_their_numbers():
    items = tuple(
        Item(f"{group}/{n}.png", Path("x"), frozenset(["a"]), group, 1.0)
        for group in ("A-1", "A-2", "B-3")
        for n in "ab"
    )
    data = Dataset("toy", items, items, multi_label=False)
    assert {item.group for item in refinement.of_groups(data, "odd").queries} == {"A-1", "B-3"}
    assert {item.group for item in refinement.of_groups(data, "even").database} == {"A-2"}
    bare = replace(data, queries=(replace(items[0], group="none"),), database=items)
    with pytest.raises(ParameterError, match="without a number"):
        refinement.of_groups(replace(bare, database=(replace(items[0], group="none"),)), "odd")


def test_a_folder_without_labels_is_refused(tmp_path, capsys):
    assert refinement.main([str(tmp_path)]) == 2
    assert "error:" in capsys.readouterr().err
