"""A table that is renewed in place in a Jupyter notebook."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from evalkit.score_html import html_table


def in_notebook() -> bool:
    """Whether the process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class LiveTable:
    """One output of a cell, shown with its first rows."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._handle: Any = None

    def show(self, row: Sequence[object]) -> None:
        """Replace the row."""
        from IPython import display as shown

        html: Any = shown.HTML
        display: Any = shown.display
        content = html(html_table(self._columns, [row]))
        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)
