"""Neighbours by key: barcodes, keys, ordered sets, both searches, and the store of an index.

These names are what a researcher uses alone. Each works on arrays in memory.

- Barcodes: `minmax_barcodes`, `sign_barcodes` and `project` make them; `hamming` and `nearest` compare them.
- Keys: `order_codebook`, `paper_keys`.
- Ordered sets of keys: `VanEmdeBoas`, `SortedArray`, `SortedListSet`.
- Searches: the published `guided_search` through a `KeyTable`, and `Cells` of a `TextureTree`. Both
  return `Bags`.
- Float vectors: `VectorIndex` finds the nearest by cosine; `VectorCoder` is how it stores them.

Each name is imported from its room when it is first used: `import sish.index` does not import numba.

>>> from sish.index import SortedArray
>>> SortedArray.of([30, 10, 20]).successor(10)
20
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
