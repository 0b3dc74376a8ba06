"""Configuration of the documentation site; ``make docs`` builds it."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE / "_ext")]

from bids_brainlm import __version__  # noqa: E402

project = "bids_brainlm"
author = "The bids_brainlm authors"
copyright = "2026, the bids_brainlm authors"  # noqa: A001
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "brainlm",
    "mathml",
]
exclude_patterns = [
    "_build",
    "reference/generated/*.md",  # included by the pages of the reference
]
suppress_warnings = ["config.cache"]
nitpicky = True
default_role = "code"

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# Docstrings say types in words ("array, shape (n_trs, n_features)"): no links are made of them.
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style"), ("Yields", "params_style")]
napoleon_use_param = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"bids_brainlm {version}"
html_static_path = ["_static"]
html_css_files = ["brainlm.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
