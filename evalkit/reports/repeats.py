"""What a run with repeats says besides its values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evalkit.text import table, value_text


def repeats_text(run: Mapping[str, Any]) -> str:
    """Values by seed, spread within and between questions, pass@k and majority; the judge's part."""
    parts = []
    if found := run.get("repeats"):
        seeds = f"seeds {found['seeds'][0]} to {found['seeds'][-1]}"
        parts.append(f"each question asked {found['n']} times ({seeds})\n{_spreads(found['metrics'])}")
        if votes := _votes(found["metrics"]):
            parts.append(votes)
    if judged := run.get("judge_repeats"):
        parts.append(_judge(judged))
    parts += [_corrected(name, content) for name, content in run.get("corrected", {}).items()]
    return "\n\n".join(parts)


def _corrected(name: str, content: Mapping[str, Any]) -> str:
    unit, interval = content["unit"], content["ci95"]
    shown = f" [{value_text(interval[0], unit)}, {value_text(interval[1], unit)}]" if interval else ""
    return (
        f"{name} corrected by people's ratings of {content['labelled']} of {content['n']} answers: "
        f"{value_text(content['value'], unit)}{shown} (the judge alone: {value_text(content['judge'], unit)})"
    )


def _spreads(metrics: Mapping[str, Any]) -> str:
    rows = [["metric", "lowest seed", "highest seed", "sd within questions", "sd between questions"]]
    for name, content in metrics.items():
        unit, values = content["unit"], content["by_seed"]
        within, between = content.get("variance_within"), content.get("variance_between")
        ends = value_text(min(values), unit), value_text(max(values), unit)
        rows.append([name, *ends, _root(within, unit), _root(between, unit)])
    return table(rows, right=(1, 2, 3, 4))


def _root(variance: float | None, unit: str) -> str:
    return "-" if variance is None else value_text(math.sqrt(variance), unit)


def _votes(metrics: Mapping[str, Any]) -> str:
    rows = [["metric", "of the answers to a question", "value", "95% interval"]]
    for name, content in metrics.items():
        kinds = {f"one of {k} right (pass@{k})": value for k, value in content.get("pass@k", {}).items()}
        if "majority" in content:
            kinds["the commonest (majority vote)"] = content["majority"]
        for kind, value in kinds.items():
            unit, interval = value["unit"], value["ci95"]
            shown = f"[{value_text(interval[0], unit)}, {value_text(interval[1], unit)}]" if interval else "-"
            rows.append([name, kind, value_text(value["value"], unit), shown])
    return table(rows, right=(2,)) if len(rows) > 1 else ""


def _judge(judged: Mapping[str, Any]) -> str:
    head = f"each answer judged {judged['n']} times"
    if not judged["metrics"]:
        return f"{head}: the judge said the same every time"
    rows = [["metric", "sd of the judge", "sd of the answers", "judge's part of the standard error"]]
    for name, content in judged["metrics"].items():
        roots = (_root(content[key], "") for key in ("variance_judge", "variance_answers"))
        rows.append([name, *roots, value_text(content["se_judge"])])
    return f"{head}\n{table(rows, right=(1, 2, 3))}"
