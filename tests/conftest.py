"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real test data: ``$SISH_DATA``, else ``../shared/data`` beside the project."""
    folder = Path(os.environ.get("SISH_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SISH_DATA to a folder that holds it")
    return folder
