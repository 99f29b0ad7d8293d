"""What the app remembers from one start to the next: `leaderboard/settings.json` in evalkit's cache."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.data.locate import cache_folder
from evalkit.errors import RunFolderError
from evalkit.store.atomic import read_json, write_json

log = logging.getLogger(__name__)


def _file() -> Path:
    return cache_folder() / "leaderboard" / "settings.json"


def _read() -> dict[str, Any]:
    try:
        content = read_json(_file())
    except (RunFolderError, OSError):
        return {}  # none yet, or broken: nothing is remembered
    return content if isinstance(content, dict) else {}


def _place(roots: Sequence[Path]) -> str:
    return "\n".join(map(str, roots))


def baseline(roots: Sequence[Path]) -> str:
    """The baseline that was chosen last over these folders, or an empty text."""
    kept = _read().get("baselines")
    found = kept.get(_place(roots), "") if isinstance(kept, dict) else ""
    return found if isinstance(found, str) else ""


def set_baseline(roots: Sequence[Path], key: str) -> None:
    """Remember it; an empty text forgets it."""
    content = _read()
    kept = content.get("baselines")
    baselines = dict(kept) if isinstance(kept, dict) else {}
    if baselines.get(_place(roots), "") == key:
        return
    baselines[_place(roots)] = key
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_json(_file(), {**content, "baselines": baselines})
    except (RunFolderError, OSError) as error:
        log.warning("%s: the baseline cannot be remembered (%s)", _file(), error)
