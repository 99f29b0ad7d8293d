"""The task contract: a benchmark as load, ask, parse, judge, score.

Each step is called once and in this order: `samples`, `request`, `parse`, `judge_questions`, `score_all`. A
task whose answers are scored one by one, without a judge, writes `samples`, `score` and `metrics` and nothing
else. A task writes no loop, no file handling of runs and no statistics; it composes evalkit.metrics.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from evalkit import earlier_tasks
from evalkit.answers import ParsedAnswer, failed_record, record
from evalkit.contracts import Generation, ImagePolicy, Message, Record, Request, Response, Sample
from evalkit.errors import UsageError
from evalkit.metrics.base import Metric
from evalkit.near_miss import ExactScores, exact_scores
from evalkit.task_parts import (
    MINIATURE,
    PARTS,
    DataFile,
    DataSource,
    HubSource,
    JudgeQuestion,
    Overlay,
    Reference,
    Region,
    Submission,
)

__all__ = [
    "MINIATURE",
    "PARTS",
    "DataFile",
    "DataSource",
    "HubSource",
    "JudgeQuestion",
    "Overlay",
    "ParsedAnswer",
    "Reference",
    "Region",
    "Submission",
    "Task",
    "failed_record",
    "record",
]


_ROLES: Final[tuple[Literal["user", "assistant"], ...]] = ("user", "assistant")


class Task(ABC):
    """A benchmark.

    Class attributes:
        name: as on the command line. title: as printed. version: raised when any value changes.
        about: what is asked, in a few words.
        splits: default first; `miniature` is always there besides.
        protocols: default first (`paper`).
        same_scorer: protocols that score exactly as another one does, with that one's name.
        template: the last turn's text around `{question}`.
        generation, image_policy: the protocol's settings. These three may also be set in `__init__`, where
            protocols differ.
        group_by: names of the tags that split every report.
        headline: name of the metric shown where there is room for one; by default the first.
        data_source: where the files come from.
        overlay: what is drawn on a record's images; None: nothing.
        submission: the official submission file; None: the benchmark takes none.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    about: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    splits: ClassVar[tuple[str, ...]] = ("test",)
    protocols: ClassVar[tuple[str, ...]] = ("paper",)
    same_scorer: ClassVar[Mapping[str, str]] = {}
    template: str = "{question}"
    generation: Generation = Generation()
    image_policy: ImagePolicy = ImagePolicy()
    group_by: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[str] = ""
    data_source: ClassVar[DataSource] = DataSource()
    overlay: ClassVar[Overlay | None] = None
    submission: ClassVar[Submission | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        earlier_tasks.adopt(cls)

    def __init__(self, protocol: str | None = None) -> None:
        """Raises UsageError for a protocol the task does not have."""
        if protocol is not None and protocol not in self.protocols:
            raise UsageError(f"{self.name}: no protocol {protocol!r}; it has {', '.join(self.protocols)}")
        if type(self).score is Task.score and type(self).score_all is Task.score_all:
            raise TypeError(f"{type(self).__name__} must define score() or score_all()")
        self.protocol = protocol or self.protocols[0]

    # What a benchmark writes --------------------------------------------------------------------------------

    @abstractmethod
    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """Yield the split's samples from the official files under `root`, in file order, lazily.

        `split` may be `miniature`; `root` is then the folder that `DataSource.draw` filled.

        Raises:
            DataError: a file is missing or malformed; names the file, the place and the fix.
        """

    def request(self, sample: Sample) -> Request:
        """The protocol's prompt and settings for a sample; turns before the last are history.

        The default treats every turn but the last as user and assistant alternating.
        """
        texts = (*sample.turns[:-1], self.template.format(question=sample.turns[-1]))
        messages = map(Message, cycle(_ROLES), texts)
        return Request(sample.id, tuple(messages), sample.images, self.generation, self.image_policy)

    def filtered(self, text: str) -> str:
        """The answer as the protocol's filter hands it on, reasoning included; default: unchanged."""
        return text

    def parse(self, sample: Sample, response: Response) -> Any:
        """What a response says by the protocol's rules: `parsed` of the answer that the next steps get."""
        return None

    def judge_questions(self, answers: Sequence[ParsedAnswer]) -> Mapping[str, JudgeQuestion]:
        """What a judge is asked, by sample id. Called only where a judge is given; default: nothing."""
        return {}

    def score(self, sample: Sample, response: Response) -> Record:
        """Parse and score one answer (never an error response). Use `record` to build the result."""
        raise NotImplementedError

    def score_all(self, answers: Sequence[ParsedAnswer]) -> list[Record]:
        """The records of all answered samples, in order; default: `score` of each.

        For tasks with a judge, or whose records depend on each other.
        """
        return [self.score(answer.sample, answer.response) for answer in answers]

    @abstractmethod
    def metrics(self) -> Sequence[Metric]:
        """Metrics of the report, in the columns' order of the paper's table."""

    def group_metrics(self) -> Sequence[Metric]:
        """Metrics reported for each value of the `group_by` tags; default: all."""
        return self.metrics()

    def impossible_key(self, sample: Sample) -> str | None:
        """Why no answer can match a sample's key, or None where one can.

        The default knows multiple choice: `data["options"]` maps letters to texts, and the target is one of
        either.
        """
        options, target = sample.data.get("options"), sample.target
        if not isinstance(options, Mapping) or not options or not isinstance(target, str):
            return None
        if target in options or target in options.values():
            return None
        return f"answer {target[:40]!r} is none of the options {', '.join(map(str, options))}"

    @property
    def exact_scores(self) -> ExactScores:
        """Scores that say whether an answer is right: groups, of each the first that a record has."""
        return exact_scores(self.metrics())

    # What follows from it -----------------------------------------------------------------------------------

    @property
    def wording(self) -> Sequence[str]:
        """Texts that decide the prompt's wording; default: the template. For a task that words it in code."""
        return (self.template,)

    @property
    def published_rows(self) -> Sequence[Reference]:
        """Published rows to print beside ours; a class attribute will do."""
        return ()

    def prompt_fingerprint(self) -> str:
        """Six hexadecimal digits that change with `wording`."""
        return hashlib.sha256("\0".join(self.wording).encode()).hexdigest()[:6]

    @property
    def strips_reasoning(self) -> bool:
        """Whether the protocol takes reasoning and outer white space off every answer before it is scored."""
        return self.protocol == "lmms-eval"

    @property
    def rules(self) -> str:
        """The protocol whose rules score: `protocol`, or the one that it scores exactly as."""
        return self.same_scorer.get(self.protocol, self.protocol)

    def scorer_version(self) -> str:
        """Names protocol and version in the signature, e.g. `paper.1`."""
        return f"{self.protocol}.{self.version}"
