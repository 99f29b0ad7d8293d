"""`run` and `score` from end to end: job, model, run folder, generation, records, summary."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalkit import registry
from evalkit.contracts import Json, Model, ModelInfo, SampleAware
from evalkit.engines.base import Load, LoadModel, Pool
from evalkit.engines.ranks import Lead, OwnFile, Watch, join
from evalkit.errors import BudgetError, EvalkitError, RankLost, RunFolderError, UsageError
from evalkit.pipeline import manifest
from evalkit.pipeline.environment import peak_memory
from evalkit.pipeline.generate import Generation, unanswered
from evalkit.pipeline.job import Job, identity, make_job
from evalkit.pipeline.options import JudgeOptions, RunOptions, model_options
from evalkit.pipeline.plan import Plan, make_plan
from evalkit.pipeline.progress import Progress
from evalkit.pipeline.results import RunResult
from evalkit.pipeline.score import Asks, score
from evalkit.pipeline.summary import counts, groups, metric_json, metric_values, published_rows, status
from evalkit.store import ResponseLogs, RunFolder, open_for_scoring, open_run, write_records
from evalkit.store.folder import place_of_runs

log = logging.getLogger(__name__)

#: The name in the responses file of a model that runs in one process.
_WORKER = "0"


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


def load_model(options: RunOptions) -> Model | Pool:
    """The model that the flags name.

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
        return ray_pool(LoadModel(options.model, wanted), options)
    if options.devices == 1:
        return registry.model(options.model, wanted)
    from evalkit.engines.devices import WorkerPool

    threads = max(1, (os.cpu_count() or 1) // options.devices)
    return WorkerPool(LoadModel(options.model, wanted), options.devices, threads, registry.included_files())


def ray_pool(load: Load, options: RunOptions) -> Pool:
    """Actors of a Ray cluster that `load` their model.

    Raises:
        EvalkitError: no Ray, no cluster, or no actor can load.
    """
    from evalkit.engines.ray_pool import RayOptions, RayPool

    settings = RayOptions(
        address=options.ray_address,
        cores=options.cpus_per_worker,
        ship=options.ship_data,
        timeout=options.worker_timeout,
        device=options.device,
    )
    return RayPool(load, settings, registry.included_files())


def run_task(name: str, model: Model | Pool, options: RunOptions) -> RunResult:
    """Generate what the run folder lacks, score, and store the summary.

    Raises:
        EvalkitError: with one line for the user; RunStopped where a folder holds what was done.
        Interrupted: Ctrl-C or SIGTERM during the run.
    """
    job = make_job(name, options)
    info = model.info
    if info.inputs and options.max_tiles is not None:
        raise UsageError(f"--max-tiles has no meaning with {info.name}: tiling is up to the {info.inputs}")
    known = model.announce(job.split_ids()) if isinstance(model, SampleAware) else {}
    with _open(job, info, options) as folder, _stops(folder, len(job.samples)):
        if options.rank is None:
            _generate(folder, job, model, options)
        else:
            who = identity(job, info, options)
            with Lead(folder.path, options.rank, who, job.data, options.worker_timeout) as lead:
                _generate(folder, job, model, options, lead)
        return _finish(folder, job, info.notes, options.judge_options, known)


def _open(job: Job, info: ModelInfo, options: RunOptions) -> RunFolder:
    content = manifest.build(job, info, options)
    content["signature"] = job.signature(info.dtype, options.judge_model, info.inputs)
    return open_run(
        options.runs,
        info.name,
        job.task.name,
        job.split,
        identity(job, info, options),
        content,
        options.resume,
    )


def run_share(name: str, model: Model, options: RunOptions, before: Path | None = None) -> Path:
    """Answer this rank's share of a run whose folder rank 0 holds; returns the folder.

    Args:
        before: folder of the task before, which rank 0 may still be waiting for.

    Raises:
        EvalkitError: rank 0 does not come, or is not like this rank; whatever ends the work.
    """
    assert options.rank is not None and options.rank.number  # rank 0 has `run_task`
    job, info = make_job(name, options), model.info
    if isinstance(model, SampleAware):
        model.announce(job.split_ids())
    parent = place_of_runs(options.runs, info.name, job.task.name, job.split)
    who, busy = identity(job, info, options), Watch(before)
    with join(parent, options.rank, who, job.data, options.worker_timeout, busy) as seat:
        count = len(job.samples)
        pending = seat.pending()
        plan = make_plan(job.request(position) for position in range(count))
        share = Plan(options.rank.share(plan.pending(pending)))
        progress = Progress(f"{options.rank.name}: {job.task.name} {job.split}", share.size, 0, quiet=True)
        with seat.responses(options.rank, share.size, lambda: progress.done) as responses:
            generation = Generation(model, responses, progress, answered_before=len(pending) < count)
            generation.run(share, job.request, pending)
        return seat.folder


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


def _generate(
    folder: RunFolder, job: Job, model: Model | Pool, options: RunOptions, lead: Lead | None = None
) -> None:
    count = len(job.samples)
    pending, changed = unanswered(job.samples, job.request, folder.stored.responses())
    if not pending:
        log.info("%s: all %d samples are answered already", folder.path, count)
        if lead is not None:
            lead.publish(pending)
            lead.wait()
        return
    if folder.resumed and changed:
        log.warning(
            "%s: %d of %d samples failed before or are asked differently now: they are answered again, "
            "and the figures replaced (--no-resume keeps the old run)",
            folder.path,
            changed,
            count,
        )
    elif folder.resumed:
        log.info("%s: going on, %d of %d samples left", folder.path, len(pending), count)
    folder.drop_summary()
    session = manifest.session(model.info, options)
    folder.update_manifest(outcome=None, data=manifest.data_json(job), prompt=manifest.prompt_json(job))
    plan = make_plan(job.request(position) for position in range(count))
    if lead is not None:
        lead.publish(pending)
        plan = Plan(lead.rank.share(plan.pending(pending)))
    helpers = lead or (model if isinstance(model, Pool) else None)
    left = len(pending) if lead is None else plan.size
    progress = Progress(
        f"{job.task.name} {job.split}",
        count if lead is None else left,
        count - left if lead is None else 0,
        options.quiet,
        helpers.line if helpers else None,
    )
    own = OwnFile(folder.path, lead.rank) if lead else lambda: getattr(model, "worker", _WORKER)
    responses = ResponseLogs(folder.path, own)
    try:
        generation = Generation(model, responses, progress, answered_before=len(pending) < count)
        generation.run(plan, job.request, pending)
        if lead is not None:
            _gather(lead, folder, job, pending)
    finally:
        progress.close()
        try:
            responses.close()
        finally:
            workers = helpers.report() if helpers else None
            _end_session(folder, {**session, "workers": workers}, progress)


def _gather(lead: Lead, folder: RunFolder, job: Job, pending: Iterable[int]) -> None:
    """Wait for the other ranks.

    Raises:
        RankLost: one was lost with samples left.
    """
    lost = lead.wait()
    for rank in lost:
        log.warning("%s is lost: %s", rank.name, rank.reason)
    if not lost:
        return
    stored, lacking = folder.stored.responses(), 0
    for position in pending:
        known = stored.get(job.samples[position].id)
        lacking += known is None or known.request_key != job.request(position).key()
    if lacking:
        more = f" and {len(lost) - 1} more" if lost[1:] else ""
        raise RankLost(
            f"{lost[0].name} was lost ({lost[0].reason}){more}: {lacking} of {len(job.samples)} samples are "
            f"not answered in {folder.path}; the same command, with any number of ranks, goes on"
        )


def _end_session(folder: RunFolder, session: dict[str, Json], progress: Progress) -> None:
    ended = {"ended": manifest.now(), "throughput": progress.throughput(), "peak_memory": peak_memory()}
    sessions: list[Json] = [*folder.manifest.get("sessions", []), {**session, **ended}]
    try:
        folder.update_manifest(sessions=sessions)
    except RunFolderError as error:
        log.debug("%s", error)  # whatever ended the session is what the user is told


def _finish(
    folder: RunFolder,
    job: Job,
    notes: tuple[str, ...],
    judge: JudgeOptions | None,
    known: Mapping[str, int],
) -> RunResult:
    """Score what is stored and write records, then the summary."""
    started = time.monotonic()
    judge, model = judge or _stored_judge(folder), folder.manifest["model"]
    stored = folder.stored.responses()
    if not any(sample.id in stored for sample in job.samples):
        raise RunFolderError(f"{folder.path}: holds no responses; `evalkit run` generates them")
    scored = score(job.task, job.samples, stored, _judge(folder, judge))
    write_records(folder.path, scored)
    records = [each.record for each in scored]
    found = counts(records, len(job.samples))
    summary: dict[str, Any] = {
        "run": str(folder.path),
        "status": status(found, job.limited),
        "model": model["name"],
        "task": job.task.name,
        "split": job.split,
        "protocol": job.task.protocol,
        "counts": {**found, **known},
        "metrics": {n: metric_json(value) for n, value in metric_values(job.task, records).items()},
        "groups": groups(job.task, records),
        "reference": published_rows(job.task, job.split),
        "signature": job.signature(model.get("dtype"), judge.model if judge else None, model.get("inputs")),
        "title": job.task.title,
        "limited": job.limited,
        "nonstandard": dict(job.nonstandard),
        "notes": list(notes),
    }
    folder.update_manifest(
        outcome={"status": summary["status"], "reason": None, "at": manifest.now()},
        scored={"at": manifest.now(), "seconds": time.monotonic() - started, "data": job.data},
        judge=judge.to_json() if judge else None,
        signature=summary["signature"],
    )
    folder.write_summary(summary)
    return RunResult(folder.stored, summary)


def _stored_judge(folder: RunFolder) -> JudgeOptions | None:
    """The judge of an earlier scoring of the run, whose replies are in the folder."""
    stored = folder.manifest.get("judge")
    if not isinstance(stored, Mapping) or not (folder.path / "judge.jsonl").is_file():
        return None
    return JudgeOptions(str(stored["url"]), str(stored["model"]))


def _judge(folder: RunFolder, options: JudgeOptions | None) -> Asks | None:
    if options is None:
        return None
    from evalkit.judge import Judge

    judge: Asks = Judge(options.url, options.model, folder.path / "judge.jsonl")
    return judge


def score_run(
    path: Path, data_root: Path | None = None, judge: JudgeOptions | None = None, offline: bool = False
) -> RunResult:
    """Score a run folder's stored responses again; no model is loaded.

    Raises:
        RunFolderError: it is none, is being written, or holds no responses. DataError: the data is gone.
    """
    with open_for_scoring(path) as folder:
        job = make_job(*manifest.stored_options(folder.manifest, folder.path, data_root, offline))
        if job.data != folder.manifest.get("data", {}).get("hash"):
            log.warning(
                "%s: the data is not what the answers were generated from; the signature names the new data",
                path,
            )
        return _finish(folder, job, tuple(folder.manifest["model"].get("notes", ())), judge, {})
