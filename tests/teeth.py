"""Tests of the tests: faults planted in a copy of the engine, each of which must be found.

Run:    python -m tests.teeth [word ...]      (only faults whose names have a word in them)
Shows:  one line per fault, found or MISSED; the exit code says whether any was missed.

Faults of the core are hunted by histories beside a model, those of the shell by its own
tests. All of them take 12 minutes of one core's time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from tests.command import chosen, parser_of

__all__ = ["FAULTS", "Fault", "hunt", "plant"]

ROOT: Final = Path(__file__).parent.parent
EXAMPLES: Final = 500  # as before a merge
LONGEST: Final = 240.0  # seconds: a fault that hangs the tests is found, too

# No shrinking: that it fails is all that is asked.
_HOW: Final = f"""
from hypothesis import Phase, settings
how = settings(
    max_examples={EXAMPLES}, phases=[Phase.generate], derandomize=True, database=None,
    deadline=None, report_multiple_bugs=False, print_blob=False,
)
"""
HISTORIES: Final = f"""{_HOW}
from hypothesis.stateful import run_state_machine_as_test
from tests.core.test_batcher_machine import BatcherMachine
from tests.core.test_busy_histories import test_a_long_history_is_that_of_the_model
how(test_a_long_history_is_that_of_the_model)()
run_state_machine_as_test(BatcherMachine, settings=how)
"""
RICH_HISTORIES: Final = f"""{_HOW}
from tests.core.test_rich_histories import test_a_history_is_that_of_the_model
how(test_a_history_is_that_of_the_model)()
"""


@attrs.frozen
class Fault:
    """A mistake somebody could make.

    Attributes:
        name: what is wrong.
        file: where, under `batchq/`.
        right: the text there, found once.
        wrong: what stands in its place.
        tests: what has to find it; nothing: the histories; `MODEL`: those of the rich rules.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...] = ()


MODEL: Final = ("the histories of the rich rules",)
QUEUE: Final = ("tests/test_queue.py",)
RESULTS: Final = ("tests/test_queue_results.py",)
CANCELLATION: Final = ("tests/test_queue_cancellation.py",)
LIFETIME: Final = ("tests/test_queue_lifetime.py",)
ENQUEUE: Final = ("tests/test_queue_enqueue.py",)
PUMP: Final = ("tests/test_pump.py", "tests/test_hooks.py")

