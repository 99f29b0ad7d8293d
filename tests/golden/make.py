"""Makes the golden set again, through the command line and the files it writes.

    python tests/golden/make.py [NAME …]          check: make it again, and say what differs
    python tests/golden/make.py --write [NAME …]  replace the stored results
    python tests/golden/make.py --draw [NAME …]   draw the answers anew (needed only when a miniature changes)

NAME is a file here without its ending: a task, `tiny_model` or `training`. Without one, all are meant.
One file a task holds its miniature's drawn answers and what every protocol makes of them; `tiny_model.jsonl`
holds answers of the packaged model, `training.json` loss curves. Numbers change only on purpose:
whoever writes the set anew says why in the changelog.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import random
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
#: What a run says of time, place and version: never compared.
UNSTABLE = ("run", "created", "seconds", "at", "cpu_flops", "cpu_bytes_per_second")
#: What an entry of a comparison is told by.
NAMES = ("task", "split", "metric")
#: Two sets of answers to each question, so that there is something to compare.
SETS = ("a", "b")
TINY = "mini-internvl-tiny"
#: Names of the files that belong to no task.
TINY_MODEL, TRAINING = "tiny_model", "training"
TINY_SAMPLES = 14
#: Runs of the packaged model beside the usual one: name to options, then the tasks that have them.
TINY_RUNS: Mapping[str, tuple[str, ...]] = {
    "greedy": (),
    "one at a time": ("--batch-size", "1", "--no-sharing"),
    "few tiles": ("--max-tiles", "2"),
    "sampled": ("--gen", "temperature=1.0", "--gen", "top_p=0.9", "--seed", "3"),
    "beams": ("--gen", "num_beams=3"),
}
TINY_MORE: Mapping[str, tuple[str, ...]] = {
    "chartqa": ("one at a time", "few tiles", "sampled", "beams"),
    "bdd-x": ("one at a time", "sampled", "beams"),
    "drivelm": ("few tiles",),
}
#: Tasks that ask a judge, with the protocol that does; they are scored once more with one.
JUDGED = {
    "drivelm": "paper",
    "ai2d": "vlmevalkit",
    "mathvista": "vlmevalkit",
    "mmbench": "vlmevalkit",
    "mmmu": "vlmevalkit",
}
#: What the judge answers, by a hash of the question: numbers for DriveLM, options or values for the others.
VERDICTS = {"drivelm": [str(number) for number in range(101)]}
OPTIONS = ("A", "B", "C", "D", "Z", "3", "yes")

# ------------------------------------------------------------------------------------------ the command line


def call(*arguments: str | Path, allowed: Sequence[int] = (0,)) -> str:
    """Run `evalkit` in this process; returns what it prints on stdout.

    Raises:
        RuntimeError: another exit status than the allowed ones.
    """
    from evalkit.cli.main import invoke

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = invoke([str(argument) for argument in arguments])
    if status not in allowed:
        line = " ".join(str(argument) for argument in arguments)
        raise RuntimeError(
            f"evalkit {line}: exit status {status}\n{out.getvalue()[-500:]}{err.getvalue()[-2000:]}"
        )
    return out.getvalue()


def document(*arguments: str | Path, allowed: Sequence[int] = (0,)) -> Any:
    """The JSON document that a command prints."""
    return json.loads(call(*arguments, "--json", allowed=allowed))


@functools.cache
def tasks() -> Mapping[str, Sequence[str]]:
    """Every task that has a miniature, with its protocols."""
    listed = document("list", "tasks")["tasks"]
    return {task["name"]: task["protocols"] for task in listed if "miniature" in task["splits"]}


def run(model: str, task: str, output: Path, *options: str) -> Mapping[str, Any]:
    """A run of a task's miniature; failed samples are part of it."""
    fixed = (
        "-m",
        model,
        "-t",
        task,
        "--split",
        "miniature",
        "-o",
        output,
        "--no-resume",
        "--max-errors",
        "100%",
    )
    found: Mapping[str, Any] = document("run", *fixed, *options, "-q", allowed=(0, 4))["runs"][0]
    return found


