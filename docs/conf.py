"""Sphinx: MyST pages, notebooks that are run, and one page a method made from its docstring."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generated

project = "qunlearn"
author = "The qunlearn authors"
copyright = "The qunlearn authors"
version = release = installed("qunlearn")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx-mathjax-offline"]
exclude_patterns = ["_build", "_generated"]
html_theme = "furo"
html_title = f"qunlearn {release}"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Pages and notebooks are text without outputs, so every build runs them; an error in one is an error of the build.
nb_execution_mode = "auto"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a dataclass documents its fields under "Attributes:", once
default_role = "literal"  # `x` in a docstring is code


def setup(app):
    """Writes the generated pages before the sources are read."""
    app.connect("builder-inited", lambda app: generated.write(Path(app.srcdir)))
