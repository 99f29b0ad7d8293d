"""Errors that a user can act on: one line that says what, where and the fix; and an exit status."""

from __future__ import annotations


class EvalkitError(Exception):
    """Base of all errors meant for the user; the command line prints its text as one line.

    Attributes:
        exit_code: process status of the command line (see docs/quickstart.md).
    """

    exit_code = 2


class UsageError(EvalkitError):
    """A wrong flag, an unknown name, a combination that has no meaning (exit 2)."""


class NotComparableError(EvalkitError):
    """Two results that do not measure the same thing (exit 2)."""


class DataError(EvalkitError):
    """Benchmark data missing, corrupt or refused (exit 3)."""

    exit_code = 3


class CheckpointError(EvalkitError):
    """A checkpoint missing, corrupt or refused (exit 3)."""

    exit_code = 3


class ImageError(EvalkitError):
    """An image that is missing, truncated or absurd; becomes the error record of its sample."""

    exit_code = 3


class RankLost(EvalkitError):
    """One of several processes was lost with samples left; the same command continues (exit 130)."""

    exit_code = 130


class RunFolderError(EvalkitError):
    """A run folder that is locked, broken or cannot be written (exit 3)."""

    exit_code = 3


class JudgeError(EvalkitError):
    """A judge that cannot be reached or answers nonsense beyond its retries."""

    exit_code = 3


class ServerError(EvalkitError):
    """A server that cannot be reached, refuses, or is not what its address promises (exit 3)."""

    exit_code = 3


class BudgetError(EvalkitError):
    """A budget that the user set is used up; what was done is kept, the same command continues (exit 130)."""

    exit_code = 130


class TaskError(EvalkitError):
    """A task's own code that fails or breaks its contract (exit 3)."""

    exit_code = 3


class SetupError(EvalkitError):
    """A run that was stopped because all of its first samples failed (exit 3)."""

    exit_code = 3


class TokenizerError(EvalkitError):
    """The tokeniser of caption metrics is not installed, or failed (exit 3)."""

    exit_code = 3


class ModelError(EvalkitError):
    """A model's adapter that breaks its contract (exit 3)."""

    exit_code = 3
