"""An index of float vectors: a learnt tree, sketches of 128 bytes, and stored vectors that rank the nearest.

- `index` is what a researcher uses: `VectorIndex`, with the caller's ids and one file on disk
- `archive` keeps the vectors in parts, lets them grow, and learns the tree again
- `rule` is how vectors become barcodes, sketches and stored rows; `residual` is one way to store them
- `means` orders cells by the mean of their vectors
- `queries` and `walk` are compiled: the preparation of queries, and the search
"""
