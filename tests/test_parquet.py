"""The patches of an index, in memory and as Parquet."""

import sys
from pathlib import Path

import numpy as np
import pytest
from golden_indexes import ASKED
from slide_rows import slide_row
from test_frames import filled

import sish
from sish.cli import main
from sish.index.store import Store
from sish.parquet import write_parquet
from sish.queries import stored_codes

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
GOLDEN = Path(__file__).parent / "golden"


def check_patches(index):
    """Compare the patches of each slide with those of the whole index."""
    everything = index.snapshot()
    codes = stored_codes(everything, range(len(everything.slides)))
    for row, want in zip(index.slides, codes, strict=True):
        found = index.patches(row.slide_id)
        assert (found.slide_id, len(found), found.mpp, found.patch_l0_px) == (
            row.slide_id, row.n_patches, row.mpp, row.patch_l0_px,
        )  # fmt: skip
        assert found.keys.tolist() == want.keys[:, 0].tolist()
        assert found.barcodes.tolist() == want.barcodes.tolist() and found.barcodes.dtype == np.uint8
        assert found.l0_xy.tolist() == want.l0_xy.tolist() and found.l0_xy.dtype == np.int64


def check_file(index, path, names=None):
    """Compare a file with the frames of the slides' patches."""
    pandas = pytest.importorskip("pandas")
    frames = [
        index.patches(row.slide_id).to_pandas()
        for row in index.slides
        if names is None or row.slide_id in names
    ]
    want = pandas.concat([frame for frame in frames if len(frame)], ignore_index=True)
    assert parquet.read_table(path).to_pylist() == want.to_dict("records")


def test_patches_of_each_slide(built_index, tmp_path):
    check_patches(sish.Index.open(built_index))
    own = filled(tmp_path / "a.sish", 9)
    own.remove(["s3", "s8"])
    check_patches(own)
    assert not len(own.patches("s4")) and not len(own.patches("s4").to_pandas())
    with pytest.raises(sish.UnknownSlideError, match="holds no slide 's33': sish index list"):
        own.patches("s33")


@pytest.mark.parametrize("name", ASKED)
def test_older_indexes_too(name, tmp_path):
    index = sish.Index.open(GOLDEN / f"{name}.sish")
    check_patches(index)
    index.to_parquet(tmp_path / "a.parquet")
    check_file(index, tmp_path / "a.parquet")


