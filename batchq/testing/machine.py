"""Random histories of a queue with *your* processor and *your* strategy, by Hypothesis.

    class MailMachine(QueueMachine):
        items = st.builds(Mail, ...)
        options = {"batch_size": 5, "batching_strategy": by_sender}

        async def process_batch(self, batch):
            return await send(batch)

    TestMail = MailMachine.TestCase       # pytest and unittest find it

The rules write a history; at its end the real queue lives through it, on a virtual clock.
So what Hypothesis finds it finds again, and makes short. What must hold, however items
come, are cancelled, flushed and paused:

    I1   the counts of the queue add up, and equal a recount
    I2   every item settles exactly once, and its result never changes
    I3   no batch is empty, none is longer than `batch_size`
    I7   while there is capacity, nothing waits past its due time
    I19  what was cancelled before its start never reaches the processor
    I29  nothing waits past its `delivery_timeout`
    I32  whoever waits for an item gets that item's answer

and: the processor answers once per item, the strategy with groups of what it was given,
every item settles in the end, and no `assert` of the processor fails.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

from batchq.core.batch import Batch
from batchq.core.options import Options
from batchq.errors import MissingExtra
from batchq.testing.life import Life, Step

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, rule
except ImportError as missing:
    raise MissingExtra("QueueMachine", "hypothesis", "test") from missing

__all__ = ["QueueMachine"]

_SECONDS: Final = st.sampled_from([0.125, 0.5, 1.0, 5.0, 60.0])


def _of_machine(make: Callable[[Any], st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    return st.runner().flatmap(make)


def _priorities(machine: QueueMachine) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(0, machine.options.get("priority_levels", 1) - 1)


_ITEM: Final = _of_machine(lambda machine: machine.items)
_ITEMS: Final = _of_machine(lambda machine: st.lists(machine.items, max_size=8))


class QueueMachine(RuleBasedStateMachine):
    """Drives a queue through random histories; subclass it.

    Attributes:
        items: what is enqueued.
        options: the queue's; any but `hooks` and `persistence`. The capacity that I7
            speaks of is a slot, a `throttle` that has passed, a `rate_limit` that could pay
            for any batch, and a partition that is not held up.
    """

    items: ClassVar[st.SearchStrategy[Any]] = st.integers()
    options: ClassVar[Options] = {}

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[Step] = []

    async def process_batch(self, batch: Batch[Any]) -> Any:  # noqa: ANN401 - a processor's answers
        """Process a batch; each item is answered with itself, unless this is overridden.

        A machine is made anew for each history: what it must remember may stand on it. What
        it raises is a failure of the batch, as in any queue, and no finding; a failed
        `assert` is one.
        """
        return list(batch)

    def expected(self, item: Any) -> object:  # noqa: ANN401, ARG002 - the user's item
        """Return what whoever waits for `item` gets; NotImplemented: it is not checked."""
        return NotImplemented

    def teardown(self) -> None:
        """Let a queue live through the history.

        Raises:
            AssertionError: something did not hold; the message says what.
            TypeError: the processor is not async, or an option is none, or not for histories.
        """
        life = Life(self.process_batch, self.expected, self.options)
        life.live(self._steps)
        if life.faults:
            raise AssertionError("\n".join(dict.fromkeys(life.faults)))

    @rule(items=_ITEMS, priority=_of_machine(_priorities))
    def items_come(self, items: list[Any], priority: int | None) -> None:
        """Items are enqueued."""
        self._steps.append(partial(Life.enqueue, items=items, priority=priority))

    @rule(item=_ITEM, patience=_SECONDS | st.just(1e9))
    def somebody_waits(self, item: Any, patience: float) -> None:  # noqa: ANN401 - the user's item
        """Somebody waits for an item's answer, and may give up."""
        self._steps.append(partial(Life.process, item=item, patience=patience))

    @rule(index=st.integers(0, 50))
    def an_item_is_cancelled(self, index: int) -> None:
        """An item is taken back, if there is one and it has not started."""
        self._steps.append(partial(Life.cancel, index=index))

    @rule(seconds=_SECONDS)
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self._steps.append(partial(Life.sleep, seconds=seconds))

    @rule()
    def pause(self) -> None:
        """The queue is paused."""
        self._steps.append(Life.pause)

    @rule()
    def resume(self) -> None:
        """The queue is resumed."""
        self._steps.append(Life.resume)

    @rule()
    def flush(self) -> None:
        """Somebody flushes the queue."""
        self._steps.append(Life.flush)
