"""A run's result as a user of the Python interface sees it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.contracts import MetricValue, Record
from evalkit.errors import RunFolderError
from evalkit.pipeline.summary import metric_from_json
from evalkit.score_html import score_table
from evalkit.store import StoredRun
from evalkit.store import load_run as load_stored
from evalkit.text import command

#: Shown for a run whose fingerprint is the hash of the weights alone.
OLDER_IDENTITY = "identity of an older form: it covers the weights, not tokenizer, settings and template"

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset


class RunResult:
    """Values of one run folder.

    Attributes:
        stored: the folder's reader.
        summary: one element of `runs` in the `--json` document.
    """

    def __init__(self, stored: StoredRun, summary: Mapping[str, Any] | None = None) -> None:
        self.stored = stored
        self.summary: dict[str, Any] = dict(summary) if summary is not None else describe(stored)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.stored.path

    @property
    def manifest(self) -> dict[str, Any]:
        """What was asked, with every version, hash and setting."""
        return self.stored.manifest

    @property
    def status(self) -> str:
        """`running`, `complete`, `excerpt` (a part), `partial` (limited, interrupted), `failed`."""
        return str(self.summary["status"])

    @property
    def counts(self) -> dict[str, int]:
        """Samples expected, answered, failed, unparsed, truncated."""
        return dict(self.summary["counts"])

    @property
    def metrics(self) -> dict[str, MetricValue]:
        """Values by metric name, headline first."""
        return {name: metric_from_json(content) for name, content in self.summary["metrics"].items()}

    @property
    def signature(self) -> str:
        """What the values measure, in one line."""
        return str(self.summary["signature"])

    def records(self) -> pd.DataFrame:
        """One row a sample: id, text, prediction, target, a column a score and a tag (`tag:NAME`), flags.

        Of a run with repeats also all `answers`; the scores are then means.

        Raises:
            RunFolderError: the run was not scored yet, or the table is broken.
        """
        import pandas as pd

        return pd.DataFrame([_row(record) for record in self.stored.records()])

    def to_dataset(self) -> Dataset:
        """The columns of `records` as a `datasets.Dataset`, to filter, map, save or push to the Hub.

        A column has one type, so a prediction or target that is neither text nor None is written as JSON.

        Raises:
            RunFolderError: the run was not scored yet, or the table is broken.
        """
        from datasets import Dataset, Features, List, Value

        rows, scores, tags, repeated = [], dict[str, None](), dict[str, None](), False
        for record in self.stored.records():
            rows.append(_row(record))
            repeated = repeated or bool(record.repeats)
            scores |= dict.fromkeys(record.scores)
            tags |= dict.fromkeys(f"tag:{name}" for name in record.tags)
        types: dict[str, Any] = dict.fromkeys(
            ("id", "cluster", "text", "prediction", "target"), Value("string")
        )
        types |= dict.fromkeys(scores, Value("float64"))
        types |= dict.fromkeys(tags, Value("string"))
        types |= {"flags": List(Value("string")), "error": Value("string")}
        types |= {"answers": List(Value("string"))} if repeated else {}
        columns = {name: [row.get(name) for row in rows] for name in types}
        for name in ("prediction", "target"):
            columns[name] = [_as_text(value) for value in columns[name]]
        return Dataset.from_dict(columns, Features(types))

    def _repr_html_(self) -> str:
        """The table of scores, as a notebook shows it."""
        return score_table(self.summary)

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value.value}" for name, value in self.metrics.items())
        return f"<RunResult {self.path} {self.status}: {values}>"


def _row(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "cluster": record.cluster,
        "text": record.text,
        "prediction": record.prediction,
        "target": record.target,
        **record.scores,
        **{f"tag:{name}": value for name, value in record.tags.items()},
        "flags": list(record.flags),
        **({"answers": [repeat.text for repeat in record.repeats]} if record.repeats else {}),
        "error": record.error.message if record.error else None,
    }


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def load_run(path: str | os.PathLike[str]) -> RunResult:
    """The result stored in a run folder.

    Raises:
        RunFolderError: it is none, or it is broken.
    """
    return RunResult(load_stored(path))


def describe(stored: StoredRun) -> dict[str, Any]:
    """The summary of a run folder; without one yet, what is known so far.

    Raises:
        RunFolderError: manifest or summary is broken.
    """
    summary = stored.summary
    older = [OLDER_IDENTITY] if stored.older_identity else []
    if summary is not None:
        _check(summary, stored.path)
        return {**summary, "run": str(stored.path), "notes": [*summary.get("notes", ()), *older]}
    manifest = stored.manifest
    task, selection = _part(manifest, "task"), _part(manifest, "selection")
    outcome = _part(manifest, "outcome")
    responses = stored.responses().values()
    errors = sum(stored.response.error is not None for stored in responses)
    return {
        "run": str(stored.path),
        "status": stored.status,
        "model": str(_part(manifest, "model").get("name", "unknown")),
        "task": str(task.get("name", "unknown")),
        "split": str(task.get("split", "unknown")),
        "protocol": str(task.get("protocol", "unknown")),
        "counts": {
            "expected": selection.get("expected", 0),
            "answered": len(responses) - errors,
            "errors": errors,
            "unparsed": 0,
            "truncated": sum(stored.response.finish == "length" for stored in responses),
            "near_miss": 0,
        },
        "metrics": {},
        "groups": {},
        "reference": [],
        "signature": str(manifest.get("signature", "")),
        "notes": [*_part(manifest, "model").get("notes", ()), *older],
        "reason": str(outcome.get("reason") or "not scored yet"),
    }


_SHAPE: dict[str, type] = {
    **dict.fromkeys(("status", "model", "task", "split", "protocol", "signature"), str),
    **dict.fromkeys(("counts", "metrics", "groups"), dict),
    "reference": list,
}


def _check(summary: Mapping[str, Any], path: Path) -> None:
    """Refuse a summary that is not as this package writes it."""
    wrong = next((name for name, kind in _SHAPE.items() if not isinstance(summary.get(name), kind)), None)
    if wrong is None:
        counted = [summary["counts"].get(name) for name in ("expected", "answered", "errors")]
        rows = [(row, ("metrics", "model", "table")) for row in summary["reference"]]
        rows += [(content, ("value", "unit", "n")) for content in summary["metrics"].values()]
        if not all(isinstance(count, int) for count in counted):
            wrong = "counts"
        elif not all(isinstance(row, dict) and all(name in row for name in names) for row, names in rows):
            wrong = "metrics or reference"
    if wrong is not None:
        raise RunFolderError(
            f"{path}: summary.json is broken at {wrong}; `{command('score', path)}` makes it again"
        )


def _part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = content.get(name)
    return part if isinstance(part, Mapping) else {}
