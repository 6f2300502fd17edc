"""The site: these pages, README, log and changelog, with the API from the docstrings. `make docs` builds it.

The source folder is the root of the project, so that a link is the same in a file and on the site.
"""

import re
from itertools import groupby
from typing import Any

project = "hpsweep"
author = "the hpsweep authors"
root_doc = "docs/index"
include_patterns = ["docs/**.md", "*.md", "experiments/LOG.md", "results/README.md"]
exclude_patterns = [".*", "build", "**/.*", "hpsweep", "tests", "results/reference", "notebooks"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
highlight_language = "none"  # of blocks that name no language: commands and what they print

default_role = "literal"  # docstrings have code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of numpy, pandas and torch in signatures; links between pages count

smartquotes = False
html_theme = "furo"
html_title = "hpsweep"
html_extra_path = ["redirect"]  # the root leads to docs/index
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False

MARKUP = re.compile(r"[*|]|_(?!\w)")  # what reStructuredText would read in a docstring, and no docstring means


def as_written(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep the layout of docstrings, which are plain text: a paragraph with indented lines stays as it is."""
    shown: list[str] = []
    for blank, paragraph in groupby(lines, key=lambda line: not line.strip()):
        text = list(paragraph)
        if not blank and any(line.startswith(" ") for line in text):
            text = ["::", "", *(f"    {line}" for line in text)]
        elif not blank:
            text = [MARKUP.sub(r"\\\g<0>", line) for line in text]
        shown += text
    lines[:] = shown


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", as_written)
