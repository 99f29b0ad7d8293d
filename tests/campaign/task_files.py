"""Hostile benchmark files: JSON, JSON Lines, TSV, Parquet and XML of every task.

A mutation may touch a field that no task reads. That is proved, not assumed: the same field with another odd
value and without any must give the same samples, or the field is read.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toy
from scored_answers import score_texts

from campaign.mutations import (
    Members,
    changed_at,
    difference,
    mutate_bytes,
    mutate_json,
    mutate_rows,
    parse,
    rows_of,
    table_text,
    value_at,
    write,
)
from campaign.mutations import Path as Place
from campaign.trial import Said, Trial, Verdict, ask, judge, told
from evalkit import registry
from evalkit.contracts import Sample
from evalkit.data.images import TableImage
from evalkit.data.locate import miniature
from evalkit.near_miss import is_wrong
from evalkit.pipeline.job import Job, make_job
from evalkit.pipeline.options import RunOptions
from evalkit_tasks.general.rows import ListedImage

#: A text that stands in no file.
PROBE = "\u2205probe\u2205"
#: Rows and items that are kept of each file.
KEPT = 12


@dataclass
class File:
    """One file of a task under a data root of its own.

    Attributes:
        good: its undisturbed content. base: the job read with it. possible: ids of samples that their own
            target answers rightly. written: its last time in nanoseconds, of our own counting.
    """

    task: str
    split: str
    root: Path
    path: Path
    good: bytes
    base: Any = None
    possible: frozenset[str] = frozenset()
    written: int = 1_600_000_000_000_000_000

    def read(self) -> Job:
        """Everything a run would ask, or a refusal."""
        options = RunOptions("none", data_root=self.root, split=self.split, offline=True)
        return make_job(self.task, options)

    def with_content(self, data: bytes) -> Said:
        """What is read where the file has another content; it is put back."""
        self.path.write_bytes(data)
        self.written += 1_000_000_000  # caches know a file by its time, which two quick writes may share
        os.utime(self.path, ns=(self.written, self.written))
        try:
            said = ask(self.read)
            if said.value is not None:
                said.value = (said.value, content(said.value))
        finally:
            self.path.write_bytes(self.good)
        return said


def content(job: Job) -> Any:
    """All that is asked and scored, places in files left out."""
    return (
        job.data,
        [[_image(image) for image in sample.images] for sample in job.every],
        [sample.cluster for sample in job.every],
    )


def _image(image: Any) -> str:
    in_table = isinstance(image, (TableImage, ListedImage))  # identified by its place, which may move
    return image.digest() if in_table else str(image.identity())


def rightly_answered(task: str, samples: list[Sample]) -> frozenset[str]:
    """Ids of samples that score in full where the answer is the target itself."""
    made = registry.task(task, None)
    texts = {sample.id: sample.target for sample in samples if isinstance(sample.target, str)}
    asked = [sample for sample in samples if sample.id in texts]
    records = score_texts(made, asked, texts) if asked else []
    return frozenset(r.id for r in records if not is_wrong(r.scores, made.exact_scores))


class _Files(Trial):
    """Files of one format, of every task that has it."""

    share = 3.0
    suffix = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = list(self.prepare())
        for file in self.files:
            job = file.read()
            file.base = content(job)
            file.possible = rightly_answered(file.task, list(job.every))

    def prepare(self) -> Iterator[File]:
        """The undisturbed files."""
        for name in sorted(registry.tasks()):
            drawn = miniature(registry.task(name, None))
            wanted = [path for path in sorted(drawn.rglob(f"*{self.suffix}")) if path.is_file()]
            if not wanted or any(path.suffix == ".xml" for path in drawn.rglob("*.xml")):
                continue
            split = "sample" if name == "drivelm" else registry.task(name, None).splits[0]
            for path in wanted:
                root = self.folder / f"{name}-{path.stem}"
                copy_tree(drawn, root)
                for other in wanted:
                    place = root / other.relative_to(drawn)
                    place.unlink()
                    place.write_bytes(self.shortened(other.read_bytes(), name))
                target = root / path.relative_to(drawn)
                good = target.read_bytes()
                yield File(name, split, root, target, good)

    def shortened(self, data: bytes, task: str) -> bytes:
        """Fewer rows, so that a try is quick."""
        return data

    def mutated(self, file: File, rng: random.Random) -> bytes:
        """The file with one mutation."""
        raise NotImplementedError

    def reads(self, file: File, data: bytes) -> bool:
        """Whether something that differs is read at all."""
        raise NotImplementedError

    def once(self, rng: random.Random) -> Verdict:
        """Read a task with one mutated file."""
        file = rng.choice(self.files)
        data = self.mutated(file, rng)
        said = file.with_content(data)
        job, said.value = said.value or (None, None)
        verdict = judge(said, file.base, touched=lambda: self.reads(file, data))
        if verdict.kind == "held" and job is not None and not said.warnings:
            asked = ask(lambda: self._answerable(file, job))
            verdict = asked.value or Verdict("raw", str(asked.raw or asked.refusal))
        return told(verdict, lambda: f"{file.task} {file.path.name}: {difference(file.good, data)}")

    def _noticed(self, file: File, data: bytes) -> bool:
        """Whether this content of the file makes any difference."""
        said = file.with_content(data)
        return said.spoke or said.raw is not None or said.value is None or said.value[1] != file.base

    def _answerable(self, file: File, job: Job) -> Verdict:
        """A sample whose own key does not answer it, where the undisturbed one's did, is said to be so."""
        if file.task == "mmbench":  # rotations of one question are scored together
            return Verdict()
        asked = [
            sample for sample in job.every if isinstance(sample.target, str) and sample.id in file.possible
        ]
        wrong = {sample.id for sample in asked} - rightly_answered(file.task, asked)
        if not wrong or job.impossible:
            return Verdict()
        first = next(sample for sample in asked if sample.id in wrong)
        return Verdict("silent", f"no answer matches the key {str(first.target)[:60]!r} of {first.id}")


