"""The generation loop: ask the engine for what the run folder lacks, and store every answer at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from evalkit.contracts import Request, Response
from evalkit.engines.base import Engine
from evalkit.engines.scheduler import Groups
from evalkit.errors import SetupError
from evalkit.openai_reply import WITHHELD
from evalkit.pipeline.progress import Progress
from evalkit.store import ResponseLogs

#: When so many samples have failed and none was answered, the set-up is wrong.
FIRST = 50

#: Failures that say nothing about the others: a stored prediction that is not there, an answer withheld.
_HARMLESS = ("missing", *WITHHELD)


def generate(
    engine: Engine,
    groups: Groups,
    request: Callable[[int], Request],
    log: ResponseLogs,
    progress: Progress,
    answered_before: bool,
) -> None:
    """Ask for every position of the groups, and store the answers as they come.

    Args:
        request: makes the request of a position.
        answered_before: whether the run folder has an answer already, so that the set-up is known to work.

    Raises:
        SetupError: the first samples all failed. RunFolderError: the disk is full.
        ModelError: the model breaks its contract; whatever the engine itself raises passes through.
    """
    check = _SetupCheck(answered_before)
    for answer in engine.answers(groups, request):
        log.append(answer.worker, answer.id, answer.key, answer.response)
        progress.add(answer.response)
        check.add(answer.response)


class _SetupCheck:
    """Stops a run whose first samples all fail."""

    def __init__(self, answered: bool) -> None:
        self._answered = answered
        self._causes: Counter[str] = Counter()

    def add(self, response: Response) -> None:
        """Look at one more response. Raises SetupError after `FIRST` failures and no answer."""
        if self._answered:
            return
        if response.error is None or response.error.kind in _HARMLESS:
            self._answered = True
            return
        self._causes[response.error.message] += 1
        if self._causes.total() >= FIRST:
            cause, _ = self._causes.most_common(1)[0]
            raise SetupError(
                f"the first {FIRST} samples all failed, so the set-up is wrong; stopped: {cause}"
            )
