"""The command line: ``main`` is what the command ``sish`` runs."""

from sish.cli.entry import main

__all__ = ["main"]
