"""Feature files of strangers: read whatever their form, or refused on one line before they cost anything."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sish
from sish.cli import main
from sish.errors import EncoderMismatchError, MissingMppError, SlideError, SlideOpenError
from sish.feature_files import read_features, step_of_grid

GRID = np.stack(np.meshgrid(512 * np.arange(6), 512 * np.arange(6)), -1).reshape(-1, 2)
SIDES = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40}


def features(length=32, seed=0):
    return np.random.default_rng(seed).normal(size=(len(GRID), length)).astype(np.float32)


def write(path, *, data=None, coords=GRID, told=SIDES, encoder=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = features() if data is None else data
        file["coords"] = coords
        file["coords"].attrs.update(told)
        if encoder is not None:
            file["features"].attrs["encoder"] = encoder
    return path


def refused(path, match, kind=SlideError):
    with pytest.raises(kind, match=match) as error:
        read_features(path, encoder="e")
    message = str(error.value)
    assert "\n" not in message and len(message) < 600 and str(path) in message


# ---- forms


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u2", "i8"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("coords", ["i4", "u8", "f4", "f8", ">i8"])
def test_numbers_of_any_type_and_a_batch_of_one_are_read(tmp_path, dtype, batch, coords):
    data, corners = (100 * features()).astype(dtype), GRID.astype(coords)
    path = write(
        tmp_path / "a.h5", data=data[None] if batch else data, coords=corners[None] if batch else corners
    )
    file = read_features(path, encoder="e")
    assert file.features.dtype == np.float32 and file.l0_xy.dtype == np.int64
    np.testing.assert_array_equal(file.features, data.astype(np.float32))
    np.testing.assert_array_equal(file.l0_xy, GRID)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.zeros((2, 3, 4), "f4"), r"shape \(2, 3, 4\)"),
        (np.zeros((2, len(GRID), 32), "f4"), r"shape \(2, 36, 32\)"),
        (np.zeros((len(GRID), 0), "f4"), r"want \(N, F\)"),
        (np.zeros((len(GRID) + 1, 4), "f4"), r"features \(37, 4\), coords \(36, 2\)"),
        (np.zeros((len(GRID), 4), "c8"), "complex64"),
        (np.zeros((len(GRID), 4), bool), "bool"),
        (np.full((len(GRID), 4), b"1.5"), "no numbers"),
        (np.full((len(GRID), 4), 1e300), "NaN or infinity"),
        (np.full((len(GRID), 4), np.inf, "f4"), "NaN or infinity"),
        (h5py.Empty("f4"), "shape None"),
    ],
)
def test_features_that_are_none_are_refused(tmp_path, data, match):
    refused(write(tmp_path / "a.h5", data=data), match, SlideOpenError)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -1.0, 1e15, 2.0**63])
def test_places_outside_of_any_slide_are_refused(tmp_path, wrong):
    coords = GRID.astype(float)
    coords[3, 1] = wrong
    refused(write(tmp_path / "a.h5", coords=coords), "places outside", SlideOpenError)


def test_whole_numbers_too_large_for_a_place_do_not_wrap(tmp_path):
    coords = GRID.astype(np.uint64)
    coords[0, 0] = 2**64 - 1
    refused(write(tmp_path / "a.h5", coords=coords), "places outside", SlideOpenError)


# ---- attributes


@pytest.mark.parametrize("value", [40, 40.0, np.float16(40), "40", b"40", np.array([40]), np.array([[40.0]])])
def test_a_magnification_in_any_form_of_one_number(tmp_path, value):
    assert (
        read_features(write(tmp_path / "a.h5", told=SIDES | {"level0_magnification": value}), encoder="e").mpp
        == 0.25
    )


@pytest.mark.parametrize("value", ["None", b"nan", "", np.nan, 0, -1, "NA", h5py.Empty("f4")])
def test_words_for_nothing_tell_nothing(tmp_path, value):
    path = write(tmp_path / "a.h5", told=dict.fromkeys(SIDES, value), encoder="None")
    refused(path, "nothing in it tells its micrometres|which no scanner gives", MissingMppError)
    file = read_features(path, encoder="e", mpp=0.5)
    assert (file.encoder, file.mpp, file.l0_size, file.patch_px) == ("e", 0.5, 512.0, 256)


NO_NUMBERS = ["40x", "large\nindeed", np.array([40, 40]), np.inf, "9" * 3000]


@pytest.mark.parametrize("name", ["patch_size", "patch_size_level0"])
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_sides_that_are_no_number_are_refused(tmp_path, name, value):
    path = write(tmp_path / "a.h5", told=SIDES | {name: value})
    refused(path, f"its {name} is .*want one number", SlideOpenError)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0.5, 1e6])
def test_a_magnification_that_is_none_is_refused_and_an_mpp_fills_in(tmp_path, value):
    path = write(tmp_path / "a.h5", told=SIDES | {"level0_magnification": value})
    refused(path, "which is no number|which no scanner gives", MissingMppError)
    assert read_features(path, encoder="e", mpp=0.5).mpp == 0.5


def test_absurd_patches_and_names_are_refused(tmp_path):
    refused(write(tmp_path / "a.h5", told=SIDES | {"patch_size_level0": 1e6}), "span 250000 um")
    refused(write(tmp_path / "a.h5", told=SIDES | {"patch_size": 1e300}), r"patches of 1e\+300 px span")
    refused(write(tmp_path / "b.h5", encoder="a\nb"), "its encoder is 'a.nb'; want a name")
    refused(write(tmp_path / "c.h5", encoder=np.array([1, 2])), "want a name")
    refused(
        write(tmp_path / "d.h5", told=SIDES | {"patch_size": np.bytes_("1" * 5000)}), "larger than 4096 bytes"
    )


# ---- other files, and bombs


def test_no_other_file_is_read(tmp_path):
    write(tmp_path / "secret.h5")
    (tmp_path / "secret.bin").write_bytes(features().tobytes())
    secret = h5py.ExternalLink("secret.h5", "features")
    storage = [(str(tmp_path / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
    forms = {
        "external link": lambda file: file.__setitem__("features", secret),
        "soft link": lambda file: (
            file.__setitem__("other", secret),
            file.__setitem__("features", h5py.SoftLink("/other")),
        ),
        "storage": lambda file: file.create_dataset(
            "features", (len(GRID), 32), "f4", external=storage
        ),
        "virtual": lambda file: file.create_virtual_dataset("features", layout()),
        "group": lambda file: file.create_group("features"),
    }  # fmt: skip

    def layout():
        made = h5py.VirtualLayout((len(GRID), 32), "f4")
        made[:] = h5py.VirtualSource(tmp_path / "secret.h5", "features", (len(GRID), 32))
        return made

    for name, make in forms.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["coords"] = GRID
            file["coords"].attrs.update(SIDES)
            make(file)
        refused(tmp_path / f"{name}.h5", "another (place|file)|group", SlideOpenError)


@pytest.mark.parametrize("form", ["never written", "compressed", "chunk", "coords"])
def test_what_claims_more_than_it_can_hold_is_refused_before_it_is_allocated(tmp_path, form):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        shapes = {"features": (len(GRID), 32), "coords": (len(GRID), 2)}
        if form == "never written":
            file.create_dataset("features", (10**12, 1024), "f4", chunks=(64, 1024))
        elif form == "compressed":
            file.create_dataset("features", (100_000, 1024), "f4", chunks=(1000, 1024), compression="gzip")
            file["features"][:10_000] = 0
        elif form == "chunk":
            file.create_dataset("features", (36, 32), "f8", chunks=(10**7, 32), maxshape=(None, 32))
        else:
            file.create_dataset("coords", (10**12, 2), "i8", chunks=(64, 2))
        for name in shapes.keys() - file.keys():
            file[name] = np.zeros(shapes[name])
    refused(tmp_path / "a.h5", r"claim \d+ bytes, in a file of", SlideOpenError)


def test_attributes_that_are_lists_of_any_length_are_refused(tmp_path):
    """Reading them crashed HDF5 where damage had made a text such a list."""
    path = write(tmp_path / "a.h5", encoder="e")
    with h5py.File(path, "r+") as file:
        del file["features"].attrs["encoder"]
        lists = np.empty(1, object)
        lists[0] = np.arange(3, dtype="u1")
        file["features"].attrs.create("encoder", lists, dtype=h5py.vlen_dtype("u1"))
    refused(path, "the attribute encoder is no number and no text", SlideOpenError)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("damage") / "a.h5", encoder="e")
    content = bytearray(path.read_bytes())
    for _ in range(8):
        content[data.draw(st.integers(0, min(len(content), 3000) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert read_features(path, encoder="e").features.shape[0] >= 0
    except SlideError as error:
        assert "\n" not in str(error)


# ---- grids


@given(
    side=st.integers(1, 2000),
    pieces=st.lists(
        st.tuples(st.integers(0, 10**5), st.integers(0, 10**5), st.integers(1, 6), st.integers(1, 6)),
        min_size=1,
        max_size=4,
    ),
)
def test_the_side_is_the_step_of_the_grids_wherever_their_corners_are(side, pieces):
    """One large piece, whose neighbours outnumber what chance puts in line between pieces."""
    pieces = [*pieces, (7, 11, 9, 9)]
    corners = [(x + side * i, y + side * j) for x, y, n, m in pieces for i in range(n) for j in range(m)]
    order = np.random.default_rng(side).permutation(len(corners))
    assert step_of_grid(np.array(corners)[order]) == side


def test_patches_with_gaps_and_without_neighbours():
    assert step_of_grid(np.array([[0, 0], [512, 0], [0, 512], [256, 512], [512, 512], [512, 256]])) == 256
    assert np.isnan(step_of_grid(np.array([[0, 0], [5, 7], [9, 30]]))) and np.isnan(
        step_of_grid(np.empty((0, 2), int))
    )


# ---- one odd file among good ones


def folder_of(tmp_path, **files):
    for name, form in files.items():
        write(tmp_path / "features_uni" / f"{name}.h5", **form)
    return tmp_path / "features_uni"


ODD = {
    "shorter": {"data": features(16)},
    "other": {"encoder": "conch"},
    "wider": {"told": SIDES | {"level0_magnification": 20}},
    "word": {"told": SIDES | {"level0_magnification": "40x"}},
    "nan": {"coords": np.where(GRID == 0, np.nan, GRID)},
    "slide_level": {"data": np.zeros(32, "f4")},
}


@pytest.mark.parametrize("first", [True, False], ids=["odd first", "odd last"])
def test_odd_files_are_skipped_and_named_and_the_others_added(tmp_path, capsys, first):
    odd = {f"{'a' if first else 'z'}_{name}": form for name, form in ODD.items()}
    folder = folder_of(tmp_path, m1={}, m2={"data": features(seed=1)}, **odd)
    place = str(tmp_path / "a.sish")
    words = ["index", "add", "--features", str(folder), "--index", place, "--quiet", "--json"]
    assert main(words) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["added"] == ["m1", "m2"]
    assert sorted(it["path"].rpartition("/")[2] for it in report["failed"]) == sorted(
        f"{name}.h5" for name in odd
    )
    assert sish.Index.open(place).recipe.weights == "features:uni/32"
    assert main(words) == 1 and json.loads(capsys.readouterr().out)["already"] == ["m1", "m2"]


def test_the_commonest_kind_makes_the_index_and_a_tie_is_refused(tmp_path):
    folder = folder_of(tmp_path, a={"data": features(16)}, b={}, c={})
    assert sish.Index.create_for_features(tmp_path / "a.sish", folder).recipe.weights == "features:uni/32"
    (folder / "c.h5").unlink()
    with pytest.raises(EncoderMismatchError, match=r"as many files .* keep one index"):
        sish.Index.create_for_features(tmp_path / "b.sish", folder)
    assert not (tmp_path / "b.sish").exists()


def test_files_that_are_all_of_another_kind_are_an_error_and_raise_stops_at_the_first(tmp_path):
    index = sish.Index.create_for_features(tmp_path / "a.sish", folder_of(tmp_path, a={}))
    other = folder_of(tmp_path / "other", x={"data": features(16)}, y={"data": features(16)})
    with pytest.raises(EncoderMismatchError, match="uni/16"):
        index.add_features(other, show_progress=False)
    write(other / "z.h5")
    with pytest.raises(EncoderMismatchError, match="uni/16"):
        index.add_features(other, on_error="raise", show_progress=False)
    report = index.add_features(other, show_progress=False)
    assert report.added == ["z"] and len(report.failed) == 2
