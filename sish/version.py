"""The version. This module imports nothing, so that setup.cfg can read it."""

__version__ = "0.1.0"
