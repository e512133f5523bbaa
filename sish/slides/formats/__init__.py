"""Readers of slides and pictures: one module for each kind of file; `opening` chooses among them."""
