"""GeoJSON for QuPath: every rule of its reader, and each place exact to the pixel, there and back.

The slides are Leica files whose scanned part does not begin at (0, 0): OpenSlide itself tells their bounds.
"""

import csv
import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given
from hypothesis import strategies as st
from leica import write_leica
from qupath_rules import box_of, valid_features

import sish
from sish.cli import main
from sish.errors import AnnotationsError, AnnotationsNotFoundError, ParameterError, QueryError, SlideOpenError
from sish.geojson import Feature, box_ring, collection, colour_of, write_collection
from sish.qupath import file_names, write_geojson, write_preview
from sish.slides.mosaic import Mosaic
from sish.slides.outlines import outlines
from sish.slides.slide import open_slide, read_bounds, slide_from_array
from sish.slides.tissue import TissueMask

LABEL = "tumour: grade 2"


@pytest.fixture(scope="module")
def leica_slides(synthetic_slides, tmp_path_factory) -> Path:
    """Four slides with bounds, each at another place of its glass, and their labels."""
    folder = tmp_path_factory.mktemp("leica")
    names = sorted(synthetic_slides.glob("*.tif"))[:4]
    for number, path in enumerate(names):
        with open_slide(path) as slide:
            pixels = slide.read((0, 0), slide.dimensions, slide.mpp)
        height, width = pixels.shape[:2]
        place = (701 + 10 * number, 333)
        write_leica(folder / f"{path.stem}.scn", pixels, place, (width + 1500, height + 900), mpp=0.5)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("slide_id", "label"))
        rows.writerows((path.stem, LABEL) for path in names)
    return folder


@pytest.fixture(scope="module")
def leica_index(leica_slides, tmp_path_factory) -> sish.Index:
    """An index of them; not to be written to."""
    index = sish.Index.create(tmp_path_factory.mktemp("index") / "leica.sish")
    index.add(leica_slides, labels=leica_slides / "labels.csv", show_progress=False)
    return index


@pytest.fixture
def query(leica_index) -> str:
    return leica_index.slides[0].path


def corner_of(path) -> tuple[int, int]:
    """Where the scanned part begins, by OpenSlide."""
    properties = openslide.OpenSlide(path).properties
    return tuple(int(properties[f"openslide.bounds-{axis}"]) for axis in "xy")


def named(features, start):
    return [it for it in features if it["properties"]["name"].startswith(start)]


# ---- searches


@pytest.mark.parametrize("origin", ["bounds", "slide"])
def test_patches_of_a_search_are_where_they_are(leica_index, query, tmp_path, origin):
    results = leica_index.search(query, k=3)
    written = write_geojson(results, tmp_path / "out", index=leica_index, origin=origin)
    assert not written.left_out and sorted((tmp_path / "out").iterdir()) == sorted(written.paths)
    assert {path.stem for path in written.paths} == {hit.slide_id for hit in results} | {
        results.query.slide_id
    }
    for hit in results:
        x, y = corner_of(hit.path) if origin == "bounds" else (0, 0)
        assert origin == "slide" or (x, y) != (0, 0)
        found = named(valid_features(tmp_path / "out" / f"{hit.slide_id}.geojson"), f"hit {hit.rank}, ")
        assert len(found) == len(hit.patches)
        for pair, feature in zip(hit.patches, found, strict=True):
            left, top, right, bottom = box_of(feature)
            assert (left + x, top + y) == pair.xy
            assert (right - left, bottom - top) == (hit.patch_l0_px, hit.patch_l0_px)
            told = feature["properties"]
            numbers = told["measurements"]
            assert (numbers["Hamming distance"], numbers["Rank"]) == (pair.hamming, hit.rank)
            assert numbers["Score"] == hit.score
            assert tuple(results.query.l0_xy[numbers["Query patch"] - 1].tolist()) == pair.query_xy
            assert told["objectType"] == "detection"
            assert told["metadata"]["label"] == LABEL
            name = told["classification"]["name"]
            assert name == "tumour- grade 2"
            assert told["classification"]["color"] == list(colour_of(name))


