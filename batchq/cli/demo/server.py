"""A real SMTP server on loopback that counts, puts off and refuses.

It runs in a thread of its own. Other threads only read its tallies, and every one of them
is about recipients by address in lower case, so that two spellings are one mailbox.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

import attrs
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

__all__ = ["Connection", "PostOffice", "Server"]

_MESSAGE_ID: Final = re.compile(rb"^Message-ID: *(\S+)", re.IGNORECASE | re.MULTILINE)
_HEADERS: Final = 2_000


@attrs.define(eq=False)
class Connection:
    """What came in over one connection, so far.

    Attributes:
        client: what the client called itself in its greeting.
        accepted: recipients whose message was taken over, in order.
    """

    client: str
    accepted: list[str] = attrs.field(factory=list)


@attrs.define(eq=False)
class PostOffice:
    """Takes, puts off or refuses mail, and remembers all of it.

    Attributes:
        put_off: whom to put off (451), and how many times.
        refuse: whom to refuse for good (550).
        on_delivery: called after each message taken over, before the client learns of it.
        delivered: messages taken over, by recipient [count].
        deferred: answers of 451, by recipient [count].
        refused: answers of 550, by recipient [count].
        message_ids: the Message-IDs seen, by recipient.
        connections: clients that sent at least one message [count].
        began_at: when the first message came [s, time.monotonic]; None before.
    """

    put_off: Mapping[str, int] = attrs.field(factory=dict)
    refuse: Collection[str] = frozenset()
    on_delivery: Callable[[Connection], object] | None = None
    delivered: Counter[str] = attrs.field(factory=Counter, init=False)
    deferred: Counter[str] = attrs.field(factory=Counter, init=False)
    refused: Counter[str] = attrs.field(factory=Counter, init=False)
    message_ids: dict[str, set[bytes]] = attrs.field(factory=dict, init=False)
    connections: int = attrs.field(default=0, init=False)
    began_at: float | None = attrs.field(default=None, init=False)
    _open: WeakKeyDictionary[Session, Connection] = attrs.field(
        factory=WeakKeyDictionary, init=False
    )

    # aiosmtpd names the hooks, and passes (server, session, envelope, *what the client said).

    async def handle_RCPT(self, _: SMTP, __: Session, *said: Any) -> str:  # noqa: ANN401, N802
        """Decide whether mail for an address is welcome."""
        envelope, address, _options = said
        mailbox = address.casefold()
        if mailbox in self.refuse:
            self.refused[mailbox] += 1
            return "550 5.1.1 no such mailbox here"
        if self.deferred[mailbox] < self.put_off.get(mailbox, 0):
            self.deferred[mailbox] += 1
            return "451 4.7.1 greylisted, come again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a message over."""
        found = _MESSAGE_ID.search((envelope.original_content or b"")[:_HEADERS])
        connection = self._open.get(session)
        if connection is None:
            connection = self._open[session] = Connection(session.host_name or "")
            self.connections += 1
            self.began_at = self.began_at or time.monotonic()
        for address in envelope.rcpt_tos:
            mailbox = address.casefold()
            self.delivered[mailbox] += 1
            self.message_ids.setdefault(mailbox, set()).add(found[1] if found else b"")
            connection.accepted.append(mailbox)
        if self.on_delivery is not None:
            self.on_delivery(connection)
        return "250 2.0.0 taken over"


class Server(Controller):
    """Runs a `PostOffice` on a free port of 127.0.0.1 for as long as its block lasts."""

    def __init__(self, office: PostOffice) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        port = self._socket.getsockname()[1]
        # Its own name is known: looking it up for each client may take seconds.
        super().__init__(office, hostname="127.0.0.1", port=port, server_hostname="localhost")

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        # The socket is bound already: asking for a free port and binding it later is a race.
        return self.loop.create_server(self._factory_invoker, sock=self._socket)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
