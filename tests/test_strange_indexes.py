"""A stranger's index, whose checksums fit and whose contents make no sense: one line each."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_cases import append, arrays_of, make_row

import sish
from sish.calibration import Calibration
from sish.errors import IndexCorruptError, IndexFormatError, ParameterError, StoreError
from sish.index.repair import repair
from sish.index.store import Store
from sish.index.store.manifest import read_manifest
from sish.index.store.packed import pack
from sish.index.store.verify import verify

DEEP = 100_000


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("strange") / "index"
    sish.Index.create(path)
    with Store.open(path, write=True) as store:
        append(store, "a", 30, 1)
        append(store, "b", 20, 2)
        store.remove(["a"])
        append(store, "c", 1, 3)
    return path


@pytest.fixture
def path(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "index")


def one_line(error: BaseException | str) -> str:
    line = str(error)
    assert "\n" not in line and len(line) < 700
    return line


def write_vouched(folder: Path, files: dict[str, Any], name: str, data: bytes) -> None:
    """Write a file, and its size and checksum into a manifest's list of files."""
    (folder / name).write_bytes(data)
    files[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a manifest says, with a checksum that fits."""
    body = json.loads((path / "manifest.json").read_bytes())
    del body["sha256"]
    change(body)
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(body, indent=1))


def vouch(path: Path, table: str, data: bytes) -> None:
    """Write a table of the first segment, with a manifest that vouches for it."""

    def change(body: dict[str, Any]) -> None:
        first = body["segments"][0]
        write_vouched(path / "segments" / first["name"], first["files"], first[table], data)

    edit_manifest(path, change)


def vouch_rows(path: Path, data: bytes) -> None:
    """Give the first segment a table of slides of format 1, which is JSON."""

    def change(body: dict[str, Any]) -> None:
        first = body["segments"][0]
        for name in (first["table"], "order.safetensors"):
            del first["files"][name]
        first["table"] = "slides.json"
        write_vouched(path / "segments" / first["name"], first["files"], first["table"], data)

    edit_manifest(path, change)


def assert_damaged(path: Path, *, knows_slides: bool = False) -> None:
    """The first segment is damaged; the slides of the other are there, and everything says so on one line."""
    index = sish.Index.open(path)
    assert "c" in index and ("b" in index) == knows_slides
    (reason,) = index.damage
    one_line(reason)
    for use in (index.view, index.snapshot, lambda: index.search("c"), lambda: index.remove("c")):
        with pytest.raises(IndexCorruptError) as error:
            use()
        assert one_line(error.value) == reason
    (line,) = verify(path)
    assert one_line(line) == reason
    assert repair(path, drop=True).is_sound
    assert [row.slide_id for row in sish.Index.open(path).slides] == ["c"]


ODD: list[tuple[str, Any]] = [
    *(("label", value) for value in ({}, {"a": "b"}, 5, ["x"], True)),
    *(("n_patches", value) for value in ("2", -1, True, 2.0, None, 2**70, [1], 0, 3)),
    *(("metadata", value) for value in (None, [], "x", {"a": 1}, {"a": {"b": "c"}}, {"a": None})),
    *(("slide_id", value) for value in (None, 5, ["a"], {})),
    *(("path", value) for value in (None, 5)),
    *(("patient", value) for value in (None, 5)),
    *(("mpp", value) for value in ("0.5", None, True, -1.0, float("nan"), float("inf"), 10**400)),
    *(("patch_l0_px", value) for value in ("256", None, -1, float("-inf"))),
    *(("width", value) for value in ("9", -1, 1.5, None, 2**63)),
    *(("status", value) for value in (None, 1)),
    ("site", 7),
    ("unknown", "field"),
    ("un\nknown" * 1000, "field"),
]


@pytest.mark.parametrize(("name", "value"), ODD, ids=lambda value: repr(value)[:20])
def test_rows_with_fields_of_another_kind(path, name, value):
    rows = [asdict(row) for row in Store.open(path).segments[0].patches.slides]
    rows[-1][name] = value
    vouch_rows(path, json.dumps(rows).encode())
    assert_damaged(path)


def test_a_table_of_format_1_is_read(path):
    rows = [asdict(row) for row in Store.open(path).segments[0].patches.slides]
    slides = sish.Index.open(path).slides
    vouch_rows(path, json.dumps(rows).encode())
    assert sish.Index.open(path).slides == slides and verify(path) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{}",
        b"null",
        b"7",
        b'"text"',
        b"[7]",
        b"[[]]",
        b"[null, null]",
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'[{"a":' * DEEP,
        b"[" + b"9" * 5000 + b"]",
        b'[{"slide_id": "b"}]',
    ],
    ids=lambda data: repr(data)[:20],
)
@pytest.mark.parametrize("table", ["table", "tombstones"])
def test_tables_that_are_none(path, table, data):
    vouch(path, table, data)
    assert_damaged(path)


@pytest.mark.parametrize("data", [b"", b"[]", b"[7]", b"[[]]", b"null", b'[{"slide_id": "b"}]', b"[" * DEEP])
def test_tables_of_format_1_that_are_none(path, data):
    vouch_rows(path, data)
    assert_damaged(path)


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"by_slide": np.zeros(9, np.int32)},
        {"by_slide": np.zeros(50, np.int64)},
        {"by_slide": np.zeros(50, np.int32), "key_begins": np.array([0, 9, 50, 49, 50], np.int32)},
        {"by_slide": np.zeros(50, np.int32), "key_begins": np.array([0, 51], np.int32)},
        {"by_slide": np.zeros(50, np.int32), "key_begins": np.array([-1, 50], np.int32)},
        {"by_slide": np.zeros(50, np.int32), "key_begins": np.zeros(0, np.int32)},
        {"by_slide": np.zeros(50, np.int32), "other": np.zeros(50, np.int32)},
    ],
)
def test_orders_that_lead_out_of_the_arrays(path, order):
    def change(body: dict[str, Any]) -> None:
        first = body["segments"][0]
        write_vouched(path / "segments" / first["name"], first["files"], "order.safetensors", pack(order))

    edit_manifest(path, change)
    assert_damaged(path, knows_slides=True)


@pytest.mark.parametrize("data", [b"[true]", b"[0.0]", b'["0"]', b"[-1]", b"[2]", b"[1e400]"])
def test_tombstones_that_are_no_numbers_of_slides(path, data):
    vouch(path, "tombstones", data)
    assert_damaged(path)


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    with Store.create(tmp_path / "a", {}) as store:
        append(store, "a", 3, 1)
        for name, value in (("label", 5), ("metadata", {"a": 1}), ("patient", None), ("mpp", -1.0)):
            row = replace(make_row("b", 3, 1), **{name: value})
            with pytest.raises(ParameterError, match=f"slide 'b' has {name}"):
                store.append(row, *arrays_of(make_row("b", 3, 1)))
            with pytest.raises(ParameterError, match=f"has {name}"):
                store.relabel({"a": replace(row, slide_id="a")})
        assert store.verify() == store.leftovers() == []
        assert [row.label for row in store.slides] == [None]
    nested: Any = "end"
    for _ in range(500):
        nested = [nested]
    with pytest.raises(ParameterError, match="nested too deep"):
        Store.create(tmp_path / "b", {"x": nested})
    assert not (tmp_path / "b").exists()


def changed(*place: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set one place of the manifest."""

    def change(body: dict[str, Any]) -> None:
        for step in place[:-1]:
            body = body[step]
        body[place[-1]] = value

    return change


SEGMENT = ("segments", 0)
SIZE = (*SEGMENT, "files", "keys/c.0.0", "size")
MANIFESTS: list[Callable[[dict[str, Any]], object]] = [
    *(changed("generation", value=value) for value in ("7", -1, None, True, 1.5, [], 2**70)),
    *(changed("next_segment", value=value) for value in ("7", None, {})),
    *(changed("key_orders", value=value) for value in (0, "2", 1.0, -3)),
    *(changed("barcode_bytes", value=value) for value in (0, "8", [8])),
    *(changed("header", value=value) for value in (None, 5, [], "x")),
    *(changed("segments", value=value) for value in (None, 5, {}, {"a": 1}, [5], [None], [[]], "abc")),
    *(changed(*SEGMENT, "patches", value=value) for value in ("3", -1, None, 2**63)),
    *(changed(*SEGMENT, "slides", value=value) for value in ("3", -1, None)),
    *(changed(*SEGMENT, "name", value=value) for value in ("../../x", 5, None, "00000001/..", "")),
    *(changed(*SEGMENT, "table", value=value) for value in ("other.json", "../x", None, 5, [])),
    *(changed(*SEGMENT, "tombstones", value=value) for value in ("other.json", "", 5, [])),
    *(changed(*SEGMENT, "files", value=value) for value in (None, [], {}, {"../x": {}}, {"keys/c.0.0": 5})),
    *(changed(*SIZE, value=value) for value in ("9", -1, None, 1.0)),
    changed(*SEGMENT, "files", "keys/c.0.0", "sha256", value="x"),
    changed(*SEGMENT, "files", "keys/c.0.0", "sha256", value=5),
    changed("extras", value=5),
    changed("extras", value={"../x": {}}),
    changed("extras", value={"tree.00000001.npz": 5}),
    *(changed("measured", value=value) for value in (None, 5, [], "x")),
    lambda body: body["segments"].append(body["segments"][0]),
    lambda body: body["segments"][0].update({"a\nb" * 1000: 1}),
    lambda body: body.pop("segments"),
]


@pytest.mark.parametrize("number", range(len(MANIFESTS)))
def test_manifests_of_another_kind(path, number):
    edit_manifest(path, MANIFESTS[number])
    for use in (Store.open, sish.Index.open, repair):
        with pytest.raises(IndexCorruptError, match=r"manifest\.json has a wrong entry") as error:
            use(path)
        one_line(error.value)
    (line,) = verify(path)
    one_line(line)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed("key_orders", value=2**40), "is not of the"),
        (changed("key_orders", value=2**62), "is not of the"),
        (changed("barcode_bytes", value=2**61), "is not of the"),
        (changed(*SEGMENT, "patches", value=2**62), "is not of the"),
        (changed(*SEGMENT, "patches", value=1), "is not of the"),
        (changed(*SEGMENT, "slides", value=9), "other columns than those of 9 slides"),
        (lambda body: body["segments"][0]["files"].pop("row/c.0"), "is not of the"),
    ],
)
def test_sizes_that_do_not_fit_the_files(path, change, says):
    edit_manifest(path, change)
    with Store.open(path) as store, pytest.raises(IndexCorruptError, match=says) as error:
        store.snapshot()
    one_line(error.value)
    assert all(one_line(line) for line in verify(path)) and verify(path)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"format": "sish index", "version": 1, "header": ' + b'{"a":' * DEEP,
        b'{"format": "sish index", "version": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"format": "sish index", "version": "' + b"9" * 100_000 + b'"}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda data: repr(data)[:30],
)
def test_manifests_without_end(path, data):
    (path / "manifest.json").write_bytes(data)
    for use in (Store.open, sish.Index.open, repair):
        with pytest.raises(StoreError) as error:
            use(path)
        one_line(error.value)
    (line,) = verify(path)
    one_line(line)


