"""Benchmarks: each is run as ``python -m benchmarks.NAME`` and explains itself with ``--help``."""
