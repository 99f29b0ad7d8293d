"""The same work by evalkit and by lmms-eval, in turns: one command for the whole table.

    python benchmarks/peers.py [--rounds 3] [--part start --part instant ...] [--place FOLDER]
                               [--sizes 2000 20000] [--questions 200] [--images 24] [--answers 20000]
                               [--vlmevalkit FOLDER] [--json FILE]

lmms-eval is installed in an environment of its own under the place (`--place`, default `build/peers`), on top
of this environment's packages, so that both run the same torch and transformers. Every line is a process;
the processes of a part take turns, round after round, and the table shows the medians of their processor
seconds and of the clock. Both ask the same questions about the same images, of a random InternVL in
transformers' layout (float32, one thread), or of a model that answers at once.

The part `scoring` (`peers_scoring.py`) scores stored answers, with VLMEvalKit too where `--vlmevalkit` names
its source tree. Captions beside pycocoevalcap are in `captions_command.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.contracts import Generation, Record, Response, Sample
from evalkit.data.images import ImageFile
from evalkit.files import read_jsonl
from evalkit.metrics.base import Accuracy, Metric
from evalkit.task import Task, record

#: lmms-eval and what it imports besides the packages of this environment.
PACKAGES = (
    "lmms-eval==0.7.3", "loguru==0.7.3", "jsonlines==4.0.0", "pytablewriter==1.2.1", "DataProperty==1.1.1",
    "mbstrdecoder==1.1.5", "pathvalidate==3.3.1", "tabledata==1.3.5", "typepy==2.0.0", "tcolorpy==0.1.7",
    "evaluate==0.4.6", "sqlitedict==2.1.0", "pytz==2026.6", "chardet==7.7.0", "aiohttp==3.14.5",
    "multidict==7.2.1", "yarl==1.25.1", "propcache==0.5.4", "aiohappyeyeballs==2.7.1", "aiosignal==1.4.0",
    "frozenlist==1.8.0", "torchvision==0.28.0", "sacrebleu==2.6.0", "colorama==0.4.6", "lxml==6.1.3",
    "portalocker==4.4.2", "tabulate==0.10.0", "tenacity==9.2.1",
)  # fmt: skip
#: Beside a torch of another build, torchvision misses its compiled operations; nothing here needs them.
TORCHVISION = """
import torch
operations = torch.version.cuda is None and torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms") if operations else ():
    operations.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
#: Its adapters load bfloat16, which a CPU without instructions for it computes in float32, slowly.
IN_FLOAT32 = f"""{TORCHVISION}
import runpy, sys
from transformers import PreTrainedModel
load = PreTrainedModel.from_pretrained.__func__
def in_float32(kind, *names, **settings):
    settings.pop("torch_dtype", None)
    return load(kind, *names, **(settings | dict(dtype=torch.float32)))
PreTrainedModel.from_pretrained = classmethod(in_float32)
sys.argv[0] = "lmms_eval"
runpy.run_module("lmms_eval", run_name="__main__")
"""
TASK = """
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
task: {name}
test_split: test
output_type: generate_until
doc_to_visual: !function functions.visual
doc_to_text: !function functions.text
doc_to_target: answer
process_results: !function functions.results
generation_kwargs: {{max_new_tokens: 8, temperature: 0, do_sample: false}}
metric_list: [{{metric: exact, aggregation: mean, higher_is_better: true}}]
"""
FUNCTIONS = """
from PIL import Image
def visual(doc): return [Image.open(doc["image"]).convert("RGB")]
def text(doc, settings=None): return doc["question"]
def results(doc, answers): return {"exact": float(answers[0].strip() == doc["answer"])}
"""
PARTS = ("start", "instant", "shared", "single", "scoring")


