"""Slide-level embeddings: one vector a slide, from arrays and from files of slide encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sish
from sish.cli import main
from sish.errors import SlideOpenError
from sish.feature_files import read_features

h5py = pytest.importorskip("h5py")
WIDTH = 64


@pytest.fixture(scope="module")
def vectors():
    """Vectors of 90 slides of 3 diagnoses, with a large common part."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(3, WIDTH))
    return (centre[np.arange(90) % 3] + rng.normal(size=(90, WIDTH)) + 4).astype(np.float32)


@pytest.fixture(scope="module")
def folder(vectors, tmp_path_factory):
    """The same as a folder of TRIDENT's, with one slide that has no tissue."""
    place = tmp_path_factory.mktemp("trident") / "slide_features_titan"
    place.mkdir()
    for number, vector in enumerate(vectors):
        with h5py.File(place / f"s{number:02}.h5", "w") as file:
            file["features"] = vector
    with h5py.File(place / "empty.h5", "w") as file:
        file["features"] = np.empty(0, np.float32)
    return place


def angles(vectors: np.ndarray, query: np.ndarray) -> dict[str, float]:
    """The angle of each slide to a query in bits, 1,024 for a half turn; both centred on the archive."""
    one, other = vectors - vectors.mean(axis=0), query - vectors.mean(axis=0)
    cosine = one @ other / np.linalg.norm(one, axis=1) / np.linalg.norm(other)
    return {f"s{number:02}": angle for number, angle in enumerate(np.arccos(cosine) * 1024 / np.pi)}


