"""Errors a user can act on: one line that says what, where and the fix."""

from __future__ import annotations


class TrainingError(Exception):
    """Base of all errors meant for the user."""


class RecipeError(TrainingError):
    """A recipe that cannot be read: an unknown key, a wrong type, a contradiction."""


class TrainingDataError(TrainingError):
    """A training file or one of its lines that cannot be used, with file and line."""


class ResumeError(TrainingError):
    """A checkpoint that does not belong to this recipe or this data."""


class DivergedError(TrainingError):
    """A step whose loss or gradient is not finite, with the sample ids of the step."""


class Stopped(KeyboardInterrupt):
    """A training that was stopped by a signal and saved; its text says how to continue."""