PLAIN: Final = (
    Fault(
        "last in, first out",
        "core/bucket.py",
        "taken += [line.popleft() for _ in range(want)]",
        "taken += [line.pop() for _ in range(want)]",
    ),
    Fault(
        "late by one item",
        "core/waiting.py",
        "if pending >= self.batch_size:",
        "if pending > self.batch_size:",
    ),
    Fault(
        "early by a moment",
        "core/bucket.py",
        "if line[0].enqueued_at + self.interval <= now:",
        "if line[0].enqueued_at + self.interval - 0.01 <= now:",
    ),
    Fault(
        "one slot too many",
        "core/starting.py",
        "if whole is None and self.slots >= self.concurrency:",
        "if whole is None and self.slots > self.concurrency:",
    ),
    Fault(
        "no drain",
        "core/starting.py",
        "if self.draining:\n            return T",
        "if False:\n            return T",
    ),
    Fault(
        "one retry too few",
        "core/retry.py",
        "return attempts <= self.max_retries and",
        "return attempts < self.max_retries and",
    ),
    Fault(
        "a cancelled entry keeps its seat",
        "core/waiting.py",
        "        room.forget(entry)\n        self.size -= 1\n",
        "        room.forget(entry)\n",
    ),
    Fault(
        "the oldest of the worst level is dropped",
        "core/admission.py",
        "return max(worse, key=_by_level_and_age, default=None)",
        "return min(worse, key=_by_level_and_age, default=None)",
    ),
    Fault(
        "throttle ignored",
        "core/limits.py",
        "self.next_start = max(self.next_start, now + self.throttle)",
        "self.next_start = max(self.next_start, now)",
    ),
    Fault(
        "delay ignored",
        "core/admission.py",
        "self._waiting.delay(entry, now + delay)",
        "self._waiting.delay(entry, now)",
    ),
    Fault(
        "a cancelled entry is still processed",
        "core/bucket.py",
        "if self.again or self._dead:",
        "if self.again:",
    ),
    Fault(
        "an entry settles twice",
        "core/settling.py",
        "            if entry.code != IN_FLIGHT:\n                continue\n            if not (",
        "            if not (",
    ),
    Fault(
        "flush waits for what was delayed",
        "core/flushes.py",
        "if entry.code not in _HERE]",
        "if entry.settled]",
    ),
    Fault(
        "flush counts twice what settled early",
        "core/flushes.py",
        "if id_ <= last and id_ not in others}",
        "if id_ <= last}",
    ),
    Fault(
        "flush takes what came later for its own",
        "core/flushes.py",
        "if id_ <= last and id_ not in others}",
        "if id_ not in others}",
    ),
    Fault(
        "flush waits for what had been delayed",
        "core/batcher.py",
        "[*self._starter.gone(), *(entry.id for entry in waiting.delays)]",
        "self._starter.gone()",
    ),
    Fault(
        "the last of the blocked producers comes first",
        "core/admission.py",
        "            producer = self.producers.popleft()\n            if not",
        "            producer = self.producers.pop()\n            if not",
    ),
    Fault(
        "a retry goes to the tail",
        "core/bucket.py",
        "bisect.insort(self.returned[entry.priority], entry, key=_by_id)",
        "self.returned[entry.priority].append(entry)",
    ),
    Fault(
        "an abandoned failure is retried",
        "core/settling.py",
        "if entry.abandoned or (self.retry is None and",
        "if (self.retry is None and",
    ),
    Fault(
        "a job without a verdict waits in its queue again",
        "core/settling.py",
        "        if self.leave:\n            self.count",
        "        if self.leave and result.retry_after is not None:\n            self.count",
    ),
    Fault(
        "a settled entry keeps its item",
        "core/entry.py",
        "        self.item = None  # type",
        "        self.code = code  # type",
    ),
    Fault(
        "resume leaves producers waiting",
        "core/batcher.py",
        "self.door.set_intake(Intake.OPEN)\n        self.door.let_in(now)",
        "self.door.set_intake(Intake.OPEN)",
    ),
    Fault(
        "a late answer counts after an interruption",
        "core/batcher.py",
        "        if batch not in self._starter.running:\n            return False\n        if",
        "        self._starter.running.setdefault(batch)\n        if",
    ),
    Fault(
        "a wake-up is lost",
        "queue.py",
        "self._batcher.resume(trio.current_time())\n"
        "        self._pump.teller.tell_changes()\n        self._pump.wake()",
        "self._batcher.resume(trio.current_time())",
        QUEUE + LIFETIME,
    ),
    Fault(
        "the slot is free before the hooks",
        "pump.py",
        "            self.teller.tell_call(batch, judged.batch, results, now=now,",
        "            self.batcher.release(batch)\n"
        "            self.teller.tell_call(batch, judged.batch, results, now=now,",
        PUMP,
    ),
    Fault(
        "calls share a context",
        "pump.py",
        "self._context.run(self._nursery.start_soon, self._serve, carrier)",
        "self._nursery.start_soon(self._serve, carrier)",
        PUMP,
    ),
    Fault(
        "a call taken back before it began is made",
        "pump.py",
        "if carrier.batch not in self._carriers:",
        "if carrier.batch is None:",
        LIFETIME + CANCELLATION,
    ),
    Fault(
        "the time limit is not kept",
        "pump.py",
        "scope.deadline = trio.current_time() + self.timeout",
        "scope.deadline = math.inf",
        RESULTS,
    ),
    Fault(
        "the time limit of a call goes on when the call has ended",
        "pump.py",
        "            carrier.scope.deadline = math.inf\n",
        "            pass\n",
        PUMP,
    ),
    Fault(
        "a task makes another call though the last one has changed its context",
        "carrier.py",
        "            if variable.get(self) is not value:",
        "            if variable is None:",
        PUMP,
    ),
    Fault(
        "a task makes another call though the last one has set what nobody had set",
        "carrier.py",
        "        if len(copy_context()) != len(self._found):",
        "        if len(copy_context()) < len(self._found):",
        PUMP,
    ),
    Fault(
        "a task is given a batch after its call was cancelled",
        "carrier.py",
        "        self._cancelled = True\n",
        "",
        PUMP,
    ),
    Fault(
        "a task is given a batch after its scope was cancelled",
        "carrier.py",
        "return not self._cancelled and not (limited and self.scope.cancel_called)",
        "return True",
        PUMP,
    ),
    Fault(
        "the task that keeps watch is given a batch",
        "pump.py",
        "self._watcher = self._free.popitem()[0]",
        "self._watcher = next(reversed(self._free))",
        PUMP,
    ),
    Fault(
        "nobody keeps watch while the one who did makes a call",
        "pump.py",
        "            if due < math.inf:\n                self._relieve()\n",
        "            pass\n",
        PUMP,
    ),
    Fault(
        "a call begins although the queue was cancelled as the alarm rang",
        "pump.py",
        "self._watcher = None\n        await trio.lowlevel.checkpoint_if_cancelled()\n",
        "self._watcher = None\n",
        PUMP,
    ),
    Fault(
        "an entry is admitted before the cancel point",
        "queue.py",
        "        await trio.lowlevel.checkpoint_if_cancelled()\n"
        "        admit = self._asking_more(call, delay) if call or delay is not NO_DELAY"
        " else self._admit\n"
        "        entry: Any = admit(item, priority, self._pump.now or self._pump.begin())\n",
        "        entry: Any = self._admit(item, priority, self._pump.begin())\n"
        "        await trio.lowlevel.checkpoint_if_cancelled()\n",
        CANCELLATION,
    ),
    Fault(
        "a cancelled caller leaves its item behind",
        "queue.py",
        "await trio.lowlevel.wait_task_rescheduled(entry.withdraw)",
        "await entry.result()",
        CANCELLATION,
    ),
    Fault(
        "what ends the block comes in a group",
        "nest.py",
        "            crash = _crash(group)\n",
        "            crash: BaseException | None = group\n",
        CANCELLATION,
    ),
    Fault(
        "entries are hidden from the garbage collector",
        "handle.py",
        "class Entry(core.Entry[T, R]):",
        "class Entry(core.Entry[T, R], gc=False):",
        ENQUEUE,
    ),
    Fault(
        "a drain joins no other",
        "milestones.py",
        "drain.deadline = min(drain.deadline, now + timeout)",
        "drain.deadline = now + timeout",
        LIFETIME,
    ),
    Fault(
        "the 64th call goes on",
        "queue.py",
        "        if self._calls % _SCHEDULE_EVERY:\n",
        "        if self._calls:\n",
        ENQUEUE,
    ),
)


