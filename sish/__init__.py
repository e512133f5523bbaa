"""Find similar whole-slide images (SISH, Chen et al., Nat Biomed Eng 2022, with some improvements).

- :class:`Index` is an archive on disk: make or open it, add slides, search for similar ones
- :class:`Recipe` says how slides become codes, :class:`SearchParams` how far a search looks
- :class:`Results` is an answer, a list of :class:`Hit`; :func:`write_report` shows it as a page
- :func:`evaluate` measures an index by its labels; :func:`verify` reads every byte of it
- :func:`open_slide` opens a :class:`Slide`
- every error is a :class:`SishError`; :mod:`sish.errors` lists them by cause

The parts alone are in :mod:`sish.slides`, :mod:`sish.index`, :mod:`sish.vqvae` and :mod:`sish.systems`. Each
name is imported when it is first used, so ``import sish`` needs neither torch nor numba.

It logs to the loggers below ``sish``, such as ``sish.ingest``. A program that wants the log adds a handler.

>>> import sish
>>> issubclass(sish.MissingMppError, sish.SishError)
True
"""

import logging

import lazy_loader

logging.getLogger(__name__).addHandler(logging.NullHandler())  # whoever wants a log adds a handler

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
