"""One labels file, as a spreadsheet on Windows saves it, is read alike by all that takes one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sish.errors import LabelsError
from sish.labels import read_labels
from sish.slides.tables import read_table
from sish.systems.items import read_items
from sish.systems.training.data import labelled_items
from sish.vqvae.images import list_images

READERS = {
    "labels": lambda folder: [folder / "a/1.png" for row in read_labels(folder / "labels.csv").rows],
    "items": lambda folder: [item.path for item in read_items([folder], folder / "labels.csv")],
    "training of systems": lambda folder: [item.path for item in labelled_items(folder)],
    "training of the encoder": list_images,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a" / "1.png")
    return tmp_path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_an_odd_file_is_read_by_all(folder, reader, delimiter):
    rows = ["Path,Label,group", '"a\\1.png",x,"1"', ",,"]
    text = "\r\n".join(rows).replace(",", delimiter)
    (folder / "labels.csv").write_text(text, encoding="utf-8-sig")
    assert READERS[reader](folder) == [folder / "a" / "1.png"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("data", [b"path,label\na/1.png,x\0", b"\xff\xfe\x00bad", b'path,label\n"a,x\n', b""])
def test_what_is_no_table_is_refused_by_all_with_its_place(folder, reader, data):
    (folder / "labels.csv").write_bytes(data)
    with pytest.raises(LabelsError, match=r"labels\.csv") as error:
        READERS[reader](folder)
    assert error.value.path == folder / "labels.csv"


def test_rows_are_what_they_say(tmp_path):
    (tmp_path / "t.csv").write_text("Name;Mpp;Other\na;nan;1\n;0.5;\n")
    table = read_table(tmp_path / "t.csv", ("name",), ("mpp",))
    assert [(row.line, dict(row.said)) for row in table.rows] == [
        (2, {"name": "a", "Other": "1"}),
        (3, {"mpp": "0.5"}),
    ]
    assert table.notes == (f"{tmp_path / 't.csv'}: 1 row has mpp 'nan': taken as missing",)
