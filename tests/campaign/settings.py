"""Hostile settings: policies (TOML), recipes of training and distillation (YAML), baselines (JSON)."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import tomllib
import yaml

from campaign.mutations import (
    Members,
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
from evalkit.comparison import baselines, policy
from evalkit.pipeline.judge_labels import read_labels

POLICY = """\
baseline = "released"
tasks = ["chartqa", "drivelm@val"]
output = "elsewhere"
alpha = 0.01
undecided = "fail"
allow = ["dtype"]
[max_drop]
default = 2.0
"chartqa.human" = 1.5
[margin]
default = 1.0
[run]
limit = 100
device = "cpu"
"""
RECIPE = """\
name: small
model: mini-internvl-tiny
output: out
trainable: lora
lora: {rank: 8, alpha: 24, dropout: 0.15}
data:
  meta: meta.json
  max_tiles: 2
  max_tokens: 400
optimizer:
  lr: 1e-3
  warmup_ratio: 0.2
  weight_decay: 0.07
packing: {max_tiles: 9, max_tokens: 500}
steps: {packs_per_step: 2, max_steps: 6}
checkpoints:
  every: 20
  keep: 4
precision: float32
drop_path: 0.2
seed: 7
"""
DISTILLATION = """\
name: small
teacher: InternViT-6B
student: mini-internvl-tiny
output: out
pictures: pictures
layers: 2
optimizer: {lr: 1e-3, weight_decay: 0.07}
batch: 3
steps: 7
max_pixels: 1000
checkpoints:
  every: 20
  keep: 4
precision: float32
seed: 7
"""
#: What may take the place of a value.
ODD = (
    *(
        "1e999",
        ".nan",
        "nan",
        "inf",
        "-1",
        "0",
        "true",
        "null",
        "~",
        '""',
        "[]",
        "{}",
        "9" * 5000,
        "2026-01-01",
    ),
    *("[" * 2000 + "]" * 2000, "&a [*a]", "!!python/object/apply:os.system ['true']", "0x10", "1_000", "x"),
    *("*missing", "<<: 1", "0.05.1", "'", "\ud7ff", "&a {b: *a}", "1e3", "-.inf", "0o17", "1:30"),
)


def other_text(text: str, rng: random.Random) -> bytes:
    """A settings file with a line dropped, doubled, renamed or with another value, or with other bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(text.encode(), rng)
    lines = text.splitlines()
    number = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[number]
    elif kind == 1:
        mark = ":" if ":" in lines[number] else "="
        lines.insert(number + 1, f"{lines[number].split(mark)[0]}{mark} {rng.choice(ODD)}")
    elif kind == 2:
        lines.insert(rng.randrange(len(lines)), lines[number])
    elif kind == 3:
        lines[number] = lines[number].replace(rng.choice("aeiou"), rng.choice(("", "e", "_")), 1)
    else:
        mark = ":" if ":" in lines[number] else "="
        lines[number] = f"{lines[number].split(mark)[0]}{mark} {rng.choice(ODD)}"
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


class _Settings(Trial):
    share = 1.5
    suffix = ""
    good = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / f"settings{self.suffix}"
        self.path.write_text(self.good)
        self.base = self.read()

    def read(self) -> Any:
        """All settings."""
        raise NotImplementedError

    def meaning(self, text: str) -> Any:
        """What the file says, by a reader that drops nothing; None where it says nothing certain."""
        raise NotImplementedError

    def once(self, rng: random.Random) -> Verdict:
        """Read a mutated file."""
        data = other_text(self.good, rng)
        self.path.write_bytes(data)
        said = ask(self.read)
        verdict = judge(said, self.base, touched=lambda: self._differs(data), file=self.path.name)
        if verdict.kind == "held" and said.value is not None and self._ambiguous(data):
            verdict = Verdict("silent", "a key occurs twice, and one value was taken without a word")
        return told(verdict, lambda: difference(self.good.encode(), data))

    def _differs(self, data: bytes) -> bool:
        try:
            return self.meaning(data.decode("utf-8-sig")) != self.meaning(self.good)
        except Exception:
            return True

    def _ambiguous(self, data: bytes) -> bool:
        return False


class Policies(_Settings):
    name = "settings: policy (TOML)"
    suffix = ".toml"
    good = POLICY

    def read(self) -> Any:
        return repr(policy.load(self.path))

    def meaning(self, text: str) -> Any:
        return tomllib.loads(text)


def nodes(text: str) -> Any:
    """A YAML document with mappings as lists of pairs."""

    def plain(node: Any, depth: int = 0) -> Any:
        if depth > 50:
            raise ValueError("deep")
        if isinstance(node, yaml.MappingNode):
            return Members((plain(key, depth + 1), plain(value, depth + 1)) for key, value in node.value)
        if isinstance(node, yaml.SequenceNode):
            return [plain(each, depth + 1) for each in node.value]
        return None if node is None else yaml.safe_load(node.value) if not node.style else node.value

    return plain(yaml.compose(text, yaml.SafeLoader))


def _twice(value: Any) -> bool:
    if isinstance(value, Members):
        names = [repr(name) for name, _ in value]
        return len(set(names)) < len(names) or any(_twice(each) for _, each in value)
    return isinstance(value, list) and any(map(_twice, value))


def _sorted(value: Any) -> Any:
    if isinstance(value, Members):
        return sorted((repr(name), repr(_sorted(each))) for name, each in value)
    return value


class Recipes(_Settings):
    name = "settings: recipe (YAML)"
    suffix = ".yaml"
    good = RECIPE

    def read(self) -> Any:
        from mini_internvl_train.recipe import read_recipe

        return repr(read_recipe(self.path))

    def meaning(self, text: str) -> Any:
        return repr(_sorted(nodes(text)))

    def _ambiguous(self, data: bytes) -> bool:
        try:
            return _twice(nodes(data.decode("utf-8-sig")))
        except Exception:
            return False


