"""Skin lesions by measures of their shape and colour."""