def test_a_manifest_that_is_far_too_large(path, monkeypatch):
    monkeypatch.setattr("sish.index.store.manifest._MOST_BYTES", 1000)
    with pytest.raises(IndexCorruptError, match="more than 1000 bytes"):
        Store.open(path)


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": [value]}
    return value


HEADERS: list[Callable[[dict[str, Any]], object]] = [
    *(changed("header", value=nested(depth)) for depth in (20, 100, 300)),
    changed("header", value={f"field {number}": number for number in range(20_000)}),
    lambda body: body["header"].update({f"field {number}\n": number for number in range(20_000)}),
    lambda body: body["header"]["recipe"].update({f"field {number}": number for number in range(20_000)}),
    lambda body: body["header"]["search"].update({f"field {number}": number for number in range(20_000)}),
    *(changed("header", "fingerprint", value=value) for value in (None, 5, ["x"], {})),
    *(changed("header", "recipe", value=value) for value in (None, 5, [], "x" * 10_000)),
    *(changed("header", "recipe", "patch_px", value=value) for value in ("256", -1, True, 1e9, None, [])),
    *(changed("header", "recipe", "weights", value=value) for value in (None, 5, ["shipped"])),
    *(changed("header", "search", value=value) for value in (None, 5, [])),
    *(changed("header", "search", "budget", value=value) for value in ("9", -1, 1.5, 2**64, None, [[]])),
    *(changed("header", "search", "n_seeds", value=value) for value in (2**40, 10**6)),
    *(changed("header", "calibration", value=value) for value in (5, [], {}, "x", {"centre": 5})),
]


