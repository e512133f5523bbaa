"""Archives of features that TRIDENT or CLAM computed, from files in both layouts."""

import json

import h5py
import numpy as np
import pytest

import sish
from sish.cli import main
from sish.demo.synthetic import write_slides
from sish.errors import (
    EncoderMismatchError,
    MissingMppError,
    QueryError,
    SlideOpenError,
)
from sish.feature_files import choose, find_feature_files, read_features

DIMS = 48
KINDS = np.random.default_rng(7).normal(0, 1, (3, 4, DIMS))
"""Three kinds of slide, each of four textures."""


def slide_arrays(kind, seed, side=14):
    """Features float32 (side * side, DIMS) of one slide and corners of its patches, 512 level-0 px apart."""
    rng = np.random.default_rng([kind, seed])
    y, x = np.mgrid[:side, :side].reshape(2, -1)
    texture = (x // 4 + 2 * (y // 7)) % 4
    features = 5 + KINDS[kind][texture] + 0.3 * rng.normal(size=(side * side, DIMS))
    return features.astype(np.float32), np.stack([x, y], axis=1) * 512


def write_trident(path, features, l0_xy, *, power=40, encoder=None, size=256):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features, l0_xy
        file["features"].attrs.update({"name": path.stem, "savetodir": "x"})
        if encoder:
            file["features"].attrs["encoder"] = encoder
        file["coords"].attrs.update(
            {
                "patch_size": size, "patch_size_level0": 512, "level0_magnification": power,
                "target_magnification": 20, "overlap": 0, "name": path.stem, "savetodir": "x",
            }
        )  # fmt: skip


def write_clam(path, features, l0_xy):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features, l0_xy.astype(np.int32)


@pytest.fixture(scope="module")
def trident(tmp_path_factory):
    """Three kinds of slide, four of each, and what tells their kinds."""
    folder = tmp_path_factory.mktemp("job") / "20x_256px_0px_overlap"
    lines = ["slide_id,label"]
    for kind in range(3):
        for number in range(4):
            write_trident(folder / "features_uni_v1" / f"k{kind}-{number}.h5", *slide_arrays(kind, number))
            lines.append(f"k{kind}-{number},kind {kind}")
    write_clam(folder / "patches" / "k0-0_patches.h5", np.empty((0, 1)), np.empty((0, 2)))
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def archive(trident, tmp_path_factory):
    """An index of them."""
    place = tmp_path_factory.mktemp("archive") / "features.sish"
    index = sish.Index.create_for_features(place, trident)
    report = index.add_features(trident, labels=trident / "labels.csv", show_progress=False)
    assert report.summary() == "12 added"
    return index


def test_a_file_of_trident_tells_everything(trident):
    file = read_features(trident / "features_uni_v1" / "k1-2.h5")
    features, l0_xy = slide_arrays(1, 2)
    np.testing.assert_array_equal(file.features, features)
    np.testing.assert_array_equal(file.l0_xy, l0_xy)
    assert (file.encoder, file.patch_px, file.l0_size, file.mpp) == ("uni_v1", 256, 512.0, 0.25)
    assert (file.mpp_source, file.side_um, file.name) == ("objective-power", 128.0, "uni_v1/48")
    assert file.dimensions == (14 * 512, 14 * 512)


def test_a_file_of_clam_tells_nothing_but_its_grid(tmp_path):
    write_clam(path := tmp_path / "a.h5", *slide_arrays(0, 0))
    with pytest.raises(MissingMppError, match="give mpp"):
        read_features(path, encoder="resnet50")
    with pytest.raises(SlideOpenError, match="feature_encoder"):
        read_features(path, mpp=0.25)
    file = read_features(path, encoder="resnet50", mpp=0.25)
    assert (file.l0_size, file.side_um, file.mpp_source, file.encoder) == (512.0, 128.0, "given", "resnet50")


@pytest.mark.parametrize("power", [0, -40, 4000, np.nan])
def test_an_absurd_magnification_tells_nothing(tmp_path, power):
    write_trident(path := tmp_path / "features_a" / "a.h5", *slide_arrays(0, 0), power=power)
    with pytest.raises(MissingMppError, match="which no scanner gives; give mpp"):
        read_features(path)
    assert read_features(path, mpp=0.25).mpp_source == "given"


def test_a_given_scale_fills_in_and_an_override_replaces(trident, tmp_path):
    path = trident / "features_uni_v1" / "k1-2.h5"  # 40x
    assert read_features(path, mpp=0.5).mpp == 0.25
    file = read_features(path, override_mpp=0.5)
    assert (file.mpp, file.mpp_source, file.side_um) == (0.5, "override", 256.0)
    index = sish.Index.create_for_features(tmp_path / "a.sish", path, override_mpp=0.5)
    report = index.add_features(path, override_mpp=0.5, show_progress=False)
    assert report.summary() == "1 added" and index.slides[0].mpp_source == "override"
    assert index.search(path, k=1).query.mpp == 0.5, "as it was added"
    again = index.add_features(path, replace=True, show_progress=False)
    assert again.replaced == ["k1-2"] and index.slides[0].mpp == 0.5


def test_an_add_of_features_says_where_a_given_scale_was_not_used(trident, tmp_path):
    index = sish.Index.create_for_features(tmp_path / "a.sish", trident, mpp=0.5)
    report = index.add_features(trident, mpp=0.5, show_progress=False)
    assert len(report.own_scale) == 12 and {row.mpp for row in index.slides} == {0.25}


def test_the_encoder_in_the_file_comes_before_the_folder(tmp_path):
    write_trident(path := tmp_path / "features_old" / "a.h5", *slide_arrays(0, 0), encoder="new")
    assert read_features(path, encoder="given").encoder == "new"


def test_coordinates_alone_are_passed_over(trident):
    assert len(find_feature_files(trident)) == 12
    with pytest.raises(SlideOpenError, match="without feature files"):
        find_feature_files(trident / "patches")


def test_a_name_that_is_too_long_is_one_line():
    with pytest.raises(SlideOpenError, match="no such file or folder"):
        find_feature_files(f"{'a' * 300}.h5")


@pytest.mark.parametrize(
    ("datasets", "match"),
    [
        ({"features": np.zeros((3, 4))}, "coords none; want"),
        ({"features": np.zeros((3, 4)), "coords": np.zeros((2, 2))}, r"\(3, 4\), coords \(2, 2\)"),
        ({"features": np.zeros((2, 3, 4)), "coords": np.zeros((4, 2))}, r"want \(N, F\)"),
        ({"features": np.full((2, 4), np.nan), "coords": [[0, 0], [0, 9]]}, "NaN"),
        ({"features": np.zeros((1, 4)), "coords": [[0, 0]]}, "size of its patches"),
    ],
)
def test_other_files_are_refused_on_one_line(tmp_path, datasets, match):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in datasets.items():
            file[name] = value
    with pytest.raises(SlideOpenError, match=match) as caught:
        read_features(tmp_path / "a.h5", encoder="a", mpp=0.5)
    assert "\n" not in str(caught.value)
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with pytest.raises(SlideOpenError, match="not a file of features"):
        read_features(tmp_path / "b.h5", encoder="a", mpp=0.5)


def test_a_mosaic_of_features_is_small_and_of_every_texture(trident):
    features, l0_xy = slide_arrays(2, 0, side=60)
    write_trident(path := trident.parent / "large" / "features_uni_v1" / "a.h5", features, l0_xy)
    file = read_features(path)
    rows = choose(file.features, file.l0_xy, recipe := file.recipe())
    assert np.array_equal(rows, choose(file.features, file.l0_xy, recipe)) and np.all(np.diff(rows) > 0)
    assert 0.03 * 3600 < len(rows) < 0.06 * 3600
    texture = (l0_xy[:, 0] // 512 // 4 + 2 * (l0_xy[:, 1] // 512 // 7)) % 4
    assert set(texture[rows]) == set(range(4))
    spread = l0_xy[rows] // (512 * 15)  # every quarter of a quarter of the slide
    assert len({tuple(place) for place in spread.tolist()}) == 16


def test_slides_of_one_kind_find_each_other(archive, trident):
    assert archive.recipe.weights == "features:uni_v1/48" and archive.recipe.mpp == 0.5
    for row in archive.slides:
        hits = archive.search(row.path, k=4, ranking="similarity")
        assert hits[0].slide_id == row.slide_id
        assert {hit.slide_id[:2] for hit in hits} == {row.slide_id[:2]}
        again = archive.search(row.slide_id, k=4, ranking="similarity")  # by id, without its file
        assert [(hit.slide_id, hit.score) for hit in again] == [(hit.slide_id, hit.score) for hit in hits]
    row = archive.slides[0]
    assert (row.mpp, row.mpp_source, row.patch_l0_px, row.label) == (0.25, "objective-power", 512.0, "kind 0")


def test_a_new_slide_finds_its_kind(archive, tmp_path):
    write_trident(path := tmp_path / "features_uni_v1" / "new.h5", *slide_arrays(1, 99))
    assert archive.search(path, k=1)[0].label == "kind 1"
    write_clam(path := tmp_path / "plain.h5", *slide_arrays(2, 99))
    assert archive.search(path, k=1, mpp=0.25)[0].label == "kind 2"


def test_other_features_are_refused(archive, tmp_path):
    features, l0_xy = slide_arrays(0, 0)
    write_trident(other := tmp_path / "features_uni_v2" / "a.h5", features, l0_xy)
    write_trident(longer := tmp_path / "features_uni_v1" / "b.h5", np.tile(features, 2), l0_xy)
    write_trident(wider := tmp_path / "features_uni_v1" / "c.h5", features, l0_xy, power=20)
    before = len(archive)
    for path, told in ((other, "uni_v2/48"), (longer, "uni_v1/96"), (wider, "256 um")):
        with pytest.raises(EncoderMismatchError, match=told):
            archive.add_features(path, show_progress=False)
        with pytest.raises(EncoderMismatchError, match=told):
            archive.search(path)
    with pytest.raises(EncoderMismatchError, match="keep one index"):
        sish.Index.create_for_features(tmp_path / "b.sish", tmp_path)
    assert len(archive) == before and not (tmp_path / "b.sish").exists()


def test_pixels_and_features_do_not_mix(archive, trident, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    with pytest.raises(QueryError, match="cannot encode pixels"):
        archive.search(picture, mpp=0.5)
    with pytest.raises(QueryError, match="cannot encode pixels"):
        archive.add(tmp_path)
    pixels = sish.Index.create(tmp_path / "pixels.sish")
    with pytest.raises(QueryError, match="index is of pixels"):
        pixels.search(trident / "features_uni_v1" / "k0-0.h5")
    with pytest.raises(EncoderMismatchError, match="index is of tissue"):
        pixels.add_features(trident, show_progress=False)
    with pytest.raises(QueryError, match="region"):
        archive.search(trident / "features_uni_v1" / "k0-0.h5", region=(0, 0, 10, 10))


def test_broken_files_are_skipped_and_reported(trident, tmp_path):
    for number in (0, 1):
        write_trident(tmp_path / "features_uni_v1" / f"{number}.h5", *slide_arrays(number, 0))
    write_trident(tmp_path / "features_uni_v1" / "empty.h5", *(part[:0] for part in slide_arrays(0, 0)))
    (tmp_path / "features_uni_v1" / "broken.h5").write_bytes(b"no HDF5")
    index = sish.Index.create_for_features(tmp_path / "a.sish", tmp_path)
    report = index.add_features(tmp_path, show_progress=False)
    assert (len(report.added), len(report.failed), report.no_tissue) == (2, 1, ["empty"])
    assert index.add_features(tmp_path, show_progress=False).already == ["0", "1", "empty"]
    with pytest.raises(QueryError, match="no tissue"):
        index.search("empty")
    with pytest.raises(QueryError, match="no patch"):
        index.search(tmp_path / "features_uni_v1" / "empty.h5")


def test_ids_of_indexed_slides_are_queries_of_every_index(tmp_path):
    write_slides(tmp_path / "slides", n_slides=2, side_um=500)
    index = sish.Index.create(tmp_path / "a.sish")
    index.add(tmp_path / "slides", show_progress=False)
    for row in index.slides:
        by_file, by_id = index.search(row.path, k=2), index.search(row.slide_id, k=2)
        assert [(hit.slide_id, hit.score) for hit in by_id] == [(hit.slide_id, hit.score) for hit in by_file]
        assert by_id.query.slide_id == row.slide_id


def test_from_the_command_line(trident, tmp_path, capsys):
    place, queries = str(tmp_path / "cli.sish"), trident / "features_uni_v1"
    assert main(["index", "add", "--index", place, "--features", str(trident), "--quiet"]) == 0
    assert "12 added" in capsys.readouterr().out
    assert main(["search", str(queries / "k2-1.h5"), "--index", place, "-k", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["slide_id"] == "k2-1"
    assert main(["search", "k2-1", "--index", place, "-k", "1"]) == 0
    assert "k2-1" in capsys.readouterr().out
    assert main(["index", "add", "--index", place]) == 1
    assert "want slides, or --features" in capsys.readouterr().err