def test_all_patches_of_the_query_are_shown_and_those_of_hits_are_told(leica_index, query, tmp_path):
    results = leica_index.search(query, k=2)
    write_geojson(results, tmp_path, index=leica_index)
    x, y = corner_of(query)
    found = named(valid_features(tmp_path / f"{results.query.slide_id}.geojson"), "query patch ")
    assert len(found) == results.query.n_patches == len(results.query.l0_xy)
    for place, feature in zip(results.query.l0_xy.tolist(), found, strict=True):
        assert box_of(feature)[:2] == (place[0] - x, place[1] - y)
        near = [pair.hamming for hit in results for pair in hit.patches if pair.query_xy == tuple(place)]
        numbers = feature["properties"]["measurements"]
        assert numbers["Hits"] == len(near)
        assert numbers.get("Hamming distance") == (min(near) if near else None)


def test_the_pixels_in_a_box_are_those_of_the_patch(leica_index, query, tmp_path):
    """QuPath shows the scanned part: a box there holds the pixels that the level-0 place has."""
    results = leica_index.search(query, k=1)
    write_geojson(results, tmp_path, index=leica_index)
    file = openslide.OpenSlide(query)
    x, y = corner_of(query)
    size = (
        openslide.OpenSlide(query).properties["openslide.bounds-width"],
        file.properties["openslide.bounds-height"],
    )
    shown = np.asarray(file.read_region((x, y), 0, tuple(map(int, size))).convert("RGB"))
    feature = named(valid_features(tmp_path / f"{results[0].slide_id}.geojson"), "hit 1, ")[0]
    left, top, right, bottom = map(int, box_of(feature))
    with open_slide(query) as slide:
        wanted = slide.read(results[0].patches[0].xy, right - left, slide.mpp)
    part = shown[top:bottom, left:right]
    assert (part == wanted[: part.shape[0], : part.shape[1]]).all() and part.std() > 5


def test_two_exports_give_the_same_bytes_and_a_search_by_id_the_same_places(leica_index, query, tmp_path):
    name = leica_index.slides[0].slide_id
    for folder, asked in (("a", query), ("b", query), ("c", name)):
        write_geojson(leica_index.search(asked, k=2), tmp_path / folder, index=leica_index)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert path.read_bytes() == (tmp_path / "c" / path.name).read_bytes()


def test_several_queries_share_the_files_of_their_hits(leica_index, tmp_path):
    rows = leica_index.slides
    answers = [leica_index.search(row.slide_id, k=4) for row in rows]
    written = write_geojson([*answers, answers[0]], tmp_path, index=leica_index)
    assert len(written.paths) == len(rows)
    pairs = sum(len(hit.patches) for answer in answers for hit in answer)
    features = [feature for path in written.paths for feature in valid_features(path)]
    assert len(named(features, "hit ")) == pairs
    assert {it["properties"]["metadata"]["query"] for it in named(features, "hit ")} == {
        row.slide_id for row in rows
    }


def test_a_copy_of_an_indexed_slide_is_shown_with_it_and_another_of_its_name_is_not(
    leica_index, query, tmp_path
):
    name = leica_index.slides[0].slide_id
    for folder, source in (("same", query), ("other", leica_index.slides[1].path)):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / f"{name}.scn")
    answer = leica_index.search(tmp_path / "same" / f"{name}.scn", k=1)
    assert len(write_geojson(answer, tmp_path / "a", index=leica_index).paths) == 1
    answer = leica_index.search(query, k=1)
    strange = replace(answer, query=replace(answer.query, path=str(tmp_path / "other" / f"{name}.scn")))
    assert len(write_geojson(strange, tmp_path / "b", index=leica_index).paths) == 2


@pytest.mark.slow
def test_a_query_that_was_moved_is_opened_where_it_is(leica_slides, tmp_path):
    shutil.copytree(leica_slides, tmp_path / "slides")
    index = sish.Index.create(tmp_path / "own.sish")
    index.add(tmp_path / "slides", show_progress=False)
    first, second = index.slides[:2]
    moved = Path(second.path).rename(tmp_path / "moved.scn")
    asked = [index.search(first.path, k=4), index.search(moved, k=1)]
    assert len(write_geojson(asked[0], tmp_path / "a", index=index).left_out) == 1
    written = write_geojson(asked, tmp_path / "b", index=index)
    assert not written.left_out and len(written.paths) == 4


