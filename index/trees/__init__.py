"""Ordered sets of integer keys: a sorted array, a SortedList and the van Emde Boas tree."""