def rule(test: str) -> tuple[str, ...]:
    """Name a test of the rich rules."""
    return (f"tests/test_queue_rules.py::{test}",)


def model(test: str) -> tuple[str, ...]:
    """Name a model of the rich rules."""
    return (f"tests/core/test_rich_models.py::{test}",)


ORDER: Final = model("test_a_bucket_goes_by_its_order_key_and_waiting_makes_up_for_a_level")
LIMITS: Final = model("test_whatever_runs_no_span_of_time_holds_more_than_each_limit_allows")
TURNS: Final = model("test_no_partition_goes_twice_while_another_is_ready")
POISON: Final = model("test_exactly_the_poison_fails_in_few_calls")
ORDERED: Final = model("test_nothing_of_an_ordered_partition_overtakes")
STRATEGY: Final = ("tests/core/test_strategy.py",)
ADAPTIVE: Final = ("tests/core/test_adaptive.py",)
LOTS: Final = ("tests/core/test_lots.py",)
LESSONS: Final = ("tests/core/test_rich_lessons.py",)
PARTS: Final = ("tests/core/test_bisect.py",)
VICTIMS: Final = ("tests/core/test_victims.py",)
SAVING: Final = ("tests/test_queue_saving.py",)
LAST_SAVE: Final = ("tests/test_persistence.py",)
EVERYWHERE: Final = ("tests/test_queue_cancel_everywhere.py",)
LEAKS: Final = ("tests/test_queue_leaks.py",)

