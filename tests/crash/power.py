"""A power cut at any moment: what was acknowledged is there, and nothing is half there.

    python -m tests.crash.power [--cuts 500] [--commits 400] [--seed N] [--short]

Two processes make commits of every kind on a SQLite file, open and close it, let it be
checkpointed. Every change of its folder is written down (shim.c), with the acknowledgements
between them. For each cut four folders are made that the disk may hold then (disk.py); each
is opened with the store and compared with what was acknowledged before the cut.

    full      the default: 0 lost, 0 corrupt, 0 that can't be opened
    process   durability="process": what was lost is told; 0 corrupt, 0 that can't be opened
    off       a control, no fsync at all: losses must show, or this proves nothing

Prints one line of JSON; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
import click

from batchq.core.job import Group, NewJob
from batchq.errors import StoreError
from batchq.stores.sqlite import SqliteStore, connect
from tests.command import parser_of, positive
from tests.crash.disk import MODES, Disk, write
from tests.crash.shim import Change, Record, build, environment, records, scratch, why_not
from tests.crash.workload import Book, Workload, busy

ROOT: Final = Path(__file__).parents[2]
DURABILITIES: Final = ("full", "process", "off")
_ACKS: Final = "acks"
_REOPEN: Final = 1 / 25
_PROCESSES: Final = 2
_FIRST: Final = 60  # changes, at each of which it is cut: the file is made then


def work(folder: Path, durability: str, commits: int, seed: int) -> None:
    """Be a process that loses power: make commits, and write each answer down."""
    connect.SYNCHRONOUS["off"] = "OFF"
    acks = os.open(folder / _ACKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    draw = random.Random(seed)
    workload = Workload(draw, number=seed * 1_000_000)
    store = busy(folder / "jobs.db", durability)
    for _ in range(commits):
        if draw.random() < _REOPEN:
            store.close()
            store = busy(folder / "jobs.db", durability)
        if lines := workload.step(store):
            os.write(acks, lines.encode())
    store.close()
    assert not workload.book.complaints, workload.book.complaints


def recorded(folder: Path, durability: str, commits: int, seed: int) -> list[Record]:
    """Let `work` run under the shim; returns every change of its folder."""
    (inside := folder / "disk").mkdir()
    trace = folder / "trace"
    library = build(folder)
    command = [sys.executable, "-m", "tests.crash.power", "--be", durability]
    command += ["--folder", str(inside), "--commits", str(commits // _PROCESSES)]
    running = [
        subprocess.Popen(
            [*command, "--seed", str(_PROCESSES * seed + number)],
            cwd=ROOT,
            env=environment(library, inside, trace=trace),
            stdin=subprocess.DEVNULL,
        )
        for number in range(_PROCESSES)
    ]
    codes = [process.wait() for process in running]
    assert not any(codes), codes
    return list(records(trace))


@attrs.define
class Found:
    """What was found in the images.

    Attributes:
        cuts: moments so far.
        images: how many were looked at.
        facts: the most that had been acknowledged before a cut.
        losing: images in which something acknowledged was not there, by mode.
        lost: the first that was not there, of each of them.
        most_lost: facts that one image did not have, at most.
        corrupt: what was half there.
        unopenable: what could not be opened.
    """

    cuts: int = 0
    images: int = 0
    facts: int = 0
    losing: Counter[str] = attrs.field(factory=Counter)
    lost: list[str] = attrs.field(factory=list)
    most_lost: int = 0
    corrupt: list[str] = attrs.field(factory=list)
    unopenable: list[str] = attrs.field(factory=list)

    def look(self, image: dict[str, bytes], book: Book, where: str, folder: Path) -> None:
        """Open an image with the store, and compare."""
        folder.mkdir()
        write(image, folder)
        self.images += 1
        try:
            with closing(SqliteStore(folder / "jobs.db")) as store:
                self._compare(store, book, where)
        except StoreError as error:
            self.unopenable.append(f"{where}: {type(error).__name__}: {error}")
        except sqlite3.DatabaseError as error:
            self.corrupt.append(f"{where}: {error}")
        finally:
            shutil.rmtree(folder)

    def _compare(self, store: SqliteStore, book: Book, where: str) -> None:
        check = store._here().writer.connection.execute("PRAGMA integrity_check").fetchone()[0]
        if check != "ok":
            self.corrupt.append(f"{where}: {check}")
            return
        broken = book.broken(store)
        if broken["lost"]:
            self.losing[where.rpartition(" ")[2]] += 1
            self.most_lost = max(self.most_lost, len(broken["lost"]))
            self.lost.append(f"{where}: {broken['lost'][0]}")
        self.corrupt += [f"{where}: {line}" for line in broken["corrupt"]]
        for name in ("not_refused", "miscounted"):
            self.corrupt += [f"{where}: {line}" for line in broken[name]]
        [new] = store.commit(Group(enqueue=[NewJob("mail", "send", b'{"n": 0}')])).enqueue
        if not broken["lost"] and new.id in book.stored:
            self.corrupt.append(f"{where}: id {new.id} was given out twice")


def replay(changes: list[Record], cuts: int, seed: int, folder: Path) -> Iterator[Found]:
    """Cut the power at `cuts` moments; yields what is known after each."""
    draw = random.Random(seed)
    of_disk = [number for number, change in enumerate(changes) if change.name != _ACKS]
    moments = set(draw.sample(of_disk, min(cuts, len(of_disk))))
    moments |= set(of_disk[:_FIRST])
    disk, book, found = Disk(), Book(), Found()
    for moment, record in enumerate(changes):
        if record.name == _ACKS:
            if record.change is Change.WROTE:
                book.add(record.data.decode())
            continue
        disk.take(record)
        if moment not in moments:
            continue
        found.facts = book.facts
        for mode in MODES:
            image = disk.image(mode, draw)
            # Memory that SQLite makes anew: it may be missing, or hold anything.
            image.pop("jobs.db-shm", None)
            if draw.random() < 0.5:
                image["jobs.db-shm"] = draw.randbytes(32_768)
            found.look(image, book, f"cut {moment} {mode}", folder / "image")
        found.cuts += 1
        yield found


def cut(durability: str, commits: int, cuts: int, seed: int) -> dict[str, Any]:
    """Record, cut, compare; returns what was found."""
    with scratch("power") as name:
        folder = Path(name)
        changes = recorded(folder, durability, commits, seed)
        found = Found()
        for found in replay(changes, cuts, seed, folder):
            if found.cuts % 50 == 0:
                click.echo(f"{durability}: {found.cuts} cuts", err=True)
    kinds = Counter(change.change.name.lower() for change in changes)
    return {
        "changes": dict(sorted(kinds.items())),
        "cuts": found.cuts,
        "images": found.images,
        "acknowledged": found.facts,
        "lost": len(found.lost),
        "lost_by_mode": dict(found.losing),
        "most_lost_at_once": found.most_lost,
        "corrupt": len(found.corrupt),
        "unopenable": len(found.unopenable),
        "examples": [*found.unopenable[:3], *found.corrupt[:3], *found.lost[:3]],
    }


def verdict(durability: str, found: dict[str, Any]) -> list[str]:
    """Say which promises of this durability were broken."""
    if durability == "off":
        shown = found["lost"] + found["corrupt"] + found["unopenable"]
        return [] if shown else ["the control lost nothing: this proves nothing"]
    broken = {name: found[name] for name in ("corrupt", "unopenable") if found[name]}
    if durability == "full" and found["lost"]:
        broken["lost"] = found["lost"]
    return [f"{durability}: {count} {name}" for name, count in broken.items()]


def main() -> int:
    """Run it; returns the exit code."""
    parser = parser_of("tests.crash.power", __doc__)
    parser.add_argument("--cuts", type=positive, default=500, help="moments, of each durability")
    parser.add_argument("--commits", type=positive, default=400, help="before the power is cut")
    parser.add_argument(
        "--seed", type=int, default=None, help="what happens when [default: a new one]"
    )
    parser.add_argument("--short", action="store_true", help="60 cuts, as for a quick look")
    parser.add_argument("--be", choices=DURABILITIES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    if asked.be is not None:
        work(asked.folder, asked.be, asked.commits, seed)
        return 0
    if reason := why_not():
        click.echo(json.dumps({"ok": True, "skipped": reason}))
        return 0
    cuts, commits = (60, 80) if asked.short else (asked.cuts, asked.commits)
    started = time.monotonic()
    found = {each: cut(each, commits, cuts, seed) for each in DURABILITIES}
    violations = [line for each in DURABILITIES for line in verdict(each, found[each])]
    seconds = round(time.monotonic() - started, 1)
    report = {"seed": seed, "seconds": seconds, "violations": violations, **found}
    click.echo(json.dumps({**report, "ok": not violations}))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