def copy_tree(source: Path, target: Path) -> None:
    """The same tree with links to the files."""
    for path in source.rglob("*"):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)


class Json(_Files):
    name = "task files: JSON"
    suffix = ".json"
    share = 4.0

    def shortened(self, data: bytes, task: str) -> bytes:
        found = json.loads(data)
        if task.startswith("rsvqa"):  # three files that name each other
            rows = {"questions": "id", "answers": "question_id"}
            for key, name in rows.items():
                if key in found:
                    found[key] = [row for row in found[key] if row.get(name, row["id"]) < 2 * KEPT]
            return json.dumps(found).encode()
        if isinstance(found, list):
            found = found[:KEPT]
        elif task == "mathvista":
            found = dict(list(found.items())[:KEPT])
        elif task in ("docvqa", "infovqa", "textvqa"):
            found["data"] = found["data"][:KEPT]
        return json.dumps(found).encode()

    def mutated(self, file: File, rng: random.Random) -> bytes:
        if rng.random() < 0.2:
            return mutate_bytes(file.good, rng)
        return write(mutate_json(self.parsed(file.good), rng)[0]).encode("utf-8", "surrogatepass")

    def parsed(self, data: bytes) -> Any:
        """The structure without loss."""
        return parse(data.decode("utf-8-sig"))

    def written(self, value: Any) -> bytes:
        """The inverse."""
        return write(value).encode("utf-8", "surrogatepass")

    def reads(self, file: File, data: bytes) -> bool:
        if not self._noticed(file, PROBE.encode()):
            return False  # the file is not read at all
        try:
            good, other = self.parsed(file.good), self.parsed(data)
        except (ValueError, RecursionError):
            return True
        return any(self._counts(file, value) for value in _probes(good, other, file.task))

    def _counts(self, file: File, value: Any) -> bool:
        return self._noticed(file, self.written(value))


def _probes(good: Any, other: Any, task: str) -> Iterator[Any]:
    """Variants of `good` with another value where the two differ."""
    for path in _differing(good, other):
        one, two = value_at(good, path), _value_in(other, path)
        if task == "bdd-x" and isinstance(one, str) and _numbers(one) == _numbers(two) != []:
            continue  # a signal's reference answer may put any words around its number
        if task == "drivelm" and "/samples/" in str(one) and str(two).endswith(str(one).rpartition("/")[2]):
            continue  # of a camera's path the file name is read
        if two == [one]:
            continue  # one answer, or a list of one
        yield changed_at(good, path, lambda value: PROBE)
        yield changed_at(good, path, lambda value: Members() if isinstance(value, Members) else [])


