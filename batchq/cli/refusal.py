"""Why a command does not even begin."""

from __future__ import annotations

from typing import IO, Any

import click

__all__ = ["Refusal"]


class Refusal(click.ClickException):
    """What was asked for cannot be done: one line on stderr.

    Attributes:
        exit_code: 2 where the user can mend it, else 1.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc] # click itself sets it so

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(f"batchq: {self.format_message()}", file=file, err=True)
