"""A run from end to end: load the engine, open the run folder, generate what it lacks, score, finish."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

from evalkit import registry
from evalkit.contracts import Json, ModelInfo, Request
from evalkit.engines.base import Engine, InProcess, Load, LoadModel
from evalkit.engines.heartbeat import RankZeroBusy
from evalkit.engines.ranks import RankZero, join
from evalkit.environment import peak_memory
from evalkit.errors import BudgetError, EvalkitError, RankLost, RunFolderError, UsageError
from evalkit.pipeline import manifest
from evalkit.pipeline.finish import finish, labels_of
from evalkit.pipeline.generate import generate
from evalkit.pipeline.job import Job, identity, make_job
from evalkit.pipeline.options import RunOptions, model_options
from evalkit.pipeline.plan import Plan, make_plan
from evalkit.pipeline.progress import Progress
from evalkit.pipeline.results import RunResult
from evalkit.pipeline.tracking import log_result
from evalkit.store import ResponseLogs, RunFolder, StoredResponse, open_run
from evalkit.store.folder import place_of_runs

log = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """A run that was stopped by the user; its text says how to go on.

    Attributes:
        path: the run folder.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class RunStopped(EvalkitError):
    """A run that broke off with its folder kept: the cause, and the folder.

    Attributes:
        path: the run folder. exit_code: that of the cause.
    """

    def __init__(self, message: str, path: Path, exit_code: int) -> None:
        super().__init__(message)
        self.path = path
        self.exit_code = exit_code


