"""Keys in both readings, against fractions; the order of the codebook against other orders."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish.errors import ParameterError
from sish.index.keys import order_codebook, paper_keys


@pytest.fixture(scope="module")
def parity_dir(data_dir):
    """The published test vectors, beside the real data."""
    folder = data_dir.parent / "parity"
    if not (folder / "keys.npz").is_file():
        pytest.skip(f"no test vectors at {folder}")
    return folder


@pytest.mark.parametrize("pooling", ["integer", "exact"])
def test_published_keys(parity_dir, pooling):
    vectors = np.load(parity_dir / "keys.npz")
    keys = paper_keys(vectors["codes"], vectors["order"], pooling)
    assert keys.dtype == np.int64
    np.testing.assert_array_equal(keys, vectors[f"key_{pooling}_pooling"])


@st.composite
def grids(draw):
    height, width = draw(st.sampled_from([(8, 8), (8, 24), (16, 8), (64, 64)]))
    size = draw(st.sampled_from([1, 2, 128, 256]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random.integers(0, size, (2, height, width), dtype=np.uint8), random.permutation(size)


def plain_key(grid, truncate):
    """The key of one renumbered grid of Python integers, mean by mean."""
    key = Fraction(0)
    for scale in (1, 10**6, 10**11):
        rows = range(0, len(grid), 2)
        columns = range(0, len(grid[0]), 2)
        means = [
            [Fraction(sum(grid[i + a][j + b] for a in (0, 1) for b in (0, 1)), 4) for j in columns]
            for i in rows
        ]
        grid = [[Fraction(int(mean)) if truncate else mean for mean in row] for row in means]
        key += scale * sum(map(sum, grid))
    return int(key)


@given(case=grids())
@settings(max_examples=25, deadline=None)
def test_keys_agree_with_fractions(case):
    codes, order = case
    renumbered = order[codes].tolist()
    assert paper_keys(codes, order, "integer").tolist() == [plain_key(grid, True) for grid in renumbered]
    assert paper_keys(codes, order, "exact").tolist() == [plain_key(grid, False) for grid in renumbered]


@given(case=grids())
@settings(max_examples=50, deadline=None)
def test_the_exact_key_is_a_linear_function_of_the_plain_sum(case):
    codes, order = case
    for key, grid in zip(paper_keys(codes, order, "exact").tolist(), order[codes], strict=True):
        total = int(grid.sum())
        assert key == (Fraction(total, 4) + 10**6 * Fraction(total, 16) + 10**11 * Fraction(total, 64)) // 1


def test_texture_is_not_in_the_exact_key():
    stripes = np.tile([0, 1], 32).reshape(1, 8, 8)
    halves = np.repeat([0, 1], 32).reshape(1, 8, 8)
    assert paper_keys(stripes, [0, 1], "exact") == paper_keys(halves, [0, 1], "exact")


@pytest.mark.parametrize("shape", [(1, 12, 16), (1, 16, 4), (8, 8), (1, 8, 8, 1)])
def test_grids_that_cannot_be_halved_three_times_are_refused(shape):
    with pytest.raises(ParameterError, match="multiples of 8"):
        paper_keys(np.zeros(shape, np.uint8), np.arange(4))


def test_codes_and_orders_that_do_not_fit_are_refused():
    grid = np.full((1, 8, 8), 4, dtype=np.uint8)
    with pytest.raises(ParameterError, match="codes run to 4"):
        paper_keys(grid, np.arange(4))
    with pytest.raises(ParameterError, match="permutation"):
        paper_keys(grid, [0, 0, 1, 2, 3])
    with pytest.raises(ParameterError, match="pooling is 'mean'"):
        paper_keys(grid, np.arange(5), "mean")
    with pytest.raises(ParameterError, match="give integers"):
        paper_keys(grid.astype(float), np.arange(5))
    with pytest.raises(ParameterError, match="overflow"):
        paper_keys(np.zeros((1, 8, 2_000_000), np.uint8), np.arange(128))


def test_no_patches_have_no_keys():
    assert paper_keys(np.zeros((0, 64, 64), np.uint8), np.arange(128)).shape == (0,)


def step_length(codebook, sequence):
    """Mean distance of neighbours when codewords are visited in this sequence."""
    return np.linalg.norm(np.diff(codebook[sequence], axis=0), axis=1).mean()


CODEBOOKS = {
    "spread": np.random.default_rng(0).normal(size=(128, 8)),
    "clusters": np.repeat(np.random.default_rng(1).normal(size=(16, 32)), 8, axis=0)
    + 0.2 * np.random.default_rng(2).normal(size=(128, 32)),
    "duplicates": np.random.default_rng(3).normal(size=(10, 4))[np.arange(64) % 10],
}


@pytest.mark.parametrize("name", CODEBOOKS)
def test_neighbours_in_the_order_are_nearer_than_by_chance_or_by_principal_component(name):
    codebook = CODEBOOKS[name]
    centred = codebook - codebook.mean(axis=0)
    by_component = np.argsort(centred @ np.linalg.svd(centred)[2][0])
    by_chance = np.random.default_rng(4).permutation(len(codebook))
    ours = step_length(codebook, np.argsort(order_codebook(codebook)))
    assert ours < 0.8 * step_length(codebook, by_component)
    assert ours < 0.7 * step_length(codebook, by_chance)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 40), width=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_the_order_is_a_permutation_and_repeatable(seed, count, width):
    codebook = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    order = order_codebook(codebook)
    assert sorted(order.tolist()) == list(range(count))
    assert order.dtype == np.int64
    np.testing.assert_array_equal(order, order_codebook(codebook.copy()))


@given(st.permutations(range(12)))
def test_codewords_on_a_line_are_numbered_along_it(places):
    assert order_codebook([[float(place), 2.0 * place] for place in places]).tolist() == list(places)


def test_equal_codewords_and_a_single_one_are_no_trouble():
    assert sorted(order_codebook(np.ones((5, 3))).tolist()) == [0, 1, 2, 3, 4]
    assert order_codebook([[3.0]]).tolist() == [0]


@pytest.mark.parametrize("codebook", [np.zeros(4), np.zeros((0, 4)), [[np.nan, 1.0]]])
def test_codebooks_that_have_no_order_are_refused(codebook):
    with pytest.raises(ParameterError, match="codebook"):
        order_codebook(codebook)
