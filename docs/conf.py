"""How Sphinx builds these pages: `sphinx-build -W -b html docs docs/_build`.

The build needs no network: nothing is looked up in other projects' inventories.

A page shows what a command of `batchq` says of itself by a block of its own:

    ```{help} work
    ```

and the life of a job, from the table in `batchq/core/lifecycle.py`, by

    ```{life}
    ```
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from importlib.metadata import version as version_of
from itertools import pairwise
from typing import Any, Final

import click

from batchq.cli.app import batchq as commands
from batchq.core.lifecycle import TABLE, JobState

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
        found = command.get_command(context, name) if isinstance(command, click.Group) else None
        if found is None:
            raise LookupError(f"batchq has no command {name!r}")
        command, context = found, click.Context(found, context, info_name=name)
    return f"```text\n{command.get_help(context)}\n```"


def _ask_commands(_: object, __: str, content: list[str]) -> None:
    content[0] = re.sub(r"^```\{help\}(?P<command>.*)\n```$", _help, content[0], flags=re.MULTILINE)


# Where a state stands in the drawing of a job's life; None is what is not there.
_PLACES: Final[dict[JobState | None, tuple[int, int]]] = {
    None: (80, 60),
    JobState.PENDING: (80, 220),
    JobState.PROCESSING: (400, 220),
    JobState.COMPLETED: (720, 60),
    JobState.FAILED: (720, 220),
    JobState.CANCELLED: (720, 380),
}
_HALF: Final = (62, 18)  # of a state's box
# How far below the straight way an arrow has its middle, where the rule would have it cross others.
_DETOURS: Final[dict[tuple[JobState | None, JobState], int]] = {
    (JobState.COMPLETED, JobState.PENDING): -200,
    (JobState.FAILED, JobState.PENDING): 150,
    (JobState.CANCELLED, JobState.PENDING): 260,
}


def _life(_: re.Match[str]) -> str:
    """Return the life of a job as a drawing and a table."""
    rows = [
        f"| {row.number} | {_name(row.source)} | {_name(row.target)} | {row.by} | {row.when} |"
        f" {row.effect} |"
        for row in TABLE
    ]
    head = ["| # | from | to | by | when | effect |", "|---|---|---|---|---|---|"]
    drawing = f"```{{raw}} html\n{_drawing()}\n```"
    return "\n".join([drawing, "", *head, *rows])


def _name(state: JobState | None) -> str:
    return "none" if state is None else f"`{state.value}`"


def _drawing() -> str:
    """Return the moves of the table as an SVG; what is deleted leaves the drawing."""
    labels: dict[tuple[JobState | None, JobState], dict[str, None]] = {}
    for row in TABLE:
        if row.target is not None:
            labels.setdefault((row.source, row.target), {})[f"{row.number} {row.move.value}"] = None
    arrows = [_arrow(*ends, list(words)) for ends, words in labels.items()]
    lines, moves = zip(*arrows, strict=True)  # no line crosses what is written
    boxes = [_box(state, *place) for state, place in _PLACES.items() if state is not None]
    style = "font: 12px sans-serif; fill: none; stroke: currentColor; max-width: 100%"
    marker = (
        '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto"><path d="M0 0L8 4L0 8z" fill="currentColor"/></marker>'
    )
    inside = "\n".join([f"<defs>{marker}</defs>", *lines, *moves, *boxes])
    return f'<svg viewBox="0 0 820 470" role="img" style="{style}">\n{inside}\n</svg>'


def _box(state: JobState, x: int, y: int) -> str:
    half_width, half_height = _HALF
    frame = (
        f'<rect x="{x - half_width}" y="{y - half_height}" width="{2 * half_width}"'
        f' height="{2 * half_height}" rx="8"/>'
    )
    return frame + _text(state.value, x, y + 4, bold=True)


def _arrow(source: JobState | None, target: JobState, words: list[str]) -> tuple[str, str]:
    """Return an arrow and its moves; of two that go to and fro each bends to its right."""
    (x1, y1), (x2, y2) = _PLACES[source], _PLACES[target]
    if source is target:
        way = -1 if source is JobState.PROCESSING else 1  # above it there is more room
        near, far = y1 + 18 * way, y1 + 90 * way
        path = f"M{x1 - 30} {near}C{x1 - 50} {far} {x1 + 50} {far} {x1 + 30} {near}"
        return _line(path), _words(words, x1, y1 + 86 * way)
    length = math.hypot(x2 - x1, y2 - y1)
    bend = length / 6 if source is not None else 0.0
    middle = (
        (x1 + x2) / 2 - (y2 - y1) / length * bend,
        (y1 + y2) / 2 + (x2 - x1) / length * bend,
    )
    if detour := _DETOURS.get((source, target)):
        middle = (x1 + x2) / 2, (y1 + y2) / 2 + detour
    begin = _edge((x1, y1), middle) if source is not None else (x1, y1)
    end = _edge((x2, y2), middle)
    path = "M{:.0f} {:.0f}Q{:.0f} {:.0f} {:.0f} {:.0f}".format(*begin, *middle, *end)
    top = [(a + 2 * m + b) / 4 for a, m, b in zip(begin, middle, end, strict=True)]
    return _line(path), _words(words, top[0], top[1] - 6 * (len(words) - 1))


def _edge(center: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return where the way from a box's center to another point leaves the box."""
    dx, dy = other[0] - center[0], other[1] - center[1]
    scale = min(
        _HALF[0] / abs(dx) if dx else math.inf,
        _HALF[1] / abs(dy) if dy else math.inf,
    )
    return center[0] + dx * scale, center[1] + dy * scale


def _line(path: str) -> str:
    return f'<path d="{path}" marker-end="url(#tip)"/>'


def _words(words: list[str], x: float, y: float) -> str:
    return "".join(_text(each, x, y + 13 * number) for number, each in enumerate(words))


def _text(words: str, x: float, y: float, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" fill="currentColor"'
        ' stroke="var(--color-background-primary, white)" stroke-width="5" paint-order="stroke"'
        f"{weight}>{words}</text>"
    )


def _draw_life(_: object, __: str, content: list[str]) -> None:
    content[0] = re.sub(r"^```\{life\}\n```$", _life, content[0], flags=re.MULTILINE)


def setup(app: Any) -> None:  # noqa: ANN401
    """Connect what the settings above cannot say."""
    # Before napoleon, which turns sections into indented lines of its own.
    app.connect("autodoc-process-docstring", _process_docstring, priority=400)
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("source-read", _ask_commands)
    app.connect("source-read", _draw_life)
