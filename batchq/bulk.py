"""Jobs in bulk: items to new jobs, a thousand at a time, and what errors say of them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final, TypeVar

from batchq.core.job import NewJob
from batchq.errors import BatchqError, PayloadError, QueueError

__all__ = ["chunks", "each_chunk", "hinted", "saying"]

P = TypeVar("P")

_CHUNK: Final = 1_000  # jobs stored by one commit


def chunks(items: Iterable[P], new_job: Callable[[P], NewJob]) -> Iterator[list[NewJob]]:
    """Make jobs of items, in order, a thousand at a time.

    Raises:
        PayloadError: one does not fit; says which.
    """
    numbered = enumerate(items)
    while chunk := [_job(new_job, number, item) for number, item in islice(numbered, _CHUNK)]:
        yield chunk


async def each_chunk(
    items: Iterable[P] | AsyncIterable[P],
    new_job: Callable[[P], NewJob],
    store: Callable[[list[NewJob]], Awaitable[object]],
) -> None:
    """Do the same of what may come from an async iterable, and have each thousand stored."""
    if not isinstance(items, AsyncIterable):
        for chunk in chunks(items, new_job):
            await store(chunk)
        return
    chunk, number = list[NewJob](), 0
    async for item in items:
        chunk.append(_job(new_job, number, item))
        number += 1
        if len(chunk) == _CHUNK:
            await store(chunk)
            chunk = []
    if chunk:
        await store(chunk)


@contextmanager
def saying(stored: Callable[[Sequence[object]], Sequence[object] | int]) -> Iterator[None]:
    """Let an error say in a note how much was stored before it; one of ours says what.

    Args:
        stored: gets the handles of what a queue took of the last jobs; returns what to say,
            the handles of what was stored or their number.
    """
    try:
        yield
    except Exception as error:  # the iterable is the user's code
        before = stored(error.entries if isinstance(error, QueueError) else ())
        if isinstance(error, BatchqError):
            error.stored = before
        number = before if isinstance(before, int) else len(before)
        error.add_note(f"{number} jobs were stored before this")
        raise


def hinted(error: PayloadError, item: object) -> PayloadError:
    """Return the error of an item; of a list that was taken for one it says what to write."""
    if not isinstance(item, list | tuple | set | Iterator):
        return error
    hint = "to store one job per item, write enqueue_many(items)"
    return PayloadError(f"{error}; {hint}")


def _job(new_job: Callable[[P], NewJob], number: int, item: P) -> NewJob:
    try:
        return new_job(item)
    except PayloadError as error:
        error.add_note(f"it is item number {number}, counted from 0")
        raise