def test_an_image_in_memory_can_be_asked_for(leica_index, query, tmp_path):
    with open_slide(query) as slide:
        pixels = slide.overview(slide.mpp)
    answer = leica_index.search(pixels, mpp=0.5, k=1)
    written = write_geojson(answer, tmp_path, index=leica_index)
    assert {path.stem for path in written.paths} == {"image", answer[0].slide_id}
    box = box_of(named(valid_features(tmp_path / "image.geojson"), "query patch 1")[0])
    assert box[:2] == tuple(answer.query.l0_xy[0].tolist())


@pytest.mark.slow
def test_a_slide_that_is_gone_or_another_is_left_out_and_told(leica_slides, tmp_path, capsys):
    folder = tmp_path / "slides"
    shutil.copytree(leica_slides, folder)
    index = sish.Index.create(tmp_path / "own.sish")
    index.add(folder, show_progress=False)
    first, second, third, _ = index.slides
    Path(second.path).unlink()
    shutil.copy(first.path, third.path)
    results = index.search(first.path, k=4)
    written = write_geojson(results, tmp_path / "out", index=index)
    assert {Path(it.path).stem for it in written.left_out} == {second.slide_id, third.slide_id}
    assert len(written.paths) == 2
    assert all("--origin slide" in it.reason for it in written.left_out)
    assert len(write_geojson(results, tmp_path / "all", index=index, origin="slide").paths) == 4
    words = ["search", first.path, "--index", str(index.path), "-k", "4", "--geojson", str(tmp_path / "told")]
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.err.count("left out") == 2 and "another file now" in said.err and second.slide_id in said.out
    for row in (first, *index.slides[3:]):
        Path(row.path).unlink()
    with pytest.raises(SlideOpenError, match="no file written"):
        write_geojson(results, tmp_path / "none", index=index)
    assert not (tmp_path / "none").exists()


def test_vectors_are_shown_where_their_places_are_known(tmp_path):
    rng = np.random.default_rng(0)
    vectors, slide_ids = rng.normal(size=(60, 64)).astype(np.float32), np.repeat(["a", "b", "c"], 20)
    places = rng.integers(0, 9000, (60, 2))
    path = tmp_path / "placed.sish"
    index = sish.Index.from_vectors(
        path, vectors, slide_ids, l0_xy=places, mpp=0.5, patch_l0_px=448, feature_encoder="uni"
    )
    results = index.search(vectors[:20], k=2)
    with pytest.raises(SlideOpenError, match=r"vectors.*--origin slide"):
        write_geojson(results, tmp_path / "out", index=index)
    written = write_geojson(results, tmp_path / "out", index=index, origin="slide")
    assert [path.stem for path in written.paths] == [hit.slide_id for hit in results]
    for hit, path in zip(results, written.paths, strict=True):
        found = [box_of(it)[:2] for it in valid_features(path)]
        assert found == [pair.xy for pair in hit.patches]
        assert set(found) <= set(map(tuple, places[slide_ids == hit.slide_id].tolist()))
    by_id = write_geojson(index.search("a", k=1), tmp_path / "id", index=index, origin="slide")
    assert len(named(valid_features(by_id.paths[0]), "query patch ")) == 20


def test_places_that_are_not_known_are_refused(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(60, 64)).astype(np.float32)
    slide_ids = np.repeat(["a", "b", "c"], 20)
    index = sish.Index.from_vectors(tmp_path / "bare.sish", vectors, slide_ids, feature_encoder="uni")
    for asked in (vectors[:5], "a"):
        with pytest.raises(QueryError, match="l0_xy"):
            write_geojson(index.search(asked, k=1), tmp_path / "out", index=index, origin="slide")
    assert not (tmp_path / "out").exists()


# ---- files


