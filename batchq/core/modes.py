"""Who may do what to a file, as its mode says."""

from __future__ import annotations

import stat

__all__ = ["anybody_may_replace"]


def anybody_may_replace(folder: int) -> bool:
    """Tell whether any user may put another file in the place of one in a folder.

    Args:
        folder: its mode. With the sticky bit, as /tmp has it, each may touch his own only.
    """
    return bool(folder & stat.S_IWOTH) and not folder & stat.S_ISVTX
