"""Heatmaps: every tissue tile against a query, on slides and on vectors."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import sish
from sish.cli.entry import main
from sish.encode import SlideCodes
from sish.errors import EncoderMismatchError, ParameterError, QueryError, SlideOpenError, UnknownSlideError
from sish.heatmap import Heatmap, colours
from sish.slides.mosaic import tile
from sish.slides.tissue import find_tissue

BITS = 1024


@pytest.fixture(scope="module")
def index(synthetic_slides, tmp_path_factory) -> sish.Index:
    """Three of the generated slides in small patches, of which their mosaics hold a part."""
    index = sish.Index.create(
        tmp_path_factory.mktemp("heat") / "a.sish", recipe=sish.Recipe(patch_px=128, n_clusters=1)
    )
    index.add(sorted(synthetic_slides.glob("*.tif"))[::3], show_progress=False)
    return index


@pytest.fixture(scope="module")
def tiles(index):
    """All tiles of the first slide."""
    return index.encode_tiles(index.slides[0].slide_id)


@pytest.fixture
def moved(index, tmp_path):
    """An index of one slide in a file of its own, and the file."""
    row = index.slides[0]
    file = tmp_path / "own.tif"
    shutil.copyfile(row.path, file)
    index = sish.Index.create(tmp_path / "one.sish")
    index.add(file, show_progress=False)
    return index, file


def all_distances(asked: np.ndarray, others: np.ndarray) -> np.ndarray:
    """By the book: the differing bits of every pair, (queries, others)."""
    one, two = np.unpackbits(asked, axis=1), np.unpackbits(others, axis=1)
    return (one[:, None] != two[None]).sum(axis=2)


def test_the_tiles_are_those_of_the_tissue_and_the_patches_of_the_mosaic_are_known(index, tiles):
    row, recipe = index.slides[0], index.recipe
    with sish.open_slide(row.path) as slide:
        wanted = tile(slide, find_tissue(slide), size_px=recipe.patch_px, mpp=recipe.mpp).l0_xy
    assert tiles.codes.l0_xy.tolist() == wanted.tolist()
    stored = index.patches(row.slide_id)
    assert len(tiles) > len(stored)
    place = {tuple(xy): number for number, xy in enumerate(wanted.tolist())}
    own = [place[tuple(xy)] for xy in stored.l0_xy.tolist()]
    assert (tiles.codes.barcodes[own] == stored.barcodes).all()


def test_other_tiles_are_encoded_as_a_search_would(index, tiles):
    row = index.slides[0]
    stored = {tuple(xy) for xy in index.patches(row.slide_id).l0_xy.tolist()}
    others = [i for i, xy in enumerate(tiles.codes.l0_xy.tolist()) if tuple(xy) not in stored]
    with sish.open_slide(row.path) as slide:
        again = index.encoder.encode_at(slide, tiles.codes.l0_xy[others])
    assert all_distances(tiles.codes.barcodes[others], again.barcodes).diagonal().max() <= 2


def test_a_heatmap_of_a_slide_against_itself_is_0_bits_at_its_mosaic(index, tiles):
    row = index.slides[0]
    heat = index.heatmap(row.slide_id, row.slide_id, tiles=tiles)
    stored = {tuple(xy): number for number, xy in enumerate(index.patches(row.slide_id).l0_xy.tolist())}
    for xy, bits, query_row in zip(heat.l0_xy.tolist(), heat.hamming, heat.query_row, strict=True):
        if tuple(xy) in stored:
            assert (bits, query_row) == (0, stored[tuple(xy)])
    assert heat.n_similar >= len(stored)
    assert heat.threshold == index.params.threshold and heat.n_bits == BITS


def test_distances_are_those_of_every_pair_by_the_book(index, tiles):
    other = index.slides[-1].slide_id
    heat = index.heatmap(index.slides[0].slide_id, other, tiles=tiles)
    wanted = all_distances(index.patches(other).barcodes, tiles.codes.barcodes)
    assert heat.hamming.tolist() == wanted.min(axis=0).tolist()
    assert heat.query_row.tolist() == wanted.argmin(axis=0).tolist()


def test_many_tiles_are_compared_in_parts(index, tiles, monkeypatch):
    other = index.slides[-1].slide_id
    whole = index.heatmap(index.slides[0].slide_id, other, tiles=tiles)
    monkeypatch.setattr("sish.distances._MOST", 3 * len(index.patches(other)))
    parts = index.heatmap(index.slides[0].slide_id, other, tiles=tiles)
    assert parts.hamming.tolist() == whole.hamming.tolist()
    assert parts.query_row.tolist() == whole.query_row.tolist()


def test_an_answer_is_a_query_that_is_not_encoded_again(index, tiles, monkeypatch):
    slide_id, file = index.slides[0].slide_id, index.slides[-1].path
    answer = index.search(file, search={"threshold": 77})
    monkeypatch.setattr("sish.index_insight.Question.encoded", None)
    heat = index.heatmap(slide_id, answer, tiles=tiles)
    monkeypatch.undo()
    assert heat.threshold == 77
    assert heat.hamming.tolist() == index.heatmap(slide_id, file, tiles=tiles).hamming.tolist()
    assert "codes" not in repr(answer) and "asked" not in answer.to_dict()


def test_a_region_and_an_image_are_queries(index, tiles):
    row = index.slides[0]
    x, y = index.patches(row.slide_id).l0_xy[0].tolist()
    side = round(row.patch_l0_px)
    region = index.heatmap(row.slide_id, row.slide_id, region=(x, y, side, side), tiles=tiles)
    assert region.query_row.max() == 0
    with sish.open_slide(row.path) as slide:
        pixels = slide.read((x, y), 128, 1.0)
    image = index.heatmap(row.slide_id, pixels, mpp=1.0, tiles=tiles)
    place = region.l0_xy.tolist().index([x, y])
    for heat in (region, image):
        assert heat.hamming[place] == heat.hamming.min() <= 2


def test_progress_is_told_and_ends_the_work(index):
    slide_id, told = index.slides[0].slide_id, []
    heat = index.heatmap(slide_id, slide_id, on_progress=lambda *done: told.append(done))
    total = len(heat) - len(index.patches(slide_id))
    assert told[0] == (0, total) and told[-1] == (total, total)

    class Enough(Exception):
        pass

    def stop(_done, _total):
        raise Enough

    with pytest.raises(Enough):
        index.heatmap(slide_id, slide_id, on_progress=stop)


def test_an_image_of_one_patch_is_one_tile(index, tmp_path):
    with sish.open_slide(index.slides[0].path) as slide:
        x, y = index.patches(index.slides[0].slide_id).l0_xy[0].tolist()
        Image.fromarray(slide.read((x, y), 200, 1.0)).save(tmp_path / "small.png")
    small = sish.Index.create(tmp_path / "small.sish")
    small.add(tmp_path / "small.png", mpp=1.0, show_progress=False)
    heat = small.heatmap("small", "small")
    assert heat.hamming.tolist() == [0] and heat.l0_xy.tolist() == [[0, 0]]


def test_what_cannot_be_read_is_refused(moved, index):
    own, file = moved
    with pytest.raises(UnknownSlideError, match="holds no slide 'nobody'"):
        own.heatmap("nobody", "own")
    with pytest.raises(QueryError, match="not of"):
        own.heatmap("own", index.search(index.slides[0].slide_id))
    with pytest.raises(QueryError, match="region="):
        own.heatmap("own", own.search("own"), region=(0, 0, 500, 500))
    shutil.copyfile(index.slides[-1].path, file)
    with pytest.raises(SlideOpenError, match="another file now") as changed:
        own.heatmap("own", "own")
    assert changed.value.slide_id == "own"
    file.unlink()
    with pytest.raises(SlideOpenError):
        own.heatmap("own", "own")


def test_tiles_of_another_slide_or_encoder_are_refused(index, tiles, moved):
    with pytest.raises(QueryError, match="not those of"):
        index.heatmap(index.slides[1].slide_id, index.slides[1].slide_id, tiles=tiles)
    short = SlideCodes(np.zeros((1, 1), np.int64), np.zeros((1, 8), np.uint8), None)
    with pytest.raises(EncoderMismatchError, match="64"):
        Heatmap.of(tiles, short, threshold=9)
    own, _ = moved
    ours = own.encode_tiles("own")
    own.recalibrate(show_progress=False)
    if own.fingerprint != ours.encoder:
        with pytest.raises(EncoderMismatchError, match="of encoder"):
            own.heatmap("own", "own", tiles=ours)


def vectors_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 48)).astype(np.float32)


@pytest.mark.parametrize("rerank", [None, "int8", "float16"])
def test_vectors_with_places_are_compared_as_they_are_stored(tmp_path, rerank):
    vectors, places = vectors_of(90), np.arange(180).reshape(90, 2) * 256
    index = sish.Index.from_vectors(
        tmp_path / "v.sish", vectors, np.repeat(["a", "b", "c"], 30), l0_xy=places, mpp=0.5,
        patch_l0_px=512, rerank=rerank, show_progress=False,
    )  # fmt: skip
    asked = vectors_of(5, seed=1)
    heat = index.heatmap("b", asked)
    assert heat.l0_xy.tolist() == places[30:60].tolist() and heat.patch_l0_px == 512
    codes = index.search(asked).asked.codes
    bits = all_distances(codes.barcodes, index.patches("b").barcodes)
    if rerank is not None:
        mine = index.encoder.rerank.decode(codes.vectors)
        theirs = index.patches("b").vectors
        cosine = mine @ theirs.T / np.outer(*(np.linalg.norm(v, axis=1) for v in (mine, theirs)))
        bits = np.arccos(np.clip(cosine, -1, 1)) * BITS / np.pi
    assert np.abs(heat.hamming - bits.min(axis=0)).max() <= (0 if rerank is None else 1)
    found = {
        hit.slide_id: hit.patches[0].hamming for hit in index.search(asked, k=3, search={"threshold": BITS})
    }
    assert found["b"] == heat.hamming.min()
    with pytest.raises(QueryError, match="no picture"):
        heat.draw()


def test_vectors_without_places_are_refused(tmp_path):
    index = sish.Index.from_vectors(
        tmp_path / "v.sish", vectors_of(60), np.repeat(["a", "b"], 30), show_progress=False
    )
    with pytest.raises(QueryError, match="without places"):
        index.heatmap("a", "b")


def test_the_picture_shows_tiles_and_legend(index, tiles):
    row = index.slides[0]
    heat = index.heatmap(row.slide_id, row.slide_id, tiles=tiles)
    picture = heat.draw(max_px=300)
    with sish.open_slide(row.path) as slide:
        step = max(slide.bounds[2:]) / 300
        plain = slide.overview(step * slide.mpp)[:300, :300]
    left = (picture.width - plain.shape[1]) // 2
    drawn = np.asarray(picture)[: plain.shape[0], left : left + plain.shape[1]].astype(float)
    centres = ((heat.l0_xy + heat.patch_l0_px / 2) / step).astype(int)
    for (x, y), colour in zip(centres, colours(heat), strict=True):
        if y < plain.shape[0] and x < plain.shape[1]:
            assert np.abs(drawn[y, x] - (0.4 * plain[y, x] + 0.6 * colour)).max() < 3
    near, far = colours(heat)[heat.hamming.argmin()], colours(heat)[heat.hamming.argmax()]
    assert near.sum() > far.sum()
    assert (drawn[0, 0] == plain[0, 0]).all() and picture.height > plain.shape[0]
    with pytest.raises(ParameterError, match="max_px=0"):
        heat.draw(max_px=0)


def test_the_command_writes_the_picture_and_tells(index, tmp_path, capsys):
    one, two = index.slides[0], index.slides[1]
    picture = tmp_path / "heat.png"
    words = [
        "heatmap",
        one.slide_id,
        "--query",
        two.slide_id,
        "--index",
        str(index.path),
        "-o",
        str(picture),
    ]
    assert main(words) == 0
    heat = index.heatmap(one.slide_id, two.slide_id)
    told = capsys.readouterr().out
    assert (
        f"{heat.n_similar} of {len(heat)} tiles" in told and f"nearest at {heat.hamming.min()} bits" in told
    )
    assert Image.open(picture).size == heat.draw().size
    assert main([*words, "--json", "--region", "0", "0", "1400", "1400"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert set(plain) >= {"patch_l0_px", "n_bits", "threshold", "xy", "hamming", "query_row"}
    assert main([*words[:-1], str(tmp_path / "heat.txt")]) == 1
    assert "want .png or .jpg" in capsys.readouterr().err
