"""The map of an archive: means by the book, neighbourhoods, and archives of every size."""

import numpy as np
import pytest

import sish
from sish import slide_map
from sish.errors import ParameterError
from sish.index.barcode import mean_bits
from sish.slide_map import layout


def archive(folder, *, slides=60, patches=5, seed=0, shuffled=False):
    """An index of vectors about six centres, one for each label; slide n is of label n % 6."""
    rng = np.random.default_rng(seed)
    own = np.repeat(np.arange(slides), patches)
    if shuffled:
        own = rng.permutation(own)
    vectors = rng.normal(size=(6, 40))[own % 6] + 0.6 * rng.normal(size=(len(own), 40))
    names = np.array([f"s{number:04}" for number in range(slides)])
    labels = {name: f"kind {number % 6}" for number, name in enumerate(names) if number}
    return sish.Index.from_vectors(
        folder, vectors.astype(np.float32), names[own], labels=labels, show_progress=False
    )


def state_of(index):
    return index.state_and_view()[0]


def means_of(index) -> np.ndarray:
    """By the book: the mean bits of each slide."""
    rows = [np.unpackbits(index.patches(row.slide_id).barcodes, axis=1) for row in index.slides]
    return np.array([bits.mean(axis=0) for bits in rows if len(bits)])


def neighbours(places: np.ndarray, k: int) -> np.ndarray:
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1)[:, :k]


@pytest.mark.parametrize("width", [1, 3, 128])
def test_mean_bits_are_those_of_every_run(width):
    rng = np.random.default_rng(width)
    barcodes, lengths = rng.integers(0, 256, (30, width), dtype=np.uint8), np.array([1, 20, 2, 7])
    found = mean_bits(barcodes, np.cumsum(lengths))
    runs = np.split(np.unpackbits(barcodes, axis=1), np.cumsum(lengths)[:-1])
    assert found == pytest.approx(np.array([run.mean(axis=0) for run in runs]))
    assert found.dtype == np.float32
    assert mean_bits(barcodes[:0], np.array([], np.int64)).shape == (0, 8 * width)


@pytest.mark.parametrize("ends", [[10, 10, 30], [10, 20], [20, 10, 30], [31]])
def test_runs_that_are_not_those_of_the_barcodes_are_refused(ends):
    with pytest.raises(ParameterError, match="30 barcodes"):
        mean_bits(np.zeros((30, 8), np.uint8), np.array(ends))


def test_slides_that_look_alike_lie_together(tmp_path):
    index = archive(tmp_path / "a.sish")
    found = layout(state_of(index))
    assert found.method == "t-sne" and found.generation == state_of(index).generation
    assert found.slide_ids == tuple(row.slide_id for row in index.slides)
    assert found.label == tuple(row.label for row in index.slides) and found.label[0] is None
    assert found.xy.min() >= 0 and found.xy.max() <= 1 and np.ptp(found.xy, axis=0).max() == pytest.approx(1)
    kind = np.arange(60) % 6
    assert (kind[neighbours(found.xy, 5)] == kind[:, None]).mean() > 0.9


def test_the_same_state_gives_the_same_map(tmp_path):
    index = archive(tmp_path / "a.sish")
    one, two = layout(state_of(index)), sish.Index.open(index.path).slide_map()
    assert (one.xy == two.xy).all() and one.slide_ids == two.slide_ids


def test_the_axes_are_those_of_the_means(tmp_path, monkeypatch):
    index = archive(tmp_path / "a.sish", shuffled=True)
    monkeypatch.setattr(slide_map, "find_spec", lambda _name: None)
    found = layout(state_of(index))
    assert found.method == "pca"
    centred = means_of(index) - means_of(index).mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    wanted = centred @ axes[:2].T
    wanted *= np.sign((wanted * (found.xy - found.xy.mean(axis=0))).sum(axis=0))
    middle = (wanted.min(axis=0) + wanted.max(axis=0)) / 2
    assert found.xy == pytest.approx(0.5 + (wanted - middle) / np.ptp(wanted, axis=0).max(), abs=1e-3)


def test_of_many_slides_some_are_laid_out_and_the_others_lie_among_them(tmp_path, monkeypatch):
    index = archive(tmp_path / "a.sish", slides=90)
    monkeypatch.setattr(slide_map, "LAID_OUT", 40)
    monkeypatch.setattr(slide_map, "_TOGETHER", 7)
    asked = []
    monkeypatch.setattr(
        slide_map,
        "_t_sne",
        lambda places, seed, own=slide_map._t_sne: asked.append(len(places)) or own(places, seed),
    )
    found = layout(state_of(index))
    assert asked == [40] and len(found) == 90
    kind = np.arange(90) % 6
    assert (kind[neighbours(found.xy, 5)] == kind[:, None]).mean() > 0.9


def test_changed_archives_show_what_they_hold(tmp_path):
    index = archive(tmp_path / "a.sish", slides=20)
    index.remove(["s0003", "s0019"])
    rng = np.random.default_rng(9)
    index.add_vectors(
        rng.normal(size=(8, 40)).astype(np.float32), np.repeat(["new", "s0004"], 4), replace=True,
        show_progress=False,
    )  # fmt: skip
    found = layout(state_of(index))
    assert set(found.slide_ids) == {row.slide_id for row in index.slides}
    assert len(set(found.slide_ids)) == len(found) == 19 and "s0003" not in found.slide_ids
    slides = slide_map._Slides.of(state_of(index))
    everything = np.concatenate(list(slides.all_means()))
    order = {name: number for number, name in enumerate(row.slide_id for row in index.slides)}
    assert everything == pytest.approx(means_of(index)[[order[name] for name in found.slide_ids]], abs=1e-6)
    some = np.array([0, 5, 17, 18])
    assert slides.means(some) == pytest.approx(everything[some])


@pytest.mark.parametrize("slides", [1, 2, 9, 10])
def test_small_archives_have_a_map(tmp_path, slides):
    found = layout(state_of(archive(tmp_path / "a.sish", slides=slides)))
    assert found.xy.shape == (slides, 2) and np.isfinite(found.xy).all()
    assert found.method == ("pca" if slides < 10 else "t-sne")
    assert found.xy.min() >= 0 and found.xy.max() <= 1
    if slides == 1:
        assert found.xy.tolist() == [[0.5, 0.5]]


def test_an_empty_archive_and_slides_without_patches(tmp_path):
    from PIL import Image

    index = sish.Index.create(tmp_path / "a.sish")
    assert layout(state_of(index)).to_dict() == {
        "method": "pca", "generation": state_of(index).generation, "slide_ids": [], "xy": [], "label": []
    }  # fmt: skip
    Image.new("RGB", (600, 600), "white").save(tmp_path / "white.png")
    index.add(tmp_path / "white.png", mpp=1.0, show_progress=False)
    assert len(index) == 1 and len(layout(state_of(index))) == 0
    noise = np.random.default_rng(0).integers(60, 200, (600, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "grey.png")
    index.add(tmp_path / "grey.png", mpp=1.0, show_progress=False)
    assert layout(state_of(index)).to_dict()["slide_ids"] == ["grey"]


def test_equal_slides_lie_at_one_place(tmp_path):
    vectors = np.tile(np.random.default_rng(0).normal(size=(1, 40)).astype(np.float32), (12, 1))
    vectors[6:] *= -1
    index = sish.Index.from_vectors(
        tmp_path / "a.sish", vectors, [f"s{number}" for number in range(12)], show_progress=False
    )
    assert np.isfinite(layout(state_of(index)).xy).all()
