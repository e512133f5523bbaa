"""The texture search: a tree is learnt from an archive's barcodes, and a search looks into its nearest cells.

`tree` is the learnt tree, `cells` the search through it, `kernel` the compiled walk of that search,
`shortlist` the nearest patches that a walk has met, and `archive` the same search over a store's segments.
"""

from sish.index.texture.cells import Cells
from sish.index.texture.tree import TextureTree

__all__ = ["Cells", "TextureTree"]
