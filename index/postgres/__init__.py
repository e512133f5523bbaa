"""An index in PostgreSQL: the patches in the engine's B-tree, and the search through it.

It needs the extra ``postgres`` (psycopg). An archive is a schema of a few tables (`schema`), named by an
address (`addresses`). A client keeps the tree and counts of the keys, chooses the cells as the search on disk
does (`sish.index.texture`), and sends their keys; the server compares barcodes (`archive`).
"""