@contextlib.contextmanager
def judge(verdicts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A judge on this machine, as options of `run`; its answer follows from the question alone."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            place = zlib.crc32(body["messages"][-1]["content"].encode()) % len(verdicts)
            message = {"role": "assistant", "content": verdicts[place]}
            answer = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield "--judge", f"http://127.0.0.1:{server.server_port}/v1", "--judge-model", "judge"
    finally:
        server.shutdown()
        server.server_close()


def records(folder: str | Path) -> list[dict[str, Any]]:
    """Rows of a run's records, in its order, with maps as dictionaries."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(Path(folder) / "records.parquet").to_pylist()
    for row in rows:
        row.update(scores=dict(row["scores"]), tags=dict(row["tags"]))
        row.update({name: json.loads(row[name]) for name in ("prediction", "target", "data") if row[name]})
    return rows


# ---------------------------------------------------------------------------------- what is kept of a result


def stable(value: Any) -> Any:
    """A result without times, places and versions; paths inside the miniature become relative."""
    if isinstance(value, Mapping):
        return {
            key: signature(item) if key == "signature" and isinstance(item, str) else stable(item)
            for key, item in value.items()
            if key not in UNSTABLE
        }
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, Mapping) and "metric" in item for item in value):
            # by name, so that a further metric is none of the stored ones changed
            return {" ".join(str(item.get(key)) for key in NAMES): stable(item) for item in value}
        return [stable(item) for item in value]
    if isinstance(value, str) and value.startswith("/"):
        return value.split("/miniature/", 1)[1].split("/", 2)[2] if "/miniature/" in value else "path"
    return value


def signature(text: str) -> Mapping[str, str]:
    """The fields of a signature but evalkit's version."""
    name, version, split, *fields = text.split("|")
    named = dict(field.split(":", 1) for field in fields)
    named.pop("evalkit", None)
    if named.get("judge"):
        named["judge"] = "judge"
    return {"task": name, "task version": version, "split": split, **named}


def digest(values: object) -> str:
    """Twelve digits that stand for what is too long to store."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


# --------------------------------------------------------------------------------------------- drawn answers

ODD = (
    *(
        "",
        " ",
        "\n",
        ".",
        "I cannot tell.",
        "A B",
        "A, B and D",
        "E",
        "Z",
        "(C)",
        "b)",
        "**D**",
        "Option B",
        "AB",
    ),
    *(
        "Answer: C",
        "The answer is (B).",
        "none",
        "nan",
        "inf",
        "1e400",
        "-0",
        "1,000",
        "50%",
        "$3.50",
        "3.0",
        "007",
    ),
    *(
        "yes no",
        "No, yes",
        "Yes, yes",
        "да",
        "三",
        "１２",
        "Ｃ",
        "答案是B",
        "\u202bנכון\u202c",
        "🚗🚗",
        "é",
        "e\u0301",
    ),
    *(
        "<box>[[0,0,1000,1000]]</box>",
        "[100, 200, 300, 400]",
        "<box>[[900,900,100,100]]</box>",
        "<box>[[1,2]]</box>",
    ),
    *(
        "<c1,CAM_FRONT,800.0,450.0>",
        "<c1,CAM_BACK,[62, 750]>",
        "null",
        "{}",
        "[]",
        "0.5m2",
        "between 10 and 20",
    ),
    *(
        "the the the the the the",
        "word " * 60,
        "A" * 300,
        "\\frac{1}{2}",
        "<b>yes</b>",
        "\x00\x07",
        "a\tb",
        "unanswerable",
    ),
)


def right(row: Mapping[str, Any], rng: random.Random) -> str:
    """A right answer, as a model would write it."""
    target = row["target"]
    if isinstance(target, dict):
        return str(next(iter(target.values())))
    if isinstance(target, list) and len(target) == 4 and all(isinstance(x, float) for x in target):
        from PIL import Image

        with Image.open(row["images"][0]) as image:
            width, height = image.size
        shift = rng.choice([0, 0, 0, 1, 4, 9])
        x1, y1, x2, y2 = (round(1000 * v / s) for v, s in zip(target, (width, height) * 2, strict=True))
        return f"<box>[[{x1 + shift * 10},{y1 + shift * 10},{x2 + shift * 10},{y2}]]</box>"
    return str(rng.choice(target) if isinstance(target, list) else target)


def _other_letter(text: str, rng: random.Random) -> str:
    return rng.choice("ABCDE") if len(text) == 1 else text[::-1]


def _number(text: str, rng: random.Random) -> str:
    try:
        value = float(text)
    except ValueError:
        return text.replace("o", "0")
    return f"{value * rng.choice([1.04, 1.05, 1.06, 0.96, 100, 0.01]):.4g}"


def _words(text: str, rng: random.Random) -> str:
    words = text.split()
    if len(words) < 3:
        return text[:-1] if rng.random() < 0.5 else f"{text} {text}"
    kept = [word for word in words if rng.random() < 0.8]
    if rng.random() < 0.3:
        rng.shuffle(kept)
    return " ".join(kept)


CHANGES: Sequence[Callable[[str, random.Random], str]] = (
    lambda text, _: text.lower(),
    lambda text, _: text.upper(),
    lambda text, _: f"{text}.",
    lambda text, _: f"({text})",
    lambda text, _: f"{text}. something",
    lambda text, _: f"The answer is {text}.",
    lambda text, _: f"  {text}\n",
    lambda text, _: f"{text} units",
    lambda text, _: text.replace(" ", ""),
    lambda text, _: text.replace("a", "ä").replace("1", "１"),
    lambda text, rng: text[: rng.randint(0, len(text))],
    _other_letter,
    *(_number, _number),
    *(_words, _words, _words),
)


def draw(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]], name: str, seed: str) -> str | None:
    """One answer: right, right in other words, another question's, odd, or (second set only) none."""
    rng = random.Random(seed)
    kind = rng.random()
    if name == "b" and kind < 0.02:
        return None
    if kind < (0.45 if name == "a" else 0.3):
        return right(row, rng)
    if kind < 0.6:
        return right(rng.choice(others), rng)
    if kind < 0.88:
        return rng.choice(CHANGES)(right(row, rng), rng)
    return rng.choice(ODD)


def draw_answers(task: str, work: Path) -> dict[str, dict[str, str | None]]:
    """Sample id to its answers in both sets; the sets agree on about half."""
    nothing = work / "nothing.jsonl"
    nothing.write_text('{"id": "-", "text": "-"}\n')
    rows = records(run(f"predictions:{nothing}", task, work / "nothing")["run"])
    answers: dict[str, dict[str, str | None]] = {}
    for row in rows:
        alike = [other for other in rows if other["tags"] == row["tags"]]
        first = draw(row, alike, "a", f"{task} {row['id']} a")
        same = random.Random(f"{task} {row['id']} same").random() < 0.5
        answers[row["id"]] = {
            "a": first,
            "b": first if same else draw(row, alike, "b", f"{task} {row['id']} b"),
        }
    return answers


# ---------------------------------------------------------------------------------------- scoring of answers


def score_task(task: str, answers: Mapping[str, Mapping[str, str | None]], work: Path) -> dict[str, Any]:
    """What every protocol makes of a task's answers.

    Returns:
        `runs` by "protocol set": summary, plan, and digests of the requests and of what records hold besides;
        `comparisons` by protocol; `records` by sample id and run: prediction, scores, flags and error.
    """
    results: dict[str, Any] = {"runs": {}, "comparisons": {}, "records": {name: {} for name in answers}}
    files = {name: work / f"{task}-{name}.jsonl" for name in SETS}
    for name, path in files.items():
        texts = [(identifier, given[name]) for identifier, given in answers.items()]
        lines = [
            json.dumps({"id": identifier, "text": text}) for identifier, text in texts if text is not None
        ]
        path.write_text("".join(f"{line}\n" for line in lines))
    for variant in (*tasks()[task], *([f"{JUDGED[task]}, judged"] if task in JUDGED else ())):
        protocol, judged = variant.split(", ")[0], ", " in variant
        folders = []
        for name, path in files.items():
            with judge(VERDICTS.get(task, OPTIONS)) if judged else contextlib.nullcontext(()) as options:
                summary = run(f"predictions:{path}", task, work / "runs", "--protocol", protocol, *options)
            stored = json.loads((Path(summary["run"]) / "summary.json").read_text())
            assert stored == summary, f"{task}: summary.json is not what the command prints"
            folders.append(summary["run"])
            rows = records(summary["run"])
            results["runs"][f"{variant} {name}"] = {
                "summary": stable(summary),
                "order": digest([row["id"] for row in rows]),
                "requests": digest([row["request_key"] for row in rows]),
                "records": digest(
                    [[row[key] for key in ("cluster", "target", "tags", "question")] for row in rows]
                ),
            }
            for row in rows:
                kept = [
                    row["prediction"],
                    row["scores"],
                    row["flags"],
                    row["error_kind"],
                    digest(row["data"]),
                ]
                results["records"][row["id"]][f"{variant} {name}"] = kept
        plan = ("-m", f"predictions:{files['a']}", "-t", task, "--split", "miniature", "--protocol", protocol)
        (dry,) = document("run", *plan, "--dry-run")["plans"]
        results["runs"][f"{variant} a"]["plan"] = stable(dry)
        if judged or JUDGED.get(task) != protocol:
            compared = document("compare", *folders, allowed=(0, 1, 5))
            results["comparisons"][variant] = stable(compared)
    return results


# ---------------------------------------------------------------------------------------- the packaged model


def tiny_runs() -> Iterator[tuple[str, str]]:
    """(task, name of the run): every task once, a few in every way."""
    for task in tasks():
        for name in ("greedy", *TINY_MORE.get(task, ())):
            yield task, name


def tiny_model(work: Path) -> dict[str, dict[str, Any]]:
    """Answers and token counts of the packaged model by "task, run", then by sample id; and its plans."""
    answers: dict[str, dict[str, Any]] = {}
    for task, name in tiny_runs():
        options = (*TINY_RUNS[name], "--limit", str(TINY_SAMPLES), "--dtype", "float32", "--device", "cpu")
        summary = run(TINY, task, work / "tiny", *options)
        counts = ("finish", "prompt_tokens", "visual_tokens", "new_tokens")
        answers[f"{task}, {name}"] = {
            "signature": signature(summary["signature"]),
            "answers": {
                row["id"]: [row["text"], *(row[key] for key in counts)] for row in records(summary["run"])
            },
        }
        if name == "greedy" and task in TINY_MORE:
            (dry,) = document("run", "-m", TINY, "-t", task, "--split", "miniature", *options, "--dry-run")[
                "plans"
            ]
            answers[f"{task}, {name}"]["plan"] = {k: v for k, v in stable(dry).items() if k != "first_prompt"}
    return answers


# -------------------------------------------------------------------------------------------------- training

RECIPE = """\
name: {name}
model: mini-internvl-tiny
output: {output}
trainable: {method}
data: {{meta: {meta}, max_tiles: 2, max_tokens: 400}}
optimizer: {{lr: {lr}, warmup_ratio: 0.2, weight_decay: 0.01}}
packing: {{max_tiles: 9, max_tokens: 500}}
steps: {{packs_per_step: 2, max_steps: 8}}
checkpoints: {{every: 100, keep: 1}}
precision: float32
gradient_checkpointing: false
drop_path: 0.0
seed: 7
"""
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}
TRAININGS = {"full": 1e-3, "lora": 1e-2}


