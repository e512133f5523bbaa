"""The benchmark of systems, on twelve pictures and an encoder that takes no time."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from plain_encoder import PlainEncoder

from benchmarks import systems, systems_tasks
from benchmarks.nonnegative import CODES, DEVIATIONS, NonNegative
from benchmarks.systems_tasks import ENTRIES, TASKS, Bench, read_task
from benchmarks.watched import Memory
from sish.systems.base import System
from sish.systems.lesions.similarity import LesionDescriber, LesionDescription
from sish.vqvae.tissue_network import TissueNetwork


@pytest.fixture
def data(pictures, tmp_path, monkeypatch):
    """Folders `bach` and `pcam` of the same pictures, and the fast encoder in place of the shipped one."""
    monkeypatch.setattr("sish.vqvae.pretrained.load_encoder", lambda: PlainEncoder())
    monkeypatch.setattr(systems_tasks, "NonNegative", PlainEncoder)
    for name in ("bach", "pcam"):
        folder = tmp_path / name
        folder.mkdir()
        rows = [("path", "label", "patient_id")]
        for item in pictures:
            shutil.copy(item.path, folder / item.path.name)
            rows.append((item.path.name, item.label, item.group))
        with (folder / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return tmp_path


def test_one_command_writes_a_table_a_task(data, capsys):
    out = data / "out"
    shutil.rmtree(data / "bach")
    assert systems.main([str(data), "--tasks", "slides", "patches", "--out", str(out)]) == 0
    rows = json.loads((out / "systems.json").read_text())
    assert [row["method"] for row in rows] == [it.method for it in ENTRIES if "patches" in it.tasks]
    for row in rows:
        assert (row["n"], row["queries"], row["quick"]) == (12, 12, False)
        assert 0 <= row["ci"]["mmv5"][0] <= row["mmv5"] <= row["ci"]["mmv5"][1] <= 1
        assert row["query_ms_median"] <= row["query_ms_p95"] and row["build_s"] >= 0
        assert 0 <= row["looked_at"] <= 11
    by_method = {row["method"]: row for row in rows}
    assert by_method["smily, tree"]["recall"] == 1  # a budget of 4,000 patches is all there is
    assert by_method["smily, exact"]["mmv5"] > by_method["random"]["mmv5"]
    assert by_method["random"]["bytes_per_item"] == 0
    printed = capsys.readouterr()
    assert "left out" in printed.err and "bach" in printed.err
    assert printed.out.count("| method |") == 1 and "no result" not in printed.out
    assert (out / "systems.md").read_text() in printed.out and (out / "systems.png").stat().st_size > 10_000


def test_only_some_systems_and_a_sample(data, capsys):
    rows = data / "rows.json"
    chosen = ["slide similarity", "yottixel"]
    words = [str(data), "--tasks", "slides", "--systems", *chosen, "--quick", "--json", str(rows)]
    words += ["--columns", "method", "hit3"]
    assert systems.main(words) == 0
    found = json.loads(rows.read_text())
    assert [row["system"] for row in found] == ["yottixel"] + 8 * ["slide similarity"]
    assert len({row["method"] for row in found}) == 9
    printed = capsys.readouterr().out
    assert "a check of the programs, no result" in printed and "| method | hit@3 |" in printed


def test_nothing_to_run_is_told(tmp_path, capsys):
    assert systems.main([str(tmp_path), "--tasks", "slides"]) == 2
    assert "holds none of the data sets" in capsys.readouterr().err


def test_pixels_are_encoded_once_and_what_that_spares_is_counted(data):
    bench = read_task(TASKS["slides"], data / "bach", quick=False)
    assert bench.spared_s == 0
    calls = []

    class Counting(PlainEncoder):
        def encode(self, images):
            calls.append(len(images))
            return super().encode(images)

    encoder = bench._encoder = Memory(Counting())
    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    first, spared = encoder.encode(images), bench.spared_s
    again = encoder.encode(images[::-1])
    assert calls == [1, 1, 1] and spared == 0 < bench.spared_s
    np.testing.assert_array_equal(again.features, first.features[::-1])
    np.testing.assert_array_equal(again.codes, PlainEncoder().encode(images[::-1]).codes)
    assert encoder.stride == 8  # everything else is the encoder's
    with_other_shape = images.reshape(3, 32, 128, 3)
    assert encoder.encode(with_other_shape).codes.shape == (3, 4, 16)


def test_photographs_are_looked_at_once_and_charged_once(data, monkeypatch):
    asked = []

    def describe(self, item, parts):
        asked.append(list(parts))
        return LesionDescription(*(np.full(1, len(asked)) for _ in range(3)))

    monkeypatch.setattr(LesionDescriber, "describe", describe)
    bench = read_task(TASKS["slides"], data / "bach", quick=False)
    item = bench.dataset.items[0]
    told = bench.lesions.describe(item, ("euclidean", "cosine", "dice"))
    assert asked == [["euclidean"], ["dice"]] and (told.features, told.mask) == ([1], [2])
    assert bench.spared_s == 0
    bench.lesions.describe(item, ("style", "euclidean"))  # one look tells both
    assert asked[2:] == [["euclidean", "style"]]
    assert bench.lesions.describe(item, ("cosine", "dice")) == bench.lesions.describe(
        item, ("dice", "cosine")
    )
    assert len(asked) == 3 and bench.spared_s > 0


def test_folds_keep_the_queries_patients_out(pictures, data):
    dataset = read_task(TASKS["slides"], data / "bach", quick=False).dataset
    splits = [systems_tasks._dealt(dataset, fold, 5) for fold in range(5)]
    assert sorted(query.item_id for split in splits for query in split.queries) == sorted(
        item.item_id for item in dataset.items
    )
    for split in splits:
        known = {item.group or item.item_id for item in split.database}
        assert not known & {query.group or query.item_id for query in split.queries}
        assert len(split.database) + len(split.queries) == len(dataset.items)


def test_every_entry_makes_a_system(data):
    for name, task in TASKS.items():
        if (data / task.folders[0]).is_dir():
            bench: Bench = read_task(task, data / task.folders[0], quick=True)
            for entry in ENTRIES:
                if name in entry.tasks:
                    assert isinstance(entry.make(bench), System)


@pytest.mark.slow
def test_slide_similarity_is_measured_where_a_field_has_many_patches(data, capsys):
    """Fields as large as those of BACH: at every scale the matrix of cosines has several rows."""
    chosen = [it for it in ENTRIES if it.system == "slide similarity" and "slides" in it.tasks]
    folder = data / "bach"
    random = np.random.default_rng(0)
    for path in sorted(folder.glob("*.png"))[:2]:
        Image.fromarray(random.integers(0, 200, (1536, 1536, 3), np.uint8)).save(path)
    lines = [f"{path.name},{path.stem}" for path in sorted(folder.glob("*.png"))[:2]]
    (folder / "labels.csv").write_text("\n".join(["path,label", *lines]))
    rows = data / "rows.json"
    words = ["--tasks", "slides", "--systems", "slide similarity", "--json", str(rows)]
    assert systems.main([str(data), *words, "--columns", "method", "patches_per_item"]) == 0
    counts = [row["patches_per_item"] for row in json.loads(rows.read_text())]
    assert len(counts) == len(chosen) and set(counts) == {4, 25}
    assert "| patches an image |" in capsys.readouterr().out


def test_features_are_chosen_among_those_that_are_not_negative(data):
    bench = read_task(TASKS["slides"], data / "bach", quick=True)
    bench._nonnegative = Memory(NonNegative())
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 96, 3), dtype=np.uint8)
    reduced = [(columns, keep) for _, columns, keep in systems_tasks.FEATURES if keep is not None]
    assert reduced and all(columns is not None for columns, _ in reduced)
    for _, columns, _ in systems_tasks.FEATURES:
        if columns is not None:
            features = bench.tiles_describer(1.0, columns).features(pixels)
            assert features.shape == (2, columns.stop - columns.start) and features.min() >= 0
    assert bench.nonnegative.spent > 0, "the columns share one pass"


def test_deviations_are_those_of_the_networks_maps():
    pixels = np.random.default_rng(1).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
    parts, chosen = TissueNetwork()(pixels), NonNegative().features(pixels)
    deviations, start = [], 0
    for channels in (24, 40, 80, 112, 192, 320):
        means, spread = np.split(parts.network[0, start : start + 2 * channels], 2)
        assert means.min() < 0 < spread.min()
        deviations.append(spread)
        start += 2 * channels
    np.testing.assert_array_equal(chosen[0, DEVIATIONS], np.concatenate(deviations))
    np.testing.assert_array_equal(chosen[0, CODES], parts.codes[0])
