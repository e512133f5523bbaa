"""The site of the documentation: `make docs` builds it into docs/_build/html.

Sphinx reads the top of the clone. So a relative link is the same in the site and in a viewer of the
repository, and README, CHANGELOG and the notebooks are shown as they are, without copies.
"""

import sish

project = "sish"
author = "The developers of sish"
project_copyright = "the developers of sish, Apache-2.0"
version = release = sish.__version__
language = "en-GB"

extensions = ["myst_nb"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "notebooks/*.ipynb", "vqvae/weights/*.md"]
exclude_patterns = ["docs/_build", "docs/package.md"]  # the page of the wheel

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # `make notebooks` runs every cell; the site shows what is stored in the files

html_theme = "furo"
html_title = f"sish {release}"
html_copy_source = False
html_show_sphinx = False
html_extra_path = ["site"]
