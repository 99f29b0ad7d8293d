"""The errors this package raises on purpose, each with one clear line: what, where, the mend."""

from __future__ import annotations


class MiniInternVLError(Exception):
    """Base of every error raised on purpose by this package."""


class ConfigError(MiniInternVLError):
    """A config.json that cannot be understood or that asks for something unsupported."""


class CheckpointError(MiniInternVLError):
    """A checkpoint that is missing, incomplete, corrupt or refused."""


class TokenizerError(MiniInternVLError):
    """Tokenizer files that are missing, corrupt or of an unknown kind."""


class ImageError(MiniInternVLError):
    """A picture that cannot be read, is truncated or is absurdly large."""


class PromptError(MiniInternVLError):
    """A conversation that does not fit its pictures or its template."""


class ImageTokenMismatch(MiniInternVLError, ValueError):
    """The number of image tokens in the text differs from the number of visual features."""


class OutOfMemory(MiniInternVLError):
    """One sequence alone does not fit into the device's memory."""


class CompileError(MiniInternVLError):
    """`torch.compile` does not work on this device or machine."""
