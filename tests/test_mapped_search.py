"""An index that a process could not hold is searched from its files, with the same answers."""

import sys

import numpy as np
import pytest

from benchmarks.mapped_search import measure, write
from sish.index.table import KeyTable
from sish.index.texture.cells import Cells
from sish.index.texture.tree import TextureTree


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are enforced on Linux only")
def test_an_index_that_does_not_fit_is_searched(tmp_path):
    rng = np.random.default_rng(0)
    noise = np.bitwise_and.reduce(rng.integers(0, 256, (4, 60_010, 128), np.uint8))  # a bit in sixteen
    barcodes = rng.integers(0, 256, (200, 128), np.uint8)[rng.integers(0, 200, 60_010)] ^ noise
    archive, queries = barcodes[:-10], barcodes[-10:]
    tree = TextureTree.learn(archive[:5000], branching=(16, 16))
    cells = Cells.of(tree, [KeyTable.build(tree.keys(archive), archive, np.zeros(len(archive), np.int32))])
    write(tmp_path, cells, queries)
    run = measure(tmp_path)
    assert run.copy_failed and run.allowed_mb < run.index_mb / 3
    assert run.patches == [cells.search(queries[i : i + 1], k=10).patch.tolist() for i in range(10)]