@pytest.fixture(scope="module")
def from_arrays(vectors, tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / "a.sish"
    ids = [f"s{number:02}" for number in range(90)]
    return sish.Index.from_vectors(path, vectors, ids, feature_encoder="titan", show_progress=False)


def test_slides_are_in_the_order_of_their_cosines(from_arrays, vectors):
    assert from_arrays.rerank == "float16"
    for number in range(0, 90, 7):
        query = vectors[number] + np.float32(0.1)
        hits, angle = from_arrays.search(query[None], k=10, ranking="similarity"), angles(vectors, query)
        found = [angle[hit.slide_id] for hit in hits]
        assert np.abs(np.array(found) - sorted(angle.values())[:10]).max() <= 1.5  # ties within a bit
        assert [hit.median_distance for hit in hits] == pytest.approx(found, abs=1.0)
    hits = from_arrays.search("s05", k=90)
    assert len(hits) == 90 and hits[0].slide_id == "s05" and hits[0].score == 1.0


def test_the_files_of_a_slide_encoder_give_the_index_of_the_array(folder, from_arrays, tmp_path):
    index = sish.Index.create_for_features(tmp_path / "a.sish", folder)
    report = index.add_features(folder, show_progress=False)
    assert (len(report.added), report.no_tissue, report.failed) == (90, ["empty"], [])
    assert index.recipe.weights == f"features:titan/{WIDTH}" and index.rerank == "float16"
    rows = {row.slide_id: row for row in index.slides}
    assert rows["empty"].n_patches == 0 and rows["s01"].n_patches == 1
    for name in ("s00", "s44"):
        by_id, by_file = index.search(name, k=5), index.search(folder / f"{name}.h5", k=5)
        assert by_id.hits == by_file.hits and by_id[0].patches[0].xy is None and by_id[0].mpp is None
        wanted = [hit.slide_id for hit in from_arrays.search(name, k=5)]
        assert [hit.slide_id for hit in by_id] == wanted
    with pytest.raises(sish.QueryError, match="got no patch"):
        index.search(folder / "empty.h5")


def test_few_slides_and_slides_without_tissue_alone(folder, tmp_path):
    with pytest.raises(SlideOpenError, match="no file with features"):
        sish.Index.create_for_features(tmp_path / "a.sish", folder / "empty.h5")
    index = sish.Index.create_for_features(
        tmp_path / "b.sish", [folder / "s00.h5", folder / "s01.h5"], rerank=None
    )
    assert index.rerank is None
    index.add_features([folder / "s00.h5"], show_progress=False)
    assert index.search("s00", k=1)[0].score == 1.0


def test_what_a_file_of_a_slide_encoder_may_hold(tmp_path):
    def file(name: str, **data) -> Path:
        with h5py.File(tmp_path / f"{name}.h5", "w") as made:
            for key, value in data.items():
                made[key] = value
        return tmp_path / f"{name}.h5"

    found = read_features(file("a", features=np.ones(8), coords=np.zeros((3, 2))), encoder="prism")
    assert (found.features.shape, found.l0_xy, found.encoder, found.mpp) == ((1, 8), None, "prism", 0.0)
    with pytest.raises(SlideOpenError, match="NaN or infinity"):
        read_features(file("b", features=np.full(8, np.nan)), encoder="prism")
    with pytest.raises(SlideOpenError, match="coords none"):
        read_features(file("c", features=np.ones((3, 8))), encoder="prism")
    with pytest.raises(SlideOpenError, match="nothing tells what made"):
        read_features(file("d", features=np.ones(8)))


def test_other_encoders_are_refused_by_name(folder, from_arrays, tmp_path):
    other = tmp_path / "slide_features_prism"
    other.mkdir()
    (other / "new.h5").write_bytes((folder / "s00.h5").read_bytes())
    with pytest.raises(sish.EncoderMismatchError, match="features of prism/64"):
        from_arrays.add_features(other, show_progress=False)


def test_a_vector_of_a_slide_joins_no_index_of_patches_whatever_their_size(folder, tmp_path):
    """256 um is the size of a patch that nobody tells otherwise."""
    patches = tmp_path / "patches.h5"
    with h5py.File(patches, "w") as file:
        file["features"] = np.random.default_rng(1).normal(size=(90, WIDTH)).astype(np.float32)
        file["coords"] = np.stack(np.divmod(np.arange(90), 9), axis=1) * 256
    told = {"feature_encoder": "titan", "mpp": 1.0}
    index = sish.Index.create_for_features(tmp_path / "a.sish", patches, **told)
    index.add_features(patches, show_progress=False, **told)
    with pytest.raises(sish.EncoderMismatchError, match="index is of patches"):
        index.add_features(folder / "s00.h5", show_progress=False)


def test_an_index_of_arrays_is_asked_by_files_of_patches_of_any_size(from_arrays, tmp_path):
    for step in (256, 512):
        path = tmp_path / f"{step}.h5"
        with h5py.File(path, "w") as file:
            file["features"] = np.random.default_rng(2).normal(size=(12, WIDTH)).astype(np.float32) + 4
            file["features"].attrs["encoder"] = "titan"
            file["coords"] = np.stack(np.divmod(np.arange(12), 4), axis=1) * step
        assert len(from_arrays.search(path, k=3, mpp=0.5)) == 3


def test_the_command_line_reads_them_and_tells_how_vectors_are_kept(folder, tmp_path, capsys):
    index = str(tmp_path / "a.sish")
    assert main(["index", "add", "--features", str(folder), "--index", index, "--quiet"]) == 0
    assert main(["index", "info", "--index", index]) == 0
    assert f"by float16 vectors of {WIDTH} numbers, {2 * WIDTH} bytes a patch" in capsys.readouterr().out
    assert main(["search", "s03", "--index", index, "-k", "2"]) == 0
    assert "s03: 1 patch" in capsys.readouterr().out
    again = ["index", "add", "--features", str(folder), "--index", index, "--rerank", "int8", "--quiet"]
    assert main(again) == 1
    assert "was made with rerank='float16'" in capsys.readouterr().err
    bytes_too = ["index", "create", "--index", str(tmp_path / "b.sish"), "--rerank", "int8"]
    assert main(bytes_too) == 0 and sish.Index.open(tmp_path / "b.sish").rerank == "int8"
