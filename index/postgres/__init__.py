"""An index in PostgreSQL: the patches in the engine's B-tree, and the search through it.

It needs the extra ``postgres`` (psycopg). An archive is a schema (:mod:`sish.addresses`) of a few tables
(`sish.index.postgres.schema`). A client keeps the tree and counts of the keys, chooses the cells as the
search on disk does (`sish.index.texture`), and sends their keys; the server compares barcodes.
"""
