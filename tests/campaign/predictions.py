"""Hostile files of stored answers, in every form that is read."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from campaign.mutations import (
    Members,
    Token,
    difference,
    mutate_bytes,
    mutate_json,
    mutate_rows,
    parse,
    rows_of,
    table_text,
    write,
)
from campaign.trial import UNKNOWN, Trial, Verdict, ask, judge, told
from evalkit.contracts import Request
from evalkit_models.predictions import Predictions

ANSWERS = {f"s{number}": text for number, text in enumerate(
    ("yes", "No.", "42", "a bus", "", "<think>hm</think> 7", "0.5%", "B", "caf\u00e9", "two\nlines")
)}  # fmt: skip


def read(path: Path) -> dict[str, str | None]:
    """What evalkit takes the answers to be, by sample id, None for an error."""
    model = Predictions(path)
    unknown = model.bind_samples(ANSWERS)
    asked = [Request(name, (), ()) for name in ANSWERS]
    found: dict[str, Any] = {name: response.text if response.error is None else None
                             for name, response in model.generate(asked)}  # fmt: skip
    if unknown.get("unknown"):
        found["unknown"] = unknown["unknown"]
    return found


class _Predictions(Trial):
    """A file, a mutation of it, and an independent reading of what it says."""

    suffix = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.good = self.write()
        self.path = folder / f"answers{self.suffix}"
        self.path.write_bytes(self.good)
        self.base = read(self.path)
        assert self.base == dict(ANSWERS)

    def write(self) -> bytes:
        """The undisturbed file."""
        raise NotImplementedError

    def mutated(self, rng: random.Random) -> bytes:
        """The file with one mutation."""
        return mutate_bytes(self.good, rng)

    def meaning(self, data: bytes) -> Any:
        """All that the file says, read without evalkit; None where it says nothing certain."""
        return None

    def expected(self, data: bytes) -> Any:
        """The answers by an independent reading, `UNKNOWN` where two readings are possible."""
        return UNKNOWN

    def once(self, rng: random.Random) -> Verdict:
        """Read a mutated file."""
        data = self.mutated(rng)
        self.path.write_bytes(data)
        said = ask(lambda: read(self.path))
        verdict = judge(
            said,
            self.base,
            touched=lambda: self.meaning(data) is None or self.meaning(data) != self.meaning(self.good),
            expected=self.expected(data) if said.value is not None else UNKNOWN,
            file=self.path.name,
        )
        return told(verdict, lambda: difference(self.good, data))


def _answer_of(row: Any) -> tuple[str, str] | None:
    """Id and text of a JSON row that has exactly these two in their plain form; else None."""
    if not isinstance(row, Members) or sorted(name for name, _ in row) != ["id", "text"]:
        return None
    named = dict(row)
    if not all(isinstance(value, str) and not isinstance(value, Token) for value in named.values()):
        return None
    return named["id"], named["text"]


def _answers_of(rows: list[Any]) -> Any:
    """What a list of rows says, where all of them are plain and no id has two texts."""
    found: dict[str, str] = {}
    unknown = set()
    for row in rows:
        pair = _answer_of(row)
        if pair is None or found.get(pair[0], pair[1]) != pair[1]:
            return UNKNOWN
        found[pair[0]] = pair[1]
    unknown = {name for name in found if name not in ANSWERS}
    told = {"unknown": len(unknown)} if unknown else {}
    return {**{name: found.get(name) for name in ANSWERS}, **told}


class _Json(_Predictions):
    share = 2.0
    suffix = ".json"

    def content(self) -> Any:
        """What the file holds."""
        raise NotImplementedError

    def write(self) -> bytes:
        return json.dumps(self.content()).encode()

    def mutated(self, rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return mutate_bytes(self.good, rng)
        return write(mutate_json(parse(self.good), rng)[0]).encode("utf-8", "surrogatepass")

    def meaning(self, data: bytes) -> Any:
        try:
            return _rows_say(parse(data))
        except (ValueError, RecursionError):
            return None


IDS = ("id", "questionid", "index", "sampleid", "pid", "qid", "dataid", "uid")
TEXTS = ("text", "answer", "prediction", "response", "output", "pred", "modelanswer", "modeloutput",
         "generatedtext", "rawoutput")  # fmt: skip


def _fields(row: Any) -> Any:
    """Id and text of a JSON row under any of their documented names; the whole row where it is not clear."""
    if not isinstance(row, Members) or len({name for name, _ in row}) != len(row):
        return repr(row)
    named = [(name.strip().lower().replace("_", "").replace("-", "").replace(" ", ""), v) for name, v in row]
    found = [[value for each in known for name, value in named if name == each] for known in (IDS, TEXTS)]
    if not found[0] or not found[1] or (len(found[1]) > 1 and "text" not in dict(named)):
        return repr(row)
    return repr([repr(values[0]) for values in found])


def _rows_say(rows: Any) -> Any:
    """Rows in which order does not count, nor a row that stands there twice."""
    if not isinstance(rows, list) or isinstance(rows, Members):
        return None
    return sorted({_fields(row) for row in rows})


class JsonList(_Json):
    name = "predictions: JSON list"

    def content(self) -> Any:
        return [{"id": name, "text": text} for name, text in ANSWERS.items()]

    def expected(self, data: bytes) -> Any:
        try:
            found = parse(data.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return UNKNOWN
        return _answers_of(found) if isinstance(found, list) and not isinstance(found, Members) else UNKNOWN


class JsonDocument(_Json):
    name = "predictions: JSON document"

    def content(self) -> Any:
        rows = [{"id": name, "text": text} for name, text in ANSWERS.items()]
        return {"method": "a model", "results": rows}

    def meaning(self, data: bytes) -> Any:
        try:
            found = parse(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, Members) or len({name for name, _ in found}) != len(found):
            return None
        named = dict(found)
        if set(named) & {"predictions", "answers", "samples", "data", "annotations", "questions", "id"}:
            return None
        return _rows_say(named.get("results"))


class JsonMapping(_Json):
    name = "predictions: JSON mapping"

    def content(self) -> Any:
        return dict(ANSWERS)

    def write(self) -> bytes:
        return json.dumps(self.content(), indent=1).encode()

    def mutated(self, rng: random.Random) -> bytes:
        """On several lines: one object on one line is a row."""
        data = super().mutated(rng)
        return data.replace(b"{", b"{\n", 1).replace(b'", "', b'",\n"')

    def meaning(self, data: bytes) -> Any:
        try:
            found = parse(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, Members) or len({name for name, _ in found}) != len(found):
            return None
        return sorted((name, repr(value)) for name, value in found)


class JsonLines(_Predictions):
    name = "predictions: JSON Lines"
    share = 3.0
    suffix = ".jsonl"

    def write(self) -> bytes:
        return "".join(json.dumps({"id": n, "text": t}) + "\n" for n, t in ANSWERS.items()).encode()

    def mutated(self, rng: random.Random) -> bytes:
        lines = self.good.splitlines()
        number = rng.randrange(len(lines))
        kind = rng.randrange(6)
        if kind == 0:
            return mutate_bytes(self.good, rng)
        if kind == 1:
            del lines[number]
        elif kind == 2:
            lines.insert(
                number, rng.choice((lines[number], b"", b"[]", b"null", b'{"id": "s1", "text": "other"}'))
            )
        else:
            lines[number] = write(mutate_json(parse(lines[number]), rng)[0]).encode("utf-8", "surrogatepass")
        ends = rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n"))
        return ends.join(lines) + rng.choice((ends, b""))

    def _rows(self, data: bytes) -> list[Any]:
        text = data.decode("utf-8-sig")
        return [parse(line) for line in text.split("\n") if line.strip()]

    def meaning(self, data: bytes) -> Any:
        try:
            return _rows_say(self._rows(data))
        except (ValueError, RecursionError):
            return None

    def expected(self, data: bytes) -> Any:
        try:
            return _answers_of(self._rows(data))
        except (ValueError, RecursionError):
            return UNKNOWN


class RunResponses(_Predictions):
    """Responses of a run folder taken as predictions; a torn last line has its own rule there."""

    name = "predictions: run folder"

    def __init__(self, folder: Path) -> None:
        Trial.__init__(self, folder)
        self.good = "".join(
            json.dumps({"id": n, "request_key": "k", "text": t, "finish": "stop", "error": None}) + "\n"
            for n, t in ANSWERS.items()
        ).encode()
        self.path = folder / "responses-0.jsonl"
        self.path.write_bytes(self.good)
        self.base = read(self.folder)
        assert self.base == dict(ANSWERS)

    def once(self, rng: random.Random) -> Verdict:
        lines = self.good.splitlines()
        number = rng.randrange(len(lines))
        lines[number] = (
            mutate_bytes(lines[number], rng)
            if rng.random() < 0.5
            else write(mutate_json(parse(lines[number]), rng)[0]).encode("utf-8", "surrogatepass")
        )
        data = b"\n".join(lines) + b"\n"
        self.path.write_bytes(data)
        said = ask(lambda: read(self.folder))
        touched = self._read_fields(data) != self._read_fields(self.good)
        return told(judge(said, self.base, touched=lambda: touched), lambda: difference(self.good, data))

    def _read_fields(self, data: bytes) -> Any:
        """Ids, texts and errors of the lines; None where one is no JSON."""
        try:
            rows = [parse(line) for line in data.decode("utf-8-sig").split("\n") if line.strip()]
        except (ValueError, RecursionError):
            return None
        return _rows_say(rows)


class _Table(_Predictions):
    share = 2.0
    delimiter = ","

    def write(self) -> bytes:
        rows = [["id", "text", "note"], *([name, text, "n"] for name, text in ANSWERS.items())]
        return table_text(rows, self.delimiter).encode()

    def mutated(self, rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return mutate_bytes(self.good, rng)
        return table_text(
            mutate_rows(rows_of(self.good.decode(), self.delimiter), rng), self.delimiter
        ).encode()

    def meaning(self, data: bytes) -> Any:
        """Cells of the columns that are read, in any order of rows; None for a ragged table."""
        try:
            rows = [row for row in rows_of(data.decode("utf-8-sig"), self.delimiter) if row]
        except Exception:
            return None
        if not rows or any(len(row) != len(rows[0]) for row in rows):
            return None
        header = [name.strip().lower() for name in rows[0]]
        if header.count("id") != 1 or header.count("text") != 1 or header.count("note") > 1:
            return None
        places = header.index("id"), header.index("text")
        return sorted({tuple(row[place] for place in places) for row in rows[1:]})

    def expected(self, data: bytes) -> Any:
        found = self.meaning(data)
        if found is None or len({name for name, _ in found}) != len(found):
            return UNKNOWN
        named = dict(found)
        unknown = [name for name in named if name not in ANSWERS]
        told: Mapping[str, Any] = {"unknown": len(unknown)} if unknown else {}
        return {**{name: named.get(name) for name in ANSWERS}, **told}


class Csv(_Table):
    name = "predictions: CSV"
    suffix = ".csv"


class Tsv(_Table):
    name = "predictions: TSV"
    suffix = ".tsv"
    delimiter = "\t"


class Excel(_Predictions):
    """Mutated bytes of the archive and of the sheet inside it."""

    name = "predictions: Excel"
    suffix = ".xlsx"

    def write(self) -> bytes:
        from openpyxl import Workbook

        book = Workbook()
        sheet = book.active
        assert sheet is not None
        for row in (("id", "text"), *ANSWERS.items()):
            sheet.append([f"{cell}" for cell in row])
        file = io.BytesIO()
        book.save(file)
        return file.getvalue()

    def mutated(self, rng: random.Random) -> bytes:
        import zipfile

        if rng.random() < 0.3:
            return mutate_bytes(self.good, rng)
        source, target = zipfile.ZipFile(io.BytesIO(self.good)), io.BytesIO()
        names = source.namelist()
        chosen = rng.choice(
            [name for name in names if "sheet1" in name or "Strings" in name or "workbook" in name]
        )
        with zipfile.ZipFile(target, "w") as file:
            for name in names:
                content = source.read(name)
                file.writestr(name, mutate_bytes(content, rng) if name == chosen else content)
        return target.getvalue()

    def meaning(self, data: bytes) -> Any:
        """Texts and places of the cells, by the standard library; None where it is broken."""
        import xml.etree.ElementTree as tree
        import zipfile

        try:
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                sheet = tree.fromstring(file.read("xl/worksheets/sheet1.xml"))
            rows = [row for row in sheet.iter() if row.tag.endswith("}row")]
            return [_cells(row) for row in rows]
        except Exception:
            return None


def _cells(row: Any) -> dict[int, str]:
    """Texts by column; a cell that does not say where it stands follows the one before."""
    found, column = dict[int, str](), 0
    for cell in row:
        letters = "".join(filter(str.isalpha, cell.get("r", "")))
        column = int(letters, 36) if letters else column + 1 if found else int("A", 36)
        found[column] = "".join(cell.itertext())
    return found


class Parquet(_Predictions):
    """Mutated bytes; the format has no checksum of its pages, so another text is all that can be asked."""

    name = "predictions: Parquet"
    suffix = ".parquet"

    def write(self) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        file = io.BytesIO()
        table = pa.table({"id": list(ANSWERS), "text": list(ANSWERS.values()), "note": [""] * len(ANSWERS)})
        parquet.write_table(table, file)
        return file.getvalue()

    def meaning(self, data: bytes) -> Any:
        """The two columns that are read, by pandas; None where it cannot."""
        import pandas as pd

        try:
            frame = pd.read_parquet(io.BytesIO(data))
            frame.columns = frame.columns.str.strip().str.lower()
            return frame[["id", "text"]].to_dict("list")
        except Exception:
            return None


TRIALS: tuple[Callable[[Path], Trial], ...] = (
    *(JsonLines, JsonList, JsonDocument, JsonMapping, Csv, Tsv, RunResponses, Excel, Parquet),
)
