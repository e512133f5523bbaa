"""SpatialData and AnnData in: objects that wsidata (LazySlide's library), spatialdata and anndata wrote."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

import sish
from sish.errors import (
    EncoderMismatchError,
    LabelsError,
    MissingPackageError,
    ParameterError,
    SlideOpenError,
    TableChoiceError,
)

anndata = pytest.importorskip("anndata", reason="needs the extra spatial (make test-spatial)")
spatialdata = pytest.importorskip("spatialdata", reason="needs the extra spatial (make test-spatial)")
wsidata = pytest.importorskip("wsidata", reason="LazySlide's library is not installed (make test-spatial)")

from spatial_files import MPP, TILE, WIDTH, open_slide, tiled, write_slide  # noqa: E402

NAMES = ("a1", "b1", "a2", "b2")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Four slides of two kinds, each in a zarr of its own beside its file."""
    folder = tmp_path_factory.mktemp("slides")
    return {name: write_slide(folder, name, kind="ab".index(name[0])) for name in NAMES}


@pytest.fixture(scope="module")
def paths(slides):
    return [slides[name].path for name in NAMES]


def made(path, objects, **options):
    return sish.Index.from_spatialdata(path / "i.sish", objects, show_progress=False, **options)


def as_vectors(path, slides, **options):
    """The same slides, given as arrays."""
    return sish.Index.from_vectors(
        path / "v.sish",
        np.concatenate([slides[name].features for name in NAMES]),
        np.repeat(NAMES, [len(slides[name].features) for name in NAMES]),
        l0_xy=np.concatenate([slides[name].l0_xy for name in NAMES]),
        mpp=MPP,
        feature_encoder="uni",
        show_progress=False,
        **options,
    )


def held(index):
    """What an index holds of its slides, in their order."""
    rows = [
        (row.slide_id, row.mpp, row.patch_l0_px, row.width, row.height, row.label) for row in index.slides
    ]
    patches = [index.patches(row.slide_id) for row in index.slides]
    return rows, [(one.barcodes.tolist(), one.l0_xy.tolist()) for one in patches]


def test_zarrs_of_lazyslide_make_the_index_that_arrays_make(slides, paths, tmp_path):
    labels = {name: name[0] for name in NAMES}
    index = made(tmp_path, paths, labels=labels)
    assert held(index) == held(as_vectors(tmp_path, slides, labels=labels))
    assert index.recipe.weights == f"features:uni/{WIDTH}"
    assert index.slides[0].patch_l0_px == TILE and index.slides[0].mpp == MPP
    assert [hit.slide_id for hit in index.search("a1", k=2, where={"label": "a"})][-1] == "a2"


def test_objects_in_memory_are_read_as_their_zarrs(slides, paths, tmp_path):
    index = made(tmp_path, paths[:3])
    for given in (wsidata.open_wsi(slides["b2"].path.with_suffix(".tif")), spatialdata.read_zarr(paths[3])):
        index.remove([row.slide_id for row in index.slides if row.slide_id == "b2"])
        report = index.add_spatialdata(given, labels={"b2": "b"}, show_progress=False)
        assert report.added == ["b2"] and index.slides[-1].label == "b"
        assert index.patches("b2").l0_xy.tolist() == slides["b2"].l0_xy.tolist()
    assert index.add_spatialdata(paths, show_progress=False).already == list(NAMES)
    renamed = index.add_spatialdata(given, slide_ids="other", show_progress=False)
    assert renamed.added == ["other"]


def test_rows_find_their_tiles_by_id_not_by_place(slides, paths, tmp_path):
    sdata = spatialdata.read_zarr(paths[0])
    order = np.random.default_rng(0).permutation(64)[:40]
    sdata.shapes["tiles"] = sdata.shapes["tiles"].iloc[::-1].reset_index(drop=True)
    shuffled = sdata.tables["uni_tiles"][order].copy()
    del sdata.tables["uni_tiles"]
    sdata.tables["uni_tiles"] = shuffled
    index = made(tmp_path, [sdata], slide_ids="s")
    assert index.patches("s").l0_xy.tolist() == slides["a1"].l0_xy[order].tolist()


def test_a_row_without_its_tile_is_reported(slides, paths, tmp_path):
    sdata = spatialdata.read_zarr(paths[0])
    sdata.shapes["tiles"] = sdata.shapes["tiles"].iloc[:50]
    with pytest.raises(SlideOpenError, match="14 rows of its table have no shape"):
        made(tmp_path, [sdata], slide_ids="s")


