"""Settings of the documentation's site: ``make docs`` builds it into ``build/docs``."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from december_plugin import __version__  # noqa: E402

project = "december_plugin"
html_show_copyright = False
author = "The december_plugin developers"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}  # the first is that of the generated pages
templates_path = ["templates"]
exclude_patterns = ["static", "templates"]
suppress_warnings = ["misc.highlighting_failure"]  # SQL with MariaDB's escapes

myst_enable_extensions = ["deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # beside the site: what has not changed is not run again
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # what notebooks write does not belong beside them
nb_execution_timeout = 180
nb_merge_streams = True

autosummary_generate = True
autodoc_typehints = "none"  # docstrings name types and shapes
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"december_plugin {release}"
html_static_path = ["static"]
html_css_files = ["custom.css"]
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"

# The rooms whose public names the reference lists, in the order of its pages.
PUBLIC = (
    ("december_plugin", "Shortcuts"),
    ("december_plugin.answer", "Answers without a database"),
    ("december_plugin.embeddings", "Embeddings"),
    ("december_plugin.clustering", "Clustering"),
    ("december_plugin.sklearn", "Scikit-learn estimators"),
    ("december_plugin.rotation", "Rotation-invariant clustering"),
    ("december_plugin.insilico", "In-silico experiments"),
    ("december_plugin.evaluation", "Evaluation"),
    ("december_plugin.datasets", "Dataset functions"),
    ("december_plugin.models", "Model functions"),
    ("december_plugin.training", "Trainer functions"),
    ("december_plugin.simulate", "Simulated recordings"),
    ("december_plugin.schemas", "Tables"),
    ("december_plugin.results", "Queries"),
    ("december_plugin.plots", "Figures"),
    ("december_plugin.report", "Report and export"),
    ("december_plugin.imports", "Files of trained models"),
    ("december_plugin.bundles", "Bundles of results"),
    ("december_plugin.sharing", "Writing bundles"),
    ("december_plugin.intake", "Importing models"),
    ("december_plugin.pool", "Jobs and workers"),
    ("december_plugin.database", "Database"),
    ("december_plugin.storage", "Storage"),
    ("december_plugin.security", "Security"),
    ("december_plugin.errors", "Errors"),
)


def public_names(module: Any) -> list[str]:
    """Return the public names of a module: of ``__all__``, or classes and functions that it defines."""
    if hasattr(module, "__all__"):
        return sorted(name for name in module.__all__ if not inspect.ismodule(getattr(module, name)))
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__ and callable(value)
    ]


def canonical_path(module: Any, name: str) -> str:
    """Return the path under which a name is documented: where it is defined, which is what docstrings refer to."""
    value = getattr(module, name)
    is_defined_here = inspect.isclass(value) or inspect.isroutine(value)
    return f"{value.__module__}.{value.__qualname__}" if is_defined_here else f"{module.__name__}.{name}"


@functools.cache
def public_objects() -> dict[str, tuple[str, Any]]:
    """Return where public names are documented, and what they are, by every path under which they can be imported."""
    found = {}
    for path, _ in PUBLIC:
        module = importlib.import_module(path)
        for name in public_names(module):
            canonical = canonical_path(module, name)
            found[canonical] = found[f"{path}.{name}"] = canonical, getattr(module, name)
    return found


def find_public(name: str, module: str) -> str | None:
    """Return the path under which a name is documented; None if it is not public.

    Parameters
    ----------
    name
        As docstrings write it: ``null_figure`` within the same room, ``december_plugin.plots.null_figure`` anywhere,
        and members with their class.
    module
        The module that has the docstring.
    """
    parts = module.split(".")
    packages = [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    for path in [name, *(f"{package}.{name}" for package in packages)]:
        if path in public_objects():
            return public_objects()[path][0]
        owner, _, member = path.rpartition(".")
        canonical, value = public_objects().get(owner, ("", None))
        if inspect.isclass(value) and hasattr(value, member):
            return f"{canonical}.{member}"
    return None


def link_public_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link a name that is written with its room, or alone within the room, to the path at which it is defined."""
    path = find_public(node.get("reftarget", ""), node.get("py:module") or "december_plugin")
    if node.get("refdomain") != "py" or path is None:
        return None
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", path, node, contnode)


def write_reference(app: Any, config: Any) -> None:
    """Write a page for each room, with a table of its public names."""
    folder = Path(app.srcdir) / "api"
    for path, title in PUBLIC:
        module = importlib.import_module(path)
        lead = (inspect.getdoc(module) or "").strip()
        names = "\n".join(f"   ~{canonical_path(module, name)}" for name in public_names(module))
        text = f"{title}\n{'=' * len(title)}\n\n``{path}``: {lead}\n\n.. autosummary::\n   :toctree: names\n\n{names}\n"
        page = folder / f"{path}.rst"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def keep_underscores(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Escape the last underscore of fields such as ``:ivar means_:``, which would be read as the mark of a link."""
    for number, line in enumerate(lines):
        if field := re.match(r":(ivar|param) [^:]*:", line):
            lines[number] = re.sub(r"_(?=[,:])", r"\\_", field.group()) + line[field.end() :]


def prepare_notebook(homes: Path, page: str) -> None:
    """Let the notebook of a page use a new lab, not the user's, and the commands of this environment."""
    os.environ["DECEMBER_HOME"] = str(homes / page)
    commands = str(Path(sys.executable).parent)
    if commands not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = commands + os.pathsep + os.environ["PATH"]


def stop_servers(homes: Path) -> None:
    """Stop the servers of notebooks that failed before their last cell, which stops them."""
    for home in homes.rglob("server"):
        environment = {**os.environ, "DECEMBER_HOME": str(home.parent)}
        subprocess.run(["december", "db", "stop", "--force"], env=environment, check=False, capture_output=True)


def setup(app: Any) -> None:
    """Connect the reference's pages, their links and what notebooks need."""
    homes = tempfile.TemporaryDirectory(prefix="december-docs-")  # removed when Python ends
    app.connect("config-inited", write_reference)  # before pages are looked for, which autosummary then reads
    app.connect("missing-reference", link_public_name)
    app.connect("autodoc-process-docstring", keep_underscores, priority=600)  # after napoleon, which makes the fields
    app.connect("source-read", lambda _app, page, _source: prepare_notebook(Path(homes.name), page))
    app.connect("build-finished", lambda _app, _error: stop_servers(Path(homes.name)))
