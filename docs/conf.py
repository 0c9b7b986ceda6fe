"""Builds the manual: sphinx-build -W docs docs/_build."""

import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import tfp_invconv as tic  # noqa: E402

project = "tfp_invconv"
copyright = "the tfp_invconv maintainers"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = project
exclude_patterns = ["_build", "jupyter_execute"]
templates_path = ["_templates"]
# Notebooks are shown as they were committed, with their outputs.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
# Single backticks in docstrings are code.
default_role = "code"
autodoc_member_order = "bysource"
autosummary_generate = True
# What every bijector has stands in TFP's own manual.
autodoc_default_options = {"members": True, "inherited-members": False}

HEADING = re.compile(r"^(\s*)#### (.+)$")


def to_restructured_text(app, what, name, obj, options, lines):
    """Docstrings are in the Markdown of TFP: headings with ####, fenced formulas."""
    result, fence = [], None
    for line in lines:
        heading = HEADING.match(line)
        if line.strip().startswith("```") and fence is None:
            fence = len(line) - len(line.lstrip())
            result += ["", " " * fence + "::", ""]
        elif line.strip() == "```":
            fence = None
            result.append("")
        elif fence is not None:
            result.append("    " + line)
        elif heading:
            result += ["", f"{heading[1]}.. rubric:: {heading[2]}", ""]
        elif line.lstrip().startswith((">>>", "...")):
            result.append(line)
        else:
            result.append(escaped(line))
    lines[:] = result


def escaped(line):
    """Bars outside of code are bars, and code may be followed by a letter."""
    parts = line.split("`")
    parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
    return re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", "`".join(parts))


def public_names():
    """Every public name, those of the modules with the modules before them."""
    names = []
    for name in tic.__all__:
        value = getattr(tic, name)
        if not hasattr(value, "__path__") and not hasattr(value, "__file__"):
            names.append(f"tfp_invconv.{name}")
            continue
        for inner in getattr(value, "__all__", None) or vars(value):
            member = getattr(value, inner)
            if not inner.startswith("_") and getattr(member, "__module__", "").startswith(
                "tfp_invconv"
            ):
                names.append(f"tfp_invconv.{name}.{inner}")
    return names


def write_pages(app):
    """One page for each public name, and copies of the notebooks."""
    listed = "\n".join(f"   {name}" for name in public_names())
    page = HERE / "api.rst"
    text = f"Reference\n=========\n\n.. autosummary::\n   :toctree: reference\n\n{listed}\n"
    if not page.exists() or page.read_text() != text:
        page.write_text(text)
    shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True)


def setup(app):
    write_pages(app)
    app.connect("autodoc-process-docstring", to_restructured_text, priority=100)
