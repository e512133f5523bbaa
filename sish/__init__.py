"""Find similar whole-slide images (SISH, Chen et al., Nat Biomed Eng 2022, and what it wanted to be).

>>> import sish
>>> issubclass(sish.MissingMppError, sish.SishError)
True
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
