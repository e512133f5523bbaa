"""Filters of a search, against the same conditions written out in plain Python."""

import json
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slide_rows import slide_row

import sish
from sish.cli import main
from sish.evaluation import evaluate
from sish.filters import exactly, filters_of, where_of
from sish.index.store.slide_list import SlideList
from sish.index.store.slide_table import SlideTable

VALUES = [
    "50",
    "50.0",
    " 7e1",
    "-3",
    "1_0",
    "inf",
    "nan",
    "lung",
    "Lung",
    ">=50",
    "=x",
    "!=lung",
    "50..70",
    "a..b",
    "",
]
NUMBERS = st.sampled_from([-3, 50, 50.5, 70, 1e300])


def as_number(value):
    try:
        number = None if value is None or "_" in value else float(value)
    except ValueError:
        return None
    return number if number is not None and abs(number) < float("inf") else None


def of_numbers(test):
    return lambda value: as_number(value) is not None and test(as_number(value))


CONDITIONS = st.one_of(
    st.sampled_from(["lung", "50", "a..b", "absent", ""]).map(lambda it: (it, lambda value: value == it)),
    st.sampled_from(VALUES).map(lambda it: (f"={it}", lambda value: value == it)),
    st.sampled_from(VALUES).map(lambda it: (f"!={it}", lambda value: value != it)),
    NUMBERS.map(lambda it: (it, of_numbers(lambda number: number == it))),
    NUMBERS.map(lambda it: (f">={it}", of_numbers(lambda number: number >= it))),
    NUMBERS.map(lambda it: (f"> {it}", of_numbers(lambda number: number > it))),
    NUMBERS.map(lambda it: (f"<={it}", of_numbers(lambda number: number <= it))),
    NUMBERS.map(lambda it: (f"<{it}", of_numbers(lambda number: number < it))),
    st.tuples(NUMBERS, NUMBERS).map(sorted).map(
        lambda it: (f"{it[0]}..{it[1]}", of_numbers(lambda number: it[0] <= number <= it[1]))
    ),
)  # fmt: skip
COLUMNS = st.lists(st.none() | st.sampled_from(VALUES), min_size=1, max_size=12)


def slides_with(values, column):
    """Slides in two tables; None is no value."""
    rows = [
        slide_row(f"s{number}", **(
            {column: value} if column != "age" else {"metadata": {} if value is None else {"age": value}}
        ))
        for number, value in enumerate(values)
    ]  # fmt: skip
    return SlideList(tuple(SlideTable.of(part) for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :])))


@given(COLUMNS, st.sampled_from(["site", "age"]), st.lists(CONDITIONS, min_size=1, max_size=4), st.booleans())
def test_filters_are_plain_python(values, column, conditions, alone):
    conditions = conditions[:1] if alone else conditions
    given_ = [condition for condition, _ in conditions]
    positive = [test for condition, test in conditions if not str(condition).startswith("!=")]
    excluding = [test for condition, test in conditions if str(condition).startswith("!=")]
    want = [
        (not positive or any(test(value) for test in positive)) and all(test(value) for test in excluding)
        for value in values
    ]
    try:
        (found,) = filters_of({column: given_[0] if alone else given_})
    except sish.ParameterError as error:  # numbers from both sides: every number would pass
        assert "every number" in str(error) and all(of_numbers(lambda _: True)(it) <= any(
            test(it) for test in positive) for it in ("50", "-3", "7e1", "1e301", "-1e301"))  # fmt: skip
        return
    if all(value is None for value in values):
        with pytest.raises(sish.QueryError, match=f"'{column}', which no slide has"):
            found.passed(slides_with(values, column))
    else:
        assert found.passed(slides_with(values, column)).tolist() == want


def test_patients_are_a_column_too():
    (found,) = filters_of({"patient": ["s1", "=s2", "nobody"]})
    assert found.passed(slides_with([None, "a", "b"], "site")).tolist() == [False, True, True]