def test_a_file_of_someone_else_stays_and_one_of_ours_is_replaced(leica_index, query, tmp_path):
    results = leica_index.search(query, k=2)
    written = write_geojson(results, tmp_path, index=leica_index)
    before = {path: path.read_bytes() for path in written.paths}
    drawn = written.paths[-1]
    drawn.write_text('{"type": "FeatureCollection", "features": []}')
    written.paths[0].unlink()
    with pytest.raises(ParameterError, match="not written by sish"):
        write_geojson(results, tmp_path, index=leica_index)
    assert not written.paths[0].exists() and b"sish" not in drawn.read_bytes()
    drawn.unlink()
    for _ in range(2):
        write_geojson(results, tmp_path, index=leica_index)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_where_files_may_not_go(own_index, tmp_path):
    results = own_index.search(own_index.slides[0].slide_id, k=1)
    for folder in (own_index.path, own_index.path / "new"):
        with pytest.raises(ParameterError, match="inside the index"):
            write_geojson(results, folder, index=own_index)
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match="no folder"):
        write_geojson(results, tmp_path / "file", index=own_index)
    with pytest.raises(ParameterError, match="origin"):
        write_geojson(results, tmp_path / "out", index=own_index, origin="middle")
    with pytest.raises(sish.OutputError, match="cannot make"):
        write_geojson(results, tmp_path / "file" / "out", index=own_index)


@given(st.lists(st.text(st.characters(exclude_categories=()), min_size=1), max_size=8))
def test_names_of_files_are_safe_and_differ(slide_ids):
    names = file_names(slide_ids)
    assert len({name.casefold() for name in names}) == len(slide_ids)
    for name in names:
        assert name.endswith(".geojson") and Path(name).name == name and name[0] not in ". "
        assert len(name.encode()) < 200 and name.isprintable()
    assert names == file_names(slide_ids)


def test_names_that_systems_keep_for_themselves():
    assert file_names(["TCGA-01", "a (b)"])[0] == "TCGA-01.geojson"
    for slide_id in ("..", "CON", "com1.x", ".hidden", "../../etc/passwd", "a\0b", "end.", "\udc80"):
        (name,) = file_names([slide_id])
        assert name.removesuffix(".geojson") != slide_id and "/" not in name and "\0" not in name


def test_what_json_cannot_hold_is_left_out(tmp_path):
    told = {"nan": float("nan"), "inf": float("-inf"), "none": None, "one": 1.5}
    feature = Feature(
        "tile", "a\nb", box_ring((0.123, 1), (2, 2)), ("x",), class_name="a:\n", measurements=told,
        metadata={"a": None, "b": "c\ud800"},
    )  # fmt: skip
    data = collection([feature], slide="a.svs", origin="slide", origin_xy=(0, 0))
    (found,) = valid_features(write_collection(tmp_path / "a.geojson", data))
    assert found["properties"]["measurements"] == {"one": 1.5}
    assert list(found["properties"]["metadata"]) == ["b"]
    assert found["geometry"]["coordinates"][0][0] == [0.12, 1]
    with pytest.raises(ParameterError, match="geojson"):
        write_collection(tmp_path / "a.txt", data)


# ---- previews


@pytest.mark.parametrize("origin", ["bounds", "slide"])
def test_a_preview_has_the_tissue_and_the_mosaic(query, tmp_path, origin, capsys):
    file = tmp_path / "preview.geojson"
    assert main(["preview", query, "--geojson", str(file), "--origin", origin]) == 0
    assert "preview.geojson" in capsys.readouterr().out
    x, y = corner_of(query) if origin == "bounds" else (0, 0)
    features = valid_features(file)
    with open_slide(query) as slide:
        prepared = sish.Index.create(tmp_path / "empty.sish").encoder.prepare(slide)
    tiles = [it for it in features if it["properties"]["objectType"] == "tile"]
    corners = [tuple(np.add(box_of(it)[:2], (x, y)).tolist()) for it in tiles]
    assert corners == [tuple(place) for place in prepared.mosaic.l0_xy.tolist()]
    tissue = [it for it in features if it["properties"]["objectType"] == "annotation"]
    assert tissue and len(tissue) + len(tiles) == len(features)
    across, down = np.nonzero(prepared.tissue.mask)[::-1]
    scale = prepared.tissue.l0_per_px
    low = np.array([across.min(), down.min()]) * scale + prepared.tissue.l0_xy
    boxes = np.array([box_of(it) for it in tissue])
    assert np.allclose(boxes[:, :2].min(axis=0), low - (x, y), atol=0.01)


