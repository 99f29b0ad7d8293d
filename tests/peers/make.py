"""Makes the expected scores of this folder by running the other harnesses' own code on drawn answers.

    python tests/peers/make.py --lmms-eval FOLDER --vlmevalkit FOLDER --internvl FOLDER [--task NAME]

The folders hold the source trees at the commits of `COMMITS` (of InternVL the folder internvl_chat/eval);
what they import must be installed too. Questions and answers are drawn with a fixed seed. An answer takes
each harness's whole path behind the model. For lmms-eval: the task's filter, stripping of reasoning,
`process_results`, and the aggregation. For VLMEvalKit: `evaluate` of the data set's class without a judge,
or what it calls line by line, on a pickled table (its spreadsheets turn an empty answer, and texts such as
None or NA, into the text nan). For InternVL: what its scripts call on the list of answers. No weights,
images or network are needed. The project itself runs none of their code: it compares with the stored
scores.

One gzip file a task: questions as lines `{"id", "target", "tags", "data"}`, then lines
`[question, answer, {protocol: score}]` (null: the harness stops with an error there), then one line
`{"metrics": {protocol: {metric: value}}}` where the harness's own aggregate over all answers was kept.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gzip
import importlib
import io
import json
import pickle
import random
import re
import string
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

COMMITS = {"lmms-eval": "75571cf", "vlmevalkit": "e8e78f0", "internvl": "2410d1d"}
FOLDER = Path(__file__).parent
Scores = list[float | None]
FORMULAS = "Handwritten Mathematical Expression Recognition"

# ------------------------------------------------------------------------------------- questions and answers

WORDS = (
    *[
        "cat",
        "dog",
        "bird",
        "sun",
        "moon",
        "star",
        "red",
        "green",
        "blue",
        "river",
        "stop",
        "exit",
        "12",
        "7",
        "3.5",
        "2015",
        "0",
        "100",
        "1,000",
        "50%",
        "$5",
        "yes",
        "no",
    ],
    *("the red car", "a", "an apple", "none", "nan", "None", "Joe's", "don't", "dont know", "two", "3rd St."),
    *(
        "猫",
        "红色",
        "три",
        "нет",
        "קר",
        "نعم",
        "ｃａｔ",
        "１２",
        "é",
        "e\u0301",
        "naïve",
        "ß",
        "İ",
        "ﬁn",
        "🚗",
    ),
    *(
        "x^2",
        "\\frac{1}{2}",
        "y _ 1",
        "U.S.A.",
        "10:30",
        "-4",
        "1e3",
        "0.5m2",
        "New York City",
        "all of these",
    ),
)
REASONING = (
    "<think>{other}</think>{text}",
    "<think>\nIt is {other}.\n</think>\n\n{text}",
    "<analysis>{other}</analysis> {text}",
    "<think>a</think><analysis>{other}</analysis>{text}",
    "{other}</think>{text}",
    "{other}</think>{other}</think> {text}",
    "<think>{other} {text}",
    "{text}<think>{other}</think>",
    "<THINK>{other}</THINK>{text}",
    "<thinking>{other}</thinking>{text}",
    "<think><think>{other}</think></think>{text}",
    "</think>{text}<think>",
    "<think>{other}</think><answer>{text}</answer>",
)
DRESSINGS = (
    *(
        "{text}.",
        "({text})",
        "{text})",
        "({text}",
        "[{text}]",
        "**{text}**",
        "{text}:",
        "{text},",
        "{text}. {other}",
    ),
    *(
        "{text}: {other}",
        "({text}) {other}",
        "Answer: {text}",
        "The answer is {text}.",
        "the answer is **{text}**",
    ),
    *(
        "The best answer is {text}",
        "Best answer:{text}",
        "The correct option is {text}.",
        "Option {text}",
        "It is {text}",
    ),
    *(
        "  {text}\n",
        "\n\n{text}",
        "\t{text}",
        "{text}\u3000",
        "{text} {other}",
        "{other} {text}",
        "{text} or {other}",
    ),
    *(
        "I think that it is {text}, not {other}",
        "\\boxed{{{text}}}",
        "$\\boxed{{{text}}}$",
        '"{text}"',
        "'{text}'",
    ),
    *("<answer>{text}</answer>", "<answer> {text}\n</answer> not {other}", "{other} <answer>{text}</answer>"),
    *(
        "<answer>{text}",
        "<answer></answer>{text}",
        "[[12, 30, 400, 500]] {text}",
        "答案是{text}。",
        "答案：{text}",
    ),
    *(
        "A {text} is shown",
        "{text} is shown in the image, as one can see from the colours",
        "#{text}#",
        "{text}!",
        "{text}%",
    ),
    *(
        "{text} units",
        "{text}{text}",
        "Sorry, I can't help with images of people yet. {text}",
        "Z {text}",
        "{text} Z",
    ),
    *(
        "Cannot determine the answer {text}",
        "Failed to obtain answer via API. {text}",
        "Answer is not {other} but {text}",
    ),
)
ODD = (
    *(
        "",
        " ",
        "\n",
        ".",
        "Z",
        "E",
        "nan",
        "none",
        "None",
        "A B",
        "A, B and D",
        "AB",
        "b",
        "b)",
        "(C)",
        "Ｃ",
        "Ａ.",
        "а",
        "α",
    ),
    *(
        "I cannot tell.",
        "[]",
        "{}",
        "[1, 2]",
        "['cat', 'dog']",
        "inf",
        "-0",
        "1_000",
        "１２",
        "五",
        "<think></think>",
    ),
    *(
        "<think>",
        "</think>",
        "<analysis></analysis>",
        "<answer></answer>",
        "a man rides a horse on a beach at sunset",
    ),
    *(
        "word " * 30,
        "A" * 60,
        "yes no",
        "the",
        "a an the",
        "\ufeffA",
        "A\u200b",
        "\xa0A\xa0",
        "A.B.C.",
        "A.cat",
        "a. cat",
    ),
)
NUMBERS = (1.04, 1.05, 1.06, 0.96, 0.95, 0.94, 100, 0.01)
CAPTIONS = ("{text} on a table", "there is {text} in the picture", "a photo of {text} and {other}")


def answers_to(right: Sequence[str], others: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Answers without end: right or not, in every dressing."""
    while True:
        kind, text, other = rng.random(), rng.choice(right), rng.choice(others)
        if rng.random() < 0.35:
            text, other = other, text
        if rng.random() < 0.15:
            text = rng.choice((text.lower(), text.upper(), text.capitalize(), text.title()))
        if kind < 0.15:
            yield text
        elif kind < 0.35:
            inner = rng.choice(DRESSINGS).format(text=text, other=other) if rng.random() < 0.4 else text
            yield rng.choice(REASONING).format(text=inner, other=other)
        elif kind < 0.75:
            yield rng.choice(DRESSINGS).format(text=text, other=other)
        elif kind < 0.8:
            yield rng.choice(CAPTIONS).format(text=text, other=other)
        elif kind < 0.88:
            yield _number(text, rng)
        else:
            yield rng.choice(ODD)


