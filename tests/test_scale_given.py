"""What a user gives: `mpp` fills in where files tell nothing, `override_mpp` replaces what they tell."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from plain_encoder import PlainEncoder
from pyramids import write_pyramid

import sish
from sish.cli import main
from sish.errors import MissingMppError, ParameterError, QueryError
from sish.index.store import Store
from sish.slides.scale import find_scale
from sish.slides.slide import open_slide
from sish.systems.item import Item
from sish.systems.items import ScaleWarning, open_item, read_items
from sish.systems.smily.regions import Smily


def tissue(side=700, seed=0):
    """Pink and purple noise: every tile of it is tissue."""
    rng = np.random.default_rng(seed)
    pixels = np.array([215, 130, 180]) + rng.normal(0, 25, (side // 4, side // 4, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A slide that tells 0.5, one that says nothing, one with the 72 dpi of an image editor."""
    folder = tmp_path_factory.mktemp("scales")
    write_pyramid(folder / "tells.tif", tissue(), mpp=0.5)
    Image.fromarray(tissue(seed=1)).save(folder / "silent.png")
    write_pyramid(folder / "absurd.tif", tissue(seed=2), mpp=25_400 / 72)
    return folder


def scales(index):
    return {row.slide_id: (round(row.mpp, 3), row.mpp_source) for row in index.slides}


def run(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ---- the decision

FIELDS = {
    "vendor": ("openslide.mpp-x", "openslide.mpp-y"),
    "tiff-resolution": ("tiff.XResolution", "tiff.YResolution"),
    "objective-power": ("openslide.objective-power",),
}
NUMBERS = st.sampled_from(
    [
        "0.25",
        "0.5",
        "0,25",
        "0",
        "-1",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "junk",
        "",
        "352.86",
        "40",
        "20",
        "72",
        "20000",
    ]
)
MPPS = st.none() | st.sampled_from([0.05, 0.23, 0.5, 4.0])


def as_number(text):
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def micrometres(source, text):
    """The plain way: what one field says, NaN for nothing."""
    value = as_number(text)
    if source == "vendor" or not value:
        return value or math.nan
    return (25_400 if source == "tiff-resolution" else 10) / value


@given(st.dictionaries(st.sampled_from(list(FIELDS)), NUMBERS), MPPS, MPPS)
@example({"tiff-resolution": "72"}, 0.5, None)
def test_a_file_goes_before_mpp_and_override_mpp_before_a_file(told, mpp, override_mpp):
    properties = {"tiff.ResolutionUnit": "inch"}
    properties |= {field: text for source, text in told.items() for field in FIELDS[source]}
    chain = [("override", override_mpp or math.nan)]
    chain += [(source, micrometres(source, told[source])) for source in FIELDS if source in told]
    chain += [("given", mpp or math.nan)]
    want = next(((value, source) for source, value in chain if 0.05 <= value <= 4), None)
    if want is None:
        with pytest.raises(MissingMppError, match=r"^a: .*; give mpp=\.\.\. or --mpp$"):
            find_scale(properties, "a", mpp=mpp, override_mpp=override_mpp)
    else:
        found = find_scale(properties, "a", mpp=mpp, override_mpp=override_mpp)
        assert (found.mpp, found.source) == (pytest.approx(want[0]), want[1])


@pytest.mark.parametrize("word", ["mpp", "override_mpp"])
@pytest.mark.parametrize("value", [0, -0.5, 0.01, 4.1, 352.86, math.nan, math.inf, "0,25", "0.25", True])
def test_a_given_scale_must_be_a_sane_number(folder, word, value):
    with pytest.raises(ParameterError, match=f"{word} .* is out of range; give micrometres"):
        open_slide(folder / "tells.tif", **{word: value})


def test_what_was_found_and_not_believed_is_said(folder, data_dir):
    with pytest.raises(
        MissingMppError, match=r"absurd\.tif: tells 352\.778 um/px .*, which no scanner gives"
    ):
        open_slide(folder / "absurd.tif")
    real = data_dir / "slides" / "formats" / "small_HE_levels.tiff"
    if not real.is_file():
        pytest.skip(f"no {real}: get the newer test data")
    with pytest.raises(MissingMppError, match=r"tells 352\.858 um/px"):
        open_slide(real)
    with open_slide(real, mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "given")


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("dpi", [72, 300, 60_000])
def test_the_density_of_a_picture_is_no_scale(tmp_path, name, dpi):
    Image.fromarray(tissue(64)).save(tmp_path / name, dpi=(dpi, dpi))
    assert open_slide(tmp_path / name, mpp=0.42).mpp == 0.42
    with pytest.raises(MissingMppError):
        open_slide(tmp_path / name)


@pytest.mark.parametrize("data_set", ["bach", "crc5", "pcam", "lc25000_lung"])
def test_images_of_the_benchmarks_tell_no_scale_so_the_given_one_holds(data_dir, data_set):
    path = next(path for path in (data_dir / data_set).rglob("*") if path.suffix in (".jpg", ".jpeg"))
    with open_slide(path, mpp=0.42) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.42, "given")


