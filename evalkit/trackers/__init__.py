"""Experiment trackers that a run or a training is logged to, beside its own folder, which stays the truth."""
