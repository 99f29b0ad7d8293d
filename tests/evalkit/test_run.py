"""The main job: generate, store, score, resume, stop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import evalkit
from evalkit.contracts import Failure, Request, Response
from evalkit.store import load_run


def test_a_run_has_the_documented_shape(bench) -> None:
    assert bench.run() == 0
    run = bench.result
    assert run["status"] == "complete" and run["model"] == "fake" and run["task"] == "yes-no"
    assert run["split"] == "test" and run["protocol"] == "paper"
    assert run["counts"] == {
        "expected": 20,
        "answered": 20,
        "errors": 0,
        "unparsed": 0,
        "truncated": 0,
        "near_miss": 0,
    }
    accuracy = run["metrics"]["accuracy"]
    assert accuracy["unit"] == "percent" and accuracy["n"] == 20
    low, high = accuracy["ci95"]
    assert low <= accuracy["value"] <= high
    assert set(run["groups"]["kind"]) == {"odd", "even"}
    assert run["groups"]["kind"]["odd"]["accuracy"]["n"] == 10
    assert run["reference"] == []
    assert run["signature"].startswith("yes-no|v1|test|n:20|tiles:12|prompt:")
    assert "gen:greedy,100|scorer:paper.1|dtype:fp32|data:" in run["signature"]
    folder = Path(run["run"])
    assert folder.parent == bench.output / "fake" / "yes-no@test"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"manifest.json", "responses-0.jsonl", "records.parquet", "summary.json"}
    assert json.loads((folder / "summary.json").read_text()) == run


def test_groups_are_the_figures_of_their_samples(bench) -> None:
    bench.run()
    frame = evalkit.load_run(bench.result["run"]).records()
    for value, metrics in bench.result["groups"]["kind"].items():
        rows = frame[frame["tag:kind"] == value]
        assert metrics["accuracy"]["value"] == pytest.approx(100 * rows["accuracy"].mean(), abs=1e-12)


def test_the_manifest_says_what_makes_the_figure_reproducible(bench) -> None:
    began = time.monotonic()
    bench.run()
    manifest = load_run(bench.result["run"]).manifest
    assert 0 <= manifest["scored"]["seconds"] <= time.monotonic() - began
    assert manifest["model"]["fingerprint"] == "0" and manifest["model"]["spec"] == "fake"
    assert manifest["versions"]["evalkit"] == evalkit.__version__ and "python" in manifest["versions"]
    assert len(manifest["data"]["hash"]) == 32 and manifest["data"]["samples"] == 20
    assert len(manifest["prompt"]["hash"]) == 32
    assert manifest["hardware"]["cores"] >= 1
    (session,) = manifest["sessions"]
    assert session["started"] <= session["ended"]
    assert session["throughput"]["samples"] == 20 and session["throughput"]["new_tokens"] == 40
    assert session["peak_memory"]["host_bytes"] > 0
    assert manifest["outcome"]["status"] == "complete"


def test_a_complete_run_is_scored_again_but_not_asked_again(bench) -> None:
    bench.run()
    first = bench.result
    bench.model.asked.clear()
    assert bench.run() == 0
    assert bench.result == first and bench.model.asked == []


def test_a_compiled_run_is_one_of_its_own_and_comparable(bench) -> None:
    bench.run()
    plain = load_run(bench.result["run"]).manifest
    assert plain["sessions"][0]["compile"] is False and bench.family.options.compile is False
    assert bench.run("--compile") == 0 and bench.family.options.compile is True
    assert len(bench.model.asked) == 40
    compiled = load_run(bench.result["run"]).manifest
    assert compiled["sessions"][0]["compile"] is True
    assert compiled["signature"] == plain["signature"]


def test_no_resume_starts_a_folder_of_its_own(bench) -> None:
    bench.run()
    first = bench.result["run"]
    assert bench.run("--no-resume") == 0
    assert bench.result["run"] != first and len(bench.model.asked) == 40


def test_only_what_is_missing_is_asked(bench) -> None:
    bench.run()
    folder = Path(bench.result["run"])
    lines = (folder / "responses-0.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "responses-0.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:30])
    (folder / "summary.json").unlink()
    bench.model.asked.clear()
    assert bench.run() == 0
    assert len(bench.model.asked) == 13 and bench.result["counts"]["answered"] == 20
    ids = [json.loads(line)["id"] for line in (folder / "responses-0.jsonl").read_bytes().splitlines()]
    assert len(ids) == len(set(ids)) == 20


def test_a_changed_question_is_asked_again(bench) -> None:
    bench.run()
    text = (bench.folder / "test.jsonl").read_text().replace("Is 3 it?", "Is 3 really it?")
    (bench.folder / "test.jsonl").write_text(text)
    bench.model.asked.clear()
    first = bench.result
    assert bench.run() == 0
    assert bench.model.asked == ["3"]
    assert bench.result["run"] == first["run"] and bench.result["signature"] != first["signature"]


def test_a_changed_picture_is_asked_again(bench) -> None:
    from PIL import Image

    bench.run()
    Image.new("RGB", (9, 9)).save(bench.folder / "p1.png")
    bench.model.asked.clear()
    bench.run()
    assert bench.model.asked == ["4", "5", "6", "7"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "absurd"])
def test_an_unreadable_picture_is_an_error_record_with_path_and_cause(bench, damage: str) -> None:
    path = bench.folder / "p2.png"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "text":
        path.write_text("no picture")
    else:
        path.write_bytes(data[:16] + (60_000).to_bytes(4, "big") * 2 + data[24:])
    assert bench.run() == 4
    assert bench.result["counts"] == {
        "expected": 20,
        "answered": 16,
        "errors": 4,
        "unparsed": 0,
        "truncated": 0,
        "near_miss": 0,
    }
    assert bench.result["metrics"]["accuracy"]["n"] == 16
    failed = [record for record in load_run(bench.result["run"]).records() if record.failed]
    assert [record.id for record in failed] == ["8", "9", "10", "11"]
    for record in failed:
        assert record.error is not None and record.error.kind == "image"
        assert str(path) in record.error.message and record.text == "" and record.flags == ("error",)


def test_failed_samples_are_tried_again(bench) -> None:
    path = bench.folder / "p2.png"
    data = path.read_bytes()
    path.unlink()
    assert bench.run() == 4
    bench.model.asked.clear()
    assert bench.run() == 4  # the picture is still away
    assert bench.model.asked == ["8", "9", "10", "11"]
    path.write_bytes(data)
    assert bench.run() == 0
    assert bench.result["counts"]["answered"] == 20 and bench.result["status"] == "complete"


@pytest.mark.parametrize(("allowed", "status"), [("4", 0), ("3", 4), ("20%", 0), ("19.9%", 4), ("0", 4)])
def test_max_errors_decides_the_status(bench, allowed: str, status: int) -> None:
    (bench.folder / "p2.png").unlink()
    assert bench.run("--max-errors", allowed) == status
    assert bench.result["metrics"]["accuracy"]["n"] == 16


def test_fifty_failures_after_one_answer_do_not_stop_a_run(bench) -> None:
    """Only the first samples show a wrong set-up; scattered failures of a long run are counted."""
    from toy import make_benchmark

    make_benchmark(bench.folder, samples=120)
    for path in bench.folder.glob("*.png"):
        if path.name != "p0.png":
            path.unlink()
    assert bench.run("-q") == 4
    assert len(bench.model.asked) == 120
    assert bench.result["counts"] == {**bench.result["counts"], "answered": 4, "errors": 116}


def test_the_run_stops_when_the_first_fifty_fail(bench) -> None:
    from toy import make_benchmark

    make_benchmark(bench.folder, samples=120)
    for path in bench.folder.glob("*.png"):
        path.unlink()
    assert bench.run("-q") == 3
    assert len(bench.model.asked) == 50
    assert "first 50 samples all failed" in bench.err and "p0.png" in bench.err
    assert len(bench.err.strip().splitlines()) == 1
    assert bench.result["status"] == "failed" and bench.result["metrics"] == {}
    assert load_run(bench.result["run"]).status == "failed"
    make_benchmark(bench.folder, samples=120)
    assert bench.run() == 0  # mended: the same command goes on


def test_forty_nine_failures_before_an_answer_do_not_stop_it(bench) -> None:
    from toy import make_benchmark

    make_benchmark(bench.folder, samples=60, per_image=49)
    (bench.folder / "p0.png").unlink()
    assert bench.run() == 4
    assert bench.result["counts"]["errors"] == 49 and bench.result["counts"]["answered"] == 11


def test_nothing_answered_is_a_failed_run(bench) -> None:
    for path in bench.folder.glob("*.png"):
        path.unlink()
    assert bench.run("--max-errors", "100%") == 4
    assert bench.result["status"] == "failed"
    assert bench.result["metrics"]["accuracy"] == {
        "value": None,
        "unit": "percent",
        "n": 0,
        "ci95": None,
        "reason": "no answered sample of this kind",
    }


def test_limit_takes_whole_clusters_and_nests(bench) -> None:
    chosen: list[set[str]] = []
    for limit in (6, 10, 20):
        bench.model.asked.clear()
        assert bench.run("--limit", str(limit), "--no-resume") == 0
        chosen.append(set(bench.model.asked))
        assert bench.result["counts"]["expected"] == limit
        assert bench.result["status"] == ("complete" if limit == 20 else "partial")
        assert bench.result["limited"] == (limit < 20)
        assert ("subset:" in bench.result["signature"]) == (limit < 20)
    assert chosen[0] < chosen[1] < chosen[2]
    clusters = [int(name) // 4 for name in chosen[0]]
    assert sorted(clusters.count(cluster) for cluster in set(clusters)) == [2, 4]
    bench.model.asked.clear()
    bench.run("--limit", "6", "--seed", "1")
    assert set(bench.model.asked) != chosen[0]


def test_sample_id_asks_for_one_sample(bench) -> None:
    assert bench.run("--sample-id", "13") == 0
    assert bench.model.asked == ["13"] and bench.result["status"] == "partial"
    assert bench.run("--sample-id", "113") == 2
    assert "no such sample (nearest: 13" in bench.err


def test_limited_runs_and_the_full_run_do_not_share_a_folder(bench) -> None:
    bench.run("--limit", "6")
    limited = bench.result["run"]
    bench.run()
    assert bench.result["run"] != limited and len(set(bench.model.asked)) == 20


def test_changed_settings_are_marked_and_kept_apart(bench) -> None:
    bench.run()
    standard = bench.result
    assert bench.run("--max-tiles", "6", "--gen", "max_new_tokens=7") == 0
    run = bench.result
    assert run["nonstandard"] == {"max_new_tokens": 7, "max_tiles": 6}
    assert "tiles:6" in run["signature"] and "gen:greedy,7" in run["signature"]
    assert "nonstandard:max_new_tokens=7,max_tiles=6" in run["signature"]
    assert run["run"] != standard["run"]
    assert load_run(run["run"]).manifest["settings"]["nonstandard"] == run["nonstandard"]
    bench.run("--max-tiles", "12", "--gen", "max-new-tokens=100")  # the protocol's own values
    assert bench.result == standard


def test_two_samples_of_one_id_are_refused(bench) -> None:
    with (bench.folder / "test.jsonl").open("a") as file:
        file.write((bench.folder / "test.jsonl").read_text().splitlines()[0] + "\n")
    assert bench.run() == 3
    assert "sample id '0' occurs twice" in bench.err and bench.out == ""


def test_missing_data_is_named(bench) -> None:
    (bench.folder / "test.jsonl").unlink()
    assert bench.run() == 3
    assert "test.jsonl" in bench.err and len(bench.err.strip().splitlines()) == 1


class Broken:
    """A model that breaks off, answers strangers, or keeps silent."""

    def __init__(self, how: str, inner) -> None:
        self.how, self.inner = how, inner
        self.info, self.close = inner.info, inner.close

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        for position, (name, response) in enumerate(self.inner.generate(requests)):
            if position == 5 and self.how == "raises":
                raise RuntimeError("the device fell off the bus")
            if position == 5 and self.how == "stranger":
                yield "stranger", response
            if position == 5 and self.how == "silent":
                continue
            yield name, response


def test_a_model_that_breaks_off_keeps_what_was_done(bench) -> None:
    bench.family.model = Broken("raises", bench.model)
    assert bench.run() == 3
    assert "the device fell off the bus" in bench.err and "Traceback" not in bench.err
    assert bench.result["status"] == "failed" and bench.result["counts"]["answered"] == 5
    bench.family.model = bench.family.model.inner
    bench.model.asked.clear()
    assert bench.run() == 0
    assert len(bench.model.asked) == 15


def test_a_model_that_answers_strangers_is_stopped(bench) -> None:
    bench.family.model = Broken("stranger", bench.model)
    assert bench.run() == 3
    assert "'stranger', which was not asked" in bench.err


def test_a_silent_model_leaves_an_error_record(bench) -> None:
    bench.family.model = Broken("silent", bench.model)
    assert bench.run() == 4
    (failed,) = [record for record in load_run(bench.result["run"]).records() if record.failed]
    assert failed.error == Failure("model", "the model gave no answer")


def test_an_empty_text_is_an_answer(bench) -> None:
    bench.model.answers["3"] = ""
    assert bench.run() == 0
    assert bench.result["counts"]["answered"] == 20 and bench.result["counts"]["unparsed"] == 1


def test_hostile_texts_are_stored_and_shown_harmlessly(bench) -> None:
    hostile = "\x1b[31mred\x07 \u202e evil \ud800 \x00 <script>alert(1)</script>\nsecond line"
    bench.model.answers["3"] = hostile
    assert bench.run() == 0
    folder = bench.result["run"]
    assert bench.cli("show", folder, "--sample", "3") == 0
    assert "\x1b" not in bench.out and "\x07" not in bench.out and "\u202e" not in bench.out
    assert "\\x1b[31mred" in bench.out and "<script>" in bench.out
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert bench.result["counts"]["answered"] == 20


def test_scores_are_never_nan_in_json(bench) -> None:
    bench.run()

    def figures(item: object) -> Iterator[float]:
        if isinstance(item, dict):
            for value in item.values():
                yield from figures(value)
        elif isinstance(item, list):
            for value in item:
                yield from figures(value)
        elif isinstance(item, float):
            yield item

    assert all(map(math.isfinite, figures(bench.document)))


def test_a_failing_scorer_names_the_sample_and_keeps_the_answers(bench) -> None:
    text = bench.task.read_text().replace("word = response", "assert sample.id != '7'; word = response")
    bench.task.write_text(text)
    assert bench.run() == 3
    assert "score() fails on sample '7'" in bench.err and "responses are kept" in bench.err
    folder = bench.result["run"]
    from toy import task_source

    bench.task.write_text(task_source())
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert bench.result["counts"]["answered"] == 20


def test_score_gives_the_figures_of_the_run(bench) -> None:
    bench.run()
    first = bench.result
    (Path(first["run"]) / "summary.json").unlink()
    (Path(first["run"]) / "records.parquet").unlink()
    asked = len(bench.model.asked)
    assert bench.cli("score", first["run"], "--include", bench.task, "--json") == 0
    assert bench.result == first and len(bench.model.asked) == asked


def test_score_of_a_broken_off_run_rests_on_what_is_there(bench) -> None:
    bench.family.model = Broken("raises", bench.model)
    bench.run()
    folder = bench.result["run"]
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert bench.result["status"] == "partial" and bench.result["metrics"]["accuracy"]["n"] == 5


def test_score_warns_when_the_data_changed(bench) -> None:
    bench.run()
    text = (bench.folder / "test.jsonl").read_text().replace('"answer": "no"', '"answer": "yes"')
    (bench.folder / "test.jsonl").write_text(text)
    assert bench.cli("score", bench.result["run"], "--include", bench.task, "--json") == 0
    assert "not what the answers were generated from" in bench.err


def test_the_python_interface(bench) -> None:
    result = evalkit.run(
        bench.model, "yes-no", data_root=bench.folder, include=bench.task, output=bench.output, limit=8
    )
    assert result.metrics["accuracy"].n == 8 and result.status == "partial"
    frame = result.records()
    assert len(frame) == 8 and set(frame["target"]) == {"yes", "no"}
    again = evalkit.load_run(result.path)
    assert again.summary == result.summary and "accuracy" in repr(again)
    with pytest.raises(evalkit.EvalkitError, match="unknown task"):
        evalkit.run(bench.model, "yes-on", output=bench.output)


def test_several_tasks_make_one_document(bench, predictions) -> None:
    answers = predictions("answers.jsonl", "".join(f'{{"id": {i}, "text": "yes"}}\n' for i in range(20)))
    second = bench.folder / "second.py"
    second.write_text(bench.task.read_text().replace('"yes-no"', '"second"').replace("YesNo", "Second"))
    third = bench.folder / "third.py"
    third.write_text(second.read_text().replace('"second"', '"third"').replace("{split}.jsonl", "{split}.no"))
    flags = ["--data-root", bench.folder, "-o", bench.output, "--json"]
    included = [flag for path in (bench.task, second, third) for flag in ("--include", path)]
    model = f"predictions:{answers}"
    assert bench.cli("run", "-m", model, "-t", "yes-no,second", *included, *flags) == 0
    assert [run["task"] for run in bench.document["runs"]] == ["yes-no", "second"]
    assert bench.cli("run", "-m", model, "-t", "third", "-t", "second", *included, *flags) == 3
    assert [run["task"] for run in bench.document["runs"]] == ["second"] and "test.no" in bench.err