def test_a_preview_writes_what_was_asked_for(synthetic_slides, tmp_path, capsys):
    slide = str(next(synthetic_slides.glob("*.tif")))
    picture, file = tmp_path / "a.png", tmp_path / "a.geojson"
    assert main(["preview", slide, "-o", str(picture), "--geojson", str(file)]) == 0
    assert picture.exists() and valid_features(file)
    assert main(["preview", slide]) == 1 and "--geojson" in capsys.readouterr().err
    file.write_text("{}")
    assert main(["preview", slide, "--geojson", str(file)]) == 1
    assert file.read_text() == "{}" and "not written by sish" in capsys.readouterr().err
    assert main(["preview", slide, "--geojson", str(tmp_path / "a.txt")]) == 1


def test_holes_and_pieces_of_tissue(tmp_path):
    mask = np.zeros((8, 9), bool)
    mask[1:6, 1:6] = True
    mask[2, 2] = mask[3, 3] = False  # two holes that share a corner
    mask[6, 6] = True  # a piece that shares a corner with the other
    slide = slide_from_array(np.zeros((80, 90, 3), np.uint8), 1.0, "drawn")
    none = Mosaic(np.zeros((0, 2), np.int64), np.zeros(0, np.int32), 256, 1.0, 256.0, 0)
    write_preview(slide, TissueMask(mask, (0, 0), 10.0, 10.0), none, tmp_path / "a.geojson")
    large, small = valid_features(tmp_path / "a.geojson")
    assert len(large["geometry"]["coordinates"]) == 3 and box_of(large) == (10, 10, 60, 60)
    assert small["geometry"]["coordinates"] == [[[60, 60], [70, 60], [70, 70], [60, 70], [60, 60]]]


