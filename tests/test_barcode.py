"""Barcodes and their distances against numpy's bits."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.caching import FunctionCache

from sish.errors import ParameterError
from sish.index import compiled as kernels
from sish.index.barcode import barcodes_of, hamming, minmax_barcodes, nearest, sign_barcodes


@pytest.fixture(scope="module")
def parity_dir(data_dir):
    """The published test vectors, beside the real data."""
    folder = data_dir.parent / "parity"
    if not (folder / "keys.npz").is_file():
        pytest.skip(f"no test vectors at {folder}")
    return folder


def plain_distances(barcodes, queries):
    """Hamming distances (Q, N) bit by bit."""
    return np.array([[np.unpackbits(row ^ query).sum() for row in barcodes] for query in queries]).reshape(
        len(queries), len(barcodes)
    )


def test_published_barcodes(parity_dir):
    vectors = np.load(parity_dir / "keys.npz")
    np.testing.assert_array_equal(minmax_barcodes(vectors["features"]), vectors["barcode"])


def test_a_barcode_by_hand():
    #            first  rise  equal  fall  rise  fall  equal  rise
    features = [[5.0, 6.0, 6.0, 1.0, 2.0, 0.0, 0.0, 9.0], [0.0] * 8, list(range(8, 0, -1))]
    assert minmax_barcodes(features).tolist() == [[0b01101011], [0b01111111], [0]]


@given(seed=st.integers(0, 2**32), count=st.integers(0, 5), width=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_bit_i_compares_feature_i_with_the_one_before(seed, count, width):
    features = np.random.default_rng(seed).integers(0, 4, (count, 8 * width))
    bits = np.unpackbits(minmax_barcodes(features), axis=1)
    assert bits.shape == features.shape
    for row, own in zip(bits, features, strict=True):
        assert row.tolist() == [0] + [int(own[i] >= own[i - 1]) for i in range(1, len(own))]


@pytest.mark.parametrize(
    "features", [np.zeros(8), np.zeros((2, 12)), np.zeros((2, 0)), [[np.nan] * 8], [[np.inf] * 8]]
)
def test_features_that_make_no_barcode_are_refused(features):
    for rule in (minmax_barcodes, sign_barcodes):
        with pytest.raises(ParameterError, match="features"):
            rule(features)


@given(seed=st.integers(0, 2**32), count=st.integers(0, 5), width=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_bit_i_is_the_sign_of_feature_i(seed, count, width):
    features = np.random.default_rng(seed).integers(-2, 3, (count, 8 * width)).astype(np.float32)
    bits = np.unpackbits(sign_barcodes(features), axis=1)
    assert bits.tolist() == [[int(value >= 0) for value in row] for row in features]
    np.testing.assert_array_equal(barcodes_of(features, "sign"), sign_barcodes(features))
    np.testing.assert_array_equal(barcodes_of(features, "minmax"), minmax_barcodes(features))


def test_binarisations_without_a_name_of_ours_are_refused():
    with pytest.raises(ParameterError, match="'median'"):
        barcodes_of(np.zeros((1, 8)), "median")


def test_bits_that_differ_tell_the_angle():
    """Signs of many random projections: the share that differs is the angle over pi (here pi/3)."""
    projections = np.random.default_rng(0).normal(size=(2, 8192))
    pair = np.array([[1.0, 0.0], [0.5, 0.75**0.5]]) @ projections
    left, right = sign_barcodes(pair)
    assert abs(hamming(left[None], right)[0] / 8192 - 1 / 3) < 0.02


@st.composite
def barcode_sets(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    width = draw(st.sampled_from([1, 2, 7, 8, 9, 16, 24, 128]))
    # few distinct bytes, so that distances tie
    return (
        random.integers(
            0, draw(st.sampled_from([2, 256])), (draw(st.integers(1, 60)), width), dtype=np.uint8
        ),
        random.integers(0, 256, (draw(st.integers(0, 3)), width), dtype=np.uint8),
    )


@given(sets=barcode_sets())
@settings(max_examples=60, deadline=None)
def test_hamming_agrees_with_counting_bits(sets):
    barcodes, queries = sets
    for query, want in zip(queries, plain_distances(barcodes, queries), strict=True):
        assert hamming(barcodes, query).tolist() == want.tolist()


@given(
    sets=barcode_sets(), k=st.integers(1, 70), seed=st.integers(0, 100), share=st.sampled_from([0, 0.5, 1])
)
@settings(max_examples=80, deadline=None)
def test_nearest_agrees_with_a_stable_sort(sets, k, seed, share):
    barcodes, queries = sets
    skip = np.random.default_rng(seed).random(len(barcodes)) < share
    found = nearest(barcodes, queries, k, skip=skip)
    left = np.flatnonzero(~skip)
    distances = plain_distances(barcodes, queries)[:, left]
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    assert found.row.tolist() == left[order].tolist()
    assert found.hamming.tolist() == np.take_along_axis(distances, order, axis=1).tolist()


def test_nearest_across_blocks_agrees_with_a_sort():
    random = np.random.default_rng(0)
    barcodes = random.integers(0, 256, (3000, 16), dtype=np.uint8)
    queries = barcodes[[2999, 0, 2048]]
    found = nearest(barcodes, queries, 25)
    for row, query in zip(found.row, queries, strict=True):
        assert row.tolist() == np.argsort(hamming(barcodes, query), kind="stable")[:25].tolist()
    assert found.row[:, 0].tolist() == [2999, 0, 2048]


@pytest.mark.parametrize("view", ["strided", "unaligned", "mapped"])
def test_memory_of_any_layout_gives_the_same(view, tmp_path):
    random = np.random.default_rng(1)
    plain = random.integers(0, 256, (50, 16), dtype=np.uint8)
    if view == "strided":
        laid = np.repeat(plain, 2, axis=1)[:, ::2]
    elif view == "unaligned":
        laid = np.frombuffer(b"x" + plain.tobytes(), dtype=np.uint8)[1:].reshape(plain.shape)
    else:
        np.save(tmp_path / "barcodes.npy", plain)
        laid = np.load(tmp_path / "barcodes.npy", mmap_mode="r")
    assert nearest(laid, plain[:4], 5).row.tolist() == nearest(plain, plain[:4], 5).row.tolist()
    assert hamming(laid, laid[0]).tolist() == plain_distances(plain, plain[:1])[0].tolist()


def test_kernels_are_compiled_where_no_cache_can_be_written(monkeypatch):
    def refused(function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(kernels, "_PackageCache", refused)
    assert kernels.compiled(lambda value: value + 1)(1) == 2


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'sish.index.walk'"), AttributeError])
def test_what_an_earlier_release_compiled_is_compiled_anew(monkeypatch, error):
    """numba's files name the modules of the types that they are for, some of which were moved since."""

    def load(cache, *signature):
        raise error

    monkeypatch.setattr(FunctionCache, "load_overload", load)
    assert kernels.compiled(lambda value: value + 2)(1) == 3


