"""How fast a clustered interval of DriveLM's composite is, beside a bootstrap that scores each resample anew.

    python benchmarks/compare.py [--records 20000] [--resamples 10000]

Both resample frames of the same invented answers with the same metric; the baseline hands the drawn records
to the metric again, as a bootstrap around an ordinary scorer does. It runs a few resamples, and its time is
scaled. Last, `evalkit compare` of two stored runs of RSVQA-HR with as many samples, as a user gives it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from children import timed
from overhead import write_files

from evalkit.answers import REPLY
from evalkit.contracts import Record
from evalkit.metrics.base import Metric
from evalkit.metrics.captions import tokenize
from evalkit.statistics import ClusterSums, Resampler, difference, estimate
from evalkit_tasks.driving.drivelm_metrics import metrics
from evalkit_tasks.driving.drivelm_scorer import ACCURACY, GPT, LANGUAGE, MATCH

_FRAME = (ACCURACY,) * 7 + (GPT,) * 9 + (LANGUAGE,) * 2 + (MATCH,) * 2
_WORDS = ("the", "a", "car", "van", "truck", "sign", "light", "is", "are", "to", "in", "of", "front", "left")


def answers(count: int, seed: int, shift: float = 0.0) -> list[Record]:
    """Invented, scored answers, a frame of 20 questions each; `shift` makes them better."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        frame, place = divmod(number, len(_FRAME))
        ability = float(np.sin(frame * 12.9898)) + shift
        tag = _FRAME[place]
        target = " ".join(rng.choice(_WORDS, size=12)) + "."
        kept = rng.random(12) < 0.5 + 0.2 * ability
        words = [w if keep else str(rng.choice(_WORDS)) for w, keep in zip(target.split(), kept, strict=True)]
        rating = float(np.clip(60 + 20 * ability + 10 * rng.normal(), 0, 100))
        scores = {
            ACCURACY: {"accuracy": float(rng.random() < 0.6 + 0.2 * ability)},
            GPT: {"chatgpt": rating, "judge_failed": 0.0},
            LANGUAGE: {},
            MATCH: {"match_f1": rating / 100, "match_chatgpt": rating, "judge_failed": 0.0},
        }[tag]
        data = {"tags": [tag], REPLY: "60"}
        records.append(
            Record(f"{frame}_{place}", f"frame-{frame}", "", " ".join(words), target, scores, data=data)
        )
    return records


def rescoring(metric: Metric, records: Sequence[Record], resamples: int, seed: int = 0) -> list[float]:
    """Draw frames, gather their records, score them all again."""
    frames: dict[str, list[Record]] = {}
    for record in records:
        frames.setdefault(record.cluster, []).append(record)
    groups = list(frames.values())
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = [r for place in rng.integers(0, len(groups), len(groups)) for r in groups[place]]
        values.append(float(metric.value(metric.statistics(drawn).sum(axis=0))))
    return values


def command(samples: int) -> tuple[float, float]:
    """Processor seconds and clock of `evalkit compare` of two runs: medians of three."""
    with tempfile.TemporaryDirectory() as place:
        data, runs = Path(place, "data"), []
        write_files(data, samples, 100)
        for name, every in (("base", 5), ("new", 7)):
            answers = ({"id": i, "text": ("yes", "no")[i % 3 == 0 or i % every == 0]} for i in range(samples))
            stored = Path(place, f"{name}.jsonl")
            stored.write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
            output = Path(place, name)
            run = [sys.executable, "-m", "evalkit", "run", "-m", f"predictions:{stored}", "-t", "rsvqa-hr"]
            timed([*run, "--data-root", str(data), "-o", str(output), "-q"], check=True, capture_output=True)
            runs.append(str(next(output.rglob("summary.json")).parent))
        compare = [sys.executable, "-m", "evalkit", "compare", *runs]
        turns = [timed(compare, capture_output=True) for _ in range(3)]
    if any(turn.done.returncode not in (0, 1, 5) for turn in turns):
        sys.exit("evalkit compare did not compare")
    processor = statistics.median(turn.processor for turn in turns)
    return processor, statistics.median(turn.clock for turn in turns)


def main() -> None:
    """Print both times, their ratio, and both standard errors; and what the command takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--baseline-resamples", type=int, default=20)
    options = parser.parse_args()
    base, new = answers(options.records, 0), answers(options.records, 1, shift=0.02)
    final = metrics()[0]
    for records in (base, new):
        tokenize([record.prediction for record in records])  # both sides find the tokeniser warm

    started = time.perf_counter()
    value = estimate(final, base, resamples=options.resamples)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    found = difference(final, base, new, Resampler(resamples=options.resamples))
    paired = time.perf_counter() - started
    started = time.perf_counter()
    replicates = rescoring(final, base, options.baseline_resamples)
    theirs = (time.perf_counter() - started) / options.baseline_resamples * options.resamples

    sums = ClusterSums.of(final, base)
    print(f"{sums.n} records in {sums.clusters} frames, {options.resamples} resamples of {final.name}")
    print(f"value {value.value:.4f}, 95% interval {value.ci95}")
    print(f"cluster sums, interval        {ours:9.2f} s")
    print(
        f"cluster sums, paired          {paired:9.2f} s   difference {found.difference:+.4f}, p {found.p:.2g}"
    )
    print(
        f"scoring each resample anew    {theirs:9.1f} s   (scaled from {options.baseline_resamples} "
        f"resamples; their standard deviation {np.std(replicates):.4f})"
    )
    print(f"ratio                         {theirs / ours:9.0f}")
    processor, clock = command(options.records)
    print(
        f"evalkit compare, two runs of {options.records}: {processor:.2f} s of the processor, "
        f"{clock:.2f} on the clock"
    )


if __name__ == "__main__":
    main()