def write_training_data(folder: Path) -> Path:
    """Coloured images with questions, some of two turns, some without an image; returns the meta file."""
    from PIL import Image

    rng = random.Random(5)
    (folder / "images").mkdir(parents=True)
    lines = []
    for position in range(20):
        colour = rng.choice(list(COLOURS))
        line: dict[str, Any] = {"id": position}
        asked = "Say a colour."
        if position % 5:
            asked = "<image>\nWhat colour?"
            line["image"] = f"{position}.png"
            size = rng.choice([(130, 130), (300, 140), (130, 280)])
            Image.new("RGB", size, COLOURS[colour]).save(folder / "images" / f"{position}.png")
        spoken = [{"from": "human", "value": asked}, {"from": "gpt", "value": colour}]
        if position % 3 == 0:
            spoken += [{"from": "human", "value": "Are you sure?"}, {"from": "gpt", "value": "yes"}]
        lines.append(json.dumps({**line, "conversations": spoken}))
    (folder / "colours.jsonl").write_text("".join(f"{line}\n" for line in lines))
    meta = folder / "colours.json"
    meta.write_text(json.dumps({"colours": {"root": "images", "annotation": "colours.jsonl"}}))
    return meta


def trainings(work: Path) -> dict[str, list[dict[str, Any]]]:
    """Step, loss and learning rate of every step, by method."""
    meta = write_training_data(work / "training")
    curves = {}
    for method, lr in TRAININGS.items():
        recipe, output = work / f"{method}.yaml", work / "trained" / method
        recipe.write_text(RECIPE.format(name=method, output=output, method=method, meta=meta, lr=lr))
        call("train", recipe, "-q")
        lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
        curves[method] = [
            {key: line[key] for key in ("step", "loss", "lr")} for line in lines if "loss" in line
        ]
    return curves


