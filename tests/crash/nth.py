"""The n-th call fails, for every n: a full disk, a broken one, an fsync that did not work.

    python -m tests.crash.nth [--seed N] [--short]

One workload on a SQLite file: opening, commits of every kind, reads, checkpoints, a copy, closing.
For each fault and n = 1, 2, ... the n-th such call of the process to the disk fails (shim.c),
until the workload passes untouched. The workload does what a program should: after
`StoreFull` it goes on with the same store once there is space, after `StoreBroken` it opens
the file anew. At the end all that was acknowledged is there, nothing that was refused is.

    no error but those of the StoreError family    a full disk is StoreFull, and needs no restart
    an fsync that failed is StoreBroken            which writes and fsyncs nothing any more

Folders are not among the faults: whether their fsync works, SQLite does not ask.

Prints one line of JSON; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import errno
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import click

from batchq.errors import StoreBroken, StoreError, StoreFull
from batchq.stores.sqlite import SqliteStore
from tests.command import parser_of
from tests.crash.shim import Kind, Orders, build, environment, scratch, why_not
from tests.crash.workload import Workload, busy

ROOT: Final = Path(__file__).parents[2]
_COMMITS: Final = 24
_STRIDE: Final = 17
_FOR_GOOD: Final = 2**40

T = TypeVar("T")


@attrs.frozen
class Fault:
    """What goes wrong.

    Attributes:
        name: for people.
        kind: which calls fail.
        error: with this errno.
        for_good: all later ones do, too, until somebody heals the disk.
        half: the first of them writes half of its bytes.
        full: it is lack of space: StoreFull, and no restart is needed.
    """

    name: str
    kind: Kind
    error: int
    for_good: bool = False
    half: bool = False
    full: bool = False


FAULTS: Final = (
    Fault("a write finds no space", Kind.WRITE, errno.ENOSPC, full=True),
    Fault("the disk is full", Kind.WRITE, errno.ENOSPC, for_good=True, half=True, full=True),
    Fault("a write fails", Kind.WRITE, errno.EIO),
    Fault("an fsync fails", Kind.SYNC, errno.EIO),
    Fault("an fsync finds no space", Kind.SYNC, errno.ENOSPC),
    Fault("no fsync works any more", Kind.SYNC, errno.EIO, for_good=True),
    Fault("a file can't be made: no space", Kind.CREATE, errno.ENOSPC),
    Fault("a file can't be opened: too many are", Kind.CREATE, errno.EMFILE),
    Fault("a read fails", Kind.READ, errno.EIO),
    Fault("a file can't be removed", Kind.REMOVE, errno.EIO),
)


@attrs.define
class Trial:
    """The workload once, with one fault.

    Attributes:
        folder: where the file is.
        fault: what goes wrong.
        orders: to the shim.
        seed: what the workload does.
        told: the errors that it was told.
        broken: promises that did not hold.
    """

    folder: Path
    fault: Fault
    orders: Orders
    seed: int
    told: Counter[str] = attrs.field(factory=Counter)
    broken: list[str] = attrs.field(factory=list)

    @property
    def _path(self) -> Path:
        return self.folder / "jobs.db"

    @property
    def _copy(self) -> Path:
        return self.folder / "copy.db"

    def run(self, nth: int) -> bool:
        """Let the n-th call fail; returns whether there was one."""
        fault = self.fault
        last = _FOR_GOOD if fault.for_good else nth
        self.orders.fail(fault.kind, fault.error, first=nth, last=last, half=fault.half)
        workload = Workload(random.Random(self.seed))
        store = self._open()
        for number in range(_COMMITS):
            store = self._step(store, workload)
            if number % 8 == 7:
                self._told(store.close)
                store = self._open()
            self._told(store.counts)
        self._told(lambda: store.backup(self._copy))
        self._told(store.close)
        failed = self.orders.failed
        if not fault.for_good and self.told.total() > 1:
            self.broken.append(f"it failed once, and was told as {dict(self.told)}")
        self.orders.heal()
        self._judge(workload)
        return failed > 0

    def _open(self) -> SqliteStore:
        store = self._told(lambda: busy(self._path))
        if store is None:
            self.orders.heal()
            store = busy(self._path)
        return store

    def _told(self, call: Callable[[], T]) -> T | None:
        """Make a call that may be told of the fault."""
        try:
            return call()
        except StoreError as error:
            self.told[type(error).__name__] += 1
        except Exception as error:
            self.broken.append(f"it raised {error!r}")
        return None

    def _step(self, store: SqliteStore, workload: Workload) -> SqliteStore:
        """Make one commit as a program should; returns the store to go on with."""
        try:
            workload.step(store)
        except StoreFull:
            self.told["StoreFull"] += 1
            self.orders.heal()  # space returns
            workload.step(store)
        except StoreBroken as error:
            self.told["StoreBroken"] += 1
            if self.fault.full:
                self.broken.append(f"lack of space broke the store: {error}")
            self._see_it_refuse(store, workload)
            self._told(store.close)
            return self._open()
        except StoreError as error:
            self.broken.append(f"a commit raised {error!r}")
        return store

    def _see_it_refuse(self, store: SqliteStore, workload: Workload) -> None:
        """A store that broke does nothing any more, least of all the same fsync."""
        before = self.orders.calls(Kind.SYNC), self.orders.calls(Kind.WRITE)
        try:
            workload.step(store)
        except StoreBroken:
            if before != (self.orders.calls(Kind.SYNC), self.orders.calls(Kind.WRITE)):
                self.broken.append("a store that broke wrote once more")
        else:
            self.broken.append("a store that broke went on")

    def _judge(self, workload: Workload) -> None:
        for path in (self._path, self._copy):
            if path.exists() or path is self._path:
                self._judge_file(path, workload)
        self.broken += workload.book.complaints
        left = [file.name for file in self.folder.glob(".batchq-*")]
        if left and self.fault.kind is not Kind.REMOVE:
            self.broken.append(f"it left {left} behind")

    def _judge_file(self, path: Path, workload: Workload) -> None:
        with closing(SqliteStore(path)) as store:
            check = store._here().writer.connection.execute("PRAGMA integrity_check").fetchone()[0]
            broken = workload.book.broken(store)
        self.broken += [f"{path.name}: {line}" for lines in broken.values() for line in lines]
        if check != "ok":
            self.broken.append(f"{path.name}: {check}")


def tried(fault: Fault, folder: Path, orders: Orders, *, seed: int, stride: int) -> dict[str, Any]:
    """Let every call of a kind, or one in `stride`, fail in a trial; returns what happened."""
    told: Counter[str] = Counter()
    violations: list[str] = []
    for nth in range(1, 10_000, stride):
        trial = Trial(folder, fault, orders, seed)
        try:
            met = trial.run(nth)
        except Exception as error:
            met = True
            trial.broken.append(f"it raised {error!r}")
        told += trial.told
        violations += [f"{fault.name}, call {nth}: {line}" for line in trial.broken]
        for file in folder.iterdir():
            file.unlink()
        if not met:
            break
    if fault.kind is Kind.SYNC and not told["StoreBroken"]:
        violations.append(f"{fault.name}: nobody was told")
    return {"calls": nth - 1, "told": dict(sorted(told.items())), "violations": violations}


def be_tried(folder: Path, orders: Path, *, seed: int, short: bool) -> int:
    """Be the process with the shim; prints what happened."""
    found = {}
    for fault in FAULTS:
        stride = _STRIDE if short and fault.kind in {Kind.WRITE, Kind.READ} else 1
        found[fault.name] = tried(fault, folder, Orders(orders), seed=seed, stride=stride)
        click.echo(f"{fault.name}: {found[fault.name]['calls']} calls", err=True)
    violations = [line for each in found.values() for line in each.pop("violations")]
    report = {"seed": seed, "faults": found, "violations": violations[:20], "ok": not violations}
    click.echo(json.dumps(report))
    return 1 if violations else 0


def main() -> int:
    """Run it; returns the exit code."""
    parser = parser_of("tests.crash.nth", __doc__)
    parser.add_argument("--seed", type=int, default=1, help="what the workload does")
    parser.add_argument("--short", action="store_true", help="one in 17 of the frequent calls")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder is not None:
        return be_tried(
            asked.folder / "disk", asked.folder / "orders", seed=asked.seed, short=asked.short
        )
    if reason := why_not():
        click.echo(json.dumps({"ok": True, "skipped": reason}))
        return 0
    with scratch("nth") as name:
        folder = Path(name)
        (folder / "disk").mkdir()
        Orders(folder / "orders")
        surroundings = environment(build(folder), folder / "disk", orders=folder / "orders")
        command = [sys.executable, "-m", "tests.crash.nth", "--folder", name]
        command += ["--seed", str(asked.seed), *["--short"] * asked.short]
        return subprocess.run(command, cwd=ROOT, env=surroundings, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
