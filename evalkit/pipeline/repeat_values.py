"""What a summary says of repeats: values by seed, variances, pass@k, majority vote, the judge's variance."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evalkit.contracts import Json, Record
from evalkit.metrics.base import FloatArray, Metric
from evalkit.metrics.repeated import rounds
from evalkit.pipeline.repeats import seeds
from evalkit.pipeline.summary import metric_json
from evalkit.statistics import repeats as statistics

if TYPE_CHECKING:
    from evalkit.pipeline.job import Job


def repeats_json(job: Job, records: Sequence[Record], judgements: int) -> dict[str, Json]:
    """`repeats` of the summary of a job with repeats; empty for another.

    Args:
        judgements: how often each answer was judged.
    """
    answered = [record for record in records if record.repeats and not record.failed]
    if job.repeats == 1 or not answered:
        return {}
    metrics = [metric for metric in job.task.metrics() if not metric.variant]
    found = {metric.name: _of_metric(metric, answered, job.repeats, judgements) for metric in metrics}
    return {
        "repeats": {
            "n": job.repeats,
            "seeds": seeds(job.generation, job.repeats),
            "metrics": {name: content for name, content in found.items() if content},
        }
    }


def judge_json(job: Job, records: Sequence[Record], judgements: int) -> dict[str, Json]:
    """`judge_repeats` of the summary where each answer was judged several times; empty otherwise.

    Its metrics are those whose values the judge's replies moved.
    """
    answered = [record for record in records if record.repeats and not record.failed]
    if judgements == 1 or not answered:
        return {}
    found: dict[str, Json] = {}
    for metric in job.task.metrics():
        table = statistics.outcome_table(metric, answered)
        parts = None if table is None else statistics.variances(table, judgements)
        if parts is not None and parts.judge:
            found[metric.name] = {
                "variance_judge": parts.judge,
                "variance_answers": parts.between + (parts.within or 0.0),
                "se_judge": parts.se_judge,
            }
    return {"judge_repeats": {"n": judgements, "metrics": found}}


def _of_metric(metric: Metric, records: Sequence[Record], repeats: int, judgements: int) -> dict[str, Json]:
    """One metric's part; empty where it has no value."""
    by_round = [_value(metric, each) for each in rounds(records)]
    if any(value is None for value in by_round):
        return {}
    by_seed = np.array(by_round, dtype=np.float64).reshape(repeats, judgements).mean(axis=1)
    content: dict[str, Json] = {"unit": metric.unit, "by_seed": by_seed.tolist()}
    table = statistics.outcome_table(metric, records)
    if table is None:
        return content
    if (parts := statistics.variances(table, judgements)) is not None:
        content |= {"variance_within": parts.within, "variance_between": parts.between}
    chosen = np.logical_and.reduce(np.isfinite(table), dtype=np.bool_)
    if not metric.binary or not chosen.any():
        return content
    kept = [record for record, keep in zip(records, chosen, strict=True) if keep]
    answers = table[:, chosen].reshape(repeats, judgements, -1).mean(axis=1)
    return content | _of_binary(metric, answers, kept, judgements)


def _of_binary(
    metric: Metric, answers: FloatArray, records: Sequence[Record], judgements: int
) -> dict[str, Json]:
    """pass@k and majority vote of 0/1 outcomes in the metric's unit, [repeats, n]."""
    scale, repeats = metric.bounds[1], len(answers)
    right = answers / scale
    if not (math.isfinite(scale) and np.isin(right, (0.0, 1.0)).all()):
        return {}  # judged several times, and not always alike
    ks = [k for k in (2**power for power in range(repeats.bit_length())) if k < repeats] + [repeats]
    at = {k: scale * statistics.pass_at(k, right.sum(axis=0), repeats) for k in ks}
    content: dict[str, Json] = {
        "pass@k": {
            str(k): metric_json(statistics.mean_estimate(metric, values, records)) for k, values in at.items()
        }
    }
    said = [[_name(each) for each in record.repeats[::judgements]] for record in records]
    voted = statistics.majority(answers, said)
    if voted is not None:
        content["majority"] = metric_json(statistics.mean_estimate(metric, voted, records))
    return content


def _name(record: Record) -> str:
    return json.dumps(record.prediction, sort_keys=True, default=str)


def _value(metric: Metric, records: Sequence[Record]) -> float | None:
    if metric.reason(records) is not None:
        return None
    value = float(metric.value(metric.statistics(records).sum(axis=0)))
    return value if math.isfinite(value) else None
