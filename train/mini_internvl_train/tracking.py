"""A training in experiment trackers: one run for its folder, however often it is resumed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import UsageError
from evalkit.trackers import base
from mini_internvl_train.errors import RecipeError

#: File of the run's name in the trackers, in the folder of the training.
_ID = "tracker_id"


def check_trackers(asked: Sequence[str]) -> None:
    """Raises RecipeError for a tracker that is not there."""
    try:
        base.check(asked)
    except UsageError as error:
        raise RecipeError(str(error).replace("--log-to", "log_to")) from None


def trackers_of(asked: Sequence[str], name: str, output: Path, config: Mapping[str, Any]) -> base.Trackers:
    """The trackers of the training in `output`, begun or gone on with.

    TensorBoard is left out: every training writes its event files.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / _ID
    if not path.is_file():
        path.write_text(f"{output.name}-{secrets.token_hex(4)}\n", encoding="utf-8")
    run = base.TrackedRun(path.read_text(encoding="utf-8").strip(), name, config, output, tags=("training",))
    return base.Trackers([tracker for tracker in asked if tracker != "tensorboard"], run)
