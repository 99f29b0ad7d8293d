"""People's ratings of some answers, and the judge's means corrected by them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.answers import REPLY
from evalkit.contracts import Json, Record
from evalkit.data import strict_json
from evalkit.errors import DataError
from evalkit.files import read_csv, read_tsv
from evalkit.metrics.base import Metric
from evalkit.metrics.repeated import rounds
from evalkit.registry import nearest
from evalkit.task import Task

#: Copy of the ratings in the run folder.
LABELS_NAME = "judge_labels.json"
#: Names that the two columns may have.
_IDS = ("id", "sample_id", "question_id")
_RATINGS = ("rating", "score", "label", "human")


def read_labels(path: Path) -> dict[str, float]:
    """Ratings by sample id, of a CSV or TSV file, JSON Lines, or a JSON object or list.

    Raises:
        DataError: unreadable, without these columns, a rating that is no number, or two for one id.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--judge-labels {path}: cannot be read ({error})") from None
    try:
        rows = list(_rows(path, text))
    except DataError as error:
        raise DataError(f"--judge-labels {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"--judge-labels {path}: neither CSV nor JSON, or ambiguous ({error})") from None
    found: dict[str, float] = {}
    for number, row in enumerate(rows, 1):
        where = f"--judge-labels {path}: row {number}"
        name, rating = _field(row, _IDS, where), _rating(_field(row, _RATINGS, where), where)
        if found.setdefault(str(name), rating) != rating:
            raise DataError(f"{where}: another rating of {name!r}; give one rating an answer (their mean)")
    if not found:
        raise DataError(f"--judge-labels {path}: holds no rating")
    return found


def _rows(path: Path, text: str) -> Iterable[Any]:
    if path.suffix.lower() == ".csv":
        return read_csv(path)
    if path.suffix.lower() == ".tsv":
        return (row.cells for row in read_tsv(path, ()))
    if path.suffix.lower() == ".json":
        content = strict_json.loads(text)
        if isinstance(content, Mapping):
            return ({"id": name, "rating": rating} for name, rating in content.items())
        return content if isinstance(content, list) else ()
    return (strict_json.loads(line) for line in text.split("\n") if line.strip())


def _field(row: Any, names: Sequence[str], where: str) -> Any:
    if isinstance(row, Mapping):
        for name in names:
            if row.get(name) not in (None, ""):
                return row[name]
    raise DataError(f"{where}: lacks {names[0]!r} (or {', '.join(names[1:])})")


def _rating(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {value!r} is no number")
    return number


def check_labels(labels: Mapping[str, float], known: Collection[str], path: Path) -> None:
    """Raises DataError for an id that is no sample's."""
    if unknown := [name for name in labels if name not in known]:
        hint = nearest(unknown[0], list(known))
        raise DataError(
            f"--judge-labels {path}: {len(unknown)} ids are no samples, first {unknown[0]!r}{hint}"
        )


def corrected_json(task: Task, records: Sequence[Record], labels: Mapping[str, float]) -> dict[str, Json]:
    """`corrected` of the summary: each metric that is the judge's mean rating, as people would have rated.

    Raises:
        DataError: no metric is such a mean, no rated answer is in one, or a rating is out of its range.
    """
    from evalkit.statistics import Clusters
    from evalkit.statistics.prediction_powered import corrected_mean

    answered = [record for record in records if not record.failed]
    judged = [metric for metric in task.metrics() if _is_rating(metric, answered)]
    if not judged:
        raise DataError(
            f"--judge-labels: no metric of this run of {task.name} is a mean of a judge's ratings"
        )
    found: dict[str, Json] = {}
    for metric in judged:
        rating = _mean_rating(metric, answered)
        kept = [record for record, value in zip(answered, rating, strict=True) if not math.isnan(value)]
        people = np.array([labels.get(record.id, math.nan) for record in kept])
        if not np.isfinite(people).any():
            continue
        low, high = metric.bounds
        if wrong := [v for v in people[np.isfinite(people)].tolist() if not low <= v <= high]:
            raise DataError(
                f"--judge-labels: {wrong[0]:g} is not from {low:g} to {high:g}, as {metric.name} is"
            )
        clusters = Clusters.of([record.cluster for record in kept])
        value = corrected_mean(rating[~np.isnan(rating)], people, clusters, metric.bounds)
        found[metric.name] = {
            "value": value.value,
            "unit": metric.unit,
            "ci95": list(value.ci95) if value.ci95 else None,
            "n": value.n,
            "labelled": value.labelled,
            "weight": value.weight,
            "judge": value.judge,
        }
    if not found:
        names = ", ".join(metric.name for metric in judged)
        raise DataError(f"--judge-labels: none of the rated answers enters {names}")
    return {"corrected": found}


def _is_rating(metric: Metric, records: Sequence[Record]) -> bool:
    """Whether the metric is a plain mean of what the judge replied."""
    if metric.mean_range is None or metric.reason(rounds(records)[0]) is not None:
        return False
    for each in rounds(records):
        outcomes = metric.outcomes(each)
        if outcomes is None:
            return False
        for record, keep, value in zip(each, metric.selected(each), outcomes, strict=True):
            if keep and _number(record.data.get(REPLY)) != value:
                return False
    return True


def _number(reply: object) -> float | None:
    try:
        return float(reply) if isinstance(reply, str) else None
    except ValueError:
        return None


def _mean_rating(metric: Metric, records: Sequence[Record]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Each answer's mean rating [n] by the judge, NaN where it has none."""
    values = []
    for each in rounds(records):
        outcomes = metric.outcomes(each)
        assert outcomes is not None
        values.append(np.where(metric.selected(each), outcomes, np.nan))
    table = np.array(values)
    counts = np.isfinite(table).sum(axis=0)
    sums = np.where(np.isfinite(table), table, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
