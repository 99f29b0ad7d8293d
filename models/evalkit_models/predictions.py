"""Stored predictions as a model: `--model predictions:FILE`.

Reads JSON Lines or a JSON list of `{"id": …, "text": …}`, or CSV/TSV with these columns. `answer`,
`prediction`, `response` and `output` are accepted for `text`, `question_id` and `index` for `id`;
`--gen id_field=…` and `--gen text_field=…` name others. Ids are compared as strings.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.contracts import Failure, Model, ModelInfo, ModelOptions, Request, Response
from evalkit.data import strict_json
from evalkit.errors import DataError, UsageError

log = logging.getLogger(__name__)

SCHEME = "predictions:"
ID_FIELDS = ("id", "question_id", "index")
TEXT_FIELDS = ("text", "answer", "prediction", "response", "output")

#: A row and the words that say where it stands.
Row = tuple[Mapping[str, Any], str]


class Predictions:
    """Answers by sample id from a file; needs neither images nor hardware."""

    def __init__(self, path: Path, id_field: str | None = None, text_field: str | None = None) -> None:
        """Read the whole file.

        Raises:
            DataError: missing, broken (with the place), or an id twice with different texts.
            UsageError: more than one field may be the answer.
        """
        self.path = path
        data = _read(path)
        self._texts = _collect(path, data, id_field, text_field)
        self._info = ModelInfo(
            name=f"{SCHEME}{path.name}", fingerprint=hashlib.sha256(data).hexdigest()[:32], engine="stored"
        )

    @property
    def info(self) -> ModelInfo:
        """Named after the file, fingerprinted by its content."""
        return self._info

    def bind_samples(self, ids: Collection[str]) -> Mapping[str, int]:
        """Count and warn of predictions for samples that the split does not have."""
        unknown = [identifier for identifier in self._texts if identifier not in ids]
        if self._texts and len(unknown) == len(self._texts):
            log.warning(
                "%s: none of its %d ids is a sample id: it has %r, the split %r; --gen id_field=NAME names "
                "another field",
                self.path,
                len(unknown),
                unknown[0],
                next(iter(ids), ""),
            )
        elif unknown:
            log.warning(
                "%s: %d predictions belong to no sample of the split and are left out (first: %r)",
                self.path,
                len(unknown),
                unknown[0],
            )
        return {"unknown": len(unknown)}

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """The stored text of each request's id; a missing one is an error, never an empty answer."""
        for request in requests:
            text = self._texts.get(request.id)
            if text is None:
                missing = Failure("missing", f"{self.path}: no prediction for sample {request.id!r}")
                yield request.id, Response(error=missing)
            else:
                yield request.id, Response(text=text)

    def close(self) -> None:
        """Nothing is held."""


class PredictionsFamily:
    """Finds `predictions:FILE`."""

    def names(self) -> Sequence[str]:
        """The scheme."""
        return (f"{SCHEME}FILE",)

    def matches(self, spec: str) -> bool:
        """Whether `spec` begins with the scheme."""
        return spec.startswith(SCHEME)

    def load(self, spec: str, options: ModelOptions) -> Model:
        """Read the file.

        Raises:
            UsageError: a setting that stored texts cannot follow. DataError: see `Predictions`.
        """
        for flag in ("checkpoint", "revision", "base_url", "compile"):
            if getattr(options, flag):
                raise UsageError(f"--{flag.replace('_', '-')} has no meaning with {SCHEME}FILE")
        extra = dict(options.extra)
        id_field, text_field = extra.pop("id_field", None), extra.pop("text_field", None)
        if extra:
            known = "id_field, text_field and the settings of generation"
            raise UsageError(f"--gen {next(iter(extra))}: {SCHEME}FILE knows {known}")
        name = spec.removeprefix(SCHEME)
        if not name:
            raise UsageError(f"--model {SCHEME}: name a file, {SCHEME}FILE")
        return Predictions(Path(name).expanduser(), id_field, text_field)


FAMILY = PredictionsFamily()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such predictions file") from None
    except OSError as error:
        raise DataError(f"{path}: predictions cannot be read ({error.strerror})") from None


def _collect(path: Path, data: bytes, id_field: str | None, text_field: str | None) -> dict[str, str]:
    texts: dict[str, str] = {}
    for row, where in _rows(path, data):
        identifier = _identifier(row, where, id_field)
        text = _text(row, where, text_field)
        if text is None:
            continue
        if texts.setdefault(identifier, text) != text:
            raise DataError(f"{where}: id {identifier!r} occurs before with another text; keep one of them")
    if not texts:
        raise DataError(f"{path}: holds no predictions")
    return texts


def _rows(path: Path, data: bytes) -> Iterator[Row]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if path.suffix.lower() in (".csv", ".tsv"):
        return _table(path, text, "\t" if path.suffix.lower() == ".tsv" else ",")
    if text.lstrip()[:1] == "[":
        return _list(path, text)
    return _lines(path, text)


def _list(path: Path, text: str) -> Iterator[Row]:
    try:
        items = strict_json.loads(text)
    except strict_json.AmbiguousJson as error:
        raise DataError(f"{path}: {error}; say what the answer is") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: line {error.lineno} column {error.colno}: broken JSON ({error.msg})"
        ) from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deeply: not a predictions file") from None
    for number, item in enumerate(items, 1):
        yield _object(item, f"{path}: item {number}")


def _lines(path: Path, text: str) -> Iterator[Row]:
    # Not splitlines(): texts may hold characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            item = strict_json.loads(line)
        except strict_json.AmbiguousJson as error:
            raise DataError(f"{where}: {error}; say what the answer is") from None
        except (json.JSONDecodeError, RecursionError) as error:
            cause = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise DataError(f"{where}: not JSON ({cause})") from None
        yield _object(item, where)


def _object(item: Any, where: str) -> Row:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object with id and text, found {type(item).__name__}")
    return item, where


def _table(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = [name.strip() for name in cells]
                if name := strict_json.twice(header):
                    raise DataError(f"{path}: line {reader.line_num}: column {name!r} occurs twice; keep one")
                continue
            where = f"{path}: line {reader.line_num}"
            if len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} cells, the header has {len(header)}")
            yield dict(zip(header, cells, strict=True)), where
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: broken table ({error})") from None


def _identifier(row: Mapping[str, Any], where: str, field: str | None) -> str:
    name = field or next((name for name in ID_FIELDS if name in row), None)
    if name is None or name not in row:
        wanted = repr(field) if field else "id (or question_id, index)"
        raise DataError(f"{where}: no field {wanted}; --gen id_field=NAME names another{_found(row)}")
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: {name} must be text or a number, found {type(value).__name__}")
    return str(value)


def _text(row: Mapping[str, Any], where: str, field: str | None) -> str | None:
    """The answer; None where the field is null, which is no answer."""
    if field is None:
        found = [name for name in TEXT_FIELDS if name in row]
        if len(found) > 1 and found[0] != "text":
            raise UsageError(
                f"{where}: both {found[0]} and {found[1]} may be the answer; --gen text_field=NAME says which"
            )
        field = found[0] if found else "text"
    if field not in row:
        raise DataError(
            f"{where}: no field {field!r} (or {', '.join(TEXT_FIELDS[1:])}); --gen text_field=NAME names "
            f"another{_found(row)}"
        )
    value = row[field]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{where}: {field} must be text, found {type(value).__name__}")
    return str(value)


def _found(row: Mapping[str, Any]) -> str:
    names = ", ".join(str(name)[:40] for name in list(row)[:8])
    return f" (found {names})" if names else ""