def test_a_list_is_any_sequence_and_numbers_are_any_numbers():
    slides = slides_with(["50.0", "51", "x"], "age")
    for wanted in (
        [50, "x"],
        (50, "x"),
        {50, "x"},
        deque([50, "x"]),
        np.array(["=50.0", "x"]),
        [np.int64(50), np.str_("x")],
    ):
        (found,) = filters_of({"age": wanted})
        assert found.passed(slides).tolist() == [True, False, True]
    for wanted in (range(50, 52), np.array([50.0, 51.0]), "50..51"):
        (found,) = filters_of({"age": wanted})
        assert found.passed(slides).tolist() == [True, True, False]
    assert filters_of(None) == filters_of({}) == ()


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (["site"], r"got where=\['site'\]; want conditions by column, as in where=\{'site'"),
        ("site=lung", "got where='site=lung'; want conditions by column"),
        ({3: "lung"}, "got a filter on 3; want the name of a column"),
        ({"site": object()}, "got <object object at .*> as the condition on site; want a text, a number"),
        ({"site": None}, "got None as the condition on site"),
        ({"site": b"lung"}, "got b'lung'"),
        ({"site": {"a": 1}}, "got {'a': 1}"),
        ({"site": ["lung", None]}, "got None"),
        ({"site": [["lung"]]}, r"got \['lung'\]"),
        ({"site": np.array(["lung"])[0:0]}, "got an empty list for site"),
        ({"site": np.zeros((2, 2))}, "got array"),
        ({"site": []}, "got an empty list for site, which no slide passes; want a text"),
        ({"flag": True}, "got True as the condition on flag; write it as the labels file does"),
        ({"flag": np.True_}, "write it as the labels file does"),
        ({"age": float("nan")}, "got nan as the condition on age"),
        ({"age": 10**400}, "as the condition on age"),
        ({"age": ">=abc"}, "want a number after >=, as in >=50. A text that begins so is written '=>=abc'"),
        ({"age": "<"}, "want a number after <"),
        ({"age": ">=inf"}, "want a number after >="),
        ({"age": "70..50"}, "got '70..50' as the condition on age; want the smaller number first"),
        ({"age": [">=50", "<70"]}, r"which every number meets one: .* Write a range as age=50\.\.70"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_the_query_is_read(where, told, built_index, tmp_path):
    with pytest.raises(sish.ParameterError, match=told):
        sish.Index.open(built_index).search(tmp_path / "not there.svs", where=where)


def test_words_of_the_command_line():
    assert where_of(["a=b=c", "a==x", "a=>5", "a>=6", "a!=y", "b=1..2", "c=", "d= x, y", "e=\n"]) == {
        "a": ["b=c", "=x", ">5", ">=6", "!=y"], "b": ["1..2"], "c": [""], "d": [" x, y"], "e": ["\n"],
    }  # fmt: skip
    for wrong in ("site", "=lung", "", ">=5"):
        with pytest.raises(sish.ParameterError, match="want COLUMN=VALUE"):
            where_of([wrong])


@pytest.fixture
def aged(own_index, tmp_path):
    """The eight slides with ages 40 to 75 and a site; the last has no number."""
    rows = own_index.slides
    ages = [*(str(40 + 5 * number) for number in range(7)), "unknown"]
    lines = [f"{row.slide_id},{age},5..7" for row, age in zip(rows, ages, strict=True)]
    (tmp_path / "ages.csv").write_text("\n".join(["slide_id,age,site", *lines]))
    own_index.relabel(tmp_path / "ages.csv")
    return own_index


def test_searches_by_range_and_by_several_values(aged, capsys):
    rows = aged.slides
    found = aged.search(rows[0].slide_id, k=8, where={"age": ["50..60", "unknown"], "site": "=5..7"})
    assert {hit.metadata["age"] for hit in found} == {"50", "55", "60", "unknown"}
    words = ["search", rows[0].slide_id, "--index", str(aged.path), "-k", "8", "--where", "age>=65"]
    assert main([*words, "--where", "age!=70", "--where", "site==5..7", "--json"]) == 0
    assert [hit["slide_id"] for hit in json.loads(capsys.readouterr().out)["results"]] == [rows[5].slide_id]


def test_a_filter_that_leaves_nothing_tells_what_comes_near(aged):
    name = aged.slides[0].slide_id
    for where, told in (
        ({"age": ">=90"}, "none has age '>=90'; its numbers are from 40 to 70"),
        ({"age": [50.5, "unknwn"]}, "none has age 50.5 or 'unknwn'; nearest: 'unknown'; its numbers are"),
        ({"site": "5..7"}, "none has site '5..7'; none of its values is a number"),
        ({"site": "!=5..7"}, "none has site '!=5..7'"),
    ):
        found = aged.search(name, where=where)
        assert not found.hits and told in found.note


def test_sites_that_look_like_conditions_are_evaluated_as_they_are_written(aged):
    assert evaluate(aged, within="site").metrics == evaluate(aged).metrics


def test_a_column_that_no_slide_has_is_refused(built_index, aged):
    name = aged.slides[0].slide_id
    for where in ({"sight": "lung"}, {"aeg": ">=50"}):
        with pytest.raises(sish.QueryError, match=r"no slide has; nearest: '(site|age)'; want label"):
            aged.search(name, where=where)
    bare = slides_with([None, None], "label")
    for wanted in ("lung", "!=lung", ">=5"):
        with pytest.raises(sish.QueryError, match="'label', which no slide has"):
            filters_of({"label": wanted})[0].passed(bare)


def test_exact_texts():
    for text in VALUES:
        (found,) = filters_of({"age": exactly(text)})
        assert [value for value in VALUES if found.passes([value])[0]] == [text]