def _number(text: str, rng: random.Random) -> str:
    try:
        return f"{float(text.rstrip('%')) * rng.choice(NUMBERS):.4g}{rng.choice(('', '', '%', '.0'))}"
    except ValueError:
        return text[: rng.randint(0, len(text))]


def choices(rng: random.Random, count: int | None = None) -> dict[str, str]:
    """Options by letter."""
    texts = rng.sample(WORDS, count or rng.choice((2, 3, 4, 4, 4, 5)))
    return dict(zip(string.ascii_uppercase, texts, strict=False))


Question = dict[str, Any]


def _question(
    number: int, target: Any, data: Mapping[str, Any], tags: Mapping[str, str] | None = None
) -> Question:
    return {"id": str(number), "target": target, "tags": dict(tags or {}), "data": dict(data)}


def draw_ai2d(rng: random.Random, number: int) -> Question:
    options = choices(rng)
    return _question(
        number, rng.choice(list(options)), {"options": options, "question": f"Which is it, {number}?"}
    )


def draw_mmmu(rng: random.Random, number: int) -> Question:
    if rng.random() < 0.6:
        return draw_ai2d(rng, number) | {
            "data": {**draw_ai2d(random.Random(number), number)["data"], "open": False}
        }
    answer = rng.choice([*WORDS, "B", "V"])
    data = {"options": {"A": answer, "B": "Other Answers"}, "question": f"How many, {number}?", "open": True}
    target = answer if answer in tuple(string.ascii_uppercase) else "A"
    return _question(number, target, {**data, "answers": [answer]})


def draw_mathvista(rng: random.Random, number: int) -> Question:
    kind = rng.choice(("text", "integer", "float", "list"))
    options = choices(rng) if kind == "text" else {}
    answer = (
        rng.choice(list(options)) if options else {"integer": "14", "float": "1.45", "list": "[1, 2]"}[kind]
    )
    return _question(number, answer, {"options": options, "answer": answer, "kind": kind, "query": "q"})