class Distillations(Recipes):
    name = "settings: distillation (YAML)"
    good = DISTILLATION

    def read(self) -> Any:
        from mini_internvl_train.distill import read_distillation

        return repr(read_distillation(self.path))


class Baselines(Trial):
    """The file of a baseline: a changed one is refused or names another run."""

    name = "settings: baseline (JSON)"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        run = folder / "run"
        run.mkdir()
        (run / "summary.json").write_text("{}")
        self.path = folder / "baselines" / "good.json"
        self.path.parent.mkdir()
        import hashlib

        digest = hashlib.sha256(b"{}").hexdigest()
        item = {"task": "chartqa", "split": "test", "run": "../run", "model": "m", "signature": "s"}
        content = {"name": "good", "created": "2026", "runs": [{**item, "summary_sha256": digest}]}
        self.good = json.dumps(content)
        self.path.write_text(self.good)
        self.base = self.read()

    def read(self) -> Any:
        """Everything the file says, with its runs checked."""
        found = baselines.load(self.folder, "good")
        return repr((found, found.paths()))

    def once(self, rng: random.Random) -> Verdict:
        """Read a mutated file."""
        text = write(mutate_json(parse(self.good), rng)[0]).encode("utf-8", "surrogatepass")
        data = text if rng.random() < 0.7 else mutate_bytes(self.good.encode(), rng)
        self.path.write_bytes(data)
        said = ask(self.read)
        verdict = judge(said, self.base, touched=lambda: self._read(data) != self._read(self.good.encode()),
                        file="good")  # fmt: skip
        return told(verdict, lambda: difference(self.good.encode(), data))

    def _read(self, data: bytes) -> Any:
        """The fields that are read."""
        try:
            found = parse(data)
            if _twice(found):
                return None
            named = dict(found)
            keys = ("task", "split", "run", "model", "signature", "summary_sha256")
            runs = [[dict(item).get(key) for key in keys] for item in named["runs"]]
            runs = [
                [os.path.normpath(each.replace("\\", "/")) if key == "run" else repr(each)
                 for key, each in zip(keys, values, strict=True)]
                for values in runs
            ]  # fmt: skip
            return repr(named["created"]), runs
        except Exception:
            return None


class Labels(Trial):
    """People's ratings of a judge's answers: CSV, TSV, JSON and JSON Lines."""

    name = "settings: judge labels"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.labels = {f"s{n}": float(5 * n) for n in range(8)}
        rows = [["id", "rating", "who"], *([name, f"{value:g}", "x"] for name, value in self.labels.items())]
        plain = [{"id": name, "rating": value} for name, value in self.labels.items()]
        self.files = {
            "l.csv": table_text(rows, ","),
            "l.tsv": table_text(rows, "\t"),
            "l.json": json.dumps(self.labels),
            "list.json": json.dumps(plain),
            "l.jsonl": "".join(json.dumps(row) + "\n" for row in plain),
        }
        for name in self.files:
            assert self.read(name, self.files[name].encode()) == self.labels

    def read(self, name: str, data: bytes) -> Any:
        """The ratings."""
        path = self.folder / name
        path.write_bytes(data)
        return read_labels(path)

    def once(self, rng: random.Random) -> Verdict:
        """Read one mutated file."""
        name = rng.choice(list(self.files))
        good = self.files[name]
        if name == "l.jsonl" or rng.random() < 0.2:
            data = mutate_bytes(good.encode(), rng)
        elif name.endswith("json"):
            data = write(mutate_json(parse(good), rng)[0]).encode("utf-8", "surrogatepass")
        else:
            mark = "\t" if name == "l.tsv" else ","
            data = table_text(mutate_rows(rows_of(good, mark), rng), mark).encode("utf-8", "surrogatepass")
        expected = self._expected(name, data)
        said = ask(lambda: self.read(name, data))
        verdict = judge(
            said, self.labels, touched=lambda: expected is not self.labels, expected=expected, file=name
        )
        return told(verdict, lambda: difference(good.encode(), data))

    def _expected(self, name: str, data: bytes) -> Any:
        """The ratings by another reading; `refused` for what is not plain."""
        try:
            text = data.decode("utf-8-sig")
            if not name.endswith(("csv", "tsv")):
                return self._expected_json(name, text)
            rows = [row for row in rows_of(text, "\t" if name == "l.tsv" else ",") if row]
            header = [name.strip() for name in rows[0]]
            if any(len(row) != len(header) for row in rows) or len(set(header)) < len(header):
                return "refused"
            found = {row[header.index("id")]: float(row[header.index("rating")]) for row in rows[1:]}
        except Exception:
            return UNKNOWN
        return self.labels if found == self.labels else found

    def _expected_json(self, name: str, text: str) -> Any:
        """As `_expected`, of JSON."""
        parsed = (
            [parse(line) for line in text.split("\n") if line.strip()] if name == "l.jsonl" else parse(text)
        )
        if _twice(parsed):
            return "refused"
        rows = (
            list(parsed)
            if isinstance(parsed, Members)
            else [(dict(r)["id"], dict(r)["rating"]) for r in parsed]
        )
        found = [(row[0], float(row[1])) for row in rows if type(row[0]) is str and isinstance(row[1], str)]
        if len(found) < len(rows) or len(set(found)) > len(dict(found)):
            return UNKNOWN
        return self.labels if dict(found) == self.labels else dict(found)


TRIALS = (Policies, Recipes, Distillations, Baselines, Labels)