def _differing(good: Any, other: Any, path: Place = ()) -> Iterator[Place]:
    """Places in `good` whose value the other has changed.

    A member that only one of them has is none: where all that is asked and scored is the same without it or
    with it, it decides nothing.
    """
    if isinstance(good, Members) and isinstance(other, Members):
        there = dict(other)
        if len(there) == len(other):
            for number, (name, value) in enumerate(good):
                if name in there:
                    yield from _differing(value, there[name], (*path, number))
            return
    elif isinstance(good, list) and isinstance(other, list) and len(good) == len(other):
        if not isinstance(good, Members) and not isinstance(other, Members):
            for number, (one, two) in enumerate(zip(good, other, strict=True)):
                yield from _differing(one, two, (*path, number))
            return
    elif type(good) is type(other) and good == other:
        return
    yield path


def _value_in(value: Any, path: Place) -> Any:
    """The value at a path, or None where the other structure has no such place."""
    try:
        return value_at(value, path)
    except (LookupError, TypeError):
        return None


def _numbers(text: Any) -> list[float]:
    """The numbers in a text."""
    return [float(found) for found in re.findall(r"-?\d+\.?\d*", str(text)[:200])]


class JsonLines(Json):
    """Files of one object a line."""

    name = "task files: JSON Lines"
    share = 2.0

    def prepare(self) -> Iterator[File]:
        drawn = miniature(registry.task("bdd-x", None))
        root = self.folder / "bdd-x"
        copy_tree(drawn, root)
        rows = json.loads((drawn / "test.json").read_bytes())[:KEPT]
        (root / "test.json").unlink()
        good = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (root / "test.jsonl").write_bytes(good)
        yield File("bdd-x", "test", root, root / "test.jsonl", good)

    def parsed(self, data: bytes) -> Any:
        return [parse(line) for line in data.decode("utf-8-sig").split("\n") if line.strip()]

    def written(self, value: Any) -> bytes:
        return "".join(write(row) + "\n" for row in value).encode("utf-8", "surrogatepass")

    def mutated(self, file: File, rng: random.Random) -> bytes:
        if rng.random() < 0.2:
            return mutate_bytes(file.good, rng)
        rows = mutate_json(self.parsed(file.good), rng)[0]
        return self.written(rows if isinstance(rows, list) and not isinstance(rows, Members) else [rows])


class Tsv(_Files):
    name = "task files: TSV"
    suffix = ".tsv"
    delimiter = "\t"

    def shortened(self, data: bytes, task: str) -> bytes:
        rows = rows_of(data.decode(), self.delimiter)
        return table_text(rows[: 1 + KEPT], self.delimiter).encode()

    def mutated(self, file: File, rng: random.Random) -> bytes:
        if rng.random() < 0.2:
            return mutate_bytes(file.good, rng)
        rows = mutate_rows(rows_of(file.good.decode(), self.delimiter), rng)
        return table_text(rows, self.delimiter).encode("utf-8", "surrogatepass")

    def reads(self, file: File, data: bytes) -> bool:
        good = rows_of(file.good.decode(), self.delimiter)
        try:
            other = rows_of(data.decode("utf-8-sig"), self.delimiter)
        except Exception:
            return True
        other = [row for row in other if row]
        if len(other) != len(good) or any(len(row) != len(other[0]) for row in other):
            return True
        header, others = [n.strip() for n in good[0]], [n.strip() for n in other[0]]
        if len(set(others)) < len(others):
            return True
        changed = [
            place
            for place, name in enumerate(header)
            if name in others
            and [_cell(name, row[place]) for row in good[1:]]
            != [_cell(name, row[others.index(name)]) for row in other[1:]]
        ]
        probes = [
            [[PROBE if at == place and number else cell for at, cell in enumerate(row)]
             for number, row in enumerate(good)]
            for place in changed
        ]  # fmt: skip
        return any(self._noticed(file, table_text(probe, self.delimiter).encode()) for probe in probes)


