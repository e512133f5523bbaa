"""The benchmarks of the trees and of the published search, on archives small enough to check."""

import json

from benchmarks import guided_search, ordered_sets


def test_ordered_sets_are_measured_and_compared(capsys, tmp_path):
    assert ordered_sets.main(["--quick", "--sizes", "300", "600", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    kinds = {"VanEmdeBoas", "SortedArray", "SortedListSet"}
    assert {(row["set"], row["n"]) for row in rows} == {(kind, n) for kind in kinds for n in (300, 600)}
    assert all(row["median"][name] > 0 for row in rows for name in ordered_sets.MEASURES)
    memory = {row["set"]: row["bytes_per_key"] for row in rows if row["n"] == 600}
    assert 8 <= memory["SortedArray"] < memory["VanEmdeBoas"] < memory["SortedListSet"]
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith("Best at 600 keys: ")
    assert kinds.intersection(printed.splitlines()[-1].replace(":", "").split())


def test_a_verdict_names_the_winner_of_each_measure():
    def row(kind, value, memory):
        same = dict.fromkeys(ordered_sets.MEASURES, value)
        return ordered_sets.Row(kind, 10, same | {"insert_us": 5 - value}, same, memory)

    said = ordered_sets.verdict([row("A", 1.0, 9.0), row("B", 2.0, 8.0)])
    assert said == "Best at 10 keys: A for build, delete, successor, walk_375; B for insert, memory."


def test_the_published_search_is_compared_with_the_plain_one(capsys, tmp_path):
    assert guided_search.main(["--quick", "--sizes", "700", "--json", str(tmp_path / "rows.json")]) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["n"], row["identical"]) == (700, True)
    assert row["results"] > 1
    assert "identical answers" in capsys.readouterr().out


def test_different_answers_are_said_and_end_in_failure(capsys, monkeypatch):
    monkeypatch.setattr(guided_search, "plain_search", lambda *given: [[(0, 0)]])
    assert guided_search.main(["--quick", "--sizes", "300"]) == 1
    assert "DIFFERENT ANSWERS" in capsys.readouterr().out