@pytest.mark.parametrize("kind", ["csr", "float16", "layer", "obsm"])
def test_features_are_read_from_where_they_are(kind, slides, paths, tmp_path):
    sdata, options = spatialdata.read_zarr(paths[0]), {}
    table = sdata.tables["uni_tiles"]
    wanted = slides["a1"].features
    if kind == "csr":
        table.X = sparse.csr_matrix(table.X)
    elif kind == "float16":
        table.X = table.X.astype(np.float16)
        wanted = wanted.astype(np.float16).astype(np.float32)
    else:
        getattr(table, "layers" if kind == "layer" else "obsm")["smooth"] = table.X.copy()
        table.X = np.zeros_like(table.X)
        options = {"features": "smooth"}
    index = made(tmp_path, sdata, **options)
    assert (index.patches("a1").barcodes == index.encoder.barcodes(wanted)).all()
    with pytest.raises(TableChoiceError, match="name one of its layers or arrays of obsm"):
        index.add_spatialdata(sdata, slide_ids="x", table="uni", features="none", show_progress=False)


def test_a_slide_of_several_tables_takes_that_of_the_encoder_or_the_named_one(slides, paths, tmp_path):
    both = write_slide(tmp_path, "both", 0, tables=("uni", "conch")).path
    with pytest.raises(TableChoiceError, match=r"conch_tiles.*name one with table="):
        made(tmp_path, both)
    with pytest.raises(
        TableChoiceError, match=r"no table 'plip', only conch_tiles, uni_tiles|uni_tiles, conch_tiles"
    ):
        made(tmp_path, both, table="plip")
    index = made(tmp_path, both, table="conch")
    assert index.recipe.weights == f"features:conch/{WIDTH}"
    assert index.add_spatialdata(both, slide_ids="again", show_progress=False).added == ["again"]
    with pytest.raises(EncoderMismatchError, match="uni/24, and the index is of conch/24"):
        index.add_spatialdata(paths, show_progress=False)
    report = index.add_spatialdata([*paths[:1], both], slide_ids=["p", "q"], show_progress=False)
    assert report.added == ["q"] and [one.path for one in report.failed] == ["p"]
    named = index.add_spatialdata(paths[0], feature_encoder="conch", show_progress=False)
    assert named.added == ["a1"]


def test_tiles_of_a_lower_power_have_their_size_on_level_0(tmp_path):
    wsi = open_slide(tmp_path, "low.tif")
    l0_xy = tiled(wsi, tile_px=64, mpp=2 * MPP)
    wsidata.io.add_features(wsi, "uni_tiles", "tiles", np.random.default_rng(0).normal(size=(len(l0_xy), 8)))
    wsi.attrs["slide_properties"]["mpp"] = None
    index = made(tmp_path, wsi)
    row = index.slides[0]
    assert (row.slide_id, row.patch_l0_px, row.mpp) == ("low", 128.0, MPP)
    wsi.attrs["tile_spec"]["tiles"]["mpp"] = None
    index.add_spatialdata(wsi, slide_ids="given", mpp=0.25, show_progress=False)
    assert index.slides[1].mpp == 0.25


def test_slides_of_one_object_have_their_own_tiles_and_scales(tmp_path):
    wsi = open_slide(tmp_path, "two.tif")
    corners = {key: tiled(wsi, key, mpp=mpp) for key, mpp in (("fine", MPP), ("coarse", 2 * MPP))}
    wsi.attrs["slide_properties"]["mpp"] = None
    wsi.attrs["tile_spec"]["coarse"]["base_downsample"] = 1.0  # of a slide at 1 um per pixel
    parts = []
    for key, l0_xy in corners.items():
        wsidata.io.add_features(wsi, f"uni_{key}", key, np.random.default_rng(0).normal(size=(len(l0_xy), 8)))
        parts.append(wsi.tables[f"uni_{key}"])
        parts[-1].obs_names = [f"{key}-{row}" for row in range(len(l0_xy))]
    both = anndata.concat(parts)
    both.obs["library_id"] = both.obs["library_id"].astype("category")
    links = {"region_key": "library_id", "instance_key": "tile_id"}
    wsi.tables["both"] = spatialdata.models.TableModel.parse(both, region=list(corners), **links)
    index = made(tmp_path, wsi, table="both", slide_column="library_id")
    rows = {row.slide_id: (row.patch_l0_px, row.mpp) for row in index.slides}
    assert rows == {"fine": (TILE, MPP), "coarse": (2 * TILE, 2 * MPP)}
    for key, l0_xy in corners.items():
        assert index.patches(key).l0_xy.tolist() == l0_xy.tolist()


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_backed_anndata_is_read(kind, slides, tmp_path):
    features = slides["a1"].features
    anndata.AnnData(features if kind == "dense" else sparse.csr_matrix(features)).write_h5ad(
        tmp_path / "b.h5ad"
    )
    table = anndata.read_h5ad(tmp_path / "b.h5ad", backed="r")
    index = made(tmp_path, table)
    assert (index.patches("b").barcodes == index.encoder.barcodes(features)).all()


