"""`batchq work`: run workers for somebody's own module."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from batchq.cli.refusal import Refusal

if TYPE_CHECKING:
    from batchq.manager import QueueManager

__all__ = ["load_manager", "queue_slots", "work", "work_command"]

_TARGET: Final = re.compile(r"(?P<module>[\w.]+)(?::(?P<name>\w+))?")


@click.command()
@click.argument("target", metavar="MODULE[:MANAGER]")
@click.option(
    "-q",
    "--queues",
    "names",
    multiple=True,
    metavar="NAME[=N][,...]",
    help="Work on these queues only, each with at most N calls of its handlers at a time in"
    " one process.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1_000),
    help="Run so many worker processes; one that crashes is started again.  [default: work in"
    " this process]",
)
@click.option(
    "--url",
    metavar="URL",
    help="The store, for a manager that names none itself: sets BATCHQ_URL.",
)
@click.option("--supervised", is_flag=True, hidden=True)
@click.pass_context
def work(
    ctx: click.Context,
    *,
    target: str,
    names: Sequence[str],
    processes: int | None,
    url: str | None,
    supervised: bool,
) -> None:
    """Run workers for the QueueManager in your module, until Ctrl-C or SIGTERM.

    MODULE is looked for in the current directory first; MANAGER is its QueueManager, called
    `manager` if you do not say. The first signal lets what runs finish, for as long as the
    manager's `grace`; a second one stops now. What was not finished is run again by the next
    worker. Warnings are logged to stderr, unless MODULE configures logging itself; one tells of
    jobs that wait for a handler that MODULE does not have.

    \b
    Example: myapp.py holds  manager = QueueManager("sqlite:///jobs.db")
        batchq work myapp:manager
        batchq work myapp:manager -q email=5,ai=2 --processes 4
    """  # noqa: D301 - click's mark, not a backslash
    if url is not None:
        os.environ["BATCHQ_URL"] = url
    sys.path.insert(0, str(Path.cwd()))
    slots = queue_slots(names)
    if processes is not None:
        _module_and_name(target)
        ctx.exit(_supervise(target, names, processes))
    if supervised:
        _stop_with_supervisor()
    manager = load_manager(target)
    _log_warnings()
    # A supervisor has said already that work is done.
    manager.run(queues=slots, on_start=None if supervised else _announce_queues)


def _announce_queues(queues: Mapping[str, int]) -> None:
    _announce(
        "working on " + ", ".join(f"{name} ({most} at a time)" for name, most in queues.items())
    )


def _supervise(target: str, names: Sequence[str], processes: int) -> int:
    from batchq.cli.supervisor import Supervisor

    count = "1 process works" if processes == 1 else f"{processes} processes work"
    _announce(f"{count} for {target}")
    return Supervisor(work_command(target, names), processes).run()


def _announce(what: str) -> None:
    click.echo(f"batchq: {what}; Ctrl-C lets what runs finish, a second one stops now", err=True)


def _log_warnings() -> None:
    """Show warnings, where the user's module has not said what to do with them."""
    if not logging.getLogger("batchq").hasHandlers():
        logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")


def work_command(target: str, names: Sequence[str] = ()) -> list[str]:
    """Return the command that runs one worker process, until its standard input ends."""
    queues = [part for name in names for part in ("-q", name)]
    return [sys.executable, "-m", "batchq", "work", target, *queues, "--supervised"]


def queue_slots(names: Sequence[str]) -> dict[str, int | None] | None:
    """Read `-q email=5,ai -q pdf` as {"email": 5, "ai": None, "pdf": None}; none as None."""
    slots: dict[str, int | None] = {}
    for part in (part.strip() for name in names for part in name.split(",")):
        queue, equals, count = part.partition("=")
        if not queue or (equals and not (count.isascii() and count.isdecimal() and int(count))):
            raise Refusal(f"--queues wants NAME or NAME=N with N from 1, got {part!r}")
        if queue in slots:
            raise Refusal(f"--queues names {queue!r} twice")
        slots[queue] = int(count) if equals else None
    return slots or None


def load_manager(target: str) -> QueueManager:
    """Import the manager that `target` names.

    Raises:
        Refusal: there is no such module, no such name in it, or it is no QueueManager.
            Whatever the module itself raises passes, for its author needs the traceback.
    """
    from batchq.manager import QueueManager

    module_name, name = _module_and_name(target)
    module = import_module(module_name)
    managers = sorted(key for key, it in vars(module).items() if isinstance(it, QueueManager))
    there = f"; it has {', '.join(managers)}" if managers else " and no QueueManager at all"
    try:
        found = getattr(module, name)
    except AttributeError:
        raise Refusal(f"module {module_name!r} has no {name!r}{there}") from None
    if not isinstance(found, QueueManager):
        kind = type(found).__name__
        raise Refusal(f"{module_name}:{name} is no QueueManager but of type {kind}{there}")
    return found


def _module_and_name(target: str) -> tuple[str, str]:
    match = _TARGET.fullmatch(target)
    if match is None or target.endswith(".py"):
        hint = Path(target.partition(":")[0]).stem or "myapp"
        raise Refusal(f"say MODULE:MANAGER, as in {hint}:manager, not {target!r}")
    module = match["module"]
    try:
        found = find_spec(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        found = None
    except ValueError:  # a module that was made without a specification, or ".." in the name
        found = None
    if found is None:
        raise Refusal(f"there is no module {module!r} in {Path.cwd()} or on Python's path")
    return module, match["name"] or "manager"


def _stop_with_supervisor() -> None:
    """Stop when it closes its end of our standard input, or is gone; handlers see an empty one."""
    from batchq.signals import stop_here

    line = os.dup(0)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)

    def listen() -> None:
        os.read(line, 1)
        stop_here()

    threading.Thread(target=listen, name="batchq-supervised", daemon=True).start()
