"""A nursery that one call opens and another one closes.

Rule 1: what ended it comes out by itself: neither in a group nor a mere cancellation.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import trio

__all__ = ["Nest"]


@attrs.define(eq=False)
class Nest:
    """Where the tasks of one object live.

    Attributes:
        nursery: None before it is opened.
        leaving: whether its block has ended.
    """

    nursery: trio.Nursery | None = None
    leaving: bool = False
    _manager: AbstractAsyncContextManager[trio.Nursery] | None = None

    @property
    def open(self) -> bool:
        """Whether tasks run here."""
        return self.nursery is not None and not self.nursery.cancel_scope.cancel_called

    async def enter(self) -> trio.Nursery:
        """Open the nursery.

        Raises:
            RuntimeError: it was opened before, or trio does not run here.
        """
        if not trio.lowlevel.in_trio_task():
            raise RuntimeError(
                "a queue runs under trio; a program of asyncio writes"
                " 'async with Portal(queue) as portal:'"
            )
        if self._manager is not None:
            raise RuntimeError("it was entered before; make a new one")
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        return self.nursery

    async def leave(self, error: BaseException | None) -> None:
        """Cancel the tasks and wait until they have ended.

        Args:
            error: what ended the block, if anything; it travels on by itself.

        Raises:
            BaseException: what ended a task; it goes before `error`.
        """
        if self.nursery is None or self._manager is None:
            return
        self.leaving = True
        self.nursery.cancel_scope.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            crash = _crash(group)
            # A mere cancellation: the block's own error, if any, travels on by itself.
            if crash is None and error is None:
                raise
        else:
            return
        if crash is not None:
            raise crash  # here, where it keeps the cause that it has


def _crash(group: BaseExceptionGroup[Any]) -> BaseException | None:
    _, others = group.split(trio.Cancelled)
    found: BaseException | None = others
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
