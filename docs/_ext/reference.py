"""Fill the pages of the reference with what the code says of itself.

A line such as ``<!-- made by docs/_ext: commands index search -->`` in a page is replaced by what
the function ``text`` of that module returns for these words.
"""

import importlib
import logging
import re

from sphinx.application import Sphinx

_LINE = re.compile(r"^<!-- made by docs/_ext: (\w+)(.*) -->$", re.MULTILINE)


def _filled(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Replace such lines in a page that is being read."""
    source[0] = _LINE.sub(lambda line: importlib.import_module(line[1]).text(*line[2].split()), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx know the event."""
    logging.getLogger("sish").setLevel(
        logging.WARNING
    )  # commands that are asked for their help log that they ran
    app.connect("source-read", _filled)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
