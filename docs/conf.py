"""The site of these pages: ``make docs`` writes it to build/site, and fetches nothing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # hubconf.py lies there

project = "ssl_platform"
copyright = "ssl_platform developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "ssl_platform"
html_show_sourcelink = False

myst_heading_anchors = 3  # the anchors that GitHub gives to headings

default_role = "code"
suppress_warnings = ["ref.python"]  # several classes have an attribute of one name
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_maximum_signature_line_length = 88
