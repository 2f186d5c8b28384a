"""How Sphinx builds these pages: `sphinx-build -W -b html docs docs/_build`.

The build needs no network: nothing is looked up in other projects' inventories.

A page shows what a command of `batchq` says of itself by a block of its own:

    ```{help} work
    ```
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version as version_of
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import click

from batchq.cli.app import batchq as commands

project = "batchq"
author = "batchq contributors"
copyright = "2026, batchq contributors"  # noqa: A001 - Sphinx's name for it
version = release = version_of("batchq")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"batchq {version}"
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# In our docstrings `name` is code, as it is in the pages.
default_role = "code"
highlight_language = "none"  # drawings; a block of code names its language
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}

napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has the types
# Where a formula, a rule or a number comes from.
napoleon_custom_sections = ["Source"]


# Callers get these and never make one: how it is done is no news to them.
_MADE_BY_BATCHQ: Final = {"Entry", "Batch", "Job", "JobHandle", "Handler", "BatchHandler"}
_SECTION: Final = re.compile(r"(Args|Attributes|Raises|Returns|Source):")


def _drawings_as_written(lines: list[str]) -> Iterator[str]:
    """Mark each indented block as literal: a drawing is no reStructuredText."""
    inside = False
    for before, line in pairwise(["", *lines]):
        indented = line.startswith(" ")
        if indented and not before and not inside:
            yield from ("::", "")
        inside = indented or (inside and not line)
        yield line


# The arguments are Sphinx's, and it types them as anything.
def _process_docstring(*event: Any) -> None:  # noqa: ANN401
    _, what, _, _, _, lines = event
    if what in {"module", "class"}:
        sections = [at for at, line in enumerate(lines) if _SECTION.fullmatch(line)]
        prose = len(lines) if what == "module" or not sections else sections[0]
        lines[:prose] = [*_drawings_as_written(lines[:prose])]
    # Our docstrings name no types, but napoleon takes what stands before a colon for one.
    said = [at + 1 for at, line in enumerate(lines) if line == "Returns:"]
    for at in [0] if what == "property" else said:
        indent = len(lines[at]) - len(lines[at].lstrip())
        lines[at] = f"{lines[at][:indent]}: {lines[at][indent:]}"


def _process_signature(*event: Any) -> tuple[str, Any] | None:  # noqa: ANN401
    _, what, name, _, _, signature, returned = event
    if what == "class" and name.rpartition(".")[2] in _MADE_BY_BATCHQ:
        return "", returned
    if signature is not None and "NOTHING" in signature:
        return signature.replace("NOTHING", "..."), returned  # how attrs says "made anew"
    return None


def _help(asked: re.Match[str]) -> str:
    """Return what `batchq COMMAND --help` prints, or `batchq --help`, as a block."""
    settings = commands.context_settings
    context = click.Context(commands, info_name="batchq", terminal_width=80, **settings)
    command: click.Command = commands
    for name in asked["command"].split():
        found = commands.get_command(context, name)
        if found is None:
            raise LookupError(f"batchq has no command {name!r}")
        command, context = found, click.Context(found, context, info_name=name)
    return f"```text\n{command.get_help(context)}\n```"


def _ask_commands(_: object, __: str, content: list[str]) -> None:
    content[0] = re.sub(r"^```\{help\}(?P<command>.*)\n```$", _help, content[0], flags=re.MULTILINE)


def _drop_empty_globs(app: Any, docname: str, content: list[str]) -> None:  # noqa: ANN401
    """Leave sections without a page out of the index; Sphinx warns of them otherwise."""
    if docname == "index":
        lines = content[0].splitlines(keepends=True)
        pages = Path(app.srcdir)
        content[0] = "".join(
            line
            for line in lines
            if not line.endswith("*\n") or any(pages.glob(f"{line.strip()}.md"))
        )


def setup(app: Any) -> None:  # noqa: ANN401
    """Connect what the settings above cannot say."""
    # Before napoleon, which turns sections into indented lines of its own.
    app.connect("autodoc-process-docstring", _process_docstring, priority=400)
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("source-read", _ask_commands)
    app.connect("source-read", _drop_empty_globs)
