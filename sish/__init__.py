"""Find similar whole-slide images (SISH, Chen et al., Nat Biomed Eng 2022, and what it wanted to be).

>>> import sish
>>> issubclass(sish.MissingMppError, sish.SishError)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sish.errors import (
    EncoderMismatchError,
    IndexCorruptError,
    IndexExistsError,
    IndexFormatError,
    IndexLockedError,
    IndexNotFoundError,
    LabelsError,
    LabelsNotFoundError,
    MissingMppError,
    MissingPackageError,
    OutputError,
    ParameterError,
    ParameterTypeError,
    QueryError,
    SishError,
    SlideError,
    SlideNotFoundError,
    SlideOpenError,
    SlideReadError,
    StoreError,
    UnknownSlideError,
    WeightsError,
    WeightsNotFoundError,
)
from sish.version import __version__

if TYPE_CHECKING:
    from sish.evaluation import evaluate
    from sish.index.params import SearchParams
    from sish.index.store.verify import verify
    from sish.recipe import Recipe
    from sish.report import write_report
    from sish.results import AddReport, Hit, PatchPair, Query, RelabelReport, Results
    from sish.slide_index import Index
    from sish.slides.slide import Slide, open_slide

__all__ = [
    "AddReport",
    "EncoderMismatchError",
    "Hit",
    "Index",
    "IndexCorruptError",
    "IndexExistsError",
    "IndexFormatError",
    "IndexLockedError",
    "IndexNotFoundError",
    "LabelsError",
    "LabelsNotFoundError",
    "MissingMppError",
    "MissingPackageError",
    "OutputError",
    "ParameterError",
    "ParameterTypeError",
    "PatchPair",
    "Query",
    "QueryError",
    "Recipe",
    "RelabelReport",
    "Results",
    "SearchParams",
    "SishError",
    "Slide",
    "SlideError",
    "SlideNotFoundError",
    "SlideOpenError",
    "SlideReadError",
    "StoreError",
    "UnknownSlideError",
    "WeightsError",
    "WeightsNotFoundError",
    "__version__",
    "evaluate",
    "open_slide",
    "verify",
    "write_report",
]

# What needs numba, Pillow and the like is imported when first used: `import sish` stays instant.
_HOME = {
    "AddReport": "sish.results",
    "Hit": "sish.results",
    "Index": "sish.slide_index",
    "PatchPair": "sish.results",
    "Query": "sish.results",
    "Recipe": "sish.recipe",
    "RelabelReport": "sish.results",
    "Results": "sish.results",
    "SearchParams": "sish.index.params",
    "Slide": "sish.slides.slide",
    "evaluate": "sish.evaluation",
    "open_slide": "sish.slides.slide",
    "verify": "sish.index.store.verify",
    "write_report": "sish.report",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'sish' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
