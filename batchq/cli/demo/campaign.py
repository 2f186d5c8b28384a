"""The newsletter: its handler, its manager, its text. What a user would write.

Both sides build the same manager: the demo to store jobs, its workers to run them.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from batchq.cli.demo.recipients import Recipient
from batchq.core.backoff import Backoff
from batchq.core.retry import RetryPolicy
from batchq.handler import BatchHandler
from batchq.handlers.email import Email, SmtpTransport, sender
from batchq.manager import QueueManager

__all__ = ["BATCH_SIZE", "LEASE", "QUEUE", "build", "newsletter_for"]

QUEUE: Final = "newsletter"
BATCH_SIZE: Final = 100
# Short, so that the jobs of the worker that is killed are not long in coming back [s].
LEASE: Final = 3.0


def build(url: str | None, smtp: SmtpTransport) -> tuple[QueueManager, BatchHandler[Email, object]]:
    """Return the manager, and the handler to enqueue newsletters with."""
    manager = QueueManager(url, lease=LEASE, poll_interval=0.1, grace=5.0)
    newsletter = manager.batch_handler(
        name=QUEUE,
        batch_size=BATCH_SIZE,
        flush_interval=0.2,
        concurrency=1,
        retry=RetryPolicy(max_retries=5, backoff=Backoff(initial_delay=0.5, jitter="full")),
    )(sender(smtp))
    return manager, newsletter


def newsletter_for(recipient: Recipient) -> Email:
    """Write the newsletter to one recipient."""
    greeting = f"Dear {recipient.name}," if recipient.name else "Dear reader,"
    return Email(
        to=recipient.email,
        name=recipient.name,
        subject="This week: ten thousand letters, one hundred at a time",
        body=(
            f"{greeting}\n\n"
            "this letter waited in a SQLite file with those to everybody else on the list.\n"
            "A worker took a hundred of them, opened one connection and sent them all.\n"
            "Had it been killed just now, another one would have sent you this.\n\n"
            "Until next week\n"
        ),
        unsubscribe=f"https://news.example.org/unsubscribe?to={quote(recipient.email)}",
    )
