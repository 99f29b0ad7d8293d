"""Every row of the campaign's table."""

from __future__ import annotations

from campaign import (
    archives,
    checkpoints,
    disks,
    images,
    kills,
    predictions,
    run_folders,
    settings,
    task_files,
    training_kills,
)

TRIALS = (
    *predictions.TRIALS,
    *images.TRIALS,
    *archives.TRIALS,
    *settings.TRIALS,
    *checkpoints.TRIALS,
    *task_files.TRIALS,
    *run_folders.TRIALS,
    *kills.TRIALS,
    *disks.TRIALS,
    *training_kills.TRIALS,
)