# What is asked beyond first come, first served; by family of rules.
RICH: Final = (
    Fault(
        "lots: an entry is made for the caller, and another one for the batch",
        "core/lot.py",
        "made = lot.all() if lot.held else lot.made",
        "made = lot.made",
        LOTS,
    ),
    Fault(
        "lots: what is in flight and looked at stays so",
        "core/settling.py",
        "if not (more or entries.made):",
        "if not more:",
        LOTS,
    ),
    Fault(
        "lots: who asks later hears of no value",
        "core/lot.py",
        "self._done.append((part, piece.answers))",
        "self._done.append((part, None))",
        LOTS,
    ),
    Fault(
        "lots: the last of it goes first once it is opened",
        "core/bucket.py",
        "line.extendleft(reversed(lot.waiting()))",
        "line.extendleft(lot.waiting())",
        LOTS,
    ),
    Fault(
        "lots: a flush waits for ever for what made no entry",
        "core/flushes.py",
        "flush.left -= sum(len(ids) for",
        "flush.left -= sum(0 * len(ids) for",
        LOTS,
    ),
    Fault(
        "lots: what stands beside one in a batch gets no value",
        "core/settling.py",
        "zip(part, values or (), strict=False)",
        "zip(part, (), strict=False)",
        LOTS,
    ),
    Fault(
        "lots: what stands beside one in a batch waits on",
        "core/waiting.py",
        "for entry in there(entries):",
        "for entry in entries if type(entries) is list else ():",
        LOTS,
    ),
    Fault(
        "lots: an item that succeeded is kept",
        "core/lot.py",
        "            self.items[part] = repeat(None, piece.size)\n",
        "",
        LOTS,
    ),
    Fault(
        "partitions: a batch holds several",
        "core/selection.py",
        "name = entry.more.partition\n        level",
        "name = None\n        level",
        rule("test_a_batch_holds_one_partition"),
    ),
    Fault(
        "partitions: one batch too many",
        "core/selection.py",
        "if partition.running >= self._limit:",
        "if partition.running > self._limit:",
        rule("test_partition_concurrency_holds_and_others_go_on"),
    ),
    Fault(
        "partitions: a hot one keeps its turn",
        "core/selection.py",
        "            bucket.turn = self._next_turn()\n            self._list(bucket)\n",
        "            self._list(bucket)\n",
        TURNS,
    ),
    Fault(
        "partitions: an empty one is remembered",
        "core/selection.py",
        "            del self._partitions[name]\n",
        "            partition.parked = {}\n",
        LEAKS,
    ),
    Fault(
        "weights: the item that crosses the limit goes, too",
        "core/sorted_bucket.py",
        "            weight += more.weight\n            if entry.id >= barrier or "
        "(chosen and (more.solo or weight > budget)):\n                break\n",
        "            if entry.id >= barrier or "
        "(chosen and (more.solo or weight > budget)):\n                break\n"
        "            weight += more.weight\n",
        rule("test_s7_a_batch_never_weighs_too_much"),
    ),
    Fault(
        "weights: a full bucket waits",
        "core/selection.py",
        "full = bucket.count >= self._size or bucket.weight >= self._budget",
        "full = bucket.count >= self._size",
        rule("test_s7_a_batch_never_weighs_too_much"),
    ),
    Fault(
        "weights: a queue is full by count only",
        "core/rich_admission.py",
        "return limit is None or self._waiting.weight + weight <= limit",
        "return limit is None or self._waiting.weight <= limit",
        rule("test_a_queue_is_full_by_weight"),
    ),
    Fault(
        "solo: a poison item runs in company",
        "core/splitting.py",
        "            self.settling.suspects.append(step.entry)\n",
        "",
        POISON,
    ),
    Fault(
        "solo: others follow one that runs alone",
        "core/sorted_bucket.py",
        "            if more.solo:\n                break\n",
        "",
        rule("test_a_solo_entry_goes_in_a_batch_of_its_own"),
    ),
    Fault(
        "ageing: waiting is worth half of what was said",
        "core/sorted_bucket.py",
        "return entry.enqueued_at + entry.priority * self.aging",
        "return entry.enqueued_at + 2 * entry.priority * self.aging",
        MODEL,
    ),
    Fault(
        "mix: levels share a batch",
        "core/selection.py",
        "level = 0 if self._mixes else entry.priority",
        "level = 0",
        rule("test_levels_that_do_not_mix_go_in_batches_of_their_own"),
    ),
    Fault(
        "limits: a window forgets early",
        "core/limits.py",
        "self._paid[0][0] + self.window <= now",
        "self._paid[0][0] + self.window / 2 <= now",
        LIMITS,
    ),
    Fault(
        "limits: idle time is saved up",
        "core/limits.py",
        "self._level = min(self.burst, self._level + (now - self._at) * self.rate) - units",
        "self._level += min(self.burst, (now - self._at) * self.rate) - units",
        LIMITS,
    ),
    Fault(
        "limits: the mildest counts",
        "core/limits.py",
        "opens = max(rate.opens_at(",
        "opens = min(rate.opens_at(",
        LIMITS,
    ),
    Fault(
        "limits: a part of a bisect is free",
        "core/starting.py",
        "        if self._pays:\n",
        "        if self._pays and root is None:\n",
        LIMITS,
    ),
    Fault(
        "coalescing: the first caller to withdraw takes it along",
        "core/coalescing.py",
        "        more.callers += 1\n",
        "",
        rule("test_a_shared_entry_is_cancelled_by_the_last_of_its_callers"),
    ),
    Fault(
        "coalescing: what is in flight is shared",
        "core/rich_waiting.py",
        "            if more.key is not None:\n                self.shared.withdraw(entry)\n",
        "",
        rule("test_s13_the_newest_item_of_a_key_goes_and_all_callers_get_its_result"),
    ),
    Fault(
        "deadlines: noticed when a slot is free",
        "core/starting.py",
        "            return event\n        return min(event,",
        "            return math.inf\n        return min(event,",
        rule("test_an_entry_expires_exactly_at_its_queue_timeout_though_the_slot_is_busy"),
    ),
    Fault(
        "deadlines: they bring nothing forward",
        "core/rich_waiting.py",
        "        reason = self._deadlines.watch(entry, now)\n",
        "        entry.more.early = entry.more.deadline = math.inf\n"
        "        reason = self._deadlines.watch(entry, now)\n",
        rule("test_a_deadline_brings_a_batch_forward"),
    ),
    Fault(
        "deadlines: a retry comes too late",
        "core/settling.py",
        "if entry.more is None or due <= entry.more.ends_by:",
        "if entry.more is None or due <= math.inf:",
        rule("test_a_retry_that_would_come_too_late_expires_at_once"),
    ),
    Fault(
        "bisect: the right half goes first",
        "core/bisect.py",
        "self._parts += [split.right, split.left]",
        "self._parts += [split.left, split.right]",
        PARTS,
    ),
    Fault(
        "bisect: halves are no halves",
        "core/bisect.py",
        "middle = (len(part) + 1) // 2",
        "middle = 1",
        POISON,
    ),
    Fault(
        "guard: an outage is answered with a call per item",
        "core/bisect.py",
        "if self._outage and self._calls >= self._most:",
        "if not self._parts and self._outage and self._calls >= self._most:",
        rule("test_an_outage_is_not_answered_with_a_call_per_item"),
    ),
    Fault(
        "guard: a throttled part is lost",
        "core/splitting.py",
        "        batch.bisect.again()\n",
        "        batch.bisect.returned()\n",
        rule("test_a_bisect_keeps_its_slot_and_waits_for_a_throttled_part"),
    ),
    Fault(
        "ordered: a retry is overtaken",
        "core/selection.py",
        "return held[0][0] if held else math.inf",
        "return math.inf",
        ORDERED,
    ),
    Fault(
        "ordered: a bisect goes on behind a retry",
        "core/bisect.py",
        "return self.give_up() if self.ordered and comes_again else []",
        "return []",
        ORDERED,
    ),
    Fault(
        "strategy: a group too long goes whole",
        "core/strategy.py",
        "        if piece and (len(piece) >= batch_size or weight + more > budget):",
        "        if piece and weight + more > budget:",
        STRATEGY,
    ),
    Fault(
        "strategy: a due entry that it forgets waits on",
        "core/strategy.py",
        "    if due and not any(is_due(entry) for group in groups for entry in group):\n"
        "        groups = [due]\n",
        "",
        STRATEGY,
    ),
    Fault(
        "adaptive: a size more than doubles",
        "core/adaptive.py",
        "most = min(2 * self.size, max(self.size, 2 * count), self.settings.max_size)",
        "most = self.settings.max_size",
        ADAPTIVE,
    ),
    Fault(
        "adaptive: pushing back is not heard",
        "core/adaptive.py",
        "            self._pushed_back = True\n",
        "            self._pushed_back = False\n",
        ADAPTIVE,
    ),
    Fault(
        "outstanding: what is in flight is not counted",
        "core/rich_admission.py",
        "self._outstanding() >= room.max_outstanding",
        "self._waiting.size >= room.max_outstanding",
        rule("test_max_outstanding_counts_what_is_in_flight"),
    ),
    Fault(
        "restore: attempts are forgotten",
        "core/saving.py",
        "    entry.attempts = record.attempts\n",
        "",
        SAVING,
    ),
    Fault(
        "restore: ids begin anew",
        "core/rich_admission.py",
        "self.last_id = self._first_id = max([self.last_id, *(each.id for each in records)])",
        "self._first_id = self.last_id",
        SAVING,
    ),
    Fault(
        "victims: one that comes again is none",
        "core/rich_waiting.py",
        "        self._selection.add(entry)\n        if self.victims is not None:",
        "        self._selection.add(entry)\n"
        "        if self.victims is not None and not entry.attempts:",
        VICTIMS,
    ),
    Fault(
        "victims: a better level is not noted",
        "core/rich_waiting.py",
        "        if victims is not None and level != priority:\n",
        "        if victims is None:\n",
        VICTIMS,
    ),
    Fault(
        "victims: one goes for the level that it had",
        "core/victims.py",
        "            if entry.code == self.code and key == self.key(entry):",
        "            if entry.code == self.code:",
        VICTIMS,
    ),
    Fault(
        "victims: what is tidied up is forgotten",
        "core/victims.py",
        "            for entry in alive.values():\n                self.add(entry)",
        "            alive.clear()",
        VICTIMS,
    ),
    Fault(
        "told: an item let in is told of again with whom joins it",
        "core/rich_admission.py",
        "            producer.entry.more.told = True  # by way of `admitted`\n",
        "",
        EVERYWHERE,
    ),
    Fault(
        "told: a shared entry is told of for each of its callers",
        "teller.py",
        "told, entry.more.told = entry.more.told, True",
        "told = entry.more.told",
        EVERYWHERE,
    ),
    Fault(
        "early: nobody looks whom a verdict makes room for",
        "core/starting.py",
        "                self._news.ring()  # there may be room by `max_outstanding`\n",
        "                pass\n",
        rule("test_an_early_verdict_makes_room_at_once"),
    ),
    Fault(
        "early: a look lets nobody in",
        "core/starting.py",
        "late=True) or self.door.producers:",
        "late=True):",
        rule("test_an_early_verdict_makes_room_at_once"),
    ),
    Fault(
        "last save: none where a drain has failed",
        "queue.py",
        "                await self._keeper.end()\n",
        "                await (trio.lowlevel.checkpoint() if self._milestones.failed"
        " else self._keeper.end())\n",
        LAST_SAVE,
    ),
)

