"""Rows of the benchmarks: worked examples by hand, and answers that are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.datasets import Dataset
from benchmarks.rows import Run, row_of, table, write_rows
from sish.errors import LabelsError, ParameterError, StoreError
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
    assert row["mmv5"] == row["macro_f1_5"] == 0
    assert row["map5"] == pytest.approx((1 / 2 + (1 / 2) / 1) / 2)
    assert row["map_paper"] == pytest.approx((1 / 5 + 1 / 10) / 2)
    assert (row["hit3"], row["hit5"], row["short"]) == (1.0, 1.0, 1)
    assert (row["query_ms_median"], row["build_s"], row["bytes_per_item"]) == (2.0, 0.5, 8.0)
    assert row["avg5"] is None
    assert set(row["ci"]) == {
        "mmv1", "mmv3", "mmv5", "macro_f1_1", "macro_f1_3", "macro_f1_5", "hit3", "hit5", "map5", "map_paper"
    }  # fmt: skip
    assert "system" not in row
    assert row_of(two_classes, replace(run, system="SISH", extra={"mpp": 1.0}))["system"] == "SISH"


def test_a_row_tells_of_each_class_and_each_query(two_classes):
    found = [["a3", "a4", "b1", "b2"], []]  # b1 was not read
    row = row_of(two_classes, Run("ours", "tree", found, [1.0], 0.5, 8.0, failed={"b1"}))
    a, b = row["by_label"]
    assert (a["label"], a["queries"], a["failed"], a["findable"], a["mv1"], a["mv5"]) == ("a", 1, 0, 1, 1, 0)
    assert (b["label"], b["failed"], b["findable"], b["mv1"], b["hit5"]) == ("b", 1, 1, 0, 0)
    assert (row["failed"], row["never_found"], row["never_majority"]) == (1, ["b"], ["a"])
    assert row["by_site"] == []
    assert row["macro_f1_1"] == pytest.approx(1 / 2)
    columns = row["per_query"]
    assert (columns["query"], columns["label"], columns["mv1"]) == (["a1", "b1"], ["a", "b"], ["a", ""])
    assert columns["failed"] == ["", "not read, or no tissue"]
    assert columns["precision5"] == [2 / 5, 0]


def test_within_a_site_other_sites_are_refused_and_do_not_count_as_findable(two_classes):
    sites = {"a1": "x", "a2": "x", "a3": "x", "a4": "y", "b1": "x", "b2": "y"}
    items = tuple(replace(item, site=sites[item.item_id]) for item in two_classes.database)
    dataset = Dataset("toy", items[:1] + items[4:5], items, multi_label=False).of_own_site()
    row = row_of(dataset, Run("m", "tree", [["a3", "b1"], ["a3"]], [1.0], 0.0, 1.0))
    assert row["per_query"]["relevant"] == [1, 0]  # a4 and b2 are of site y
    assert [(group["site"], group["queries"], group["mv1"]) for group in row["by_site"]] == [("x", 2, 0.5)]
    with pytest.raises(ParameterError, match="of another site"):
        row_of(dataset, Run("m", "tree", [["a4"], []], [1.0], 0.0, 1.0))
    with pytest.raises(LabelsError, match=r"2 of 2 queries have no site.*give every line"):
        two_classes.of_own_site()


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