def load_model(options: RunOptions) -> Engine:
    """The model that the flags name, where they say that it runs.

    Raises:
        UsageError: unknown, or an option it cannot honour. CheckpointError: it cannot be loaded.
    """
    wanted = model_options(options)
    if options.rank is not None and options.device in ("auto", "cuda"):
        wanted = dataclasses.replace(wanted, device=options.rank.device or options.device)
    family = registry.family(options.model)
    if getattr(family, "served", False) and (options.engine != "local" or options.devices > 1):
        raise UsageError(
            f"--engine and --devices have no meaning with {options.model}: the model runs at the server; "
            "--batch-size N says how many requests are under way at once"
        )
    if options.engine == "ray":
        if options.compile:
            raise UsageError(
                "--compile with --engine ray: CUDA graphs belong to the thread that loads the model, and a "
                "worker of Ray answers in another; leave one of them out"
            )
        return ray_engine(LoadModel(options.model, wanted), options)
    if options.devices == 1:
        return InProcess(registry.model(options.model, wanted))
    from evalkit.engines.processes import WorkerPool

    threads = max(1, (os.cpu_count() or 1) // options.devices)
    return WorkerPool(LoadModel(options.model, wanted), options.devices, threads, registry.included_files())


def ray_engine(load: Load, options: RunOptions) -> Engine:
    """Actors of a Ray cluster that `load` their model.

    Raises:
        EvalkitError: no Ray, no cluster, or no actor can load.
    """
    from evalkit.engines.ray_engine import RayEngine, RayOptions

    settings = RayOptions(
        address=options.ray_address,
        cores=options.cpus_per_worker,
        ship=options.ship_data,
        timeout=options.worker_timeout,
        device=options.device,
    )
    return RayEngine(load, settings, registry.included_files())


def run_task(
    name: str, engine: Engine, options: RunOptions, gone: Callable[[int], bool] = lambda rank: False
) -> RunResult:
    """Generate what the run folder lacks, score, and store the summary.

    Args:
        gone: of several ranks, whether one that was there has ended.

    Raises:
        EvalkitError: with one line for the user; RunStopped where a folder holds what was done.
        Interrupted: Ctrl-C or SIGTERM during the run.
    """
    job, info = make_job(name, options), engine.info
    if info.inputs and options.max_tiles is not None:
        raise UsageError(f"--max-tiles has no meaning with {info.name}: tiling is up to the {info.inputs}")
    if info.engine == "stored" and job.repeats > 1:
        raise UsageError(f"--repeats {job.repeats}: {info.name} has one stored answer to each question")
    known = engine.bind_samples(job.split_ids())
    labels = labels_of(job, options.ratings)
    with _open(job, info, options) as folder, _stops(folder, len(job.answer_ids)):
        with _as_rank_zero(engine, folder, job, options, gone) as answering:
            _generate(folder, job, answering, options)
        result = finish(folder, job, info.notes, options.judge_options, known, labels=labels)
    log_result(result, options)
    return result


def run_share(
    name: str,
    engine: Engine,
    options: RunOptions,
    before: Path | None = None,
    gone: Callable[[int], bool] = lambda rank: False,
) -> Path:
    """Answer this rank's share of a run whose folder rank 0 holds; returns the folder.

    Args:
        before: folder of the task before, which rank 0 may still be waiting for.
        gone: whether a rank that was there has ended.

    Raises:
        EvalkitError: rank 0 does not come, or is not like this rank; whatever ends the work.
    """
    rank = options.rank
    assert rank is not None and rank.number  # rank 0 has `run_task`
    job, info = make_job(name, options), engine.info
    engine.bind_samples(job.split_ids())
    with join(
        engine,
        rank,
        place_of_runs(options.runs, info.name, job.task.name, job.split),
        identity=identity(job, info, options),
        data=job.data,
        timeout=options.worker_timeout,
        busy=RankZeroBusy(before),
        gone=gone,
    ) as answering:
        pending = answering.pending()
        plan = _plan(job)
        groups = plan.pending(pending)
        size = sum(map(len, answering.share(groups)))
        progress = Progress(f"{rank.name}: {job.task.name} {job.split}", size, 0, quiet=True)
        with closing(ResponseLogs(answering.folder)) as responses:
            generate(
                answering,
                groups,
                plan.numbered(job.request),
                responses,
                progress,
                len(pending) < len(job.answer_ids),
            )
        return answering.folder


def _open(job: Job, info: ModelInfo, options: RunOptions) -> RunFolder:
    content = manifest.build(job, info, options)
    judge = options.judge_options
    content["signature"] = job.signature(
        info.dtype, judge.name if judge else None, info.inputs, info.unsent, info.template
    )
    return open_run(
        options.runs,
        info.name,
        job.task.name,
        job.split,
        identity(job, info, options),
        content,
        options.resume,
    )


def _as_rank_zero(
    engine: Engine, folder: RunFolder, job: Job, options: RunOptions, gone: Callable[[int], bool]
) -> AbstractContextManager[Engine]:
    """The engine as it is, or as that of the first of several ranks."""
    if options.rank is None:
        return nullcontext(engine)
    return RankZero(
        engine,
        options.rank,
        folder.path,
        identity=identity(job, engine.info, options),
        data=job.data,
        samples=len(job.answer_ids),
        timeout=options.worker_timeout,
        gone=gone,
    )


def unanswered(
    ids: Sequence[str], request: Callable[[int], Request], stored: Mapping[str, StoredResponse]
) -> tuple[set[int], int]:
    """Positions without a response to the very request they would make now; failed ones are tried again.

    Args:
        ids: of the answers, in the order of their positions. stored: responses by answer id.

    Returns:
        The positions, and how many of them have a response, failed or to another request.
    """
    pending: set[int] = set()
    changed = 0
    for position, name in enumerate(ids):
        known = stored.get(name)
        if known is None or known.response.error is not None or known.request_key != request(position).key():
            pending.add(position)
            changed += known is not None
    return pending, changed


def _plan(job: Job) -> Plan:
    return make_plan(job.request(position) for position in range(len(job.answer_ids)))


def _generate(folder: RunFolder, job: Job, engine: Engine, options: RunOptions) -> None:
    """Answer what is not answered yet; the session goes into the manifest however it ends."""
    count = len(job.answer_ids)
    pending, changed = unanswered(job.answer_ids, job.request, folder.stored.responses())
    if not pending:
        log.info("%s: all %d samples are answered already", folder.path, count)
        for _ in engine.answers((), job.request):  # other ranks wait to be told
            pass
        return
    if folder.resumed and changed:
        log.warning(
            "%s: %d of %d samples failed before or are asked differently now: they are answered again, "
            "and the metrics replaced (--no-resume keeps the old run)",
            folder.path,
            changed,
            count,
        )
    elif folder.resumed:
        log.info("%s: going on, %d of %d samples left", folder.path, len(pending), count)
    folder.drop_summary()
    session = manifest.session(engine.info, options)
    folder.update_manifest(outcome=None, data=manifest.data_json(job), prompt=manifest.prompt_json(job))
    plan = _plan(job)
    groups = plan.pending(pending)
    own = sum(map(len, engine.share(groups)))
    total, kept = (count, count - own) if options.rank is None else (own, 0)
    progress = Progress(f"{job.task.name} {job.split}", total, kept, options.quiet, engine.line)
    responses = ResponseLogs(folder.path)
    try:
        generate(engine, groups, plan.numbered(job.request), responses, progress, len(pending) < count)
    finally:
        progress.close()
        try:
            responses.close()
        finally:
            _end_session(folder, {**session, "workers": engine.report()}, progress)


def _end_session(folder: RunFolder, session: dict[str, Json], progress: Progress) -> None:
    ended = {"ended": manifest.now(), "throughput": progress.throughput(), "peak_memory": peak_memory()}
    sessions: list[Json] = [*folder.manifest.get("sessions", []), {**session, **ended}]
    try:
        folder.update_manifest(sessions=sessions)
    except RunFolderError as error:
        log.debug("%s", error)  # whatever ended the session is what the user is told


@contextmanager
def _stops(folder: RunFolder, expected: int) -> Iterator[None]:
    """Keep in the manifest why a run broke off, and tell the user how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        _note(folder, "interrupted", "interrupted")
        done = len(folder.stored.responses())
        raise Interrupted(
            f"interrupted: {done} of {expected} samples are stored in {folder.path}; "
            "the same command goes on",
            folder.path,
        ) from None
    except BudgetError as error:
        _note(folder, "interrupted", str(error))
        done = len(folder.stored.responses())
        raise RunStopped(
            f"{error}: {done} of {expected} samples are stored in {folder.path}", folder.path, error.exit_code
        ) from error
    except EvalkitError as error:
        _note(folder, "interrupted" if isinstance(error, RankLost) else "failed", str(error))
        raise RunStopped(str(error), folder.path, error.exit_code) from error
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        _note(folder, "failed", cause)
        raise RunStopped(
            f"{folder.path}: stopped by {cause}; what was done is kept", folder.path, 3
        ) from error


def _note(folder: RunFolder, outcome: str, reason: str) -> None:
    try:
        folder.update_manifest(outcome={"status": outcome, "reason": reason, "at": manifest.now()})
    except RunFolderError as error:
        log.debug("%s", error)  # the disk may be full, which the user is told already
