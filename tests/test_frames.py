"""Frames of pandas, against the rows and dicts that they are made of."""

import sys
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from slide_rows import slide_row
from test_systems import MeanColour

import sish
from sish.index.store import Store, slide_snapshot
from sish.index.store.slide_table import SlideTable
from sish.results import Hit, HitList, PatchPair, Query, Results
from sish.systems.item import Item
from sish.systems.smily.regions import RegionHit, RegionQuery
from sish.tables import slides_frame, table_of

pandas = pytest.importorskip("pandas")


PAIRS = (PatchPair((1, 2), (3, 4), 5, 0, 2), PatchPair(None, None, 10, 1, 3))


def rows_of(frame):
    """The rows of a frame, None where nothing is there."""
    plain = frame.astype(object)
    return plain.where(plain.notna(), None).to_dict("records")


def same(frame, rows):
    assert rows_of(frame) == rows
    assert not rows or list(frame) == list(rows[0])


def hit(rank, **changes):
    usual = {
        "rank": rank, "slide_id": f"s{rank}", "path": "/a.svs", "mpp": 0.5, "patch_l0_px": 256.0,
        "label": "x", "patient": "p", "score": 0.5, "n_matched": 3, "median_distance": 7.0,
        "uncertainty": None, "placed": True, "below_threshold": False,
        "patches": PAIRS,
    }  # fmt: skip
    return Hit(**usual | changes)


def answer(*hits):
    return Results(Query("q", None, "p", 1.0, (0, 0, 9, 9), 2, 256.0), "similarity", hits, "a note")


def test_a_row_a_hit_with_metadata_as_columns():
    first = hit(1, metadata={"stain": "HE", "rank": "high", "größe": "\udcff"})
    second = hit(2, label=None, metadata={"site": "lung", "stain": ""})
    frame = answer(first, second).to_pandas()
    plain = {key: value for key, value in first.to_dict().items() if key not in ("patches", "metadata")}
    more = {"stain": "HE", "metadata_rank": "high", "größe": "\\udcff", "site": None}
    none = {"stain": "", "metadata_rank": None, "größe": None, "site": "lung"}
    same(frame, [plain | more, plain | {"rank": 2, "slide_id": "s2", "label": None} | none])
    assert frame.attrs == {
        "query": answer().query.to_dict(), "ranking": "similarity", "note": "a note",
    }  # fmt: skip
    assert frame["uncertainty"].dtype == "float64" and frame["placed"].dtype == "bool"


def test_metadata_hide_no_column_and_no_other_field():
    odd = {"rank": "a", "metadata_rank": "b", "query_slide_id": "c", "ranking": "d"}
    given = answer(hit(1, metadata=odd))
    (row,) = rows_of(given.to_pandas())
    own = [name for name in row if name not in hit(1).to_dict()]
    assert row["rank"] == 1 and {row[name] for name in own} == {*odd.values()}
    columns, (cells,) = table_of([given.to_dict()], Results.HIT_FIELDS)
    assert (cells["query_slide_id"], cells["ranking"], cells["rank"]) == ("q", "similarity", 1)
    assert [cells[f"metadata_{name}"] for name in odd] == [*odd.values()] and [*cells] == columns


def test_a_row_a_pair_of_patches():
    frame = answer(hit(1), hit(2, patches=())).pairs_to_pandas()
    told = {"rank": 1, "slide_id": "s1", "path": "/a.svs"}
    names = ("query_x", "query_y", "x", "y", "hamming", "query_row", "row")
    pairs = [(1, 2, 3, 4, 5, 0, 2), (None, None, None, None, 10, 1, 3)]
    same(frame, [told | dict(zip(names, pair, strict=True)) | {"size": 256.0} for pair in pairs])


def test_answers_without_hits_have_the_columns_and_types_of_those_with():
    for make in (Results.to_pandas, Results.pairs_to_pandas):
        full, empty = make(answer(hit(1, uncertainty=1.0, patches=PAIRS[:1]))), make(answer())
        assert list(empty) == list(full) and not len(empty)
        kinds = {name: dtype for name, dtype in full.dtypes.items() if dtype.kind in "ifb"}
        assert len(kinds) > 4 and {name: empty.dtypes[name] for name in kinds} == kinds


def test_answers_of_an_index(built_index):
    index = sish.Index.open(built_index)
    found = index.search(index.slides[0].slide_id, k=8)
    plain = [{**it.to_dict()} for it in found]
    for row in plain:
        del row["patches"], row["metadata"]
    same(found.to_pandas(), plain)
    assert len(found.pairs_to_pandas()) == sum(len(it.patches) for it in found)


def test_answers_of_systems_and_regions(pictures):
    system = MeanColour().fit(pictures)
    found = system.search(pictures[0], k=3)
    same(
        found.to_pandas(),
        [row | {"labels": "|".join(row["labels"])} for row in map(dict, found.to_dict()["results"])],
    )
    assert list(MeanColour().fit([]).search(pictures[0]).to_pandas()) == list(found.to_pandas())
    item = Item("a", Path("a.png"))
    place = {"l0_xy": (512, 0), "l0_px": 256.0, "orientation": 3, "merged": 0, "patch": 7}
    query = RegionQuery(item, (0, 0, 64, 64), np.ones((8, 4), np.float32), 1.0)
    (row,) = rows_of(HitList(query, "smily", (RegionHit(1, item, 0.9, **place),)).to_pandas())
    assert (row["l0_x"], row["l0_y"], row["l0_px"], row["item_id"]) == (512, 0, 256.0, "a")


