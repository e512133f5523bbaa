"""Indexes that the last release of format 1 wrote: each opens, stays as it is, and answers as it did then."""

import json
import shutil
from pathlib import Path

import pytest
from golden_indexes import ASKED, answers

import sish

GOLDEN = Path(__file__).parent / "golden"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", ASKED)
def test_it_opens_and_answers_as_it_was_recorded(name):
    folder = GOLDEN / f"{name}.sish"
    before = contents(folder)
    index = sish.Index.open(folder, verify=True)
    assert (len(index), index.info().format_version) == (ASKED[name], 1)
    assert (index.state_and_view()[0].tree is not None) == (name == "tree")
    recorded = json.loads((GOLDEN / f"{name}.json").read_text())
    found = json.loads(json.dumps(answers(index)))
    assert found.keys() == recorded.keys() and len(recorded) >= 8
    for asked, hits in recorded.items():
        for hit, old in zip(found[asked], hits, strict=True):
            assert hit == {
                **old,
                "score": pytest.approx(old["score"]),
                "uncertainty": pytest.approx(old["uncertainty"]),
            }, asked
    assert contents(folder) == before


@pytest.mark.parametrize("name", ASKED)
def test_it_can_be_changed_and_answers_on(name, tmp_path):
    shutil.copytree(GOLDEN / f"{name}.sish", tmp_path / "copy.sish")
    index = sish.Index.open(tmp_path / "copy.sish")
    first, *_, last = (row.slide_id for row in index.slides)
    assert index.remove(last) == 1
    index.compact()
    assert len(index) == ASKED[name] - 1 and not sish.verify(index.path)
    hits = index.search(first, k=3, ranking="similarity")
    assert (hits[0].slide_id, hits[0].score) == (first, 1.0) and last not in {hit.slide_id for hit in hits}
