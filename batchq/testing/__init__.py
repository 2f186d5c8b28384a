"""For the tests of those who use batchq: no sleeping, no servers, no luck.

ScriptedProcessor    answers call by call as the test says, and remembers them
FaultyStorage        keeps snapshots in memory, and fails when it is told to
run_timeline         what a queue does with a list of (time, action), in virtual time
machine.QueueMachine random histories of your processor and your strategy; needs Hypothesis
faults.FaultyStore   a store that fails when it is told to
conformance, plugin  what every store must do, as tests: pytest --batchq-store=URL
"""

from __future__ import annotations

from batchq.testing.processor import Call, ScriptedProcessor, echo
from batchq.testing.storage import FaultyStorage
from batchq.testing.timeline import put, run_timeline

__all__ = ["Call", "FaultyStorage", "ScriptedProcessor", "echo", "put", "run_timeline"]
