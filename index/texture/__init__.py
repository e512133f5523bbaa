"""The texture tree: it is learnt from an archive's barcodes, and a search looks into its nearest cells."""