def draw_mmbench(rng: random.Random, number: int) -> Question:
    copy_of, base = divmod(number, 8)
    options = choices(random.Random(base), random.Random(base).choice((2, 3, 4, 5)))
    turned = list(options.values())
    turned = turned[copy_of % len(turned) :] + turned[: copy_of % len(turned)]
    index = copy_of * 10**6 + base
    options = dict(zip(string.ascii_uppercase, turned, strict=False))
    data = {"index": index, "options": options, "question": f"Which is it, {number}?"}
    return _question(index, rng.choice(list(options)), data, {"category": f"c{base % 2}", "l2-category": "l"})


def draw_mme(rng: random.Random, number: int) -> Question:
    shown = [f"({letter}) {text}" for letter, text in choices(rng, 5).items()]
    tags = {"Task": rng.choice(("Perception", "Reasoning")), "Category": rng.choice(("Objects", "Attention"))}
    return _question(number, rng.choice("ABCDE"), {"choices": shown}, tags)


def draw_chartqa(rng: random.Random, number: int) -> Question:
    target = rng.choice([*WORDS, "[2012, 2013]", "['yes', 'no']", "[Yes, No]", "100", "0.5", "-3", "1e3"])
    return _question(number, [target], {}, {"subset": ("human", "augmented")[number % 2]})


def draw_page(rng: random.Random, number: int) -> Question:
    return _question(
        number,
        [rng.choice(WORDS) + rng.choice(("", "", " Inc.", "  (b)")) for _ in range(rng.choice((1, 2, 3)))],
        {},
    )


def draw_textvqa(rng: random.Random, number: int) -> Question:
    said = rng.sample(
        [*WORDS, "St. Mary's", "no. 5", "5.", "1.", "coca-cola", "let's go", "she's", "Im", "Id've"], 4
    )
    return _question(number, [rng.choice(said) for _ in range(10)], {})


def draw_ocrbench(rng: random.Random, number: int) -> Question:
    kind = rng.choice(
        (FORMULAS, "Regular Text Recognition", "Scene Text-centric VQA", "Key Information Extraction")
    )
    target = ["\\frac { 1 } { 2 }\n", "Y _ 1"] if kind == FORMULAS else rng.sample(WORDS, rng.choice((1, 2)))
    return _question(number, target, {}, {"type": kind})


def draw_rsvqa(rng: random.Random, number: int) -> Question:
    kind = rng.choice(("count", "area", "presence", "comp", "rural_urban"))
    target = {
        "count": rng.choice(("0", "7", "100", "101", "2000")),
        "area": rng.choice(("0m2", "12m2", "122m2", "5000m2")),
    }
    return _question(
        number, target.get(kind, rng.choice(("yes", "no", "rural", "urban"))), {}, {"type": kind}
    )


def draw_dior(rng: random.Random, number: int) -> Question:
    left, top = rng.randint(0, 500), rng.randint(0, 500)
    target = [float(left), float(top), float(left + rng.randint(2, 299)), float(top + rng.randint(2, 299))]
    return _question(number, target, {"size": [800, 800]})


def boxes(question: Question, rng: random.Random) -> str:
    """An answer that is a box, near the target or not, in some notation."""
    shift = rng.choice((0, 0, 3, 10, 40, 90))
    numbers = [round(value / 800 * 1000) + rng.choice((0, shift, -shift)) for value in question["target"]]
    if rng.random() < 0.1:
        numbers = [number / 1000 for number in numbers]
    inner = ", ".join(map(str, numbers))
    forms = (
        "[[{}]]",
        "<box>[[{}]]</box>",
        "[{}]",
        "[[{}], [1, 2, 3, 4]]",
        "[[{}, 7]]",
        "{}",
        "<ref>it</ref><box>[[{}]]</box>",
    )
    more = (
        "box [[{}]] and [[1, 2, 3, 4]]",
        "[[ {} ]]",
        "[[[{}]]]",
        "[[{}",
        "<think>[[1,2,3,4]]</think>[[{}]]",
        "[[a, {}]]",
    )
    return rng.choice((*forms, *forms[:2], *more)).format(inner)


# ------------------------------------------------------------------------------------------------- lmms-eval


