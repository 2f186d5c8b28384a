"""Our own stores keep the rules that are published for everybody's."""

from __future__ import annotations

from typing import Final

from batchq.testing.conformance.test_claim import *  # noqa: F403
from batchq.testing.conformance.test_cleaning import *  # noqa: F403
from batchq.testing.conformance.test_enqueue import *  # noqa: F403
from batchq.testing.conformance.test_keys import *  # noqa: F403
from batchq.testing.conformance.test_life import *  # noqa: F403
from batchq.testing.conformance.test_machine import *  # noqa: F403
from batchq.testing.conformance.test_orders import *  # noqa: F403
from batchq.testing.conformance.test_reading import *  # noqa: F403
from batchq.testing.conformance.test_settle import *  # noqa: F403
from batchq.testing.conformance.test_suspects import *  # noqa: F403
from batchq.testing.conformance.test_tally import *  # noqa: F403
from batchq.testing.conformance.test_working import *  # noqa: F403

STORES: Final = ("memory:", "sqlite:///{folder}/jobs.db")
