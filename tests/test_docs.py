"""The documentation cannot rot: its code runs, with warnings as errors.

The ```python blocks of a page run in order, as one program in a directory of its own.
`await` may stand at the top level of a block. Where a block cannot run here, the fence
says ```python no-run, and a comment right above it says why:

    <!-- no-run: needs a Redis server -->

Each line of a ```text block is one that they print; tasks may print in any order.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import Any, Final

import attrs
import click
import pytest

import batchq
from batchq import (
    Backoff,
    DropPolicy,
    Hooks,
    JobHooks,
    QueueManager,
    RetryPolicy,
    errors,
)
from batchq.cli.app import batchq as commands
from batchq.core import options
from batchq.core.using import UsingOptions
from batchq.registration import BatchHandlerOptions, HandlerOptions

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("README.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))

FENCE: Final = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,}|:{3,})(?P<info>[^\n`]*)\n"
    r"(?P<code>.*?)^[ \t]*(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
SHELLS: Final = {"bash", "console"}
REASON: Final = re.compile(r"<!-- no-run: \S.*-->\s*\Z")

# Runs the blocks it is given in one namespace, the real __main__, as a script would.
RUNNER: Final = """
import ast, inspect, json, sys
page, blocks = sys.argv[1], json.load(sys.stdin)
sys.argv[:] = [page]
for source in blocks:
    code = compile(source, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        import trio
        trio.run(eval, code, globals())
    else:
        exec(code, globals())
"""


@attrs.frozen
class Block:
    """A fenced block of Python, with as many blank lines above as the page has."""

    line: int
    source: str
    runs: bool
    says_why: bool


def blocks_of(text: str) -> list[Block]:
    """Return a page's Python blocks, in order."""
    found = []
    for match in FENCE.finditer(text):
        language, *attributes = match["info"].split() or [""]
        assert language != "{code-block}", "write ```python: a test runs those"
        if language != "python":
            continue
        assert attributes in ([], ["no-run"]), f"unknown attribute in {match['info']!r}"
        above = text.count("\n", 0, match.start("code"))
        code = textwrap.dedent(match["code"])
        says_why = REASON.search(text[: match.start()]) is not None
        found.append(Block(above + 1, "\n" * above + code, not attributes, says_why))
    return found


def outputs_of(text: str) -> list[str]:
    """Return what a page says that its blocks print."""
    found = [match for match in FENCE.finditer(text) if match["info"].strip() == "text"]
    return [textwrap.dedent(match["code"]) for match in found]


def run(arguments: list[str], folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        input=given,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    blocks = blocks_of(text)
    for block in blocks:
        ast.parse(block.source)  # those that do not run are Python all the same
        assert block.runs or block.says_why, f"line {block.line}: no-run without a reason"
    sources = json.dumps([block.source for block in blocks if block.runs])
    done = run(["-c", RUNNER, str(page)], tmp_path, sources)
    assert done.returncode == 0, done.stdout + done.stderr
    for output in outputs_of(text):
        assert not Counter(output.splitlines()) - Counter(done.stdout.splitlines())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    done = run([str(example)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout, "an example's output is its proof"


def test_readme_exists_and_shows_code() -> None:
    assert blocks_of((ROOT / "README.md").read_text())


PAGE: Final = """
```python
import trio

value = 1
print("one", value, sep="\\n")
```

```text
one
1
```

1. A block in a list:

   ```python
   await trio.sleep(0)
   assert value == {value}
   ```

<!-- no-run: needs a server -->
```python no-run
raise SystemExit(1)
```

```console
$ not Python
```
"""


@pytest.mark.parametrize("value", [1, 2])
def test_blocks_share_a_namespace_and_a_wrong_one_is_found(value: int, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(value=value))
    assert [block.line for block in blocks_of(page.read_text())] == [3, 17, 23]
    if value == 1:
        test_the_code_of_a_page_runs(page, tmp_path)
    else:
        with pytest.raises(AssertionError, match=r'page.md", line 18'):
            test_the_code_of_a_page_runs(page, tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python no-run\npass\n```\n", "without a reason"),
        ("```python later\npass\n```\n", "unknown attribute"),
        ("```{code-block} python\npass\n```\n", "write ```python"),
    ],
)
def test_no_block_is_skipped_without_a_reason(text: str, complaint: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError, match=complaint):
        test_the_code_of_a_page_runs(page, tmp_path)


def test_an_output_that_is_not_printed_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError):
        test_the_code_of_a_page_runs(page, tmp_path)


def test_an_example_that_fails_is_found(tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text("print('so far')\nimport warnings\nwarnings.warn('late', stacklevel=1)\n")
    with pytest.raises(AssertionError, match="UserWarning: late"):
        test_an_example_runs(example, tmp_path)


# ---- What is public is documented.

REFERENCE: Final = ROOT / "docs" / "reference"
ROW: Final = re.compile(r"^\| `(?P<name>\w+)` \| `(?P<default>[^`]+)` \|", re.MULTILINE)


def documented_names() -> set[str]:
    """Return what the pages of the reference take from the docstrings, by public name."""
    pages = "".join(page.read_text() for page in REFERENCE.glob("*.md"))
    names = set(
        re.findall(r"^\.\. auto(?:class|function|data):: batchq\.(\w+)$", pages, re.MULTILINE)
    )
    if re.search(r"^\.\. automodule:: batchq\.errors$", pages, re.MULTILINE):
        names |= set(errors.__all__)
    return names


def test_every_public_name_is_in_the_reference() -> None:
    assert sorted(documented_names()) == batchq.__all__


def test_the_tree_of_errors_names_every_error() -> None:
    tree = {word for word in re.findall(r"\w+", errors.__doc__ or "") if hasattr(errors, word)}
    assert set(errors.__all__) <= tree


def test_every_option_is_on_its_page_with_its_default() -> None:
    text = (REFERENCE / "options.md").read_text()
    table = dict(ROW.findall(text[: text.index("## Drop policies")]))
    defaults = {
        field.name: field.default
        for kind in (options.Settings, *options._GROUPS.values())
        for field in attrs.fields(kind)
    }
    for name in options.Options.__annotations__:
        default = defaults.get(name)  # hooks and rng are the queue's own, and None
        value = default.value if isinstance(default, Enum) else default
        assert table.pop(name, "no row") == repr(value), name
    assert table == {}, "options that do not exist"


@pytest.mark.parametrize("kind", [RetryPolicy, Backoff], ids=lambda kind: kind.__name__)
def test_every_field_of_a_policy_is_on_the_page_of_the_options(kind: type[Any]) -> None:
    text = (REFERENCE / "options.md").read_text()
    table = dict(ROW.findall(text[text.index(f"| field of `{kind.__name__}`") :].split("\n\n")[0]))
    made = kind()
    for field in attrs.fields(kind):
        value = getattr(made, field.name)
        plain = value.value if isinstance(value, Enum) else value
        assert eval(table.pop(field.name), {"Backoff": Backoff}) == plain, field.name  # noqa: S307
    assert table == {}, "fields that do not exist"


def test_every_option_of_a_manager_and_a_handler_is_on_the_page_of_the_options() -> None:
    text = (REFERENCE / "options.md").read_text()
    taken = inspect.signature(QueueManager).parameters
    manager = {name: repr(it.default) for name, it in taken.items() if name != "store"}
    assert table_under(text, "option of `QueueManager`") == manager
    taken = inspect.signature(QueueManager.queue).parameters
    queue = {name: repr(it.default) for name, it in taken.items() if name not in ("self", "name")}
    assert table_under(text, "option of `manager.queue`") == queue
    handler = {**HandlerOptions.__annotations__, **BatchHandlerOptions.__annotations__}
    assert set(table_under(text, "option of a handler")) == set(handler)
    using = set(UsingOptions.__annotations__)
    assert set(table_under(text, "option of `using`")) == using


def table_under(text: str, heading: str) -> dict[str, str]:
    """Return name -> what stands in the second column, of the table with this heading."""
    rows = text[text.index(f"| {heading} |") :].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    cells = [[cell.strip().strip("`") for cell in row.split("|")] for row in rows]
    return {cell[1]: cell[2] for cell in cells}


def test_every_drop_policy_is_on_the_page_of_the_options() -> None:
    text = (REFERENCE / "options.md").read_text()
    assert [policy for policy in DropPolicy if f"\n| `{policy.value}` |" not in text] == []


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("## Events of a queue", {field.name for field in attrs.fields(Hooks)}),
        (
            "## Events of durable jobs",
            {field.name for field in attrs.fields(JobHooks)}
            - {field.name for field in attrs.fields(Hooks)},
        ),
    ],
)
def test_every_hook_is_on_its_page(heading: str, names: set[str]) -> None:
    text = (REFERENCE / "hooks.md").read_text()
    section = text[text.index(heading) :].split("\n## ")[0]
    assert set(re.findall(r"^\| `(on_\w+)` \|", section, re.MULTILINE)) == names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_is_there(page: Path) -> None:
    context, text = click.Context(commands), page.read_text()
    shells = [found["code"] for found in FENCE.finditer(text) if found["info"] in SHELLS]
    code = "\n".join(
        [*shells, *re.findall(r"(?:`|^    )((?:\$ )?batchq [^`\n]+)", text, re.MULTILINE)]
    )
    for name, more in re.findall(r"(?:^|\$ |bin/)batchq ([a-z]+) ?([a-z]*)", code, re.MULTILINE):
        command = commands.get_command(context, name)
        assert command is not None, f"batchq {name}"
        if isinstance(command, click.Group) and more:
            assert command.get_command(context, more), f"batchq {name} {more}"


def test_every_command_is_on_its_page_and_says_what_its_options_do() -> None:
    page = (REFERENCE / "cli.md").read_text()
    context = click.Context(commands)
    for name in commands.list_commands(context):
        # docs/conf.py puts the command's own help here.
        assert f"```{{help}} {name}\n```" in page, name
        command = commands.get_command(context, name)
        assert command is not None
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.help, f"{name} {option.opts[0]}"