class Questions(Task):
    """The questions of a part, from `questions.jsonl`; evalkit's commands include this file for them."""

    name = "questions"
    generation = Generation(max_new_tokens=8)

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`."""
        for row in read_jsonl(root / "questions.jsonl"):
            yield Sample(
                row["id"], (row["question"],), (ImageFile(row["image"]),), row["answer"], row["image"]
            )

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        right = float(response.text.strip() == sample.target)
        return record(sample, response, prediction=response.text, scores={"exact": right})

    def metrics(self) -> Sequence[Metric]:
        """Equal texts."""
        return [Accuracy("exact")]


class Line(NamedTuple):
    """One command of a part: what it is called, the arguments, and how many questions it answers, where.

    Attributes:
        metric: whose value in the output is compared. value: file that holds the command's own.
    """

    who: str
    command: Sequence[str]
    questions: int = 0
    output: Path | None = None
    metric: str = ""
    value: Path | None = None

    def figure(self) -> float | None:
        """The value that all commands of its part must have, where it has one."""
        if self.value is not None:
            return float(json.loads(self.value.read_text(encoding="utf-8")))
        if not self.metric or self.output is None:
            return None
        summary = next(self.output.rglob("summary.json")).read_text(encoding="utf-8")
        return float(json.loads(summary)["metrics"][self.metric]["value"])


class Peers:
    """The environment of lmms-eval and the files of both sides."""

    def __init__(self, place: Path) -> None:
        self.place = place.resolve()
        self.python = str(self.place / "environment" / "bin" / "python")

    def set_up(self) -> None:
        """Create the environment, once."""
        home = Path(self.python).parents[1]
        if not (home / "packages.txt").exists():
            venv.create(home, clear=True, with_pip=True)
            packages = [path for path in sys.path if path.endswith("site-packages")]
            found = next(home.glob("lib/python*/site-packages"))
            lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in packages)
            (found / "packages.pth").write_text(lines, encoding="utf-8")
            (home / "packages.txt").touch()
        self.install(PACKAGES)

    def install(self, packages: Sequence[str]) -> None:
        """Put packages into the environment, without what they ask for; once."""
        listed = Path(self.python).parents[1] / "packages.txt"
        missing = [name for name in packages if name not in listed.read_text(encoding="utf-8").split()]
        if missing:
            subprocess.run([self.python, "-m", "pip", "install", "-q", "--no-deps", *missing], check=True)
            with listed.open("a", encoding="utf-8") as file:
                file.writelines(f"{name}\n" for name in missing)

    def write(self, name: str, count: int, images: Sequence[Path]) -> None:
        """The questions of both sides, those of an image one after the other, and answers to store."""
        folder = self.place / name
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {"id": str(i), "image": str(images[i * len(images) // count]), "answer": "A",
             "question": f"Is a small building number {i} present next to the road? Answer with one word."}
            for i in range(count)
        ]  # fmt: skip
        questions = folder / "questions.jsonl"
        questions.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
        answers = ({"id": row["id"], "text": "A"} for row in rows)
        (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)) + "\n", encoding="utf-8")
        tasks = folder / "tasks"
        tasks.mkdir(exist_ok=True)
        (tasks / f"{name}.yaml").write_text(TASK.format(questions=questions, name=name), encoding="utf-8")
        (tasks / "functions.py").write_text(FUNCTIONS, encoding="utf-8")

    def ours(self, who: str, name: str, size: int, model: str, *flags: str) -> Line:
        """evalkit over the questions of that name."""
        folder = self.place / name
        command = [sys.executable, "-m", "evalkit", "run", "-m", model, "-t", Questions.name, "-q"]
        command += ["--include", str(Path(__file__).resolve()), "--data-root", str(folder), "--no-resume"]
        return Line(who, [*command, "-o", str(folder / "runs"), *flags], size, folder / "runs")

    def theirs(self, who: str, name: str, size: int, model: str, *flags: str) -> Line:
        """lmms-eval over the same questions."""
        folder = self.place / name
        command = [self.python, "-c", IN_FLOAT32, "--model", model, "--tasks", name, "--log_samples"]
        command += ["--include_path", str(folder / "tasks"), "--output_path", str(folder / "lmms")]
        return Line(who, [*command, *flags], size, folder / "lmms")


def draw(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """PNG files of noise in blocks, drawn once."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{size[0]}x{size[1]}-{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            blocks = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path)
    return paths


def network(folder: Path) -> Path:
    """A random InternVL of 35 million parameters in transformers' layout, made once."""
    if not (folder / "config.json").exists():
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        from small_vlms import make_vlm

        vision = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 8}
        text = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6}
        make_vlm(
            "internvl", folder, spread=0.02, tile={"size": 448, "patch": 14, "most": 12},
            vision={**vision, "num_attention_heads": 6},
            **text, num_attention_heads=8, num_key_value_heads=2, vocab_size=512,
        )  # fmt: skip
        path = folder / "preprocessor_config.json"
        colours = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
        path.write_text(json.dumps({**json.loads(path.read_text()), **colours}), encoding="utf-8")
    return folder


def parts(peers: Peers, options: argparse.Namespace) -> Iterator[tuple[str, list[Line]]]:
    """The parts asked for, each with its commands; files are written when a part begins."""
    asked = options.part or PARTS
    if "start" in asked:
        both = ([sys.executable, "-m", "evalkit", "--help"], [peers.python, "-m", "lmms_eval", "--help"])
        yield "start", [Line("evalkit", both[0]), Line("lmms-eval", both[1])]
    if "instant" in asked:
        lines = []
        for size in options.sizes:
            name = f"instant_{size}"
            peers.write(name, size, draw(peers.place / "images", 20, (64, 64)))
            stored = f"predictions:{peers.place / name / 'answers.jsonl'}"
            lines += [peers.ours("evalkit", name, size, stored)]
            lines += [peers.theirs("lmms-eval", name, size, "dummy")]
        yield "instant", lines
    shapes: tuple[tuple[str, tuple[int, ...], Callable[[int], list[Path]]], ...] = (
        ("shared", (options.questions,), lambda n: draw(peers.place / "images", max(1, n // 20), (448, 448))),
        ("single", (options.images, 3 * options.images),
         lambda n: draw(peers.place / "images", n, (1344, 896))),
    )  # fmt: skip
    for part, sizes, images in shapes:
        if part not in asked:
            continue
        model = network(peers.place / "network")
        lines = []
        for size in sizes:
            name = f"{part}_{size}"
            peers.write(name, size, images(size))
            place = f"pretrained={model},device=cpu,device_map=cpu"
            lines += [peers.ours("evalkit, in-repo", name, size, str(model), *ON_CPU)]
            for rows in ("1", "8") if part == "shared" else ("1",):
                flags = (*ON_CPU, "--batch-size", rows)
                lines += [peers.ours(f"evalkit, hf:, batch {rows}", name, size, f"hf:{model}", *flags)]
            given = ("--model_args", place, "--batch_size", "1")  # its adapter refuses more
            lines += [peers.theirs("lmms-eval", name, size, "internvl_hf", *given)]
        yield part, lines
    if "scoring" in asked:
        from peers_scoring import scoring  # evalkit reads this file too, with no look at those beside it

        yield from scoring(peers, options.answers, options.vlmevalkit)


ON_CPU = ("--device", "cpu", "--dtype", "float32", "--gen", "max_new_tokens=8")


#: Seconds of the processor and of the clock, and the peak memory of the largest process in 10^6 bytes.
MEASURES = ("processor", "clock", "megabytes")


def run(line: Line, place: Path) -> dict[str, float]:
    """What a command takes (`MEASURES`), which must have answered all; `log.txt` has its output."""
    from children import storing_compiled  # evalkit reads this file too, with no look at those beside it

    here = place / "here"  # lmms-eval takes a folder of a task's name for the task
    here.mkdir(exist_ok=True)
    if line.output is not None:
        shutil.rmtree(line.output, ignore_errors=True)
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **one_thread, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    started, environment = time.perf_counter(), storing_compiled(environment)
    with (place / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            line.command, cwd=here, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or (line.output is not None and answered(line.output) != line.questions):
        sys.exit(f"{line.who}: did not answer all (status {process.returncode}); see {place / 'log.txt'}")
    taken = used.ru_utime + used.ru_stime, time.perf_counter() - started, used.ru_maxrss * 1024 / 1e6
    return dict(zip(MEASURES, taken, strict=True))


def answered(output: Path) -> int:
    """Answers in what a command wrote: the status alone says little, lmms-eval's is 0 after an error."""
    files = [*output.rglob("responses-*.jsonl"), *output.rglob("*_samples_*.jsonl")]
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


def measured(part: str, lines: Sequence[Line], rounds: int, place: Path) -> list[dict[str, Any]]:
    """Medians of the commands of a part, which take turns; and what a further question takes."""
    turns: list[list[dict[str, float]]] = []
    figures = set[float]()
    for _ in range(rounds):
        turns.append([])
        for line in lines:
            turns[-1].append(run(line, place))
            if (figure := line.figure()) is not None:
                figures.add(round(figure, 9))
    if len(figures) > 1:
        sys.exit(f"{part}: values differ: {figures}")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        row: dict[str, Any] = {"part": part, "who": line.who, "questions": line.questions}
        row |= {name: statistics.median(turn[number][name] for turn in turns) for name in MEASURES}
        fewer = next((r for r in rows if r["who"] == line.who and r["questions"] < line.questions), None)
        if fewer is not None:
            more = line.questions - fewer["questions"]
            row |= {f"further_{name}": (row[name] - fewer[name]) / more for name in ("processor", "clock")}
        rows.append(row)
        print(
            f"{part:8} {line.who:22} {line.questions or '':>6} {row['processor']:9.2f} {row['clock']:9.2f} "
            f"{row['megabytes']:8.0f}"
            + (f" {row['further_processor']:11.4f} {row['further_clock']:9.4f}" if fewer else ""),
            flush=True,
        )
    return rows


def main() -> None:
    """Set up, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--place", type=Path, default=Path("build/peers"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20000], help="of the instant model")
    parser.add_argument("--questions", type=int, default=200, help="on images that twenty questions share")
    parser.add_argument("--images", type=int, default=8, help="with one question; and three times as many")
    parser.add_argument("--answers", type=int, default=20_000, help="that are scored")
    parser.add_argument("--vlmevalkit", type=Path, help="its source tree, whose scoring is timed too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers = Peers(options.place)
    peers.place.mkdir(parents=True, exist_ok=True)
    peers.set_up()
    heads = f"{'part':8} {'who':22} {'n':>6} {'processor':>9} {'clock, s':>9} {'peak, MB':>8}"
    print(f"{heads} {'a further':>11} {'clock':>9}")
    rows: list[dict[str, Any]] = []
    for part, lines in parts(peers, options):
        rows += measured(part, lines, options.rounds, peers.place)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
