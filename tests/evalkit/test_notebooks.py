"""Results and progress in notebooks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stored_runs import Answers, outcomes, write_run

from evalkit.notebook import in_notebook
from evalkit.pipeline.results import RunResult, load_run
from evalkit.score_html import html_table

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_a_result_is_a_table_of_scores(tmp_path: Path) -> None:
    result = load_run(write_run(tmp_path, "m", Answers(outcomes(0.5))))
    shown = result._repr_html_()
    (name, metric), *_ = result.metrics.items()
    assert f"<td>{name}</td>" in shown and f"<td>{metric.n}</td>" in shown and "95% interval" in shown


def test_every_text_is_escaped(tmp_path: Path) -> None:
    result = load_run(write_run(tmp_path, "m", Answers(outcomes(0.5))))
    evil = "<script>alert('x')</script>"
    summary = {
        **result.summary,
        "model": evil,
        "notes": [evil],
        "signature": evil,
        "nonstandard": {evil: evil},
    }
    summary["metrics"] = {evil: {"value": None, "unit": evil, "n": 1, "reason": evil}}
    shown = RunResult(result.stored, summary)._repr_html_()
    assert "<script" not in shown and shown.count("&lt;script&gt;") == 8
    assert "<b>" not in html_table(["<b>"], [["<b>"]], "<b>", ["<b>"])


def test_this_is_no_notebook() -> None:
    assert not in_notebook()


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel (extra dev)")
    pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel (extra dev)")
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    sources = [str(EXAMPLES.parent / name) for name in ("", "tasks", "models", "train", "leaderboard_app")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources)}
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=environment)
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type in ("display_data", "execute_result")
    ]
    html = [output.data["text/html"] for output in shown if "text/html" in output.data]
    assert any("8/8" in text and "samples/s" in text for text in html)  # the live table at its end
    assert any("95% interval" in text for text in html)
    assert not any(
        output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", ())
    )
