"""The site: `make docs` builds docs/_build/html, without network and with warnings as errors."""

import os
import sys
from pathlib import Path

# Reading the package must not start a device for every core, nor wait for an accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))

from semanticfl_jax import __version__

project = "semanticfl_jax"
author = copyright = "The semanticfl_jax contributors"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "docs._ext.generated",
    "docs._ext.mathml",
    "docs._ext.notebooks",
]
exclude_patterns = ["_build", "_ext", "images/README.md"]
# "--flag" stays as it is typed.
smartquotes = False

# Pages
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
html_math_renderer = "mathml"

# Notebooks: executed by `make notebooks`, not here.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
# Progress bars, and what libraries say of the terminal.
nb_output_stderr = "remove"

# Docstrings: Google's style, in which single backticks mean code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

# Looks
html_theme = "sphinx_book_theme"
html_title = f"semanticfl_jax {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "navbar_persistent": [],
}
copybutton_exclude = ".linenos, .gp"
