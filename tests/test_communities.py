"""Communities of codes: the graph, the partition, and what is looked at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sish.errors import ParameterError
from sish.systems.xray.communities import Communities, find_communities, neighbour_graph

CODES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 24), st.just(2)))


def clouds(per_cloud=12, n_bits=64, seed=0):
    """Three clouds of codes about random centres, a few bits of each turned: codes and cloud numbers."""
    generator = np.random.default_rng(seed)
    centres = generator.integers(0, 2, (3, n_bits))
    bits = np.repeat(centres, per_cloud, 0) ^ (generator.random((3 * per_cloud, n_bits)) < 0.08)
    return np.packbits(bits, axis=1), np.repeat(np.arange(3), per_cloud)


def test_a_graph_by_hand():
    # 0000.., 0001.., 1111..: the first two differ in 1 bit of 8, the third from them in 8 and 7
    codes = np.array([[0b00000000], [0b00000001], [0b11111111]], np.uint8)
    graph = neighbour_graph(codes, 1)
    assert sorted(map(sorted, graph.edges)) == [[0, 1], [1, 2]]
    assert graph[0][1]["weight"] == 7 / 8 and graph[1][2]["weight"] == 1 / 8


def test_opposite_codes_are_not_tied():
    assert not neighbour_graph(np.array([[0], [255]], np.uint8), 3).edges
    assert len(find_communities(np.array([[0], [255]], np.uint8))) == 2


@settings(max_examples=25, deadline=None)
@given(CODES, st.integers(1, 30))
def test_each_code_is_tied_to_its_nearest(codes, neighbours):
    graph = neighbour_graph(codes, neighbours)
    bits = np.unpackbits(codes, axis=1).astype(int)
    distances = np.abs(bits[:, None] - bits[None]).sum(2)
    for row in range(len(codes)):
        others = np.delete(np.arange(len(codes)), row)
        nearest = others[np.argsort(distances[row, others], kind="stable")][:neighbours]
        # ties between equally near codes go to lower numbers
        assert all(graph.has_edge(row, other) for other in nearest if distances[row, other] < 16)
        assert graph.degree[row] >= sum(distances[row, nearest] < 16)
        assert not graph.has_edge(row, row)


@settings(max_examples=25, deadline=None)
@given(CODES)
def test_communities_are_a_partition_with_its_means(codes):
    found = find_communities(codes, neighbours=3)
    assert sorted(set(found.member_of.tolist())) == list(range(len(found)))
    sizes = np.bincount(found.member_of)
    assert (np.diff(sizes) <= 0).all() and sizes.sum() == len(codes)
    bits = np.unpackbits(codes, axis=1)
    for number, centre in enumerate(found.centres):
        assert np.allclose(centre, bits[found.member_of == number].mean(0))


@settings(max_examples=25, deadline=None)
@given(CODES, arrays.arrays(np.uint8, 2))
def test_near_is_the_mean_distance_less_the_spread(codes, query):
    found = find_communities(codes, neighbours=3)
    bits, wanted = np.unpackbits(codes, axis=1), np.unpackbits(query)
    values = []
    for number in range(len(found)):
        own = bits[found.member_of == number]
        mean_distance = (own != wanted).sum(1).mean()
        spread = (own.mean(0) * (1 - own.mean(0))).sum()
        values.append(mean_distance - spread)
    order = found.order(query)
    assert (np.diff(np.array(values)[order]) >= -1e-4).all()


def test_clouds_are_found_again():
    codes, cloud = clouds()
    found = find_communities(codes, neighbours=5)
    assert len(found) == 3
    assert all(len(set(found.member_of[cloud == number])) == 1 for number in range(3))
    again = find_communities(codes, neighbours=5)
    assert np.array_equal(found.member_of, again.member_of)


def test_a_query_looks_into_its_own_cloud():
    codes, cloud = clouds()
    found = find_communities(codes, neighbours=5)
    for row in (0, 13, 30):
        rows = found.candidates(codes[row], probe=1)
        assert rows.tolist() == np.flatnonzero(cloud == cloud[row]).tolist()
    assert len(found.candidates(codes[0], probe=2)) == 24
    assert len(found.candidates(codes[0], probe=3)) == 36


def test_more_are_opened_while_there_are_too_few():
    codes, cloud = clouds()
    found = find_communities(codes, neighbours=5)
    allowed = cloud != cloud[0]
    assert len(found.candidates(codes[0], probe=1, allowed=allowed)) == 12
    assert len(found.candidates(codes[0], probe=1, at_least=13, allowed=allowed)) == 24
    assert len(found.candidates(codes[0], probe=1, at_least=500)) == 36
    assert not len(found.candidates(codes[0], probe=9, allowed=np.zeros(36, bool)))


def test_candidates_by_hand():
    codes = np.array([[0b0000], [0b0001], [0b1110], [0b1111]], np.uint8)
    low = Communities(
        codes, np.array([0, 0, 1, 1]), np.array([[0] * 7 + [0.5], [0] * 4 + [1] * 3 + [0.5]], np.float32)
    )
    # to 0011 the first centre is 1 + 0.25 away, the second 1 + 1 + 0.25
    assert low.order(np.array([0b0011], np.uint8)).tolist() == [0, 1]
    assert low.candidates(np.array([0b0011], np.uint8), probe=1).tolist() == [0, 1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: find_communities(np.zeros((0, 8), np.uint8)),
        lambda: find_communities(np.zeros((3, 8))),
        lambda: find_communities(np.zeros((3, 8), np.uint8), resolution=0),
        lambda: find_communities(np.zeros((3, 8), np.uint8), neighbours=0),
        lambda: find_communities(np.zeros((3, 8), np.uint8)).candidates(np.zeros(8, np.uint8), probe=0),
    ],
)
def test_what_cannot_be_is_refused(call):
    with pytest.raises(ParameterError):
        call()
