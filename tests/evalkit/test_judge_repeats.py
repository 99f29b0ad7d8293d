"""A judge that is asked several times, and one that is corrected by people's ratings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Server, completion

from evalkit.cli.main import invoke
from evalkit.errors import DataError
from evalkit.pipeline.judge_labels import read_labels
from evalkit.statistics import Clusters
from evalkit.statistics.prediction_powered import corrected_mean

pytest.importorskip("openai")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Rates an answer by its text, and each time it is asked by a point more or less."""
    for name in ("EVALKIT_JUDGE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    server.behave = lambda body, attempt: completion(
        str(50 + len(body["messages"][-1]["content"]) % 40 + (0, 9, -9)[(attempt - 1) % 3])
    )
    yield server
    server.close()


@pytest.fixture
def drivelm(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> Any:
    """Scores stored predictions of DriveLM's miniature; returns the summary."""
    from evalkit.data.locate import locate
    from evalkit.registry import task

    chosen = task("drivelm", None)
    root = locate(chosen, "miniature", None, True)
    answers = tmp_path / "answers.jsonl"
    samples = list(chosen.samples("miniature", root))
    answers.write_text("".join(json.dumps({"id": s.id, "text": str(s.target)}) + "\n" for s in samples))

    def run(*flags: str | Path, status: int = 0) -> Any:
        fixed = ["run", "-m", f"predictions:{answers}", "-t", "drivelm", "--split", "miniature", "--json"]
        judge = ["--judge", server.url, "--judge-model", "j", "-o", tmp_path / "runs"]
        capsys.readouterr()
        assert invoke([str(part) for part in (*fixed, *judge, *flags)]) == status
        out, err = capsys.readouterr()
        return json.loads(out)["runs"][0] if status == 0 else err

    return run


def test_each_answer_is_judged_so_often(drivelm: Any, server: Server) -> None:
    once = drivelm()
    asked = len(server.bodies)
    thrice = drivelm("--judge-repeats", "3")
    assert len(server.bodies) == 3 * asked  # the first replies are kept
    value, before = thrice["metrics"]["chatgpt"], once["metrics"]["chatgpt"]
    assert value["value"] == pytest.approx(before["value"])  # 0, +9 and -9
    assert value["n"] == before["n"]
    assert thrice["metrics"]["accuracy"] == once["metrics"]["accuracy"]
    judged = thrice["judge_repeats"]
    assert judged["n"] == 3
    assert judged["metrics"]["chatgpt"]["variance_judge"] == pytest.approx(81.0)
    assert judged["metrics"]["chatgpt"]["se_judge"] == pytest.approx(np.sqrt(81 / 3 / value["n"]))
    assert "accuracy" not in judged["metrics"]
    drivelm("--judge-repeats", "3")
    assert len(server.bodies) == 3 * asked  # every reply is kept


def test_stored_replies_of_a_repeated_judge_are_scored_again(
    drivelm: Any, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    run = drivelm("--judge-repeats", "3")
    asked = len(server.bodies)
    assert invoke(["score", run["run"], "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)["runs"]
    assert again["metrics"] == run["metrics"] and again["judge_repeats"] == run["judge_repeats"]
    assert len(server.bodies) == asked


def test_repeats_of_a_judge_need_one(drivelm: Any, tmp_path: Path) -> None:
    assert "give a positive number" in drivelm("--judge-repeats", "0", status=2)


def _rated(run: Any) -> list[tuple[str, float]]:
    """Ids that the judge rated for the metric, with its rating."""
    from evalkit.store import load_run

    return [(r.id, r.scores["chatgpt"]) for r in load_run(run["run"]).records() if "chatgpt" in r.scores]


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_people_correct_the_judge(drivelm: Any, tmp_path: Path, form: str) -> None:
    """People rate 5 points lower throughout: so does the corrected mean."""
    rated = _rated(drivelm())[::2]
    file = tmp_path / f"people.{form}"
    if form == "csv":
        file.write_text("id,rating\n" + "".join(f"{name},{rating - 5}\n" for name, rating in rated))
    elif form == "json":
        file.write_text(json.dumps({name: rating - 5 for name, rating in rated}))
    else:
        rows = [{"sample_id": name, "human": rating - 5} for name, rating in rated]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = drivelm("--judge-labels", file)
    found = run["corrected"]["chatgpt"]
    assert found["labelled"] == len(rated)
    assert found["judge"] == pytest.approx(run["metrics"]["chatgpt"]["value"])
    low, high = found["ci95"]
    assert low <= found["judge"] - 5 <= high
    assert found["value"] < found["judge"]
    assert drivelm()["corrected"] == run["corrected"]  # kept in the folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,rating\nnowhere_1_0,50\n", "ids are no samples"),
        ("id,note\na,b\n", "lacks 'rating'"),
        ("id,rating\na,good\n", "is no number"),
        ("id,rating\na,1\na,2\n", "another rating of 'a'"),
        ("id,rating\n", "holds no rating"),
        ("id,rating,rating\na,1,2\n", "column 'rating' occurs twice"),
        ("id,rating\na,1,9\n", "3 cells, the header has 2"),
        ("id,rating\na,1\nid,rating\n", "the header stands here again"),
    ],
)
def test_broken_labels_are_refused_before_anything_is_asked(
    drivelm: Any, server: Server, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "people.csv").write_text(content)
    assert said in drivelm("--judge-labels", tmp_path / "people.csv", status=3)
    assert not server.bodies


@pytest.mark.parametrize("end", ["\x0b", "\x1c", "\u2028"])
def test_a_line_of_labels_ends_at_a_line_feed_alone(tmp_path: Path, end: str) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text(f'{{"id": "a", "rating": 1}}{end}{{"id": "b", "rating": 2}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"people\.jsonl"):
        read_labels(path)


def test_a_rating_outside_of_the_scale_is_refused(drivelm: Any, tmp_path: Path) -> None:
    name, _ = _rated(drivelm())[0]
    (tmp_path / "people.csv").write_text(f"id,rating\n{name},500\n")
    assert "is not from 0 to 100" in drivelm("--judge-labels", tmp_path / "people.csv", status=3)


# The estimate ---------------------------------------------------------------------------------------------

PEOPLE = np.array([60, 70, 55, 80, 65, 40.0])
RATED = np.array([65, 72, 60, 90, 60, 50.0])
REST = np.array([70, 62, 85, 55, 77, 68, 90, 45, 66, 73, 59, 81.0])


def test_the_estimate_is_that_of_ppi_py() -> None:
    """ppi-python 0.2.3: ppi_mean_pointestimate(Y, F, U) and ppi_mean_ci(Y, F, U, alpha=0.05).

    Its interval is normal and without the factor G / (G - 1) for 18 clusters; ours is Student's.
    """
    judge = np.concatenate([RATED, REST])
    people = np.concatenate([PEOPLE, np.full(12, np.nan)])
    found = corrected_mean(judge, people, Clusters.of([f"c{n:02}" for n in range(18)]), (0.0, 100.0))
    assert found.value == pytest.approx(63.43240341, abs=1e-6)
    assert found.se == pytest.approx(
        (70.05208829 - 56.81271854) / 2 / 1.959963985 * np.sqrt(18 / 17), rel=1e-6
    )


def test_the_interval_covers_what_people_would_have_said() -> None:
    """A judge that is too kind by 8 and noisy, 40 of 300 answers in 60 clusters rated by people."""
    rng = np.random.default_rng(0)
    covered, widths, alone = 0, [], []
    for _ in range(400):
        level = np.repeat(rng.normal(0, 6, 60), 5)
        truth = np.clip(60 + level + rng.normal(0, 12, 300), 0, 100)
        judge = np.clip(truth + 8 + rng.normal(0, 6, 300), 0, 100)
        people = np.where(np.isin(np.arange(300), rng.choice(300, 40, replace=False)), truth, np.nan)
        found = corrected_mean(judge, people, Clusters.of([f"c{n // 5}" for n in range(300)]), (0.0, 100.0))
        assert found.ci95 is not None
        covered += found.ci95[0] <= 60 <= found.ci95[1]
        widths.append(found.ci95[1] - found.ci95[0])
        alone.append(2 * 2.02 * np.nanstd(people, ddof=1) / np.sqrt(40))
    assert 0.925 <= covered / 400 <= 0.985
    assert np.mean(widths) < 0.8 * np.mean(alone)  # narrower than the ratings alone