@pytest.mark.parametrize("batch_bytes", [1, 700, 1 << 25])
def test_there_and_back(tmp_path, monkeypatch, batch_bytes):
    monkeypatch.setattr("sish.parquet._BATCH_BYTES", batch_bytes)
    index, path = filled(tmp_path / "a.sish", 11), tmp_path / "a.parquet"
    index.remove(["s3", "s10"])
    assert index.to_parquet(path) == sum(row.n_patches for row in index.slides)
    check_file(index, path)
    groups = parquet.read_metadata(path)
    sizes = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
    assert max(sizes) <= max(1, batch_bytes // 168)
    assert index.to_parquet(path, slide_ids=["s9", "s1", "s4"]) == 2
    check_file(index, path, ["s9", "s1"])
    assert index.to_parquet(path, slide_ids="s9") == 1
    assert index.to_parquet(path, slide_ids=[]) == 0 == parquet.read_table(path).num_rows


def test_columns_have_fixed_types(built_index, tmp_path):
    index = sish.Index.open(built_index)
    index.to_parquet(tmp_path / "a.parquet")
    schema = parquet.read_schema(tmp_path / "a.parquet")
    assert dict(zip(schema.names, map(str, schema.types), strict=True)) == {
        "slide_id": "string", "x": "int64", "y": "int64", "size": "double", "mpp": "double", "key": "int64",
        "barcode": "fixed_size_binary[128]",
    }  # fmt: skip
    assert schema.metadata[b"sish.encoder"].decode() == index.fingerprint
    sish.Index.create(tmp_path / "empty.sish").to_parquet(tmp_path / "a.parquet")
    assert parquet.read_table(tmp_path / "a.parquet").num_rows == 0


def test_what_is_not_known_is_null(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)
    l0_xy = np.stack(np.divmod(np.arange(20), 5), 1) * 256
    index = sish.Index.from_vectors(
        tmp_path / "a.sish", vectors[:20], ["placed"] * 20, l0_xy=l0_xy, mpp=0.5, show_progress=False
    )
    index.add_vectors(vectors[20:], ["bare"] * 40, show_progress=False)
    index.to_parquet(tmp_path / "a.parquet")
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == 60
    for row in rows:
        missing = {name for name, value in row.items() if value is None}
        assert missing == ({"x", "y", "size", "mpp"} if row["slide_id"] == "bare" else set())
    assert [(row["x"], row["y"]) for row in rows if row["slide_id"] == "placed"] == list(
        map(tuple, l0_xy.tolist())
    )


def test_vectors_are_a_column_where_they_are_kept(tmp_path):
    vectors, path = np.random.default_rng(0).normal(size=(30, 12)), tmp_path / "a.parquet"
    ids = ["b"] * 20 + ["a"] * 10
    index = sish.Index.from_vectors(tmp_path / "a.sish", vectors, ids, rerank="int8", show_progress=False)
    index.to_parquet(path)
    assert str(parquet.read_schema(path).field("vector").type).startswith("fixed_size_list<")
    rows = parquet.read_table(path).to_pylist()
    patches = [index.patches(row.slide_id) for row in index.slides]
    wanted = [vector.tolist() for slide in patches for vector in slide.vectors]
    assert [row["vector"] for row in rows] == wanted
    assert [it.tolist() for slide in patches for it in slide.to_pandas()["vector"]] == wanted


def test_ids_that_are_no_text_are_written_as_escapes(tmp_path):
    with Store.create(tmp_path / "plain", {}) as store:
        store.append(slide_row("a\udcff,=é\n"), [[0]], np.zeros((1, 2), np.uint8), [[0, 0]])
        write_parquet(store.state, tmp_path / "a.parquet")
    assert parquet.read_table(tmp_path / "a.parquet")["slide_id"].to_pylist() == ["a\\udcff,=é\n"]


def test_a_file_appears_when_it_is_whole(built_index, tmp_path, monkeypatch):
    index, path = sish.Index.open(built_index), tmp_path / "a.parquet"
    index.to_parquet(path)
    before = path.read_bytes()
    monkeypatch.setattr("sish.parquet._fixed_bytes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        index.to_parquet(path, slide_ids=index.slides[0].slide_id)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_refusals(built_index, tmp_path, monkeypatch):
    index = sish.Index.open(built_index)
    (tmp_path / "mine.csv").write_text("mine")
    for wrong, told in (
        (tmp_path / "mine.csv", "is no .parquet file"), (index.path / "a.parquet", "lies inside the index"),
    ):  # fmt: skip
        with pytest.raises(sish.ParameterError, match=told):
            index.to_parquet(wrong)
    with pytest.raises(sish.OutputError, match="cannot write"):
        index.to_parquet(tmp_path / "no folder" / "a.parquet")
    near = index.slides[0].slide_id
    with pytest.raises(sish.UnknownSlideError, match=f"nearest: '{near}'"):
        index.to_parquet(tmp_path / "a.parquet", slide_ids=[near[:-1]])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        sish.MissingPackageError, match=r"pyarrow is not installed; pip install -e .*\[tables\]"
    ):
        index.to_parquet(tmp_path / "a.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_the_command(built_index, tmp_path, capsys):
    index, path = sish.Index.open(built_index), tmp_path / "a.parquet"
    words = ["export", "--index", str(index.path), "--parquet", str(path)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{path}: {index.info().patches} patches\n"
    check_file(index, path)
    first, second = (row.slide_id for row in index.slides[:2])
    assert main([*words, "--slides", second, first]) == 0
    check_file(index, path, [first, second])
    assert main([*words, "--slides", "nobody"]) == 1
    assert "holds no slide 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize("reader", ["polars", "duckdb"])
def test_other_readers(built_index, tmp_path, reader):
    module = pytest.importorskip(reader, reason=f"{reader} is not installed")
    index, path = sish.Index.open(built_index), tmp_path / "a.parquet"
    index.to_parquet(path)
    found = module.read_parquet(str(path))
    rows = found.rows() if reader == "polars" else found.fetchall()
    assert rows == [tuple(row.values()) for row in parquet.read_table(path).to_pylist()]