# ----------------------------------------------------------------------------------------------------- files


def write_task(
    task: str, answers: Mapping[str, Any], results: Mapping[str, Any], folder: Path = FOLDER
) -> None:
    """One line a run and a comparison, with what all runs share said once; then one line a sample."""
    runs = results["runs"]
    summaries = [one["summary"] for one in runs.values()]
    shared = {
        key: value
        for key, value in summaries[0].items()
        if all(key in other and other[key] == value for other in summaries)
    }
    lines: list[Any] = [{"shared": shared}]
    for name, one in runs.items():
        rest = {key: value for key, value in one["summary"].items() if key not in shared}
        lines.append({"run": name, **one, "summary": rest})
    lines += [{"comparison": name, "result": one} for name, one in results["comparisons"].items()]
    for identifier, given in answers.items():
        alike: list[list[Any]] = []
        for name, kept in results["records"][identifier].items():
            same = next((entry for entry in alike if entry[1] == kept), None)
            if same is None:
                alike.append([[name], kept])
            else:
                same[0].append(name)
        lines.append({"id": identifier, "answers": given, "records": [[" | ".join(n), *k] for n, k in alike]})
    write_lines(folder / f"{task}.jsonl", lines)


def write_lines(path: Path, lines: Sequence[Any]) -> None:
    """One JSON value a line."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def read_task(task: str) -> tuple[dict[str, dict[str, str | None]], dict[str, Any]]:
    """The stored answers and results of a task, as `score_task` returns them."""
    answers: dict[str, dict[str, str | None]] = {}
    results: dict[str, Any] = {"runs": {}, "comparisons": {}, "records": {}}
    shared: Mapping[str, Any] = {}
    for text in (FOLDER / f"{task}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        line = json.loads(text)
        if "shared" in line:
            shared = line["shared"]
        elif "run" in line:
            name = line.pop("run")
            results["runs"][name] = {**line, "summary": {**shared, **line["summary"]}}
        elif "comparison" in line:
            results["comparisons"][line["comparison"]] = line["result"]
        else:
            answers[line["id"]] = line["answers"]
            kept = {name: rest for names, *rest in line["records"] for name in names.split(" | ")}
            results["records"][line["id"]] = kept
    return answers, results


def read_tiny_model() -> dict[str, dict[str, Any]]:
    """The packaged model's stored answers."""
    lines = (FOLDER / "tiny_model.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return {line.pop("run"): line for line in map(json.loads, lines)}


def read_trainings() -> dict[str, Any]:
    """The stored loss curves."""
    curves: dict[str, Any] = json.loads((FOLDER / "training.json").read_text())
    return curves


# ------------------------------------------------------------------------------------------------- comparing


def differences(stored: Any, found: Any, where: str = "", relative: float = 1e-12) -> Iterator[str]:
    """Every difference, with its place. New keys are none; missing and changed ones are."""
    if isinstance(stored, Mapping) and isinstance(found, Mapping):
        for key, value in stored.items():
            place = f"{where} > {key}" if where else str(key)
            if key in found:
                yield from differences(value, found[key], place, relative)
            else:
                yield f"{place}: missing"
    elif isinstance(stored, list) and isinstance(found, (list, tuple)) and len(stored) == len(found):
        for position, (one, other) in enumerate(zip(stored, found, strict=True)):
            yield from differences(one, other, f"{where}[{position}]", relative)
    elif isinstance(stored, float) or isinstance(found, float):
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (stored, found))
        same = stored != stored and found != found  # not-a-number on both sides
        if not numbers or not (same or close(stored, found, relative)):
            yield f"{where}: {short(stored)} became {short(found)}"
    elif stored != found or isinstance(stored, bool) != isinstance(found, bool):
        yield f"{where}: {short(stored)} became {short(found)}"


