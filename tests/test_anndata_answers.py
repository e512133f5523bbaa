"""Answers as AnnData, and SpatialData as queries: LazySlide -> sish -> back, with what wsidata wrote."""

from __future__ import annotations

import numpy as np
import pytest

import sish
from sish.errors import FeatureMismatchError, ParameterError, QueryError

anndata = pytest.importorskip("anndata", reason="needs the extra spatial (make test-spatial)")
spatialdata = pytest.importorskip("spatialdata", reason="needs the extra spatial (make test-spatial)")
wsidata = pytest.importorskip("wsidata", reason="LazySlide's library is not installed (make test-spatial)")

from spatial_files import MPP, TILE, WIDTH, write_slide  # noqa: E402

NAMES = ("a1", "b1", "a2", "b2")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return {name: write_slide(folder, name, kind="ab".index(name[0])) for name in (*NAMES, "a3")}


@pytest.fixture(scope="module")
def index(slides, tmp_path_factory):
    return sish.Index.from_spatialdata(
        tmp_path_factory.mktemp("index") / "i.sish",
        [slides[name].path for name in NAMES],
        labels={name: name[0] for name in NAMES[:3]},
        patients={name: f"p{name[1]}" for name in NAMES},
        show_progress=False,
    )


def opened(slides, name):
    return wsidata.open_wsi(slides[name].path.with_suffix(".tif"))


def test_a_slide_is_searched_for_as_object_file_or_vectors(slides, index):
    answers = [
        index.search(given, k=4)
        for given in (opened(slides, "a3"), slides["a3"].path, spatialdata.read_zarr(slides["a3"].path))
    ]
    assert answers[0].to_dict() == answers[1].to_dict() == answers[2].to_dict()
    query = answers[0].query
    assert (query.slide_id, query.patient, query.mpp, query.patch_l0_px) == ("a3", "a3", MPP, TILE)
    assert query.l0_xy.tolist() == slides["a3"].l0_xy.tolist()
    bare = index.search(slides["a3"].features, k=4)
    assert [hit.score for hit in bare] == [hit.score for hit in answers[0]]
    table = index.search(anndata.AnnData(slides["a3"].features), k=4)
    assert (table.query.slide_id, table.query.patient, table.query.l0_xy) == ("vectors", "", None)


def test_an_indexed_slide_is_known_by_its_vectors(slides, index):
    mine = index.search(slides["a1"].path, k=4, exclude_patient=True)
    assert mine.query.patient == "p1" and {hit.slide_id for hit in mine} == {"a2", "b2"}
    assert index.search(slides["a1"].path, k=4).hits == index.search("a1", k=4).hits


def test_what_cannot_be_asked_is_refused(slides, index, tmp_path):
    with pytest.raises(QueryError, match="got a region or override_mpp"):
        index.search(slides["a3"].path, region=(0, 0, 9, 9))
    with pytest.raises(FeatureMismatchError, match="unknown/3, and the index is of uni/24"):
        index.search(anndata.AnnData(np.ones((2, 3), np.float32)))
    with pytest.raises(QueryError, match="got no row in its table"):
        index.search(anndata.AnnData(np.ones((0, WIDTH), np.float32)))


def test_the_rows_are_the_matched_patches_of_the_query(slides, index):
    answer = index.search(slides["a3"].path, k=3)
    table = answer.to_anndata()
    pairs = [(hit, it) for hit in answer for it in hit.patches]
    assert table.obs_names.tolist() == [str(row) for row in sorted({it.query_row for _, it in pairs})]
    assert table.var_names.tolist() == [hit.slide_id for hit in answer]
    assert table.var["score"].tolist() == [hit.score for hit in answer]
    wanted = np.full(table.shape, np.nan)
    for hit, it in reversed(pairs):
        wanted[table.obs_names.get_loc(str(it.query_row)), hit.rank - 1] = it.hamming
    np.testing.assert_array_equal(table.X, wanted)
    assert (table.obs["n_hits"] == (~np.isnan(wanted)).sum(axis=1)).all()
    assert (table.obs["hamming"] == np.nanmin(wanted, axis=1)).all()
    corners = slides["a3"].l0_xy[table.obs["row"]]
    assert table.obsm["spatial"].tolist() == (corners + TILE / 2).tolist()
    assert table.uns["sish"]["query"]["slide_id"] == "a3" and table.uns["sish"]["ranking"] == answer.ranking
    first = table.obs.iloc[0]
    place = slides[first["matched_slide"]].l0_xy[int(first["matched_row"])]
    assert place.tolist() == [first["matched_x"], first["matched_y"]]
    missing = {hit.slide_id for hit in answer if hit.label is None}
    assert table.obs["matched_label"].isna().tolist() == table.obs["matched_slide"].isin(missing).tolist()


