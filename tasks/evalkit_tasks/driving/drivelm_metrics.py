"""The values of the DriveLM challenge, in the units of Table 4: fractions, `chatgpt` and `match` 0 to 100.

A value rests on the records of its tag that pass the graph rule. Where a tag has none, the challenge's code
divides by zero; here the value is null with its reason, and so is every value computed from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy, BoolArray, Composite, FloatArray, Mean, Metric, chosen
from evalkit.metrics.captions import Bleu, CaptionPair, Cider, RougeL
from evalkit.metrics.package_variants import NltkBleu, RougeScoreL
from evalkit_tasks.driving.drivelm_questions import TAG_NAMES
from evalkit_tasks.driving.drivelm_scorer import ACCURACY, GPT, LANGUAGE, MATCH, counts, of_kind

NO_JUDGE = "no judge given"


def metrics() -> list[Metric]:
    """The columns of Table 4 in its order, `language` and `match_f1` (parts of composites) beside theirs.

    Last come BLEU-4 and ROUGE-L by other packages, which enter no composite.
    """
    accuracy = _Explained(Accuracy("accuracy", unit="fraction", scale=1.0, select=counts(ACCURACY)), ACCURACY)
    chatgpt = _Explained(_Rating("chatgpt", GPT), GPT)
    bleu = [Bleu(f"bleu_{order}", order, unit="fraction", scale=1.0, pairs=_pairs) for order in range(1, 5)]
    rouge_l = RougeL("rouge_l", unit="fraction", scale=1.0, pairs=_pairs)
    cider = Cider("cider", unit="fraction", scale=1.0, pairs=_pairs)
    captions = [_Explained(metric, LANGUAGE) for metric in (*bleu, rouge_l, cider)]
    language = _Combined("language", captions, _language, unit="fraction")
    found = Mean("match_f1", unit="fraction", scale=1.0, select=counts(MATCH))
    match_f1 = _Explained(found, MATCH)
    match = _Combined("match", [match_f1, _Explained(_Rating("match_chatgpt", MATCH), MATCH)], _match)
    final = _Combined("final_score", [chatgpt, language, match, accuracy], _final, unit="fraction")
    variants = [
        _Explained(metric, LANGUAGE)
        for metric in (
            NltkBleu("bleu_4.nltk", 4, unit="fraction", scale=1.0, pairs=_pairs),
            RougeScoreL("rouge_l.rouge_score", unit="fraction", scale=1.0, pairs=_pairs),
        )
    ]
    return [final, accuracy, chatgpt, *captions, language, match, match_f1, *variants]


def left_out() -> Metric:
    """Share of answered questions that the graph rule leaves out; smaller means more objects found."""
    return Mean("left_out", unit="fraction", scale=1.0, higher_is_better=False)


def _language(parts: FloatArray) -> FloatArray:
    """A third each: mean of BLEU-1 to BLEU-4, ROUGE-L, CIDEr over ten. Not clipped."""
    summed: FloatArray = parts[..., :4].sum(axis=-1) / 12 + parts[..., 4] / 3 + parts[..., 5] / 30
    return summed


def _match(parts: FloatArray) -> FloatArray:
    """Mean of the F1 in percent and the judge's rating."""
    mean: FloatArray = (100 * parts[..., 0] + parts[..., 1]) / 2
    return mean


def _final(parts: FloatArray) -> FloatArray:
    """0.4 chatgpt + 0.2 language + 0.2 match + 0.2 accuracy, each from 0 to 1."""
    chatgpt, language, match, accuracy = np.moveaxis(parts, -1, 0)
    final: FloatArray = 0.4 * (chatgpt / 100) + 0.2 * language + 0.2 * (match / 100) + 0.2 * accuracy
    return final


def _pairs(records: Sequence[Record]) -> list[CaptionPair]:
    entering = np.flatnonzero(chosen(records, counts(LANGUAGE), counts(LANGUAGE))).tolist()
    return [CaptionPair(row, records[row].prediction, (records[row].target,)) for row in entering]


class _Explained(Metric):
    """A metric of one tag that says why it has no value."""

    def __init__(self, metric: Metric, tag: int) -> None:
        super().__init__(
            metric.name, unit=metric.unit, higher_is_better=metric.higher_is_better, binary=metric.binary
        )
        self.variant = metric.variant
        self.parts = (metric,)
        self._metric = metric
        self._tag = tag

    @property
    def bounds(self) -> tuple[float, float]:
        """Those of the metric."""
        return self._metric.bounds

    @property
    def mean_range(self) -> tuple[float, float] | None:
        """That of the metric."""
        return self._metric.mean_range

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Those of the metric."""
        return self._metric.selected(records)

    def reason(self, records: Sequence[Record]) -> str | None:
        """No labels, no tags, none of this tag asked, or all left out by the graph rule."""
        if (why := self._metric.reason(records)) is None or why == NO_JUDGE:
            return why
        answered = [record for record in records if not record.failed and record.target is not None]
        if not answered:
            return why
        if all(record.data.get("tags") is None for record in answered):
            return "the file does not tell which question is scored how (field tag)"
        asked = sum(of_kind(record, self._tag) for record in answered)
        if asked and not any(map(counts(self._tag), answered)):
            return f"the graph rule leaves out all {asked} questions of tag {TAG_NAMES[self._tag]}"
        return why if asked else f"no answered question of tag {TAG_NAMES[self._tag]}"

    def outcomes(self, records: Sequence[Record]) -> FloatArray | None:
        """Those of the metric."""
        return self._metric.outcomes(records)

    def statistics(self, records: Sequence[Record]) -> FloatArray:
        """Those of the metric."""
        return self._metric.statistics(records)

    def value(self, sums: FloatArray) -> FloatArray:
        """That of the metric."""
        return self._metric.value(sums)


class _Rating(Mean):
    """Mean rating by the judge, 0 to 100, over what is to be rated and the judge did not fail on."""

    def __init__(self, name: str, tag: int) -> None:
        super().__init__(name, scale=1.0)
        self._to_rate = counts(tag)

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Records to be rated, but those the judge failed on; without a judge all of them."""
        return chosen(
            records, (self._to_rate, "rated"), lambda r: self._to_rate(r) and not r.scores.get("judge_failed")
        )

    def reason(self, records: Sequence[Record]) -> str | None:
        """Nothing to rate, no judge, or none of its replies was of use."""
        places = np.flatnonzero(chosen(records, self._to_rate, self._to_rate)).tolist()
        to_rate = [records[place] for place in places]
        if not to_rate:
            return super().reason(records)
        if not any("judge_failed" in record.scores for record in to_rate):
            return NO_JUDGE
        failed = all(record.scores.get("judge_failed") for record in to_rate)
        return f"the judge failed on all {len(to_rate)} questions" if failed else None

    def outcomes(self, records: Sequence[Record]) -> FloatArray | None:
        """The rating of each rated record."""
        return np.array([r.scores.get(self.score, np.nan) for r in records], dtype=np.float64)


class _Combined(Composite):
    """A composite that gives its parts' general reasons without naming the part."""

    def reason(self, records: Sequence[Record]) -> str | None:
        """The first part's reason."""
        for part in self.parts:
            if (why := part.reason(records)) is not None:
                return why if why == NO_JUDGE else f"{part.name}: {why}"
        return None
