"""Sphinx configuration of the site (`make docs`).

The build downloads nothing. DOCS_ONLINE=1 adds links to the documentation of other libraries.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("CELLSCAN_CACHE", tempfile.mkdtemp(prefix="cellscan-docs-"))
os.environ["MPLBACKEND"] = "Agg"

import cellscan

HERE = Path(__file__).parent

project = "cellscan"
author = "The cellscan authors"
copyright = "The cellscan authors"
version = release = cellscan.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
default_role = "autolink"
nitpicky = False
templates_path = []
html_theme = "pydata_sphinx_theme"
html_title = "cellscan"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = "_static/logo.svg"
html_favicon = "_static/icon.png"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "cellscan"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "announcement": "Research use only. Not a medical device.",
}
# Only Read the Docs has several versions of the site. All of them read the list of the newest one, so that pages of an
# old release list the releases after it; a preview of a pull request has no such list beside it.
if os.environ.get("READTHEDOCS_VERSION_TYPE") in ("branch", "tag"):
    html_theme_options |= {
        "switcher": {"json_url": "/en/latest/_static/versions.json", "version_match": release},
        "check_switcher": False,  # the build has no network
        "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
    }
html_sidebars = {page: [] for page in ("index", "get_started", "results", "gallery/plot_a_tutorial")}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_all_links_external = False

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_default_options = {"members": True, "undoc-members": False, "inherited-members": False}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "flax": ("https://flax.readthedocs.io/en/latest", None),
        "optax": ("https://optax.readthedocs.io/en/latest", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
    }
    if os.environ.get("DOCS_ONLINE")
    else {}
)


def show_pages(block: Any, block_vars: dict[str, Any], gallery_conf: Any) -> str:
    """Copy the HTML pages that a block of an example writes into the site, and return the text that shows them."""
    site, text = HERE / "_static" / "pages", ""
    for name in re.findall(r'\.to_html\(folder / "(\w+\.html)"', block[1]):
        site.mkdir(exist_ok=True)
        shutil.copy(block_vars["example_globals"]["folder"] / name, site / name)
        address = f"../_static/pages/{name}"
        text += (
            f'\n.. raw:: html\n\n   <iframe class="page" src="{address}" title="{name}" loading="lazy"></iframe>\n'
            f'   <p><a href="{address}">{name}</a></p>\n\n'
        )
    return text


sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"quickstart|many_images|serve",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "plot_gallery": True,
    "image_scrapers": ("matplotlib", show_pages),
    "capture_repr": (),
    "min_reported_time": 30,
}
suppress_warnings = ["config.cache"]


def leave_out_foreign(app: Any, kind: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out methods of scikit-learn's base classes: their text refers to pages of its own site."""
    return True if (getattr(value, "__module__", None) or "").startswith("sklearn") else None


def setup(app: Any) -> None:
    """Connect the function to Sphinx."""
    app.connect("autodoc-skip-member", leave_out_foreign)
