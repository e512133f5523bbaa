"""The published test vectors, and that a set which differs, or is broken, is told."""

import json
import shutil

import numpy as np
import pytest

from benchmarks.parity import main
from sish.index.guided.walk import guided_search
from sish.index.params import SearchParams
from sish.index.table import KeyTable


@pytest.fixture(scope="module")
def parity_dir(data_dir):
    """The published test vectors, beside the real data."""
    folder = data_dir.parent / "parity"
    if not folder.is_dir():
        pytest.skip(f"no test vectors at {folder}")
    return folder


def write_set(folder, change_json=None, change_arrays=None, threshold=8):
    """A tiny set of our own: two patients with two slides each, a patch a slide."""
    keys = np.array([10, 20, 30, 40])
    barcodes = np.array([[0], [1], [3], [7]], np.uint8)
    slide = np.arange(4, dtype=np.int32)
    labels = ["a", "a", "a", "a"]
    params = {"pre_step": 1, "succ_step": 1, "C": 1, "T": 1, "thrsh": threshold}
    published = {
        # by hand: patches 0 and 1 are of patient p; with one step a walk only the next key is found
        0: [(2, 2)], 1: [(2, 1)], 2: [(1, 1)], 3: [(1, 2)],
    }  # fmt: skip
    bags = [published[patch] for patch in range(4)]
    arrays = {
        "key": keys, "barcode": barcodes, "slide": slide, "x": slide, "y": slide,
        "query_patch": np.arange(4), "result_offset": np.cumsum([0, *map(len, bags)]),
        "result_patch": np.array([p for bag in bags for p, _ in bag]),
        "result_hamming": np.array([d for bag in bags for _, d in bag], np.int32),
    }  # fmt: skip
    ranked = {
        f"s{patch}": [
            {"slide": f"s{p}", "hamming": float(d), "label": labels[p], "uncertainty": 0.0, "query_patch": 0}
            for p, d in bags[patch]
        ]
        for patch in range(4)
    }
    facts = {
        "slides": [f"s{i}" for i in range(4)], "patient": ["p", "p", "q", "q"],
        "label": labels, "params": params,
        "class_weight": {"a": 10.0}, "ranked": ranked,
        "metrics": {"a": {"mmv": 0.0, "map": 0.2, "queries": 4}},
    }  # fmt: skip
    if change_json:
        change_json(facts)
    if change_arrays:
        change_arrays(arrays)
    folder.mkdir(exist_ok=True)
    np.savez(folder / "tiny.npz", **arrays)
    (folder / "tiny.json").write_text(json.dumps(facts))
    return folder


