"""The command line: one file per family of commands, each imported when it is asked for."""

from __future__ import annotations

from batchq.cli.app import main

__all__ = ["main"]
