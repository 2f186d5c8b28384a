"""What the commands of the tests share: a help that teaches, and a refusal of empty runs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence

__all__ = ["chosen", "parser_of", "positive", "seconds"]


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows a docstring as it is, and the defaults."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = any(action.default is each for each in (None, False, argparse.SUPPRESS))
        return action.help if silent else f"{action.help} [default: %(default)s]"


def parser_of(command: str, doc: str | None) -> argparse.ArgumentParser:
    """Make the parser of `python -m command`; its help is the module's docstring."""
    return argparse.ArgumentParser(f"python -m {command}", description=doc, formatter_class=_Help)


def positive(text: str) -> int:
    """Read a whole number from 1: a run of nothing would prove nothing."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text}")
    return int(text)


def seconds(text: str) -> float:
    """Read how long something takes: as long as it proves anything."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text}")
    return found


def chosen(
    parser: argparse.ArgumentParser, names: Iterable[str], arguments: Sequence[str]
) -> set[str]:
    """Return the names that have a word of the command line in them; all where it has none.

    It ends the process with 2, and says what there is, if a word is in no name.
    """
    parser.add_argument(
        "words", nargs="*", metavar="word", help="only faults whose names have one of these in them"
    )
    found, every = set[str](), [*names]
    words = parser.parse_args(arguments).words
    for word in words:
        fitting = [name for name in every if word in name]
        if not fitting:
            parser.error("\n  ".join([f"no fault has {word!r} in its name; there are", *every]))
        found.update(fitting)
    return found if words else {*every}
