"""The benchmark of PostgreSQL, on small archives: every row is there, and recall is right."""

import json

import numpy as np
import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")
from benchmarks import postgres, postgres_data, postgres_engines  # they need psycopg


def test_generated_barcodes_have_neighbours_and_true_distances(tmp_path):
    source = postgres_data.Source(True, 2, tmp_path, tmp_path)
    assert source.name.startswith("generated")
    workload = source.workload(3000)
    assert workload.barcodes.shape == (3000, 128) and [len(it) for it in workload.queries] == [50, 50]
    for queries, tenth in zip(workload.queries, workload.tenth, strict=True):
        every = np.bitwise_count(queries[:, None] ^ workload.barcodes[None]).sum(2, dtype=int)
        assert np.sort(every, axis=1)[:, 9].tolist() == tenth.tolist()


def test_recall_counts_what_is_near_enough():
    most = np.full(50, 4, np.int32)
    workload = postgres_data.Workload("", np.empty((0, 128), np.uint8), (), (most,))
    assert workload.recall(0, [np.arange(12)] * 50) == 0.5  # 0 to 4 of the first ten
    assert workload.recall(0, [np.arange(3)] * 50) == 0.3


def test_pgvector_finds_the_nearest(tmp_path):
    from postgres_servers import psycopg, serving

    workload = postgres_data.Source(True, 1, tmp_path, tmp_path).workload(2000)
    with serving("wheel") as server:
        server.run("CREATE EXTENSION vector")
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            flat = postgres_engines.pgvector_indexes(2000)[0]
            flat.load(connection, workload.barcodes)
            flat.build(connection)
            with postgres_engines.rival(server.dsn(), flat) as client:
                assert workload.recall(0, client.search(workload.queries[0], 8)) > 0.8
                assert workload.recall(0, client.search(workload.queries[0], 10)) == 1  # all ten lists


@pytest.mark.slow
def test_every_row_is_measured(tmp_path, capsys):
    words = ["--quick", "--patches", "5000", "--data", str(tmp_path), "--json", str(tmp_path / "rows.json")]
    assert postgres.main(words) == 0
    results = json.loads((tmp_path / "rows.json").read_text())
    engines = {row["engine"] for row in results["patches"]}
    assert engines == {
        "sish, folder", "sish, stock", "sish, pgvector's <~>", "pgvector IVFFlat", "pgvector HNSW",
    }  # fmt: skip
    assert all(row["server_us"] > 0 and row["bytes_per_patch"] > 100 for row in results["patches"])
    best = {row["engine"]: row["recall_at_10"] for row in results["patches"]}
    assert best["sish, stock"] == best["sish, pgvector's <~>"] == best["sish, folder"] > 0.99
    server = {row["engine"]: row["server_ms"] for row in results["slides"] if row["same"]}
    assert server["sish, folder"] == 0 < server["sish, pgvector's <~>"]
    assert len(results["clients"]) == 3 and all(row["slides_per_s"] > 0 for row in results["clients"])
    assert "generated barcodes" in capsys.readouterr().out
