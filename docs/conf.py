"""How `make docs` builds the pages. Warnings are errors, and nothing is fetched from a network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from write_pages import as_markup, with_links, write_pages  # noqa: E402  (what is generated from the program itself)

from tuner import __version__  # noqa: E402

project = "tuner"
author = "the authors of tuner"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "generated"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
default_role = "code"  # docstrings write names as `name`
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 120
nitpick_ignore_regex = [("py:.*", r".*")]  # types of docstrings are names of other packages and of our own modules
smartquotes = False  # two hyphens of an option stay two
html_theme = "furo"
html_title = "tuner"
html_extra_path = ["generated/extra"]  # the example report
html_show_sourcelink = False
html_copy_source = False

write_pages(HERE)


def setup(app):
    """Read docstrings, signatures and rules as this project writes them."""
    app.connect("autodoc-process-docstring", lambda app, what, name, obj, options, lines: as_markup(lines))
    app.connect("autodoc-process-signature", without_factories)
    app.connect("source-read", linked)


def linked(app, docname, source):
    """Lead every rule and promise that a page names to its anchor."""
    source[0] = with_links(source[0], docname)


def without_factories(*event):
    """A default that a dataclass makes is shown as three dots; Sphinx cannot read `<factory>`."""
    signature, returned = event[-2:]
    return signature and signature.replace("<factory>", "..."), returned
