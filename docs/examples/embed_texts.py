"""Turn calls from many tasks into one: the memory tier.

Run:    python docs/examples/embed_texts.py
Shows:  process() gives each caller its own result, or its own error, though
        one call served them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from batchq import BatchedQueue, Result


async def embed(texts: Sequence[str]) -> list[Result[int]]:
    """Stand in for a call that costs the same for many texts as for one."""
    print(f"one call for {len(texts)} texts")
    await trio.sleep(0.05)
    return [Result.ok(len(text)) if text else Result.fail(ValueError("empty")) for text in texts]


async def main() -> None:
    """Ask for three texts from three tasks."""
    async with BatchedQueue[str, int](embed, batch_size=32, flush_interval=0.01) as queue:

        async def ask(text: str) -> None:
            try:
                print(f"{text!r} -> {await queue.process(text)}")
            except ValueError as error:
                print(f"{text!r} -> {error}")

        async with trio.open_nursery() as callers:
            for text in ("to batch", "or not", ""):
                callers.start_soon(ask, text)


if __name__ == "__main__":
    trio.run(main)
