"""Tests of the conformance suite: faults planted in a copy of our stores, each to be found.

    python -m tests.stores.teeth [word ...]     (only faults whose names have a word in them)

Prints one line of JSON with the test that found each; exits with 1 if one was missed. All of
them take some minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.teeth import Fault, chosen_faults, copy_of_the_engine, plant

__all__ = ["FAULTS", "found_by"]

_LONGEST: Final = 600.0  # [s]

FAULTS: Final = (
    Fault(
        "sqlite: no fence",
        "stores/sqlite/settling.py",
        "    if row is None or row[1] != attempt:",
        "    if row is None:",
    ),
    Fault(
        "sqlite: a simple success is not fenced",
        "stores/sqlite/settling.py",
        "       AND attempt = :attempt\n       AND state = 'processing'\n",
        "       AND state = 'processing'\n",
    ),
    Fault(
        "sqlite: one receipt settles twice in a group",
        "stores/sqlite/settling.py",
        "    if not row[2] or job_id in used:",
        "    if not row[2]:",
    ),
    Fault(
        "sqlite: an ended job keeps its key",
        "stores/sqlite/settling.py",
        "        if row[10] and after[1] is None:",
        "        if row[10] and after[1] is not None:",
    ),
    Fault(
        "sqlite: what was asked to stop waits again",
        "stores/sqlite/settling.py",
        "    if verdict is Verdict.CANCEL or asked is not None:",
        "    if verdict is Verdict.CANCEL:",
    ),
    Fault(
        "sqlite: a pause is not honoured",
        "stores/sqlite/claiming.py",
        "WHERE queue = ? AND paused = 1",
        "WHERE queue = ? AND paused = 2",
    ),
    Fault(
        "sqlite: suspects come in company",
        "stores/sqlite/claiming.py",
        "        elif more.suspect and (self.jobs or not self.request.suspect):",
        "        elif more.suspect and not self.request.suspect:",
    ),
    Fault(
        "sqlite: an expired job is handed out",
        "stores/sqlite/claiming.py",
        "        if self.expired and not self.ran_out and not used:",
        "        if self.expired and not self.ran_out and used:",
    ),
    Fault(
        "sqlite: a burial keeps the key",
        "stores/sqlite/claiming.py",
        "CASE WHEN key_scope IN ('waiting', 'live') THEN",
        "CASE WHEN key_scope IN ('waiting', 'kept') THEN",
    ),
    Fault(
        "sqlite: an extension needs no receipt",
        "stores/sqlite/work.py",
        "       AND attempt = held.value ->> 1\n",
        "",
    ),
    Fault(
        "sqlite: a key is looked for in every handler",
        "stores/sqlite/enqueuing.py",
        "        holder = self.holders.get((job.handler, key.text))\n",
        "        holder = next((it for (_, text), it in self.holders.items() if text == key.text),"
        " None)\n",
    ),
    Fault(
        "sqlite: the time of a key has no end",
        "stores/sqlite/enqueuing.py",
        "        return self.until is not None and self.until <= now",
        "        return self.until is not None and self.until < now",
    ),
    Fault(
        "sqlite: a retry makes two of one key",
        "stores/sqlite/orders.py",
        "            if not holder.lets_go(now):\n                return False\n",
        "            if not holder.lets_go(now):\n                return True\n",
    ),
    Fault(
        "sqlite: a clean takes what is young",
        "stores/sqlite/rows.py",
        "self.finished_at <= now - keep",
        "self.enqueued_at <= now - keep",
    ),
    Fault(
        "sqlite: a clean stops too early",
        "stores/sqlite/cleaning.py",
        "        young = any(row.enqueued_at > cut for row in rows)",
        "        young = any(row.enqueued_at >= cut for row in rows)",
    ),
    Fault(
        "sqlite: failures outlive their job",
        "stores/sqlite/rows.py",
        "        for statement in (_FORGET_ERRORS, _FORGET_NOTES, _FORGET):",
        "        for statement in (_FORGET_NOTES, _FORGET):",
    ),
    Fault(
        "sqlite: a deleted job is counted still",
        "stores/sqlite/orders.py",
        "            gone[id_] = None\n            task.counting.leave(row.queue, row.state)\n",
        "            gone[id_] = None\n",
    ),
    Fault(
        "sqlite: a page begins with the last of the page before",
        "stores/sqlite/admin.py",
        '"AND id < :after" if newest_first',
        '"AND id <= :after" if newest_first',
    ),
    Fault(
        "sqlite: notes of old attempts show",
        "stores/sqlite/admin.py",
        "           (SELECT note FROM batchq_notes\n"
        "             WHERE job = batchq_jobs.id AND attempt = batchq_jobs.attempt)",
        "           (SELECT note FROM batchq_notes\n             WHERE job = batchq_jobs.id)",
    ),
    Fault(
        "core: a burial does not fence",
        "core/changes.py",
        "attempt=job.attempt + 1, refunds=job.refunds + 1, progress",
        "refunds=job.refunds, progress",
    ),
    Fault(
        "core: a snooze spends an attempt",
        "core/changes.py",
        "refunds=job.refunds + (move is not Move.RETRY)",
        "refunds=job.refunds + (move is Move.RELEASE)",
    ),
    Fault(
        "core: what is retried expires again",
        "core/changes.py",
        "        due_at=now,\n        expires_at=None,\n",
        "        due_at=now,\n",
    ),
    Fault(
        "memory: an error leaves half a group",
        "stores/memory/shelf.py",
        "            kind, key, value = self._before.pop()\n            _put(kind, key, value)\n",
        "            self._before.pop()\n",
    ),
    Fault(
        "memory: the number of a deleted job is used again",
        "stores/memory/shelf.py",
        "        self._set(self.jobs, job.id, None)\n",
        "        self._set(self.jobs, job.id, None)\n"
        "        self.last_id = max(self.jobs, default=0)\n",
    ),
)


def found_by(fault: Fault) -> str | None:
    """Return the test that finds a fault: a rule, or else a history; None: none does."""
    with copy_of_the_engine() as folder:
        plant(fault, folder / "batchq")
        rule = _first_to_fail(folder, "not every_history")
        return rule or _first_to_fail(folder, "every_history")


def _first_to_fail(folder: Path, which: str) -> str | None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/stores/test_conformance.py", "-k", which],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].split("::")[-1].split(" - ")[0] if failed else None


def main(arguments: Sequence[str]) -> int:
    """Hunt the faults asked for; return how many were missed."""
    faults = chosen_faults("tests.stores.teeth", __doc__, FAULTS, arguments)
    found = {fault.name: found_by(fault) for fault in faults}
    missed = [name for name, test in found.items() if test is None]
    print(json.dumps({"faults": len(faults), "missed": missed, "found": found}))  # noqa: T201
    return len(missed)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
