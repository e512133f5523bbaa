"""Data sets: what is a query, what can be found, and what is refused."""

from pathlib import Path

import pytest

from benchmarks.datasets import load_dataset
from sish.errors import LabelsError, ParameterError, SishError


def _folder(root: Path, table: str, files: str = "a.png b.png c.png d.png") -> Path:
    """A folder of empty images with this labels.csv."""
    for name in files.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "labels.csv").write_text(table, encoding="utf-8")
    return root


def test_without_a_split_every_labelled_image_is_a_query_among_all(tmp_path):
    data = load_dataset(_folder(tmp_path / "mine", "path,label,mpp\na.png,x,0.5\nb.png,y,\nc.png,,\n"))
    assert data.name == "mine"
    assert [item.item_id for item in data.queries] == ["a.png", "b.png"]
    assert [item.item_id for item in data.database] == ["a.png", "b.png", "c.png"]
    assert (data.queries[0].mpp, data.queries[1].mpp) == (0.5, None)
    assert data.leave_one_out
    assert not data.multi_label
    assert data.items == data.database


def test_the_scale_of_an_image_is_of_its_row_else_of_the_caller(tmp_path):
    table = "path,label,mpp,override_mpp\na.png,x,0.5,\nb.png,y,,0.25\n"
    data = load_dataset(_folder(tmp_path, table), mpp=2.0, override_mpp=1.0)
    assert [(item.mpp, item.override_mpp) for item in data.items] == [(0.5, 1.0), (2.0, 0.25)]
    with pytest.raises(ParameterError, match="override_mpp 99 is out of range"):
        load_dataset(tmp_path, override_mpp=99)


@pytest.mark.parametrize(
    ("table", "files"),
    [
        ("path,label,split\na.png,x,train\nb.png,y,Train\nc.png,x,valid\n", "a.png b.png c.png"),
        ("path,label\ntrain/a.png,x\ntrain/b.png,y\nvalid/c.png,x\n", "train/a.png train/b.png valid/c.png"),
    ],
)
def test_train_is_searched_with_valid(tmp_path, table, files):
    data = load_dataset(_folder(tmp_path, table, files))
    assert [Path(item.item_id).name for item in data.database] == ["a.png", "b.png"]
    assert [Path(item.item_id).name for item in data.queries] == ["c.png"]
    assert not data.leave_one_out
    assert len(data.items) == 3


def test_paths_below_train_alone_are_no_split(tmp_path):
    data = load_dataset(
        _folder(tmp_path, "path,label\ntrain/a.png,x\ntrain/b.png,y\n", "train/a.png train/b.png")
    )
    assert data.queries == data.database


def test_several_labels_and_none(tmp_path):
    table = "path,patient_id,labels\na.png,1,Mass|Edema\nb.png,1,No Finding\nc.png,2,Mass\n"
    data = load_dataset(_folder(tmp_path, table))
    assert data.multi_label
    assert [item.labels for item in data.queries] == [{"Mass", "Edema"}, set(), {"Mass"}]
    assert data.queries[0].group == data.queries[1].group != data.queries[2].group


def test_whatever_two_images_share_makes_them_one_group(tmp_path):
    table = "path,label,patient_id,lesion_id\na.png,x,1,\nb.png,y,1,7\nc.png,y,,7\nd.png,y,7,\n"
    a, b, c, d = load_dataset(_folder(tmp_path, table)).database
    assert a.group == b.group == c.group
    assert d.group != a.group, "a patient 7 is not a lesion 7"


def test_a_mask_is_a_file(tmp_path):
    _folder(tmp_path, "path,label,mask\na.png,x,c.png\nb.png,y,\n")
    a, b = load_dataset(tmp_path).database
    assert a.mask == tmp_path / "c.png"
    assert b.mask is None
    (tmp_path / "c.png").unlink()
    with pytest.raises(LabelsError, match="line 2"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("path,site\na.png,x\n", "add a column label"),
        ("slide_id,label\na,x\nb,y\n", "line 2: a has no path"),
        ("path,label\nnot-there.png,x\n", "no file"),
        ("path,label,split\na.png,x,train\nb.png,y,holdout\n", "line 3: split is 'holdout'"),
        ("path,label,split\na.png,x,train\nb.png,y,train\n", "no queries"),
        ("path,label,split\na.png,x,valid\n", "no images to find"),
        ("path,label\na.png,x\n", "one group"),
        ("path,label,patient\na.png,x,1\nb.png,x,1\n", "one group"),
    ],
)
def test_what_does_not_fit_is_told_on_one_line(tmp_path, table, said):
    with pytest.raises(SishError, match=said) as caught:
        load_dataset(_folder(tmp_path, table))
    assert "\n" not in str(caught.value)


def test_no_folder_and_no_table(tmp_path):
    with pytest.raises(LabelsError, match="not a folder"):
        load_dataset(tmp_path / "none")
    with pytest.raises(LabelsError, match="cannot be read"):
        load_dataset(tmp_path)


def test_a_sample_draws_whole_groups_and_keeps_queries_in_its_database(tmp_path):
    names = [f"{letter}{n}.png" for letter in "abcdefgh" for n in "01"]
    table = "path,label,source_tile\n" + "".join(f"{name},x,{name[0]}\n" for name in names)
    data = load_dataset(_folder(tmp_path, table, " ".join(names)))
    small = data.sample(6, queries=3, seed=1)
    assert len(small.database) == 6
    assert len(small.queries) == 3
    assert set(small.queries) <= set(small.database) <= set(data.database)
    assert all([item.group for item in small.database].count(item.group) == 2 for item in small.database)
    assert small == data.sample(6, queries=3, seed=1)
    assert data.sample(100) == data
    with pytest.raises(ParameterError, match="sample"):
        data.sample(1)


def test_the_real_folders(data_dir):
    counts = {
        name: (len(data.queries), len(data.database), data.multi_label)
        for name in ("bach", "crc5", "pcam", "lc25000_lung", "ham10000", "nih_cxr")
        for data in [load_dataset(data_dir / name)]
    }
    assert counts == {
        "bach": (100, 100, False),
        "crc5": (1560, 1560, False),
        "pcam": (1000, 12000, False),
        "lc25000_lung": (1480, 1480, False),
        "ham10000": (895, 895, False),
        "nih_cxr": (1000, 1000, True),
    }
    assert len({item.group for item in load_dataset(data_dir / "crc5").database}) == 26
