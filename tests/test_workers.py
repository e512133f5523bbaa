"""The number of workers changes how many threads work, and nothing that an index holds."""

import numpy as np
import pytest

import sish
from sish.cli import main
from sish.slides import reading
from sish.vqvae.tissue_network import TissueNetwork


def made(path, slides, **options):
    index = sish.Index.create(path, **options)
    index.add(slides, show_progress=False)
    return index


@pytest.mark.parametrize("workers", [1, 3])
def test_an_index_does_not_depend_on_the_workers(workers, built_index, synthetic_slides, tmp_path):
    usual, other = sish.Index.open(built_index), made(tmp_path / "a.sish", synthetic_slides, workers=workers)
    assert other.fingerprint == usual.fingerprint
    for name in ("keys", "barcodes", "l0_xy"):
        np.testing.assert_array_equal(getattr(other.snapshot(), name), getattr(usual.snapshot(), name))


def test_workers_are_the_threads_that_read_and_encode(built_index, synthetic_slides, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # of the encoder, where no number is given
    readers, encoders = set(), set()
    pool, network = reading.ReaderThreads, TissueNetwork.__init__

    def counted_pool(count):
        readers.add(count)
        return pool(count)

    def counted_network(self, device="cpu", threads=None, **more):
        network(self, device, threads, **more)
        encoders.add(self._threads)

    monkeypatch.setattr(reading, "ReaderThreads", counted_pool)
    monkeypatch.setattr(TissueNetwork, "__init__", counted_network)
    made(tmp_path / "two.sish", synthetic_slides, like=built_index, workers=2)  # nothing is measured
    assert (max(readers), encoders) == (2, {2})
    readers.clear()
    encoders.clear()
    index = sish.Index.open(tmp_path / "two.sish", workers=1)
    index.search(synthetic_slides / "adipose-01.tif")
    assert readers == {1} and encoders == {1}
    encoders.clear()
    assert sish.Index.open(tmp_path / "two.sish").encoder.model is not None
    assert encoders == {7}


@pytest.mark.parametrize("workers", [0, -1, True, 1.5])
def test_no_worker_is_refused(workers, built_index):
    with pytest.raises(sish.ParameterError, match="want the number of threads, 1 or more"):
        sish.Index.open(built_index, workers=workers)


def test_workers_on_the_command_line(synthetic_slides, built_index, capsys, monkeypatch):
    counts = set()
    pool = reading.ReaderThreads
    monkeypatch.setattr(reading, "ReaderThreads", lambda count: counts.add(count) or pool(count))
    query = str(synthetic_slides / "adipose-01.tif")
    assert main(["search", query, "--index", str(built_index), "--workers", "3"]) == 0
    assert counts == {3}
    assert main(["search", query, "--index", str(built_index), "--workers", "0"]) == 1
    assert "got workers=0; want" in capsys.readouterr().err
