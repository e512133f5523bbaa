"""Painted slides, and a demonstration of the library on them."""
