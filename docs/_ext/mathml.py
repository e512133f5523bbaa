"""Formulas as MathML, made when the site is built, so that a page needs no script and no network for them."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

_log = logging.getLogger(__name__)


def mathml(node: nodes.math | nodes.math_block, display: str) -> str:
    """Return a formula as MathML; warn of a command that is not known, which would be shown as it is."""
    made = convert(node.astext(), display=display)
    if "\\" in made:
        unknown = made[made.index("\\") :].partition("<")[0]
        _log.warning(
            "got a formula with %s, which is not known; want another command, such as \\operatorname",
            unknown,
            location=node,
        )
    return made


def _inline(page: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    page.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def _displayed(page: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    page.body.append(f'<div class="math">{mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx know the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
