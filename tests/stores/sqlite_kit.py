"""What the tests of the SQLite store share: forked processes, statements past the store."""

from __future__ import annotations

import os
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

NOBODY: Final = 65534  # whom root becomes to be refused anything


def forked(child: Callable[[], object]) -> int:
    """Run `child` in a forked process; return the process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        child()
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        # Not a step further: the rest of this process belongs to the parent.
        os._exit(code)


def succeeded(*pids: int) -> bool:
    return [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)


def raw(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
