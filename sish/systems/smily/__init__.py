"""SMILY: similar image search for histopathology (Hegde et al. 2019)."""