# What only a history shows, or what one shows as well: the model of the rich rules finds them.
HISTORICAL: Final = (
    Fault(
        "turns: a bucket that has just filled goes first",
        "core/selection.py",
        "            bucket.turn = self._next_turn()\n        wakes",
        "            bucket.turn = -self._next_turn()\n        wakes",
        MODEL,
    ),
    Fault(
        "partitions: a slot is not given back",
        "core/selection.py",
        "        partition.running -= ended\n",
        "        partition.running -= ended * (partition.running < 2)\n",
        MODEL,
    ),
    Fault(
        "ordered: a batch reaches past what is held up",
        "core/sorted_bucket.py",
        "if entry.id >= barrier or (chosen and",
        "if not chosen and entry.id >= barrier or (chosen and",
        MODEL,
    ),
    Fault(
        "weights: a replaced item keeps its weight",
        "core/coalescing.py",
        "            return offer.item, offer.more.weight\n",
        "            return offer.item, entry.more.weight\n",
        MODEL,
    ),
    Fault(
        "solo: a strategy is asked about who runs alone",
        "core/planning.py",
        "offered = [entry for entry in waiting if not entry.more.solo]",
        "offered = waiting",
        MODEL,
    ),
    Fault(
        "limits: they are paid for what was chosen",
        "core/limits.py",
        "min(costs[per][-1], most)",
        "costs[per][-1]",
        MODEL,
    ),
    Fault(
        "limits: a processor's hold can be shortened",
        "core/limits.py",
        "        if until > self.next_start:\n            self.next_start = self._held",
        "        if until:\n            self.next_start = self._held",
        MODEL,
    ),
    Fault(
        "coalescing: a better level is not taken",
        "core/coalescing.py",
        "priority = min(entry.priority, offer.priority)",
        "priority = entry.priority",
        MODEL,
    ),
    Fault(
        "coalescing: the younger one of a key is shared",
        "core/coalescing.py",
        "return same[0]",
        "return same[-1]",
        LESSONS,
    ),
    Fault(
        "coalescing: earlier deadlines are not taken",
        "core/coalescing.py",
        "more.ends_by = min(more.ends_by, times.ends_by)",
        "more.ends_by = max(more.ends_by, times.ends_by)",
        MODEL,
    ),
    Fault(
        "deadlines: to start at the very instant is too late",
        "core/expiry.py",
        "if at < now or (at == now and not late)",
        "if at <= now",
        MODEL,
    ),
    Fault(
        "deadlines: how long calls take is not looked at",
        "core/rich_waiting.py",
        "self._deadlines = Deadlines(settings.batch.flush_interval, self.slack)",
        "self._deadlines = Deadlines(settings.batch.flush_interval, Slack())",
        MODEL,
    ),
    Fault(
        "deadlines: a first start does not end the one that it meets",
        "core/expiry.py",
        "        entry.more.starts_by = math.inf\n",
        "        entry.more.early = math.inf\n",
        MODEL,
    ),
    Fault(
        "bisect: a throttled part goes to the end",
        "core/bisect.py",
        "self._parts.append(self._take())",
        "self._parts.insert(0, self._take())",
        PARTS,
    ),
    Fault(
        "bisect: it goes on while the queue is paused",
        "core/starting.py",
        "        if self.paused:\n            return None\n        if whole",
        "        if self.paused and whole is None:\n            return None\n        if whole",
        MODEL,
    ),
    Fault(
        "guard: a part that returned speaks not against an outage",
        "core/bisect.py",
        "        self._take()\n        self._outage = False\n",
        "        self._take()\n",
        PARTS,
    ),
    Fault(
        "early: the last of two verdicts counts",
        "core/settling.py",
        "if entry.code != IN_FLIGHT or index in batch.early:",
        "if entry.code != IN_FLIGHT:",
        MODEL,
    ),
    Fault(
        "abandoned: it comes back from a call without a verdict",
        "core/settling.py",
        "        if entry.abandoned:\n            self.unwanted",
        "        if False:\n            self.unwanted",
        MODEL,
    ),
    Fault(
        "strategy: what arrives does not ask it again",
        "core/selection.py",
        "was, bucket.hushed = bucket.hushed, LOUD",
        "was = bucket.hushed",
        MODEL,
    ),
    Fault(
        "strategy: an answer outlives its step",
        "core/planning.py",
        "        self._current = False\n\n    def _next_of",
        "        self._current = self._current\n\n    def _next_of",
        MODEL,
    ),
    Fault(
        "drop: one that is in flight makes no room",
        "core/rich_admission.py",
        "        while not self._fits(offer.more.weight):\n            victim",
        "        while self._waiting.size and not self._fits(0.0):\n            victim",
        MODEL,
    ),
    Fault(
        "drain: an interrupted bisect keeps its parts",
        "core/batcher.py",
        "            self._put_back(self.splitting.give_up(whole), now)\n",
        "            self.splitting.give_up(whole)\n",
        MODEL,
    ),
    Fault(
        "restore: who runs alone gets company",
        "core/saving.py",
        "        solo=record.solo,\n",
        "        solo=False,\n",
        MODEL,
    ),
    Fault(
        "adaptive: a smaller size leaves full buckets waiting",
        "core/selection.py",
        "        if smaller:  # more buckets may be full\n",
        "        if False:\n",
        LESSONS,
    ),
)

