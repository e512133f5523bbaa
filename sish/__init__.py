"""Find similar whole-slide images (SISH, Chen et al., Nat Biomed Eng 2022, and what it wanted to be)."""

from sish.errors import SishError
from sish.version import __version__

__all__ = ["SishError", "__version__"]
