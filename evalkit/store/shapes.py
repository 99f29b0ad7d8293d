"""The shape of `manifest.json` and `summary.json` that readers rely on; a folder may come from anybody."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import RunFolderError

Check = Callable[[Any], bool]


def _is(*kinds: type) -> Check:
    return lambda value: isinstance(value, kinds)


def _number(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (isinstance(value, float) and math.isfinite(value))


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _every(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _by_name(check: Check) -> Check:
    return lambda value: isinstance(value, Mapping) and all(map(check, value.values()))


def _object(**members: Check) -> Check:
    """An object whose members, where they are there, pass their checks."""
    return lambda value: (
        isinstance(value, Mapping)
        and all(check(value[name]) for name, check in members.items() if name in value)
    )


_TEXT, _MAP = _is(str), _is(Mapping)
_VALUE = _object(
    value=_optional(_number),
    n=_optional(_number),
    unit=_optional(_TEXT),
    ci95=_optional(_every(_number)),
    reason=_optional(_TEXT),
    note=_optional(_TEXT),
)

#: Members by name; what is not named here is only shown.
MANIFEST: Mapping[str, Check] = {
    "created": _TEXT,
    "identity": _TEXT,
    "model": _object(
        name=_TEXT, spec=_TEXT, settings=_MAP, notes=_every(_TEXT), dtype=_optional(_TEXT),
        revision=_optional(_TEXT), fingerprint=_optional(_TEXT), weights=_optional(_TEXT),
        engine=_TEXT, parameters=_optional(_number),
    ),
    "task": _object(name=_TEXT, title=_TEXT, split=_TEXT, protocol=_TEXT, version=_is(str, int)),
    "includes": _every(_object(path=_TEXT, hash=_TEXT)),
    "data": _object(root=_TEXT, hash=_TEXT, samples=_number),
    "prompt": _MAP,
    "selection": _object(expected=_number, sample_ids=_every(_TEXT), limit=_optional(_number)),
    "settings": _MAP,
    "judge": _optional(_object(url=_TEXT, model=_TEXT)),
    "versions": _MAP,
    "sessions": _every(_MAP),
    "outcome": _optional(_MAP),
}  # fmt: skip
SUMMARY: Mapping[str, Check] = {
    "run": _TEXT,
    "status": _TEXT,
    "model": _TEXT,
    "task": _TEXT,
    "split": _TEXT,
    "protocol": _TEXT,
    "counts": _by_name(_optional(_number)),
    "metrics": _by_name(_VALUE),
    "groups": _by_name(_by_name(_by_name(_VALUE))),
    "reference": _every(_MAP),
    "signature": _TEXT,
}


def checked(content: dict[str, Any], shape: Mapping[str, Check], path: Path) -> dict[str, Any]:
    """The content itself.

    Raises:
        RunFolderError: a member is of another kind, by name.
    """
    if wrong := list(_wrong(content, shape)):
        names = ", ".join(wrong)
        raise RunFolderError(f"{path}: {names}: not what evalkit writes; restore it or delete the run folder")
    return content


def _wrong(content: Mapping[str, Any], shape: Mapping[str, Check]) -> Iterable[str]:
    return (name for name, check in shape.items() if name in content and not check(content[name]))
