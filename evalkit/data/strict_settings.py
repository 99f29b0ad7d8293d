"""TOML and YAML of settings files: a key that occurs twice is refused, and any fault has one line.

PyYAML takes the last of two equal keys; both libraries pass on Python's own errors for texts nested too
deeply and for numbers of thousands of digits.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from evalkit.data.strict_json import twice

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from yaml import Node


class SettingsTextError(ValueError):
    """A text that is not TOML or YAML, or whose value is not certain; says what is wrong, not the file."""


def toml(text: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        SettingsTextError: not TOML, with its place.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SettingsTextError("nested too deeply") from None
    except ValueError as error:  # a number of too many digits among them
        raise SettingsTextError(_line(error)) from None


def yaml(text: str) -> Any:
    """The value of a YAML text; nothing but plain values is built.

    Raises:
        SettingsTextError: not YAML, with its place; a key that occurs twice; a part that contains itself.
    """
    import yaml as library

    try:
        node = library.compose(text, library.SafeLoader)
        if node is not None:
            _check(node, [])
        return library.safe_load(text)
    except SettingsTextError:
        raise
    except RecursionError:
        raise SettingsTextError("nested too deeply") from None
    except Exception as error:  # constructors of numbers and dates raise errors of their own
        raise SettingsTextError(_line(error)) from None


def _check(node: Node, above: list[Node]) -> None:
    """Refuses keys that occur twice, and parts that contain themselves."""
    from yaml import MappingNode, SequenceNode

    if any(node is each for each in above):
        raise SettingsTextError(f"line {node.start_mark.line + 1}: a part contains itself")
    inner: list[Node] = []
    if isinstance(node, MappingNode):
        names = [str(key.value) for key, _ in node.value]
        if name := twice(names):
            line = [key for key, _ in node.value if str(key.value) == name][1].start_mark.line + 1
            raise SettingsTextError(f"line {line}: key {name!r} occurs twice; keep one")
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, SequenceNode):
        inner = list(node.value)
    for part in inner:
        _check(part, [*above, node])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
