"""The texture search: a tree is learnt from an archive's barcodes, and a search looks into its nearest cells.

- `tree` learns the tree
- `cells` searches through it
- `kernel` is the compiled walk of that search
- `shortlist` keeps the nearest patches that a walk has met
- `archive` runs the same search over the segments of a store
"""

from sish.index.texture.cells import Cells
from sish.index.texture.tree import TextureTree

__all__ = ["Cells", "TextureTree"]
