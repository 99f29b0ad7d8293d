"""A judge's work on one run: what it answered, what not and why, and what asking again has cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.contracts import Failure, Json
from evalkit.errors import JudgeError
from evalkit.pipeline.judge_options import JudgeOptions
from evalkit.task import JudgeQuestion

if TYPE_CHECKING:
    from evalkit.judge import Judge, StoredReplies


class Judging:
    """Asks a judge, or reads its stored replies, and counts; a judge that gives up ends no run.

    Args:
        replies: the judge's file. ask: whether the judge is asked; otherwise stored replies are used.

    Attributes:
        stopped: why the judge gave up; the questions left then failed.
        rounds: asks the judge, once for each time that it judges an answer.
    """

    def __init__(self, options: JudgeOptions, replies: Path, ask: bool) -> None:
        from evalkit.judge import Judge, StoredReplies

        self._options = options
        settings, times = options.settings, range(options.repeats)
        self._judges = (
            [Judge(options.url, options.model, replies, settings, repeat=n) for n in times] if ask else []
        )
        judges: Sequence[Judge | StoredReplies] = self._judges or [
            StoredReplies(options.model, replies, settings, repeat=n) for n in times
        ]
        self.rounds = [_Round(self, judge) for judge in judges]
        self._asked = 0
        self._failures: Counter[str] = Counter()
        self._first = ""
        self.stopped = ""

    def replies(
        self, judge: Judge | StoredReplies, questions: Mapping[str, JudgeQuestion]
    ) -> Iterator[tuple[str, str | Failure]]:
        """See `Judge.replies`; what a judge that gave up has not answered is a failure."""
        left = dict.fromkeys(questions)
        self._asked += len(left)
        try:
            for name, reply in judge.replies(questions):
                left.pop(name, None)
                yield name, self._counted(reply)
        except JudgeError as error:
            self.stopped = str(error)
            for name in left:
                yield name, self._counted(Failure("judge", self.stopped))

    def _counted(self, reply: str | Failure) -> str | Failure:
        if isinstance(reply, Failure):
            self._failures[reply.kind] += 1
            self._first = self._first or reply.message
        return reply

    def to_json(self) -> dict[str, Json]:
        """For the summary: questions, failures by kind, the first cause, requests sent again."""
        content: dict[str, Any] = {
            "model": self._options.model,
            "asked": self._asked,
            "failed": self._failures.total(),
        }
        if self._failures:
            content |= {"failures": dict(self._failures), "reason": self.stopped or self._first}
        if self.stopped:
            content["stopped"] = True
        if sent := sum(judge.sent for judge in self._judges):
            content |= {"sent": sent, "again": sum(judge.again for judge in self._judges)}
        return content


class _Round:
    """One of the times that a judge judges the answers."""

    def __init__(self, judging: Judging, judge: Judge | StoredReplies) -> None:
        self._judging = judging
        self.judge = judge

    def replies(self, questions: Mapping[str, JudgeQuestion]) -> Iterator[tuple[str, str | Failure]]:
        """See `Judging.replies`."""
        return self._judging.replies(self.judge, questions)


def gave_nothing(summary: Mapping[str, Any]) -> str:
    """Why a judge that was asked is to be called useless; empty where it answered, or was not asked.

    A judge that gave up half-way counts: what it left out would go unseen.
    """
    judge = summary.get("judge")
    if not isinstance(judge, Mapping) or "reason" not in judge:
        return ""
    if judge.get("stopped") or judge["failed"] == judge["asked"]:
        replied = f"{judge['asked'] - judge['failed']} of {judge['asked']}"
        return f"the judge {judge['model']} gave {replied} replies: {judge['reason']}"
    return ""
