"""The retrieval benchmark, on a folder of its own: what it says is what a plain search finds."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import retrieval
from benchmarks.baselines import colour_histogram, local_binary_patterns, nearest_images, roots, unit
from benchmarks.datasets import load_dataset
from benchmarks.retrieval import METHODS, differences, main, measure
from benchmarks.watched import Memory, Watched
from sish.calibration import Calibration
from sish.encode import SlideEncoder
from sish.errors import ParameterError
from sish.metrics import majority_label
from sish.recipe import Recipe
from sish.slides.slide import open_slide

COLOURS = {"pink": (200, 120, 170), "violet": (130, 90, 180), "red": (190, 70, 90)}


def paint(label: str, seed: int, side: int) -> np.ndarray:
    """A texture of the label's colour, whose grain depends on the label too."""
    random = np.random.default_rng(seed)
    grain = 4 << list(COLOURS).index(label)
    coarse = random.integers(-50, 50, (side // grain + 1, side // grain + 1, 1))
    blobs = np.kron(coarse, np.ones((grain, grain, 1), int))[:side, :side]
    return np.clip(np.array(COLOURS[label]) + blobs, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """36 tiles of three labels, in pairs that are equal but for a turn: a pair never finds itself."""
    folder = tmp_path_factory.mktemp("tiles") / "painted"
    folder.mkdir()
    lines = ["path,label,source_tile"]
    for number in range(36):
        label, pair = list(COLOURS)[number % 3], number // 6
        pixels = np.rot90(paint(label, 10 * pair + number % 3, 64), number % 6 // 3)
        Image.fromarray(pixels).save(folder / f"t{number}.png")
        lines.append(f"t{number}.png,{label},{label}{pair}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def rows(tiles):
    return measure(load_dataset(tiles))


def test_every_method_has_its_rows(rows):
    single = [name for name in METHODS if name not in ("sish", "sish-similarity")]
    assert [row["method"] for row in rows] == ["sish", "sish", *single]
    assert [row["search"] for row in rows] == ["tree", "exhaustive", "tree"] + ["exhaustive"] * 5
    for row in rows:
        assert (row["dataset"], row["n"], row["queries"], row["short"]) == ("painted", 36, 36, 0)
        assert all(0 <= row[name] <= 1 for name in row["ci"])
        assert row["build_s"] > 0 and row["bytes_per_item"] > 0
    by_method = {row["method"]: row for row in rows}
    assert by_method["colour-histogram"]["mmv5"] == 1.0
    assert by_method["random"]["mmv5"] < 0.7


def test_the_librarys_row_is_what_comparing_all_barcodes_gives(tiles, rows):
    dataset, encoder = load_dataset(tiles), SlideEncoder(Recipe())
    barcodes = []
    for item in dataset.database:
        with open_slide(item.path, mpp=1.0) as slide:
            barcodes.append(encoder.encode(encoder.prepare(slide)).barcodes[0])
    distance = np.bitwise_count(np.array(barcodes)[:, None] ^ np.array(barcodes)[None]).sum(axis=2)
    right, kinds = [], sorted(COLOURS)
    for query, row in zip(dataset.queries, distance, strict=True):
        order = [i for i in np.argsort(row, kind="stable") if dataset.database[i].group != query.group]
        right.append(majority_label([dataset.database[i].label for i in order[:5]]) == query.label)
    means = [
        np.mean([ok for ok, q in zip(right, dataset.queries, strict=True) if q.label == k]) for k in kinds
    ]
    for row in rows[:2]:
        assert row["mmv5"] == pytest.approx(np.mean(means))


def test_the_tree_is_told_against_the_exhaustive_search(rows):
    (line,) = differences(rows)
    assert line.startswith("sish: mmv5 by tree +0.0000 against exhaustive, in ")


def test_a_patch_is_encoded_once_whatever_the_methods(tiles, monkeypatch):
    calls = []
    one = Memory._one

    def counted(self, image, **options):
        before = self.spent
        found = one(self, image, **options)
        calls.append(self.spent > before)
        return found

    monkeypatch.setattr(Memory, "_one", counted)
    measure(load_dataset(tiles).sample(6), ["sish", "sish-paper-key", "features"])
    assert (len(calls), sum(calls)) == (12, 6)


def test_the_command_line(tiles, tmp_path, capsys):
    split = tmp_path / "split"
    lines = ["path,label,split"]
    for number in range(12):
        lines.append(
            f"{tiles}/t{number}.png,{list(COLOURS)[number % 3]},{'valid' if number > 8 else 'train'}"
        )
    split.mkdir()
    (split / "labels.csv").write_text("\n".join(lines))
    out = tmp_path / "rows.json"
    assert main([str(split), "--json", str(out), "--mpp", "1", "--methods", "sish", "random"]) == 0
    found = json.loads(out.read_text())
    assert [(row["method"], row["n"], row["queries"]) for row in found] == [
        ("sish", 9, 3), ("sish", 9, 3), ("random", 9, 3)
    ]  # fmt: skip
    assert found[0]["encoder"].startswith(f"{Recipe().weights}-"), "the default of the library"
    assert "| split | sish | tree | 9 | 3 |" in capsys.readouterr().out
    kept = [str(split), "--json", str(out), "--mpp", "1", "--methods", "sish", "--rerank", "int8"]
    assert main(kept) == 0
    assert [row["rerank"] for row in json.loads(out.read_text())] == ["int8", "int8"]
    assert found[0]["rerank"] is None
    assert main([str(split), "--methods", "magic"]) == 2
    assert "error: got method 'magic'" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 2
    assert "not a folder" in capsys.readouterr().err


def test_within_site_every_method_finds_the_queries_own_site_only(tiles, tmp_path, capsys):
    """Sites split each label, and rows of another site would be refused by `row_of`."""
    lines = ["path,label,site"]
    lines += [f"{tiles}/t{n}.png,{list(COLOURS)[n % 3]},{'xy'[n // 18]}" for n in range(36)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    words = [str(tmp_path), "--within", "site", "--out", str(out)]
    assert main([*words, "--methods", "sish", "features", "colour-histogram", "random"]) == 0
    printed = capsys.readouterr().out
    assert "| MV@5 by site | queries | failed | findable |" in printed and "| x | 18 | 0 | 18 |" in printed
    rows = json.loads((out / "rows.json").read_text())
    assert rows[0]["per_query"]["relevant"] == [5] * 36
    assert [group["site"] for group in rows[0]["by_site"]] == ["x", "y"]
    with (out / "by_label.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["label"] for row in table[:3]] == sorted(COLOURS) and len(table) == 3 * len(rows)
    with (out / "rows.csv").open(newline="") as file:
        assert [float(row["mmv5"]) for row in csv.DictReader(file)] == [row["mmv5"] for row in rows]
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert main([str(tiles), "--within", "site"]) == 2
    assert "36 of 36 queries have no site" in capsys.readouterr().err


def test_images_of_several_patches_are_ranked_both_ways(tmp_path):
    lines = ["path,label,mpp"]
    for number in range(8):
        label = list(COLOURS)[number % 2]
        Image.fromarray(paint(label, number, 400)).save(tmp_path / f"f{number}.png")
        lines.append(f"f{number}.png,{label},1.0")
    Image.fromarray(np.full((400, 400, 3), 250, np.uint8)).save(tmp_path / "blank.png")
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "blank.png,pink,1.0"]))
    found = measure(load_dataset(tmp_path), ["sish", "sish-similarity", "code-histogram"])
    assert [row["method"] for row in found] == [
        "sish", "sish", "sish-similarity", "sish-similarity", "code-histogram"
    ]  # fmt: skip
    assert found[0]["no_tissue"] == 1
    assert found[2]["short"] == 1, "the blank one finds nothing"
    assert [row["failed"] for row in found] == [1] * 5, "and is a miss, whatever the method"
    assert [row["per_query"]["mv1"][-1] for row in found] == [""] * 5
    assert found[0]["patches"] == 8 * 4


def test_several_labels(tiles, tmp_path):
    lines = ["path,labels,patient_id"]
    lines += [f"{tiles}/t{n}.png,{'Mass|Edema' if n % 3 else 'No Finding'},{n // 2}" for n in range(14)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    row, exhaustive = measure(load_dataset(tmp_path), ["sish"])
    assert row["mmv5"] is None and 0 < row["avg5"] <= 2
    assert (row["avg5"], row["avg10"]) == (exhaustive["avg5"], exhaustive["avg10"])
    with pytest.raises(ParameterError, match="magic"):
        measure(load_dataset(tmp_path), ["magic"])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_baselines_against_counting(width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    colours = np.zeros((8, 8, 8))
    for red, green, blue in pixels.reshape(-1, 3) // 32:
        colours[red, green, blue] += 1
    assert np.array_equal(colour_histogram(pixels), colours.ravel())
    grey = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
    wanted = np.zeros((3, 10))
    for ring, r in enumerate((1, 2, 4)):
        for y in range(r, height - r):
            for x in range(r, width - r):
                ring_of = [(-r, -r), (-r, 0), (-r, r), (0, r), (r, r), (r, 0), (r, -r), (0, -r)]
                bits = [grey[y + dy, x + dx] >= grey[y, x] for dy, dx in ring_of]
                changes = sum(a != b for a, b in zip(bits, bits[1:] + bits[:1], strict=True))
                wanted[ring, sum(bits) if changes <= 2 else 9] += 1
    assert np.array_equal(local_binary_patterns(pixels), wanted.ravel())


def test_nearest_images_leaves_out_the_group(tiles):
    dataset = load_dataset(tiles)
    vectors = unit(np.random.default_rng(0).normal(size=(36, 4)))
    places = {item.item_id: place for place, item in enumerate(dataset.database)}
    found, spent = nearest_images(dataset, lambda item: places[item.item_id], vectors, 5)
    assert len(spent) == 36
    for query, ids in zip(dataset.queries, found, strict=True):
        allowed = [item for item in dataset.database if item.group != query.group]
        own = vectors[places[query.item_id]]
        allowed.sort(key=lambda item: -float(vectors[places[item.item_id]] @ own))
        assert ids == [item.item_id for item in allowed[:5]]


def test_roots_and_units_have_length_one():
    assert np.linalg.norm(roots([np.array([3.0, 1.0, 0.0])])) == pytest.approx(1)
    assert np.linalg.norm(unit(np.array([[3.0, 1.0, 0.0]]))) == pytest.approx(1)
    assert retrieval.K == 5


def test_images_of_which_nothing_is_known_are_nobody_s_nearest():
    rows = unit(np.array([[1.0, 0], [0.2, 1.0], [0, 0], [0, 0]]))
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    assert distance[0, 1] < distance[0, 2] == pytest.approx(np.sqrt(2))
    assert distance[2, 3] == 0


def test_features_are_compared_as_barcodes_are_made_of_them():
    """Each part centred and scaled by what was measured on the archive, then brought to its length."""
    random = np.random.default_rng(0)
    patches = random.integers(0, 255, (9, 64, 64, 3), np.uint8) // random.integers(
        1, 5, (9, 1, 1, 3), np.uint8
    )
    plain = SlideEncoder(Recipe())
    features = plain.model.features(patches)
    calibration = Calibration.learn(features, plain.model.parts, plain.model.statistics)
    watched = Watched.of(SlideEncoder(Recipe(), calibration=calibration), None, {})
    start, parts = 0, []
    for part in plain.model.parts:
        own = slice(start, start := start + part.features)
        values = (features[:, own] - calibration.centre[own]) / calibration.spread[own]
        parts.append(part.weight * values / np.linalg.norm(values, axis=1, keepdims=True))
    wanted = np.concatenate(parts, axis=1)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = watched._before_bits(features)
    assert found @ found.T == pytest.approx(wanted @ wanted.T, abs=1e-4)
