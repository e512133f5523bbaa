"""Slides that are painted, not scanned, and a demonstration on them."""
