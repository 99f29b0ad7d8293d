"""How fast a clustered interval of DriveLM's composite is, beside a bootstrap that scores each resample anew.

    python benchmarks/compare.py [--records 20000] [--resamples 10000]

Both resample frames of the same invented answers with the same metric; the baseline hands the drawn records
to the metric again, as a bootstrap around an ordinary scorer does. It runs a few resamples, and its time is
scaled.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

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


def main() -> None:
    """Print both times, their ratio, and both standard errors."""
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


if __name__ == "__main__":
    main()
