"""Let alerts overtake digests, and try again what failed: the memory tier.

Run:    python docs/examples/send_alerts.py
Shows:  a batch is chosen when it starts, so that an alert enqueued last goes out
        first; the one message that failed comes again, its neighbours do not.
"""

from __future__ import annotations

import trio

from batchq import Backoff, Batch, BatchedQueue, Result, RetryPolicy

ALERT, DIGEST = 0, 2


async def send(batch: Batch[str]) -> list[Result[None]]:
    """Send one batch; the second digest meets a busy server, the first time."""
    print(f"{batch.trigger.value}, attempt {batch.attempt}: {', '.join(batch)}")
    await trio.sleep(0.02)
    return [
        Result.fail("server busy") if message == "digest 2" and batch.attempt == 1 else Result.ok()
        for message in batch
    ]


async def main() -> None:
    """Enqueue five digests, then an alert."""
    retry = RetryPolicy(max_retries=2, backoff=Backoff(initial_delay=0.1, jitter="none"))
    async with BatchedQueue[str, None](
        send, batch_size=3, flush_interval=1.0, priority_levels=3, retry=retry
    ) as queue:
        for number in range(1, 6):
            await queue.enqueue(f"digest {number}", priority=DIGEST)
        await queue.enqueue("alert", priority=ALERT)
        await queue.wait_idle()
    stats = queue.stats()
    print(f"{stats.succeeded} sent, {stats.failed} failed, {stats.retries} tried again")


if __name__ == "__main__":
    trio.run(main)
