"""Labels files: what is read, which slide a row fits, and what is refused on one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish.errors import LabelsError
from sish.index.store import SlideRow
from sish.labels import LabelRow, Labels, read_labels, slide_id_of


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(LabelsError) as error:
        read_labels(write(folder, text))
    message = str(error.value)
    assert "\n" not in message
    assert "labels.csv" in message
    return message


def test_every_column(tmp_path):
    labels = read_labels(
        write(
            tmp_path,
            "slide_id,path,label,patient,site,mpp,stain,note\ns1,a/s1.svs,tumour,p1,breast,0.25,H&E,\n",
        )
    )
    assert labels.rows == (LabelRow(2, "a/s1.svs", "s1", "tumour", "p1", "breast", 0.25, {"stain": "H&E"}),)
    assert labels.path == tmp_path / "labels.csv"
    assert len(labels) == 1


def test_empty_fields_and_missing_columns_say_nothing(tmp_path):
    (row,) = read_labels(write(tmp_path, "slide_id,label,mpp\ns1,,\n")).rows
    assert (row.path, row.label, row.patient, row.site, row.mpp, row.metadata) == (
        None,
        None,
        None,
        None,
        None,
        {},
    )
    assert row.patient_of("s1") == "s1"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_line_ends_and_byte_order_marks(tmp_path, delimiter, ending, encoding):
    lines = [["Slide_ID", " Label ", "stain"], ["s1", "Tumör", '"H, E; x"'], [], ["s2", "b", "c"]]
    text = ending.join(delimiter.join(cells) for cells in lines)
    first, second = read_labels(write(tmp_path, text, encoding)).rows
    assert (first.slide_id, first.label, first.metadata) == ("s1", "Tumör", {"stain": "H, E; x"})
    assert (second.slide_id, second.line) == ("s2", 4)


def test_one_column_is_enough(tmp_path):
    assert [row.path for row in read_labels(write(tmp_path, "path\na b.svs\nc.svs")).rows] == [
        "a b.svs",
        "c.svs",
    ]


CELL = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"]), max_size=8).map(
    str.strip
)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), st.sampled_from(",;\t"))
def test_any_quoted_table_is_read_back(tmp_path_factory, cells, delimiter):
    def quoted(*fields: str) -> str:
        return delimiter.join('"' + field.replace('"', '""') + '"' for field in fields)

    table = [quoted("slide_id", "label", "other")]
    table += [quoted(f"s{i}", label, other) for i, (label, other) in enumerate(cells)]
    labels = read_labels(write(tmp_path_factory.mktemp("labels"), "\n".join(table)))
    got = [(row.slide_id, row.label or "", row.metadata.get("other", "")) for row in labels.rows]
    assert got == [(f"s{i}", label, other) for i, (label, other) in enumerate(cells)]


@pytest.mark.parametrize(
    ("path", "slide_id"),
    [
        ("/x/TCGA-1.DX1.svs", "TCGA-1.DX1"),
        ("a.ome.tiff", "a"),
        ("a.OME.tif", "a"),
        (".ome.tiff", ".ome"),
        ("plain", "plain"),
        (Path("b/CMU-1.svs"), "CMU-1"),
    ],
)
def test_slide_id_is_the_file_name_without_its_extension(path, slide_id):
    assert slide_id_of(path) == slide_id


def found(labels: Labels, path: str | Path) -> str | None:
    row = labels.find(path, slide_id_of(path))
    return row and row.label


@pytest.mark.parametrize("name", ["CMU-1", "CMU-1.svs"])
def test_find_by_slide_id_or_file_name(tmp_path, name):
    labels = read_labels(write(tmp_path, f"slide_id,label\n{name},a\n"))
    assert found(labels, "/anywhere/CMU-1.svs") == "a"
    assert found(labels, "/anywhere/CMU-10.svs") is None


def test_find_by_path(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "r.svs").touch()
    (tmp_path / "link.svs").symlink_to("real/r.svs")
    rows = [
        "slides/../slides/a.svs,relative",
        f"{tmp_path}/other/b.svs,absolute",
        "case1/c.svs,end1",
        "case2/c.svs,end2",
        "win\\d.svs,backslash",
        "real/r.svs,target",
    ]
    labels = read_labels(write(tmp_path, "\n".join(["path,label", *rows])))
    assert found(labels, tmp_path / "slides" / "a.svs") == "relative"
    assert found(labels, tmp_path / "other" / "b.svs") == "absolute"
    assert found(labels, "/data/case1/c.svs") == "end1"
    assert found(labels, "/data/case2/c.svs") == "end2"
    assert found(labels, "/data/notcase2/c.svs") is None
    assert found(labels, "/data/c.svs") is None
    assert found(labels, tmp_path / "win" / "d.svs") == "backslash"
    assert found(labels, tmp_path / "link.svs") == "target"
    assert found(labels, "/elsewhere/b.svs") is None


def test_the_path_decides_before_the_id(tmp_path):
    labels = read_labels(write(tmp_path, "path,slide_id,label\nx/a.svs,b,first\ny/b.svs,a,second\n"))
    assert found(labels, "/d/x/a.svs") == "first"
    assert found(labels, "/d/y/b.svs") == "second"
    assert found(labels, "/d/z/a.svs") == "second"


def test_ambiguous_paths_are_refused(tmp_path):
    labels = read_labels(write(tmp_path, "path,label\na.svs,1\nx/a.svs,2\n"))
    with pytest.raises(LabelsError, match=r"lines 2, 3 all fit /d/x/a\.svs") as error:
        labels.find("/d/x/a.svs", "a")
    assert "\n" not in str(error.value)
    assert found(labels, "/d/a.svs") == "1"
    assert found(labels, tmp_path / "x" / "a.svs") == "2"


def test_unmatched_names_rows_that_fit_no_slide(tmp_path):
    names = [f"s{i}" for i in range(8)]
    labels = read_labels(write(tmp_path, "\n".join(["slide_id", *names])))
    known = [(f"/d/{name}.svs", name) for name in names]
    assert labels.unmatched(known) == []
    assert labels.unmatched(known[:2]) == names[2:]


def test_a_row_changes_what_it_says_of_an_indexed_slide(tmp_path):
    old = SlideRow(
        "s", "/s.svs", 3, 256.0, 0.5, "user", 9, 9, "old", "p", "lung", metadata={"a": "1", "b": "2"}
    )
    (row,) = read_labels(write(tmp_path, "slide_id,label,site,b,c\ns,new,,3,4\n")).rows
    new = row.applied_to(old)
    assert (new.label, new.patient, new.site) == ("new", "p", "lung")
    assert new.metadata == {"a": "1", "b": "3", "c": "4"}
    assert (new.slide_id, new.n_patches, new.mpp) == ("s", 3, 0.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("slide_id,label\n", "no rows"),
        ("s1,tumour\ns2,normal\n", "line 1: columns are 's1', 'tumour', wanted path or slide_id"),
        ("slide,label\ns1,a\n", "'slide', 'label'"),
        ("slide_id|label\ns1|a\n", "'slide_id|label'"),
        ("slide_id,label,label\ns1,a,b\n", "the column label is there twice"),
        ("slide_id,label\ns1,a\n\ns1,b\n", "line 4: s1 is on line 2 already"),
        ("path,label\na.svs,1\n./a.svs,2\n", "line 3: ./a.svs is on line 2 already"),
        ("slide_id,label\n,a\n", "line 2: names no slide"),
        ("slide_id,label\ns1\n", "line 2: 1 fields, wanted 2"),
        ("slide_id,label\ns1,a,b\n", "line 2: 3 fields, wanted 2"),
        ("slide_id,mpp\ns1,0.5\ns2,fine\n", "line 3: mpp is 'fine'"),
        ("slide_id;mpp\ns1;0,25\n", "line 2: mpp is '0,25'"),
        ("slide_id,mpp\ns1,0\n", "mpp is '0'"),
        ("slide_id,mpp\ns1,nan\n", "mpp is 'nan'"),
        ("slide_id,mpp\ns1,40\n", "mpp is '40'"),
        ('slide_id,label\ns1,"open\ns2,b\n', "line 2: unexpected end of data"),
    ],
)
def test_what_does_not_fit_is_refused_on_one_line(tmp_path, text, says):
    assert says in refused(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(LabelsError, match="cannot be read"):
            read_labels(path)


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 2), ("utf-16", 1)])
def test_other_encodings_are_refused(tmp_path, encoding, line):
    path = write(tmp_path, "slide_id,label\ns1,Tumör\n", encoding)
    with pytest.raises(LabelsError, match=rf"line {line}: byte 0x.. is not UTF-8"):
        read_labels(path)
