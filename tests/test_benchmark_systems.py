"""The benchmark of systems, on twelve pictures and an encoder that takes no time."""

import csv
import json
import shutil

import numpy as np
import pytest
from plain_encoder import PlainEncoder

from benchmarks import systems, systems_tasks
from benchmarks.systems_tasks import ENTRIES, TASKS, Bench, read_task
from benchmarks.watched import Memory
from sish.systems.base import System
from sish.systems.lesions.similarity import LesionDescriber, LesionDescription


@pytest.fixture
def data(pictures, tmp_path, monkeypatch):
    """Folders `bach` and `pcam` of the same pictures, and the fast encoder in place of the shipped one."""
    monkeypatch.setattr("sish.vqvae.pretrained.load_encoder", lambda: PlainEncoder())
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
