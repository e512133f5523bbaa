"""Two runs of the same queries, compared: worked examples by hand, and what cannot be compared."""

import json

import numpy as np
import pytest

from benchmarks.compare import compare, main, read_rows, table
from sish.errors import ParameterError


def _row(votes, labels="aaaabbbb", method="sish"):
    """A row of eight queries by their majority labels."""
    columns = {"query": [f"q{n}" for n in range(len(labels))], "label": list(labels), "mv5": list(votes)}
    return {"dataset": "toy", "method": method, "search": "tree", "per_query": columns}


def test_a_difference_is_that_of_each_query_with_itself():
    (found,) = compare([_row("aabbbbaa")], [_row("aaabbbba")])
    assert (found.queries, found.before, found.after) == (8, 0.5, 0.75)
    assert (found.difference, found.over_classes, found.gained, found.lost) == (0.25, 0.25, 2, 0)
    # of four queries of a class one changes: the mean of two such classes, drawn anew
    rng = np.random.default_rng(1)
    draws = rng.binomial(4, 0.25, (20_000, 2)).sum(axis=1) / 8
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.126)
    assert "| toy | sish | tree | MV@5 right | 8 | 0.500 | 0.750 | +0.250 (" in table([found])


def test_equal_runs_do_not_differ():
    (found,) = compare([_row("aabbbbaa")], [_row("aabbbbaa")])
    assert (found.difference, found.low, found.high, found.gained, found.lost) == (0, 0, 0, 0, 0)


def test_a_pair_is_narrower_than_two_single_intervals():
    """Both runs are wrong on the same half of the queries: all of the spread is shared."""
    first, second = "a" * 50 + "b" * 50, "a" * 52 + "b" * 48
    (found,) = compare([_row(first, "a" * 100)], [_row(second, "a" * 100)])
    assert found.difference == pytest.approx(0.02)
    assert found.high - found.low < 0.08  # of one run alone: 0.2


def test_classes_weigh_alike_in_the_mean_over_classes():
    (found,) = compare([_row("aaaaaabb", "aaaaaaab")], [_row("aaaaaaab", "aaaaaaab")])
    assert (found.difference, found.over_classes) == (1 / 8, pytest.approx(1 / 14))


def test_several_labels_are_compared_by_what_is_shared():
    rows = [
        {"dataset": "x", "method": "m", "search": "tree", "per_query": {"query": ["p", "q"], "avg5": values}}
        for values in ([0.5, 1.0], [1.0, 0.75])
    ]
    (found,) = compare(rows[:1], rows[1:])
    assert (found.figure, found.difference, found.gained, found.lost) == ("avg5", 0.125, 1, 1)


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="2 queries or their labels are of one run only"):
        compare([_row("aabbbbaa")], [_row("aabbbbaa", "aaaabbba")])
    with pytest.raises(ParameterError, match=r"no row .* counterpart.*toy other tree"):
        compare([_row("aabbbbaa")], [_row("aabbbbaa", method="other")])
    with pytest.raises(ParameterError, match="cannot be read"):
        read_rows(tmp_path / "none.json")
    (tmp_path / "old.json").write_text('[{"dataset": "toy", "mmv5": 0.5}]')
    with pytest.raises(ParameterError, match="no rows with answers by query; write it again"):
        read_rows(tmp_path / "old.json")


def test_the_command_line(tmp_path, capsys):
    before, after, out = (tmp_path / name for name in ("before.json", "after.json", "out.json"))
    before.write_text(json.dumps([_row("aabbbbaa"), _row("bbbbaaaa", method="lost")]))
    after.write_text(json.dumps([_row("aaaabbbb")]))
    assert main([str(before), str(after), "--json", str(out), "--figures", "mv5"]) == 0
    assert capsys.readouterr().out.count("| toy |") == 1
    (row,) = json.loads(out.read_text())
    assert (row["difference"], row["gained"]) == (0.5, 4)
    assert main([str(before), str(tmp_path / "none.json")]) == 2
    assert "error: " in capsys.readouterr().err