FAULTS: Final = PLAIN + RICH + HISTORICAL


def plant(fault: Fault, package: Path) -> None:
    """Put a fault into a copy of the package.

    Raises:
        ValueError: its place is not there, or there is more than one.
    """
    path = package / fault.file
    text = path.read_text()
    if text.count(fault.right) != 1:
        raise ValueError(f"{fault.name}: found {text.count(fault.right)} times in {fault.file}")
    path.write_text(text.replace(fault.right, fault.wrong))


def check_places(faults: Iterable[Fault] = FAULTS) -> None:
    """Raise `ValueError` if a fault has no place in the package any more, or two."""
    with copy_of_the_engine() as folder:
        for fault in faults:
            text = (folder / "batchq" / fault.file).read_text()
            plant(fault, folder / "batchq")
            (folder / "batchq" / fault.file).write_text(text)


@contextmanager
def copy_of_the_engine() -> Iterator[Path]:
    """Copy the package and its tests to a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("batchq", "tests"):
            ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
            shutil.copytree(ROOT / name, Path(folder, name), ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        yield Path(folder)


def passes(folder: Path, tests: tuple[str, ...]) -> bool:
    """Say whether the tests pass in a copy."""
    scripts = {(): HISTORIES, MODEL: RICH_HISTORIES}
    how = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    if tests in scripts:
        how = ["-c", scripts[tests]]
    try:
        done = subprocess.run(
            [sys.executable, *how],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def hunt(fault: Fault) -> bool:
    """Say whether the tests find a fault."""
    with copy_of_the_engine() as folder:
        plant(fault, folder / "batchq")
        return not passes(folder, fault.tests)


def all_pass(suites: set[tuple[str, ...]], pool: ThreadPoolExecutor) -> bool:
    """Say whether the tests that hunt pass where nothing is wrong."""
    with copy_of_the_engine() as folder:
        return all(pool.map(partial(passes, folder), suites))


def chosen_faults(
    command: str, doc: str | None, faults: Sequence[Fault], arguments: Sequence[str]
) -> list[Fault]:
    """Return the faults that a command line asks for, whose places are still there."""
    names = chosen(parser_of(command, doc), [fault.name for fault in faults], arguments)
    check_places(faults)
    return [fault for fault in faults if fault.name in names]


def main(arguments: Sequence[str]) -> int:
    """Hunt the faults asked for; return how many were missed."""
    faults = chosen_faults("tests.teeth", __doc__, FAULTS, arguments)
    began, missed = time.monotonic(), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if not all_pass({fault.tests for fault in faults}, pool):
            print("the tests fail where nothing is wrong")  # noqa: T201 - it is a script
            return 1
        for fault, found in zip(faults, pool.map(hunt, faults), strict=True):
            print(f"{'found ' if found else 'MISSED'}  {fault.name}", flush=True)  # noqa: T201
            missed += not found
    took = time.monotonic() - began
    print(f"{len(faults) - missed} of {len(faults)} found in {took:.0f} s")  # noqa: T201
    return missed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