@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_headers_of_another_kind(path, number):
    edit_manifest(path, HEADERS[number])
    with pytest.raises((IndexFormatError, IndexCorruptError)) as error:
        sish.Index.open(path)
    one_line(error.value)
    assert all(one_line(line) for line in verify(path))


def calibration(**changes: Any) -> dict[str, Any]:
    return {**Calibration(np.ones(8, np.float32), 300, 9).to_json(), **changes}


def centre(*numbers: float, times: int = 1) -> str:
    return Calibration(np.array(numbers * times, np.float32), 1, 1).to_json()["centre"]


@pytest.mark.parametrize(
    "stored",
    [
        calibration(centre=""),
        calibration(centre="AAA="),
        calibration(centre=None),
        calibration(centre=centre(1.0, float("nan"))),
        calibration(centre=centre(float("inf"))),
        calibration(centre=centre(0.0, times=100_000)),
        *(calibration(threshold=value) for value in ("300", 3.5, True, -1, None, 2**70)),
        *(calibration(patches=value) for value in ("9", [], None, -1)),
    ],
    ids=lambda stored: str(stored)[:40],
)
def test_calibrations_of_another_kind(stored):
    with pytest.raises(IndexFormatError, match="calibration is not one") as error:
        Calibration.from_json(stored)
    one_line(error.value)
    assert Calibration.from_json(calibration()).threshold == 300