# ---- an index


def test_an_add_fills_in_and_says_where_it_did_not(folder, tmp_path):
    index = sish.Index.create(tmp_path / "a.sish")
    report = index.add(folder, mpp=0.25, show_progress=False)
    assert scales(index) == {
        "tells": (0.5, "tiff-resolution"),
        "silent": (0.25, "given"),
        "absurd": (0.25, "given"),
    }
    assert report.own_scale == ["tells"] and len(report.added) == 3
    near = index.add(folder, mpp=0.51, replace=True, show_progress=False)
    assert near.own_scale == [] and scales(index)["tells"] == (0.5, "tiff-resolution")


def test_an_override_replaces_and_is_remembered(folder, tmp_path):
    index = sish.Index.create(tmp_path / "a.sish")
    index.add(folder / "silent.png", mpp=0.5, show_progress=False)
    report = index.add(folder / "tells.tif", override_mpp=0.25, mpp=1.0, show_progress=False)
    want = {"silent": (0.5, "given"), "tells": (0.25, "override")}
    assert scales(index) == want and report.own_scale == []
    index.add(folder, replace=True, show_progress=False)  # nothing is given for `absurd.tif`
    assert scales(index) == want
    for slide_id, name in (("silent", "silent.png"), ("tells", "tells.tif")):
        by_path, by_id = index.search(folder / name), index.search(slide_id)
        assert by_path.query.mpp == by_id.query.mpp == want[slide_id][0]
        assert by_path.query.n_patches == by_id.query.n_patches
    index.add(folder / "tells.tif", override_mpp=1.0, replace=True, show_progress=False)
    assert scales(index)["tells"] == (1.0, "override")


def test_an_older_index_reads_a_slide_at_the_scale_at_which_it_was_indexed(folder, tmp_path):
    index = sish.Index.create(tmp_path / "a.sish")
    index.add(folder / "tells.tif", override_mpp=0.25, show_progress=False)
    with Store.open(index.path, write=True) as store:  # older indexes know one word for both
        store.relabel({"tells": replace(store.slides[0], mpp_source="given")})
    by_path, by_id = index.search(folder / "tells.tif"), index.search("tells")
    assert by_path.query == by_id.query and by_path.query.mpp == 0.25
    assert [hit.to_dict() for hit in by_path] == [hit.to_dict() for hit in by_id]


def test_columns_of_the_labels_file_mean_the_same(folder, tmp_path):
    (tmp_path / "labels.csv").write_text(
        "slide_id,mpp,override_mpp\ntells,0.25,\nsilent,0.25,\nabsurd,0.25,1.0\n"
    )
    index = sish.Index.create(tmp_path / "a.sish")
    report = index.add(folder, labels=tmp_path / "labels.csv", mpp=0.3, show_progress=False)
    assert scales(index) == {
        "tells": (0.5, "tiff-resolution"),
        "silent": (0.25, "given"),
        "absurd": (1.0, "override"),
    }
    assert report.own_scale == ["tells"]
    assert all(not row.metadata for row in index.slides)


def test_a_bad_scale_ends_an_add_before_an_index_is_made(folder, tmp_path, capsys):
    for option in ("--mpp", "--override-mpp"):
        code, _, err = run(capsys, "index", "add", folder, "--index", tmp_path / "a.sish", option, "25")
        assert code == 1 and "out of range" in err and not (tmp_path / "a.sish").exists()


def test_a_search_says_that_a_given_scale_was_not_used(folder, own_index):
    plain = own_index.search(folder / "tells.tif")
    filled = own_index.search(folder / "tells.tif", mpp=0.25)
    assert filled.query.mpp == plain.query.mpp == pytest.approx(0.5)
    assert "own scale, 0.5 um/px" in filled.note and "own scale" not in plain.note
    assert "own scale" not in own_index.search(folder / "tells.tif", mpp=0.51).note
    replaced = own_index.search(folder / "tells.tif", override_mpp=0.25)
    assert replaced.query.mpp == 0.25 and "own scale" not in replaced.note
    with pytest.raises(ParameterError, match="out of range"):
        own_index.search(folder / "tells.tif", mpp=25)


def test_the_scale_of_an_array_is_what_is_given(own_index):
    pixels = tissue(600)
    for words in ({"mpp": 0.5}, {"override_mpp": 0.5}):
        assert own_index.search(pixels, **words).query.mpp == 0.5


