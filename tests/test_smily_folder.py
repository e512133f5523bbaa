"""SMILY's folder: whole after every failure, nobody else's files, and builds that go on."""

import json
import os
from dataclasses import fields

import numpy as np
import pytest
from plain_encoder import PlainEncoder

from sish.cli import main
from sish.errors import IndexLockedError, StoreError
from sish.systems.item import Item
from sish.systems.smily.embeddings import EmbeddingTable
from sish.systems.smily.folder import SmilyHeader, locked, read_folder, write_folder
from sish.systems.smily.regions import Smily


def state(n_items):
    """A database of so many items with a patch each, whose numbers say how many there are."""
    items = tuple(Item(f"item-{number}", f"{number}.png") for number in range(n_items))
    table = EmbeddingTable(
        np.full((n_items, 4), n_items, np.float32),
        np.arange(n_items, dtype=np.int32),
        np.zeros((n_items, 2), np.int64),
        np.full(n_items, 256, np.float32),
    )
    return SmilyHeader("encoder", (1.0,), 256, items), {1.0: table}


def write(folder, n_items):
    write_folder(folder, *state(n_items))


def size_of(folder):
    """Items of the database, all of whose files must be of one state."""
    header, tables = read_folder(folder)
    n_items = len(header.items)
    assert np.array_equal(tables[1.0].vectors, np.full((n_items, 4), n_items))
    return n_items


def cut_at(moment):
    """Wrap functions so that the call after so many, of any of them, interrupts instead."""
    left = [moment]

    def wrap(function):
        def counted(*given, **more):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return function(*given, **more)

        return counted

    return wrap


@pytest.mark.parametrize("first", [0, 2])
def test_an_interrupt_at_any_moment_leaves_one_whole_database(first, tmp_path, monkeypatch):
    """From the first changing call on, until a write is done before it is interrupted."""
    for moment in range(100):
        folder = tmp_path / f"{moment}"
        if first:
            write(folder, first)
        with monkeypatch.context() as patch:
            wrap = cut_at(moment)
            for module, name in ((os, "replace"), (os, "fsync"), (os, "unlink"), (np, "save")):
                patch.setattr(module, name, wrap(getattr(module, name)))
            try:
                write(folder, 3)
                finished = True
            except KeyboardInterrupt:
                finished = False
        there = size_of(folder) if (folder / "smily.json").exists() else 0
        assert there in ((3,) if finished else (first, 3))
        write(folder, 4)
        assert size_of(folder) == 4
        assert len(list(folder.iterdir())) == 1 + len(fields(EmbeddingTable))  # nothing of the others is left
        if finished:
            break
    assert finished and moment > len(fields(EmbeddingTable))


def test_files_of_others_stay(tmp_path):
    neighbour = tmp_path / "db.new"
    neighbour.mkdir()
    (neighbour / "mine.txt").write_text("x")
    folder = tmp_path / "db"
    write(folder, 1)
    for name in ("thesis.docx", "scale.npy", "scale-0.notes.npy"):
        (folder / name).write_text("mine")
    write(folder, 2)
    assert size_of(folder) == 2 and (neighbour / "mine.txt").read_text() == "x"
    assert all((folder / name).exists() for name in ("thesis.docx", "scale.npy", "scale-0.notes.npy"))


@pytest.mark.parametrize("header", ["{}", "[]", "not JSON", '{"format": "smily-99"}', "[" * 100_000])
def test_a_folder_with_a_header_of_somebody_else_is_refused(header, tmp_path):
    (tmp_path / "smily.json").write_text(header)
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(StoreError, match="no smily database"):
        write(tmp_path, 1)
    assert (tmp_path / "smily.json").read_text() == header and (tmp_path / "thesis.docx").exists()


def test_a_database_does_not_go_into_an_index(own_index):
    with pytest.raises(StoreError, match="inside the index"):
        write(own_index.path / "regions", 1)
    assert not (own_index.path / "regions").exists()


