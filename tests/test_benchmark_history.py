"""The history of benchmarks: what is kept, and when a call is called slower."""

import json
import socket
from dataclasses import replace

import pytest

from benchmarks import history
from benchmarks.history import HISTORY, SCAN, Record, Row, compare, nearest_record, read_history, tell
from sish.errors import ParameterError

BEFORE = Record(
    date="2026-01-02",
    commit="abc",
    machine="Linux x86_64, a, 2 cores",
    load=0.1,
    versions={"python": "3.11"},
    rows=(
        Row(SCAN, (1.0, 1.1, 1.2), None),
        Row("add", (2.0, 2.2, 2.4), 1.0),
        Row("gone", (1.0, 1.0, 1.0), None),
    ),
)


def now(add, quality=1.0, scan=1.0, **changes):
    rows = (
        Row(SCAN, tuple(scan * value for value in (1.0, 1.1, 1.2)), None),
        Row("add", add, quality),
        Row("new", (1.0, 1.0, 1.0), None),
    )
    return replace(BEFORE, rows=rows, **changes)


def verdict(*given, **changes):
    found = {each.name: each for each in compare(now(*given, **changes), BEFORE)}
    assert list(found) == [SCAN, "add"]  # of calls in both
    return found["add"]


def test_a_record_is_read_as_it_was_written():
    assert Record.from_line(BEFORE.to_line()) == BEFORE
    with pytest.raises(ParameterError, match="is no record"):
        Record.from_line('{"date": 1}')


@pytest.mark.parametrize(
    ("add", "words", "is_worse"),
    [
        ((2.0, 2.2, 2.4), "within the spread", False),
        ((2.3, 9.0, 9.0), "within the spread", False),  # brackets overlap, however high the median
        ((2.41, 2.41, 2.41), "slower", False),  # by less than a tenth of the median
        ((2.5, 2.6, 2.9), "slower", True),
        ((1.0, 1.1, 1.9), "faster", False),
    ],
)
def test_a_verdict_needs_brackets_that_do_not_overlap(add, words, is_worse):
    found = verdict(add)
    assert (found.words, found.is_worse) == (words, is_worse)
    assert found.ratio == pytest.approx(sorted(add)[1] / 2.2)


def test_a_lower_quality_is_told_however_fast():
    found = verdict((1.0, 1.0, 1.0), 0.9)
    assert found.words == "faster, and quality is lower" and found.is_worse


def test_another_machine_is_compared_by_the_scan():
    twice = tuple(2 * value for value in (2.0, 2.2, 2.4))
    assert verdict(twice, scan=2.0).words == "slower"
    noisy = (4.0, 4.6, 4.5)  # 2, 2.09 and 1.875 scans; 2 before
    found = compare(now(noisy, scan=2.0, machine="Linux arm64, b, 8 cores"), BEFORE)
    assert [(each.name, each.words, round(each.ratio, 6)) for each in found] == [
        ("add", "within the spread", 1)
    ]


def test_the_record_to_compare_with_is_the_newest_of_this_kind_of_machine():
    other = replace(BEFORE, machine="b", commit="other")
    newer = replace(BEFORE, commit="newer")
    assert nearest_record(BEFORE.machine, [BEFORE, newer, other]) is newer
    assert nearest_record("c", [BEFORE, newer, other]) is other
    assert nearest_record("c", []) is None


def test_the_exit_code_says_whether_somebody_should_look(capsys):
    assert tell(now((2.0, 2.2, 2.4)), BEFORE) == 0
    assert tell(now((2.0, 2.2, 2.4)), None) == 0
    assert tell(now((5.0, 5.0, 5.0)), BEFORE) == 1
    assert "slower" in capsys.readouterr().out.splitlines()[-1]


def test_the_committed_history_is_whole_and_names_no_machine():
    records = read_history(HISTORY)
    assert records, "make bench-record on a quiet machine"
    assert [record.date for record in records] == sorted(record.date for record in records)
    for record in records:
        assert SCAN in [row.name for row in record.rows] and not record.commit.endswith("+")
        assert socket.gethostname() not in json.loads(record.to_line()).values()
        assert all(min(row.seconds) > 0 and len(row.seconds) == history.ROUNDS for row in record.rows)


@pytest.mark.slow
def test_it_measures_what_it_says_and_keeps_it(tmp_path, capsys):
    file = tmp_path / "history.jsonl"
    assert history.main(["--rounds", "1", "--record", "--history", str(file)]) == 0
    (kept,) = read_history(file)
    quality = {row.name.split()[0] + row.name.split()[-1]: row.quality for row in kept.rows}
    assert quality["numpyscan"] is None and quality["addslides"] == 1.0
    assert min(value for value in quality.values() if value is not None) > 0.5
    assert "nothing to compare with" in capsys.readouterr().out