def test_circles_are_squares_around_their_centres(tmp_path):
    """Spots of Visium: points with a radius, keys of the index, one near the edge."""
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    centres = np.array([[10.0, 200.0], [300.0, 200.0], [300.0, 500.4]])
    frame = geopandas.GeoDataFrame(
        {"radius": [27.5] * 3}, geometry=[shapely.Point(*xy) for xy in centres], index=["x", "y", "z"]
    )
    table = anndata.AnnData(np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32))
    table.obs["region"], table.obs["spot"] = "spots", ["z", "x", "y"]
    table.obs["region"] = table.obs["region"].astype("category")
    table = spatialdata.models.TableModel.parse(
        table, region="spots", region_key="region", instance_key="spot"
    )
    spots = spatialdata.models.ShapesModel.parse(frame)
    sdata = spatialdata.SpatialData(shapes={"spots": spots}, tables={"table": table})
    index = made(tmp_path, sdata, slide_ids="v")
    patches = index.patches("v")
    assert patches.l0_xy.tolist() == [[272, 473], [0, 172], [272, 172]] and patches.patch_l0_px == 55.0
    assert index.recipe.weights == "features:vectors/6"


def test_an_anndata_of_several_slides_is_split_by_a_column(slides, paths, tmp_path):
    parts = []
    for name in NAMES:
        wsi = wsidata.open_wsi(slides[name].path.with_suffix(".tif"))
        parts.append(wsi.fetch.features_anndata("uni"))
        parts[-1].obs["slide"] = name
    whole = anndata.concat(parts, index_unique="-", uns_merge="same")
    whole = whole[np.random.default_rng(0).permutation(len(whole))].copy()
    index = made(
        tmp_path, whole, slide_column="slide", feature_encoder="uni", labels={"a1": "a", "none": "b"}
    )
    assert sorted(row.slide_id for row in index.slides) == sorted(NAMES)
    for name in NAMES:
        own = whole[whole.obs["slide"] == name]
        assert index.patches(name).l0_xy.tolist() == own.obsm["spatial"].tolist()
    row = next(row for row in index.slides if row.slide_id == "a1")
    assert (row.mpp, row.patch_l0_px, row.label) == (MPP, TILE, "a")
    with pytest.raises(TableChoiceError, match="has no column 'patient' of obs, only tile_id"):
        index.add_spatialdata(whole, slide_column="patient", show_progress=False)
    with pytest.raises(TableChoiceError, match="has no column 'patient' of obs, only tile_id"):
        sish.Index.from_spatialdata(tmp_path / "j.sish", whole, slide_column="patient", show_progress=False)


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_an_anndata_on_disk_has_centres(ending, tmp_path):
    table = anndata.AnnData(np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32))
    table.obsm["spatial"] = np.array([(x, y) for y in (50, 150, 250) for x in (50, 150, 250)])
    getattr(table, f"write_{ending}")(tmp_path / f"spots.{ending}")
    index = made(tmp_path, tmp_path / f"spots.{ending}")
    patches = index.patches("spots")
    assert patches.patch_l0_px == 100.0 and patches.l0_xy.min() == 0 and patches.l0_xy.max() == 200
    del table.obsm["spatial"]
    index.add_spatialdata(table, slide_ids="bare", show_progress=False)
    assert index.patches("bare").l0_xy is None
    table.obsm["spatial"] = np.arange(18).reshape(9, 2) * 77
    with pytest.raises(SlideOpenError, match="give patch_l0_px"):
        index.add_spatialdata(table, slide_ids="odd", on_error="raise", show_progress=False)
    index.add_spatialdata(table, slide_ids="odd", patch_l0_px=20, show_progress=False)
    assert index.patches("odd").l0_xy[1].tolist() == [144, 221]


def test_a_mosaic_is_chosen_by_features_and_places(slides, paths, tmp_path):
    index = made(tmp_path, paths, mosaic=True)
    assert held(index) == held(as_vectors(tmp_path, slides, mosaic=True))
    bare = anndata.AnnData(slides["a1"].features)
    report = index.add_spatialdata(bare, slide_ids="bare", mosaic=True, show_progress=False)
    assert "has no places" in report.failed[0].reason


