"""Fixtures that every test may use."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

import sish
from sish.demo.synthetic import write_slides
from sish.systems.item import Item

pytest.register_assert_rewrite("system_contract")

# Tests that a shell starts in the background ignore SIGINT, and so would the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Torch's own, whichever tests came before; numpy's generators are seeded where they are made."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real test data: ``$SISH_DATA``, else ``../shared/data`` beside the project."""
    folder = Path(os.environ.get("SISH_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SISH_DATA to a folder that holds it")
    return folder


@pytest.fixture(scope="session")
def synthetic_slides(tmp_path_factory) -> Path:
    """A folder of eight small generated slides with its labels.csv; not to be written to."""
    folder = tmp_path_factory.mktemp("synthetic") / "slides"
    write_slides(folder, n_slides=8, seed=0, side_um=700)
    return folder


@pytest.fixture(scope="session")
def built_index(synthetic_slides, tmp_path_factory) -> Path:
    """An index of the generated slides; not to be written to: take `own_index` for that."""
    path = tmp_path_factory.mktemp("built") / "archive.sish"
    report = sish.Index.create(path).add(
        synthetic_slides, labels=synthetic_slides / "labels.csv", show_progress=False
    )
    assert len(report.added) == 8
    return path


@pytest.fixture
def own_index(built_index, tmp_path) -> sish.Index:
    """A copy of the built index that the test may change."""
    shutil.copytree(built_index, tmp_path / "own.sish")
    return sish.Index.open(tmp_path / "own.sish")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> tuple[Item, ...]:
    """Twelve small images for search systems, see `system_contract`."""
    from system_contract import write_pictures

    return write_pictures(tmp_path_factory.mktemp("pictures"))
