"""`evalkit.run`: the main job from Python, with the names of the command line's flags."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from evalkit import registry
from evalkit.contracts import Json, Model
from evalkit.engines.base import Engine, as_engine
from evalkit.errors import UsageError
from evalkit.pipeline.options import MaxErrors, RunOptions, judge_options
from evalkit.pipeline.results import RunResult
from evalkit.pipeline.run import load_model, run_task

PathLike = str | os.PathLike[str]


def run(
    model: str | Model | Engine,
    task: str,
    *,
    data_root: PathLike | None = None,
    split: str | None = None,
    protocol: str | None = None,
    limit: int | None = None,
    sample_id: str | Sequence[str] = (),
    checkpoint: PathLike | None = None,
    revision: str | None = None,
    batch_size: int | str = "auto",
    max_tiles: int | None = None,
    gen: Mapping[str, Json] | None = None,
    dtype: str = "auto",
    compile: bool = False,
    device: str = "auto",
    seed: int = 0,
    output: PathLike = "runs",
    resume: bool = True,
    judge: str | None = None,
    judge_model: str | None = None,
    base_url: str | None = None,
    include: PathLike | None = None,
    offline: bool = False,
    quiet: bool = False,
    devices: int = 1,
    engine: str = "local",
    ray_address: str | None = None,
    cpus_per_worker: int | None = None,
    ship_data: bool = False,
    worker_timeout: float = 1800.0,
) -> RunResult:
    """Generate what the run folder lacks, score it, and return the result.

    Args:
        model: a name, folder or hub id, or a loaded model (any object that follows `Model`, or `Engine`).
        task: one task, `task` or `task@split`; call again for another.
        gen: settings of generation or of the model, by name.
        include: a task file that is not installed.
        The others are as the flags of `evalkit run`.

    Raises:
        EvalkitError: with one line that says what, where and the mend.
    """
    if include is not None:
        registry.include(Path(include))
    targets = registry.targets([task], split)
    if len(targets) != 1:
        raise UsageError(f"evalkit.run runs one task, {task!r} names {len(targets)}; call it for each")
    options = RunOptions(
        model=model if isinstance(model, str) else model.info.name,
        checkpoint=None if checkpoint is None else str(checkpoint),
        revision=revision,
        data_root=None if data_root is None else Path(data_root),
        split=targets[0].split,
        protocol=protocol,
        limit=limit,
        sample_ids=(sample_id,) if isinstance(sample_id, str) else tuple(sample_id),
        batch_size=None if isinstance(batch_size, str) else batch_size,
        max_tiles=max_tiles,
        gen=tuple(f"{name}={value}" for name, value in (gen or {}).items()),
        dtype=dtype,
        compile=compile,
        device=device,
        seed=seed,
        output=Path(output),
        resume=resume,
        max_errors=MaxErrors(),
        judge=judge_options(judge, judge_model),
        base_url=base_url,
        offline=offline,
        quiet=quiet,
        devices=devices,
        engine=engine,
        ray_address=ray_address,
        cpus_per_worker=cpus_per_worker,
        ship_data=ship_data,
        worker_timeout=worker_timeout,
    )
    options.check()
    if not isinstance(model, str):
        return run_task(targets[0].task, as_engine(model), options)
    loaded = load_model(options)
    try:
        return run_task(targets[0].task, loaded, options)
    finally:
        loaded.close()
