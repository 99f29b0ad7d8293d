"""Every row of the campaign's table."""

from __future__ import annotations

from campaign import archives, images, predictions, settings

TRIALS = (*predictions.TRIALS, *images.TRIALS, *archives.TRIALS, *settings.TRIALS)
