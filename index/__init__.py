"""Neighbours by key: ordered codebooks, barcodes, ordered sets of integer keys, guided search, the store."""
