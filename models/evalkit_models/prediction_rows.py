"""From a row of a file of answers to its sample id and answer: which fields they are in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from evalkit.contracts import FinishReason, Response
from evalkit.errors import DataError, UsageError
from evalkit_models.numbered_rows import Evidence

#: Names of the id, compared without case, `_` and `-`, the first that a row has: those of LLaVA and TextVQA,
#: DocVQA (questionId), VLMEvalKit (index), MathVista (pid) and MME-RealWorld (Question_id).
ID_FIELDS = ("id", "question_id", "index", "sample_id", "pid", "qid", "data_id", "uid")
#: Names of the answer.
TEXT_FIELDS = (
    *("text", "answer", "prediction", "response", "output"),
    *("pred", "model_answer", "model_output", "generated_text", "raw_output"),
)
#: Names of reasoning beside the answer: those of servers, and VLMEvalKit's.
REASONING_FIELDS = ("reasoning", "reasoning_content", "thinking")
_FINISH: Mapping[Any, FinishReason] = {"stop": "stop", "length": "length"}


_FIELDS = {name.replace("_", "") for name in (*ID_FIELDS, *TEXT_FIELDS)}


class Answer(NamedTuple):
    """A row's answer.

    Attributes:
        id: None where the row has none. where: words for errors.
        row: its number in the split, where it may be all it knows of its sample.
        evidence: what such a row says of its sample.
        replaces: whether it takes the place of an earlier answer of the same id.
    """

    id: str | None
    response: Response
    where: str
    row: int | None = None
    evidence: Evidence | None = None
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class _Form:
    """A peer's form: rows that have the fields `marks` hold id and answer in these."""

    name: str
    marks: frozenset[str]
    id_field: str
    text_field: str


_FORMS = (
    _Form("evalkit's responses", frozenset({"request_key", "id", "text"}), "id", "text"),
    _Form("lmms-eval's samples", frozenset({"doc_id", "resps"}), "doc_id", "resps"),
    _Form("lmms-eval's samples", frozenset({"doc_id", "filtered_resps"}), "doc_id", "filtered_resps"),
    _Form("VLMEvalKit's table", frozenset({"index", "question", "prediction"}), "index", "prediction"),
    _Form("VLMEvalKit's table", frozenset({"index", "prediction"}), "index", "prediction"),
    _Form("MathVista's answers", frozenset({"pid", "response"}), "pid", "response"),
    _Form("LLaVA's answers", frozenset({"question_id", "text"}), "question_id", "text"),
)


class Recogniser:
    """Finds id and answer of rows, and remembers what it went by.

    Args:
        id_field, text_field: as the user names them; None: recognised.
    """

    def __init__(self, id_field: str | None = None, text_field: str | None = None) -> None:
        self._id_field, self._text_field = id_field, text_field
        self._seen: Counter[tuple[str, str, str]] = Counter()
        self._fields: dict[tuple[str, ...], tuple[_Form | None, str, str]] = {}

    def answer(self, row: Mapping[str, Any], where: str) -> Answer | None:
        """The row's answer; None where it has none (an empty field of JSON, a failed sample).

        Raises:
            DataError: a field is missing or holds no text. UsageError: two fields may be the answer.
        """
        columns = tuple(row)
        fields = self._fields.get(columns)
        if fields is None:
            fields = self._fields[columns] = self._recognise(row, where)
        form, id_field, text_field = fields
        self._seen[form.name if form else "", id_field, text_field] += 1
        value = _only(row[text_field], where, text_field) if "resps" in text_field else row[text_field]
        text, reasoning = _text(value, where, text_field), _reasoning(row)
        own = form is _FORMS[0]
        if text is None and reasoning:
            text = ""  # the budget was used up while thinking
        if text is None or (own and (row.get("error") or row.get("error_kind"))):
            return None
        finish = _FINISH.get(str(row.get("finish") or row.get("finish_reason")))
        response = Response(text=text, finish=finish, reasoning=reasoning)
        identifier = _text_of_id(row[id_field], where, id_field)
        if id_field == "doc_id" and identifier.isdecimal():
            return Answer(_nested_id(row), response, where, int(identifier), _evidence(row))
        return Answer(identifier, response, where, replaces=own)

    def _recognise(self, row: Mapping[str, Any], where: str) -> tuple[_Form | None, str, str]:
        named = self._id_field or self._text_field
        form = None if named else next((form for form in _FORMS if form.marks <= row.keys()), None)
        if form is not None:
            return form, form.id_field, form.text_field
        return None, _id_field(row, where, self._id_field), _text_field(row, where, self._text_field)

    def sentence(self, kind: str, count: int) -> str:
        """What the file was read as: `a table (VLMEvalKit's table): 12 answers, id from index, …`."""
        (form, id_field, text_field), _ = self._seen.most_common(1)[0]
        shown = f"{form}, {kind}" if form else kind
        return f"{shown}: {count} answers, ids from {id_field!r}, texts from {text_field!r}"


