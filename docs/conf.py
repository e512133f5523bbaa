"""The site of the documentation: `make docs` builds it into docs/_build/html.

Sphinx reads the top of the clone. So a relative link is the same in the site and in a viewer of the
repository, and README, CHANGELOG and the notebooks are shown as they are, without copies.
"""

import sys
from pathlib import Path

import sish

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "sish"
author = "The developers of sish"
project_copyright = "the developers of sish, Apache-2.0"
version = release = sish.__version__
language = "en-GB"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "faces",
    "mathml",
    "reference",
]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "notebooks/*.ipynb", "vqvae/weights/*.md"]
# docs/package.md is the page of the wheel on an index of packages
exclude_patterns = [".*", "build", "demo", "dist", "docs/_build", "docs/package.md", "runs"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # `make notebooks` runs every cell; the site shows what is stored in the files

default_role = "literal"  # `name` in a docstring is code
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autosummary_generate = False
napoleon_google_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 80

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"sish {release}"
html_copy_source = False
html_show_sphinx = False
html_extra_path = ["site"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
