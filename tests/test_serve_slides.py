"""The calls about slides: the list, the facts, tiles, thumbnails, and slides that are slow, gone or moved."""

import io
import json
import shutil
import threading
import time
from itertools import chain
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from leica import write_leica
from openslide import OpenSlide
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image
from served import client_of, served

import sish
from sish.serve import archive as archive_module
from sish.serve.bounded_cache import BoundedCache
from sish.serve.catalogue import Catalogue
from sish.serve.deep_zoom import OVERLAP_PX, TILE_PX, DeepZoom
from sish.serve.shown_slide import ShownSlide
from sish.serve.slide_files import SlideFiles
from sish.serve.slide_pool import SlidePool
from sish.slides.slide import open_slide, slide_from_array

SIZES = [(1, 1), (254, 254), (255, 508), (1000, 600), (3001, 12), (70_000, 40_001)]


@pytest.fixture(scope="module")
def service(built_index):
    with served(sish.Index.open(built_index)) as service:
        yield service


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def smooth(pixels: np.ndarray) -> np.ndarray:
    """Means over 8 x 8 pixels: JPEG and resampling differ in what is finer."""
    return np.asarray(Image.fromarray(pixels.astype(np.uint8)).reduce(8)).astype(int)


class Blank:
    """A slide of OpenSlide's interface with nothing on it, of any size."""

    def __init__(self, size):
        self.dimensions, self.level_dimensions, self.level_count = size, (size,), 1
        self.level_downsamples, self.properties = (1.0,), {}

    def get_best_level_for_downsample(self, _downsample):
        return 0