def _plain(name: object) -> str:
    plain = str(name).strip().lower().replace("_", "").replace(" ", "")
    return re.sub(r"(?<=\w)-(?=\w)", "", plain)  # a hyphen joins words; one at an end is damage


def is_field(name: object) -> bool:
    """Whether a name is one of those of an id or an answer."""
    return _plain(name).strip('"') in _FIELDS


def _names(row: Mapping[str, Any], known: tuple[str, ...]) -> list[str]:
    """The row's own spellings of the names known, in their order."""
    spelled = {_plain(name): str(name) for name in reversed(list(row))}
    return [name if name in row else spelled[_plain(name)] for name in known if _plain(name) in spelled]


def _id_field(row: Mapping[str, Any], where: str, field: str | None) -> str:
    found = [field] if field else _names(row, ID_FIELDS)
    if not found or found[0] not in row:
        wanted = repr(field) if field else "id (or question_id, index)"
        raise DataError(f"{where}: no field {wanted}; --gen id_field=NAME names another{_found(row)}")
    return found[0]


def _text_field(row: Mapping[str, Any], where: str, field: str | None) -> str:
    found = [field] if field else _names(row, TEXT_FIELDS)
    if len(found) > 1 and found[0] != "text":
        raise UsageError(
            f"{where}: both {found[0]} and {found[1]} may be the answer; --gen text_field=NAME says which"
        )
    name = found[0] if found else "text"
    if name not in row:
        raise DataError(
            f"{where}: no field {name!r} (or {', '.join(TEXT_FIELDS[1:5])}); --gen text_field=NAME names "
            f"another{_found(row)}"
        )
    return name


def _text_of_id(value: Any, where: str, name: str) -> str:
    if isinstance(value, float) and value.is_integer():  # tables with a missing id have their numbers so
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: {name} must be text or a number, found {type(value).__name__}")
    return str(value)


def _text(value: Any, where: str, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{where}: {name} must be text, found {type(value).__name__}")
    return str(value)


def _reasoning(row: Mapping[str, Any]) -> str:
    """What a row tells apart from its answer."""
    for name in REASONING_FIELDS:
        if name in row and isinstance(text := row[name], str) and text:
            return text
    return ""


def _only(value: Any, where: str, name: str) -> Any:
    """The one answer in lmms-eval's nested lists."""
    while isinstance(value, list):
        if len(value) != 1:
            raise DataError(f"{where}: {name} holds {len(value)} answers; one answer a sample is read")
        value = value[0]
    return value


def _nested_id(row: Mapping[str, Any]) -> str | None:
    """The sample's own id, where one of lmms-eval's metrics keeps it (`"anls": {"questionId": …}`)."""
    for value in row.values():
        if isinstance(value, Mapping) and (names := _names(value, ID_FIELDS)):
            identifier = value[names[0]]
            if isinstance(identifier, (str, int)) and not isinstance(identifier, bool):
                return str(identifier)
    return None


def _evidence(row: Mapping[str, Any]) -> Evidence:
    """What lmms-eval's row was asked: the prompt `input`, and the texts of `doc` that older versions keep."""
    doc = row.get("doc")
    values = [row.get("input"), *(doc.values() if isinstance(doc, Mapping) else ())]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    target = row.get("target")
    return Evidence(
        "\n".join(text for text in texts if isinstance(text, str)), None if target is None else str(target)
    )


def _found(row: Mapping[str, Any]) -> str:
    names = ", ".join(str(name)[:40] for name in list(row)[:8])
    return f" (found {names})" if names else ""
