"""Keep the latest readings when they come faster than they can be stored.

Run:    python docs/examples/keep_latest.py
Shows:  a full queue gives up its oldest item, and says so: nothing is lost
        without a count. With drop_policy="block" the producer would wait instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from batchq import BatchedQueue, Hooks


async def store(readings: Sequence[int]) -> None:
    """Stand in for a slow database."""
    print(f"stored {len(readings)} readings, up to number {readings[-1]}")
    await trio.sleep(0.1)


async def main() -> None:
    """Produce a reading each millisecond, far too fast."""
    given_up: list[int] = []
    hooks = Hooks[int, None](on_drop=lambda reading, _: given_up.append(reading))
    async with BatchedQueue[int, None](
        store,
        name="readings",
        batch_size=10,
        flush_interval=0.05,
        max_queue_size=20,
        drop_policy="drop-oldest",
        hooks=hooks,
    ) as queue:
        for reading in range(1, 301):
            await queue.enqueue(reading)
            await trio.sleep(0.001)
    stats = queue.stats()
    print(f"{stats.enqueued} readings: {stats.succeeded} stored, {stats.dropped} given up")
    print(f"the hook was told of {len(given_up)}")


if __name__ == "__main__":
    trio.run(main)