def slides_as_rows(index):
    """What `to_pandas` is to hold, from the row objects."""
    rows, names = index.slides, sorted({name for row in index.slides for name in row.metadata})
    own = [it.name for it in fields(sish.index.store.SlideRow) if it.name != "metadata"]
    return [
        {name: getattr(row, name) for name in own}
        | {f"metadata_{name}" if name in own else name: row.metadata.get(name) for name in names}
        for row in rows
    ]


def filled(folder, n_slides, **changes):
    """An index of slides without files, in several segments."""
    sish.Index.create(folder)
    rng = np.random.default_rng(0)
    with Store.open(folder, write=True) as store:
        for number in range(n_slides):
            row = slide_row(
                f"s{number}", number % 4, label="ab "[number % 3].strip() or None, patient=f"p{number // 2}",
                metadata={"age": str(number), "width": "wide"} if number % 2 else {}, **changes,
            )  # fmt: skip
            n = row.n_patches
            codes = rng.integers(0, 256, (n, 128), np.uint8)
            store.append(row, np.arange(n)[:, None][::-1], codes, rng.integers(0, 9999, (n, 2)))
    return sish.Index.open(folder)


def test_a_row_a_slide(tmp_path, own_index):
    same(own_index.to_pandas(), slides_as_rows(own_index))
    index = filled(tmp_path / "a.sish", 9)
    index.remove(["s3", "s8"])
    same(index.to_pandas(), slides_as_rows(index))
    assert index.to_pandas()["metadata_width"].tolist()[1] == "wide"
    index.remove([row.slide_id for row in index.slides])
    assert not len(index.to_pandas())
    empty = sish.Index.create(tmp_path / "empty.sish").to_pandas()
    assert not len(empty) and {"slide_id", "label", "mpp"} <= set(empty)


def test_names_of_files_that_are_no_text(tmp_path):
    index = filled(tmp_path / "a.sish", 2, path="/a\udcff.svs")
    assert index.to_pandas()["path"].tolist() == ["/a\\udcff.svs"] * 2


def test_slides_of_a_damaged_segment_are_there(own_index):
    before = rows_of(own_index.to_pandas())
    (chunk,) = own_index.path.glob("segments/*/barcodes/c*")
    chunk.unlink()
    damaged = sish.Index.open(own_index.path)
    assert damaged.damage and rows_of(damaged.to_pandas()) == before


@pytest.mark.slow
def test_a_hundred_thousand_slides_come_from_columns(tmp_path, monkeypatch):
    sish.Index.create(tmp_path / "a.sish")
    with Store.open(tmp_path / "a.sish", write=True) as store:
        for first in range(0, 100_000, 20_000):
            rows = (
                slide_row(f"slide-{number:06d}", label="abc"[number % 3], metadata={"age": str(number % 80)})
                for number in range(first, first + 20_000)
            )
            codes = np.zeros((1, 128), np.uint8)
            store.append_many([slide_snapshot(row, [[0]], codes, [[0, 0]]) for row in rows])
    index = sish.Index.open(tmp_path / "a.sish")
    monkeypatch.setattr(SlideTable, "_row", lambda *_: pytest.fail("a row object was made"))
    tracemalloc.start()
    frame = index.to_pandas()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(frame) == 100_000 and frame["age"].tolist()[79:82] == ["79", "0", "1"]
    assert frame["slide_id"].iloc[-1] == "slide-099999"
    assert peak < 200 << 20


def test_slides_that_were_given_as_vectors(tmp_path):
    rng = np.random.default_rng(0)
    vectors, names = rng.normal(size=(60, 32)).astype(np.float32), np.repeat(["a", "b", "c"], 20)
    index = sish.Index.from_vectors(tmp_path / "a.sish", vectors, names, show_progress=False)
    assert index.to_pandas()[["mpp", "patch_l0_px"]].isna().all(axis=None)
    found = index.search(vectors[:20], k=3)
    pairs, hits = found.pairs_to_pandas(), found.to_pandas()
    assert pairs[["x", "y", "query_x", "query_y", "size"]].isna().all(axis=None) and len(pairs)
    assert pairs["x"].dtype == hits["mpp"].dtype == "float64" and hits["mpp"].isna().all()
    assert pairs["row"].tolist() == [pair.row for hit in found for pair in hit.patches]
    patches = index.patches("b")
    assert (patches.l0_xy, patches.mpp, patches.patch_l0_px, len(patches)) == (None, None, None, 20)
    assert patches.to_pandas()[["x", "y", "size", "mpp"]].isna().all(axis=None)


def test_evaluations(built_index):
    found = sish.evaluate(sish.Index.open(built_index))
    same(found.to_pandas(), found.by_query)
    same(found.to_pandas("label"), found.by_label)
    same(found.to_pandas(by="site"), found.by_site)
    with pytest.raises(sish.ParameterError, match="got by='patient'; want 'query', 'label' or 'site'"):
        found.to_pandas("patient")


def test_without_pandas_the_error_tells_what_to_install(built_index, monkeypatch):
    index = sish.Index.open(built_index)
    found, slide = index.search(index.slides[0].slide_id), index.slides[0].slide_id
    monkeypatch.setitem(sys.modules, "pandas", None)
    for make in (
        index.to_pandas, found.to_pandas, found.pairs_to_pandas, index.patches(slide).to_pandas,
        lambda: slides_frame(index.state_and_view()[0]),
    ):  # fmt: skip
        with pytest.raises(
            sish.MissingPackageError, match=r"pandas is not installed; pip install -e .*\[tables\]"
        ):
            make()
