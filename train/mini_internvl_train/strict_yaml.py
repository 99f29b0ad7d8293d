"""YAML without ambiguity: a key that occurs twice is refused; PyYAML takes the last of them."""

from __future__ import annotations

from typing import Any

import yaml


def loads(text: str) -> Any:
    """The value of a YAML text; nothing but plain values is built.

    Raises:
        yaml.YAMLError: not YAML, a key that occurs twice, or a part that contains itself, with its line.
        ValueError, RecursionError: numbers and depths that Python does not read.
    """
    node = yaml.compose(text, yaml.SafeLoader)
    if node is not None:
        _check(node, [])
    return yaml.safe_load(text)


def _check(node: yaml.Node, above: list[yaml.Node]) -> None:
    line = node.start_mark.line + 1
    if any(node is each for each in above):
        raise yaml.YAMLError(f"line {line}: a part contains itself")
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.YAMLError(
                    f"line {key.start_mark.line + 1}: key {name[:60]!r} occurs twice; keep one"
                )
            seen.add(name)
            inner += [key, value]
    elif isinstance(node, yaml.SequenceNode):
        inner = list(node.value)
    for part in inner:
        _check(part, [*above, node])
