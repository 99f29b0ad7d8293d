"""What one run asks: a task's selected samples, their requests, and what identifies them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evalkit import registry
from evalkit.contracts import Generation, Json, ModelInfo, Request, Sample
from evalkit.data.decoding import set_max_pixels
from evalkit.data.locate import locate
from evalkit.environment import many_objects
from evalkit.errors import DataError, EvalkitError, TaskError, UsageError
from evalkit.installation import VERSION
from evalkit.pipeline.options import RunOptions, options_of
from evalkit.pipeline.overrides import Overrides, parse_gen
from evalkit.pipeline.plan import select, unique
from evalkit.pipeline.repeats import answer_ids, as_repeat, must_draw
from evalkit.pipeline.signature import data_hashes, signature, subset_hash
from evalkit.reasoning import ReasoningMode, unusual_mode
from evalkit.task import MINIATURE, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A task's samples as asked.

    Attributes:
        samples: the selected ones, in file order. every: the whole split's.
        impossible: selected samples with an answer key that no answer can match.
        published: samples that the benchmark publishes for the split, where it is known.
        data: content hash of the whole split. older_data: as runs of earlier versions have it.
        subset: hash of the ids where not all are asked.
        nonstandard: settings that differ from the protocol's, by name.
        reasoning: whether reasoning in the answers is scored.
        repeats: how often each sample is asked. A position counts answers: a sample's lie side by side.
    """

    task: Task
    split: str
    root: Path
    samples: Sequence[Sample]
    every: Sequence[Sample]
    data: str
    older_data: str
    subset: str | None
    overrides: Overrides
    nonstandard: Mapping[str, Json]
    published: int | None = None
    impossible: int = 0
    reasoning: ReasoningMode = "auto"
    repeats: int = 1

    @cached_property
    def answer_ids(self) -> list[str]:
        """The id of each position's answer in the run folder."""
        return answer_ids(self.samples, self.repeats)

    @property
    def generation(self) -> Generation:
        """The settings of generation, with the user's, of the first sample."""
        return self.overrides.apply(build_request(self.task, self.samples[0])).generation

    @cached_property
    def prompts(self) -> str:
        """Hash (32 digits) over every text that is sent."""
        digest = hashlib.sha256()
        for sample in self.samples:
            for message in build_request(self.task, sample).messages:
                digest.update(f"{message.role}\0{message.text}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:32]

    @property
    def limited(self) -> bool:
        """Whether some of the split's samples are left out."""
        return self.subset is not None

    def asks_data_of(self, manifest: Mapping[str, Any]) -> bool:
        """Whether the data is what a stored run was made from, as far as its form of hash tells."""
        data = manifest.get("data")
        data = data if isinstance(data, Mapping) else {}
        return bool(data.get("hash") == (self.data if "older_hash" in data else self.older_data))

    @property
    def excerpt(self) -> bool:
        """Whether the files at hand hold fewer samples than the benchmark publishes."""
        return self.published is not None and len(self.every) < self.published

    def split_ids(self) -> SplitIds:
        """Ids of the whole split, in file order."""
        ids = dict.fromkeys(sample.id for sample in self.every)
        return SplitIds(ids, self.every, self.task, self.split, self.root)

    def request(self, position: int) -> Request:
        """The request at `position`, with the user's settings."""
        place, repeat = divmod(position, self.repeats)
        request = self.overrides.apply(build_request(self.task, self.samples[place]))
        return request if self.repeats == 1 else as_repeat(request, repeat)

    def signature(
        self,
        dtype: str | None,
        judge: str | None,
        inputs: str | None = None,
        unsent: Collection[str] = (),
        template: str | None = None,
    ) -> str:
        """The signature of a result of this job."""
        settings = self.request(0)
        return signature(
            self.task,
            self.split,
            n=len(self.samples),
            tiles=settings.image_policy.max_tiles,
            generation=self.generation,
            dtype=dtype,
            data=self.data,
            version=VERSION,
            subset=self.subset,
            judge=judge,
            inputs=inputs,
            unsent=unsent,
            template=template,
            nonstandard=self.nonstandard,
            reasoning=unusual_mode(self.reasoning, self.task.strips_reasoning),
            repeats=self.repeats,
        )


@dataclass(frozen=True)
class SplitIds(Collection[str]):
    """Ids of a split in file order, that can tell which other split some ids are of, and what is asked."""

    ids: Mapping[str, None]
    every: Sequence[Sample]
    task: Task
    split: str
    root: Path

    def __contains__(self, identifier: object) -> bool:
        return identifier in self.ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def asked_by(self, protocol: str) -> Sequence[Sample]:
        """The split's samples, in words of a protocol where the task has it."""
        if protocol == self.task.protocol or protocol not in self.task.protocols:
            return self.every
        return list(registry.task(self.task.name, protocol).samples(self.split, self.root))

    def split_of(self, ids: Collection[str]) -> str | None:
        """The other split that has all of the ids, if its data is at hand."""
        for split in (*self.task.splits, MINIATURE):
            if split == self.split:
                continue
            try:
                root = locate(self.task, split, self.root, True)
                known = {sample.id for sample in self.task.samples(split, root)}
            except Exception as error:  # a split that is not there or broken has no say
                log.debug("%s %s: %s", self.task.name, split, error)
                continue
            if known.issuperset(ids):
                return split
        return None


def build_request(task: Task, sample: Sample) -> Request:
    """The task's request for a sample.

    Raises:
        TaskError: the task's own code fails, or names another sample.
    """
    try:
        request = task.request(sample)
    except EvalkitError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TaskError(f"task {task.name}: request() fails on sample {sample.id!r} ({cause})") from error
    if request.id != sample.id:
        raise TaskError(f"task {task.name}: request() of sample {sample.id!r} carries the id {request.id!r}")
    return request


def choose_task(name: str, split: str | None, protocol: str | None) -> tuple[Task, str]:
    """The task and the split to run.

    Raises:
        UsageError: unknown task, protocol or split.
    """
    task = registry.task(name, protocol)
    chosen = split or task.splits[0]
    if chosen not in (*task.splits, MINIATURE):
        known = ", ".join((*task.splits, MINIATURE))
        raise UsageError(f"--split {chosen}: {name} has {known}")
    return task, chosen


@many_objects()
def make_job(name: str, options: RunOptions) -> Job:
    """Read the task's samples and select.

    Raises:
        DataError: files missing or malformed, or nothing to ask. UsageError: unknown names.
    """
    set_max_pixels(options.max_pixels)
    task, split = choose_task(name, options.split, options.protocol)
    if task.rules != task.protocol:
        log.info("%s: protocol %s scores exactly as %s does", name, task.protocol, task.rules)
    generation, _ = parse_gen(options.gen_items)
    if options.seed not in (0, seed := generation.get("seed", options.seed)):
        raise UsageError(f"--seed {options.seed} --gen seed={seed}: these are one setting; give one of them")
    overrides = Overrides(options.max_tiles, generation, options.seed)
    root = locate(task, split, options.root, options.offline)
    every = unique(_samples(task, split, root), f"{root}: {name} {split}")
    if not every:
        raise DataError(f"{root}: {name} {split} holds no samples; see `evalkit data check {name}`")
    chosen = select(every, options.limit, options.sample_ids, options.subset_seed)
    must_draw((overrides.apply(build_request(task, sample)) for sample in chosen), options.repeats, name)
    impossible = [(sample.id, why) for sample in chosen if (why := task.impossible_key(sample))]
    if impossible:
        log.warning("%s: %s %s: %d of %d samples count as wrong whatever is answered (sample %s: %s)",
                    root, name, split, len(impossible), len(chosen), *impossible[0])  # fmt: skip
    data, older_data = data_hashes(every)
    return Job(
        task=task,
        split=split,
        root=root,
        samples=chosen,
        every=every,
        data=data,
        older_data=older_data,
        subset=subset_hash(chosen) if len(chosen) < len(every) else None,
        overrides=overrides,
        nonstandard=overrides.changed(build_request(task, sample) for sample in chosen),
        impossible=len(impossible),
        published=None if split == MINIATURE else task.data_source.published_size(split, root),
        reasoning=options.reasoning,
        repeats=options.repeats,
    )


def _samples(task: Task, split: str, root: Path) -> Iterator[Sample]:
    try:
        yield from task.samples(split, root)
    except EvalkitError:
        raise
    except OSError as error:
        raise DataError(f"{root}: {task.name} {split} cannot be read ({error})") from error
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TaskError(f"task {task.name}: samples() fails on {root} ({cause})") from error


def identity(job: Job, info: ModelInfo, options: RunOptions) -> str:
    """Hash of everything that decides the answers: a run with the same identity is continued.

    Device, batch size and engine are left out: they may change between sessions.
    """
    _, extra = parse_gen(options.gen_items)
    extra = {name: value for name, value in extra.items() if name not in info.free_options}
    return _digest(
        {
            "model": [info.name, info.revision, info.fingerprint, info.dtype, dict(info.settings), extra],
            "task": [job.task.name, job.task.version, job.task.protocol, job.split],
            "subset": job.subset,
            "nonstandard": dict(job.nonstandard),
            "seed": job.generation.seed if job.generation.temperature > 0 else None,
            **({"repeats": job.repeats} if job.repeats > 1 else {}),
            # a computation that is not the default makes runs of its own, so that the two can be compared
            **{
                entry.stored: value
                for name, entry in options_of(RunOptions, "computation").items()
                if (value := getattr(options, name)) != entry.default
            },
        }
    )


def _digest(content: Json) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
