"""What comes in from outside comes in through a door, and whatever fails there names its place.

| what | door |
|---|---|
| images, videos | `evalkit/data/decoding.py`, `images.py`; `mini_internvl/decoding.py` |
| checkpoint files | `mini_internvl.load`; `evalkit_models/hf_loading.py` |
| JSON, JSON Lines, TSV | `evalkit/files.py`; run folders: `evalkit/store/` |
| Parquet | `evalkit/data/tables.py`; run folders: `evalkit/store/records.py` |
| stored predictions | `evalkit_models/prediction_files.py` |
| TOML, YAML | `read_toml` here; `mini_internvl_train/settings.py` |
| archives | `evalkit/data/archives.py` |
| HTTP | `evalkit/openai_sdk.py` |
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from evalkit.errors import EvalkitError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

#: Characters of a cause that are shown.
_SHOWN = 200


@contextmanager
def reading(where: object, error: type[EvalkitError], fix: str) -> Iterator[None]:
    """Whatever goes wrong in the block is an `error` that names `where`, the cause and the fix.

    Raises:
        EvalkitError: `error`, or one raised in the block, which says more already.
    """
    try:
        yield
    except EvalkitError:
        raise
    except Exception as raised:
        raise error(f"{where}: cannot be read ({cause(raised)}): {fix}") from raised


def guarded(items: Iterable[T], where: object, error: type[EvalkitError], fix: str) -> Iterator[T]:
    """The items, taken through `reading`; what is done with them in between is not."""
    with reading(where, error, fix):
        yield from items


def cause(error: BaseException) -> str:
    """What an exception says, on one line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "more than fits into memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())[:_SHOWN]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        UsageError: missing, or not TOML, with its place.
    """
    with reading(path, UsageError, "write it anew (docs/gates.md)"):
        try:
            return tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path}: not TOML ({error})") from None