class Lmms:
    """lmms-eval's path behind the model."""

    def __init__(self, tree: Path) -> None:
        sys.path.insert(0, str(tree))
        self.tasks = tree / "lmms_eval" / "tasks"
        self.utils = importlib.import_module("lmms_eval.utils")
        self.task = importlib.import_module("lmms_eval.api.task").ConfigurableTask
        self.reasoning = importlib.import_module("lmms_eval.api.reasoning")
        self.filters = importlib.import_module("lmms_eval.filters")
        self.registry = importlib.import_module("lmms_eval.api.registry")
        importlib.import_module("lmms_eval.api.metrics")
        source = (tree / "lmms_eval" / "__main__.py").read_text()
        default = re.search(r'"--reasoning_tags",\s*type=str,\s*default=\'(.*?)\'', source)
        assert default is not None
        self.tags = json.loads(default[1])

    def results(
        self, file: str, docs: Sequence[Mapping[str, Any]], texts: Sequence[str], gold: Callable[[Any], Any]
    ) -> list[Any]:
        """What process_results makes of each answer."""
        config = self.utils.load_yaml_config(str(self.tasks / file))
        metrics = {m["metric"]: self.registry.METRIC_REGISTRY.get(m["metric"]) for m in config["metric_list"]}
        extra = {
            m["metric"]: {
                k: v for k, v in m.items() if k not in ("metric", "aggregation", "higher_is_better")
            }
            for m in config["metric_list"]
        }
        task = types.SimpleNamespace(
            OUTPUT_TYPE=config["output_type"],
            config=types.SimpleNamespace(process_results=config.get("process_results"), doc_to_choice=None),
            multiple_target=config["task"] in ("docvqa_val", "infovqa_val"),
            doc_to_target=gold,
            _metric_fn_list=metrics,
            _metric_fn_kwargs=extra,
        )
        chain = config.get("filter_list") or [{"filter": [{"function": "take_first"}]}]
        parts = [
            [part["function"], {k: v for k, v in part.items() if k != "function"} or None]
            for part in chain[0]["filter"]
        ]
        ensemble = self.filters.build_filter_ensemble("f", parts)
        instances = [types.SimpleNamespace(resps=[text], filtered_resps={}) for text in texts]
        ensemble.apply(instances, docs)
        found = []
        for doc, instance in zip(docs, instances, strict=True):
            filtered = instance.filtered_resps["f"]
            assert isinstance(filtered, str)
            stripped = self.reasoning.strip_reasoning_tags(filtered, self.tags)
            found.append(self.task.process_results.__wrapped__(task, copy.deepcopy(doc), [stripped]))
        return found


# ------------------------------------------------------------------------------------------------ VLMEvalKit


class Vlm:
    """VLMEvalKit's `evaluate` without a judge."""

    def __init__(self, tree: Path) -> None:
        sys.path.insert(0, str(tree))
        for name in ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.utils"):
            # the packages' own __init__ would import every model and data set
            module = types.ModuleType(name)
            module.__path__ = [str(tree / name.replace(".", "/"))]
            module.__dict__.update(build_judge=None, DEBUG_MESSAGE="")
            sys.modules[name] = module
        self.mcq = importlib.import_module("vlmeval.dataset.image_mcq")
        self.vqa = importlib.import_module("vlmeval.dataset.image_vqa")
        self.rules = importlib.import_module("vlmeval.dataset.utils.multiple_choice")
        self.vqa_eval = importlib.import_module("vlmeval.dataset.utils.vqa_eval")
        self.mathvista = importlib.import_module("vlmeval.dataset.utils.mathvista")

    def choices(
        self, kind: str, name: str, rows: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Mapping[str, Any]], Any]:
        """Rows with `hit`, and the table that `evaluate` returns."""
        import pandas

        table = pandas.DataFrame(rows)
        data = getattr(self.mcq, kind).__new__(getattr(self.mcq, kind))
        data.data, data.dataset_name = table, name
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/p.pkl"
            Path(file).write_bytes(pickle.dumps(table))
            self.rules.get_pred_file_format = lambda: "pkl"
            self.mcq.get_intermediate_file_path = lambda path, suffix, fmt=None: path.replace(
                ".pkl", f"{suffix}.pkl"
            )
            accuracy = data.evaluate(file, model="exact_matching", nproc=1)
            stored = pickle.loads(Path(f"{folder}/p_exact_matching_result.pkl").read_bytes())
        return stored, accuracy

    def answers(self, method: str, name: str, rows: Sequence[Mapping[str, Any]]) -> Scores:
        """What ImageVQADataset.evaluate scores line by line (it does so in a pool of processes)."""
        lines = [self.vqa_eval.process_line(row, method=method) for row in rows]
        return [float(value) for value in self.vqa_eval.hit_calculate(lines, name)]


# ------------------------------------------------------------------------------------------------- InternVL


def internvl_functions(file: Path, *names: str) -> list[Any]:
    """Functions of a script, which is not imported: that would ask for torch.distributed and weights."""
    import ast

    tree = ast.parse(file.read_text())
    kept = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name in names]
    space: dict[str, Any] = {"re": re, "json": json, "Optional": Any}
    exec(compile(ast.Module(kept, []), str(file), "exec"), space)
    return [space[name] for name in names]


