"""Makes the expected scores of this folder by running the other harnesses' own code on drawn answers.

    python tests/peers/make.py --lmms-eval FOLDER --vlmevalkit FOLDER --internvl FOLDER [--task NAME]

The folders hold the source trees at the commits of `COMMITS` (of InternVL the folder internvl_chat/eval);
what they import must be installed too. A task needs the folders of its own protocols alone. Questions and
answers are drawn with a fixed seed. An answer takes each harness's whole path behind the model. For
lmms-eval: the task's filter, stripping of reasoning, `process_results`, and the aggregation. For VLMEvalKit:
`evaluate` of the data set's class without a judge, or what it calls line by line, on a pickled table (its
spreadsheets turn an empty answer, and texts such as None or NA, into the text nan). For InternVL: what its
scripts call on the list of answers. No weights, images or network are needed. The project itself runs none of
their code: it compares with the stored scores.

One gzip file a task: questions as lines `{"id", "target", "tags", "data"}`, then lines
`[question, answer, {protocol: score}]` (null: the harness stops with an error there), then one line
`{"metrics": {protocol: {metric: value}}}` where the harness's own aggregate over all answers was kept.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import random
import sys
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import drawn
from drawn import FORMULAS, Pair, Question
from harnesses import Found, Lmms, Scores, Vlm, alone, internvl_functions, mean
from letters import ai2d, gmai, mathvista, mmbench, mme, mmmu

COMMITS = {"lmms-eval": "75571cf", "vlmevalkit": "e8e78f0", "internvl": "2410d1d"}
FOLDER = Path(__file__).parent


def chartqa(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    docs = [{"answer": q["target"][0], "type": f"{q['tags']['subset']}_test"} for q, _ in pairs]
    results = lmms.results("chartqa/chartqa.yaml", docs, [t for _, t in pairs], None)
    first = [result["relaxed_overall"] for result in results]
    second = vlm.answers(
        "relaxed_accuracy", "ChartQA_TEST", [{"answer": q["target"][0], "prediction": t} for q, t in pairs]
    )
    relaxed, evaluate = internvl_functions(
        internvl / "vqa/evaluate_vqa.py", "relaxed_correctness", "evaluate_relaxed_accuracy"
    )
    evaluate.__globals__["relaxed_correctness"] = relaxed
    third = [alone(lambda q=q, t=t: evaluate([{"answer": t, "annotation": q["target"]}])) for q, t in pairs]
    metrics: dict[str, dict[str, float]] = {
        "lmms-eval": {"average": mean(first)},
        "vlmevalkit": {"average": mean(second)},
    }
    for name in ("human", "augmented"):
        metrics["lmms-eval"][name] = mean(
            [r[f"relaxed_{name}_split"] for r in results if f"relaxed_{name}_split" in r]
        )
    return {"lmms-eval": first, "vlmevalkit": second, "internvl": third}, metrics


def page(lmms_file: str, vlm_name: str, pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    docs = [{"answers": q["target"]} for q, _ in pairs]
    first = [
        float(r["anls"])
        for r in lmms.results(lmms_file, docs, [t for _, t in pairs], lambda doc: doc["answers"])
    ]
    second = vlm.answers("anls", vlm_name, [{"answer": str(q["target"]), "prediction": t} for q, t in pairs])
    third = internvl_anls(pairs, internvl)
    metrics = {"lmms-eval": mean(first), "vlmevalkit": mean(second), "internvl": mean(third)}
    return {"lmms-eval": first, "vlmevalkit": second, "internvl": third}, {
        p: {"anls": v} for p, v in metrics.items()
    }


def docvqa(*given: Any) -> Found:
    return page("docvqa/docvqa_val.yaml", "DocVQA_VAL", *given)


def infovqa(*given: Any) -> Found:
    return page("infovqa/infovqa_val.yaml", "InfoVQA_VAL", *given)


def textvqa(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    docs = [{"question_id": i, "answers": list(q["target"])} for i, (q, _) in enumerate(pairs)]
    first = [
        r["exact_match"] for r in lmms.results("textvqa/textvqa_val.yaml", docs, [t for _, t in pairs], None)
    ]
    second = vlm.answers(
        "vqa_score", "TextVQA_VAL", [{"answer": str(q["target"]), "prediction": t} for q, t in pairs]
    )
    sys.path.insert(0, str(internvl / "vqa"))
    evaluator = importlib.import_module("textvqa_eval").TextVQAAccuracyEvaluator()
    third = [
        alone(lambda q=q, t=t: evaluator.eval_pred_list([{"pred_answer": t, "gt_answers": q["target"]}]))
        for q, t in pairs
    ]
    metrics = {"lmms-eval": mean(first), "vlmevalkit": mean(second), "internvl": mean(third)}
    return {"lmms-eval": first, "vlmevalkit": second, "internvl": third}, {
        p: {"vqa_accuracy": v} for p, v in metrics.items()
    }


def ocrbench(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    import pandas

    docs = [
        {
            "answer": q["target"],
            "question_type": q["tags"]["type"],
            "dataset": "HME100k" if q["tags"]["type"] == FORMULAS else "other",
        }
        for q, _ in pairs
    ]
    results = lmms.results("ocrbench/ocrbench.yaml", docs, [t for _, t in pairs], None)
    first = [float(result["ocrbench_accuracy"]["score"]) for result in results]
    second = []
    for q, t in pairs:
        table = pandas.DataFrame(
            [{"prediction": t, "answer": str(q["target"]), "category": q["tags"]["type"]}]
        )
        replaced = {
            "get_intermediate_file_path": lambda file, suffix, fmt=None: file,
            "dump": lambda data, file: None,
            "tqdm": lambda items: items,
            "load": lambda file, table=table: table,
        }
        with mock.patch.multiple(vlm.vqa, **replaced):
            second.append(float(vlm.vqa.OCRBench.evaluate("p.pkl")["Final Score"]))
    return {"lmms-eval": first, "vlmevalkit": second}, {
        p: {"score": 10 * mean(s)} for p, s in (("lmms-eval", first), ("vlmevalkit", second))
    }


def rsvqa(pairs: Sequence[Pair], lmms: Lmms | None, vlm: Vlm | None, internvl: Path) -> Found:
    names = ("is_correct_count", "is_correct_area", "calculate_scores")
    functions = internvl_functions(internvl / "domain_specific/rs_vqa/score.py", *names)
    items = [{"question_type": q["tags"]["type"], "response": t, "gt_answer": q["target"]} for q, t in pairs]
    scores = [alone(lambda item=item: functions[2]([item])[1]) for item in items]
    return {"internvl": scores}, {}


def dior(pairs: Sequence[Pair], lmms: Lmms | None, vlm: Vlm | None, internvl: Path) -> Found:
    names = ("calculate_iou", "transform_bbox", "evaluation_metrics")
    evaluate = internvl_functions(internvl / "domain_specific/rs_det/caculate.py", *names)[2]
    items = [{"gt_answers": q["target"], "image_size": q["data"]["size"], "answer": t} for q, t in pairs]
    scores = [alone(lambda item=item: evaluate([item])["Acc@0.5:"]) for item in items]
    return {"internvl": scores}, {"internvl": {"acc_0.5": mean(scores)}}


def internvl_anls(pairs: Sequence[Pair], internvl: Path) -> Scores:
    """InternVL's script for both benchmarks, which reads the truth and the answers from files."""
    sys.path.insert(0, str(internvl / "vqa"))
    script = importlib.import_module("infographicsvqa_eval")
    truth = [{"questionId": i, "question": "", "answers": q["target"]} for i, (q, _) in enumerate(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("truth.json", "answers.json")]
        files[0].write_text(json.dumps({"data": truth}))
        files[1].write_text(json.dumps([{"questionId": i, "answer": t} for i, (_, t) in enumerate(pairs)]))
        settings = types.SimpleNamespace(answer_types=False, anls_threshold=0.5)
        found = script.evaluate_method(str(files[0]), str(files[1]), settings)
    return [float(found["per_sample_result"][str(place)]["score"]) for place in range(len(pairs))]


TASKS: Mapping[str, tuple[Callable[[random.Random, int], Question], Callable[..., Found]]] = {
    "ai2d": (drawn.draw_ai2d, ai2d),
    "chartqa": (drawn.draw_chartqa, chartqa),
    "dior-rsvg": (drawn.draw_dior, dior),
    "docvqa": (drawn.draw_page, docvqa),
    "gmai-mmbench": (drawn.draw_ai2d, gmai),
    "infovqa": (drawn.draw_page, infovqa),
    "mathvista": (drawn.draw_mathvista, mathvista),
    "mmbench": (drawn.draw_mmbench, mmbench),
    "mme-realworld-driving": (drawn.draw_mme, mme),
    "mmmu": (drawn.draw_mmmu, mmmu),
    "ocrbench": (drawn.draw_ocrbench, ocrbench),
    "rsvqa-hr": (drawn.draw_rsvqa_hr, rsvqa),
    "rsvqa-lr": (drawn.draw_rsvqa, rsvqa),
    "textvqa": (drawn.draw_textvqa, textvqa),
}


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in COMMITS:
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--task", choices=[*TASKS])
    given = parser.parse_args()
    lmms = Lmms(given.lmms_eval) if given.lmms_eval else None
    vlm = Vlm(given.vlmevalkit) if given.vlmevalkit else None
    for name in [given.task] if given.task else TASKS:
        draw, score = TASKS[name]
        pairs = drawn.drawn_pairs(name, draw)
        scores, metrics = score(pairs, lmms, vlm, given.internvl)
        lines: list[Any] = list(
            {q["id"]: {k: v for k, v in q.items() if k != "round"} for q, _ in pairs}.values()
        )
        for place, (question, text) in enumerate(pairs):
            lines.append(
                [
                    question["id"],
                    text,
                    {p: None if s[place] is None else round(s[place], 12) for p, s in scores.items()},
                ]
            )
        lines.append({"metrics": metrics})
        content = "".join(f"{json.dumps(line, ensure_ascii=True)}\n" for line in lines)
        (FOLDER / f"{name}.jsonl.gz").write_bytes(gzip.compress(content.encode(), mtime=0))
        print(name, len(pairs), {p: round(mean(s), 2) for p, s in scores.items()})


if __name__ == "__main__":
    main()
