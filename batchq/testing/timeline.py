"""What a queue does with a list of (time, action), on a virtual clock."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, TypeVar

import trio
import trio.testing

from batchq.core.batch import Batch
from batchq.errors import OptionError
from batchq.hooks import Hooks
from batchq.queue import BatchedQueue

__all__ = ["Action", "put", "run_timeline"]

T = TypeVar("T")

Action = Callable[[BatchedQueue[T, Any]], object]

# Later than anything that happens: what has not started by then waits for ever [s].
_FOR_EVER: Final = 1e9


def put(*items: T, **how: Any) -> Action[T]:  # noqa: ANN401 - as enqueue_many takes it
    """Make an action that enqueues items; `how` is as for `enqueue_many`."""

    async def enqueue(queue: BatchedQueue[T, Any]) -> None:
        await queue.enqueue_many(items, **how)

    return enqueue


def run_timeline(
    make: Callable[..., BatchedQueue[T, Any]], actions: Iterable[tuple[float, Action[T]]]
) -> list[tuple[float, list[T]]]:
    """Let a queue live through a list of actions, and return the calls that it made.

        queue = partial(BatchedQueue, send, batch_size=3, flush_interval=10)
        assert run_timeline(queue, [(0, put(1, 2, 3, 4))]) == [(0, [1, 2, 3]), (10, [4])]

    It runs until the queue is idle, or would wait for ever. Time is virtual: hours cost
    nothing, and the same list gives the same calls.

    Args:
        make: makes the queue; called with `hooks=`: its own, if it has any, and one more. A
            subclass of `BatchedQueue`, or a `partial` of one or of the class itself.
        actions: (when [s, from 0], what), in order of time. What is a function of the
            queue, plain or async: `put(...)`, `BatchedQueue.pause`, any other. One that
            waits holds up those after it.

    Returns:
        (when the call began [s], its items), in order of time.

    Raises:
        OptionError: a time lies before the one above it.
        Exception: what an action raised.
    """
    calls: list[tuple[float, list[T]]] = []
    steps = list(actions)
    times = [at for at, _ in steps]
    if times != sorted(times) or (times and not times[0] >= 0):
        raise OptionError(f"times must rise from 0, got {times}")
    trio.run(_live, make, steps, calls, clock=trio.testing.MockClock(autojump_threshold=0))
    return calls


async def _live(
    make: Callable[..., BatchedQueue[T, Any]],
    steps: list[tuple[float, Action[T]]],
    calls: list[tuple[float, list[T]]],
) -> None:
    began = trio.current_time()

    def note(batch: Batch[T]) -> None:
        calls.append((trio.current_time() - began, list(batch)))

    with trio.CancelScope() as life:
        hooks = [*_hooks_of(make), Hooks[T, Any](on_batch_start=note)]
        async with make(hooks=hooks) as queue:
            for at, action in steps:
                await trio.sleep_until(began + at)
                await _do(action, queue)
            with trio.move_on_after(_FOR_EVER):
                await queue.wait_idle()
            life.cancel()  # what waits for ever would be drained, as if by itself


def _hooks_of(make: Callable[..., BatchedQueue[T, Any]]) -> list[Hooks[T, Any]]:
    """Return the hooks that a queue is made with: an argument goes before the attribute."""
    bound, made = (make.keywords, make.func) if isinstance(make, partial) else ({}, make)
    found: Any = bound.get("hooks", getattr(made, "hooks", None))
    if found is None:
        return []
    return [found] if isinstance(found, Hooks) else list(found)


async def _do(action: Action[T], queue: BatchedQueue[T, Any]) -> None:
    done = action(queue)
    if inspect.isawaitable(done):
        await done
