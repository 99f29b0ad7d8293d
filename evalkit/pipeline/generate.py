"""The generation loop: what the run folder lacks is handed to the model, window by window, and stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from evalkit.contracts import Failure, Model, Request, Response, Sample
from evalkit.engines.base import Pool
from evalkit.errors import ModelError, SetupError
from evalkit.pipeline.plan import Plan
from evalkit.pipeline.progress import Progress
from evalkit.store import ResponseLog, ResponseLogs, StoredResponse

#: When so many samples have failed and none was answered, the set-up is wrong.
FIRST = 50

#: A stored prediction that is not there says nothing about the others.
_HARMLESS = "missing"


def unanswered(
    samples: Sequence[Sample], request: Callable[[int], Request], stored: Mapping[str, StoredResponse]
) -> tuple[set[int], int]:
    """Positions without a response to the very request they would make now; failed ones are tried again.

    Args:
        samples: in the order of their positions. stored: responses by sample id.

    Returns:
        The positions, and how many of them have a response, failed or to another request.
    """
    pending: set[int] = set()
    changed = 0
    for position, sample in enumerate(samples):
        known = stored.get(sample.id)
        if known is None or known.response.error is not None or known.request_key != request(position).key():
            pending.add(position)
            changed += known is not None
    return pending, changed


class Generation:
    """One session of generating into a run folder."""

    def __init__(
        self, model: Model | Pool, log: ResponseLog | ResponseLogs, progress: Progress, answered_before: bool
    ) -> None:
        self._model = model
        self._log = log
        self._progress = progress
        self._answered = answered_before
        self._causes: Counter[str] = Counter()

    def run(self, plan: Plan, request: Callable[[int], Request], pending: Collection[int]) -> None:
        """Ask for every pending position.

        Raises:
            SetupError: the first samples all failed. RunFolderError: the disk is full.
            ModelError: the model breaks its contract; whatever the model itself raises passes through.
        """
        request = plan.numbered(request)
        if isinstance(self._model, Pool):
            for answer in self._model.answers(plan.pending(pending), request):
                self._store(*answer)
            return
        for positions in plan.windows(pending):
            self._ask(self._model, [request(position) for position in positions])

    def _ask(self, model: Model, requests: Sequence[Request]) -> None:
        waiting = {request.id: request for request in requests}
        for identifier, response in model.generate(requests):
            request = waiting.pop(identifier, None)
            if request is None:
                raise ModelError(
                    f"model {model.info.name}: answered {identifier!r}, which was not asked or is "
                    "answered already; the model's adapter is wrong"
                )
            self._store(identifier, request.key(), response)
        for identifier, request in waiting.items():
            nothing = Response(error=Failure("model", "the model gave no answer"))
            self._store(identifier, request.key(), nothing)

    def _store(self, identifier: str, key: str, response: Response) -> None:
        self._log.append(identifier, key, response)
        self._progress.add(response)
        if self._answered:
            return
        if response.error is None or response.error.kind == _HARMLESS:
            self._answered = True
            return
        self._causes[response.error.message] += 1
        if self._causes.total() >= FIRST:
            cause, _ = self._causes.most_common(1)[0]
            raise SetupError(
                f"the first {FIRST} samples all failed, so the set-up is wrong; stopped: {cause}"
            )
