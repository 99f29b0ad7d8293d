"""What must be said of a folder of runs before its runs are looked at."""

from __future__ import annotations

import os
from pathlib import Path

from evalkit_leaderboard.index import find_folders


def remark(folder: Path) -> str:
    """One line on a folder that is missing, empty, closed or read-only; empty where all is as usual."""
    if not folder.is_dir():
        return f"{folder}: no such folder yet; its runs are shown once there are some"
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"{folder}: cannot be read, its runs are not shown; `chmod u+rx` opens it"
    writable = os.access(folder, os.W_OK)
    read_only = "" if writable else "; it is read-only, so no run can be written there"
    if next(find_folders(str(folder)), None) is None:
        return f"{folder}: no run in it yet{read_only}"
    return "" if writable else f"{folder}: its runs are shown{read_only}"