@pytest.mark.parametrize("size", SIZES)
def test_levels_and_tiles_are_those_of_openslides_deep_zoom(size):
    ours, theirs = DeepZoom(*size), DeepZoomGenerator(Blank(size), TILE_PX, OVERLAP_PX)
    assert ours.levels == theirs.level_count
    for level in range(ours.levels):
        assert ours.size(level) == theirs.level_dimensions[level]
        assert ours.columns_and_rows(level) == theirs.level_tiles[level]
        columns, rows = ours.columns_and_rows(level)
        for column, row in {(0, 0), (columns - 1, rows - 1), (columns // 2, rows // 2)}:
            box = ours.box(level, column, row)
            assert (box.width, box.height) == theirs.get_tile_dimensions(level, (column, row))
        assert ours.box(level, columns, 0) is ours.box(level, 0, rows) is ours.box(level, -1, 0) is None
    assert ours.box(ours.levels, 0, 0) is ours.box(-1, 0, 0) is None


def test_tiles_show_the_slide_where_it_is(tmp_path):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (11, 14, 3), np.uint8)
    pixels = np.repeat(np.repeat(small, 200, axis=0), 200, axis=1)
    write_leica(tmp_path / "a.scn", pixels, (300, 700), (4000, 5000))
    with open_slide(tmp_path / "a.scn") as slide:
        assert slide.bounds == (300, 700, 2800, 2200)
        shown = ShownSlide(slide)
        assert (shown.zoom.width, shown.zoom.height) == (2800, 2200)
        finest = shown.zoom.levels - 1
        for level in (finest, finest - 1, finest - 2, finest - 3):
            whole = Image.fromarray(pixels).reduce(1 << (finest - level))
            columns, rows = shown.zoom.columns_and_rows(level)
            for column, row in {(0, 0), (columns - 1, rows - 1), (columns // 2, rows // 2)}:
                box = shown.zoom.box(level, column, row)
                wanted = whole.crop((box.x, box.y, box.x + box.width, box.y + box.height))
                got = picture(shown.tile(level, column, row))
                assert got.shape == (box.height, box.width, 3)
                apart = np.abs(got - np.asarray(wanted)).mean(axis=2)
                assert np.median(apart) < 12  # JPEG, and colours of its blocks
        assert max(picture(shown.thumbnail(200)).shape) == 200
        square = picture(shown.square((300, 700), 200, 64))
        assert np.abs(square - small[0, 0]).mean() < 12


def test_a_slide_smaller_than_a_tile_has_one():
    shown = ShownSlide(slide_from_array(np.full((3, 5, 3), 99, np.uint8), mpp=1.0))
    assert picture(shown.tile(3, 0, 0)).shape == (3, 5, 3) and shown.tile(4, 0, 0) is None
    assert picture(shown.tile(0, 0, 0)).shape == (1, 1, 3)


def test_the_list_is_in_order_of_ids_and_comes_in_pages(client, built_index):
    rows = sorted(sish.Index.open(built_index).slides, key=lambda row: row.slide_id)
    whole = client.get("/api/slides").json()
    assert whole["total"] == 8 and [it["slide_id"] for it in whole["slides"]] == [it.slide_id for it in rows]
    paged = [client.get(f"/api/slides?offset={n}&limit=3").json()["slides"] for n in (0, 3, 6, 9)]
    assert list(chain(*paged)) == whole["slides"]
    assert client.get("/api/slides?limit=0").json()["slides"] == []
    for wrong in ("limit=1001", "limit=x", "offset=-1", "limit=1e3"):
        answer = client.get(f"/api/slides?{wrong}")
        assert answer.status_code == 400 and "want a whole number" in answer.json()["error"]


def test_the_list_is_searched_and_filtered(client, built_index):
    rows = sorted(sish.Index.open(built_index).slides, key=lambda row: row.slide_id)

    def ids(query):
        return [it["slide_id"] for it in client.get(f"/api/slides?{query}").json()["slides"]]

    label, site = rows[0].label, rows[-1].site
    assert ids(f"label={quote(label)}") == [it.slide_id for it in rows if it.label == label]
    both = [it.slide_id for it in rows if it.label in (label, rows[-1].label)]
    assert ids(f"label={quote(label)}&label={quote(rows[-1].label)}") == both
    assert ids(f"where=site={quote(site)}") == ids(f"site={quote(site)}") != []
    assert ids(f"query={quote(label.upper()[:4])}") == [
        it.slide_id for it in rows if label[:4] in f"{it.slide_id} {it.label} {it.site} {it.patient}"
    ]
    assert ids(f"query={quote(label)}+{quote(rows[0].patient)}")[0] == rows[0].slide_id
    assert ids("query=nothing-has-this") == []
    wrong = client.get("/api/slides?where=colour=red")
    assert wrong.status_code == 400 and "colour" in wrong.json()["error"]


def test_facts_on_the_index(client, built_index):
    info, index = client.get("/api/info").json(), sish.Index.open(built_index)
    assert info["n_slides"] == 8 and info["name"] == built_index.name and info["takes_images"] is True
    assert info["threshold"] == index.params.threshold and info["encoder"] == index.fingerprint
    told = {column["name"]: column for column in info["columns"]}
    assert sum(it["count"] for it in told["label"]["values"]) == 8
    assert set(told) >= {"label", "patient", "site"}


def test_facts_on_a_slide_and_where_its_patches_are(client, built_index):
    index = sish.Index.open(built_index)
    row = index.slides[0]
    facts = client.get(f"/api/slides/{quote(row.slide_id)}").json()
    assert facts["available"] and facts["label"] == row.label and facts["mpp"] == row.mpp
    assert facts["bounds"] == [0, 0, row.width, row.height]
    assert facts["dzi"] == DeepZoom(row.width, row.height).to_dict()
    mosaic = client.get(f"/api/slides/{quote(row.slide_id)}/mosaic").json()
    assert mosaic == {
        "patch_l0_px": row.patch_l0_px,
        "patches": index.patches(row.slide_id).l0_xy.tolist(),
    }
    pieces = client.get(f"/api/slides/{quote(row.slide_id)}/tissue").json()["polygons"]
    corners = np.concatenate([np.array(ring) for piece in pieces for ring in piece])
    assert (corners >= 0).all() and (corners <= [row.width, row.height]).all() and len(corners) > 8
    x, y = mosaic["patches"][0]
    shown = picture(client.get(f"/api/slides/{quote(row.slide_id)}/patch?x={x}&y={y}&size=128").content)
    with open_slide(row.path) as slide:
        assert np.abs(shown - slide.read((x, y), 128, row.patch_l0_px * row.mpp / 128)).mean() < 12


@pytest.mark.parametrize(
    "rest", ["/tiles/99/0_0.jpg", "/tiles/0/1_0.jpg", "/tiles/-1/0_0.jpg", "/tiles/0/0_0.png",
             "/tiles/0/0_0.jpg/", "/tiles/0/%30_0.jpg", "/tiles/١/0_0.jpg", "/nothing"]
)  # fmt: skip
def test_what_is_no_tile_is_not_found(client, rest):
    slide = client.get("/api/slides").json()["slides"][0]["slide_id"]
    assert client.get(f"/api/slides/{slide}{rest}").status_code == 404
    assert client.get(f"/api/slides/not-there{rest}").status_code == 404


def test_ids_of_any_kind_are_one_segment_of_a_path(tmp_path, synthetic_slides):
    names = ["a/b", "ü ø", "50%", "a#b?c=d", "..", "a/tiles/0/0_0.jpg"]
    vectors = np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)
    index = sish.Index.from_vectors(tmp_path / "a.sish", vectors, np.repeat(names, 10), show_progress=False)
    with served(index) as service, client_of(service) as client:
        assert [it["slide_id"] for it in client.get("/api/slides").json()["slides"]] == sorted(names)
        for name in names:
            request = client.build_request("GET", "/")
            raw = f"/api/slides/{quote(name, safe='')}".encode()
            request.url = request.url.copy_with(raw_path=raw.replace(b"..", b"%2E%2E"))
            facts = client.send(request).json()
            assert facts["slide_id"] == name and facts["available"] is False
            assert "given as vectors" in facts["reason"]


def test_a_slide_that_is_gone_changed_or_elsewhere(own_index, synthetic_slides, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    index = sish.Index.create(tmp_path / "b.sish", like=own_index)
    for path in sorted(synthetic_slides.glob("*.tif"))[:3]:
        shutil.copy(path, moved)
    index.add(moved, show_progress=False)
    first, second, third = (row.slide_id for row in index.slides)
    shutil.copy(moved / f"{second}.tif", moved / f"{third}.tif")  # another slide in its place
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    shutil.move(moved / f"{first}.tif", elsewhere)
    with served(index) as service, client_of(service) as client:
        for name, why in ((first, "check the path"), (third, "another file now")):
            facts = client.get(f"/api/slides/{name}").json()
            assert facts["available"] is False and why in facts["reason"]
            gone = client.get(f"/api/slides/{name}/thumbnail")
            assert gone.status_code == 410 and why in gone.json()["error"]
            assert (
                client.post("/api/search", json={"slide_id": name, "k": 1}).status_code == 200
            )  # by its codes
        assert client.get(f"/api/slides/{second}/thumbnail").status_code == 200
    with served(index, elsewhere.parent) as service, client_of(service) as client:
        assert client.get(f"/api/slides/{first}/thumbnail").status_code == 200
        box = {"slide_id": first, "k": 2, "region": [0, 0, 1000, 1000]}
        found = client.post("/api/search", json=box)
        heat = client.get(f"/api/slides/{first}/heatmap?search={found.headers['x-search-id']}").json()
        assert min(heat["hamming"]) <= heat["threshold"] and heat["slide_id"] == first
        found = found.json()
        assert found["query"]["slide_id"] == first
        moved = {"slide_id": first, "region": [0, 0, 1000, 1000]}
        for marks in ({"relevant": [moved]}, {"concept": {"positive": [moved], "negative": [third]}}):
            assert client.post("/api/search", json={"slide_id": second, **marks}).status_code == 200
        assert found["results"] == index.search(elsewhere / f"{first}.tif", k=2, region=(0, 0, 1000, 1000)
                                                ).to_dict()["results"]  # fmt: skip


def test_a_slide_that_vanishes_or_is_replaced_while_it_is_shown(own_index, synthetic_slides, tmp_path):
    index = sish.Index.create(tmp_path / "b.sish", like=own_index)
    files = [shutil.copy(path, tmp_path) for path in sorted(synthetic_slides.glob("*.tif"))[:3]]
    index.add(files, show_progress=False)
    first, second, _ = (row.slide_id for row in index.slides)
    with served(index) as service, client_of(service) as client:
        for name in (first, second):
            assert client.get(f"/api/slides/{name}/tiles/11/0_0.jpg").status_code == 200
        kept = Path(files[0]).rename(tmp_path / "kept")
        Path(files[2]).replace(files[1])
        for name, why in ((first, "check the path"), (second, "another file now")):
            gone = client.get(f"/api/slides/{name}/tiles/11/1_1.jpg")
            assert gone.status_code == 410 and why in gone.json()["error"]
            assert client.get(f"/api/slides/{name}").json()["available"] is False
        kept.rename(files[0])
        assert client.get(f"/api/slides/{first}/tiles/11/1_1.jpg").status_code == 200


def test_a_slow_slide_stops_no_other(built_index, monkeypatch):
    monkeypatch.setattr(archive_module, "SLOW_S", 5)
    hanging = threading.Event()
    real = SlideFiles.open

    def opened(self, row):
        if row.slide_id == slow:
            hanging.wait(20)
        return real(self, row)

    monkeypatch.setattr(SlideFiles, "open", opened)
    index = sish.Index.open(built_index)
    slow, other = (row.slide_id for row in index.slides[:2])
    try:
        with served(index) as service:
            codes = []

            def ask():
                with client_of(service) as own:
                    codes.append(own.get(f"/api/slides/{slow}/thumbnail").status_code)

            threads = [threading.Thread(target=ask) for _ in range(12)]
            for thread in threads:
                thread.start()
            time.sleep(0.1)
            with client_of(service) as client:
                assert client.get(f"/api/slides/{other}/thumbnail").status_code == 200
                assert not codes  # the slow ones still wait
            for thread in threads:
                thread.join()
            assert set(codes) == {504}
    finally:
        hanging.set()


def test_a_picture_whose_asker_left_is_no_failure(built_index, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    real = SlideFiles.open

    def opened(self, row):
        begun.set()
        go_on.wait(20)
        return real(self, row)

    monkeypatch.setattr(SlideFiles, "open", opened)
    index = sish.Index.open(built_index)
    with served(index) as service, client_of(service) as client:
        slide = index.slides[0].slide_id
        with pytest.raises(httpx.ReadTimeout):
            client.get(f"/api/slides/{slide}/thumbnail", timeout=0.2)
        assert begun.wait(20)
        time.sleep(0.6)  # the server looks every quarter of a second
        go_on.set()
        assert client.get(f"/api/slides/{slide}/thumbnail").status_code == 200


def test_what_is_wrong_with_files_is_no_fault_of_the_asker(own_index, monkeypatch):
    def unread(*_given):
        raise sish.errors.SlideReadError("a.tif: cannot read")

    monkeypatch.setattr(ShownSlide, "tile", unread)
    with served(own_index) as service, client_of(service) as client:
        slide = client.get("/api/slides").json()["slides"][0]["slide_id"]
        assert client.get(f"/api/slides/{slide}/tiles/5/0_0.jpg").status_code == 500
        shutil.rmtree(own_index.path)
        time.sleep(1.1)  # the catalogue is looked at again after a second
        gone = client.get("/api/slides")
        assert gone.status_code == 500 and own_index.path.name in gone.json()["error"]


def test_open_slides_are_bounded_and_none_is_closed_while_it_is_read(built_index):
    index = sish.Index.open(built_index)
    pool = SlidePool(SlideFiles(), most_slides=2)
    shown = {}
    for row in index.slides:
        shown[row.slide_id] = pool.submit(row, lambda it: it).result()
    for _ in range(100):
        if len(pool) <= 2 and sum(is_open(it) for it in shown.values()) <= 2:
            break
        time.sleep(0.05)
    assert len(pool) == 2 and sum(is_open(it) for it in shown.values()) == 2
    begun, go_on = threading.Event(), threading.Event()

    def read(it):
        begun.set()
        go_on.wait(20)
        return it.thumbnail(64)

    busy = pool.submit(index.slides[0], read)
    begun.wait(20)
    for row in index.slides[1:]:
        pool.submit(row, lambda it: it).result()
    go_on.set()
    assert busy.result()[:2] == b"\xff\xd8"
    pool.close()


def is_open(shown: ShownSlide) -> bool:
    try:
        shown.slide.read((0, 0), 1, shown.slide.mpp)
    except sish.errors.SlideReadError:
        return False
    return True


def test_a_cache_never_holds_more_than_it_may():
    rng, cache, kept = np.random.default_rng(0), BoundedCache(1000), {}
    for step in range(3000):
        key, size = int(rng.integers(40)), int(rng.integers(0, 300))
        cache.put(key, bytes(size), size)
        kept[key] = size
        assert cache.nbytes <= 1000
        found = cache.get(int(rng.integers(40)))
        assert found is None or len(found) in kept.values()
        assert len(cache.get(key)) == size, step
    cache.put("large", b"", 1001)
    assert cache.get("large") is None and cache.nbytes <= 1000


def test_a_change_by_another_process_shows(own_index, synthetic_slides):
    other = sish.Index.open(own_index.path)
    with served(own_index) as service, client_of(service) as client:
        before = client.get("/api/slides").json()
        other.remove(before["slides"][0]["slide_id"])
        for _ in range(100):
            after = client.get("/api/slides").json()
            if after["total"] == 7:
                break
            time.sleep(0.05)
        assert after["total"] == 7 and after["generation"] > before["generation"]
        assert client.get(f"/api/slides/{before['slides'][0]['slide_id']}").status_code == 404
        assert client.get("/api/info").json()["n_slides"] == 7


def test_the_map_is_that_of_the_index_and_follows_its_changes(own_index):
    with served(own_index) as service, client_of(service) as client:
        told = client.get("/api/map").json()
        assert told == json.loads(json.dumps(own_index.slide_map().to_dict()))
        own_index.remove(told["slide_ids"][0])
        assert client.get("/api/map").json()["slide_ids"] == told["slide_ids"][1:]


def test_a_catalogue_counts_the_values_of_every_column(built_index):
    index = sish.Index.open(built_index)
    columns = {it["name"]: it for it in Catalogue.of(index.state_and_view()[0]).columns}
    values = [it["value"] for it in columns["label"]["values"]]
    assert sorted(values) == sorted({row.label for row in index.slides})
    counts = [it["count"] for it in columns["label"]["values"]]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs"])
def test_tiles_of_real_slides_look_like_those_of_openslide(data_dir, name):
    path = data_dir / "slides" / name
    with open_slide(path, mpp=0.25) as slide, OpenSlide(path) as plain:
        shown, theirs = ShownSlide(slide), DeepZoomGenerator(plain, TILE_PX, OVERLAP_PX)
        finest = shown.zoom.levels - 1
        for level in (finest, finest - 1, finest - 2, finest - 4):
            columns, rows = shown.zoom.columns_and_rows(level)
            place = columns // 2, rows // 2
            wanted = smooth(np.asarray(theirs.get_tile(level, place)))
            assert np.abs(smooth(picture(shown.tile(level, *place))) - wanted).mean() < 4