@pytest.mark.slow
def test_the_cache_notices_an_edit_of_any_file_of_the_package(tmp_path):
    """A copy of the package, in which the distance that other files compile into theirs is edited."""
    package = Path(kernels.__file__).resolve().parent
    for name in ("errors.py", "version.py"):
        copied = tmp_path / "sish" / name
        copied.parent.mkdir(exist_ok=True)
        copied.write_text((package.parent / "sish" / name).read_text())
    (tmp_path / "sish" / "__init__.py").touch()
    leave_out = shutil.ignore_patterns("__pycache__", "store")
    shutil.copytree(package, tmp_path / "sish" / "index", ignore=leave_out)
    asked = "import numpy as np; from sish.index.barcode import hamming, _distances as kernel; "
    asked += "print(hamming(np.uint8([[7]]), np.uint8([0]))[0], sum(kernel.stats.cache_hits.values()))"

    def answer():
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-c", asked]
        return subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).split()

    assert [answer(), answer()] == [["3", "0"], ["3", "1"]]  # compiled, then taken from the cache
    edited = tmp_path / "sish" / "index" / "compiled.py"
    text = edited.read_text()
    assert "bits: Any = np.int64(0)" in text
    edited.write_text(text.replace("bits: Any = np.int64(0)", "bits: Any = np.int64(4)"))
    assert [answer(), answer()] == [["7", "0"], ["7", "1"]]


def test_what_does_not_fit_is_refused():
    barcodes = np.zeros((3, 16), np.uint8)
    with pytest.raises(ParameterError, match="16 bytes against 8"):
        hamming(barcodes, np.zeros(8, np.uint8))
    with pytest.raises(ParameterError, match="2 barcodes"):
        hamming(barcodes, np.zeros((2, 16), np.uint8))
    with pytest.raises(ParameterError, match="k is 0"):
        nearest(barcodes, barcodes, 0)
    with pytest.raises(ParameterError, match="skip"):
        nearest(barcodes, barcodes, 1, skip=np.zeros(2, bool))
    with pytest.raises(ParameterError, match="barcodes are"):
        nearest(barcodes.astype(np.int16), barcodes, 1)