def test_what_is_not_read_from_a_file_has_no_scale_to_replace(own_index, folder):
    with pytest.raises(QueryError, match="id of an indexed slide"):
        own_index.search(own_index.slides[0].slide_id, override_mpp=0.25)
    with open_slide(folder / "tells.tif") as slide, pytest.raises(QueryError, match="open slide"):
        own_index.search(slide, override_mpp=0.25)


# ---- the command line


def test_the_command_line_fills_in_replaces_and_says_so(folder, tmp_path, capsys):
    place = tmp_path / "a.sish"
    code, out, err = run(capsys, "index", "add", folder, "--index", place, "--mpp", "0.25", "--quiet")
    assert code == 0 and "3 added" in out
    (line,) = [line for line in err.splitlines() if "own scale" in line]
    assert "1 slide tells its own scale" in line and "--override-mpp" in line
    words = [
        "index",
        "add",
        folder,
        "--index",
        place,
        "--override-mpp",
        "1",
        "--replace",
        "--quiet",
        "--json",
    ]
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "") and json.loads(out)["own_scale"] == []
    rows = json.loads(run(capsys, "index", "list", "--index", place, "--json")[1])
    assert {(row["mpp"], row["mpp_source"]) for row in rows} == {(1.0, "override")}
    for option, mpp in (("--mpp", 1.0), ("--override-mpp", 0.25)):  # the slide was added with an override
        code, out, _ = run(capsys, "search", folder / "tells.tif", "--index", place, option, "0.25", "--json")
        assert code == 0 and json.loads(out)["query"]["mpp"] == mpp


def test_a_preview_fills_in_and_replaces(folder, tmp_path, capsys):
    patches = {}
    for option in (None, "--mpp", "--override-mpp"):
        words = [
            "preview",
            folder / "tells.tif",
            "-o",
            tmp_path / "a.png",
            *([option, "1"] if option else []),
        ]
        code, out, err = run(capsys, *words)
        assert code == 0 and ("own scale" in err) == (option == "--mpp")
        patches[option] = out.partition(":")[2]
    assert patches[None] == patches["--mpp"] != patches["--override-mpp"]


def test_a_decimal_comma_on_the_command_line_is_refused(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(capsys, "index", "add", folder, "--index", tmp_path / "a.sish", "--mpp", "0,25")
    assert ended.value.code == 2 and "mpp" in capsys.readouterr().err


# ---- other systems


def test_items_fill_in_and_replace(folder, tmp_path):
    (tmp_path / "labels.csv").write_text("slide_id,override_mpp\nsilent,1.0\n")
    items = read_items([folder], tmp_path / "labels.csv", mpp=0.25)
    with pytest.warns(ScaleWarning, match="given mpp was not used") as told:
        found = {item.item_id: open_item(item).mpp for item in items}
    assert found == pytest.approx({"tells": 0.5, "silent": 1.0, "absurd": 0.25}) and len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {open_item(item).mpp for item in read_items([folder], override_mpp=0.3)} == {0.3}
        assert open_item(Item("a", folder / "tells.tif", mpp=0.51)).mpp == pytest.approx(0.5)
    with pytest.raises(ParameterError, match="override_mpp 99 is out"):
        read_items([folder], override_mpp=99)


def test_the_command_line_of_systems_says_once_that_a_scale_was_not_used(folder, tmp_path, capsys):
    for number in range(2):
        write_pyramid(tmp_path / f"s{number}.tif", tissue(300, number), mpp=0.5)
    words = ["systems", "search", "slide-similarity", tmp_path / "s0.tif", "--data", tmp_path]
    code, _, err = run(capsys, *words, "--mpp", "0.25")
    assert code == 0 and err.count("own scale") == 1 and err.startswith("sish: some files")
    code, _, err = run(capsys, *words, "--override-mpp", "0.25")
    assert (code, err) == (0, "")


def test_a_smily_database_keeps_what_was_given(pictures, tmp_path):
    items = [replace(pictures[0], mpp=1.0), replace(pictures[1], mpp=None, override_mpp=2.0)]
    Smily((1.0,), size_px=64, encoder=PlainEncoder()).fit(items).save(tmp_path / "a.smily")
    again = Smily.open(tmp_path / "a.smily", encoder=PlainEncoder()).items
    assert [(item.mpp, item.override_mpp) for item in again] == [(1.0, None), (None, 2.0)]
    header = json.loads((tmp_path / "a.smily" / "smily.json").read_text())
    for item in header["items"]:  # as databases were before there was an override: mpp replaced
        del item["override_mpp"]
    (tmp_path / "a.smily" / "smily.json").write_text(json.dumps(header))
    older = Smily.open(tmp_path / "a.smily", encoder=PlainEncoder()).items
    assert [open_item(item).mpp for item in older[:1]] == [1.0] and older[0].override_mpp == 1.0