def test_embeddings_of_whole_slides_are_kept_as_they_are(slides, paths, tmp_path):
    """LazySlide's agg_wsi: an AnnData with a row a slide."""
    means = np.stack([slides[name].features.mean(axis=0) for name in NAMES])
    table = anndata.AnnData(means)
    table.obs["case"] = list(NAMES)
    index = made(tmp_path, table, slide_column="case", feature_encoder="mean")
    assert index.rerank == "float16"
    assert index.patches("b1").vectors.shape == (1, WIDTH)
    other = sish.Index.from_spatialdata(tmp_path / "o.sish", paths, rerank="int8", show_progress=False)
    assert other.rerank == "int8" and other.patches("a1").vectors.shape == (64, WIDTH)


def test_what_cannot_be_used_is_reported_beside_the_others(slides, paths, tmp_path):
    index = made(tmp_path, paths[:1])
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "text.h5ad").write_text("no table")
    hole = spatialdata.read_zarr(paths[1])
    hole.tables["uni_tiles"].X[3, 3] = np.nan
    odd = [tmp_path / "broken.zarr", tmp_path / "text.h5ad", tmp_path / "gone.zarr", hole, 5]
    report = index.add_spatialdata([*odd, paths[2]], slide_ids=[*"vwxyz", "a2"], show_progress=False)
    assert report.added == ["a2"] and [one.path for one in report.failed] == list("vwxyz")
    said = [one.reason for one in report.failed]
    assert "cannot be read" in said[0] and "cannot be read" in said[1] and "no such file" in said[2]
    assert "NaN or infinity, first in row 3" in said[3] and "got int; want a SpatialData" in said[4]
    with pytest.raises(SlideOpenError, match="cannot be read"):
        index.add_spatialdata(odd[:1], on_error="raise", show_progress=False)


def test_an_index_is_made_of_all_objects_unless_told_otherwise(slides, paths, tmp_path):
    (tmp_path / "broken.zarr").mkdir()
    given = [*paths[:2], tmp_path / "broken.zarr", *paths[2:]]
    with pytest.raises(SlideOpenError, match=r"broken\.zarr: cannot be read"):
        made(tmp_path, given)
    report = sish.Index.open(tmp_path / "i.sish").add_spatialdata(given, show_progress=False)
    assert (report.already, report.added, len(report.failed)) == (["a1", "b1"], ["a2", "b2"], 1)
    other = sish.Index.from_spatialdata(tmp_path / "o.sish", given, on_error="skip", show_progress=False)
    assert held(other) == held(as_vectors(tmp_path, slides))


def test_an_empty_table_is_a_slide_without_tissue(paths, tmp_path):
    index = made(tmp_path, paths[:2])
    empty = anndata.AnnData(np.zeros((0, WIDTH), np.float32), obsm={"spatial": np.zeros((0, 2))})
    options = {"slide_ids": "none", "patch_l0_px": 9, "show_progress": False}
    assert index.add_spatialdata(empty, **options).no_tissue == ["none"]


def test_ids_and_labels_are_checked_before_anything_is_added(slides, paths, tmp_path):
    index = made(tmp_path, paths[:1])
    bare = anndata.AnnData(slides["a1"].features)
    for given, options, said in [
        (bare, {}, "in memory, which has no name"),
        (paths, {"slide_ids": ["one"]}, "got 1 slide_ids for 4 objects"),
        ([paths[1], paths[1]], {}, "two objects have the slide id 'b1'"),
        (bare, {"slide_ids": "x", "slide_column": "y"}, "give one of the two"),
        (bare, {"slide_ids": "x", "mpp": -1}, "mpp -1 is out of range"),
        (bare, {"slide_ids": "x", "patch_l0_px": 0}, "got patch_l0_px=0"),
    ]:
        with pytest.raises(ParameterError, match=said):
            index.add_spatialdata(given, show_progress=False, **options)
    with pytest.raises(LabelsError, match="none of the slides, such as b1"):
        index.add_spatialdata(paths[1], labels={"b7": "x"}, show_progress=False)
    assert len(index) == 1


def test_without_the_libraries_the_extra_is_named(paths, monkeypatch):
    from sish.spatial_objects import open_spatial

    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(MissingPackageError, match=r"spatialdata is not installed.*\[spatial\]"):
        open_spatial(paths[0])


def test_the_library_is_imported_when_an_object_is_read():
    code = (
        "import sish, sish.spatial, sys; assert not {'spatialdata', 'anndata', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