def test_the_published_sets_are_identical(parity_dir, capsys):
    assert main([str(parity_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "small: identical: 362 of 362 bags, 24 of 24 rankings" in lines
    assert "medium: identical: 1751 of 1751 bags, 60 of 60 rankings" in lines
    assert "noisy: identical: 1749 of 1749 bags, 60 of 60 rankings" in lines


def test_a_set_by_hand_is_identical(tmp_path, capsys):
    assert main([str(write_set(tmp_path / "sets"))]) == 0
    assert capsys.readouterr().out == "tiny: identical: 4 of 4 bags, 4 of 4 rankings\n"


def test_the_parameters_of_the_set_are_used(tmp_path, capsys):
    assert main([str(write_set(tmp_path / "sets", threshold=1))]) == 1
    assert "tiny: identical: 2 of 4 bags" in capsys.readouterr().out


def entry(facts):
    return facts["ranked"]["s0"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: entry(facts).update(slide="s3"),
        lambda facts: entry(facts).update(hamming=3.0),
        lambda facts: entry(facts).update(label="b"),
        lambda facts: entry(facts).update(query_patch=1),
        lambda facts: entry(facts).update(uncertainty=2e-9),
        lambda facts: facts["ranked"].update(s0=[]),
        lambda facts: facts["class_weight"].update(a=9.9),
        lambda facts: facts["class_weight"].update(b=1.0),
        lambda facts: facts["metrics"]["a"].update(mmv=0.25),
        lambda facts: facts["metrics"]["a"].update(map=0.21),
        lambda facts: facts["metrics"]["a"].update(queries=5),
        lambda facts: facts["metrics"].clear(),
    ],
)
def test_any_difference_in_the_facts_is_told(tmp_path, capsys, change):
    assert main([str(write_set(tmp_path / "sets", change))]) == 1
    assert "differs" in capsys.readouterr().out


@pytest.mark.parametrize(("array", "value"), [("result_patch", 3), ("result_hamming", 7)])
def test_any_difference_in_a_bag_is_told(tmp_path, capsys, array, value):
    folder = write_set(tmp_path / "sets", change_arrays=lambda arrays: arrays[array].put(0, value))
    assert main([str(folder)]) == 1
    assert "3 of 4 bags, 4 of 4 rankings" in capsys.readouterr().out


def test_a_tampered_published_set_differs(parity_dir, tmp_path, capsys):
    shutil.copy(parity_dir / "small.json", tmp_path / "small.json")
    arrays = dict(np.load(parity_dir / "small.npz"))
    first, second = arrays["result_patch"][:2].copy()
    arrays["result_patch"][:2] = second, first
    np.savez(tmp_path / "small.npz", **arrays)
    assert main([str(tmp_path)]) == 1
    assert "small: identical: 361 of 362 bags, 24 of 24 rankings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change_json", "change_arrays"),
    [
        (lambda facts: facts.pop("params"), None),
        (lambda facts: facts["params"].pop("C"), None),
        (lambda facts: facts["params"].update(C=0.5), None),
        (lambda facts: facts["params"].update(T=-1), None),
        (lambda facts: facts["label"].pop(), None),
        (lambda facts: facts["ranked"].update(nobody=[]), None),
        (lambda facts: entry(facts).pop("hamming"), None),
        (lambda facts: facts.update(ranked=3), None),
        (None, lambda arrays: arrays.pop("slide")),
        (None, lambda arrays: arrays.update(slide=np.full(4, 9))),
        (None, lambda arrays: arrays.update(query_patch=np.arange(1, 5))),
        (None, lambda arrays: arrays.update(result_offset=np.arange(3))),
        (None, lambda arrays: arrays.update(result_patch=np.arange(3))),
        (None, lambda arrays: arrays.update(barcode=np.zeros(4, np.uint8))),
        (None, lambda arrays: arrays.update(key=np.array(["x"] * 4, dtype=object))),
    ],
)
def test_a_malformed_set_is_one_line_and_status_2(tmp_path, capsys, change_json, change_arrays):
    assert main([str(write_set(tmp_path / "sets", change_json, change_arrays))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "tiny" in error


@pytest.mark.parametrize("name", ["tiny.npz", "tiny.json"])
def test_a_truncated_file_is_one_line_and_status_2(tmp_path, capsys, name):
    path = write_set(tmp_path / "sets") / name
    path.write_bytes(path.read_bytes()[:100])
    assert main([str(path.parent)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_folder_an_empty_one_and_arrays_alone_are_status_2(tmp_path, capsys):
    np.savez(tmp_path / "keys.npz", codes=np.zeros(1))
    for folder in (tmp_path / "nowhere", tmp_path):
        assert main([str(folder)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1


def test_a_query_leaves_its_patient_out_by_the_mask_alone(parity_dir):
    vectors = np.load(parity_dir / "small.npz")
    facts = json.loads((parity_dir / "small.json").read_text())
    table = KeyTable.build(vectors["key"], vectors["barcode"], vectors["slide"])
    patient = np.array(facts["patient"])
    out = patient == patient[vectors["slide"][0]]
    bags = guided_search(
        table,
        vectors["key"][:1],
        vectors["barcode"][:1],
        exclude=out,
        params=SearchParams(visit_query_key=True),
    )
    assert not out[vectors["slide"][bags.patch]].any()
    with_own = guided_search(
        table, vectors["key"][:1], vectors["barcode"][:1], params=SearchParams(visit_query_key=True)
    )
    assert with_own.patch[0] == 0
