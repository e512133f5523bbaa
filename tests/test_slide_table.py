"""The table of slides in columns, against a list of rows."""

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slide_rows import slide_row

from sish.errors import IndexCorruptError, ParameterError
from sish.index.store import Store
from sish.index.store.packed import pack, unpack
from sish.index.store.slide_list import SlideList
from sish.index.store.slide_table import COLUMNS, SlideTable, joined

texts = st.text(max_size=4) | st.sampled_from(["a", "b", "a\0", "\udcff", "\u00e9\n", "c" * 300])
rows = st.builds(
    lambda name, n, label, patient, site, metadata, digest: slide_row(
        name, n, label=label, patient=patient, site=site, metadata=metadata, file_digest=digest
    ),
    texts,
    st.integers(0, 99),
    st.none() | texts,
    texts,
    st.none() | texts,
    st.dictionaries(texts, texts, max_size=3),
    st.none() | texts,
)
tables = st.lists(rows, max_size=8, unique_by=lambda row: row.slide_id)


def again(table: SlideTable) -> SlideTable:
    """The table, written to a file and read."""
    data = np.frombuffer(table.to_bytes(), np.uint8)
    return SlideTable.from_bytes(data, Path("slides"), len(table))


def assert_is(table: SlideTable, want: list) -> None:
    assert list(table) == want and len(table) == len(want) and table == want
    assert list(table.problems()) == []
    ids = [row.slide_id for row in want]
    assert [table.number_of(name) for name in ids] == list(range(len(want)))
    assert table.number_of("not there") is None
    assert [ids[number] for number in table.id_order] == sorted(ids)
    assert list(table.ids_and_paths()) == [(row.slide_id, row.path) for row in want]
    for value in ("a", "b", "\udcff", "nobody"):
        assert table.has("patient", value).tolist() == [row.patient == value for row in want]
        assert table.has("label", value).tolist() == [row.label == value for row in want]
        for name in ("a", "nothing"):
            there = [row.metadata.get(name) == value for row in want]
            assert table.has_metadata(name, value).tolist() == there
    assert table.has("site", None).tolist() == [row.site is None for row in want]
    for (number, values), told in (
        (table.values("label"), [row.label for row in want]),
        (table.metadata_values("a"), [row.metadata.get("a") for row in want]),
    ):
        assert [None if place < 0 else values[place] for place in number] == told
    assert set(table.metadata_names()) == {name for row in want for name in row.metadata}


@given(tables)
def test_it_is_the_list_of_its_rows(want):
    assert_is(SlideTable.of(want), want)
    assert_is(again(SlideTable.of(want)), want)


@given(st.lists(tables, min_size=1, max_size=4), st.data())
def test_tables_are_joined_taken_and_changed_as_lists_are(parts, data):
    want = [
        replace(row, slide_id=f"{row.slide_id}{number}") for number, part in enumerate(parts) for row in part
    ]
    cut = np.cumsum([0, *map(len, parts)]).tolist()
    own = [again(SlideTable.of(want[begin:end])) for begin, end in pairwise(cut)]
    assert_is(joined(own), want)
    slides = SlideList(tuple(own))
    assert list(slides) == want and [slides[number] for number in range(len(want))] == want
    assert [want[number].slide_id for number in slides.id_order] == sorted(row.slide_id for row in want)
    assert slides.n_patches.tolist() == [row.n_patches for row in want]
    assert slides.has("patient", "a").tolist() == [row.patient == "a" for row in want]
    number, values = slides.values("label")
    assert [None if place < 0 else values[place] for place in number] == [row.label for row in want]
    kept = data.draw(st.lists(st.integers(0, len(want) - 1), unique=True)) if want else []
    assert_is(joined(own).take(np.array(kept, np.int64)), [want[number] for number in kept])
    new = {number: replace(want[number], label="new", metadata={"x": "y"}) for number in kept}
    assert_is(joined(own).with_rows(new), [new.get(number, row) for number, row in enumerate(want)])


