"""What a change would do is what it does, and telling it writes nothing."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sish
from sish.cli import main


def bytes_of(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def mixed(synthetic_slides, tmp_path):
    """Slides that are new, known, moved, changed, broken, of unknown scale or of one id, and their labels."""
    folder = tmp_path / "slides"
    (folder / "more").mkdir(parents=True)
    for name in ("adipose-01", "fibrous-01"):
        shutil.copy(synthetic_slides / f"{name}.tif", folder)
    shutil.copy(synthetic_slides / "glandular-01.tif", folder / "new-01.tif")
    shutil.copy(synthetic_slides / "glandular-02.tif", folder / "more" / "new-01.tif")  # the same id
    shutil.copy(
        synthetic_slides / "hepatic-01.tif", folder / "lymphoid-01.tif"
    )  # an id that is another slide's
    (folder / "broken.tif").write_bytes(b"no slide")
    shutil.copy(Path(__file__).parents[1] / "docs" / "report.png", folder / "scaleless.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\nnew-01,new\nnobody,x\n")
    return folder, labels


@pytest.mark.parametrize("options", [{}, {"replace": True}, {"shard": "0/2"}], ids=str)
def test_an_add_does_what_was_planned(options, mixed, own_index, synthetic_slides, tmp_path):
    folder, labels = mixed
    index = own_index
    if "shard" in options:
        index = sish.Index.create(tmp_path / "shard.sish", like=own_index)
    before = bytes_of(Path(str(index.path)))
    given = [folder, tmp_path / "missing.svs"]
    plan = index.plan_add(given, labels=labels, show_progress=False, **options)
    assert bytes_of(Path(str(index.path))) == before
    report = index.add(given, labels=labels, show_progress=False, **options)
    assert sorted(it.slide_id for it in plan.new) == sorted(report.added)
    assert sorted(it.slide_id for it in plan.again) == sorted(report.replaced)
    assert list(plan.already) == report.already and not report.no_tissue
    assert sorted(it.reason for it in plan.failed) == sorted(it.reason for it in report.failed)
    assert plan.failed and (plan.new or plan.again)
    rows = {row.slide_id: row for row in index.slides}
    for slide in (*plan.new, *plan.again):
        assert (rows[slide.slide_id].path, rows[slide.slide_id].mpp) == (slide.path, slide.mpp)
    shard = options.get("shard")
    again = index.plan_add(given, labels=labels, shard=shard, show_progress=False)
    assert not again.new and {it.slide_id for it in plan.new} <= set(again.already)


def test_features_are_added_as_planned(tmp_path):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    folder = tmp_path / "slide_features_titan"
    folder.mkdir()
    for name, width in (("a", 768), ("b", 768), ("other", 512)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["features"] = rng.normal(size=width).astype(np.float32)
    (folder / "broken.h5").write_bytes(b"none")
    words = ["index", "add", "--features", str(folder), "--index", str(tmp_path / "a.sish"), "--dry-run"]
    assert main([*words, "--quiet"]) == 1 and not (tmp_path / "a.sish").exists()
    index = sish.Index.create_for_features(tmp_path / "a.sish", folder)
    before = bytes_of(tmp_path / "a.sish")
    plan = index.plan_add_features(folder, show_progress=False)
    assert bytes_of(tmp_path / "a.sish") == before
    report = index.add_features(folder, show_progress=False)
    assert [it.slide_id for it in plan.new] == report.added == ["a", "b"]
    assert list(plan.failed) == report.failed and len(report.failed) == 2


def test_a_dry_add_makes_no_index(mixed, tmp_path, capsys):
    folder, _ = mixed
    index, failures = tmp_path / "none.sish", tmp_path / "failures.csv"
    words = ["index", "add", str(folder), "--index", str(index), "--dry-run", "--quiet"]
    before = bytes_of(tmp_path)
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert bytes_of(tmp_path) == before and not index.exists()
    lines = out.splitlines()
    assert any(line.startswith(f"would add: adipose-01: {folder / 'adipose-01.tif'}, ") for line in lines)
    assert lines[-1] == "4 to add, 3 would fail; nothing was written"
    assert err.count("sish: would be skipped: ") == 3
    assert main([*words, "--json", "--failures", str(failures)]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["new"]) == 4 and len(answer["failed"]) == 3
    assert failures.read_text().count("\n") == 4


def test_a_dry_add_refuses_what_an_add_refuses(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for place in ("empty", "missing"):
        words = ["index", "add", str(tmp_path / place), "--index", str(tmp_path / "a.sish")]
        said = []
        for more in ([], ["--dry-run"]):
            assert main([*words, *more]) == 1
            said.append(capsys.readouterr())
        assert said[0] == said[1] and not (tmp_path / "a.sish").exists()


def test_a_place_or_a_shard_that_an_add_refuses_cannot_be_planned(synthetic_slides, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    sish.Index.create(tmp_path / "unmeasured.sish")
    slide = str(synthetic_slides / "adipose-01.tif")
    for place, options in (("full", []), ("unmeasured.sish", ["--shard", "0/1"])):
        words = ["index", "add", slide, "--index", str(tmp_path / place), "--quiet", *options]
        said = []
        for more in ([], ["--dry-run"]):
            assert main([*words, *more]) == 1
            said.append(capsys.readouterr())
        assert said[0] == said[1] and said[0].err.startswith("sish: error: ")


def test_remove_and_label_can_be_tried(own_index, tmp_path, capsys):
    path = Path(str(own_index.path))
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label,patient\nadipose-01,fat,P9\nfibrous-01,fibrous,\nnobody,x,\n")
    before = bytes_of(path)
    words = ["--index", str(path), "--dry-run"]
    assert main(["index", "remove", "adipose-01", "adipose-01", *words]) == 0
    out = capsys.readouterr().out
    assert "would remove: adipose-01: " in out and "1 to remove; nothing was written" in out
    assert main(["index", "remove", "nobody", *words]) == 1
    assert main(["index", "label", str(labels), *words]) == 1
    out, err = capsys.readouterr()
    assert "would change: adipose-01\n1 slide to relabel; nothing was written" in out and "nobody" in err
    assert bytes_of(path) == before
    planned = own_index.plan_relabel(labels)
    assert own_index.relabel(labels) == planned and planned.changed == ("adipose-01",)
    assert [row.slide_id for row in own_index.plan_remove("adipose-01")] == ["adipose-01"]
    assert own_index.remove("adipose-01") == 1
