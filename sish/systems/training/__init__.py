"""Training of the networks that systems use."""
