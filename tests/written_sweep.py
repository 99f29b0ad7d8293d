"""A sweep's result as `evalkit train sweep` writes it."""

from __future__ import annotations

import json
from pathlib import Path

from evalkit.comparison import Key
from mini_internvl_train.sweep_scores import PointScore, TaskScores


def sweep_scores() -> list[TaskScores]:
    """What a sweep found; the second task has no interval at its base."""
    first = (
        PointScore("share=0.1", 30.0, (20.2, 41.4), (30.0,)),
        PointScore("share=0.5", 37.5, (26.6, 48.3), (37.5,), 7.5, (-5.0, 19.7), 0.2, 0.312, "no_evidence"),
        PointScore("share=1", 65.0, (52.0, 76.0), (63.0, 67.0), 35.0, (23.1, 45.2), 1e-6, 2e-6, "improved"),
    )
    second = (
        PointScore("share=0.1", 0.5, None, (0.5,), reason="one cluster"),
        PointScore("share=0.5", None, None, (None,), reason="no value in a seed"),
        PointScore("share=1", 0.25, (0.1, 0.4), (0.25,), -0.25, (-0.4, -0.1), 0.001, 0.002, "regressed"),
    )
    return [
        TaskScores(Key("rsvqa-lr", "miniature"), "average", "percent", True, 60, 20, first),
        TaskScores(Key("drivelm", "miniature"), "accuracy", "fraction", True, 40, 1, second),
    ]


def write_sweep(folder: Path) -> Path:
    """`sweep.json` of `sweep_scores`, as `evalkit train sweep` writes it."""
    points = [
        {
            "label": f"share={share}",
            "values": {"data.share": share},
            "trainings": [{"name": "m", "output": str(folder), "seed": 1, "failure": None}],
        }
        for share in (0.1, 0.5, 1)
    ]
    content = {
        "varied": {"data.share": [0.1, 0.5, 1], "seed": [1, 2]},
        "base": "share=0.1",
        "points": points,
        "scores": [scores.to_json() for scores in sweep_scores()],
        "notes": [f"{folder}: another seed may differ"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(content))
    return folder / "sweep.json"
