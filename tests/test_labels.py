"""Labels files: what is read, which slide a row fits, and what is refused on one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from slide_rows import slide_row

from benchmarks.datasets import load_dataset
from sish.cli import main
from sish.errors import LabelsError
from sish.labels import LabelRow, Labels, read_labels
from sish.slides.files import slide_id_of
from sish.slides.tables import MISSING
from sish.systems.items import read_items


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


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("path,pateint,stage,state", "patient"),
        ("path,Labels,site", "label"),
        ("path,patient_id,age", "patient"),
        ("path,sites,site,stain", None),  # the table has the known one
        ("path,stage,state,age,grade", None),
    ],
)
def test_a_column_that_looks_like_a_typing_error_is_noted_and_kept(tmp_path, header, named):
    columns = header.split(",")
    labels = read_labels(write(tmp_path, f"{header}\n{','.join(['x', *columns[1:]])}\n"))
    assert [note for note in labels.notes if f"name it {named!r}" in note] == list(labels.notes)
    assert bool(labels.notes) == (named is not None)
    assert columns[1] in labels.rows[0].metadata or columns[1] in ("patient", "site")


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


GENES = b",".join(b"gene%d" % n for n in range(20_000))
CELL = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"]), max_size=8).map(
    str.strip
)


@given(
    st.lists(st.tuples(CELL, CELL | st.sampled_from(["NaN", "none", "None"])), min_size=1, max_size=6),
    st.sampled_from(",;\t"),
)
def test_any_quoted_table_is_read_back(tmp_path_factory, cells, delimiter):
    def quoted(*fields: str) -> str:
        return delimiter.join('"' + field.replace('"', '""') + '"' for field in fields)

    table = [quoted("slide_id", "label", "other")]
    table += [quoted(f"s{i}", label, other) for i, (label, other) in enumerate(cells)]
    labels = read_labels(write(tmp_path_factory.mktemp("labels"), "\n".join(table)))
    got = [(row.slide_id, row.label or "", row.metadata.get("other", "")) for row in labels.rows]
    said = [["" if cell in MISSING else cell for cell in pair] for pair in cells]
    assert got == [(f"s{i}", label, other) for i, (label, other) in enumerate(said)]


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
    told = {"label": "old", "patient": "p", "site": "lung", "metadata": {"a": "1", "b": "2"}}
    old = slide_row("s", 3, mpp=0.5, **told)
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
        ("slide_id,label,label\ns1,a,b\n", "the column 'label' is there twice"),
        ("slide_id,label\ns1,a\n\ns1,b\n", "line 4: s1 is on line 2 already"),
        ("path,label\na.svs,1\n./a.svs,2\n", "line 3: ./a.svs is on line 2 already"),
        ("slide_id,label\n,a\n", "line 2: names no slide"),
        ("slide_id,label\ns1\n", "line 2: 1 fields, wanted 2"),
        ("slide_id,label\ns1,a,b\n", "line 2: 3 fields, wanted 2"),
        ("slide_id,mpp\ns1,0.5\ns2,fine\n", "line 3: mpp is 'fine'"),
        ("slide_id;mpp\ns1;0,25\n", "line 2: mpp is '0,25'"),
        ("slide_id,mpp\ns1,0\n", "mpp is '0'"),
        ("slide_id,mpp\ns1,inf\n", "mpp is 'inf'"),
        ("slide_id,label\nnan,a\n", "line 2: names no slide"),
        ("slide_id,label\ns1,a\0b\n", "line 2: byte 0x00 is not UTF-8 text"),
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


def test_words_of_data_frames_for_a_gap_say_nothing_and_are_counted(tmp_path):
    lines = ["slide_id,path,label,patient,site,mpp,stain"]
    lines += ["s1,nan,nan,NA,None,NaN,<NA>", "s2,,N/A,null,NULL,0.5,H&E", "NaN,c.svs,nan,n/a,-nan,,none"]
    labels = read_labels(write(tmp_path, "\n".join(lines)))
    assert [(row.label, row.patient, row.site, row.mpp, row.metadata) for row in labels.rows] == [
        (None, None, None, None, {}),
        (None, None, None, 0.5, {"stain": "H&E"}),
        (None, None, None, None, {"stain": "none"}),
    ]
    assert [row.name for row in labels.rows] == ["s1", "s2", "c.svs"]
    notes = [note.partition(": ")[2] for note in labels.notes]
    assert "3 rows have label 'nan' or 'N/A': taken as missing" in notes
    assert "1 row has mpp 'NaN': taken as missing" in notes
    assert len(notes) == 7 and not read_labels(write(tmp_path, "slide_id,label\ns,a\n")).notes


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            b"slide_id," + GENES,
            "20001 columns, wanted at most 1000",
        ),
        (GENES, "wanted path or slide_id"),
        (b"slide_id,label\ns1," + b"x" * 200_000, "field larger than field limit"),
        (b"slide_id,mpp\ns1," + b"9" * 100_000, "mpp is '999"),
        (b"slide_id," + b"x" * 100_000 + b"," + b"x" * 100_000 + b"\ns1,,", "is there twice"),
        (b"slide_id\n" + b"y" * 100_000 + b"\n" + b"y" * 100_000, "is on line 2 already"),
        ("slide_id,label\ns1,a\n".encode("utf-16-le"), "line 1: byte 0x00 is not UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 1: byte 0x89 is not UTF-8 text"),
        (b"PK\x03\x04\x14\0\x06\0", "line 1: byte 0x00 is not UTF-8 text"),
        (b"\0" * 100, "line 1: byte 0x00 is not UTF-8 text"),
    ],
)
def test_strange_files_are_refused_on_one_short_line(tmp_path, data, says):
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(LabelsError, match=r"labels\.csv") as error:
        read_labels(tmp_path / "labels.csv")
    assert says in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_a_file_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sish.slides.tables.MAX_BYTES", 1 << 20)
    (tmp_path / "labels.csv").symlink_to("/dev/zero")
    with pytest.raises(LabelsError, match="larger than 1 MB"):
        read_labels(tmp_path / "labels.csv")


def test_a_header_ends_where_its_line_does(tmp_path):
    """Old Macs end lines by a carriage return alone; the semicolon further down is no separator."""
    path = tmp_path / "labels.csv"
    path.write_bytes(b"slide_id,label\rs1,a;b\r")
    assert [row.label for row in read_labels(path).rows] == ["a;b"]


def test_gaps_are_said_once_by_add_and_relabel_and_are_no_labels(
    own_index, tmp_path, synthetic_slides, capsys
):
    first, second = (row.slide_id for row in own_index.slides[:2])
    table = write(tmp_path, f"slide_id,label\n{first},nan\n{second},NaN\n")
    report = own_index.relabel(table)
    assert report.changed == () and len(report.notes) == 1
    own_index.remove([first, second])
    place = ["--index", str(own_index.path)]
    words = ["index", "add", str(synthetic_slides), *place, "--labels", str(table), "--quiet", "--json"]
    assert main(words) == 0
    told = capsys.readouterr()
    assert told.err.count("2 rows have label 'nan' or 'NaN': taken as missing") == 1
    assert {row.label for row in own_index.slides if row.slide_id in (first, second)} == {None}
    assert main(["index", "label", str(table), *place]) == 0
    assert capsys.readouterr().err.count("taken as missing") == 1


def test_readers_without_a_report_warn_of_gaps(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    table = write(tmp_path, "path,label\na.png,x\nb.png,nan\n")
    with pytest.warns(UserWarning, match="1 row has label 'nan': taken as missing"):
        items = read_items([tmp_path], table)
    assert [item.labels for item in items] == [{"x"}, frozenset()]
    with pytest.warns(UserWarning, match="1 row has label 'nan': taken as missing"):
        assert [query.path.name for query in load_dataset(tmp_path).queries] == ["a.png"]
