"""Builds the manual: sphinx-build -W docs docs/_build."""

import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

project = "tfp_invconv"
copyright = "the tfp_invconv maintainers"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["manual.css"]
exclude_patterns = ["_build", "jupyter_execute"]
templates_path = ["_templates"]
# Notebooks keep the outputs that they were committed with.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
# Blocks without a language are commands.
highlight_language = "none"
# Links to headings, such as layers.md#couplings.
myst_heading_anchors = 2
# Single backticks in docstrings are code.
default_role = "code"
add_module_names = False
python_use_unqualified_type_names = True
# One argument a line in longer signatures.
python_maximum_signature_line_length = 80
autodoc_member_order = "bysource"
# The constructor's signature stands with its arguments, below the description of the class.
autodoc_class_signature = "separated"
# TFP's and Keras's own manuals describe what these classes have.
BASES = ["Bijector", "AutoCompositeTensorBijector", "Composition", "Module", "Model", "Layer"]
BASES += ["Trainer", "TensorFlowTrainer", "Operation", "KerasSaveable", "Callback", "object"]
autodoc_default_options = {
    "members": True,
    "inherited-members": ", ".join(BASES),
    "special-members": "__init__",
}
autosummary_generate = True

HEADING = re.compile(r"^(\s*)#### (.+)$")


def to_restructured_text(app, what, name, obj, options, lines):
    """Translates the Markdown of TFP's docstrings: headings with ####, fenced formulas."""
    result, fence = [], None
    for line in lines:
        heading = HEADING.match(line)
        if line.strip().startswith("```") and fence is None:
            fence = len(line) - len(line.lstrip())
            result += ["", " " * fence + ".. code-block:: none", ""]
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
            if line.strip() == "Returns:":
                # An empty first line, or napoleon takes all before a colon for a type.
                result.append(line.replace("Returns:", "  \\ "))
    lines[:] = result


def escaped(line):
    """Escapes bars outside code, and separates code from a letter that follows it."""
    parts = line.split("`")
    parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
    return re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", "`".join(parts))


def copy_notebooks(app):
    """Sphinx reads only what is in its own folder."""
    shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True)


def link_copied_notebooks(app, name, source):
    """Links lead to where the notebooks lie in the repository, for those who read it there."""
    source[0] = source[0].replace("](../notebooks/", "](notebooks/")


def setup(app):
    copy_notebooks(app)
    app.connect("source-read", link_copied_notebooks)
    app.connect("autodoc-process-docstring", to_restructured_text, priority=100)