def test_the_first_format_is_read_and_replaced(tmp_path):
    header, tables = state(2)
    plain = {"format": "smily-1", "encoder": "encoder", "mpps": [1.0], "size_px": 256, "scales": [1.0]}
    items = [
        {"item_id": it.item_id, "path": str(it.path), "labels": [], "group": "", "mpp": None, "mask": None}
        for it in header.items
    ]
    for name, array in tables[1.0].arrays().items():
        np.save(tmp_path / f"scale-0.{name}.npy", array)
    (tmp_path / "smily.json").write_text(json.dumps(plain | {"items": items}))
    assert size_of(tmp_path) == 2
    write(tmp_path, 3)
    assert size_of(tmp_path) == 3 and not (tmp_path / "scale-0.item.npy").exists()


def test_one_process_writes_at_a_time(tmp_path):
    with locked(tmp_path / "db"), pytest.raises(IndexLockedError), locked(tmp_path / "db"):
        pass
    Smily(None, encoder=PlainEncoder()).fit([]).save(tmp_path / "db")


# ---- builds


@pytest.fixture
def encoding(monkeypatch):
    """The ids of items that are encoded, as they come; the item named in `stop` interrupts."""
    told = []
    real = Smily.describe

    def describe(self, item):
        if item.item_id in told[:1]:
            raise KeyboardInterrupt
        told.append(item.item_id)
        return real(self, item)

    monkeypatch.setattr("sish.vqvae.pretrained.load_encoder", lambda *given, **more: PlainEncoder())
    monkeypatch.setattr(Smily, "describe", describe)
    return told


def build(database, paths, *more):
    return main(["smily", "build", *map(str, paths), "--database", str(database), "--whole", *more])


def test_an_interrupted_build_encodes_no_slide_again(encoding, pictures, tmp_path, capsys):
    paths = [item.path for item in pictures[:6]]
    encoding.append(pictures[4].item_id)  # the fifth interrupts
    assert build(tmp_path / "cut", paths) == 130
    done = encoding[1:]
    assert done == [item.item_id for item in pictures[:4]] and not (tmp_path / "cut" / "smily.json").exists()
    encoding[:] = [""]
    assert build(tmp_path / "cut", paths) == 0
    assert encoding[1:] == [item.item_id for item in pictures[4:6]]
    assert build(tmp_path / "whole", paths) == 0
    assert "6 items" in capsys.readouterr().out
    cut, whole = (read_folder(tmp_path / name) for name in ("cut", "whole"))
    assert cut[0] == whole[0]
    assert all(
        np.array_equal(a, b)
        for a, b in zip(cut[1][0.0].arrays().values(), whole[1][0.0].arrays().values(), strict=True)
    )
    assert not (tmp_path / "cut" / "encoded").exists()


def test_what_was_encoded_of_another_file_or_with_other_settings_is_encoded_again(
    encoding, pictures, tmp_path
):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, item in zip(paths, pictures, strict=False):
        path.write_bytes(item.path.read_bytes())
    encoding.append("2")
    assert build(tmp_path / "db", paths) == 130
    paths[0].write_bytes(pictures[7].path.read_bytes())
    os.utime(paths[0], ns=(1, 1))
    kept = tmp_path / "db" / "encoded"
    (kept / "notes.txt").write_text("mine")
    encoding[:] = [""]
    assert build(tmp_path / "db", paths) == 0
    assert encoding[1:] == ["0", "2"] and [path.name for path in kept.iterdir()] == ["notes.txt"]


def test_half_of_an_embedding_is_made_again(encoding, pictures, tmp_path):
    paths = [item.path for item in pictures[:2]]
    encoding.append(pictures[1].item_id)
    assert build(tmp_path, paths) == 130
    (kept,) = (tmp_path / "encoded").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    encoding[:] = [""]
    assert build(tmp_path, paths) == 0
    assert len(encoding) == 3


def test_wrong_scales_make_no_folder(encoding, pictures, tmp_path):
    build = ["smily", "build", str(pictures[0].path), "--database", str(tmp_path / "new"), "--mpps", "[-1]"]
    assert main(build) == 1 and not (tmp_path / "new").exists()
