"""Rows of the benchmarks: worked examples by hand, and answers that are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.datasets import Dataset
from benchmarks.rows import Run, row_of, table, write_rows
from sish.errors import ParameterError, StoreError
from sish.systems.item import Item


def _items(said: str) -> tuple[Item, ...]:
    """Items of words like `a1:x` or `a1:x:group`: id, labels joined by a comma, group."""
    parts = [(*word.split(":"), "")[:3] for word in said.split()]
    return tuple(
        Item(name, Path(name), frozenset(labels.split(",")) - {""}, group) for name, labels, group in parts
    )


@pytest.fixture
def two_classes() -> Dataset:
    items = _items("a1:a:g a2:a:g a3:a a4:a b1:b b2:b")
    return Dataset("toy", items[:1] + items[4:5], items, multi_label=False)


def test_a_row_by_hand(two_classes):
    found = [["a3", "b1", "b2"], ["a1", "b2", "a2", "a3", "a4"]]
    run = Run("ours", "tree", found, query_ms=[1.0, 3.0], build_s=0.5, bytes_per_item=8.0, placed=[3, 5])
    row = row_of(two_classes, run)
    assert (row["dataset"], row["method"], row["search"], row["n"], row["queries"]) == (
        "toy", "ours", "tree", 6, 2
    )  # fmt: skip
    # a1 has a3 and a4 to find (a2 is of its group); b1 has b2
    assert row["mmv1"] == pytest.approx((1 + 0) / 2)
    assert row["mmv3"] == pytest.approx(0)
    assert row["mmv5"] == row["macro_f1"] == 0
    assert row["map5"] == pytest.approx((1 / 2 + (1 / 2) / 1) / 2)
    assert row["map_paper"] == pytest.approx((1 / 5 + 1 / 10) / 2)
    assert (row["hit3"], row["hit5"], row["short"]) == (1.0, 1.0, 1)
    assert (row["query_ms_median"], row["build_s"], row["bytes_per_item"]) == (2.0, 0.5, 8.0)
    assert row["avg5"] is None
    assert set(row["ci"]) == {
        "mmv1", "mmv3", "mmv5", "macro_f1", "hit3", "hit5", "map5", "map_paper"
    }  # fmt: skip
    assert "system" not in row
    assert row_of(two_classes, replace(run, system="SISH", extra={"mpp": 1.0}))["system"] == "SISH"


def test_several_labels_are_counted_as_shared():
    items = _items("q:x,y a:x b:y,x c:z d:")
    dataset = Dataset("multi", items[:1], items[1:], multi_label=True)
    row = row_of(dataset, Run("m", "exhaustive", [["b", "a", "d", "c"]], [1.0], 0.0, 1.0))
    assert row["avg5"] == pytest.approx(3 / 5)
    assert row["avg10"] == pytest.approx(3 / 10)
    assert row["ci"]["avg5"] == pytest.approx([3 / 5, 3 / 5])
    assert row["mmv5"] is None
    assert row["short"] == 1, "10 were wanted"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([["a2"], []], "of its own group"),
        ([["a1"], []], "of its own group"),
        ([["b1", "b1"], []], "twice"),
        ([["c"], []], "not in the database"),
        ([["a3"]], "1 answers"),
    ],
)
def test_answers_that_break_the_rules_are_refused(two_classes, found, said):
    with pytest.raises(ParameterError, match=said):
        row_of(two_classes, Run("m", "tree", found, [1.0], 0.0, 1.0))


def test_rows_as_a_table_and_as_json(two_classes, tmp_path):
    row = row_of(two_classes, Run("m", "tree", [["a3"], ["b2"]], [1.0], 0.25, 128.0))
    head, _, body = table([row]).splitlines()
    assert "mMV@5 (95 %)" in head
    assert "AvG" not in head
    assert "| 0.00 (0.00 to 0.00) |" in body
    assert table([row], ["method", "n"]).splitlines()[2] == "| m | 6 |"
    write_rows(tmp_path / "deep" / "rows.json", [row])
    assert json.loads((tmp_path / "deep" / "rows.json").read_text()) == [row]
    with pytest.raises(StoreError, match="cannot write"):
        write_rows(tmp_path, [row])
