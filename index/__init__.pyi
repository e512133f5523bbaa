from .bags import Bags as Bags
from .barcode import (
    hamming as hamming,
    minmax_barcodes as minmax_barcodes,
    nearest as nearest,
    sign_barcodes as sign_barcodes,
)
from .guided.walk import guided_search as guided_search
from .keys import order_codebook as order_codebook, paper_keys as paper_keys
from .params import GuidedParams as GuidedParams, SearchParams as SearchParams
from .projection import project as project
from .table import KeyTable as KeyTable
from .texture.cells import Cells as Cells
from .texture.tree import TextureTree as TextureTree
from .trees.sorted_array import SortedArray as SortedArray
from .trees.sorted_list import SortedListSet as SortedListSet
from .trees.veb import VanEmdeBoas as VanEmdeBoas
from .vector_coder import VectorCoder as VectorCoder
from .vectors.index import VectorIndex as VectorIndex
