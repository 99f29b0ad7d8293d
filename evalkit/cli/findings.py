"""What `evalkit doctor` finds."""

from __future__ import annotations

from typing import NamedTuple

OK, MISSING, BROKEN = "ok", "missing", "broken"


class Finding(NamedTuple):
    """One line: what was looked at, whether it is well, what was found, and the mend where it is not."""

    what: str
    state: str
    found: str
    mend: str = ""