@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_outlines_enclose_the_mask_exactly(height, width, random):
    mask = np.array([[random.random() < 0.6 for _ in range(width)] for _ in range(height)])
    filled = np.zeros_like(mask, dtype=int)
    for piece in outlines(mask):
        own = np.zeros_like(filled)
        for ring in piece:
            assert len({tuple(corner) for corner in ring.tolist()}) == len(ring)
            for (x, y), (to_x, to_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                assert (x == to_x) != (y == to_y)
                if x == to_x:  # clockwise: a pixel is inside if more edges left of it go up than down
                    own[min(y, to_y) : max(y, to_y), x:] += 1 if to_y < y else -1
        assert set(np.unique(own)) <= {0, 1}
        filled += own
    assert (filled == mask).all()


# ---- annotations

SQUARE = {"type": "Polygon", "coordinates": [[[10, 20], [50, 20], [50, 90], [10, 90], [10, 20]]]}
SLIDE = slide_from_array(np.zeros((1000, 800, 3), np.uint8), 0.5, "plain")


def feature(geometry=SQUARE, **properties):
    return {"type": "Feature", "id": "PathAnnotationObject", "geometry": geometry, "properties": properties}


def read(tmp_path, page, **options):
    file = tmp_path / "drawn.geojson"
    file.write_bytes(page if isinstance(page, bytes) else json.dumps(page).encode())
    return sish.read_annotations(file, SLIDE, **options)


@pytest.mark.parametrize(
    "page",
    [
        {"type": "FeatureCollection", "features": [feature()]},
        feature(),
        [feature()],
        [{"type": "FeatureCollection", "features": [feature()]}],
        SQUARE,
        [SQUARE],
        {"type": "GeometryCollection", "geometries": [SQUARE]},
        feature({**SQUARE, "isEllipse": True, "plane": {"c": -1, "z": 0, "t": 0}}),
        feature(objectType="detection", childObjects=[feature(objectType="annotation")]),
        b"\xef\xbb\xbf" + json.dumps(feature()).encode(),
    ],
)
def test_every_form_that_qupath_writes_is_read(tmp_path, page):
    assert [it.region for it in read(tmp_path, page)] == [(10, 20, 40, 70)]


@pytest.mark.parametrize(
    ("geometry", "region"),
    [
        ({"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"], [[[0, 0], [5, 1], [0, 5], [0, 0]]]]},
         (0, 0, 50, 90)),
        ({"type": "LineString", "coordinates": [[1.5, 2.5], [7.25, 9]]}, (1, 2, 7, 7)),
        ({"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4, 0]], [[5, 6], [7, 8]]]}, (1, 2, 6, 6)),
        ({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}, (1, 2, 2, 2)),
    ],
)  # fmt: skip
def test_any_shape_becomes_the_box_around_it(tmp_path, geometry, region):
    assert [it.region for it in read(tmp_path, feature(geometry))] == [region]


def test_names_are_those_of_qupath(tmp_path):
    drawn = [
        feature(
            objectType="annotation", name="Ω\u202e box", classification={"name": "Tumor", "color": [1, 2, 3]}
        ),
        feature(object_type="annotation", classification={"name": "Stroma", "colorRGB": -1}),
        feature(classification={"names": ["Tumor", "Positive"], "color": [1, 2, 3]}),
        feature(classification="Immune", name=""),
        feature(type="something new"),
    ]
    names = [it.name for it in read(tmp_path, drawn)]
    assert names == ["Ω\u202e box", "Stroma", "Tumor: Positive", "Immune", "annotation 5"]


def test_other_objects_are_no_queries(tmp_path):
    others = [feature(objectType=kind) for kind in ("detection", "cell", "tile", "tmaCore")]
    others += [feature() | {"id": "PathTileObject"}]
    assert len(read(tmp_path, [*others, feature(objectType="annotation", name="one")])) == 1
    with pytest.raises(AnnotationsError, match="5 objects of other types"):
        read(tmp_path, others)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"not json", "no JSON"),
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON|nested"),
        (b"9" * 10_000, "no JSON|int"),
        (b"3", "int 3"),
        ({"type": "Topology"}, "Topology"),
        ({"features": []}, "None"),
        ({"type": "FeatureCollection", "features": {}}, "FeatureCollection"),
        ({"type": ["Feature"]}, "type"),
        ({"type": "FeatureCollection", "features": []}, "is empty"),
        ([], "is empty"),
        (["Feature"], "str"),
        (feature(None), "annotation 1 has no shape"),
        ({"type": "Feature"}, "annotation 1 has no shape"),
        (feature({"type": "Circle"}, name="my\nbox"), r"my\\nbox has no shape"),
        (feature({"type": "Polygon"}), "no list of places"),
        (feature({"type": "Polygon", "coordinates": []}), "no area"),
        (feature({"type": "Point", "coordinates": [3, 4]}), "no area"),
        (feature({"type": "LineString", "coordinates": [[1, 2], [1, 9]]}), "no area"),
        (feature({"type": "LineString", "coordinates": [[1], [1, 9]]}), "no pair of numbers"),
        (feature({"type": "LineString", "coordinates": [["1", 2], [3, 4]]}), "no pair of numbers"),
        (feature({"type": "LineString", "coordinates": [[True, 2], [3, 4]]}), "no pair of numbers"),
        (feature({"type": "LineString", "coordinates": [[10**400, 2], [3, 4]]}), "no pair of numbers"),
        (b'{"type": "LineString", "coordinates": [[NaN, 1], [2, 2]]}', "no pair of numbers"),
        (b'{"type": "LineString", "coordinates": [[1e400, 1], [2, 2]]}', "no pair of numbers"),
        (feature(SQUARE | {"coordinates": [[[900, 1], [950, 9]]]}, name="a\n"), "outside the slide"),
        (feature({"type": "GeometryCollection"}), "no list"),
    ],
)  # fmt: skip
def test_what_is_no_annotation_is_refused_on_one_line(tmp_path, page, said):
    with pytest.raises(AnnotationsError, match=said) as told:
        read(tmp_path, page)
    assert "\n" not in str(told.value) and told.value.path == tmp_path / "drawn.geojson"