class Csv(Tsv):
    """The example of a CSV table in docs/task-examples.md."""

    name = "task files: CSV"
    share = 2.0
    delimiter = ","

    def prepare(self) -> Iterator[File]:
        page = toy.PAGE.with_name("task-examples.md").read_text(encoding="utf-8")
        code = next(
            code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Signs(" in code
        )
        task, root = self.folder / "signs.py", self.folder / "signs"
        task.write_text(code)
        registry.include(task)
        root.mkdir()
        header = ["id", "image", "question", "A", "B", "C", "D", "answer", "note"]
        rows = [
            [
                f"s{n}",
                f"{n // 2}.png",
                f"Which, {n}?\nSay it.",
                "stop",
                "yield, please",
                "",
                f"no {n}",
                "ABD"[n % 3],
                "n",
            ]
            for n in range(KEPT)
        ]
        path = root / "test.csv"
        path.write_text(table_text([header, *rows], ","))
        yield File("signs", "test", root, path, path.read_bytes())


def _cell(name: str, text: str) -> Any:
    """What a cell says; in base64, characters of no meaning may stand anywhere."""
    if name == "image" and len(text) > 64:
        with contextlib.suppress(ValueError):
            return base64.b64decode(text)
    return text


class Xml(_Files):
    """DIOR-RSVG's annotations and its index files."""

    name = "task files: XML and index"
    share = 1.5

    def prepare(self) -> Iterator[File]:
        drawn = miniature(registry.task("dior-rsvg", None))
        root = self.folder / "dior-rsvg"
        copy_tree(drawn, root)
        for path in [
            *sorted((root / "Annotations").glob("*.xml"))[:6],
            root / "test.txt",
            root / "train.txt",
        ]:
            good = path.read_bytes()
            path.unlink()
            path.write_bytes(good)
            yield File("dior-rsvg", "test", root, path, good)

    def mutated(self, file: File, rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return mutate_bytes(file.good, rng)
        lines = file.good.split(b"\n")
        number = rng.randrange(len(lines))
        odd = (b"", b"<xmin>x</xmin>", b"<ymax>1e999</ymax>", b"<object></object>", b"-1", b"nan", b"1.5",
               b"999999", b'<!DOCTYPE a [<!ENTITY b "c">]>', b"<xmax>nan</xmax>", lines[number])  # fmt: skip
        if rng.random() < 0.3:
            del lines[number]
        else:
            lines[number : number + rng.randrange(2)] = [rng.choice(odd)]
        return b"\n".join(lines)

    def reads(self, file: File, data: bytes) -> bool:
        return self._say(file, file.good) != self._say(file, data)

    def _say(self, file: File, data: bytes) -> Any:
        """What is read of the file, by the standard library; None where it says nothing certain."""
        import xml.etree.ElementTree as tree

        with contextlib.suppress(Exception):
            if file.path.suffix == ".txt":
                numbers = [int(line) for line in data.decode().split()]
                return sorted(numbers) if file.path.name == "test.txt" else None
            root = tree.fromstring(data)
            names = ("xmin", "ymin", "xmax", "ymax")
            objects = [
                (each.findtext("description"), [each.findtext(f"bndbox/{name}") for name in names])
                for each in root.findall("object")
            ]
            return root.findtext("filename"), objects
        return object()


class Parquet(_Files):
    """A table as the Hub publishes it, damaged: the format's pages have no checksums, so texts may change."""

    name = "task files: Parquet"
    share = 1.0

    def prepare(self) -> Iterator[File]:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        drawn = miniature(registry.task("ai2d", None))
        rows = rows_of((drawn / "AI2D_TEST.tsv").read_text(), "\t")[: 1 + KEPT]
        table = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
        images = {row["index"]: row["image"] for row in table}  # a short cell names another row
        images |= {row["image"]: row["image"] for row in table if len(row["image"]) > 64}
        columns = {
            "question": [row["question"] for row in table],
            "options": [[row[letter] for letter in "ABCD" if row.get(letter)] for row in table],
            "answer": [str("ABCD".index(row["answer"])) for row in table],
            "image": [{"bytes": base64.b64decode(images[row["image"]]), "path": None} for row in table],
        }
        file = io.BytesIO()
        parquet.write_table(pa.table(columns), file)
        root = self.folder / "ai2d"
        root.mkdir()
        path = root / "test-00000-of-00001.parquet"
        path.write_bytes(file.getvalue())
        yield File("ai2d", "test", root, path, file.getvalue())

    def mutated(self, file: File, rng: random.Random) -> bytes:
        return mutate_bytes(file.good, rng)

    def reads(self, file: File, data: bytes) -> bool:
        return self._say(data) != self._say(file.good)

    def _say(self, data: bytes) -> Any:
        import pandas as pd

        try:
            return repr(pd.read_parquet(io.BytesIO(data)).to_dict("list"))
        except Exception:
            return object()


TRIALS: tuple[Callable[[Path], Trial], ...] = (Json, JsonLines, Tsv, Csv, Xml, Parquet)