def test_the_rows_of_a_hit_are_its_own_patches(slides, index):
    answer = index.search(slides["a3"].path, k=3)
    hit = answer[0]
    table = answer.to_anndata(hit.slide_id)
    assert table.var_names.tolist() == ["a3"] and table.shape[0] == len({it.row for it in hit.patches})
    assert (table.obs["matched_slide"] == "a3").all()
    corners = slides[hit.slide_id].l0_xy[table.obs["row"]]
    assert table.obsm["spatial"].tolist() == (corners + TILE / 2).tolist()
    with pytest.raises(ParameterError, match=r"'zz', which is no hit; want one of"):
        answer.to_anndata("zz")


@pytest.mark.parametrize("of_hit", [False, True])
def test_a_table_of_tiles_is_kept_with_the_slide_and_fetched_by_wsidata(of_hit, slides, index, tmp_path):
    answer = index.search(slides["a3"].path, k=2)
    name = answer[0].slide_id if of_hit else "a3"
    wsi = opened(slides, name)
    wsi.set_wsi_store(tmp_path / "copy.zarr")
    wsi.tables["sish_tiles"] = answer.to_anndata(name if of_hit else None, sdata=wsi)
    wsi.write()
    table = spatialdata.read_zarr(tmp_path / "copy.zarr").tables["sish_tiles"]
    assert len(table) == 64 and table.obs["tile_id"].tolist() == list(range(64))
    assert table.uns["spatialdata_attrs"]["region"] == "tiles"
    hits = answer.hits[:1] if of_hit else answer.hits
    pairs = [(it.row if of_hit else it.query_row, it.hamming) for hit in hits for it in hit.patches]
    assert set(np.flatnonzero(table.obs["n_hits"])) == {row for row, _ in pairs}
    assert np.nanmin(table.X) == min(hamming for _, hamming in pairs)
    fetched = wsi.fetch.features_anndata("sish")
    np.testing.assert_array_equal(fetched.X, table.X)
    # the answer's table is no table of features
    assert index.search(tmp_path / "copy.zarr", k=2).query.n_patches == 64


def test_vectors_in_the_order_of_the_tiles_need_no_places(slides, index):
    wsi = opened(slides, "a3")
    by_vectors = index.search(slides["a3"].features, k=2)
    known = index.search(wsi, k=2).to_anndata(sdata=wsi)
    np.testing.assert_array_equal(by_vectors.to_anndata(sdata=wsi).X, known.X)
    assert "spatial" not in by_vectors.to_anndata().obsm
    few = index.search(slides["a3"].features[:9], k=2)
    with pytest.raises(ParameterError, match="matched patches are none of the 64 tiles"):
        few.to_anndata(sdata=wsi)
    with pytest.raises(ParameterError, match="got shapes='cells'; want one of tiles"):
        few.to_anndata(sdata=wsi, shapes="cells")


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_table_is_written_and_read_again(ending, slides, index, tmp_path):
    of_slide = index.search(slides["a3"].path, k=3)
    of_vectors = index.search(slides["a3"].features, k=1, where={"label": "b"})
    for answer in (of_slide, of_vectors):
        table = answer.to_anndata()
        getattr(table, f"write_{ending}")(tmp_path / f"t.{ending}")
        again = getattr(anndata, f"read_{ending}")(tmp_path / f"t.{ending}")
        np.testing.assert_array_equal(again.X, table.X)
        assert again.obs["matched_slide"].tolist() == table.obs["matched_slide"].tolist()
        assert again.var["score"].tolist() == table.var["score"].tolist()


def test_an_answer_without_hits_is_an_empty_table(slides, index):
    nothing = sish.Results(index.search("a1").query, "similarity", ())
    assert nothing.to_anndata().shape == (0, 0)
    assert nothing.to_anndata(sdata=opened(slides, "a1")).shape == (64, 0)