def test_files_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(AnnotationsNotFoundError):
        sish.read_annotations(tmp_path / "none.geojson", SLIDE)
    for path in (tmp_path, "/dev/zero", tmp_path / "a\0b"):
        with pytest.raises(AnnotationsError):
            sish.read_annotations(path, SLIDE)
    with pytest.raises(ParameterError, match="origin"):
        read(tmp_path, SQUARE, origin="middle")
    monkeypatch.setattr("sish.annotations._MAX_BYTES", 100)
    with pytest.raises(AnnotationsError, match="export only these"):
        read(tmp_path, SQUARE | {"more": "x" * 100})


def test_zip_files_of_qupath(tmp_path):
    file = tmp_path / "drawn.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("drawn.geojson", json.dumps([feature()]))
    assert sish.read_annotations(file, SLIDE)[0].region == (10, 20, 40, 70)
    whole = file.read_bytes()
    file.write_bytes(whole[:40] + b"\0\0\0\0" + whole[44:])
    with pytest.raises(AnnotationsError, match="zip"):
        sish.read_annotations(file, SLIDE)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.geojson", "[]")
        archive.writestr("b.geojson", "[]")
    with pytest.raises(AnnotationsError, match="holds 2 GeoJSON files"):
        sish.read_annotations(file, SLIDE)


@given(
    st.lists(
        st.tuples(st.integers(0, 900), st.integers(0, 700), st.integers(1, 300), st.integers(1, 300)),
        min_size=1,
    ),
    st.sampled_from(["bounds", "slide"]),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1),
)
def test_boxes_come_back_to_the_pixel(boxes, origin, name):
    slide = _Bounded()
    corner = slide.bounds[:2] if origin == "bounds" else (0, 0)
    boxes = [(x + 701, y + 333, width, height) for x, y, width, height in boxes]
    features = [
        Feature("annotation", name, box_ring((x, y), (w, h)), (n,)) for n, (x, y, w, h) in enumerate(boxes)
    ]
    page = json.loads(collection(features, slide="s", origin=origin, origin_xy=corner))
    from sish.annotations import annotations_of

    found = annotations_of(page, slide.bounds, origin, Path("page.geojson"))
    assert [it.region for it in found] == boxes


class _Bounded:
    bounds = (701, 333, 1200, 1000)


def test_bounds_need_no_scale(tmp_path, leica_slides):
    from PIL import Image

    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    assert read_bounds(tmp_path / "a.png") == (0, 0, 40, 30)
    path = next(leica_slides.glob("*.scn"))
    assert read_bounds(path)[:2] == corner_of(path)
    with pytest.raises(SlideOpenError):
        read_bounds(tmp_path / "none.svs")


# ---- annotations as queries


def draw(tmp_path, *boxes, shift=(0, 0)):
    """A file of QuPath with a box for each (name, x, y, width, height), shifted."""
    drawn = []
    for name, x, y, width, height in boxes:
        x, y = x - shift[0], y - shift[1]
        ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
        drawn.append(feature({"type": "Polygon", "coordinates": [ring]}, objectType="annotation", name=name))
    file = tmp_path / "boxes.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": drawn}))
    return file


