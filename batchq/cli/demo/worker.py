"""What the demo's worker processes run: `batchq work batchq.cli.demo.worker:manager`."""

from __future__ import annotations

import os

from batchq.cli.demo.campaign import build
from batchq.handlers.email import SmtpTransport

__all__ = ["manager"]

manager, _ = build(
    None,  # $BATCHQ_URL
    SmtpTransport(
        "127.0.0.1",
        int(os.environ.get("BATCHQ_DEMO_SMTP_PORT", "25")),
        sender="The batchq weekly <news@example.org>",
        # The server knows each worker by it, and so the demo knows whom to kill.
        local_hostname=f"worker-{os.getpid()}",
    ),
)
