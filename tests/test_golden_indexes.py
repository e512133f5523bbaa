"""Indexes of format 1 and of format 2: each opens, stays as it is, and answers as format 1 did.

Those of format 2, in the folder ``2``, are the same indexes, converted by the first release that writes it.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_indexes import ASKED, answers

import sish

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = {1: GOLDEN, 2: GOLDEN / "2"}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def assert_answers(index: sish.Index, name: str) -> None:
    """It answers what was recorded."""
    recorded = json.loads((GOLDEN / f"{name}.json").read_text())
    found = json.loads(json.dumps(answers(index)))
    assert found.keys() == recorded.keys() and len(recorded) >= 8
    for asked, hits in recorded.items():
        for hit, old in zip(found[asked], hits, strict=True):
            for pair in hit["patches"]:  # rows were not told when those of format 1 were recorded
                if name in ASKED:
                    assert pair.pop("query_row") >= 0 <= pair.pop("row")
            assert hit == {
                **old,
                "score": pytest.approx(old["score"]),
                "uncertainty": pytest.approx(old["uncertainty"]),
            }, asked


@pytest.mark.parametrize("version", FOLDERS)
@pytest.mark.parametrize("name", ASKED)
def test_it_opens_and_answers_as_it_was_recorded(name, version):
    folder = FOLDERS[version] / f"{name}.sish"
    before = contents(folder)
    index = sish.Index.open(folder, verify=True)
    assert (len(index), index.info().format_version) == (ASKED[name], version)
    assert (index.state_and_view()[0].tree is not None) == (name == "tree")
    assert_answers(index, name)
    assert contents(folder) == before and not sish.verify(folder)


@pytest.mark.parametrize("name", ASKED)
def test_converted_it_answers_as_it_was_recorded(name, tmp_path):
    shutil.copytree(GOLDEN / f"{name}.sish", tmp_path / "copy.sish")
    index = sish.Index.open(tmp_path / "copy.sish")
    slides = index.slides
    assert index.convert() and not index.convert()
    assert (index.slides, index.info().format_version, sish.verify(index.path)) == (slides, 2, [])
    assert_answers(index, name)
    kinds = {path.name.partition(".")[0] for path in index.path.rglob("*.safetensors")}
    assert kinds == {"slides", "order"} | ({"tree"} if name == "tree" else set())


def test_an_index_with_vectors_opens_answers_and_grows(tmp_path):
    folder = FOLDERS[2] / "vectors.sish"
    before = contents(folder)
    index = sish.Index.open(folder, verify=True)
    assert (len(index), index.rerank, index.info().format_version) == (8, "int8", 2)
    assert_answers(index, "vectors")
    assert contents(folder) == before and not sish.verify(folder)
    shutil.copytree(folder, tmp_path / "copy.sish")
    again = sish.Index.open(tmp_path / "copy.sish")
    vectors = np.random.default_rng(3).normal(size=(20, 32))
    assert again.add_vectors(vectors, ["new"] * 20, show_progress=False).added == ["new"]
    assert again.search(vectors, k=1)[0].slide_id == "new" and not sish.verify(again.path)


def test_a_relabelled_index_of_format_1_is_of_format_1_until_it_is_converted(tmp_path):
    shutil.copytree(GOLDEN / "small.sish", tmp_path / "copy.sish")
    index = sish.Index.open(tmp_path / "copy.sish")
    first = index.slides[0].slide_id
    (tmp_path / "labels.csv").write_text(f"slide_id,label\n{first},new\n")
    assert index.relabel(tmp_path / "labels.csv").changed == (first,)
    assert index.info().format_version == 1 and not sish.verify(index.path)
    assert index.convert() and index.info().format_version == 2 and index.slides[0].label == "new"


def test_an_index_whose_slides_were_removed_is_converted_too(tmp_path):
    shutil.copytree(GOLDEN / "tree.sish", tmp_path / "copy.sish")
    index = sish.Index.open(tmp_path / "copy.sish")
    index.remove([row.slide_id for row in index.slides])
    assert index.convert() and not index.convert() and index.info().format_version == 2
    with pytest.raises(sish.ParameterError, match="no patches"):
        index.tune(0.9)


@pytest.mark.parametrize("version", FOLDERS)
@pytest.mark.parametrize("name", ASKED)
def test_it_can_be_changed_and_answers_on(name, version, tmp_path):
    shutil.copytree(FOLDERS[version] / f"{name}.sish", tmp_path / "copy.sish")
    index = sish.Index.open(tmp_path / "copy.sish")
    first, *_, last = (row.slide_id for row in index.slides)
    assert index.remove(last) == 1
    index.compact()
    assert len(index) == ASKED[name] - 1 and not sish.verify(index.path)
    hits = index.search(first, k=3, ranking="similarity")
    assert (hits[0].slide_id, hits[0].score) == (first, 1.0) and last not in {hit.slide_id for hit in hits}
