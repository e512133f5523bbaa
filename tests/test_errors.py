"""Errors by their cause: of the class, and the built-in class, that a caller would catch, with attributes."""

import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from store_cases import append

import sish
from sish import errors
from sish.encoders import load
from sish.errors import SishError
from sish.feature_files import find_feature_files, read_features
from sish.identity import file_digest
from sish.index.store import Store
from sish.index.store.disk import storage_errors
from sish.labels import read_labels
from sish.outputs import write_output
from sish.slides.files import find_slides
from sish.slides.formats.pictures import decode_mask, decode_picture

CLASSES = [
    kind
    for name in vars(errors)
    if isinstance(kind := getattr(errors, name), type) and issubclass(kind, errors.SishError)
]


def put(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def no_scale(path: Path) -> Path:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return path


def store(folder: Path) -> Store:
    made = Store.create(folder / "an.sish", {})
    append(made, "one", 2, 0)
    return made


def test_the_drawing_has_every_class_below_its_base():
    """The tree in the module's text is the one of the classes, each with its built-in base."""
    parents, found = {0: None}, {}
    for line in errors.__doc__.splitlines():
        if drawn := re.match(r"    ([│├└─ ]*)(\w+Error)\b(.*)", line):
            depth = len(drawn[1]) // 4
            parents[depth] = drawn[2]
            builtin = re.search(r"\[(\w+)\]", drawn[3])
            found[drawn[2]] = (parents.get(depth - 1), builtin and builtin[1])
    for kind in CLASSES:
        base, builtin = found.pop(kind.__name__)
        assert base is None or base in {it.__name__ for it in kind.__bases__}, kind
        outside = [it.__name__ for it in kind.__bases__ if not issubclass(it, SishError)]
        assert kind is SishError or outside == ([builtin] if builtin else []), kind
    assert found == {}


@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_keeps_its_line_and_what_it_is_about_through_a_pickle(kind):
    plain = kind("it's a line")
    assert (str(plain), plain.path, plain.slide_id) == ("it's a line", None, None)
    made = kind("it's a line", path="folder/a.svs", slide_id="a")
    for error in (made, pickle.loads(pickle.dumps(made))):
        assert type(error) is kind and str(error) == "it's a line"
        assert (error.path, error.slide_id) == (Path("folder/a.svs"), "a")


def test_a_line_of_labels_is_kept_in_a_pickle():
    error = errors.LabelsError("odd")
    error.line = 7
    assert pickle.loads(pickle.dumps(error)).line == 7


def test_what_an_error_is_about_is_not_replaced_by_where_it_was_seen():
    with pytest.raises(SishError) as caught, errors.errors_about("outer", "b"), errors.errors_about("inner"):
        raise errors.SlideOpenError("odd", slide_id="a")
    assert (caught.value.path, caught.value.slide_id) == (Path("inner"), "a")


def test_what_the_disk_says_and_what_we_say_stay_apart():
    """An error of ours that is an OSError too passes where those of the system are translated."""
    with pytest.raises(errors.IndexNotFoundError, match="none here"), storage_errors(Path("a"), "read"):
        raise errors.IndexNotFoundError("none here")


# Each call, the error and the built-in class that it is too, and where its path leads, from the folder.
CASES = {
    "no slide": (
        lambda at: sish.open_slide(at / "no.svs"), "SlideNotFoundError", FileNotFoundError, "no.svs",
    ),
    "a folder": (lambda at: sish.open_slide(at), "SlideOpenError", SishError, ""),
    "no scale": (lambda at: sish.open_slide(no_scale(at / "a.png")), "MissingMppError", SishError, "a.png"),
    "a bad scale": (
        lambda at: sish.open_slide(no_scale(at / "a.png"), mpp=-1), "ParameterError", ValueError, "a.png",
    ),
    "no folder of slides": (
        lambda at: find_slides(at / "no"), "SlideNotFoundError", FileNotFoundError, "no",
    ),
    "no picture": (
        lambda at: decode_picture(at / "no.png"), "SlideNotFoundError", FileNotFoundError, "no.png",
    ),
    "a broken mask": (lambda at: decode_mask(put(at / "a.png", "x")), "SlideOpenError", SishError, "a.png"),
    "no file to know": (
        lambda at: file_digest(at / "no.svs"), "SlideNotFoundError", FileNotFoundError, "no.svs",
    ),
    "no features": (
        lambda at: find_feature_files(at / "no"), "SlideNotFoundError", FileNotFoundError, "no",
    ),
    "broken features": (
        lambda at: read_features(put(at / "a.h5", "x")), "SlideOpenError", SishError, "a.h5",
    ),
    "no labels": (
        lambda at: read_labels(at / "no.csv"), "LabelsNotFoundError", FileNotFoundError, "no.csv",
    ),
    "empty labels": (lambda at: read_labels(put(at / "a.csv", "")), "LabelsError", ValueError, "a.csv"),
    "odd labels": (
        lambda at: read_labels(put(at / "a.csv", "slide_id\na\na\n")), "LabelsError", ValueError, "a.csv",
    ),
    "no index": (lambda at: sish.Index.open(at / "no"), "IndexNotFoundError", FileNotFoundError, "no"),
    "an index already": (
        lambda at: Store.create(store(at).path, {}), "IndexExistsError", FileExistsError, "an.sish",
    ),
    "a second writer": (
        lambda at: [store(at), Store.open(at / "an.sish", write=True)],
        "IndexLockedError", SishError, "an.sish",
    ),
    "a foreign manifest": (
        lambda at: put(store(at).path / "manifest.json", "{}") and Store.open(at / "an.sish"),
        "IndexFormatError", SishError, "an.sish/manifest.json",
    ),
    "a string of ids": (lambda at: store(at).remove("one"), "ParameterTypeError", TypeError, None),
    "an output nowhere": (
        lambda at: write_output(at / "no" / "a.html", b"", replaces=(".html",)),
        "OutputError", OSError, "no/a.html",
    ),
    "an input as output": (
        lambda at: write_output(file := put(at / "a.html", ""), b"", inputs=[file], replaces=(".html",)),
        "ParameterError", ValueError, "a.html",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_call_fails_by_its_cause(case, tmp_path):
    call, name, builtin, path = CASES[case]
    with pytest.raises(SishError) as caught:
        call(tmp_path)
    assert type(caught.value).__name__ == name and isinstance(caught.value, builtin)
    assert caught.value.path == (None if path is None else tmp_path / path)


def test_a_line_of_a_labels_file_is_told(tmp_path):
    table = put(tmp_path / "a.csv", "slide_id,mpp\na,0.5\nb,many\n")
    with pytest.raises(sish.LabelsError) as caught:
        read_labels(table)
    assert (caught.value.line, caught.value.path) == (3, table)


def test_slides_of_an_index_are_named_by_their_ids(own_index, tmp_path):
    with pytest.raises(KeyError) as caught:
        own_index.remove("nobody")
    assert type(caught.value) is sish.UnknownSlideError
    assert (caught.value.slide_id, caught.value.path) == ("nobody", own_index.path)
    with pytest.raises(FileNotFoundError) as missing:
        own_index.search("nobody")
    assert type(missing.value) is sish.SlideNotFoundError
    broken = put(tmp_path / "broken.svs", "x")
    with pytest.raises(sish.SlideOpenError) as odd:
        own_index.add([broken], on_error="raise", show_progress=False)
    assert (odd.value.path, odd.value.slide_id) == (broken, "broken")


def test_a_query_that_cannot_be_run_is_named_by_its_file(own_index, tmp_path):
    Image.new("RGB", (600, 600), "white").save(white := tmp_path / "white.png")
    features = put(tmp_path / "a.h5", "x")
    for given in (white, features):
        with pytest.raises(sish.QueryError) as caught:
            own_index.search(given, mpp=1.0)
        assert caught.value.path == given


def test_a_slide_that_is_there_already(tmp_path):
    there = store(tmp_path)
    with pytest.raises(errors.SlideExistsError) as caught:
        append(there, "one", 2, 0)
    assert (caught.value.slide_id, caught.value.path) == ("one", there.path)


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load(str(tmp_path / "no.safetensors"))
    assert type(caught.value) is sish.WeightsNotFoundError
    assert caught.value.path == tmp_path / "no.safetensors"


def test_a_missing_package_is_an_import_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"need h5py .*interop") as caught:
        read_features(put(tmp_path / "a.h5", "x"))
    assert type(caught.value) is sish.MissingPackageError
