"""`batchq`: the group of all commands.

Rule 1: a command's module imports click, the standard library and what imports no more; what
else it needs it imports when it runs. So `batchq --help` answers at once.
Rule 2: what the user can mend is one line on stderr and exit code 2; any other error of
batchq is one line and exit code 1; a traceback is a bug, or the user's own code.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import click

from batchq import __version__
from batchq.cli.refusal import Refusal
from batchq.errors import (
    BatchqError,
    MissingExtra,
    NotAStore,
    OptionError,
    StoreTooNew,
    UnknownHandler,
    UnknownJob,
    Unsupported,
)

__all__ = ["Commands", "batchq", "main"]

# In the order of a first day with it.
_MODULES: Final = MappingProxyType(
    {
        "demo": "batchq.cli.demo.command",
        "work": "batchq.cli.work",
        "stats": "batchq.cli.stats",
        "jobs": "batchq.cli.jobs",
        "job": "batchq.cli.jobs",
        "queue": "batchq.cli.orders",
        "clean": "batchq.cli.orders",
        "backup": "batchq.cli.upkeep",
        "doctor": "batchq.cli.upkeep",
    }
)
_TO_MEND: Final = (
    MissingExtra,
    NotAStore,
    OptionError,
    StoreTooNew,
    UnknownHandler,
    UnknownJob,
    Unsupported,
)


class Commands(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name the commands."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command."""
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(module), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the command; an error of batchq becomes one line."""
        try:
            return super().invoke(ctx)
        except BatchqError as error:
            code = 2 if isinstance(error, _TO_MEND) else 1
            raise Refusal(" ".join(str(error).split()), exit_code=code) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="batchq")
def batchq() -> None:
    """Collect many small things into batches; keep them on disk until they are done.

    Begin with `batchq demo --quick`: a newsletter to 500 people, with failures, retries and
    a worker that is killed half-way, in about ten seconds. Each command has its own --help
    with an example.
    """


def main() -> None:
    """Run the command that the arguments name; ends the process."""
    batchq(prog_name="batchq")
