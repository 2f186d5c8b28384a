"""Batch what the tasks of an asyncio server ask for: a Portal, as in FastAPI's lifespan.

Run:    python docs/examples/async_view.py
Shows:  a view awaits its own answer while one call serves many requests; a client
        that goes away takes its item back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from batchq import Batch, BatchedQueue, Portal


async def translate(words: Batch[str]) -> list[str]:
    """Stand in for a model that takes many words at once."""
    print(f"one call for {len(words)} words")
    return [word[::-1] for word in words]


@asynccontextmanager
async def lifespan() -> AsyncIterator[Portal[str, str]]:
    """What FastAPI calls around the life of an application."""
    async with Portal(BatchedQueue[str, str](translate, flush_interval=0.1)) as portal:
        yield portal


async def view(portal: Portal[str, str], word: str) -> str:
    """Answer `GET /translate/<word>`."""
    return f"{word} -> {await portal.process(word)}"


async def main() -> None:
    """Serve three requests at once; a fourth client does not wait for its answer."""
    async with lifespan() as portal:
        impatient = asyncio.create_task(view(portal, "never mind"))
        await asyncio.sleep(0)
        impatient.cancel()
        for answer in await asyncio.gather(*(view(portal, word) for word in ("on", "to", "us"))):
            print(answer)


if __name__ == "__main__":
    asyncio.run(main())
