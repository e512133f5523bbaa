"""Codes from pixels: the vector-quantised autoencoder, its training and its shipped weights."""
