"""Tests where torch is not installed: those that need it are skipped, and say so.

Search, storage, the default encoder and the page run without torch. `make test-pythons` tests these on
versions of Python for which the package index offers no CPU build of torch.
"""

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

import pytest

_PACKAGES = frozenset(("torch", "torchmetrics", "pytorch_lightning"))


class _SkipsTest(MetaPathFinder):
    """The last finder that an import asks, so that it is asked for packages that are not there."""

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> ModuleSpec | None:
        """Skip the test, or the file of tests, that imports torch."""
        if fullname.partition(".")[0] in _PACKAGES:
            pytest.skip(f"needs {fullname}, which is not installed", allow_module_level=True)
        return None


def skip_what_needs_torch() -> None:
    """Skip every test that imports torch, if torch is not there and the environment lets tests be skipped."""
    if importlib.util.find_spec("torch") is None and "SISH_TEST_EVERYTHING" not in os.environ:
        sys.meta_path.append(_SkipsTest())