@pytest.mark.slow
@pytest.mark.parametrize(("origin", "by_id"), [("bounds", False), ("slide", True)])
def test_each_annotation_is_a_query(leica_index, query, tmp_path, capsys, origin, by_id):
    x, y, width, height = read_bounds(query)
    boxes = [("left", x, y, width // 2, height), ("middle <b>", x + 200, y + 200, 800, 800)]
    shift = (x, y) if origin == "bounds" else (0, 0)
    file = draw(tmp_path, *boxes, shift=shift)
    page, out, table = tmp_path / "page.html", tmp_path / "out", tmp_path / "table.csv"
    words = [
        "search", leica_index.slides[0].slide_id if by_id else query, "--index", str(leica_index.path),
        "--region-geojson", str(file), "--origin", origin, "-k", "2",
    ]  # fmt: skip
    more = ["--json", "--report", str(page), "--geojson", str(out), "--csv", str(table)]
    assert main([*words, *more]) == 0
    with table.open(newline="") as file:
        assert {row["query_region_name"] for row in csv.DictReader(file)} == {"left", "middle <b>"}
    answers = json.loads(capsys.readouterr().out)
    assert [answer["query"]["region_name"] for answer in answers] == ["left", "middle <b>"]
    for answer, (_, *box) in zip(answers, boxes, strict=True):
        assert answer["query"]["region"] == box
        wanted = leica_index.search(query, region=tuple(box), k=2)
        assert answer["results"] == json.loads(json.dumps(wanted.to_dict()))["results"]
    assert "(left)" in page.read_text() and "(middle &lt;b&gt;)" in page.read_text()
    features = valid_features(out / f"{leica_index.slides[0].slide_id}.geojson")
    regions = [it for it in features if it["properties"]["objectType"] == "annotation"]
    assert [it["properties"]["name"] for it in regions] == ["left", "middle <b>"]
    back = sish.read_annotations(out / f"{leica_index.slides[0].slide_id}.geojson", query, origin=origin)
    assert [it.region for it in back] == [tuple(box) for _, *box in boxes]
    assert main(words) == 0 and ", middle <b>:" in capsys.readouterr().out


def test_an_annotation_on_glass_is_told_and_the_others_are_searched(leica_index, query, tmp_path, capsys):
    x, y, width, height = read_bounds(query)
    file = draw(tmp_path, ("glass", x, y, 40, 40), ("tissue", x, y, width, height), shift=(x, y))
    words = ["search", query, "--index", str(leica_index.path), "--region-geojson", str(file), "-k", "1"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "skipped: glass" in said.err and ", tissue:" in said.out
    assert main([*words, "--region", "0", "0", "9", "9"]) == 1 and "one of the two" in capsys.readouterr().err
    assert main([words[0], query, *words[1:]]) == 1 and "give one query" in capsys.readouterr().err
    assert main([*words, "--geojson", str(tmp_path)]) == 1 and "another folder" in capsys.readouterr().err
    file = draw(tmp_path, ("far", x + 5000, y, 40, 40))
    assert main(words) == 1 and "far lies outside the slide" in capsys.readouterr().err


def test_one_annotation_gives_a_list_too(leica_index, query, tmp_path, capsys):
    x, y, width, height = read_bounds(query)
    file = draw(tmp_path, ("all", x, y, width, height), shift=(x, y))
    words = ["search", query, "--index", str(leica_index.path), "--region-geojson", str(file), "--json"]
    assert main(words) == 0 and len(json.loads(capsys.readouterr().out)) == 1


# ---- the page and the script for QuPath

DOCS = Path(__file__).parents[1] / "docs"


def test_the_examples_of_the_page_run(leica_index, query, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y, width, height = read_bounds(query)
    draw(tmp_path, ("mine", x, y, width, height), shift=(x, y)).rename("box.geojson")
    names = {"index": leica_index, "results": leica_index.search(query, k=2)}
    page = (DOCS / "how-to" / "qupath.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block.replace("slides/query.svs", query), "docs/how-to/qupath.md", "exec"), names)
    said = capsys.readouterr().out
    assert said.startswith("2 files; 0 slides left out\nmine ['adipose-01'")
    told = {name for path in names["written"].paths for it in valid_features(path) for name in told_of(it)}
    assert not {name for name in told if f"`{name}`" not in page}


def test_the_script_asks_for_what_the_files_have(leica_index, query, tmp_path):
    script = (DOCS / "qupath" / "sish_hits.groovy").read_text()
    (path,) = write_geojson(leica_index.search(query, k=1), tmp_path, index=leica_index).paths
    hit = named(valid_features(path), "hit ")[0]["properties"]
    asked = set(re.findall(r'(?:numbers|about)\["(.+?)"\]', script)) - {"region"}
    assert asked and asked <= {*hit["measurements"], *hit["metadata"]}
    assert "page.sish.slide" in script and json.loads(path.read_bytes())["sish"]["slide"] == Path(query).name


def told_of(feature):
    """The names of a feature's measurements."""
    return feature["properties"]["measurements"]
