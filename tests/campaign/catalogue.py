"""Every row of the campaign's table.

Each batch is a process that imports this: what needs torch imports it when it is used.
"""

from __future__ import annotations

from campaign import (
    archives,
    checkpoints,
    disks,
    images,
    kills,
    predictions,
    replies,
    run_folders,
    settings,
    task_files,
    training_kills,
    worker_kills,
)

TRIALS = (
    *predictions.TRIALS,
    *replies.TRIALS,
    *images.TRIALS,
    *archives.TRIALS,
    *settings.TRIALS,
    *checkpoints.TRIALS,
    *task_files.TRIALS,
    *run_folders.TRIALS,
    *kills.TRIALS,
    *disks.TRIALS,
    *training_kills.TRIALS,
    *worker_kills.TRIALS,
)
