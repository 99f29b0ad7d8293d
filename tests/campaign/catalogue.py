"""Every row of the campaign's table."""

from __future__ import annotations

from campaign import archives, checkpoints, images, kills, predictions, settings, task_files, training_kills

TRIALS = (
    *predictions.TRIALS,
    *images.TRIALS,
    *archives.TRIALS,
    *settings.TRIALS,
    *checkpoints.TRIALS,
    *task_files.TRIALS,
    *kills.TRIALS,
    *training_kills.TRIALS,
)
