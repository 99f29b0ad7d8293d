"""A run's result as tables for other libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stored_runs import Answers, write_run

from evalkit.contracts import Failure, Record
from evalkit.pipeline.results import RunResult, load_run
from evalkit.store import load_run as load_stored


class Invented:
    """A stored run with records of every kind."""

    path = Path("run")
    summary = None

    def records(self) -> list[Record]:
        """Text, a box, nothing; one score or another; an error."""
        return [
            Record("1", "a", "yes", "yes", "no", {"accuracy": 0.0}, {"kind": "x"}, ("unparsed", "truncated")),
            Record("2", "a", "here", [1.5, 2], {"é": None}, {"iou": 0.25}, {"size": "s"}),
            Record("3", "b", "", None, "no", flags=("error",), error=Failure("image", "unreadable")),
        ]


def test_records_as_a_dataset() -> None:
    found = RunResult(Invented(), {}).to_dataset()  # type: ignore[arg-type]
    rows = found.to_list()
    assert [row["prediction"] for row in rows] == ["yes", "[1.5, 2]", None]
    assert [row["target"] for row in rows] == ["no", '{"é": null}', "no"]
    assert [row["accuracy"] for row in rows] == [0.0, None, None]
    assert [row["iou"] for row in rows] == [None, 0.25, None]
    assert [row["tag:kind"] for row in rows] == ["x", None, None]
    assert [row["flags"] for row in rows] == [["unparsed", "truncated"], [], ["error"]]
    assert [row["error"] for row in rows] == [None, None, "unreadable"]
    assert found.filter(lambda row: row["cluster"] == "a").num_rows == 2


def test_a_stored_run_has_the_same_rows_in_both_tables(tmp_path: Path) -> None:
    import numpy as np

    folder = write_run(tmp_path, "toy", Answers(np.array([1.0, 0.0, 1.0])))
    result = load_run(folder)
    frame, dataset = result.records(), result.to_dataset()
    assert dataset.column_names == list(frame.columns)
    assert dataset["id"][:] == list(frame["id"]) and dataset["accuracy"][:] == list(frame["accuracy"])
    assert dataset.num_rows == len(list(load_stored(folder).records())) == 3


@pytest.mark.parametrize(
    "module",
    [
        "evalkit",
        "evalkit.pipeline.run",
        "evalkit.pipeline.score",
        "evalkit.comparison.compare",
        "evalkit_tasks",
    ],
)
def test_scoring_and_comparing_import_no_heavy_package(module: str) -> None:
    heavy = "'torch', 'transformers', 'datasets', 'nltk', 'openai'"
    code = f"import sys, {module}; sys.exit(', '.join({{{heavy}}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
