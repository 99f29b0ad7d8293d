"""Scoring stored answers: evalkit's whole command beside the other harnesses' own code (a part of peers.py).

ChartQA and DocVQA, drawn questions of which every other answer is wrong. evalkit reads the benchmark's files
and hashes its images, stores every answer, and gives intervals; of lmms-eval only the functions that score an
answer are called, in a loop; of VLMEvalKit, where a source tree is given, `evaluate` of the data set's class
on a spreadsheet of predictions, as it stores them.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peers import TORCHVISION, Line, Peers, draw

#: What VLMEvalKit's code imports besides the packages of this environment.
PACKAGES = ("validators==0.36.0", "sty==1.0.6", "xlsxwriter==3.3.1")
WORDS = ("rising", "falling", "north", "south", "insurance policy", "march of last year", "total revenue")
#: Table of questions, what scores one of them, and where the value goes.
LMMS = f"""{TORCHVISION}
import json, sys
from lmms_eval.api.metrics import anls
from lmms_eval.tasks.chartqa.utils import chartqa_process_results
def chartqa(row): return chartqa_process_results(row, [row["prediction"]])["relaxed_overall"]
def docvqa(row): return anls(references=row["answer"], predictions=[row["prediction"]])["anls"]
score = dict(chartqa=chartqa, docvqa=docvqa)[sys.argv[1]]
scores = [score(json.loads(line)) for line in open(sys.argv[2])]
json.dump(100 * sum(scores) / len(scores), open(sys.argv[3], "w"))
"""
#: Source tree, data set, spreadsheet, and where the value goes. The packages' own __init__ would import every
#: model and data set.
VLM = """
import importlib, json, sys, types
tree, name, table, value = sys.argv[1:]
sys.path.insert(0, tree)
for package in ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.utils"):
    module = types.ModuleType(package)
    module.__path__ = [tree + "/" + package.replace(".", "/")]
    module.build_judge, module.DEBUG_MESSAGE = None, ""
    sys.modules[package] = module
kind = importlib.import_module("vlmeval.dataset.image_vqa").ImageVQADataset
data = kind.__new__(kind)
data.dataset_name = name
json.dump(float(data.evaluate(table)["Overall"][0]), open(value, "w"))
"""


def scoring(peers: Peers, count: int, vlmevalkit: Path | None) -> Iterator[tuple[str, list[Line]]]:
    """Each benchmark with the commands that score `count` answers to it."""
    for task, table, metric in (("chartqa", "ChartQA_TEST", "average"), ("docvqa", "DocVQA_VAL", "anls")):
        folder = peers.place / f"scoring_{task}_{count}"
        rows = _rows(task, count)
        _write(folder, task, rows)
        runs, value = folder / "runs", folder / "value.json"
        command = [sys.executable, "-m", "evalkit", "run", "-m", f"predictions:{folder / 'answers.jsonl'}"]
        command += ["-t", task, "--protocol", "vlmevalkit", "--data-root", str(folder), "-o", str(runs), "-q"]
        if task == "docvqa":
            command += ["--split", "val"]
        command += ["--no-resume"]
        lines = [Line("evalkit, whole run", command, count, runs, metric)]
        theirs = [peers.python, "-c", LMMS, task, str(folder / "rows.jsonl"), str(value)]
        lines += [Line("lmms-eval's functions", theirs, value=value)]
        if vlmevalkit is not None:
            peers.install(PACKAGES)
            theirs = [peers.python, "-c", VLM, str(vlmevalkit.resolve()), table, _spreadsheet(folder, rows)]
            lines += [Line("VLMEvalKit's evaluate", [*theirs, str(value)], value=value)]
        yield task, lines


def _rows(task: str, count: int) -> list[dict[str, Any]]:
    """Questions with their answers, in the form that lmms-eval's functions take."""
    drawn = random.Random(0)
    rows = []
    for number in range(count):
        truth = (
            str(drawn.randint(10, 9999)) if number % 2 else f"{drawn.choice(WORDS)} {drawn.randint(1, 99)}"
        )
        said = truth if drawn.random() < 0.5 else truth[:-1] + "#"
        row: dict[str, Any] = {"id": number, "prediction": said, "type": "human_test"}
        rows.append({**row, "answer": truth if task == "chartqa" else [truth, f"the {truth}"]})
    return rows


def _write(folder: Path, task: str, rows: Sequence[dict[str, Any]]) -> None:
    """The benchmark's files with an image for every other question, evalkit's answers, lmms-eval's rows."""
    folder.mkdir(parents=True, exist_ok=True)
    chartqa = task == "chartqa"
    images = folder / ("test/png" if chartqa else "val/documents")
    names = [path.name for path in draw(images, len(rows) // 2, (64, 64))]
    of = [names[row["id"] * 7 % len(names)] for row in rows]
    text = "What does the text beside the tallest bar say, number {}?"
    if chartqa:
        items: Any = [{"imgname": image, "query": text.format(row["id"]), "label": row["answer"]}
                      for row, image in zip(rows, of, strict=True)]  # fmt: skip
        (folder / "test/test_human.json").write_text(json.dumps(items[: len(rows) // 2]), encoding="utf-8")
        (folder / "test/test_augmented.json").write_text(
            json.dumps(items[len(rows) // 2 :]), encoding="utf-8"
        )
        ids = [f"{part}-{row}" for part in ("human", "augmented") for row in range(len(rows) // 2)]
    else:
        items = [{"questionId": row["id"], "question": text.format(row["id"]), "answers": row["answer"],
                  "image": f"documents/{image}"} for row, image in zip(rows, of, strict=True)]  # fmt: skip
        (folder / "val/val_v1.0.json").write_text(json.dumps({"data": items}), encoding="utf-8")
        ids = [str(row["id"]) for row in rows]
    stored = [{"id": name, "text": row["prediction"]} for name, row in zip(ids, rows, strict=True)]
    for name, lines in (("answers.jsonl", stored), ("rows.jsonl", rows)):
        (folder / name).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def _spreadsheet(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    """The predictions as VLMEvalKit stores them; a list of answers is its text."""
    import pandas

    table = pandas.DataFrame(
        {
            "index": row["id"],
            "question": "What?",
            "answer": str(row["answer"]),
            "prediction": row["prediction"],
        }
        for row in rows
    )
    table.to_excel(folder / "predictions.xlsx", index=False)
    return str(folder / "predictions.xlsx")