def tree_bytes(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def swollen() -> bytes:
    """A compressed file of ten megabytes of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("nodes.npy", bytes(10_000_000))
    return buffer.getvalue()


def huge() -> bytes:
    """An array that says it has 10 ** 15 bytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("nodes.npy", file.getvalue())
    return buffer.getvalue()


NODES = np.zeros((1, 8), np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"",
        swollen(),
        huge(),
        tree_bytes(),
        tree_bytes(nodes=NODES),
        tree_bytes(nodes=NODES.astype(float), leaves=NODES[None]),
        tree_bytes(nodes=NODES, leaves=np.zeros((1, 1, 16), np.uint8)),
        tree_bytes(nodes=np.zeros((1, 16), np.uint8), leaves=np.zeros((1, 1, 16), np.uint8)),
        tree_bytes(nodes=np.array([{}], object)),
    ],
    ids=["text", "empty", "swollen", "huge", "no arrays", "no leaves", "floats", "shapes", "wide", "objects"],
)
def test_trees_that_are_none(path, data):
    write_files: dict[str, Any] = {}
    write_vouched(path, write_files, "tree.00000099.npz", data)
    edit_manifest(path, changed("extras", value=write_files))
    index = sish.Index.open(path)
    assert [row.slide_id for row in index.slides] == ["b", "c"]
    with pytest.raises(IndexCorruptError, match="tree") as error:
        index.view()
    one_line(error.value)


def test_keys_that_no_tree_made(path):
    """An index that says texture, whose keys are the paper's."""
    with pytest.raises(IndexCorruptError, match="do not fit its tree") as error:
        sish.Index.open(path).view()
    one_line(error.value)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)  # to open it would wait for ever


def test_pipes_are_refused_and_are_no_damage(path):
    first = read_manifest(path).segments[0]
    folder = path / "segments" / first.name
    for file in (folder / first.table, folder / "keys/c.0.0", folder / "zarr.json", path / "manifest.json"):
        good = file.read_bytes()
        make_pipe(file)
        for use in (Store.open, sish.Index.open, lambda path: repair(path, drop=True)):
            with pytest.raises(IndexCorruptError, match="is no plain file"):
                use(path)
        assert [line for line in verify(path) if file.name in line]
        file.unlink()
        file.write_bytes(good)
    assert verify(path) == []
    assert not (path / "damaged").exists()
