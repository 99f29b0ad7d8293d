"""YAML to frozen dataclasses, strict in keys and types."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from evalkit.doors import cause
from evalkit.pipeline.options import current_name
from mini_internvl_train.errors import RecipeError

Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What a setting means, and its bounds (both allowed; of a tuple, those of each item).

    It annotates the dataclass's field: `rank: Annotated[int, Setting("Rank of an adapter.", 1)] = 16`.
    """

    meaning: str
    least: float | None = None
    most: float = math.inf


#: No setting is as large.
_TOO_LARGE = 1e18


def read_settings(kind: type[Settings], path: Path, overrides: Mapping[str, str]) -> Settings:
    """An instance of the dataclass `kind` from a YAML file.

    Args:
        kind: a dataclass; fields that are dataclasses are groups of settings.
        path: of the file.
        overrides: dotted key to YAML text (`steps.max_steps` to `100`), applied last.

    Raises:
        RecipeError: broken YAML, an unknown key (with the nearest right one), a wrong type, a missing one.
    """
    import yaml

    from mini_internvl_train import strict_yaml

    try:
        raw = strict_yaml.loads(path.read_text(encoding="utf-8"))
        changes = {key: strict_yaml.loads(text) for key, text in overrides.items()}
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    except Exception as error:  # PyYAML's constructors raise what dates, numbers and keys make them
        raise RecipeError(f"{path}: cannot be read as YAML ({cause(error)})") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of settings")
    for key, value in changes.items():
        _set(raw, key, value)
    built: Settings = _build(kind, raw, str(path))
    return built


def parsed(text: str, where: str) -> Any:
    """A value as YAML knows it.

    Raises:
        RecipeError: broken YAML, named by `where`.
    """
    from mini_internvl_train import strict_yaml

    try:
        return strict_yaml.loads(text)
    except Exception as error:  # PyYAML's constructors raise what dates, numbers and keys make them
        raise RecipeError(f"{where}: cannot be read as YAML ({cause(error)})") from None


def settings_of(kind: type[Any]) -> dict[str, Setting]:
    """The settings that a dataclass itself defines, by name."""
    found = {
        name: [item for item in typing.get_args(hint) if isinstance(item, Setting)]
        for name, hint in typing.get_type_hints(kind, include_extras=True).items()
    }
    return {name: items[0] for name, items in found.items() if items}


def check_bounds(settings: Any) -> None:
    """Refuses numbers outside the bounds of their `Setting`; what is None was not given.

    Raises:
        RecipeError: names the first one outside, not-a-number among them.
    """
    for name, setting in settings_of(type(settings)).items():
        if setting.least is None:
            continue
        value = getattr(settings, name)
        items = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(setting.least <= item <= setting.most and abs(item) < _TOO_LARGE for item in items):
            most = "" if setting.most == math.inf else f" to {setting.most:g}"
            raise RecipeError(f"{name}: {value!r} is out of its bounds, from {setting.least:g}{most}")


def plain(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as JSON and YAML know values."""
    content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return content


def _set(raw: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        raw = raw.setdefault(name, {})
        if not isinstance(raw, dict):
            raise RecipeError(f"{dotted}: {name} is not a group of settings")
    raw[last] = value


def _build(kind: type[Any], raw: Any, where: str) -> Any:
    """An instance of the dataclass `kind` from parsed YAML, strict in keys and types."""
    if not isinstance(raw, dict):
        raise RecipeError(f"{where}: expected a group of settings, found {raw!r}")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    values = {}
    for name, value in raw.items():
        key = current_name(name, kind)
        if key not in known:
            close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
            raise RecipeError(f"{where}: unknown key {name!r}; did you mean {close[0]!r}?")
        values[key] = _convert(hints[key], value, f"{where}: {key}")
    missing = [
        name
        for name, f in known.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{where}: {missing[0]!r} must be given")
    try:
        return kind(**values)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, where)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _any_of([a for a in arguments if a is not type(None)], value, where)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if origin is collections.abc.Mapping:
        if not isinstance(value, dict):
            raise RecipeError(f"{where}: expected KEY: VALUE, found {value!r}")
        return value
    if origin in (tuple, collections.abc.Sequence):
        items = value if isinstance(value, (list, tuple)) else [value]
        every = origin is not tuple or arguments[-1] is Ellipsis
        kinds = [arguments[0]] * len(items) if every else list(arguments)
        if len(kinds) != len(items):
            raise RecipeError(f"{where}: {len(kinds)} values are due, found {len(items)}")
        return tuple(_convert(kind, item, where) for kind, item in zip(kinds, items, strict=True))
    return _scalar(hint, value, where)


def _any_of(hints: list[Any], value: Any, where: str) -> Any:
    """The value as the first of the types that takes it; a path is text in YAML."""
    first, *others = (hint for hint in hints if typing.get_origin(hint) is not os.PathLike)
    try:
        return _convert(first, value, where)
    except RecipeError:
        if not others:
            raise
    return _any_of(others, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-5 as text
        except (TypeError, ValueError, OverflowError):
            pass
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise RecipeError(f"{where}: expected {hint.__name__}, found {value!r}")