def short(value: object) -> str:
    """As Python writes it, cut."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"


def close(one: float, other: float, relative: float) -> bool:
    """Equal to `relative` of the larger; zero and infinity only equal themselves (to 1e-15 for zero)."""
    if one == other:
        return True
    largest = max(abs(one), abs(other))
    return largest < float("inf") and abs(one - other) <= max(relative * largest, 1e-15)


def check_task(task: str, work: Path) -> list[str]:
    """What a task's results differ in."""
    answers, stored = read_task(task)
    found = json.loads(json.dumps(score_task(task, answers, work)))
    return list(differences(stored, found, task))


def check_tiny_model(work: Path, allowed: float = 0.005) -> list[str]:
    """What differs in the packaged model's plans and signatures, and its answers where too many differ."""
    stored, found = read_tiny_model(), tiny_model(work)
    other, wrong, total = [], [], 0
    for name, one in stored.items():
        for difference in differences(one, found.get(name, {}), name):
            # prompt and image tokens (places 2 and 3) follow from the question alone
            answer = " > answers > " in difference and not difference.split(": ")[0].endswith(("[2]", "[3]"))
            (wrong if answer else other).append(difference)
        total += len(one["answers"])
    samples = {place.split(": ")[0].rsplit("[", 1)[0] for place in wrong}
    return other + (wrong if len(samples) > allowed * total else [])