def test_one_long_id_does_not_make_all_of_them_long():
    table = SlideTable.of([slide_row(f"s{n}", 0) for n in range(5000)] + [slide_row("t" * 100_000, 0)])
    assert table.sorted_ids.nbytes < 1_000_000 and table.sorted_ids[-1] == b"t" * 100_000


def test_ids_that_end_with_zeros_are_two_slides(tmp_path):
    none = np.zeros((0, 1), int), np.zeros((0, 8), np.uint8), np.zeros((0, 2), int)
    with Store.create(tmp_path / "a", {}) as store:
        for name in ("a", "a\0"):
            store.append(slide_row(name, 0), *none)
        assert [row.slide_id for row in store.snapshot().slides] == ["a", "a\0"]


def test_texts_stand_in_it_once():
    many = SlideTable.of([slide_row(f"s{n}", 3, patient="p", metadata={"stain": "H&E"}) for n in range(1000)])
    assert bytes(many.strings).count(b"H&E") == 1
    assert len(many.to_bytes()) < 200 * len(many)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: {**it, "texts": it["texts"] + 90},
        lambda it: {**it, "texts": it["texts"] - 90},
        lambda it: {**it, "texts": it["texts"][:, :1]},
        lambda it: {**it, "texts": it["texts"].astype(np.int64)},
        lambda it: {**it, "metadata": it["metadata"] + 90},
        lambda it: {**it, "metadata_ends": it["metadata_ends"] + 1},
        lambda it: {**it, "patch_ends": it["patch_ends"][::-1]},
        lambda it: {**it, "string_ends": it["string_ends"][::-1]},
        lambda it: {**it, "string_ends": it["string_ends"] * 2},
        lambda it: {**it, "strings": it["strings"] | 0x80},
        lambda it: {**it, "strings": it["strings"][::-1]},
        lambda it: {**it, "lengths": -it["lengths"]},
        lambda it: {**it, "lengths": it["lengths"] * np.nan},
        lambda it: {**it, "sizes": -it["sizes"]},
        lambda it: {**it, "by_hash": it["by_hash"][::-1]},
        lambda it: {**it, "by_hash": it["by_hash"] + np.uint64(7)},
        lambda it: {name: array for name, array in it.items() if name != "sizes"},
        lambda it: {**it, "more": it["sizes"]},
    ],
)
def test_what_makes_no_sense_is_found_and_never_crashes(change):
    want = [slide_row(name, n, metadata={"a": "b"}) for name, n in (("one", 3), ("two", 5))]
    good = {name: getattr(SlideTable.of(want), name) for name in COLUMNS}
    try:
        bad = SlideTable.from_bytes(np.frombuffer(pack(change(good)), np.uint8), Path("slides"), 2)
        assert list(bad.problems())
        uses = (list, lambda it: it.number_of("two"), lambda it: it.values("label"), lambda it: it[1])
        for use in uses:
            try:
                use(bad)
            except IndexCorruptError as error:
                assert "\n" not in str(error)
    except IndexCorruptError as error:
        assert "slides holds" in str(error)


def test_what_no_segment_holds_is_refused():
    huge = [slide_row(name, 2**30) for name in "abc"]
    with pytest.raises(ParameterError, match="fewer than"):
        SlideTable.of(huge)


@given(st.binary(max_size=80))
def test_no_bytes_crash_the_reader_of_packed_arrays(data):
    with suppress(ValueError):
        unpack(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 5}',
        b'{"a": {"dtype": "I32", "shape": [1], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "I32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "I32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F8", "shape": [1], "data_offsets": [0, 2]}}',
        b'{"a": {"dtype": "U8", "shape": [1e9], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [-1, 3]}}',
        b'{"a": {"dtype": ["U8"], "shape": 4, "data_offsets": null}}',
    ],
)
def test_headers_that_lead_out_of_the_file_are_refused(header):
    data = len(header).to_bytes(8, "little") + header + b"\0" * 4
    with pytest.raises(ValueError, match=r"array|header|Expecting"):
        unpack(np.frombuffer(data, np.uint8))
