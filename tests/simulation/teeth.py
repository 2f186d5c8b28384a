"""Tests of the simulation: faults planted in a copy of the durable layer, each to be found.

    python -m tests.simulation.teeth [word ...]     (only faults whose names have a word in them)

Prints one line of JSON with the histories that each took to be found, up to 500; exits with 1
if one was missed. All of them take some minutes.

Not planted here, for histories meet them too rarely: a settlement without its shield
(tests/test_durable_cancel.py finds that), a job that runs again and is still asked to stop
(the stores' conformance suite), and one that has not started and is not given back once its
lease is unsure (tests/test_durable_leases.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.teeth import Fault, chosen_faults, copy_of_the_engine, plant

__all__ = ["FAULTS", "histories_until_found"]

SEEDS: Final = 500
LONGEST: Final = 900.0  # [s]: histories that hang are found, too

FAULTS: Final = (
    Fault(
        "memory: no fence",
        "stores/memory/work.py",
        "        if job is None or job.attempt != receipt.attempt:\n            return",
        "        if job is None:\n            return",
    ),
    Fault(
        "memory: extends without a receipt",
        "stores/memory/work.py",
        "        if job is None or not is_current(job, receipt):\n            return Ext",
        "        if job is None or job.due_at is None:\n            return Ext",
    ),
    Fault(
        "memory: leases on the wall clock",
        "stores/memory/store.py",
        "    return lambda: ahead + time.monotonic()",
        "    return lambda: ahead * 0 + time.time()",
    ),
    Fault(
        "sqlite: no fence",
        "stores/sqlite/settling.py",
        "    if row is None or row[1] != attempt:",
        "    if row is None:",
    ),
    Fault(
        "sqlite: leases on the wall clock",
        "stores/sqlite/clock.py",
        "    return time.clock_gettime(_STEADY)",
        "    return time.time()",
    ),
    Fault(
        "sqlite: a clock of its own for each process",
        "stores/sqlite/clock.py",
        "    return None if row is None else float(row[0])",
        "    return None",
    ),
    Fault(
        "sqlite: the clock goes back with a boot",
        "stores/sqlite/clock.py",
        "    now = max(time.time(), connection.execute(_NEWEST).fetchone()[0])",
        "    now = time.time()",
    ),
    Fault(
        "sqlite: a boot leaves leases as they were",
        "stores/sqlite/clock.py",
        '    connection.execute(_VOID_LEASES, {"now": now})\n',
        "",
    ),
    Fault(
        "sqlite: the last level first",
        "stores/sqlite/claiming.py",
        "     ORDER BY priority\n     LIMIT 1\n",
        "     ORDER BY priority DESC\n     LIMIT 1\n",
    ),
    Fault(
        "poison for ever",
        "core/changes.py",
        "    return job.max_attempts is not None and job.attempt - job.refunds >= job.max_attempts",
        "    return job.max_attempts is not None and job.crashes < 0",
    ),
    Fault(
        "a burial does not fence",
        "core/changes.py",
        "attempt=job.attempt + 1, refunds=job.refunds + 1, progress",
        "refunds=job.refunds, progress",
    ),
    Fault(
        "a claim hands out the receipt of the last one",
        "core/changes.py",
        "        attempt=job.attempt + 1,\n        crashes",
        "        attempt=job.attempt or 1,\n        crashes",
    ),
    Fault(
        "a snooze spends an attempt",
        "core/changes.py",
        "refunds=job.refunds + (move is not Move.RETRY)",
        "refunds=job.refunds + (move is Move.RELEASE)",
    ),
    Fault(
        "a release loses the job",
        "core/changes.py",
        "due_at=job.enqueued_at if move is Move.RELEASE else now + settlement.delay",
        "due_at=now + (1e9 if move is Move.RELEASE else settlement.delay)",
    ),
    Fault(
        "a delay is forgotten",
        "core/changes.py",
        "        due_at=now + job.delay,",
        "        due_at=now,",
    ),
    Fault(
        "results go to the neighbours",
        "runner.py",
        "        jobs = [items[index] for index in verdicts]",
        "        jobs = [items[index - 1] for index in verdicts]",
    ),
    Fault(
        "what waits is not given back",
        "durable.py",
        "        self._nursery.start_soon(self._runner.give_back, waiting)\n",
        "        self._leases.let_go(waiting)\n",
    ),
    Fault(
        "what was interrupted is not given back",
        "runner.py",
        "settle(jobs, results, release=left)",
        "settle(jobs, results)",
    ),
    Fault(
        "the grace has no end",
        "durable.py",
        "        with self._stop.within:",
        "        with trio.CancelScope():",
    ),
    Fault(
        "a cancelled enqueue is stored",
        "handle.py",
        "        if self.cancel():\n            return",
        "        if self is not None:\n            return",
    ),
    Fault(
        "callers get each other's answers",
        "ledger.py",
        "        return answers.enqueue\n",
        "        return answers.enqueue[::-1]\n",
    ),
    Fault(
        "a failed claim takes its room along",
        "feeder.py",
        "self._asked -= request.limit\n        self._news.set()\n",
        "self._asked -= request.limit * (claimed is not None)\n        self._news.set()\n",
    ),
    Fault(
        "leases are extended too late",
        "leases.py",
        "_PER_LEASE: Final = 3",
        "_PER_LEASE: Final = 0.9",
    ),
    Fault(
        "an early verdict is not written",
        "runner.py",
        "            await self._write(call, call.take_unwritten())",
        "            call.take_unwritten()",
    ),
    Fault(
        "leases are given up after the store has",
        "leases.py",
        "_SURE: Final = 5 / 6",
        "_SURE: Final = 5 / 4",
    ),
    Fault(
        "what is asked to stop comes again",
        "core/changes.py",
        "    if job.cancel is not None and move in _NOT_WHEN_ASKED:",
        "    if job.cancel is not None and move is Move.CLAIM:",
    ),
    Fault(
        "a suspect has company",
        "core/changes.py",
        "job.crashes + 1 >= SUSPECT_AFTER",
        "job.crashes < 0",
    ),
    Fault(
        "memory: a paused queue goes on",
        "stores/memory/work.py",
        "        if queue is not None and queue.paused:",
        "        if queue is not None and queue.paused and not request.limit:",
    ),
    Fault(
        "memory: a clean takes what is young",
        "stores/memory/orders.py",
        "                    and job.finished_at <= now - keep",
        "                    and job.finished_at <= now",
    ),
    Fault(
        "a claim takes more than has a place",
        "feeder.py",
        "        return self.most - len(self.leases) - self._asked",
        "        return self.most + 1 - len(self.leases) - self._asked",
    ),
)


def histories_until_found(fault: Fault) -> int | None:
    """Return how many histories it takes to find a fault; None: it is not found."""
    with copy_of_the_engine() as folder:
        plant(fault, folder / "batchq")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.simulation", "--seeds", str(SEEDS)],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return SEEDS
    found = json.loads(done.stdout)
    return int(found["seeds"]) if done.returncode else None


def main(arguments: Sequence[str]) -> int:
    """Hunt the faults asked for; return how many were missed."""
    faults = chosen_faults("tests.simulation.teeth", __doc__, FAULTS, arguments)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        needed = dict(
            zip(
                [fault.name for fault in faults],
                pool.map(histories_until_found, faults),
                strict=True,
            )
        )
    missed = [name for name, histories in needed.items() if histories is None]
    print(json.dumps({"faults": len(faults), "missed": missed, "histories": needed}))  # noqa: T201
    return len(missed)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
