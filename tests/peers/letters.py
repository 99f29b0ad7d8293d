"""Multiple-choice tasks, scored by the other harnesses' own code (make.py)."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import string
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from drawn import Pair, Question
from harnesses import Found, Lmms, Vlm, alone, internvl_functions, mean


def letter_row(question: Question, text: str, number: int) -> dict[str, Any]:
    """A row of a VLMEvalKit table."""
    data = question["data"]
    return {
        "index": number,
        "question": data["question"],
        **data["options"],
        "answer": question["target"],
        "prediction": text,
    }


def ai2d(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    docs = [
        {"options": list(q["data"]["options"].values()), "answer": string.ascii_uppercase.index(q["target"])}
        for q, _ in pairs
    ]
    config = lmms.utils.load_yaml_config(str(lmms.tasks / "ai2d/ai2d.yaml"))
    gold = config["doc_to_target"]
    results = lmms.results("ai2d/ai2d.yaml", docs, [t for _, t in pairs], lambda doc: gold(doc, "mcq"))
    first = [float(result["exact_match"]) for result in results]
    stored, accuracy = vlm.choices(
        "ImageMCQDataset", "AI2D_TEST", [letter_row(q, t, i) for i, (q, t) in enumerate(pairs)]
    )
    second = [float(hit) for hit in stored.sort_values("index")["hit"]]
    (exact,) = internvl_functions(internvl / "vqa/evaluate_vqa.py", "evaluate_exact_match_accuracy")
    third = [alone(lambda q=q, t=t: exact([{"answer": t, "annotation": q["target"]}])) for q, t in pairs]
    metrics = {
        "lmms-eval": mean(first),
        "vlmevalkit": 100 * float(accuracy["Overall"][0]),
        "internvl": mean(third),
    }
    return {"lmms-eval": first, "vlmevalkit": second, "internvl": third}, {
        p: {"accuracy": v} for p, v in metrics.items()
    }


def mmmu(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    rows = []
    for number, (question, text) in enumerate(pairs):
        row = letter_row(question, text, number)
        if question["data"]["open"]:
            row |= {"A": float("nan"), "B": float("nan"), "answer": question["data"]["answers"][0]}
        rows.append({**row, "split": "validation"})
    stored, accuracy = vlm.choices("MMMUDataset", "MMMU_DEV_VAL", rows)
    scores = [float(hit) for hit in stored.sort_values("index")["hit"]]
    return {"vlmevalkit": scores}, {"vlmevalkit": {"accuracy": 100 * float(accuracy["Overall"][0])}}


def gmai(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    groups = {"clinical vqa task": "t", "department": "d", "perceptual granularity": "image"}
    stored, accuracy = vlm.choices(
        "GMAIMMBenchDataset",
        "GMAI-MMBench_VAL",
        [{**letter_row(q, t, i), **groups} for i, (q, t) in enumerate(pairs)],
    )
    scores = [float(hit) for hit in stored.sort_values("index")["hit"]]
    return {"vlmevalkit": scores}, {"vlmevalkit": {"overall": 100 * float(accuracy["Overall"][0])}}


def mathvista(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    """Whether the rules find an answer right by themselves: a right number 0 goes to the judge there."""
    scores = []
    for question, text in pairs:
        data = question["data"]
        line = {
            "prediction": text,
            "answer": data["answer"],
            "answer_option": data["answer"],
            "choices": str(list(data["options"].values())),
        }
        line |= {
            "question_type": "multi_choice" if data["options"] else "free_form",
            "answer_type": data["kind"],
        }
        found = vlm.mathvista.post_check(line, prefetch=True)
        scores.append(
            float(vlm.mathvista.post_check({**line, "res": found}, prefetch=False)) if found else 0.0
        )
    return {"vlmevalkit": scores}, {"vlmevalkit": {"accuracy_rules": mean(scores)}}


def mme(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    import pandas

    docs = [
        {
            "index": i,
            "answer": q["target"],
            "category": f"{q['tags']['Task']}/Autonomous_Driving",
            "l2-category": q["tags"]["Category"],
        }
        for i, (q, _) in enumerate(pairs)
    ]
    file = "mme_realworld/mme_realworld.yaml"
    results = [r["mme_realworld_score"] for r in lmms.results(file, docs, [t for _, t in pairs], None)]
    total = lmms.utils.load_yaml_config(str(lmms.tasks / file))["metric_list"][0]["aggregation"]
    first = [float(total([result])) for result in results]
    table = pandas.DataFrame(
        [{**doc, "prediction": text} for doc, (_, text) in zip(docs, pairs, strict=True)]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/p.json"
        Path(path).write_text("[]")
        stored: dict[str, Any] = {}
        replaced = {
            "get_intermediate_file_path": lambda file, suffix, fmt=None: f"{folder}/{suffix}",
            "dump": lambda data, file: stored.__setitem__(Path(file).name, data),
            "load": lambda file: table,
        }
        with (
            mock.patch.multiple(vlm.mcq, **replaced),
            mock.patch.object(vlm.rules, "load", replaced["load"]),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            rating = vlm.mcq.MMERealWorld.evaluate(path)
    second = [float(score) for score in stored["_score"]["score"]]
    process, evaluate = internvl_functions(
        internvl / "domain_specific/mme_rw/evaluate.py", "post_process", "evaluate"
    )
    items = [
        {
            "answer": process(t, q["data"]["choices"]),
            "gt_answers": q["target"],
            "task": q["tags"]["Task"],
            "category": q["tags"]["Category"],
        }
        for q, t in pairs
    ]
    third = [float(item["answer"] == item["gt_answers"]) for item in items]
    with contextlib.redirect_stdout(io.StringIO()):
        pooled = evaluate(items)
    metrics = {
        "lmms-eval": {"average": 100 * total(results)},
        "vlmevalkit": {
            "average": 100 * rating["Overall"],
            "perception": 100 * rating["Perception"]["Avg"],
            "reasoning": 100 * rating["Reasoning"]["Avg"],
        },
        "internvl": {"average": 100 * pooled},
    }
    return {"lmms-eval": first, "vlmevalkit": second, "internvl": third}, metrics


def mmbench(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    """Every answer round is a whole set: the score of a base row is its question's circular score."""
    rounds: dict[str, list[Pair]] = {}
    for pair in pairs:
        rounds.setdefault(pair[0]["round"], []).append(pair)
    evaluator = importlib.import_module("lmms_eval.tasks.mmbench.mmbench_evals").MMBench_Evaluator
    # without a judge an unresolved row is wrong, never a draw
    evaluator.extract_answer_from_item = lambda self, item: (
        self.can_infer(item["prediction"], self.build_choices(item)) or "Z",
        "",
    )
    utils = importlib.import_module("lmms_eval.tasks.mmbench.en_utils")
    first: dict[int, float] = {}
    second: dict[int, float] = {}
    for group in rounds.values():
        docs = []
        for q, _ in group:
            cells = {letter: q["data"]["options"].get(letter, "nan") for letter in "ABCDE"}
            cells |= {
                "index": q["data"]["index"],
                "question": q["data"]["question"],
                "answer": q["target"],
                "hint": "nan",
                "source": "",
                "split": "dev",
            }
            docs.append({**cells, "category": q["tags"]["category"], "L2-category": q["tags"]["l2-category"]})
        found = lmms.results("mmbench/mmbench_en_dev.yaml", docs, [t for _, t in group], None)
        for position, (q, _) in enumerate(group):
            base = q["data"]["index"] % 10**6
            if q["data"]["index"] != base:
                continue
            same = [
                f["gpt_eval_score"]
                for f, (other, _) in zip(found, group, strict=True)
                if other["data"]["index"] % 10**6 == base
            ]
            with contextlib.redirect_stdout(io.StringIO()):
                overall = utils.mmbench_evaluator.eval_result(copy.deepcopy(same), eval_method="openai")[0]
            first[id(group[position])] = float(overall)
        rows = []
        for q, t in group:
            rows.append(
                {
                    **letter_row(q, t, q["data"]["index"]),
                    "category": q["tags"]["category"],
                    "l2-category": "l",
                    "split": "dev",
                }
            )
        stored, _ = vlm.choices("ImageMCQDataset", "MMBench_DEV_EN", rows)
        by_index = dict(zip(stored["index"], stored["hit"], strict=True))
        for pair in group:
            if pair[0]["data"]["index"] in by_index:
                second[id(pair)] = float(by_index[pair[0]["data"]["index"]])
    scores = {
        "lmms-eval": [first.get(id(pair)) for pair in pairs],
        "vlmevalkit": [second.get(id(pair)) for pair in pairs],
    }
    return scores, {}