def check_trainings(work: Path) -> list[str]:
    """What the loss curves differ in."""
    return list(differences(read_trainings(), trainings(work), "training", relative=1e-4))


def make(names: Sequence[str], work: Path, anew: bool) -> None:
    """Write the files of these names."""
    for task in tasks():
        if task in names:
            answers = draw_answers(task, work) if anew else read_task(task)[0]
            write_task(task, answers, score_task(task, answers, work))
    if TINY_MODEL in names:
        lines = [{"run": name, **one} for name, one in tiny_model(work).items()]
        write_lines(FOLDER / f"{TINY_MODEL}.jsonl", lines)
    if TRAINING in names:
        (FOLDER / f"{TRAINING}.json").write_text(json.dumps(trainings(work), indent=1) + "\n")


def check(names: Sequence[str], work: Path) -> list[str]:
    """What the files of these names differ in."""
    found = [line for task in tasks() if task in names for line in check_task(task, work)]
    found += check_tiny_model(work) if TINY_MODEL in names else []
    return found + (check_trainings(work) if TRAINING in names else [])


def main(arguments: Sequence[str]) -> int:
    """See the top of this file."""
    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in os.environ if name.startswith("EVALKIT_")]:
            del os.environ[name]
        work = Path(folder)
        os.environ["EVALKIT_CACHE"] = str(work / "cache")
        every = [*tasks(), TINY_MODEL, TRAINING]
        parser = argparse.ArgumentParser(
            description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--write", action="store_true")
        parser.add_argument("--draw", action="store_true")
        parser.add_argument("names", metavar="NAME", nargs="*")
        given = parser.parse_args(arguments)
        if unknown := [name for name in given.names if name not in every]:
            parser.error(f"no such file: {', '.join(unknown)}; there are {', '.join(every)}")
        names = given.names or every
        if given.write or given.draw:
            make(names, work, anew=given.draw)
            return 0
        found = check(names, work)
        print("\n".join(found) or "nothing differs")
        return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