def alone(score: Callable[[], Any]) -> float | None:
    """One score; None where the harness stops with an error."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return float(score())
    except Exception:
        return None


# ---------------------------------------------------------------------------------------------------- tasks

Pair = tuple[Question, str]
Found = tuple[dict[str, Scores], dict[str, dict[str, float]]]


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


def mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return 100 * sum(known) / len(known)


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
    (distance,) = internvl_functions(internvl / "vqa/infographicsvqa_eval.py", "levenshtein_distance")
    third = [internvl_anls(distance, t, q["target"]) for q, t in pairs]
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


def rsvqa(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    names = ("is_correct_count", "is_correct_area", "calculate_scores")
    functions = internvl_functions(internvl / "domain_specific/rs_vqa/score.py", *names)
    items = [{"question_type": q["tags"]["type"], "response": t, "gt_answer": q["target"]} for q, t in pairs]
    scores = [alone(lambda item=item: functions[2]([item])[1]) for item in items]
    return {"internvl": scores}, {}


def dior(pairs: Sequence[Pair], lmms: Lmms, vlm: Vlm, internvl: Path) -> Found:
    names = ("calculate_iou", "transform_bbox", "evaluation_metrics")
    evaluate = internvl_functions(internvl / "domain_specific/rs_det/caculate.py", *names)[2]
    items = [{"gt_answers": q["target"], "image_size": q["data"]["size"], "answer": t} for q, t in pairs]
    scores = [alone(lambda item=item: evaluate([item])["Acc@0.5:"]) for item in items]
    return {"internvl": scores}, {"internvl": {"acc_0.5": mean(scores)}}


def internvl_anls(distance: Callable[[str, str], int], text: str, references: Sequence[str]) -> float:
    """The loop of infographicsvqa_eval.py's evaluate_method over one question, around its own distance."""
    values = []
    for answer in references:
        given, said = (" ".join(part.strip().lower().split()) for part in (answer, text))
        length = max(len(answer.upper()), len(text.upper()))
        values.append(0.0 if length == 0 else float(distance(given, said)) / float(length))
    score = 1 - min(values)
    return 0.0 if score < 0.5 else score


TASKS: Mapping[str, tuple[Callable[[random.Random, int], Question], Callable[..., Found]]] = {
    "ai2d": (draw_ai2d, ai2d),
    "chartqa": (draw_chartqa, chartqa),
    "dior-rsvg": (draw_dior, dior),
    "docvqa": (draw_page, docvqa),
    "gmai-mmbench": (draw_ai2d, gmai),
    "infovqa": (draw_page, infovqa),
    "mathvista": (draw_mathvista, mathvista),
    "mmbench": (draw_mmbench, mmbench),
    "mme-realworld-driving": (draw_mme, mme),
    "mmmu": (draw_mmmu, mmmu),
    "ocrbench": (draw_ocrbench, ocrbench),
    "rsvqa-lr": (draw_rsvqa, rsvqa),
    "textvqa": (draw_textvqa, textvqa),
}
QUESTIONS, ANSWERS = 40, 12


def right_answers(question: Question) -> list[str]:
    target, options = question["target"], question["data"].get("options") or {}
    if isinstance(target, list):
        return [str(item) for item in target]
    return [target, target, options[target]] if target in options else [str(target)]


def drawn_pairs(name: str, draw: Callable[[random.Random, int], Question]) -> list[Pair]:
    """Questions, each with answers."""
    rng = random.Random(name)
    questions = [draw(rng, number) for number in range(QUESTIONS if name != "mmbench" else 24)]
    pairs: list[Pair] = []
    for place in range(ANSWERS if name != "mmbench" else 40):
        for question in questions:
            others = [
                *right_answers(rng.choice(questions)),
                *(question["data"].get("options") or {}).values(),
                *"ABCDE",
            ]
            if name == "dior-rsvg":
                text = boxes(question, rng)
            elif name == "mmbench" and rng.random() < 0.6:
                text = rng.choice((question["target"], f"{question['target']}.", f"({question['target']})"))
            else:
                text = next(answers_to(right_answers(question), others, rng))
            pairs.append(({**question, "round": str(place)}, text))
    return pairs


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in COMMITS:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--task", choices=[*TASKS])
    given = parser.parse_args()
    lmms, vlm = Lmms(given.lmms_eval), Vlm(given.vlmevalkit)
    for name in [given.task] if given.task else TASKS:
        draw, score = TASKS[name]
        pairs = drawn_pairs(name, draw)
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
